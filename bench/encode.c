/* SPDX-License-Identifier: MIT
 *
 * bench_encode: inference. A single row, against one read of W_enc from memory, and a batch.
 *
 *     bench_encode [--arch topk|batchtopk|jumprelu] [--d N] [--F N] [--n N] [--k N] [--threads N] [--steps N] [--serve]
 *
 * Before every single row, and before the read, other memory is gone through, so that neither finds
 * W_enc in a cache. The read is the fastest of one thread and all.
 */
#include "memory.h"
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OTHER = 1 << 25, SINGLES = 9, WARM = 8 }; /* 128 MB of floats */

typedef struct bench {
    bench_options o;
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    atmsae_codes *codes;
    float *x, *other;
    size_t count;
} bench;

static void set_up(bench *b)
{
    b->ctx = bench_context(&b->o);
    b->x = bench_rows(b->ctx, b->o.n, b->o.d, &b->count);
    b->other = bench_alloc(OTHER, sizeof *b->other);
    memset(b->other, 1, OTHER * sizeof *b->other);
    atmsae_model_config mc;
    atmsae_model_config_init(&mc, sizeof mc);
    mc.d_in = b->o.d;
    mc.d_sae = b->o.F;
    mc.k = (double)b->o.k;
    if (!strcmp(b->o.arch, "topk")) mc.activation = ATMSAE_TOPK;
    else if (!strcmp(b->o.arch, "jumprelu")) mc.activation = ATMSAE_JUMPRELU, mc.init_threshold = 4;
    atmsae_trainer_config tc;
    atmsae_trainer_config_init(&tc, sizeof tc);
    tc.model = &mc;
    bench_must(atmsae_trainer_create(b->ctx, &tc, &b->trainer), b->ctx);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = b->o.n < 1024 ? b->o.n : 1024;
    batch.x = b->x;
    bench_must(atmsae_trainer_prepare(b->trainer, &batch), b->ctx);
    for (int i = 0; i < WARM; i++)
        bench_must(atmsae_trainer_step(b->trainer, &batch, NULL), b->ctx);
    bench_must(atmsae_trainer_calibrate(b->trainer, &batch), b->ctx);
    bench_must(atmsae_codes_create(b->ctx, &b->codes), b->ctx);
}

static double encode(bench *b, size_t first, size_t rows)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = rows;
    batch.x = b->x + first * b->o.d;
    double t = bench_now();
    bench_must(atmsae_encode(atmsae_trainer_model(b->trainer), &batch, b->codes), b->ctx);
    return bench_now() - t;
}

static void forget_caches(bench *b) { bench_stream(BENCH_READ, b->other, NULL, NULL, OTHER, (unsigned)b->o.threads); }

static double read_weights(bench *b)
{
    const unsigned threads[2] = {1, (unsigned)b->o.threads};
    double best = INFINITY;
    for (int i = 0; i < 2; i++) {
        double s[SINGLES];
        for (int r = 0; r < SINGLES; r++) {
            float *w = (float *)(uintptr_t)atmsae_model_view(atmsae_trainer_model(b->trainer), ATMSAE_W_ENC, NULL);
            forget_caches(b);
            s[r] = bench_stream(BENCH_READ, w, NULL, NULL, b->o.F * b->o.d, threads[i]);
        }
        best = fmin(best, bench_median(s, SINGLES));
    }
    return best;
}

int main(int argc, char **argv)
{
    bench b = {.o = bench_parse(argc, argv)};
    set_up(&b);
    encode(&b, 0, b.o.n); /* allocates */
    if (b.o.serve) printf("ready threads=%zu\n", b.o.threads);
    for (size_t i = 0; b.o.serve ? bench_next() : i < b.o.steps; i++) {
        double batch = encode(&b, 0, b.o.n), single[SINGLES];
        for (int r = 0; r < SINGLES; r++) {
            forget_caches(&b);
            single[r] = encode(&b, (i * SINGLES + (size_t)r) % b.count, 1);
        }
        printf("step=%.6f single=%.7f read=%.7f\n", batch, bench_median(single, SINGLES), read_weights(&b));
    }
    if (b.o.serve) printf("end\n");
    atmsae_codes_destroy(b.codes);
    atmsae_trainer_destroy(b.trainer);
    atmsae_context_destroy(b.ctx);
    free(b.x); free(b.other);
    return 0;
}
