/* SPDX-License-Identifier: MIT
 *
 * What a training run promises: the loop by hand and the ready step are the same to the bit, so are
 * runs on 1, 2, 3 and 7 threads and runs that were saved and loaded; bad rows and failed allocations
 * change nothing; AuxK revives latents; a step allocates nothing once the first is done.
 */
#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 20, F = 90, N = 32, STEPS = 12 };

/* ---- a context whose allocations are counted and can be made to fail --------------------------------- */

typedef struct meter {
    long calls, live;
    long fail_at; /* 0: never; -1: all */
} meter;

static void *meter_alloc(void *opaque, size_t align, size_t bytes)
{
    meter *m = opaque;
    long call = __atomic_add_fetch(&m->calls, 1, __ATOMIC_SEQ_CST);
    if (m->fail_at == -1 || (m->fail_at > 0 && call >= m->fail_at)) return NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, align, bytes) != 0) return NULL;
    __atomic_add_fetch(&m->live, 1, __ATOMIC_SEQ_CST);
    return memory;
}

static void meter_free(void *opaque, void *memory)
{
    __atomic_sub_fetch(&((meter *)opaque)->live, 1, __ATOMIC_SEQ_CST);
    free(memory);
}

static atmsae_context *new_context(uint32_t threads, meter *counter)
{
    atmsae_allocator allocator = {counter, meter_alloc, meter_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    config.allocator = counter ? &allocator : NULL;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

static void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

/* ---- the run that everything is tried on ---------------------------------------------------------------- */

typedef struct setup {
    const char *name;
    int32_t activation, mask_kind, per_row;
    uint64_t d_out; /* 0: autoencoder */
    int prefixes;
    double target; /* target_l0 */
    double alpha;  /* > 0: of a second loss */
} setup;

/* Every activation; targets, weights, AuxK, schedules and projection are on in all of them. */
static const setup setups[] = {
    {"relu", ATMSAE_RELU, ATMSAE_MASK_NONE, 0, 0, 0, 0, 0},
    {"relu, paper", ATMSAE_RELU, ATMSAE_MASK_PAPER, 0, 0, 0, 0, 0},
    {"topk", ATMSAE_TOPK, ATMSAE_MASK_ATM, 0, 0, 0, 0, 0},
    {"batchtopk", ATMSAE_BATCHTOPK, ATMSAE_MASK_NONE, 0, 0, 0, 0, 0},
    {"batchtopk, atm", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 0, 0, 0, 0},
    {"batchtopk, atm per row", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 1, 0, 0, 0, 0},
    {"batchtopk, uniform, transcoder", ATMSAE_BATCHTOPK, ATMSAE_MASK_UNIFORM, 0, 13, 0, 0, 0},
    {"matryoshka, permuted", ATMSAE_BATCHTOPK, ATMSAE_MASK_PERMUTED, 0, 0, 2, 0, 0},
    {"jumprelu, atm", ATMSAE_JUMPRELU, ATMSAE_MASK_ATM, 0, 0, 0, 0, 0},
    {"jumprelu tanh, atm per row", ATMSAE_JUMPRELU_TANH, ATMSAE_MASK_ATM, 1, 0, 0, 0, 0},
    {"gated, atm", ATMSAE_GATED, ATMSAE_MASK_ATM, 0, 0, 0, 0, 0},
    {"relu with a target", ATMSAE_RELU, ATMSAE_MASK_ATM, 0, 0, 0, 5, 0},
    {"jumprelu with a target", ATMSAE_JUMPRELU, ATMSAE_MASK_NONE, 0, 0, 2, 5, 0},
    {"gated with a target, atm per row", ATMSAE_GATED, ATMSAE_MASK_ATM, 1, 0, 0, 5, 0},
    {"batchtopk, second loss per row", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 1, 0, 0, 0, 0.3},
    {"matryoshka, second loss", ATMSAE_BATCHTOPK, ATMSAE_MASK_PERMUTED, 0, 0, 2, 0, 1},
    {"jumprelu tanh, second loss", ATMSAE_JUMPRELU_TANH, ATMSAE_MASK_ATM, 0, 0, 0, 0, 0.3},
    {"relu, second loss, transcoder", ATMSAE_RELU, ATMSAE_MASK_UNIFORM, 0, 13, 0, 0, 0.3},
    {"gated with a target, second loss per row", ATMSAE_GATED, ATMSAE_MASK_PAPER, 1, 0, 0, 5, 0.5},
};
enum { SETUPS = sizeof setups / sizeof *setups };

static uint64_t noise_state;
static float noise(void)
{
    noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(noise_state >> 40) * 0x1p-23f - 1;
}

typedef struct data {
    float x[STEPS][N][D], y[STEPS][N][D], weights[STEPS][N];
} data;

static const data *make_data(void)
{
    static data d;
    noise_state = 99;
    for (int s = 0; s < STEPS; s++)
        for (int r = 0; r < N; r++) {
            d.weights[s][r] = r % 7 == 2 ? 0 : 0.5f + 0.4f * noise();
            for (int j = 0; j < D; j++) {
                d.x[s][r][j] = 3 * noise() + 1;
                d.y[s][r][j] = d.x[s][r][j] + 0.1f * noise();
            }
        }
    return &d;
}

static atmsae_batch batch_of(const data *d, int step)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = N;
    b.x = d->x[step];
    b.y = d->y[step];
    b.ld_y = D;
    b.row_weights = d->weights[step];
    return b;
}

typedef struct configs {
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_trainer_config trainer;
    uint64_t prefixes[2];
} configs;

static void fill_configs(configs *c, const setup *s)
{
    atmsae_model_config_init(&c->model, sizeof c->model);
    atmsae_optimizer_config_init(&c->optimizer, sizeof c->optimizer);
    atmsae_tracker_config_init(&c->tracker, sizeof c->tracker);
    atmsae_masker_config_init(&c->masker, sizeof c->masker);
    atmsae_trainer_config_init(&c->trainer, sizeof c->trainer);
    c->prefixes[0] = 9;
    c->prefixes[1] = 40;
    c->model.d_in = D;
    c->model.d_out = s->d_out;
    c->model.d_sae = F;
    c->model.activation = s->activation;
    c->model.k = 3;
    c->model.target_l0 = s->target;
    c->model.seed = 3;
    c->model.aux_k = 6;
    c->model.init_threshold = 0.4;
    c->model.pre_act_coef = 1e-3;
    c->model.n_prefixes = (uint64_t)s->prefixes;
    c->model.prefixes = c->prefixes;
    c->optimizer.lr = 1e-2;
    c->tracker.dead_window = N;
    c->tracker.decay = 0.8;
    c->masker.kind = s->mask_kind;
    c->masker.per_row = s->per_row;
    c->masker.effect = s->alpha > 0 ? ATMSAE_EFFECT_SECOND_LOSS : ATMSAE_EFFECT_HARD;
    c->masker.alpha = s->alpha > 0 ? s->alpha : 0.3;
    c->masker.warmup_steps = 2;
    c->masker.r = 1;
    c->trainer.model = &c->model;
    c->trainer.optimizer = &c->optimizer;
    c->trainer.tracker = &c->tracker;
    c->trainer.masker = &c->masker;
    c->trainer.total_rows = STEPS * N;
    c->trainer.batch_rows = N;
    c->trainer.sparsity_warmup = 0.5;
}

static atmsae_trainer *new_trainer(atmsae_context *ctx, const setup *s, const data *d)
{
    configs c;
    fill_configs(&c, s);
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
    atmsae_batch b = batch_of(d, 0);
    ok(atmsae_trainer_prepare(t, &b), ctx);
    return t;
}

static const int32_t parameters[] = {ATMSAE_W_ENC, ATMSAE_B_ENC, ATMSAE_W_DEC, ATMSAE_B_DEC, ATMSAE_THRESHOLD,
                                     ATMSAE_R_MAG, ATMSAE_B_MAG, ATMSAE_BATCH_THRESHOLD, ATMSAE_INPUT_SCALE};

static void assert_same_model(const atmsae_model *a, const atmsae_model *b, const char *name)
{
    for (size_t p = 0; p < sizeof parameters / sizeof *parameters; p++) {
        uint64_t n, m;
        const float *x = atmsae_model_view(a, parameters[p], &n), *y = atmsae_model_view(b, parameters[p], &m);
        ck_assert_uint_eq(n, m);
        if (n) ck_assert_msg(memcmp(x, y, n * sizeof *x) == 0, "%s: parameter %d differs", name, parameters[p]);
    }
}

static void assert_same_tracker(const atmsae_tracker *a, const atmsae_tracker *b)
{
    ck_assert_mem_eq(atmsae_tracker_importance(a), atmsae_tracker_importance(b), F * sizeof(double));
    uint64_t n, m;
    const uint32_t *x = atmsae_tracker_dead(a, &n), *y = atmsae_tracker_dead(b, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(x, y, n * sizeof *x);
}

static float *copy_weights(const atmsae_model *m, uint64_t *count)
{
    const float *w = atmsae_model_view(m, ATMSAE_W_ENC, count);
    float *copy = malloc(*count * sizeof *copy);
    memcpy(copy, w, *count * sizeof *copy);
    return copy;
}

/* ---- a second loss that weighs nothing ------------------------------------------------------------------- */

/* A second loss of weight 0 asks nothing, and no mask has no second loss: both give the bits of a run without a mask. */
START_TEST(second_loss_of_no_weight_changes_nothing)
{
    const data *d = make_data();
    atmsae_context *ctx = new_context(2, NULL);
    for (size_t i = 0; i < SETUPS; i++) {
        atmsae_trainer *t[3];
        for (int k = 0; k < 3; k++) {
            configs c;
            fill_configs(&c, &setups[i]);
            c.masker.kind = k == 2 ? ATMSAE_MASK_ATM : ATMSAE_MASK_NONE;
            c.masker.effect = k == 0 ? ATMSAE_EFFECT_HARD : ATMSAE_EFFECT_SECOND_LOSS;
            c.masker.alpha = k == 2 ? 0 : 1;
            ok(atmsae_trainer_create(ctx, &c.trainer, &t[k]), ctx);
            for (int step = 0; step < STEPS; step++) {
                const atmsae_batch b = batch_of(d, step);
                atmsae_step_stats stats = {.size = sizeof stats};
                if (step == 0) ok(atmsae_trainer_prepare(t[k], &b), ctx);
                ok(atmsae_trainer_step(t[k], &b, &stats), ctx);
                ck_assert(stats.masked_loss == 0);
            }
        }
        for (int k = 1; k < 3; k++) {
            assert_same_model(atmsae_trainer_model(t[0]), atmsae_trainer_model(t[k]), setups[i].name);
            assert_same_tracker(atmsae_trainer_tracker(t[0]), atmsae_trainer_tracker(t[k]));
        }
        for (int k = 0; k < 3; k++)
            atmsae_trainer_destroy(t[k]);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- hand loop = ready step ------------------------------------------------------------------------------ */

START_TEST(loop_by_hand_gives_the_same_bits)
{
    const setup *s = &setups[_i];
    if (s->target > 0) return; /* which only the trainer holds */
    const data *d = make_data();
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *t = new_trainer(ctx, s, d);

    configs c;
    fill_configs(&c, s);
    c.optimizer.total_steps = c.masker.total_steps = STEPS;
    c.masker.seed = c.model.seed;
    c.tracker.d_sae = c.masker.d_sae = F;
    atmsae_model *model;
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    ok(atmsae_model_create(ctx, &c.model, &model), ctx);
    ok(atmsae_optimizer_create(model, &c.optimizer, &optimizer), ctx);
    ok(atmsae_tracker_create(ctx, &c.tracker, &tracker), ctx);
    ok(atmsae_masker_create(ctx, &c.masker, &masker), ctx);
    ok(atmsae_codes_create(ctx, &codes), ctx);
    ok(atmsae_gradients_create(model, &gradients), ctx);
    atmsae_batch first = batch_of(d, 0);
    ok(atmsae_model_prepare(model, &first), ctx);

    bool masked = false, aux = false;
    for (int step = 0; step < STEPS; step++) {
        atmsae_batch b = batch_of(d, step);
        atmsae_step_stats stats = {.size = sizeof stats};
        ok(atmsae_trainer_step(t, &b, &stats), ctx);

        atmsae_forward_options o;
        atmsae_forward_options_init(&o, sizeof o);
        ok(atmsae_masker_draw(masker, (uint64_t)step), ctx);
        o.mask = atmsae_masker_mask(masker);
        o.dead = atmsae_tracker_dead(tracker, &o.n_dead);
        o.sparsity_scale = fmin(1, (step + 1) / (0.5 * STEPS));
        atmsae_loss loss = {.size = sizeof loss};
        double norm;
        ok(atmsae_forward(model, &b, &o, codes, &loss), ctx);
        ok(atmsae_backward(model, codes, gradients), ctx);
        ok(atmsae_optimizer_step(optimizer, model, gradients, &norm), ctx);
        atmsae_latent_sums sums = {.size = sizeof sums};
        ok(atmsae_gradients_sums(gradients, &sums), ctx);
        ok(atmsae_tracker_observe(tracker, &sums), ctx);
        ok(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), F), ctx);

        ck_assert(loss.total == stats.loss && loss.mse == stats.mse && loss.l0 == stats.l0 && norm == stats.grad_norm);
        masked = masked || stats.mean_p > 0;
        aux = aux || stats.aux > 0;
    }
    assert_same_model(model, atmsae_trainer_model(t), s->name);
    assert_same_tracker(tracker, atmsae_trainer_tracker(t));
    ck_assert_msg(masked == (s->mask_kind != ATMSAE_MASK_NONE), "%s: masks", s->name);
    bool topk = s->activation == ATMSAE_TOPK || s->activation == ATMSAE_BATCHTOPK;
    ck_assert_msg(aux || !topk, "%s: no AuxK in this run", s->name);
    atmsae_context_destroy(ctx); /* any order will do */
    atmsae_gradients_destroy(gradients);
    atmsae_codes_destroy(codes);
    atmsae_masker_destroy(masker);
    atmsae_tracker_destroy(tracker);
    atmsae_optimizer_destroy(optimizer);
    atmsae_model_destroy(model);
    atmsae_trainer_destroy(t);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------------------ */

START_TEST(threads_do_not_change_bits)
{
    const uint32_t threads[] = {1, 2, 3, 7};
    const data *d = make_data();
    atmsae_trainer *trainers[4];
    for (int i = 0; i < 4; i++) {
        atmsae_context *ctx = new_context(threads[i], NULL);
        ck_assert_uint_eq(atmsae_context_threads(ctx), threads[i]);
        trainers[i] = new_trainer(ctx, &setups[_i], d);
        for (int step = 0; step < STEPS; step++) {
            atmsae_batch b = batch_of(d, step);
            ok(atmsae_trainer_step(trainers[i], &b, NULL), ctx);
        }
        if (i > 0) {
            assert_same_model(atmsae_trainer_model(trainers[0]), atmsae_trainer_model(trainers[i]), setups[_i].name);
            assert_same_tracker(atmsae_trainer_tracker(trainers[0]), atmsae_trainer_tracker(trainers[i]));
        }
        atmsae_context_destroy(ctx);
    }
    for (int i = 0; i < 4; i++)
        atmsae_trainer_destroy(trainers[i]);
}
END_TEST

/* ---- checkpoints ---------------------------------------------------------------------------------------------- */

static const char *temp_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/atmsae-test-%ld.safetensors", (long)getpid());
    return path;
}

static atmsae_source *new_source(atmsae_context *ctx, const data *d)
{
    atmsae_source_config c;
    atmsae_source_config_init(&c, sizeof c);
    c.shuffle_rows = 100;
    c.seed = 5;
    atmsae_source *s;
    ok(atmsae_source_create(ctx, &c, &s), ctx);
    ok(atmsae_source_add_memory(s, d->x, (uint64_t)STEPS * N, D, 0, ATMSAE_F32), ctx);
    return s;
}

static void step_from(atmsae_trainer *t, atmsae_source *s, atmsae_context *ctx)
{
    float rows[N * D];
    uint64_t got;
    ok(atmsae_source_next(s, N, rows, &got), ctx);
    ck_assert_uint_eq(got, N);
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = N;
    b.x = rows;
    ok(atmsae_trainer_step(t, &b, NULL), ctx);
}

START_TEST(resume_is_exact)
{
    const setup *s = &setups[_i];
    const data *d = make_data();
    if (s->d_out) return; /* the source hands out x only */
    const uint32_t threads[] = {1, 3, 2, 7, 4};
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *straight = new_trainer(ctx, s, d);
    atmsae_source *source = new_source(ctx, d);
    for (int step = 0; step < STEPS; step++)
        step_from(straight, source, ctx);

    /* The same run, saved and loaded after every other step, with another number of threads each time. */
    atmsae_context *other = new_context(1, NULL);
    atmsae_trainer *t = new_trainer(other, s, d);
    atmsae_source *from = new_source(other, d);
    for (int step = 0; step < STEPS; step++) {
        step_from(t, from, other);
        if (step % 2) continue;
        ok(atmsae_trainer_save(t, from, temp_path()), other);
        atmsae_trainer_destroy(t);
        atmsae_source_destroy(from);
        atmsae_context_destroy(other);
        other = new_context(threads[step / 2 % 5], NULL);
        from = new_source(other, d);
        ok(atmsae_trainer_load(other, temp_path(), from, &t), other);
        ck_assert_uint_eq(atmsae_trainer_steps_done(t), (uint64_t)step + 1);
    }
    assert_same_model(atmsae_trainer_model(straight), atmsae_trainer_model(t), s->name);
    assert_same_tracker(atmsae_trainer_tracker(straight), atmsae_trainer_tracker(t));
    atmsae_trainer_destroy(t);
    atmsae_source_destroy(from);
    atmsae_context_destroy(other);
    atmsae_trainer_destroy(straight);
    atmsae_source_destroy(source);
    atmsae_context_destroy(ctx);
    unlink(temp_path());
}
END_TEST

START_TEST(damaged_checkpoints_are_refused)
{
    const data *d = make_data();
    meter m = {0};
    atmsae_context *ctx = new_context(1, &m);
    atmsae_trainer *t = new_trainer(ctx, &setups[4], d);
    ok(atmsae_trainer_save(t, NULL, temp_path()), ctx);
    FILE *file = fopen(temp_path(), "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    unsigned char *bytes = malloc((size_t)size);
    rewind(file);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)size, file), (size_t)size);
    fclose(file);
    atmsae_trainer *loaded;
    long live = m.live;
    for (long at = 0; at < size; at += size / 97) { /* one flipped bit; and the file cut there */
        for (int cut = 0; cut < 2; cut++) {
            file = fopen(temp_path(), "wb");
            bytes[at] ^= 4;
            fwrite(bytes, 1, cut ? (size_t)at : (size_t)size, file);
            bytes[at] ^= 4;
            fclose(file);
            atmsae_status status = atmsae_trainer_load(ctx, temp_path(), NULL, &loaded);
            ck_assert_msg(status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT ||
                              status == ATMSAE_E_VERSION || status == ATMSAE_E_UNSUPPORTED,
                          "byte %ld: %s: %s", at, atmsae_status_name(status), atmsae_last_error(ctx));
            ck_assert_ptr_null(loaded);
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), temp_path()));
        }
    }
    ck_assert_int_eq(m.live, live);
    unlink(temp_path());
    ck_assert_int_eq(atmsae_trainer_load(ctx, temp_path(), NULL, &loaded), ATMSAE_E_IO);
    ck_assert_int_eq(atmsae_trainer_save(t, NULL, "/nonexistent/folder/checkpoint"), ATMSAE_E_IO);
    free(bytes);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- nothing changes on failure ------------------------------------------------------------------------------ */

