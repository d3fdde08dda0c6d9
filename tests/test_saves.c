/* SPDX-License-Identifier: MIT
 *
 * What is saved can be loaded, and computes the same: models whose scales and parameters are drawn from all of
 * single precision. A save that could not keep that promise is refused, writes nothing, and says why.
 */
#include "suite.h"

#include <atmsae/atmsae.h>
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 64, MAX_D = 6 };

static atmsae_context *ctx;
static char root[64], path[100];

static void setup(void)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    strcpy(root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/atmsae_saves_XXXXXX" : "/tmp/atmsae_saves_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void teardown(void)
{
    static const char *const files[] = {"sae/cfg.json", "sae/sae_weights.safetensors", "sae", "sae.npz", "sae.gguf", ""};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        (void)remove(path);
    }
    ck_assert_int_ne(access(root, F_OK), 0);
    atmsae_context_destroy(ctx);
}

static uint64_t random_state;
static double draw(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}
static double magnitude(void) { return pow(10, -44 + 82 * draw()); }

static void fill(float *rows, double size)
{
    for (int i = 0; i < ROWS * MAX_D; i++)
        rows[i] = (float)(size * (1 + 0.9 * (draw() - 0.5)));
}

static void scale(atmsae_model *model, int32_t parameter, double factor)
{
    uint64_t count;
    const float *values = atmsae_model_view(model, parameter, &count);
    float *scaled = malloc(count * sizeof *scaled);
    for (uint64_t i = 0; i < count; i++)
        scaled[i] = (float)(values[i] * factor);
    (void)!atmsae_model_set(model, parameter, scaled, count); /* which refuses what is not finite */
    free(scaled);
}

/* The reconstruction of the batch; false if there is none. */
static bool reconstruct(const atmsae_model *model, const atmsae_batch *batch, float *out)
{
    atmsae_codes *codes;
    ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
    const bool good = atmsae_encode(model, batch, codes) >= 0 && atmsae_decode(model, codes, out, 0) >= 0;
    atmsae_codes_destroy(codes);
    return good;
}

static bool is_same(const atmsae_model *a, const atmsae_model *b, const atmsae_batch *batch, uint64_t d)
{
    static float x[ROWS * MAX_D], y[ROWS * MAX_D];
    if (!reconstruct(a, batch, x) || !reconstruct(b, batch, y)) return false;
    double most = 0, difference = 0;
    for (uint64_t i = 0; i < ROWS * d; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i])) return false;
        most = fmax(most, fabs((double)x[i]));
        difference = fmax(difference, fabs((double)x[i] - (double)y[i]));
    }
    return difference <= 1e-3 * most + 1e-44;
}

START_TEST(saved_is_loaded)
{
    enum { MODELS = 6000 };
    static float x[ROWS * MAX_D], y[ROWS * MAX_D];
    long saved = 0, refused = 0, different = 0;
    for (int i = 0; i < MODELS; i++) {
        random_state = (uint64_t)i * 977 + 11;
        (void)draw();
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = 1 + (uint64_t)(draw() * MAX_D);
        config.d_sae = 1 + (uint64_t)(draw() * 12);
        config.activation = 1 + (int32_t)(draw() * 6);
        config.k = 1;
        config.seed = (uint64_t)i;
        config.transcoder = draw() < 0.25;
        if (config.transcoder) config.d_out = 1 + (uint64_t)(draw() * MAX_D);
        atmsae_model *model, *again;
        ck_assert_int_eq(atmsae_model_create(ctx, &config, &model), ATMSAE_OK);
        const double size = magnitude();
        fill(x, size);
        fill(y, draw() < 0.5 ? size : magnitude());
        atmsae_batch batch;
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = ROWS;
        batch.x = x;
        if (config.transcoder) batch.y = y;
        bool good = atmsae_model_prepare(model, &batch) >= 0;
        if (good && draw() < 0.3) scale(model, ATMSAE_W_DEC, magnitude());
        if (good && draw() < 0.3) scale(model, ATMSAE_W_ENC, magnitude());
        good = good && atmsae_model_calibrate(model, &batch) >= 0;
        atmsae_save_options options;
        atmsae_save_options_init(&options, sizeof options);
        options.fold_decoder_norm = draw() < 0.5;
        snprintf(path, sizeof path, "%s/%s", root, draw() < 0.3 ? "sae.npz" : "sae");
        if (good && atmsae_model_save(model, path, &options) == ATMSAE_OK) {
            saved++;
            ck_assert_msg(atmsae_model_load(ctx, path, &again) == ATMSAE_OK, "model %d: %s", i, atmsae_last_error(ctx));
            different += !is_same(model, again, &batch, config.d_out ? config.d_out : config.d_in);
            atmsae_model_destroy(again);
        } else {
            refused++;
        }
        atmsae_model_destroy(model);
    }
    printf("%ld models saved and loaded, %ld refused, %ld with a pre-activation so near its threshold that rounding decides\n", saved,
           refused, different);
    ck_assert_int_gt(saved, MODELS / 3);
    ck_assert_int_le(different, MODELS / 300);
}
END_TEST

