/* SPDX-License-Identifier: MIT
 *
 * Makes a generator of features in trees from its description.
 */
#include "data/synth.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

void atmsae_tree_config_init(atmsae_tree_config *config, size_t size)
{
    static const atmsae_tree_config defaults = {.orthogonal_lr = 3e-4, .correlation_scale = 0.1};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check_numbers(atmsae_context *ctx, const atmsae_tree_config *c)
{
    const struct {
        const char *name;
        double value, low, high;
    } table[] = {
        {"d", (double)c->d, 1, 1 << 20},
        {"n_features", (double)c->n_features, 1, INT32_MAX},
        {"scale_children", c->scale_children, 0, 1},
        {"compensate", c->compensate, 0, 1},
        {"orthogonal_steps", (double)c->orthogonal_steps, 0, 1e6},
        {"orthogonal_lr", c->orthogonal_lr, 0, 1},
        {"correlation_rank", (double)c->correlation_rank, 0, 65536},
        {"correlation_scale", c->correlation_scale, 0, 1e6},
        {"bias_norm", c->bias_norm, 0, 1e12},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!(table[i].value >= table[i].low && table[i].value <= table[i].high)) /* NaN fails too */
            return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_tree_config: %s = %.10g, allowed %.10g .. %.10g", table[i].name,
                            table[i].value, table[i].low, table[i].high);
    if (!c->probability) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_tree_config: probability is NULL");
    return ATMSAE_OK;
}

static atmsae_status check_features(atmsae_context *ctx, const atmsae_tree_config *c)
{
    for (uint64_t i = 0; i < c->n_features; i++) {
        const struct {
            const char *name;
            double value, low, high;
        } table[] = {
            {"parent", c->parent ? (double)c->parent[i] : 0, 0, (double)i},
            {"children", c->children ? (double)c->children[i] : 0, 0, ATMSAE_CHILDREN_CHOOSE_ONE},
            {"probability", c->probability[i], 0, 1},
            {"mean", c->mean ? c->mean[i] : 1, 0, 1e12},
            {"sd", c->sd ? c->sd[i] : 0, 0, 1e12},
        };
        for (size_t k = 0; k < sizeof table / sizeof *table; k++)
            if (!(table[k].value >= table[k].low && table[k].value <= table[k].high))
                return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_tree_config: %s[%llu] = %.10g, allowed %.10g .. %.10g",
                                table[k].name, (unsigned long long)i, table[k].value, table[k].low, table[k].high);
    }
    return ATMSAE_OK;
}

static void set_parents(atmsae_synth *synth, const uint64_t *parent)
{
    uint64_t n = synth->features;
    uint32_t *end = synth->tree->child_end, sum = 0; /* zeros */
    for (uint64_t i = 0; i < n; i++) {
        bool root = !parent || parent[i] == i;
        synth->parent_of[i] = root ? AMS_NO_PARENT : (uint32_t)parent[i];
        if (!root) end[parent[i]]++;
    }
    for (uint64_t i = 0; i < n; i++) { /* counts to where each list begins */
        uint32_t count = end[i];
        if (count > 0) synth->parents[synth->n_parents++] = (uint32_t)i;
        end[i] = sum;
        sum += count;
    }
    for (uint64_t i = 0; i < n; i++) /* and, once filled, to where it ends */
        if (synth->parent_of[i] != AMS_NO_PARENT) synth->tree->child[end[synth->parent_of[i]]++] = (uint32_t)i;
}

/* probability: of the draw; or, with `compensate`, the share of rows wanted, which a child's parent and its
 * exclusive siblings would reduce. */
static void set_probabilities(atmsae_synth *synth, const atmsae_tree_config *c)
{
    ams_tree *t = synth->tree;
    memcpy(t->p, c->probability, synth->features * sizeof *t->p);
    for (uint64_t parent = 0, k = 0; c->compensate && parent < synth->features; parent++) {
        uint64_t first = k, end = t->child_end[parent];
        double sum = 0, of_parent = c->probability[parent];
        for (; k < end; k++)
            sum += c->probability[t->child[k]];
        bool keep_one = t->exclusive[parent] == ATMSAE_CHILDREN_KEEP_ONE && end - first > 1;
        for (uint64_t q = first; q < end && of_parent > 0; q++) {
            double p = c->probability[t->child[q]];
            t->p[t->child[q]] = fmin(1, p / of_parent * (keep_one ? 1 + fmax(0, sum - p) / of_parent : 1));
        }
    }
}

