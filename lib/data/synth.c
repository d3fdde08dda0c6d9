/* SPDX-License-Identifier: MIT
 *
 * Rows with known features: parents with exclusive children (what absorption happens to), and
 * independent features. Every draw has its own place in a counter-based stream, so a row does not
 * depend on which rows were asked for before or beside it.
 */
#include "base/elementary.h"
#include "data/synth.h"

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

void ams_synth_words(const atmsae_synth *synth, unsigned use, uint64_t index, uint64_t row, uint32_t words[4])
{
    ams_philox(synth->config.seed, AMS_DRAW_SYNTH, (uint64_t)use << 48 | index, row, words);
}

/* ---- life ------------------------------------------------------------------------------------ */

void atmsae_synth_config_init(atmsae_synth_config *config, size_t size)
{
    static const atmsae_synth_config defaults = {
        .d = 96,
        .n_parents = 12,
        .n_children = 8,
        .n_independent = 60,
        .p_parent = 0.06,
        .p_child = 0.8,
        .child_power = 0.7,
        .p_independent_min = 0.01,
        .p_independent_max = 0.08,
        .magnitude_sd = 0.15,
    };
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static uint64_t count_features(const atmsae_synth_config *c) /* of checked counts: < 2^49 */
{
    return c->n_parents * (1 + c->n_children) + c->n_independent;
}

static atmsae_status check(atmsae_context *ctx, const atmsae_synth_config *c)
{
    const struct {
        const char *name;
        double value, low, high;
    } table[] = {
        {"d", (double)c->d, 1, 1 << 24},
        {"n_parents", (double)c->n_parents, 0, 1 << 24},
        {"n_children", (double)c->n_children, 0, 1 << 24},
        {"n_independent", (double)c->n_independent, 0, 1 << 24},
        {"p_parent", c->p_parent, 0, 1},
        {"p_child", c->p_child, 0, 1},
        {"child_power", c->child_power, 0, 100},
        {"p_independent_min", c->p_independent_min, 1e-12, 1},
        {"p_independent_max", c->p_independent_max, c->p_independent_min, 1},
        {"magnitude_sd", c->magnitude_sd, 0, 100},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!(table[i].value >= table[i].low && table[i].value <= table[i].high)) /* NaN fails too */
            return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_synth_config: %s = %.10g, allowed %.10g .. %.10g", table[i].name,
                            table[i].value, table[i].low, table[i].high);
    uint64_t features = count_features(c);
    if (features == 0 || features > INT32_MAX)
        return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_synth_config: %llu features, allowed 1 .. 2^31 - 1",
                        (unsigned long long)features);
    return ATMSAE_OK;
}

static void draw_direction(void *arg, uint64_t feature, unsigned worker)
{
    const atmsae_synth *synth = arg;
    uint64_t d = synth->config.d;
    float *out = synth->directions + feature * d;
    double squares = 0;
    (void)worker;
    for (uint64_t j = 0; j < d; j += 2) {
        uint32_t words[4];
        double normal[2];
        ams_synth_words(synth, AMS_SYNTH_DIRECTION, feature, j / 2, words);
        ams_normal2(words, normal);
        for (uint64_t i = 0; i < 2 && j + i < d; i++) {
            out[j + i] = (float)normal[i];
            squares += normal[i] * normal[i];
        }
    }
    double norm = sqrt(squares);
    for (uint64_t j = 0; j < d; j++)
        out[j] = norm > 1e-30 ? (float)(out[j] / norm) : (float)(j == 0);
}

static void set_probabilities(atmsae_synth *synth)
{
    const atmsae_synth_config *c = &synth->config;
    double total = 0, sum = 0, low = ams_ln(c->p_independent_min), high = ams_ln(c->p_independent_max);
    for (uint64_t j = 0; j < c->n_children; j++)
        total += ams_pow((double)(j + 1), -c->child_power);
    for (uint64_t j = 0; j < c->n_children; j++) {
        sum += ams_pow((double)(j + 1), -c->child_power);
        synth->child_sums[j] = j + 1 == c->n_children ? c->p_child : c->p_child * (sum / total);
    }
    for (uint64_t i = 0; i < c->n_independent; i++) {
        uint32_t words[4];
        ams_synth_words(synth, AMS_SYNTH_PROBABILITY, i, 0, words);
        synth->p_independent[i] = ams_exp(low + (high - low) * ams_uniform(words[0], words[1]));
    }
}

