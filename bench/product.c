/* SPDX-License-Identifier: MIT */
#include "product.h"

#include <blis.h>
#include <stdint.h>

void bench_product(size_t m, size_t n, size_t k, const float *a, const float *b, float *c, unsigned threads)
{
    float one = 1, zero = 0;
    rntm_t rntm;
    bli_rntm_init(&rntm);
    bli_rntm_set_num_threads((dim_t)threads, &rntm);
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_TRANSPOSE, (dim_t)m, (dim_t)n, (dim_t)k, &one, (float *)(uintptr_t)a,
                 (inc_t)k, 1, (float *)(uintptr_t)b, (inc_t)k, 1, &zero, c, (inc_t)n, 1, NULL, &rntm);
}

const char *bench_blis(void) { return bli_arch_string(bli_arch_query_id()); }