START_TEST(bad_rows_change_nothing)
{
    const setup *s = &setups[_i];
    data *d = (data *)(uintptr_t)make_data();
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *clean = new_trainer(ctx, s, d), *t = new_trainer(ctx, s, d);
    for (int step = 0; step < STEPS; step++) {
        atmsae_batch b = batch_of(d, step);
        ok(atmsae_trainer_step(clean, &b, NULL), ctx);
        float old = d->x[step][11][3];
        d->x[step][11][3] = step % 2 ? NAN : INFINITY;
        ck_assert_int_eq(atmsae_trainer_step(t, &b, NULL), ATMSAE_E_NONFINITE);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "x: row 11"));
        d->x[step][11][3] = 3e38f; /* finite, but the loss is not */
        ck_assert_int_eq(atmsae_trainer_step(t, &b, NULL), ATMSAE_E_NONFINITE);
        d->x[step][11][3] = old;
        ck_assert_uint_eq(atmsae_trainer_steps_done(t), (uint64_t)step);
        ok(atmsae_trainer_step(t, &b, NULL), ctx);
    }
    assert_same_model(atmsae_trainer_model(clean), atmsae_trainer_model(t), s->name);
    assert_same_tracker(atmsae_trainer_tracker(clean), atmsae_trainer_tracker(t));
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(clean);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- bad rows that are allowed ------------------------------------------------------------------------------- */

