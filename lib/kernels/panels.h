/* SPDX-License-Identifier: MIT
 *
 * The dense product with 16-bit inputs. Like ams_gemm_abt it only proposes candidates; how far it can be
 * from the product of the f32 rows is ams_product_bound. Both sides are packed once, by any number of
 * threads, and then multiplied tile by tile.
 *
 * Inputs are integers, each row scaled by a power of two so that no sum of products leaves an int32
 * (Cauchy-Schwarz): sums are then exact, and the same in any order. CPUs make two such multiplications in
 * the time of one in f32. Or they are bf16, which AMX multiplies faster still.
 */
#ifndef AMS_PANELS_H
#define AMS_PANELS_H

#include "base/base.h"

/* A way to make the product. All give values within ams_product_bound of the exact ones, those of
 * integers the same to the bit. */
typedef struct ams_product ams_product;
enum { AMS_INT16_PORTABLE, AMS_INT16_AVX2, AMS_INT16_VNNI, AMS_BF16_PORTABLE, AMS_BF16_AMX, AMS_PRODUCTS };
/* NULL: not on this CPU. AMX: not before ams_product_request_amx. */
const ams_product *ams_product_find(unsigned which);
const char *ams_product_name(const ams_product *product); /* "int16 (avx2)" */
/* What is faster here than BLIS in f32; NULL: nothing. */
const ams_product *ams_product_fastest(void);
/* AMX; NULL: not here. Linux is asked for the tile registers: for the whole process, for good. Signal
 * frames of threads that use tiles then take 8 KB more, and sigaltstack refuses stacks too small for that;
 * if one such is installed the kernel says no. Hence never called on loading or by default, but where the
 * caller has asked for this precision. May be called any number of times, by any thread. */
const ams_product *ams_product_request_amx(void);

/* Rows are packed in panels of 32, d is padded to a multiple of 32, both with zeros. Row r of a packed
 * matrix, r a multiple of 32, starts at element r * ams_panel_depth(d). */
enum { AMS_PANEL = 32 };
static inline uint64_t ams_panel_rows(uint64_t n) { return (n + AMS_PANEL - 1) / AMS_PANEL * AMS_PANEL; }
static inline uint64_t ams_panel_depth(uint64_t d) { return (d + 31) / 32 * 32; }
static inline uint64_t ams_panel_size(uint64_t n, uint64_t d) /* elements; no overflow if n * d floats exist */
{
    return ams_panel_rows(n) * ams_panel_depth(d);
}
/* Packed rows. Pieces of a matrix can be packed apart, if they start at multiples of 32. */
typedef struct ams_panels {
    uint16_t *values; /* [ams_panel_size(n, d)], aligned to 64 bytes */
    float *scale;     /* [ams_panel_rows(n)] of a row's integers: a power of two */
    float *error;     /* [n] at least |x - what x was rounded to|; INFINITY: too large for this product */
} ams_panels;
static inline ams_panels ams_panels_from(const ams_panels *p, uint64_t row, uint64_t d) /* row: a multiple of 32 */
{
    return (ams_panels){p->values + row * ams_panel_depth(d), p->scale + row, p->error + row};
}
/* Packs rows list[0] .. list[n-1] (list NULL: 0 .. n-1) of [.., ld] finite floats as the left (a) or right
 * (b) side. Values are rounded to nearest even; beyond bf16's range they become its largest value, below
 * 2^-126 zero. */
void ams_pack_a(const ams_product *product, const ams_panels *out, const float *rows, uint64_t ld, const uint32_t *list,
                uint64_t n, uint64_t d);
void ams_pack_b(const ams_product *product, const ams_panels *out, const float *rows, uint64_t ld, const uint32_t *list,
                uint64_t n, uint64_t d);

/* C [m, n] = A B^T on the calling thread; a and b at the starts of panels. Writes m x n values, whatever
 * the panels hold. Leaves no tile state behind. */
void ams_panels_multiply(const ams_product *product, uint64_t m, uint64_t n, uint64_t d, const ams_panels *a,
                         const ams_panels *b, float *c, uint64_t ldc);

/* At most |value of the product - x . w|, from the norms of the f32 rows (1 % of error in them is allowed
 * for) and their packing errors; of many rows, the largest. INFINITY: the values say nothing. */
double ams_product_bound(const ams_product *product, uint64_t d, double x_norm, double x_error, double w_norm, double w_error);

#endif