void ams_synth_draw_directions(atmsae_synth *synth)
{
    ams_parallel(synth->ctx, synth->features, draw_direction, synth);
}

static void set_parents(atmsae_synth *synth)
{
    const atmsae_synth_config *c = &synth->config;
    for (uint64_t i = 0; i < synth->features; i++) {
        bool child = i >= c->n_parents && i < c->n_parents * (1 + c->n_children);
        synth->parent_of[i] = child ? (uint32_t)((i - c->n_parents) / c->n_children) : AMS_NO_PARENT;
    }
    for (uint64_t p = 0; p < c->n_parents; p++)
        synth->parents[p] = (uint32_t)p;
}

static atmsae_status create(atmsae_context *ctx, const atmsae_synth_config *caller, atmsae_synth **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_synth_create: out is NULL");
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    AMS_TRY(ams_struct_in(ctx, atmsae_synth_config, &config, caller));
    AMS_TRY(check(ctx, &config));
    uint64_t features = count_features(&config); /* < 2^31, and d <= 2^24 */

    atmsae_synth *synth = ams_calloc(ctx, 1, sizeof *synth);
    if (!synth) return ams_nomem(ctx, "a generator");
    synth->ctx = ams_context_ref(ctx);
    synth->config = config;
    synth->features = features;
    synth->n_parents = config.n_parents;
    synth->directions = ams_alloc(ctx, features * config.d, sizeof *synth->directions);
    synth->p_independent = ams_alloc(ctx, config.n_independent, sizeof *synth->p_independent);
    synth->child_sums = ams_alloc(ctx, config.n_children, sizeof *synth->child_sums);
    synth->parent_of = ams_alloc(ctx, features, sizeof *synth->parent_of);
    synth->parents = ams_alloc(ctx, config.n_parents, sizeof *synth->parents);
    if (!synth->directions || !synth->p_independent || !synth->child_sums || !synth->parent_of || !synth->parents) {
        atmsae_synth_destroy(synth);
        return ams_nomem(ctx, "a generator's directions");
    }
    ams_synth_draw_directions(synth);
    set_probabilities(synth);
    set_parents(synth);
    *out = synth;
    return ATMSAE_OK;
}

atmsae_status atmsae_synth_create(atmsae_context *ctx, const atmsae_synth_config *caller, atmsae_synth **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, out));
}

void atmsae_synth_destroy(atmsae_synth *synth)
{
    if (!synth) return;
    atmsae_context *ctx = synth->ctx;
    ams_free(ctx, synth->directions);
    ams_free(ctx, synth->p_independent);
    ams_free(ctx, synth->child_sums);
    ams_free(ctx, synth->parent_of);
    ams_free(ctx, synth->parents);
    ams_tree_free(ctx, synth->tree);
    ams_free(ctx, synth);
    atmsae_context_destroy(ctx);
}

uint64_t atmsae_synth_features(const atmsae_synth *synth) { return synth ? synth->features : 0; }
const float *atmsae_synth_directions(const atmsae_synth *synth) { return synth ? synth->directions : NULL; }

/* ---- rows ------------------------------------------------------------------------------------- */

typedef struct rows_job {
    const atmsae_synth *synth;
    uint64_t first_row, n_rows, rows_a_job;
    float *x;
    uint8_t *active;
    char *scratch; /* [workers, scratch_each], of trees */
    uint64_t scratch_each;
} rows_job;

/* One row being written. */
typedef struct row_out {
    const atmsae_synth *synth;
    float *x;
    uint8_t *active; /* or NULL */
} row_out;

static void add(const row_out *out, uint64_t feature, double normal)
{
    const atmsae_synth *synth = out->synth;
    double magnitude = fmax(0.1, 1 + synth->config.magnitude_sd * normal);
    ams_axpy(out->x, (float)magnitude, synth->directions + feature * synth->config.d, synth->config.d);
    if (out->active) out->active[feature] = 1;
}

