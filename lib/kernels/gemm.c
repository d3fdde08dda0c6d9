/* SPDX-License-Identifier: MIT
 *
 * The dense product, by BLIS. The only file that includes blis.h (which defines hundreds of short
 * macros) and the only caller of it.
 */
#include <blis.h>
#include "kernels.h"
#include "vec.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* The per-call thread setting (rntm_t) changed its layout between BLIS 0.9, 1.0 and 2.x under one
 * soname, so it is used only where the loaded BLIS is the one we were compiled against. Elsewhere a
 * product runs with BLIS's own thread settings, which is right but may oversubscribe. */
static int same_blis(void) { return strcmp(bli_info_get_version_str(), AMS_BLIS_BUILD_VERSION) == 0; }

/* B is [n, k] (TRANSPOSE) or [k, n]. BLIS takes no const. */
// NOLINTBEGIN(bugprone-macro-parentheses): a type cannot have them
#define DEFINE_GEMM(name, type, blis, transpose)                                                          \
    void name(uint64_t m, uint64_t n, uint64_t k, const type *a, uint64_t lda, const type *b, uint64_t ldb, \
              type *c, uint64_t ldc)                                                                      \
    {                                                                                                     \
        type one = 1, zero = 0, *a_arg = (type *)(uintptr_t)a, *b_arg = (type *)(uintptr_t)b;              \
        dim_t mm = (dim_t)m, nn = (dim_t)n, kk = (dim_t)k;                                                \
        inc_t rsa = (inc_t)lda, rsb = (inc_t)ldb, rsc = (inc_t)ldc;                                       \
        if (same_blis()) {                                                                                \
            rntm_t rntm;                                                                                  \
            bli_rntm_init(&rntm);                                                                         \
            bli_rntm_set_num_threads(1, &rntm);                                                           \
            blis##_ex(BLIS_NO_TRANSPOSE, transpose, mm, nn, kk, &one, a_arg, rsa, 1, b_arg, rsb, 1, &zero, \
                      c, rsc, 1, NULL, &rntm);                                                            \
        } else {                                                                                          \
            blis(BLIS_NO_TRANSPOSE, transpose, mm, nn, kk, &one, a_arg, rsa, 1, b_arg, rsb, 1, &zero, c, rsc, 1); \
        }                                                                                                 \
    }
// NOLINTEND(bugprone-macro-parentheses)
DEFINE_GEMM(ams_gemm_abt, float, bli_sgemm, BLIS_TRANSPOSE)
DEFINE_GEMM(ams_gemm_ab, float, bli_sgemm, BLIS_NO_TRANSPOSE)
DEFINE_GEMM(ams_gemm_abt_f64, double, bli_dgemm, BLIS_TRANSPOSE)
DEFINE_GEMM(ams_gemm_ab_f64, double, bli_dgemm, BLIS_NO_TRANSPOSE)

/* bli_init first: BLIS 0.9 aborts where BLIS_ARCH_TYPE is set and the question comes before it. */
static const char *blis_kernels(void)
{
    bli_init();
    return bli_arch_string(bli_arch_query_id());
}

void ams_kernels_describe(char *out, size_t capacity)
{
    ams_format(out, capacity, "%s, BLIS %s %s", ams_vec_level(ams_vec_levels() - 1)->name,
               bli_info_get_version_str(), blis_kernels());
}

void ams_gemm_check(atmsae_context *ctx)
{
    if (!same_blis())
        ams_log(ctx, ATMSAE_LOG_WARNING, "built with BLIS %s, running with %s: products may use more threads than set",
                AMS_BLIS_BUILD_VERSION, bli_info_get_version_str());
#if defined(__x86_64__)
    /* BLIS 0.9 does not recognise virtual AVX-512 machines by name and falls back to AVX2. */
    if (!ams_product_of(ctx) && ams_vec_levels() == 3 && strcmp(blis_kernels(), "haswell") == 0)
        ams_log(ctx, ATMSAE_LOG_WARNING,
                "BLIS chose its haswell kernels on a CPU with AVX-512; setting the environment variable "
                "BLIS_ARCH_TYPE=0 (skx) before the program starts makes training up to 1.7 times as fast");
#endif
}

/* ---- warm-up -------------------------------------------------------------------------------------- */

/* BLIS takes packing buffers and control blocks from pools that grow while more products run at once
 * than ever before, and aborts when that fails. So every thread makes one product here, all at the
 * same time; with as many at a time later ones find what they need. Left are what the flavours built
 * for threads take and give back in each product: OpenMP one block of 1.5 KB, pthreads two of 100
 * bytes, the serial one nothing. */
enum { WARM_MN = 128, WARM_K = 512 }; /* some 0.3 ms, long enough to overlap */

typedef struct warm_up {
    const float *ab; /* zeros: [WARM_MN, WARM_K] */
    float *c;        /* [threads, WARM_MN, WARM_MN] */
    unsigned threads;
    atomic_uint arrived;
} warm_up;

static void warm_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    warm_up *w = arg;
    atomic_fetch_add(&w->arrived, 1);
    const clock_t patience = CLOCKS_PER_SEC / 200; /* 5 ms of the process's time: overlap is a wish */
    for (clock_t from = clock(); atomic_load(&w->arrived) < w->threads && clock() - from < patience;)
        sched_yield();
    float one = 1, zero = 0, *ab = (float *)(uintptr_t)w->ab;
    rntm_t rntm;
    bli_rntm_init(&rntm);
    bli_rntm_set_num_threads(1, &rntm);
    bli_rntm_disable_l3_sup(&rntm); /* the way of large products, which packs */
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_TRANSPOSE, WARM_MN, WARM_MN, WARM_K, &one, ab, WARM_K, 1, ab, WARM_K, 1,
                 &zero, w->c + job * WARM_MN * WARM_MN, WARM_MN, 1, NULL, &rntm);
}

void ams_gemm_warm_up(atmsae_context *ctx)
{
    if (!same_blis()) return;
    unsigned threads = ams_workers(ctx);
    float *ab = ams_calloc(ctx, (uint64_t)WARM_MN * WARM_K, sizeof *ab);
    float *c = ams_alloc(ctx, (uint64_t)threads * WARM_MN * WARM_MN, sizeof *c);
    warm_up w = {.ab = ab, .c = c, .threads = threads};
    if (ab && c) ams_parallel(ctx, threads, warm_job, &w);
    ams_free(ctx, ab);
    ams_free(ctx, c);
}
