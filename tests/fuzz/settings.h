/* SPDX-License-Identifier: MIT
 *
 * Settings and batches from bytes, for the targets that compute: small sizes, any numbers.
 */
#ifndef AMS_FUZZ_SETTINGS_H
#define AMS_FUZZ_SETTINGS_H

#include "fuzz.h"

#include <math.h>
#include <string.h>

/* Each optional setting keeps its default three times in four. */
static inline bool fz_rarely(fz_bytes *in) { return fz_u8(in) % 4 == 3; }

static inline void fz_set(fz_bytes *in, double *setting)
{
    if (fz_rarely(in)) *setting = fz_double(in);
}

static inline void fz_set_u64(fz_bytes *in, uint64_t *setting)
{
    if (fz_rarely(in)) *setting = fz_u64(in);
}

static inline void fz_model_config(fz_bytes *in, atmsae_model_config *c, uint64_t prefixes[4])
{
    atmsae_model_config_init(c, sizeof *c);
    c->d_in = fz_range(in, 1, 6);
    c->d_sae = fz_range(in, 1, 20);
    if (fz_rarely(in)) c->d_out = fz_range(in, 1, 6);
    c->activation = (int32_t)fz_range(in, 1, 6);
    c->k = (double)fz_range(in, 1, 4);
    c->seed = fz_u8(in);
    if (fz_rarely(in)) c->decoder_norm = (int32_t)fz_range(in, 0, 3);
    if (fz_rarely(in)) c->input_norm = (int32_t)fz_range(in, 0, 3);
    if (fz_rarely(in)) c->b_dec_init = (int32_t)fz_range(in, 0, 4);
    if (fz_rarely(in)) {
        const uint64_t which = fz_range(in, 0, 8);
        c->transcoder = (int32_t)(which % 3);
        c->uncentred = (int32_t)(which / 3);
    }
    double *const numbers[] = {&c->k, &c->sparsity_coef, &c->target_l0, &c->bandwidth, &c->init_threshold, &c->tanh_scale,
                               &c->pre_act_coef, &c->decoder_init_norm, &c->aux_coef};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fz_set(in, numbers[i]);
    fz_set_u64(in, &c->aux_k);
    if (fz_rarely(in)) c->n_prefixes = fz_range(in, 0, 4);
    for (uint64_t i = 0; i < c->n_prefixes; i++)
        prefixes[i] = (i ? prefixes[i - 1] : 0) + fz_range(in, 0, 5);
    c->prefixes = prefixes;
}

static inline void fz_tracker_config(fz_bytes *in, atmsae_tracker_config *c)
{
    atmsae_tracker_config_init(c, sizeof *c);
    double *const numbers[] = {&c->decay, &c->weight_magnitude, &c->weight_frequency, &c->weight_contribution};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fz_set(in, numbers[i]);
    if (fz_rarely(in)) c->combine = (int32_t)fz_range(in, 0, 3);
    if (fz_rarely(in)) c->observed_only = (int32_t)fz_range(in, 0, 2);
    fz_set_u64(in, &c->dead_window);
}

static inline void fz_masker_config(fz_bytes *in, atmsae_masker_config *c)
{
    atmsae_masker_config_init(c, sizeof *c);
    c->warmup_steps = 0;
    c->kind = (int32_t)fz_range(in, 0, 6);
    const unsigned how = fz_u8(in);
    c->per_row = (int32_t)(how % 3 == 1);
    c->effect = (int32_t)(how / 3 % 4) - (how == 255);
    c->alpha = how / 12 % 3 * 0.4;
    double *const numbers[] = {&c->c, &c->r, &c->cooldown_start, &c->cooldown_end};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fz_set(in, numbers[i]);
    fz_set_u64(in, &c->seed);
    fz_set_u64(in, &c->total_steps);
    fz_set_u64(in, &c->warmup_steps);
}

