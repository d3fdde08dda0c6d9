/* SPDX-License-Identifier: MIT
 *
 * Instead of gemm.c where there is no BLIS (inference_only). The product only proposes candidates, so
 * results are the same; batches of more than a few rows take longer.
 */
#include "kernels.h"
#include "vec.h"

void ams_gemm_abt(uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda, const float *b, uint64_t ldb,
                  float *c, uint64_t ldc)
{
    for (uint64_t i = 0; i < m; i++) ams_dot_rows(b, ldb, n, a + i * lda, k, c + i * ldc);
}

void ams_kernels_describe(char *out, size_t capacity)
{
    ams_format(out, capacity, "%s, no BLIS", ams_vec_level(ams_vec_levels() - 1)->name);
}

void ams_gemm_check(atmsae_context *ctx) { (void)ctx; }
void ams_gemm_warm_up(atmsae_context *ctx) { (void)ctx; }
