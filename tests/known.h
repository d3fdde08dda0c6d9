/* SPDX-License-Identifier: MIT
 *
 * What the tests of measures with a known answer share.
 */
#ifndef KNOWN_H
#define KNOWN_H

#include "base/base.h"
#include "data/synth.h"
#include "kernels/kernels.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 900, D = 16, F = 40 };

static inline void ok(atmsae_context *ctx, atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static inline void near(const char *what, double got, double want, double tolerance)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%s is %.12g, expected %.12g", what, got, want);
}

static inline void between(const char *what, double got, double low, double high)
{
    ck_assert_msg(got >= low && got <= high, "%s is %g, expected %g to %g", what, got, low, high);
}

static inline void *zeros(uint64_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
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

static inline double normal(uint64_t stream, uint64_t i)
{
    uint32_t words[4];
    double two[2];
    ams_philox(99, AMS_DRAW_EVAL, stream, i, words);
    ams_normal2(words, two);
    return two[0];
}

static inline atmsae_model *new_model(atmsae_context *ctx, uint64_t d, uint64_t f, int32_t activation, double k, uint64_t seed)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = d;
    config.d_sae = f;
    config.activation = activation;
    config.k = k;
    config.input_norm = ATMSAE_INPUT_RAW;
    config.seed = seed;
    atmsae_model *model;
    ok(ctx, atmsae_model_create(ctx, &config, &model));
    return model;
}

static inline void set(atmsae_context *ctx, atmsae_model *model, int32_t parameter, const float *values)
{
    uint64_t count;
    ck_assert_ptr_nonnull(atmsae_model_view(model, parameter, &count));
    ok(ctx, atmsae_model_set(model, parameter, values, count));
}

static inline atmsae_batch rows(const float *x, uint64_t n)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = x;
    return batch;
}

/* ---- a language model: logits = W x ---------------------------------------------------------------------- */

enum { TOKENS = 30, VOCAB = 11, BATCHES = 3 };

typedef struct toy_lm {
    float w[VOCAB * D], x[BATCHES * TOKENS * D], logits[TOKENS * VOCAB], ce[TOKENS];
    uint8_t keep[TOKENS];
    bool no_logits;
    int fail_at; /* call at which run fails */
    int calls;
} toy_lm;

static inline int32_t run_toy(void *opaque, uint64_t batch, const float *replacement, atmsae_lm_output *out)
{
    toy_lm *lm = opaque;
    const float *x = replacement ? replacement : lm->x + batch * TOKENS * D;
    if (++lm->calls == lm->fail_at) return 7;
    for (uint64_t t = 0; t < TOKENS; t++) {
        double sum = 0;
        for (uint64_t v = 0; v < VOCAB; v++) {
            double z = 0;
            for (uint64_t j = 0; j < D; j++)
                z += (double)lm->w[v * D + j] * (double)x[t * D + j];
            lm->logits[t * VOCAB + v] = (float)z;
            sum += exp(z);
        }
        lm->ce[t] = t == 4 ? NAN : (float)(log(sum) - (double)lm->logits[t * VOCAB + t % VOCAB]);
    }
    out->n_tokens = TOKENS;
    out->activations = x;
    out->keep = lm->keep;
    out->ce = lm->ce;
    out->logits = lm->no_logits ? NULL : lm->logits;
    out->vocab = VOCAB;
    return 0;
}

/* ---- a tree ------------------------------------------------------------------------------------------------ */

enum { TREE_N = 8 };

/* Two roots; 2, 3, 4 below 0 exclude each other; 5 below 1, 6 below 5. Directions are axes, so x shows magnitudes. */
typedef struct tree {
    double probability[TREE_N], mean[TREE_N], sd[TREE_N];
    uint64_t parent[TREE_N];
    int32_t children[TREE_N];
    float directions[TREE_N * TREE_N];
    atmsae_tree_config config;
} tree;

static inline void describe(tree *t)
{
    static const uint64_t parent[] = {0, 1, 0, 0, 0, 1, 5, 7};
    static const double p[] = {0.3, 0.4, 0.1, 0.08, 0.05, 0.2, 0.1, 0.15};
    memset(t, 0, sizeof *t);
    atmsae_tree_config_init(&t->config, sizeof t->config);
    for (uint64_t i = 0; i < TREE_N; i++) {
        t->parent[i] = parent[i];
        t->probability[i] = p[i];
        t->mean[i] = 2 + (double)i;
        t->sd[i] = 0.25;
        t->directions[i * TREE_N + i] = 3; /* of any norm */
    }
    t->children[0] = ATMSAE_CHILDREN_KEEP_ONE;
    t->config.d = t->config.n_features = TREE_N;
    t->config.probability = t->probability;
    t->config.parent = t->parent;
    t->config.children = t->children;
    t->config.mean = t->mean;
    t->config.sd = t->sd;
    t->config.directions = t->directions;
}

/* Runs the tests of a program; its exit code. */
static inline int run_tests(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < n; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}

#endif
