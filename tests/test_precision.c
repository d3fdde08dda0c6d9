/* SPDX-License-Identifier: MIT
 *
 * Products with 16-bit inputs only propose latents: training and encoding give the bits that BLIS's
 * product gives, for every architecture, with masks, AuxK, ties, and rows too large for 16 bits.
 */
#include "base/context.h"
#include "kernels/panels.h"
#include "suite.h"

#include <atmsae/atmsae.h>
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 40, F = 300, N = 75, STEPS = 8 };

/* -1: BLIS */
static atmsae_context *context(int which)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    ctx->product = which < 0 ? NULL : ams_product_find((unsigned)which);
    return ctx;
}

/* Row r of kind 0: noise; 1: three rows again and again; 2: of very different sizes. */
static void fill(float *x, int kind)
{
    uint64_t state = 7;
    for (int r = 0; r < N; r++)
        for (int j = 0; j < D; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            float value = (float)((double)(state >> 33) * 0x1p-30 - 1);
            x[r * D + j] = kind == 1 && r > 2 ? x[r % 3 * D + j] : kind == 2 ? ldexpf(value, r % 30 - 15) : value;
        }
}

static atmsae_batch batch_of(const float *x)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = N;
    batch.x = x;
    return batch;
}

static atmsae_model_config shape(int32_t activation, double k)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D;
    config.d_sae = F;
    config.k = k;
    config.activation = activation;
    return config;
}

static atmsae_model *new_model(atmsae_context *ctx, int32_t activation, double k)
{
    const atmsae_model_config config = shape(activation, k);
    atmsae_model *model;
    ck_assert_int_eq(atmsae_model_create(ctx, &config, &model), ATMSAE_OK);
    return model;
}

typedef struct outcome {
    float w_enc[F * D], w_dec[F * D];
    uint64_t entries;
    uint32_t latent[N * F];
    float value[N * F];
} outcome;