static inline void fz_optimizer_config(fz_bytes *in, atmsae_optimizer_config *c)
{
    atmsae_optimizer_config_init(c, sizeof *c);
    double *const numbers[] = {&c->lr, &c->beta1, &c->beta2, &c->eps, &c->clip};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fz_set(in, numbers[i]);
    fz_set_u64(in, &c->total_steps);
    fz_set_u64(in, &c->warmup_steps);
    fz_set_u64(in, &c->decay_steps);
    c->freeze_masked = (int32_t)(fz_u8(in) % 4 == 1);
}

/* A trainer's settings; the parts live in the struct. */
typedef struct fz_run {
    atmsae_trainer_config config;
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    uint64_t prefixes[4];
} fz_run;

static inline void fz_trainer_config(fz_bytes *in, fz_run *run)
{
    atmsae_trainer_config_init(&run->config, sizeof run->config);
    fz_model_config(in, &run->model, run->prefixes);
    fz_optimizer_config(in, &run->optimizer);
    fz_tracker_config(in, &run->tracker);
    fz_masker_config(in, &run->masker);
    run->config.model = &run->model;
    run->config.optimizer = &run->optimizer;
    run->config.tracker = &run->tracker;
    run->config.masker = &run->masker;
    run->config.batch_rows = 4;
    fz_set_u64(in, &run->config.total_rows);
    fz_set_u64(in, &run->config.batch_rows);
    fz_set(in, &run->config.sparsity_warmup);
}

/* Rows in blocks of their exact size, so that a sanitizer sees a read past them. */
typedef struct fz_batch {
    atmsae_batch batch;
    void *blocks[3];
} fz_batch;

static inline void *fz_rows(fz_bytes *in, uint64_t n, uint64_t d, uint64_t ld, int32_t type)
{
    uint64_t count = n ? (n - 1) * ld + d : 0;
    size_t size = type == ATMSAE_F32 ? 4 : 2;
    char *rows = calloc(count ? count : 1, size);
    FZ_CHECK(rows);
    for (uint64_t i = 0; i < count; i++) {
        float value = fz_float(in);
        uint32_t word;
        memcpy(&word, &value, 4);
        if (type != ATMSAE_F32) word >>= 16; /* a bf16; as an f16 it is some number too */
        memcpy(rows + i * size, &word, size);
    }
    return rows;
}

static inline void fz_batch_make(fz_bytes *in, uint64_t d_in, uint64_t d_out, fz_batch *b)
{
    atmsae_batch_init(&b->batch, sizeof b->batch);
    memset(b->blocks, 0, sizeof b->blocks);
    uint8_t how = fz_u8(in);
    b->batch.n_rows = fz_range(in, 1, 4);
    uint64_t ld = how & 1 ? d_in + 1 : d_in;
    b->batch.ld_x = how & 1 ? ld : 0;
    if (how & 2) b->batch.x_type = (int32_t)fz_range(in, 1, 3);
    b->batch.x = b->blocks[0] = fz_rows(in, b->batch.n_rows, d_in, ld, b->batch.x_type);
    if (how & 4 || d_out != d_in)
        b->batch.y = b->blocks[1] = fz_rows(in, b->batch.n_rows, d_out, d_out, ATMSAE_F32);
    if (how & 8) b->batch.row_weights = b->blocks[2] = fz_rows(in, b->batch.n_rows, 1, 1, ATMSAE_F32);
}

static inline void fz_batch_free(fz_batch *b)
{
    for (int i = 0; i < 3; i++)
        free(b->blocks[i]);
}

/* All parameters are finite; BATCHTOPK's threshold may be NaN, which means there is none. */
static inline void fz_check_finite(const atmsae_model *model)
{
    for (int32_t id = ATMSAE_W_ENC; id <= ATMSAE_OUTPUT_SCALE; id++) {
        uint64_t count;
        const float *values = atmsae_model_view(model, id, &count);
        FZ_CHECK(values || count == 0);
        for (uint64_t i = 0; i < count; i++)
            FZ_CHECK(isfinite(values[i]) || (id == ATMSAE_BATCH_THRESHOLD && isnan(values[i])));
    }
}

#endif