static atmsae_trainer *new_skipping(atmsae_context *ctx, const setup *s, const data *d, uint64_t skip)
{
    configs c;
    fill_configs(&c, s);
    c.trainer.skip_bad_rows = skip;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
    const atmsae_batch b = batch_of(d, 0);
    ok(atmsae_trainer_prepare(t, &b), ctx);
    return t;
}

/* A batch in any type, with what else it holds of one step of the data. */
typedef struct typed {
    char x[N * D * 4], y[N * D * 4];
    float weights[N];
    atmsae_batch batch;
} typed;

static void put(char *out, int32_t type, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t half = (uint16_t)(bits >> 16);
    if (type == ATMSAE_F16) {
        const uint32_t exponent = bits >> 23 & 0xff, sign = bits >> 16 & 0x8000;
        half = (uint16_t)(sign | (exponent == 0xff ? 0x7c00 | (bits >> 13 & 0x3ff) : exponent <= 112 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 0x3ff)));
    }
    memcpy(out, type == ATMSAE_F32 ? (void *)&bits : (void *)&half, type == ATMSAE_F32 ? 4 : 2);
}

static size_t size_of(int32_t type) { return type == ATMSAE_F32 ? 4 : 2; }

static void fill_typed(typed *to, const data *d, int step, int32_t type)
{
    for (int i = 0; i < N * D; i++) {
        put(to->x + (size_t)i * size_of(type), type, (&d->x[step][0][0])[i]);
        put(to->y + (size_t)i * size_of(type), type, (&d->y[step][0][0])[i]);
    }
    memcpy(to->weights, d->weights[step], sizeof to->weights);
    to->batch = batch_of(d, step);
    to->batch.x = to->x;
    to->batch.y = to->y;
    to->batch.x_type = to->batch.y_type = type;
    to->batch.row_weights = to->weights;
}