static void train(int32_t activation, int kind, int which, outcome *out)
{
    static float x[N * D];
    fill(x, kind);
    atmsae_context *ctx = context(which);
    const atmsae_model_config model = shape(activation, 6);
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.dead_window = 2 * N; /* so that AuxK takes part */
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = ATMSAE_MASK_ATM;
    masker.warmup_steps = 2;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.tracker = &tracker;
    config.masker = &masker;
    atmsae_trainer *trainer;
    ck_assert_msg(atmsae_trainer_create(ctx, &config, &trainer) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    const atmsae_batch batch = batch_of(x);
    ck_assert_int_eq(atmsae_trainer_prepare(trainer, &batch), ATMSAE_OK);
    for (int s = 0; s < STEPS; s++)
        ck_assert_msg(atmsae_trainer_step(trainer, &batch, NULL) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    ck_assert_int_eq(atmsae_trainer_calibrate(trainer, &batch), ATMSAE_OK);
    const atmsae_model *m = atmsae_trainer_model(trainer);
    uint64_t count;
    memcpy(out->w_enc, atmsae_model_view(m, ATMSAE_W_ENC, &count), sizeof out->w_enc);
    memcpy(out->w_dec, atmsae_model_view(m, ATMSAE_W_DEC, &count), sizeof out->w_dec);
    atmsae_codes *codes;
    ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
    ck_assert_int_eq(atmsae_encode(m, &batch, codes), ATMSAE_OK);
    atmsae_codes_view view = {.size = sizeof view};
    ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
    out->entries = view.row_start[N];
    memcpy(out->latent, view.latent, out->entries * sizeof *view.latent);
    memcpy(out->value, view.value, out->entries * sizeof *view.value);
    atmsae_codes_destroy(codes);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}

/* Every other product that can be had without asking the system for tiles. */
static const int others[] = {AMS_INT16_PORTABLE, AMS_INT16_AVX2, AMS_INT16_VNNI, AMS_BF16_PORTABLE};
enum { OTHERS = sizeof others / sizeof *others };

/* _i: activation * 3 + kind of rows */
START_TEST(same_bits)
{
    static outcome blis, other;
    train(_i / 3, _i % 3, -1, &blis);
    ck_assert_uint_gt(blis.entries, 0);
    for (int o = 0; o < OTHERS; o++) {
        if (!ams_product_find((unsigned)others[o])) continue;
        train(_i / 3, _i % 3, others[o], &other);
        ck_assert_mem_eq(blis.w_enc, other.w_enc, sizeof blis.w_enc);
        ck_assert_mem_eq(blis.w_dec, other.w_dec, sizeof blis.w_dec);
        ck_assert_uint_eq(blis.entries, other.entries);
        ck_assert_mem_eq(blis.latent, other.latent, blis.entries * sizeof *blis.latent);
        ck_assert_mem_eq(blis.value, other.value, blis.entries * sizeof *blis.value);
    }
}
END_TEST

/* Rows that 16 bits cannot hold: BLIS's product is made instead. */
START_TEST(huge_rows)
{
    static float x[N * D];
    static uint32_t latent[3][N];
    for (int b = 0; b < 3; b++) {
        fill(x, 0);
        for (int j = 0; j < N * D; j++)
            x[j] *= 1e37f;
        atmsae_context *ctx = context(b == 0 ? -1 : b == 1 ? AMS_BF16_PORTABLE : AMS_INT16_PORTABLE);
        atmsae_model *model = new_model(ctx, ATMSAE_TOPK, 1);
        atmsae_codes *codes;
        ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
        const atmsae_batch batch = batch_of(x);
        ck_assert_msg(atmsae_encode(model, &batch, codes) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
        atmsae_codes_view view = {.size = sizeof view};
        ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
        ck_assert_uint_eq(view.row_start[N], N);
        memcpy(latent[b], view.latent, sizeof latent[b]);
        atmsae_codes_destroy(codes);
        atmsae_model_destroy(model);
        atmsae_context_destroy(ctx);
    }
    ck_assert_mem_eq(latent[0], latent[1], sizeof latent[0]);
    ck_assert_mem_eq(latent[0], latent[2], sizeof latent[0]);
}
END_TEST

/* A search for a batch's largest values starts from the last batch's; where those are far off, up or down, the
 * result is that of a first search. */
START_TEST(batches_of_other_sizes)
{
    static const float sizes[] = {1, 0.01f, 100, 0, 1};
    static float x[N * D], scaled[N * D];
    fill(x, 0);
    atmsae_context *ctx = context(AMS_INT16_PORTABLE);
    atmsae_model *model = new_model(ctx, ATMSAE_BATCHTOPK, 6);
    atmsae_codes *used;
    ck_assert_int_eq(atmsae_codes_create(ctx, &used), ATMSAE_OK);
    const atmsae_batch batch = batch_of(scaled);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int j = 0; j < N * D; j++)
            scaled[j] = sizes[i] * x[j];
        atmsae_codes *fresh;
        ck_assert_int_eq(atmsae_codes_create(ctx, &fresh), ATMSAE_OK);
        ck_assert_int_eq(atmsae_forward(model, &batch, NULL, fresh, NULL), ATMSAE_OK);
        ck_assert_int_eq(atmsae_forward(model, &batch, NULL, used, NULL), ATMSAE_OK);
        atmsae_codes_view a = {.size = sizeof a}, b = {.size = sizeof b};
        ck_assert_int_eq(atmsae_codes_get(fresh, &a), ATMSAE_OK);
        ck_assert_int_eq(atmsae_codes_get(used, &b), ATMSAE_OK);
        ck_assert_uint_eq(a.row_start[N], sizes[i] > 0 ? 6 * N : 0);
        ck_assert_mem_eq(a.row_start, b.row_start, (N + 1) * sizeof *a.row_start);
        if (sizes[i] > 0) {
            ck_assert_mem_eq(a.latent, b.latent, a.row_start[N] * sizeof *a.latent);
            ck_assert_mem_eq(a.value, b.value, a.row_start[N] * sizeof *a.value);
        }
        atmsae_codes_destroy(fresh);
    }
    atmsae_codes_destroy(used);
    atmsae_model_destroy(model);
    atmsae_context_destroy(ctx);
}
END_TEST

/* The setting: refused where it makes no sense, and harmless on CPUs without AMX. */
START_TEST(setting)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    ck_assert_int_eq(config.precision, ATMSAE_PRECISION_F32);
    atmsae_context *ctx;
    config.precision = 2;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_E_ARG);
    const ams_product *amx = ams_product_request_amx(), *fastest = ams_product_fastest();
    for (config.precision = 0; config.precision < 2; config.precision++) {
        const ams_product *want = config.precision == ATMSAE_PRECISION_BF16 && amx ? amx : fastest;
        ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
        ck_assert_ptr_eq(ams_product_of(ctx), want);
        ck_assert(!want || strstr(atmsae_context_cpu(ctx), ams_product_name(want)));
        printf("%s\n", atmsae_context_cpu(ctx));
        atmsae_context_destroy(ctx);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("precision");
    TCase *tests = tcase_create("precision");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, same_bits, 3 * ATMSAE_RELU, 3 * (ATMSAE_GATED + 1));
    tcase_add_test(tests, huge_rows);
    tcase_add_test(tests, batches_of_other_sizes);
    tcase_add_test(tests, setting);
    suite_add_tcase(suite, tests);
    return run_all(suite);
}
