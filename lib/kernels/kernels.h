/* SPDX-License-Identifier: MIT
 *
 * Arithmetic on rows of floats. All of it is defined down to the order of additions, so every
 * vector level gives the same bits; the matrix products (gemm.c) are the one exception, and only
 * propose candidates, or serve solvers (eval/) whose end does not depend on them.
 */
#ifndef AMS_KERNELS_H
#define AMS_KERNELS_H

#include "base/base.h"

/* Sum of a[j] * b[j]: lane l = j mod 64 accumulates its products in order, then the 64 lanes are
 * added in halves (l with l + 32, l + 16, ...). No fused multiply-add. */
float ams_dot(const float *a, const float *b, uint64_t n);
/* Euclidean norm, right where the squares would leave a float's range. */
double ams_norm(const float *x, uint64_t n);
/* out[i] = ams_dot(rows + i * ld, x, n) for i = 0 .. count-1. */
void ams_dot_rows(const float *rows, uint64_t ld, uint64_t count, const float *x, uint64_t n, float *out);
/* Asks for a row that will be read soon: rows come from all over memory, which no CPU guesses. */
static inline void ams_prefetch(const float *row, uint64_t n)
{
    for (uint64_t j = 0; j < n; j += 16)
        __builtin_prefetch(row + j);
}
/* y[j] += a * x[j] */
void ams_axpy(float *y, float a, const float *x, uint64_t n);
/* y[j] += a[e] * rows[(at[e] - first) * 64 + j] for j < 64 and each of the count entries e, in their order. */
void ams_gather_64(float *y, const float *a, const uint32_t *at, uint32_t first, const float *rows, uint64_t count);
/* One step of Adam on n elements: scale * g is the gradient; g NULL: zeros.
 * m = beta1 m + rest1 g, v = beta2 v + rest2 g g, w -= rate * m / (sqrt(v) * inv_c2 + eps),
 * where |m| < 1e-30 and v < 1e-36 become 0. */
typedef struct ams_adam {
    float beta1, rest1, beta2, rest2; /* rest = 1 - beta, rounded once: 1 - 0.999f is 5e-5 off */
    float eps, rate /* lr / (1 - beta1^t) */, inv_c2 /* 1 / sqrt(1 - beta2^t) */;
} ams_adam;
void ams_adam_row(float *w, float *m, float *v, const float *g, float scale, uint64_t n, const ams_adam *adam);
/* Indices j < n with x[j] + bias[j] > limit, ascending; returns how many were written to hits. */
uint64_t ams_scan(const float *x, const float *bias, float limit, uint64_t n, uint32_t *hits);
/* The same with a limit for each j: x[j] + bias[j] > limit[j] - slack. */
uint64_t ams_scan_each(const float *x, const float *bias, const float *limit, float slack, uint64_t n, uint32_t *hits);

/* Sixteen draws of ams_philox, word by word: out[w * 16 + i] = word w at position (a + i, b); a % 16 = 0. */
void ams_philox_16(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t out[64]);
/* Which of 64 uniforms u[j] = words[j] 2^-32 may be below Q((threshold[j] - g[j]) / own[j]), Q the tail of the normal
 * distribution? Bit j is 0 where u[j] is certainly not below it, and nearly always where it is not. per_own: 1 / own.
 * threshold may be infinite; finite ones are within 40 of 0; own is at least 0.1.
 *
 * Rejected is c = (threshold - g) / own > 0 with log2 u >= -(t0 + t1 c + t2 c^2), u rounded down to 31 bits and not 0,
 * and its logarithm interpolated between powers of two, which is below the curve. The polynomial is 0.003 .. 0.17
 * below -log2 Q on 0 < c < 5, and at least 0.003 below up to c = 6.4, from where on Q < 2^-32 (test_kernels measures it).
 * Rounding is worth less than 0.0003: of the threshold, 40 * 2^-24 / 0.1 in c, times the slope of log2 Q, at most 10;
 * the rest is smaller by far. */
#define AMS_TAIL_0 0.872f
#define AMS_TAIL_1 1.0f
#define AMS_TAIL_2 0.628f
uint64_t ams_below_tail_64(const uint32_t *words, const float *g, const float *threshold, const float *per_own);

/* Rows of ATMSAE_F32, F16 or BF16 to f32. */
void ams_to_f32(float *out, const void *in, int32_t type, uint64_t n);
size_t ams_type_size(int32_t type); /* 0: not one of ours */
/* Bits of a float, for half formats. */
float ams_f16_to_f32(uint16_t half);
/* True if all n are finite. */
bool ams_all_finite(const float *x, uint64_t n);

/* "avx2, BLIS 0.9.0 haswell" */
void ams_kernels_describe(char *out, size_t capacity);
/* Warns through the log hook when BLIS chose slower kernels than the CPU offers. */
void ams_gemm_check(atmsae_context *ctx);
/* Makes BLIS take its memory now, for as many products at once as the context has threads. */
void ams_gemm_warm_up(atmsae_context *ctx);
/* C [m, n] = A [m, k] B^T, B [n, k], row-major with leading dimensions, on the calling thread.
 * Sizes are > 0 and below 2^31. */
void ams_gemm_abt(uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda, const float *b,
                  uint64_t ldb, float *c, uint64_t ldc);
/* The same with B [k, n]: C = A B. And both in double precision. */
void ams_gemm_ab(uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda, const float *b,
                 uint64_t ldb, float *c, uint64_t ldc);
void ams_gemm_abt_f64(uint64_t m, uint64_t n, uint64_t k, const double *a, uint64_t lda, const double *b,
                      uint64_t ldb, double *c, uint64_t ldc);
void ams_gemm_ab_f64(uint64_t m, uint64_t n, uint64_t k, const double *a, uint64_t lda, const double *b,
                     uint64_t ldb, double *c, uint64_t ldc);

/* ---- selection --------------------------------------------------------------------------------- */

/* One candidate of a top-k. Order: larger value first, then lower row, then lower latent. */
typedef struct ams_entry {
    float value;
    uint32_t row, latent;
} ams_entry;
static inline bool ams_before(const ams_entry *a, const ams_entry *b)
{
    if (a->value != b->value) return a->value > b->value;
    if (a->row != b->row) return a->row < b->row;
    return a->latent < b->latent;
}
/* The k-th largest of n values, 1 <= k <= n, no NaN. Overwrites values and rest [n]. */
float ams_kth(float *values, float *rest, uint64_t n, uint64_t k);
/* Reorders so that the first k of n entries are the first k in that order; entry k-1 is the last of
 * them. 1 <= k <= n. Entries are distinct in (row, latent), values not NaN. */
void ams_select(ams_entry *entries, uint64_t n, uint64_t k);

#endif
