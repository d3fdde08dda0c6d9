/* SPDX-License-Identifier: MIT */
#include "product.h"

#include <blis.h>
#include <pthread.h>
#include <stdint.h>

enum { MOST_THREADS = 256 };

typedef struct slice {
    size_t m, n, k, ldc;
    const float *a, *b;
    float *c;
    unsigned threads;
} slice;

static void *multiply(void *arg)
{
    const slice *s = arg;
    float one = 1, zero = 0;
    rntm_t rntm;
    bli_rntm_init(&rntm);
    bli_rntm_set_num_threads((dim_t)s->threads, &rntm);
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_TRANSPOSE, (dim_t)s->m, (dim_t)s->n, (dim_t)s->k, &one,
                 (float *)(uintptr_t)s->a, (inc_t)s->k, 1, (float *)(uintptr_t)s->b, (inc_t)s->k, 1, &zero, s->c,
                 (inc_t)s->ldc, 1, NULL, &rntm);
    return NULL;
}

void bench_product(size_t m, size_t n, size_t k, const float *a, const float *b, float *c, unsigned threads, int split)
{
    slice s[MOST_THREADS];
    pthread_t id[MOST_THREADS];
    unsigned parts = split && threads > 1 ? (threads < MOST_THREADS ? threads : MOST_THREADS) : 1, started = 1;
    for (unsigned i = 0; i < parts; i++) {
        size_t first = n * i / parts, last = n * (i + 1) / parts;
        s[i] = (slice){m, last - first, k, n, a, b + first * k, c + first, split ? 1 : threads};
    }
    while (started < parts && pthread_create(&id[started], NULL, multiply, &s[started]) == 0)
        started++;
    multiply(&s[0]);
    for (unsigned i = started; i < parts; i++)
        multiply(&s[i]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(id[i], NULL);
}

const char *bench_blis_version(void) { return bli_info_get_version_str(); }
const char *bench_blis_kernels(void) { return bli_arch_string(bli_arch_query_id()); }