/* 3 -> 2 latents -> 3, all values 1 but for what a case changes. */
static atmsae_model *make(int32_t activation, int32_t parameter, uint64_t at, float value, float scale_of_rows)
{
    static const int32_t parameters[] = {ATMSAE_W_ENC, ATMSAE_W_DEC, ATMSAE_B_ENC, ATMSAE_B_DEC, ATMSAE_THRESHOLD};
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = 3;
    config.d_sae = 2;
    config.k = 1;
    config.activation = activation;
    config.decoder_norm = ATMSAE_DECODER_FREE;
    atmsae_model *model;
    ck_assert_int_eq(atmsae_model_create(ctx, &config, &model), ATMSAE_OK);
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        uint64_t count;
        float values[6] = {1, 1, 1, 1, 1, 1};
        if (!atmsae_model_view(model, parameters[i], &count)) continue;
        if (parameters[i] == parameter) values[at] = value;
        ck_assert_int_eq(atmsae_model_set(model, parameters[i], values, count), ATMSAE_OK);
    }
    ck_assert_int_eq(atmsae_model_set(model, ATMSAE_INPUT_SCALE, &scale_of_rows, 1), ATMSAE_OK);
    return model;
}

START_TEST(refusals)
{
    static const struct {
        int32_t activation, parameter;
        uint64_t at;
        float value, scale;
        int32_t fold;
        const char *file, *text; /* NULL: it is saved */
    } cases[] = {
        {ATMSAE_RELU, 0, 0, 0, 1, 0, "sae", NULL},
        {ATMSAE_RELU, 0, 0, 0, 1e20f, 1, "sae", NULL},
        {ATMSAE_RELU, ATMSAE_W_ENC, 4, 1e30f, 1e10f, 0, "sae", "W_enc, latent 1: 1e+30 would be 1e+40"},
        {ATMSAE_RELU, ATMSAE_W_DEC, 2, 1e30f, 1e-10f, 0, "sae", "W_dec, latent 0: 1e+30 would be 1e+40"},
        {ATMSAE_RELU, 0, 0, 0, 2e-39f, 0, "sae", "W_enc, latent 0: 1 would be 2e-39"},
        {ATMSAE_RELU, 0, 0, 0, 2e-39f, 0, "sae.npz", "W_enc, latent 0: 1 would be 2e-39"},
        {ATMSAE_RELU, ATMSAE_B_DEC, 2, 1e30f, 1e-10f, 0, "sae", "b_dec, element 2: 1e+30 would be 1e+40"},
        {ATMSAE_RELU, ATMSAE_B_ENC, 1, 1e38f, 1, 1, "sae", NULL}, /* times the square root of 3 */
        {ATMSAE_RELU, ATMSAE_B_ENC, 1, 3e38f, 1, 1, "sae", "b_enc, latent 1: 3e+38 would be 5.19615e+38"},
        {ATMSAE_JUMPRELU, ATMSAE_THRESHOLD, 1, 3e38f, 1, 1, "sae", "threshold, latent 1: 3e+38 would be 5.19615e+38"},
        {ATMSAE_JUMPRELU, ATMSAE_THRESHOLD, 1, 1e-43f, 1, 1, "sae", NULL}, /* far below the other */
        {ATMSAE_RELU, ATMSAE_W_ENC, 3, 1e35f, 1, 0, "sae", "latent 1, whose values in W_enc come to 1e+35"},
        {ATMSAE_RELU, ATMSAE_W_DEC, 3, 0, 1, 1, "sae", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atmsae_model *model = make(cases[i].activation, cases[i].parameter, cases[i].at, cases[i].value, cases[i].scale), *again;
        atmsae_save_options options;
        atmsae_save_options_init(&options, sizeof options);
        options.fold_decoder_norm = cases[i].fold;
        snprintf(path, sizeof path, "%s/%s", root, cases[i].file);
        const atmsae_status status = atmsae_model_save(model, path, &options);
        if (cases[i].text) {
            ck_assert_msg(status == ATMSAE_E_UNSUPPORTED && strstr(atmsae_last_error(ctx), cases[i].text), "case %zu: %s: %s", i,
                          atmsae_status_name(status), atmsae_last_error(ctx));
            ck_assert_int_ne(access(path, F_OK), 0);
        } else {
            ck_assert_msg(status == ATMSAE_OK, "case %zu: %s", i, atmsae_last_error(ctx));
            ck_assert_int_eq(atmsae_model_load(ctx, path, &again), ATMSAE_OK);
            atmsae_model_destroy(again);
            teardown();
            setup();
            atmsae_model_destroy(model);
            continue;
        }
        atmsae_model_destroy(model);
    }
}
END_TEST

/* A decoder row of zeros never fires: it has no norm to fold, and is no reason to refuse. Nor may names make a file
 * that is too long to be read. */
START_TEST(zero_rows_and_long_names)
{
    atmsae_model *model = make(ATMSAE_RELU, 0, 0, 0, 1), *again;
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.fold_decoder_norm = 1;
    const float zeros[6] = {1, 1, 1};
    ck_assert_int_eq(atmsae_model_set(model, ATMSAE_W_DEC, zeros, 6), ATMSAE_OK);
    snprintf(path, sizeof path, "%s/sae", root);
    ck_assert_int_eq(atmsae_model_save(model, path, &options), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_load(ctx, path, &again), ATMSAE_OK);
    atmsae_model_destroy(again);

    const size_t length = 17u << 20;
    char *name = malloc(length + 1);
    memset(name, 'n', length);
    name[length] = '\0';
    options.model_name = name;
    ck_assert_int_eq(atmsae_model_save(model, path, &options), ATMSAE_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "model_name"));
    ck_assert_int_eq(atmsae_model_load(ctx, path, &again), ATMSAE_OK); /* the one before it */
    atmsae_model_destroy(again);
    atmsae_model_destroy(model);
    free(name);
}
END_TEST

