/* SPDX-License-Identifier: MIT
 *
 * For check_libm.sh: prints checksums of results into which every elementary function goes, and one of the C
 * library's own functions.
 */
#include "small_run.h"

#include <atmsae/eval.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LATENTS = 2000, FEATURES = 300, ROWS = 400 };

static atmsae_context *ctx;

static void ok(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n", atmsae_last_error(ctx));
    exit(1);
}

static void *memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) exit(1);
    return p;
}

static void print(const char *what, const char *which, const void *data, size_t bytes) /* FNV-1a */
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    printf("%s %s: %016llx\n", what, which, (unsigned long long)hash);
}

static void c_library(void)
{
    static double value[6 * 3000];
    for (int i = 0; i < 3000; i++) {
        const volatile double x = i / 1000.0 + 1e-3;
        double *v = value + 6 * (size_t)i;
        v[0] = exp(x), v[1] = log(x), v[2] = pow(x, 0.3), v[3] = sin(x), v[4] = cos(x), v[5] = expm1(-x);
    }
    print("C library", "exp, log, pow, sin, cos, expm1", value, sizeof value);
}

static void training(const small_setup *setup)
{
    static char path[300];
    const char *folder = small_folder();
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    small_run run;
    small_begin(&run, setup, ctx);
    small_until(&run, SMALL_STEPS);
    ok(atmsae_trainer_save(run.trainer, run.source, path));
    small_end(&run);
    size_t bytes;
    char *file = small_read(path, &bytes);
    if (!file) exit(1);
    print("checkpoint", setup->name, file, bytes);
    free(file);
    small_remove(folder);
}

static void importance(int32_t combine, const char *which)
{
    atmsae_tracker_config config;
    atmsae_tracker_config_init(&config, sizeof config);
    config.d_sae = LATENTS;
    config.combine = combine;
    atmsae_tracker *tracker;
    ok(atmsae_tracker_create(ctx, &config, &tracker));
    double *sums = memory(4 * LATENTS * sizeof *sums);
    for (uint64_t i = 0; i < LATENTS; i++) {
        sums[i] = 100;
        sums[LATENTS + i] = 1 + (double)(i * 7919 % 1000) / 7;
        sums[2 * LATENTS + i] = 1 + (double)(i % 97);
        sums[3 * LATENTS + i] = 0.1 + (double)(i * 31 % 1013) / 3;
    }
    const atmsae_latent_sums observed = {sizeof observed, LATENTS, sums, sums + LATENTS, sums + 2 * LATENTS, sums + 3 * LATENTS};
    ok(atmsae_tracker_observe(tracker, &observed));
    print("importance", which, atmsae_tracker_importance(tracker), LATENTS * sizeof(double));

    atmsae_masker_config masks;
    atmsae_masker_config_init(&masks, sizeof masks);
    masks.d_sae = LATENTS;
    masks.warmup_steps = 0;
    atmsae_masker *masker;
    ok(atmsae_masker_create(ctx, &masks, &masker));
    ok(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), LATENTS));
    ok(atmsae_masker_draw(masker, 5));
    print("p", which, atmsae_masker_p(masker), LATENTS * sizeof(double));
    atmsae_masker_destroy(masker);
    atmsae_tracker_destroy(tracker);
    free(sums);
}

static void initial_model(void)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = 100;
    config.d_sae = 5000;
    atmsae_model *model;
    ok(atmsae_model_create(ctx, &config, &model));
    uint64_t count;
    const float *rows = atmsae_model_view(model, ATMSAE_W_DEC, &count);
    print("model", "as it begins", rows, count * sizeof *rows);
    atmsae_model_destroy(model);
}

static void rows_of(atmsae_synth *synth, uint64_t d, const char *which)
{
    float *x = memory(ROWS * d * sizeof *x);
    ok(atmsae_synth_rows(synth, 0, ROWS, x, NULL));
    print("synthetic rows", which, x, ROWS * d * sizeof *x);
    atmsae_synth_destroy(synth);
    free(x);
}

static void synthetic(void)
{
    atmsae_synth *synth;
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    ok(atmsae_synth_create(ctx, &config, &synth));
    rows_of(synth, config.d, "independent");

    double probability[FEATURES], mean[FEATURES], sd[FEATURES];
    for (uint64_t i = 0; i < FEATURES; i++) {
        probability[i] = 0.001 + 0.4 * (double)i / FEATURES;
        mean[i] = 2;
        sd[i] = 0.5;
    }
    atmsae_tree_config tree;
    atmsae_tree_config_init(&tree, sizeof tree);
    tree.d = 40;
    tree.n_features = FEATURES;
    tree.probability = probability;
    tree.mean = mean;
    tree.sd = sd;
    tree.orthogonal_steps = 20;
    tree.correlation_rank = 5;
    ok(atmsae_synth_create_tree(ctx, &tree, &synth));
    rows_of(synth, tree.d, "correlated");
}

int main(void)
{
    ctx = small_context(2);
    c_library();
    for (int i = 0; i < SMALL_SETUPS; i++)
        training(&small_setups[i]);
    importance(ATMSAE_MEAN_ARITHMETIC, "arithmetic");
    importance(ATMSAE_MEAN_GEOMETRIC, "geometric");
    initial_model();
    synthetic();
    atmsae_context_destroy(ctx);
    return 0;
}
