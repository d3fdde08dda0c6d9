/* SPDX-License-Identifier: MIT
 *
 * Published generators as descriptions of trees; sources and figures in doc/evaluation.md.
 */
#include "base/elementary.h"
#include "data/synth.h"

#include <math.h>

enum { BENCH_FEATURES = 16384, BENCH_D = 768, ROOTS = 128, BRANCHING = 4, BENCH_PARENTS = ROOTS * 21 };

/* The n features that all presets describe. */
typedef struct features {
    uint64_t *parent;
    int32_t *children;
    double *probability, *mean, *sd;
    float *directions;
} features;

/* SynthSAEBench-16k: trees of 4 children each, three levels below 128 roots, numbered level by level, whose siblings
 * exclude each other; a power law of probabilities; correlations of rank 25. */
static void describe_bench(const features *f, uint64_t seed, atmsae_tree_config *c)
{
    atmsae_synth drawing = {.config.seed = seed};
    uint64_t child = ROOTS;
    double low = ams_pow(BENCH_FEATURES, -0.5);
    for (uint64_t i = 0; i < BENCH_FEATURES; i++) {
        uint32_t words[4];
        double two[2];
        ams_synth_words(&drawing, AMS_SYNTH_SPREAD, i, 0, words);
        ams_normal2(words, two);
        if (i < ROOTS || i >= ROOTS + BENCH_PARENTS * BRANCHING) f->parent[i] = i;
        f->children[i] = ATMSAE_CHILDREN_FREE;
        f->probability[i] = 5e-4 + (0.4 - 5e-4) * (ams_pow((double)(i + 1), -0.5) - low) / (1 - low);
        f->mean[i] = 5 - (double)i / (BENCH_FEATURES - 1);
        f->sd[i] = fabs(0.5 + 0.5 * two[0]);
    }
    for (uint64_t p = 0; p < BENCH_PARENTS; p++) {
        f->children[p] = ATMSAE_CHILDREN_KEEP_ONE;
        for (int k = 0; k < BRANCHING; k++)
            f->parent[child++] = p;
    }
    c->d = BENCH_D;
    c->scale_children = c->compensate = 1;
    c->orthogonal_steps = 100;
    c->correlation_rank = 25;
    c->bias_norm = 0.5;
}

/* Four orthogonal features; the second is on in a fifth of the rows of the first, and only there. */
static void describe_chanin(const features *f, uint64_t seed, atmsae_tree_config *c)
{
    static const double p[] = {0.25, 0.2, 0.05, 0.05};
    (void)seed;
    c->d = 50;
    for (uint64_t i = 0; i < 4; i++) {
        f->parent[i] = i == 1 ? 0 : i;
        f->probability[i] = p[i];
        f->mean[i] = 1;
        for (uint64_t j = 0; j < c->d; j++)
            f->directions[i * c->d + j] = i == j ? 1 : 0;
    }
    c->directions = f->directions;
}

/* Three parents, on in 15 % of the rows, with three children of which one or none is on; eight features without. */
static void describe_matryoshka(const features *f, uint64_t seed, atmsae_tree_config *c)
{
    (void)seed;
    c->d = 20;
    for (uint64_t i = 0; i < 20; i++) {
        f->parent[i] = i >= 3 && i < 12 ? (i - 3) / 3 : i;
        f->children[i] = i < 3 ? ATMSAE_CHILDREN_CHOOSE_ONE : ATMSAE_CHILDREN_FREE;
        f->probability[i] = i < 3 ? 0.15 : i < 12 ? 0.2 : 0.05;
        f->mean[i] = 1;
    }
}

static const struct {
    uint64_t n;
    uint64_t own_directions; /* numbers of them that it sets itself */
    void (*describe)(const features *f, uint64_t seed, atmsae_tree_config *config);
} presets[] = {
    [ATMSAE_SYNTH_BENCH_16K] = {BENCH_FEATURES, 0, describe_bench},
    [ATMSAE_SYNTH_CHANIN] = {4, 200, describe_chanin},
    [ATMSAE_SYNTH_MATRYOSHKA] = {20, 0, describe_matryoshka},
};

static atmsae_status create(atmsae_context *ctx, int32_t which, uint64_t seed, atmsae_synth **out)
{
    if (which < ATMSAE_SYNTH_BENCH_16K || which > ATMSAE_SYNTH_MATRYOSHKA)
        return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_synth_create_preset: preset = %d, expected %d to %d", (int)which,
                        (int)ATMSAE_SYNTH_BENCH_16K, (int)ATMSAE_SYNTH_MATRYOSHKA);
    uint64_t n = presets[which].n;
    features f = {ams_calloc(ctx, n, sizeof *f.parent), ams_calloc(ctx, n, sizeof *f.children),
                  ams_calloc(ctx, n, sizeof *f.probability), ams_calloc(ctx, n, sizeof *f.mean),
                  ams_calloc(ctx, n, sizeof *f.sd), ams_calloc(ctx, presets[which].own_directions, sizeof *f.directions)};
    atmsae_status status = ATMSAE_E_NOMEM;
    if (f.parent && f.children && f.probability && f.mean && f.sd && f.directions) {
        atmsae_tree_config config;
        atmsae_tree_config_init(&config, sizeof config);
        config.n_features = n;
        config.seed = seed;
        config.parent = f.parent;
        config.children = f.children;
        config.probability = f.probability;
        config.mean = f.mean;
        config.sd = f.sd;
        presets[which].describe(&f, seed, &config);
        status = ams_synth_create_tree(ctx, &config, out);
    } else {
        status = ams_nomem(ctx, "a generator");
    }
    void *memory[] = {f.parent, f.children, f.probability, f.mean, f.sd, f.directions};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}

atmsae_status atmsae_synth_create_preset(atmsae_context *ctx, int32_t preset, uint64_t seed, atmsae_synth **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, preset, seed, out));
}