static void make_row(const row_out *out, uint64_t row)
{
    const atmsae_synth *synth = out->synth;
    const atmsae_synth_config *c = &synth->config;
    uint64_t children = c->n_parents, independents = c->n_parents * (1 + c->n_children);
    uint32_t words[4];
    double normal[2];
    memset(out->x, 0, (size_t)c->d * sizeof *out->x);
    if (out->active) memset(out->active, 0, (size_t)synth->features);

    for (uint64_t p = 0; p < c->n_parents; p++) {
        ams_synth_words(synth, AMS_SYNTH_PARENT, p, row, words);
        if (!(ams_uniform(words[0], words[1]) < c->p_parent)) continue;
        double u = ams_uniform(words[2], words[3]); /* falls into the share of one child, or of none */
        uint64_t child = 0;
        while (child < c->n_children && !(u < synth->child_sums[child]))
            child++;
        ams_synth_words(synth, AMS_SYNTH_PARENT_SIZE, p, row, words);
        ams_normal2(words, normal);
        add(out, p, normal[0]);
        if (child < c->n_children) add(out, children + p * c->n_children + child, normal[1]);
    }
    for (uint64_t i = 0; i < c->n_independent; i++) {
        ams_synth_words(synth, AMS_SYNTH_INDEPENDENT, i, row, words);
        if (!(ams_uniform(words[0], words[1]) < synth->p_independent[i])) continue;
        ams_synth_words(synth, AMS_SYNTH_INDEPENDENT_SIZE, i, row, words);
        ams_normal2(words, normal);
        add(out, independents + i, normal[0]);
    }
}

static void make_rows(void *arg, uint64_t i, unsigned worker)
{
    const rows_job *job = arg;
    const atmsae_synth *synth = job->synth;
    uint64_t first = i * job->rows_a_job, rows = ams_min(job->n_rows - first, job->rows_a_job);
    row_out out = {synth, job->x + first * synth->config.d, job->active ? job->active + first * synth->features : NULL};
    if (synth->tree) {
        ams_tree_rows(synth, job->first_row + first, rows, job->scratch + worker * job->scratch_each, out.x, out.active);
        return;
    }
    for (uint64_t r = 0; r < rows; r++) {
        make_row(&out, job->first_row + first + r);
        out.x += synth->config.d;
        if (out.active) out.active += synth->features;
    }
}

static atmsae_status generate(const atmsae_synth *synth, uint64_t first_row, uint64_t n_rows, float *x, uint8_t *active)
{
    uint64_t bytes;
    if (n_rows == 0) return ATMSAE_OK;
    AMS_CHECK_ARRAY(synth->ctx, "atmsae_synth_rows: x", x);
    if (n_rows - 1 > UINT64_MAX - first_row || !ams_mul(n_rows, synth->config.d * sizeof *x, &bytes) ||
        bytes > PTRDIFF_MAX || !ams_mul(n_rows, synth->features, &bytes) || bytes > PTRDIFF_MAX)
        return ams_fail(synth->ctx, ATMSAE_E_LIMIT, "atmsae_synth_rows: %llu rows from %llu on: more than memory can hold",
                        (unsigned long long)n_rows, (unsigned long long)first_row);
    rows_job job = {.synth = synth, .first_row = first_row, .n_rows = n_rows, .x = x, .active = active};
    /* Many rows of a tree at a time share what they read, but every thread is to have two turns. */
    job.rows_a_job = ams_min(n_rows / (2 * (uint64_t)ams_workers(synth->ctx)) + 1, AMS_TREE_ROWS);
    if (synth->tree) {
        job.scratch_each = ams_tree_scratch(synth, job.rows_a_job);
        job.scratch = ams_alloc(synth->ctx, ams_workers(synth->ctx), job.scratch_each);
        if (!job.scratch) return ams_nomem(synth->ctx, "rows of a generator");
    }
    ams_parallel(synth->ctx, (n_rows - 1) / job.rows_a_job + 1, make_rows, &job);
    ams_free(synth->ctx, job.scratch);
    return ATMSAE_OK;
}

atmsae_status atmsae_synth_rows(const atmsae_synth *synth, uint64_t first_row, uint64_t n_rows, float *x,
                                uint8_t *active)
{
    if (!synth) return ATMSAE_E_ARG;
    AMS_CALL(synth->ctx, generate(synth, first_row, n_rows, x, active));
}
