/* SPDX-License-Identifier: MIT
 *
 * bench_unit: the fp32 product n x d x F by BLIS, alone in its process so that BLIS_ARCH_TYPE can choose
 * the kernels. Both ways of using the threads are timed; the unit is the faster.
 *
 *     bench_unit [--d N] [--F N] [--n N] [--threads N] [--steps N] [--serve]
 */
#include "product.h"
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void fill(float *x, size_t n)
{
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) * 0x1p-23f - 1;
    }
}

int main(int argc, char **argv)
{
    bench_options o = bench_parse(argc, argv);
    atmsae_context_destroy(bench_context(&o));
    float *a = bench_alloc(o.n * o.d, sizeof *a), *b = bench_alloc(o.F * o.d, sizeof *b), *c = bench_alloc(o.n * o.F, sizeof *c);
    fill(a, o.n * o.d);
    fill(b, o.F * o.d);
    double best[2] = {INFINITY, INFINITY};
    for (int split = 0; split < 2; split++)
        bench_product(o.n, o.F, o.d, a, b, c, (unsigned)o.threads, split);
    if (o.serve) printf("ready kernels=%s\n", bench_blis_kernels());
    for (size_t i = 0; o.serve ? bench_next() : i < o.steps; i++) {
        double t[2][BENCH_MOST];
        const double end = bench_now() + BENCH_TURN;
        size_t n = 0;
        do {
            for (int split = 0; split < 2; split++) {
                const double begin = bench_now();
                bench_product(o.n, o.F, o.d, a, b, c, (unsigned)o.threads, split);
                t[split][n] = bench_now() - begin;
                best[split] = fmin(best[split], t[split][n]);
            }
        } while (o.serve && ++n < BENCH_MOST && bench_now() < end);
        if (o.serve) printf("blis=%.6f split=%.6f\n", bench_median(t[0], n), bench_median(t[1], n));
    }
    if (o.serve) printf("end\n");
    else printf("%s %.1f GFLOP/s\n", bench_blis_kernels(), 2e-9 * (double)o.n * (double)o.d * (double)o.F / fmin(best[0], best[1]));
    free(a); free(b); free(c);
    return 0;
}
