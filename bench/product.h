/* SPDX-License-Identifier: MIT
 *
 * The unit of all times: one fp32 product of n x d by d x F.
 */
#ifndef BENCH_PRODUCT_H
#define BENCH_PRODUCT_H

#include <stddef.h>

/* C [m, n] = A [m, k] B^T, B [n, k], by BLIS on `threads` threads. */
void bench_product(size_t m, size_t n, size_t k, const float *a, const float *b, float *c, unsigned threads);
const char *bench_blis(void);

#endif
