/* SPDX-License-Identifier: MIT
 *
 * The unit of all times: one fp32 product of n x d by d x F.
 */
#ifndef BENCH_PRODUCT_H
#define BENCH_PRODUCT_H

#include <stddef.h>

/* C [m, n] = A [m, k] B^T, B [n, k]. `split`: each thread makes the product of its own slice of B, with
 * a single-threaded BLIS; else BLIS's own threads, which wait for each other at barriers. */
void bench_product(size_t m, size_t n, size_t k, const float *a, const float *b, float *c, unsigned threads, int split);
const char *bench_blis_version(void);
const char *bench_blis_kernels(void);

#endif
