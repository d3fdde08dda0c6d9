/* SPDX-License-Identifier: MIT */
#include "memory.h"
#include "worker.h"

#include <pthread.h>
#include <string.h>

enum { MOST_THREADS = 256 };

typedef struct pass {
    int kind;
    float *a, *b, *c;
    size_t count;
    uint64_t sum;
} pass;

static uint64_t sum_of(const float *a, size_t count)
{
    uint64_t lane[32] = {0}; /* more than the vector registers need to hide the latency of additions */
    for (size_t i = 0; i + 64 <= count; i += 64) {
        uint64_t block[32];
        memcpy(block, a + i, sizeof block);
        for (int l = 0; l < 32; l++)
            lane[l] += block[l];
    }
    for (int l = 1; l < 32; l++)
        lane[0] += lane[l];
    return lane[0];
}

static void *run_pass(void *arg)
{
    pass *p = arg;
    switch (p->kind) {
    case BENCH_READ: p->sum = sum_of(p->a, p->count); break;
    case BENCH_COPY: memcpy(p->b, p->a, p->count * sizeof *p->a); break;
    default:
        for (size_t i = 0; i < p->count; i++)
            p->c[i] = p->a[i] + 3 * p->b[i];
    }
    return NULL;
}

double bench_stream(int kind, float *a, float *b, float *c, size_t count, unsigned threads)
{
    pass p[MOST_THREADS];
    pthread_t id[MOST_THREADS];
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    unsigned started = 1;
    double t = bench_now();
    for (unsigned i = 0; i < threads; i++) {
        size_t first = count * i / threads / 64 * 64, last = i + 1 == threads ? count : count * (i + 1) / threads / 64 * 64;
        p[i] = (pass){kind, a + first, b ? b + first : NULL, c ? c + first : NULL, last - first, 0};
    }
    while (started < threads && pthread_create(&id[started], NULL, run_pass, &p[started]) == 0)
        started++;
    run_pass(&p[0]);
    for (unsigned i = started; i < threads; i++)
        run_pass(&p[i]);
    volatile uint64_t sink = p[0].sum; /* keeps the reads */
    for (unsigned i = 1; i < started; i++) {
        pthread_join(id[i], NULL);
        sink += p[i].sum;
    }
    (void)sink;
    return bench_now() - t;
}

size_t bench_stream_bytes(int kind, size_t count)
{
    return count * sizeof(float) * (kind == BENCH_READ ? 1 : kind == BENCH_COPY ? 2 : 3);
}