/* Rows of weight 0: 2, 9, 16, 23, 30. */
enum { BAD_X = 11, BAD_Y = 4, BAD_BOTH = 20, BAD_BUT_OFF = 16 };

static void spoil(typed *b, int32_t type, int step)
{
    const float bad = step % 3 == 0 ? NAN : step % 3 == 1 ? INFINITY : -INFINITY;
    const size_t size = size_of(type);
    put(b->x + (BAD_X * D + D - 1) * size, type, bad);
    put(b->y + (BAD_Y * D + 3) * size, type, bad);
    put(b->x + (BAD_BOTH * D) * size, type, bad);
    put(b->y + (BAD_BOTH * D + 1) * size, type, bad);
    put(b->x + (BAD_BUT_OFF * D + 2) * size, type, bad);
}

START_TEST(skipped_rows_are_rows_of_weight_0)
{
    const setup *s = &setups[_i / 3];
    const int32_t type = (const int32_t[]){ATMSAE_F32, ATMSAE_F16, ATMSAE_BF16}[_i % 3];
    const data *d = make_data();
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *clean = new_trainer(ctx, s, d), *t = new_skipping(ctx, s, d, 3 * STEPS);
    static typed good, bad;
    for (int step = 0; step < STEPS; step++) {
        fill_typed(&good, d, step, type);
        fill_typed(&bad, d, step, type);
        spoil(&bad, type, step);
        if (step == 5) bad.batch.row_weights = good.batch.row_weights = NULL;
        if (step == 5) put(bad.x + (BAD_BUT_OFF * D + 2) * size_of(type), type, 1), put(good.x + (BAD_BUT_OFF * D + 2) * size_of(type), type, 1);
        for (int r = 0; r < N && step == 5; r++) good.weights[r] = 1;
        good.weights[BAD_X] = good.weights[BAD_Y] = good.weights[BAD_BOTH] = 0;
        good.batch.row_weights = good.weights;
        atmsae_step_stats a = {.size = sizeof a}, b = {.size = sizeof b};
        ok(atmsae_trainer_step(clean, &good.batch, &a), ctx);
        ok(atmsae_trainer_step(t, &bad.batch, &b), ctx);
        ck_assert_uint_eq(a.bad_rows, 0);
        ck_assert_uint_eq(b.bad_rows, 3);
        ck_assert_uint_eq(a.rows, b.rows);
        ck_assert(a.loss == b.loss && a.grad_norm == b.grad_norm);
        ck_assert_uint_eq(atmsae_trainer_bad_rows(t), 3 * ((uint64_t)step + 1));
    }
    ck_assert_uint_eq(atmsae_trainer_bad_rows(clean), 0);
    assert_same_model(atmsae_trainer_model(clean), atmsae_trainer_model(t), s->name);
    assert_same_tracker(atmsae_trainer_tracker(clean), atmsae_trainer_tracker(t));
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(clean);
    atmsae_context_destroy(ctx);
}
END_TEST

