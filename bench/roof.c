/* SPDX-License-Identifier: MIT
 *
 * bench_roof: what this machine can do at most, as words key=value: GFLOP/s of fp32 products (best of
 * three sizes), and GB/s of memory, on 1 thread and on all.
 *
 *     bench_roof [--threads N] [--steps N]
 */
#include "memory.h"
#include "product.h"
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FLOATS = 1 << 26 }; /* 256 MB an array, beyond any cache */

static double product_gflops(unsigned threads, size_t steps)
{
    static const size_t size[3][3] = {{4096, 768, 4096}, {2048, 2304, 4096}, {4096, 576, 4096}};
    double best = 0;
    for (int s = 0; s < 3; s++) {
        const size_t n = size[s][0], d = size[s][1], F = size[s][2];
        float *a = bench_alloc(n * d, sizeof *a), *b = bench_alloc(F * d, sizeof *b), *c = bench_alloc(n * F, sizeof *c);
        for (size_t i = 0; i < n * d; i++)
            a[i] = 1;
        for (size_t i = 0; i < F * d; i++)
            b[i] = 1;
        for (size_t i = 0; i < 2 * steps; i++) {
            double t = bench_now();
            bench_product(n, F, d, a, b, c, threads, i % 2 == 0);
            best = fmax(best, 2e-9 * (double)n * (double)d * (double)F / (bench_now() - t));
        }
        free(a); free(b); free(c);
    }
    return best;
}

int main(int argc, char **argv)
{
    bench_options o = bench_parse(argc, argv);
    atmsae_context_destroy(bench_context(&o));
    const unsigned counts[2] = {1, (unsigned)o.threads};
    printf("blis=%s kernels=%s threads=%zu", bench_blis_version(), bench_blis_kernels(), o.threads);
    for (int i = 0; i < 2; i++)
        printf(" gflops_%s=%.1f", i ? "all" : "1", product_gflops(counts[i], o.steps));
    float *a = bench_alloc(FLOATS, sizeof *a), *b = bench_alloc(FLOATS, sizeof *b), *c = bench_alloc(FLOATS, sizeof *c);
    for (size_t i = 0; i < FLOATS; i++)
        a[i] = b[i] = c[i] = 1; /* all pages present */
    static const char *const name[BENCH_STREAMS] = {"read", "copy", "triad"};
    for (int kind = 0; kind < BENCH_STREAMS; kind++)
        for (int i = 0; i < 2; i++) {
            double best = 0;
            for (size_t s = 0; s < o.steps; s++)
                best = fmax(best, 1e-9 * (double)bench_stream_bytes(kind, FLOATS) / bench_stream(kind, a, b, c, FLOATS, counts[i]));
            printf(" %s_%s=%.2f", name[kind], i ? "all" : "1", best);
        }
    printf("\n");
    free(a); free(b); free(c);
    return 0;
}
