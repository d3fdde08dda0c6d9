/* SPDX-License-Identifier: MIT
 *
 * Moves random directions apart, as SynthSAEBench does: Adam on sum_{i != j} (e_i.e_j)^2 + n sum_i (|e_i|^2 - 1)^2.
 * With G = E^T E its gradient is 4 (e_i G - |e_i|^2 e_i) + 4 n (|e_i|^2 - 1) e_i, so that n d^2 products do, not n^2 d.
 * All sums are in a fixed order: the same directions everywhere.
 */
#include "base/elementary.h"
#include "data/synth.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

typedef struct work {
    uint64_t n, d;
    float *e, *turned;          /* [n, d], [d, n] */
    float *gram;                /* [d, d] */
    float *m, *v;               /* [n, d] */
    float *gradient;            /* [workers, d] */
    ams_adam adam;
} work;

static void turn(void *arg, uint64_t j, unsigned worker)
{
    work *w = arg;
    (void)worker;
    for (uint64_t i = 0; i < w->n; i++)
        w->turned[j * w->n + i] = w->e[i * w->d + j];
}

static void gram_row(void *arg, uint64_t j, unsigned worker)
{
    work *w = arg;
    (void)worker;
    ams_dot_rows(w->turned, w->n, j + 1, w->turned + j * w->n, w->n, w->gram + j * w->d);
    for (uint64_t k = 0; k < j; k++)
        w->gram[k * w->d + j] = w->gram[j * w->d + k]; /* written once: the rows above end before column j */
}

static void move_row(void *arg, uint64_t i, unsigned worker)
{
    work *w = arg;
    float *e = w->e + i * w->d, *g = w->gradient + (uint64_t)worker * w->d;
    double squares = (double)ams_dot(e, e, w->d), own = (double)w->n * (squares - 1) - squares;
    ams_dot_rows(w->gram, w->d, w->d, e, w->d, g);
    for (uint64_t j = 0; j < w->d; j++)
        g[j] = (float)(4 * ((double)g[j] + own * (double)e[j]));
    ams_adam_row(e, w->m + i * w->d, w->v + i * w->d, g, 1, w->d, &w->adam);
}

atmsae_status ams_synth_orthogonalise(atmsae_synth *synth, uint64_t steps, double lr)
{
    atmsae_context *ctx = synth->ctx;
    uint64_t n = synth->features, d = synth->config.d;
    if (steps == 0) return ATMSAE_OK;
    work w = {.n = n, .d = d, .e = synth->directions};
    w.turned = ams_alloc(ctx, n * d, sizeof(float));
    w.gram = ams_alloc(ctx, d * d, sizeof(float));
    w.m = ams_calloc(ctx, n * d, sizeof(float));
    w.v = ams_calloc(ctx, n * d, sizeof(float));
    w.gradient = ams_alloc(ctx, d * ams_workers(ctx), sizeof(float));
    bool good = w.turned && w.gram && w.m && w.v && w.gradient;
    for (uint64_t t = 1; good && t <= steps; t++) {
        ams_parallel(ctx, d, turn, &w);
        ams_parallel(ctx, d, gram_row, &w);
        w.adam = (ams_adam){.beta1 = 0.9f, .rest1 = (float)(1 - 0.9), .beta2 = 0.999f, .rest2 = (float)(1 - 0.999),
                            .eps = 1e-8f, .rate = (float)(lr / (1 - ams_pow(0.9, (double)t))),
                            .inv_c2 = (float)(1 / sqrt(1 - ams_pow(0.999, (double)t)))};
        ams_parallel(ctx, n, move_row, &w);
    }
    for (uint64_t i = 0; good && i < n; i++) {
        double norm = ams_norm(w.e + i * d, d);
        for (uint64_t j = 0; j < d; j++)
            w.e[i * d + j] = (float)((double)w.e[i * d + j] / fmax(norm, 1e-8));
    }
    void *memory[] = {w.turned, w.gram, w.m, w.v, w.gradient};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return good ? ATMSAE_OK : ams_nomem(ctx, "a generator's directions");
}