static void says(const atmsae_context *ctx, const char *text)
{
    ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "\"%s\" does not say \"%s\"", atmsae_last_error(ctx), text);
}

START_TEST(more_bad_rows_than_allowed)
{
    const setup *s = &setups[4];
    const data *d = make_data();
    atmsae_context *ctx = new_context(1, NULL);
    atmsae_trainer *t = new_skipping(ctx, s, d, 5), *clean = new_skipping(ctx, s, d, 0);
    atmsae_step_stats stats = {.size = sizeof stats};
    static typed b, g;
    fill_typed(&b, d, 0, ATMSAE_F32);
    fill_typed(&g, d, 0, ATMSAE_F32);
    spoil(&b, ATMSAE_F32, 0);
    g.weights[BAD_X] = g.weights[BAD_Y] = g.weights[BAD_BOTH] = 0;
    ok(atmsae_trainer_step(t, &b.batch, &stats), ctx);
    ok(atmsae_trainer_step(clean, &g.batch, NULL), ctx);
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(atmsae_trainer_step(t, &b.batch, &stats), ATMSAE_E_NONFINITE);
        says(ctx, "row 4 of y has a NaN or infinite value; with 3 such rows here and 3 before, there are more than skip_bad_rows = 5");
        ck_assert_uint_eq(atmsae_trainer_bad_rows(t), 3);
        ck_assert_uint_eq(atmsae_trainer_steps_done(t), 1);
    }
    ok(atmsae_trainer_set_skip_bad_rows(t, 6), ctx);
    atmsae_trainer_config config = {.size = sizeof config};
    ok(atmsae_trainer_get_config(t, &config), ctx);
    ck_assert_uint_eq(config.skip_bad_rows, 6);
    ok(atmsae_trainer_step(t, &b.batch, &stats), ctx);
    ok(atmsae_trainer_step(clean, &g.batch, NULL), ctx);
    ck_assert_uint_eq(atmsae_trainer_bad_rows(t), 6);

    ok(atmsae_trainer_set_skip_bad_rows(t, UINT64_MAX), ctx);
    for (int r = 0; r < N; r++) /* none is left: those of weight 0 are none either */
        put(b.x + (size_t)(r * D * 4), ATMSAE_F32, r % 7 == 2 ? 0 : NAN);
    ck_assert_int_eq(atmsae_trainer_step(t, &b.batch, &stats), ATMSAE_E_NONFINITE);
    says(ctx, "all of its 27 rows have a NaN or infinite value");
    fill_typed(&b, d, 0, ATMSAE_F32);
    spoil(&b, ATMSAE_F32, 0);
    put(b.x, ATMSAE_F32, 3e38f); /* is finite, and no row to be skipped */
    ck_assert_int_eq(atmsae_trainer_step(t, &b.batch, &stats), ATMSAE_E_NONFINITE);
    ck_assert_ptr_null(strstr(atmsae_last_error(ctx), "NaN or infinite value"));
    ck_assert_uint_eq(atmsae_trainer_bad_rows(t), 6);
    ok(atmsae_trainer_set_skip_bad_rows(t, 2), ctx); /* fewer than there were: none more */
    fill_typed(&b, d, 0, ATMSAE_F32);
    ok(atmsae_trainer_step(t, &b.batch, &stats), ctx);
    ok(atmsae_trainer_step(clean, &b.batch, NULL), ctx);
    spoil(&b, ATMSAE_F32, 0);
    ck_assert_int_eq(atmsae_trainer_step(t, &b.batch, &stats), ATMSAE_E_NONFINITE);
    assert_same_model(atmsae_trainer_model(clean), atmsae_trainer_model(t), s->name);
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(clean);
    atmsae_context_destroy(ctx);
}
END_TEST