static void set_bias(atmsae_synth *synth, double norm)
{
    float *bias = synth->tree->bias;
    uint64_t d = synth->config.d;
    for (uint64_t j = 0; j < d; j++) {
        uint32_t words[4];
        double two[2];
        ams_synth_words(synth, AMS_SYNTH_BIAS, j, 0, words);
        ams_normal2(words, two);
        bias[j] = (float)two[0];
    }
    double size = ams_norm(bias, d);
    for (uint64_t j = 0; j < d; j++)
        bias[j] = size > 0 ? (float)((double)bias[j] * norm / size) : 0;
}

static atmsae_status take_directions(atmsae_synth *synth, const float *given)
{
    uint64_t d = synth->config.d;
    for (uint64_t i = 0; i < synth->features; i++) {
        double norm = ams_norm(given + i * d, d);
        if (!(norm > 0) || !isfinite(norm))
            return ams_fail(synth->ctx, ATMSAE_E_ARG, "atmsae_tree_config: the direction of feature %llu has norm %g",
                            (unsigned long long)i, norm);
        for (uint64_t j = 0; j < d; j++)
            synth->directions[i * d + j] = (float)((double)given[i * d + j] / norm);
    }
    return ATMSAE_OK;
}

static atmsae_status fill(atmsae_synth *synth, const atmsae_tree_config *c)
{
    atmsae_context *ctx = synth->ctx;
    uint64_t n = c->n_features;
    ams_tree *t = synth->tree = ams_calloc(ctx, 1, sizeof *t);
    if (!t) return ams_nomem(ctx, "a generator");
    synth->directions = ams_alloc(ctx, n * c->d, sizeof *synth->directions);
    synth->parent_of = ams_alloc(ctx, n, sizeof *synth->parent_of);
    synth->parents = ams_alloc(ctx, n, sizeof *synth->parents);
    t->child = ams_alloc(ctx, n, sizeof *t->child);
    t->child_end = ams_calloc(ctx, n, sizeof *t->child_end);
    t->exclusive = ams_calloc(ctx, n, sizeof *t->exclusive);
    t->p = ams_alloc(ctx, n, sizeof *t->p);
    t->mean = ams_alloc(ctx, n, sizeof *t->mean);
    t->sd = ams_alloc(ctx, n, sizeof *t->sd);
    t->bias = ams_alloc(ctx, c->d, sizeof *t->bias);
    if (!synth->directions || !synth->parent_of || !synth->parents || !t->child || !t->child_end || !t->exclusive ||
        !t->p || !t->mean || !t->sd || !t->bias)
        return ams_nomem(ctx, "a generator's features");
    t->scale_children = c->scale_children;
    for (uint64_t i = 0; i < n; i++) {
        if (c->children) t->exclusive[i] = (uint8_t)c->children[i];
        t->mean[i] = (float)(c->mean ? c->mean[i] : 1);
        t->sd[i] = (float)(c->sd ? c->sd[i] : 0);
    }
    set_parents(synth, c->parent);
    set_probabilities(synth, c);
    set_bias(synth, c->bias_norm);
    AMS_TRY(ams_tree_set_limits(synth, c->correlation_rank, c->correlation_scale));
    if (c->directions) AMS_TRY(take_directions(synth, c->directions));
    else ams_synth_draw_directions(synth);
    return ams_synth_orthogonalise(synth, c->orthogonal_steps, c->orthogonal_lr);
}

atmsae_status ams_synth_create_tree(atmsae_context *ctx, const atmsae_tree_config *caller, atmsae_synth **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_synth_create_tree: out is NULL");
    atmsae_tree_config config;
    uint64_t size;
    atmsae_tree_config_init(&config, sizeof config);
    AMS_TRY(ams_struct_in(ctx, atmsae_tree_config, &config, caller));
    AMS_TRY(check_numbers(ctx, &config));
    AMS_TRY(check_features(ctx, &config));
    if (!ams_mul(config.n_features * config.d, sizeof(float), &size)) return ams_nomem(ctx, "a generator");

    atmsae_synth *synth = ams_calloc(ctx, 1, sizeof *synth);
    if (!synth) return ams_nomem(ctx, "a generator");
    synth->ctx = ams_context_ref(ctx);
    synth->config.d = config.d;
    synth->config.seed = config.seed;
    synth->features = config.n_features;
    atmsae_status status = fill(synth, &config);
    if (status < 0) {
        atmsae_synth_destroy(synth);
        return status;
    }
    *out = synth;
    return ATMSAE_OK;
}

atmsae_status atmsae_synth_create_tree(atmsae_context *ctx, const atmsae_tree_config *config, atmsae_synth **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, ams_synth_create_tree(ctx, config, out));
}
