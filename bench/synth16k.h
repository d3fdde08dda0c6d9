/* SPDX-License-Identifier: MIT
 *
 * A generator with the features of the preset ATMSAE_SYNTH_BENCH_16K: the same trees, shares and correlations, but in
 * any number of dimensions and with directions that are not moved apart, which takes the preset minutes. Its rows
 * cost as much.
 */
#ifndef BENCH_SYNTH16K_H
#define BENCH_SYNTH16K_H

#include <atmsae/eval.h>
#include <math.h>

enum { SYNTH16K_FEATURES = 16384, SYNTH16K_ROOTS = 128, SYNTH16K_PARENTS = SYNTH16K_ROOTS * 21 };

static inline atmsae_status synth16k_create(atmsae_context *ctx, uint64_t d, atmsae_synth **out)
{
    static double probability[SYNTH16K_FEATURES], mean[SYNTH16K_FEATURES], sd[SYNTH16K_FEATURES];
    static uint64_t parent[SYNTH16K_FEATURES];
    static int32_t children[SYNTH16K_FEATURES];
    for (uint64_t i = 0; i < SYNTH16K_FEATURES; i++) {
        const uint64_t family = i - SYNTH16K_ROOTS; /* four children each, numbered level by level */
        parent[i] = i >= SYNTH16K_ROOTS && family < 4 * SYNTH16K_PARENTS ? family / 4 : i;
        children[i] = i < SYNTH16K_PARENTS ? ATMSAE_CHILDREN_KEEP_ONE : ATMSAE_CHILDREN_FREE;
        probability[i] = 5e-4 + 0.3995 * (1 / sqrt((double)i + 1) - 1.0 / 128) / (127.0 / 128);
        mean[i] = 5 - (double)i / (SYNTH16K_FEATURES - 1);
        sd[i] = 0.6; /* the mean of the preset's */
    }
    atmsae_tree_config config;
    atmsae_tree_config_init(&config, sizeof config);
    config.d = d;
    config.n_features = SYNTH16K_FEATURES;
    config.seed = 42;
    config.probability = probability;
    config.parent = parent;
    config.children = children;
    config.mean = mean;
    config.sd = sd;
    config.scale_children = config.compensate = 1;
    config.correlation_rank = 25;
    config.bias_norm = 0.5;
    return atmsae_synth_create_tree(ctx, &config, out);
}

#endif
