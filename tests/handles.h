/* SPDX-License-Identifier: MIT
 *
 * Small rows, trainers and models for the tests of threads and processes.
 */
#ifndef HANDLES_H
#define HANDLES_H

#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 20, F = 96, N = 48, ACTIVATIONS = ATMSAE_GATED };

static inline void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

/* How much longer than usual loops are to run. */
static inline long scale(void)
{
    const char *text = getenv("ATMSAE_SCALE");
    long value = text ? strtol(text, NULL, 10) : 1;
    return value < 1 ? 1 : value;
}

static inline atmsae_context *new_context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

/* Rows with a few strong directions, so that latents have something to find. */
static inline void fill_rows(float *x, uint64_t n, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 1;
    for (uint64_t i = 0; i < n * D; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(state >> 32) * 0x1p-31f + (i % D == i / D % 5 ? 2.f : 0.f);
    }
}

static inline atmsae_batch batch_of(const float *x, uint64_t n)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = x;
    return batch;
}

static inline atmsae_trainer *new_trainer(atmsae_context *ctx, int32_t activation)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D;
    model.d_sae = F;
    model.k = 6;
    model.activation = activation;
    model.seed = 11;
    if (activation == ATMSAE_JUMPRELU || activation == ATMSAE_JUMPRELU_TANH) model.init_threshold = 0.2;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.warmup_steps = 1;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.masker = &masker;
    config.batch_rows = N;
    config.total_rows = 2000 * N;
    atmsae_trainer *trainer;
    ok(atmsae_trainer_create(ctx, &config, &trainer), ctx);
    return trainer;
}

static inline void train(atmsae_context *ctx, atmsae_trainer *trainer, uint64_t steps, const float *x)
{
    const atmsae_batch batch = batch_of(x, N);
    if (atmsae_trainer_steps_done(trainer) == 0) ok(atmsae_trainer_prepare(trainer, &batch), ctx);
    for (uint64_t i = 0; i < steps; i++)
        ok(atmsae_trainer_step(trainer, &batch, NULL), ctx);
}

/* FNV-1a over bytes. */
static inline uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    return hash;
}

static inline uint64_t hash_model(const atmsae_model *model)
{
    uint64_t hash = 14695981039346656037u;
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_OUTPUT_SCALE; p++) {
        uint64_t count;
        const float *values = atmsae_model_view(model, p, &count);
        if (values) hash = hash_bytes(hash, values, count * sizeof *values);
    }
    return hash;
}

static inline uint64_t hash_trainer(atmsae_trainer *trainer)
{
    uint64_t hash = hash_model(atmsae_trainer_model(trainer)), steps = atmsae_trainer_steps_done(trainer);
    hash = hash_bytes(hash, &steps, sizeof steps);
    return hash_bytes(hash, atmsae_tracker_importance(atmsae_trainer_tracker(trainer)), F * sizeof(double));
}

static inline uint64_t hash_codes(const atmsae_codes *codes)
{
    atmsae_codes_view view = {.size = sizeof view};
    ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
    uint64_t hash = hash_bytes(14695981039346656037u, view.row_start, (view.n_rows + 1) * sizeof *view.row_start);
    hash = hash_bytes(hash, view.latent, view.row_start[view.n_rows] * sizeof *view.latent);
    return hash_bytes(hash, view.value, view.row_start[view.n_rows] * sizeof *view.value);
}

static inline int run_suite(const char *name, void (*add)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create(name);
    add(tests);
    suite_add_tcase(suite, tests);
    return run_all(suite);
}

#endif