/* Rows that prepare and calibrate see are met again in training: they are limited, not counted. */
START_TEST(bad_rows_before_and_after_training)
{
    const data *d = make_data();
    atmsae_context *ctx = new_context(1, NULL);
    atmsae_trainer *t[2];
    static typed b[2];
    for (int i = 0; i < 2; i++) {
        t[i] = new_skipping(ctx, &setups[4], d, i ? 3 : 0);
        fill_typed(&b[i], d, 1, ATMSAE_F32);
    }
    spoil(&b[1], ATMSAE_F32, 0);
    b[0].weights[BAD_X] = b[0].weights[BAD_Y] = b[0].weights[BAD_BOTH] = 0;
    for (int i = 0; i < 2; i++)
        ok(atmsae_trainer_prepare(t[i], &b[i].batch), ctx);
    assert_same_model(atmsae_trainer_model(t[0]), atmsae_trainer_model(t[1]), "prepare");
    ck_assert_uint_eq(atmsae_trainer_bad_rows(t[1]), 0);
    b[0].weights[BAD_Y] = d->weights[1][BAD_Y]; /* targets are no part of calibration */
    for (int i = 0; i < 2; i++)
        ok(atmsae_trainer_calibrate(t[i], &b[i].batch), ctx);
    assert_same_model(atmsae_trainer_model(t[0]), atmsae_trainer_model(t[1]), "calibrate");
    ck_assert_uint_eq(atmsae_trainer_bad_rows(t[1]), 0);
    ok(atmsae_trainer_set_skip_bad_rows(t[1], 1), ctx);
    ck_assert_int_eq(atmsae_trainer_prepare(t[1], &b[1].batch), ATMSAE_E_NONFINITE);
    says(ctx, "skip_bad_rows = 1");
    ck_assert_int_eq(atmsae_trainer_calibrate(t[1], &b[1].batch), ATMSAE_E_NONFINITE);
    says(ctx, "row 11 of x has a NaN or infinite value; with 2 such rows");
    assert_same_model(atmsae_trainer_model(t[0]), atmsae_trainer_model(t[1]), "failed");
    for (int i = 0; i < 2; i++)
        atmsae_trainer_destroy(t[i]);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(bad_rows_are_in_the_checkpoint)
{
    const data *d = make_data();
    atmsae_context *ctx = new_context(1, NULL);
    atmsae_trainer *t = new_skipping(ctx, &setups[4], d, 7), *loaded;
    static typed b;
    fill_typed(&b, d, 1, ATMSAE_F32);
    spoil(&b, ATMSAE_F32, 0);
    for (int i = 0; i < 2; i++)
        ok(atmsae_trainer_step(t, &b.batch, NULL), ctx);
    ok(atmsae_trainer_save(t, NULL, temp_path()), ctx);
    ok(atmsae_trainer_load(ctx, temp_path(), NULL, &loaded), ctx);
    unlink(temp_path());
    ck_assert_uint_eq(atmsae_trainer_bad_rows(loaded), 6);
    atmsae_trainer_config config = {.size = sizeof config};
    ok(atmsae_trainer_get_config(loaded, &config), ctx);
    ck_assert_uint_eq(config.skip_bad_rows, 7);
    ck_assert_int_eq(atmsae_trainer_step(loaded, &b.batch, NULL), ATMSAE_E_NONFINITE);
    atmsae_trainer_destroy(loaded);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(failed_allocations_change_nothing)
{
    const setup *s = &setups[_i];
    const data *d = make_data();
    meter m = {0};
    atmsae_context *ctx = new_context(1, &m);
    atmsae_trainer *t = new_trainer(ctx, s, d), *clean = new_trainer(ctx, s, d);
    atmsae_batch b = batch_of(d, 0);
    ok(atmsae_trainer_step(clean, &b, NULL), ctx);
    uint64_t count;
    float *before = copy_weights(atmsae_trainer_model(t), &count);
    int failures = 0;
    for (long at = 1;; at++) { /* the first step: its at-th and all later allocations fail */
        m.calls = 0;
        m.fail_at = at;
        atmsae_status status = atmsae_trainer_step(t, &b, NULL);
        m.fail_at = 0;
        if (status == ATMSAE_OK) break;
        failures++;
        ck_assert_int_eq(status, ATMSAE_E_NOMEM);
        ck_assert_mem_eq(before, atmsae_model_view(atmsae_trainer_model(t), ATMSAE_W_ENC, NULL), count * sizeof *before);
        ck_assert_uint_eq(atmsae_trainer_steps_done(t), 0);
    }
    ck_assert_int_gt(failures, 3);
    assert_same_model(atmsae_trainer_model(clean), atmsae_trainer_model(t), s->name);
    free(before);

    for (long at = 1;; at++) { /* and creating a trainer, without a leak */
        configs c;
        fill_configs(&c, s);
        long live = m.live;
        atmsae_trainer *out;
        m.calls = 0;
        m.fail_at = at;
        atmsae_status status = atmsae_trainer_create(ctx, &c.trainer, &out);
        m.fail_at = 0;
        if (status == ATMSAE_OK) {
            atmsae_trainer_destroy(out);
            break;
        }
        ck_assert_int_eq(status, ATMSAE_E_NOMEM);
        ck_assert_ptr_null(out);
        ck_assert_int_eq(m.live, live);
    }
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(clean);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(m.live, 0);
}
END_TEST

START_TEST(later_steps_allocate_nothing)
{
    const setup *s = &setups[_i];
    const data *d = make_data();
    if (s->activation != ATMSAE_TOPK && s->activation != ATMSAE_BATCHTOPK) return;
    meter m = {0};
    atmsae_context *ctx = new_context(2, &m);
    atmsae_trainer *t = new_trainer(ctx, s, d);
    atmsae_step_stats stats = {.size = sizeof stats};
    bool aux = false, masked = false;
    for (int step = 0; step < STEPS; step++) {
        atmsae_batch b = batch_of(d, step);
        ok(atmsae_trainer_step(t, &b, &stats), ctx);
        if (step == 0) m.calls = 0;
        aux = aux || stats.aux > 0;
        masked = masked || stats.mean_p > 0;
    }
    ck_assert_int_eq(m.calls, 0);
    ck_assert(aux && (masked || s->mask_kind == ATMSAE_MASK_NONE)); /* or it was no test */
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- what training does ------------------------------------------------------------------------------------- */

/* Two thirds of the latents start with a bias that keeps them off; the others are too few for the 80
 * features of the data. */
static uint64_t alive_after(double aux_coef, double *fvu)
{
    enum { STEPS_HERE = 600, ROWS = 64, WIDTH = 64 };
    atmsae_context *ctx = new_context(2, NULL);
    configs c;
    fill_configs(&c, &setups[3]);
    c.model.d_in = WIDTH;
    c.model.aux_coef = aux_coef;
    c.model.aux_k = 4;
    c.optimizer.lr = 5e-3;
    c.tracker.dead_window = 10 * ROWS;
    c.trainer.batch_rows = ROWS;
    c.trainer.total_rows = STEPS_HERE * ROWS;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
    float bias[F];
    for (int i = 0; i < F; i++)
        bias[i] = i < 2 * F / 3 ? -4 : 0;
    ok(atmsae_model_set(atmsae_trainer_model(t), ATMSAE_B_ENC, bias, F), ctx);
    atmsae_synth_config sc;
    atmsae_synth_config_init(&sc, sizeof sc);
    sc.d = WIDTH;
    sc.n_parents = 4;
    sc.n_children = 4;
    sc.n_independent = 60;
    atmsae_synth *synth;
    ok(atmsae_synth_create(ctx, &sc, &synth), ctx);
    static float x[ROWS * WIDTH];
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = ROWS;
    b.x = x;
    atmsae_step_stats stats = {.size = sizeof stats};
    for (uint64_t step = 0; step < STEPS_HERE; step++) {
        ok(atmsae_synth_rows(synth, step * ROWS, ROWS, x, NULL), ctx);
        if (step == 0) ok(atmsae_trainer_prepare(t, &b), ctx);
        ok(atmsae_trainer_step(t, &b, &stats), ctx);
    }
    atmsae_synth_destroy(synth);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
    *fvu = stats.fvu;
    return F - stats.dead;
}

START_TEST(auxk_revives_dead_latents)
{
    double fvu_without, fvu_with;
    uint64_t without = alive_after(0, &fvu_without), with = alive_after(1.0 / 32, &fvu_with);
    ck_assert_msg(with >= without + 10 && fvu_with < 0.6 * fvu_without,
                  "without AuxK: %d alive, FVU %g; with it: %d alive, FVU %g", (int)without, fvu_without, (int)with, fvu_with);
}
END_TEST

START_TEST(the_dead_window_is_resolved)
{
    const struct {
        uint64_t total, set, expected;
    } cases[] = {{0, UINT64_MAX, 10000000}, {50000, UINT64_MAX, 5000}, {4000000000, UINT64_MAX, 10000000},
                 {50000, 777, 777},         {50000, 0, 0},              {5, UINT64_MAX, 1}};
    atmsae_context *ctx = new_context(1, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        configs c;
        fill_configs(&c, &setups[0]);
        c.trainer.total_rows = cases[i].total;
        c.tracker.dead_window = cases[i].set;
        atmsae_trainer *t;
        ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
        ck_assert_uint_eq(atmsae_tracker_dead_window(atmsae_trainer_tracker(t)), cases[i].expected);
        atmsae_trainer_config resolved = {.size = sizeof resolved};
        ok(atmsae_trainer_get_config(t, &resolved), ctx);
        ck_assert_uint_eq(resolved.tracker->dead_window, cases[i].expected);
        ck_assert_uint_eq(resolved.model->aux_k, 6);
        ck_assert_uint_eq(resolved.optimizer->warmup_steps, cases[i].total == 50000 ? 50000 / N / 20 : resolved.optimizer->total_steps / 20);
        ck_assert_uint_eq(resolved.optimizer->decay_steps, (uint64_t)((double)resolved.optimizer->total_steps * 0.2));
        ck_assert_uint_eq(resolved.masker->warmup_steps, 2);
        atmsae_trainer_destroy(t);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(schedules_follow_the_run)
{
    const data *d = make_data();
    atmsae_context *ctx = new_context(1, NULL);
    configs c;
    fill_configs(&c, &setups[4]);
    c.optimizer.warmup_steps = 4;
    c.optimizer.decay_steps = 5;
    c.masker.cooldown_start = 0.5;
    c.masker.cooldown_end = 0.75;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
    atmsae_batch b = batch_of(d, 0);
    atmsae_step_stats stats = {.size = sizeof stats};
    for (int step = 0; step < STEPS; step++) {
        ok(atmsae_trainer_step(t, &b, &stats), ctx);
        double lr = 1e-2 * fmin(1, (step + 1) / 4.0) * fmin(1, (STEPS - step) / 5.0);
        double r = step < 2 ? 0 : step <= 6 ? 1 : step >= 9 ? 0 : (9 - step) / 3.0;
        ck_assert_double_eq_tol(stats.lr, lr, 1e-15);
        ck_assert_double_eq_tol(stats.r, r, 1e-12);
    }
    atmsae_trainer_destroy(t);

    c.trainer.total_rows = 0; /* a stream: constant until told otherwise */
    c.optimizer.warmup_steps = 0;
    ok(atmsae_trainer_create(ctx, &c.trainer, &t), ctx);
    for (int step = 0; step < 20; step++) {
        if (step == 10) ok(atmsae_trainer_begin_cooldown(t, 5), ctx);
        ok(atmsae_trainer_step(t, &b, &stats), ctx);
        double left = step < 10 ? 1 : fmax(0, 1 - (step - 10) / 5.0);
        ck_assert_double_eq_tol(stats.lr, 1e-2 * left, 1e-15);
        if (step >= 2) ck_assert_double_eq_tol(stats.r, left, 1e-12);
    }
    ck_assert_int_eq(atmsae_trainer_begin_cooldown(t, 0), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_trainer_prepare(t, &b), ATMSAE_E_STATE);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(decoders_stay_on_the_sphere)
{
    const setup *s = &setups[_i];
    const data *d = make_data();
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *t = new_trainer(ctx, s, d);
    for (int step = 0; step < STEPS; step++) {
        atmsae_batch b = batch_of(d, step);
        ok(atmsae_trainer_step(t, &b, NULL), ctx);
    }
    uint64_t count;
    const float *w = atmsae_model_view(atmsae_trainer_model(t), ATMSAE_W_DEC, &count);
    bool unit = s->activation != ATMSAE_RELU && s->activation != ATMSAE_JUMPRELU_TANH, all_unit = true;
    uint64_t width = count / F;
    for (uint64_t i = 0; i < F; i++) {
        double squares = 0;
        for (uint64_t j = 0; j < width; j++)
            squares += (double)w[i * width + j] * (double)w[i * width + j];
        all_unit = all_unit && fabs(squares - 1) < 1e-5;
    }
    ck_assert_msg(all_unit == unit, "%s", s->name);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trainer");
    TCase *t = tcase_create("same bits");
    tcase_add_loop_test(t, loop_by_hand_gives_the_same_bits, 0, SETUPS);
    tcase_add_test(t, second_loss_of_no_weight_changes_nothing);
    tcase_add_loop_test(t, threads_do_not_change_bits, 0, SETUPS);
    tcase_add_loop_test(t, resume_is_exact, 0, SETUPS);
    suite_add_tcase(suite, t);
    t = tcase_create("failures");
    tcase_add_test(t, damaged_checkpoints_are_refused);
    tcase_add_loop_test(t, bad_rows_change_nothing, 0, SETUPS);
    tcase_add_loop_test(t, skipped_rows_are_rows_of_weight_0, 0, 3 * SETUPS);
    tcase_add_test(t, more_bad_rows_than_allowed);
    tcase_add_test(t, bad_rows_before_and_after_training);
    tcase_add_test(t, bad_rows_are_in_the_checkpoint);
    tcase_add_loop_test(t, failed_allocations_change_nothing, 0, SETUPS);
    tcase_add_loop_test(t, later_steps_allocate_nothing, 0, SETUPS);
    suite_add_tcase(suite, t);
    t = tcase_create("training");
    tcase_add_test(t, auxk_revives_dead_latents);
    tcase_add_test(t, the_dead_window_is_resolved);
    tcase_add_test(t, schedules_follow_the_run);
    tcase_add_loop_test(t, decoders_stay_on_the_sphere, 0, SETUPS);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
