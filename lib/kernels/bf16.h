/* SPDX-License-Identifier: MIT
 *
 * The dense product with bf16 inputs and f32 sums. Like ams_gemm_abt it only proposes candidates; how
 * far it can be from the product of the f32 rows is ams_bf16_bound. Both sides are packed once, by any
 * number of threads, and then multiplied tile by tile.
 */
#ifndef AMS_BF16_H
#define AMS_BF16_H

#include "base/base.h"

/* How a product is computed. The portable level has VDPBF16PS's order, to the bit (but for the sign of
 * zeros) as Intel defines it; TDPBF16PS has another. All are within ams_bf16_bound of the exact value. */
enum { AMS_BF16_PORTABLE = 0, AMS_BF16_AVX512 = 1, AMS_BF16_AMX = 2 };
/* The levels that CPU and operating system offer: 0 .. ams_bf16_levels() - 1, slowest first. */
unsigned ams_bf16_levels(void);
/* The fastest level that this process may use. Where that is AMX, Linux is asked for the tile registers:
 * for the whole process, for good. Signal frames of threads that use tiles then take 8 KB more, and
 * sigaltstack refuses stacks too small for that; if one such is installed the kernel says no, and the
 * level is the next lower. Hence never called on loading or by default, but where the caller has asked
 * for this precision. May be called any number of times, by any thread. */
unsigned ams_bf16_request(void);
const char *ams_bf16_name(unsigned level); /* "portable", "avx512bf16", "amx" */

/* Rows are packed in panels of 32, d is padded to a multiple of 32, both with zeros. Row r of a packed
 * matrix, r a multiple of 32, starts at element r * ams_bf16_depth(d). */
enum { AMS_BF16_PANEL = 32 };
static inline uint64_t ams_bf16_depth(uint64_t d) { return (d + 31) / 32 * 32; }
static inline uint64_t ams_bf16_size(uint64_t n, uint64_t d) /* elements; no overflow if n * d floats exist */
{
    return (n + AMS_BF16_PANEL - 1) / AMS_BF16_PANEL * AMS_BF16_PANEL * ams_bf16_depth(d);
}
/* Packs rows list[0] .. list[n-1] (list NULL: 0 .. n-1) of [.., ld] finite floats as the left (a) or
 * right (b) side. Values are rounded to nearest even; beyond bf16's range they become its largest
 * value, below 2^-126 zero. error (NULL: not wanted) [n]: at least |x - bf16(x)| of each row. out is
 * aligned to 64 bytes. Pieces of a matrix can be packed apart, if they start at multiples of 32. */
void ams_bf16_pack_a(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d,
                     float *error);
void ams_bf16_pack_b(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d,
                     float *error);

/* C [m, n] = A B^T on the calling thread; a and b at the starts of panels. Writes m x n values, whatever
 * the panels hold. Leaves no tile state behind. */
void ams_bf16_product(unsigned level, uint64_t m, uint64_t n, uint64_t d, const uint16_t *a, const uint16_t *b,
                      float *c, uint64_t ldc);

/* At most |value of ams_bf16_product - x . w|, at every level, from the norms of the f32 rows (1 % of
 * error in them is allowed for) and their packing errors; of many rows, the largest. INFINITY where sums
 * could leave a float's range: then the values say nothing. */
double ams_bf16_bound(uint64_t d, double x_norm, double x_error, double w_norm, double w_error);

#endif