/* A control vector that would be nothing, or infinite. */
START_TEST(directions)
{
    static const struct {
        float scale, strength;
        atmsae_status status;
    } cases[] = {{1, 8, ATMSAE_OK}, {1e30f, 1, ATMSAE_OK}, {1e30f, 1e30f, ATMSAE_OK}, {1e-30f, 1e30f, ATMSAE_E_UNSUPPORTED},
                 {1e30f, 1e-30f, ATMSAE_E_UNSUPPORTED}, {1e-30f, 1e-30f, ATMSAE_OK}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atmsae_model *model = make(ATMSAE_RELU, 0, 0, 0, cases[i].scale);
        const uint32_t latents[] = {1};
        atmsae_save_options options;
        atmsae_save_options_init(&options, sizeof options);
        options.layer = 1;
        options.latents = latents;
        options.strengths = &cases[i].strength;
        options.n_latents = 1;
        snprintf(path, sizeof path, "%s/sae.gguf", root);
        (void)unlink(path);
        ck_assert_msg(atmsae_model_save(model, path, &options) == cases[i].status, "case %zu: %s", i, atmsae_last_error(ctx));
        ck_assert_int_eq(access(path, F_OK) == 0, cases[i].status == ATMSAE_OK);
        atmsae_model_destroy(model);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("saves");
    TCase *t = tcase_create("as they are read");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, saved_is_loaded);
    tcase_add_test(t, refusals);
    tcase_add_test(t, zero_rows_and_long_names);
    tcase_add_test(t, directions);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
