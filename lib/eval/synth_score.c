/* SPDX-License-Identifier: MIT
 *
 * Scores a model against the features that a synthetic row is made of.
 */
#include "data/synth.h"
#include "eval/absorption.h"
#include "eval/assignment.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1024, LATENTS_A_JOB = 64 };

/* Counts over rows and parents. */
typedef struct parent_counts {
    uint64_t hit, missed, wrong;            /* both on; parent only; latent only */
    uint64_t missed_child_on, missed_child_off;
    uint64_t child_on, child_off;           /* rows with the parent on, and a child or none */
} parent_counts;

typedef struct scoring {
    const atmsae_synth *synth;
    const float *w_dec;
    uint64_t d, d_sae, features;
    double *cosine;          /* [features, F] |cos| of feature and decoder row; 0 for zero rows */
    uint64_t *tracker;       /* [n_parents] the parent's latent */
    parent_counts *counts;   /* [n_parents] */
    uint64_t active;         /* over all rows */
    float *x;                /* [CHUNK, d] */
    uint8_t *truth;          /* [CHUNK, features] */
    uint8_t *fired;          /* [F] in one row */
    atmsae_codes *codes;
} scoring;

static double dot(const float *a, const float *b, uint64_t n)
{
    double sum = 0;
    for (uint64_t j = 0; j < n; j++)
        sum += (double)a[j] * (double)b[j];
    return sum;
}

static void find_cosines(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    scoring *s = arg;
    for (uint64_t i = job * LATENTS_A_JOB; i < ams_min((job + 1) * LATENTS_A_JOB, s->d_sae); i++) {
        const float *row = s->w_dec + i * s->d;
        double norm = sqrt(dot(row, row, s->d));
        for (uint64_t k = 0; k < s->features; k++) {
            double along = dot(row, s->synth->directions + k * s->d, s->d);
            s->cosine[k * s->d_sae + i] = norm > 0 ? fmin(fabs(along) / norm, 1) : 0;
        }
    }
}

/* Mean |cos| of an optimal match of min(F, features) pairs. */
static atmsae_status match(const scoring *s, double *mcc)
{
    bool wide = s->features <= s->d_sae;
    uint64_t n = wide ? s->features : s->d_sae, m = wide ? s->d_sae : s->features;
    double *cost = ams_alloc(s->synth->ctx, n * m, sizeof *cost), sum = 0;
    uint64_t *column = ams_alloc(s->synth->ctx, n, sizeof *column);
    atmsae_status status = ATMSAE_E_NOMEM;
    if (!cost || !column) {
        status = ams_nomem(s->synth->ctx, "synthetic score");
        goto done;
    }
    for (uint64_t k = 0; k < s->features; k++)
        for (uint64_t i = 0; i < s->d_sae; i++)
            cost[wide ? k * m + i : i * m + k] = 1 - s->cosine[k * s->d_sae + i];
    status = ams_assignment(s->synth->ctx, n, m, cost, column);
    if (status < 0) goto done;
    for (uint64_t i = 0; i < n; i++)
        sum += wide ? s->cosine[i * s->d_sae + column[i]] : s->cosine[column[i] * s->d_sae + i];
    *mcc = sum / (double)n;
done:
    ams_free(s->synth->ctx, cost);
    ams_free(s->synth->ctx, column);
    return status;
}

static void count_row(scoring *s, const uint8_t *truth)
{
    uint64_t n_parents = s->synth->config.n_parents, n_children = s->synth->config.n_children;
    for (uint64_t k = 0; k < s->features; k++)
        s->active += truth[k];
    for (uint64_t p = 0; p < n_parents; p++) {
        parent_counts *c = s->counts + p;
        bool on = s->fired[s->tracker[p]], child = false;
        if (!truth[p]) {
            c->wrong += on;
            continue;
        }
        for (uint64_t q = 0; q < n_children; q++)
            child |= truth[n_parents + p * n_children + q];
        c->hit += on;
        c->missed += !on;
        c->child_on += child;
        c->child_off += !child;
        c->missed_child_on += child && !on;
        c->missed_child_off += !child && !on;
    }
}

static atmsae_status count_rows(scoring *s, const atmsae_model *model, uint64_t first_row, uint64_t n_rows)
{
    for (uint64_t r = 0; r < n_rows; r += CHUNK) {
        atmsae_batch batch;
        atmsae_codes_view view = {.size = sizeof view};
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = ams_min(CHUNK, n_rows - r);
        batch.x = s->x;
        AMS_TRY(atmsae_synth_rows(s->synth, first_row + r, batch.n_rows, s->x, s->truth));
        AMS_TRY(atmsae_encode(model, &batch, s->codes));
        AMS_TRY(atmsae_codes_get(s->codes, &view));
        for (uint64_t q = 0; q < batch.n_rows; q++) {
            uint64_t from = view.row_start[q], to = view.row_start[q + 1];
            for (uint64_t e = from; e < to; e++)
                s->fired[view.latent[e]] = view.value[e] > 0;
            count_row(s, s->truth + q * s->features);
            for (uint64_t e = from; e < to; e++)
                s->fired[view.latent[e]] = 0;
        }
    }
    return ATMSAE_OK;
}

static double share(uint64_t part, uint64_t whole) /* 0 where that is undefined */
{
    return whole == 0 ? 0 : (double)part / (double)whole;
}

static atmsae_synth_result summarise(const scoring *s, uint64_t n_rows)
{
    atmsae_synth_result r = {.size = sizeof r, .true_l0 = (double)s->active / (double)n_rows};
    uint64_t n_parents = s->synth->config.n_parents;
    parent_counts all = {0};
    for (uint64_t p = 0; p < n_parents; p++) {
        const parent_counts *c = s->counts + p;
        all.missed += c->missed;
        all.missed_child_on += c->missed_child_on;
        all.missed_child_off += c->missed_child_off;
        all.child_on += c->child_on;
        all.child_off += c->child_off;
        r.parent_recall += share(c->hit, c->hit + c->missed);
        r.parent_precision += share(c->hit, c->hit + c->wrong);
        r.parent_f1 += ams_f1(c->hit, c->wrong, c->missed);
    }
    /* Without a single parent, or row of the kind, the result is 0 / 0, NaN. */
    r.parent_recall /= (double)n_parents;
    r.parent_precision /= (double)n_parents;
    r.parent_f1 /= (double)n_parents;
    r.missed = (double)all.missed / (double)(all.child_on + all.child_off);
    r.missed_child_on = (double)all.missed_child_on / (double)all.child_on;
    r.missed_child_off = (double)all.missed_child_off / (double)all.child_off;
    return r;
}

static atmsae_status run(scoring *s, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                         atmsae_synth_result *result)
{
    atmsae_context *ctx = s->synth->ctx;
    uint64_t n_parents = s->synth->config.n_parents, pairs = 0;
    double mcc = 0;
    if (ams_mul(s->features, s->d_sae, &pairs)) s->cosine = ams_alloc(ctx, pairs, sizeof *s->cosine);
    s->tracker = ams_calloc(ctx, n_parents, sizeof *s->tracker);
    s->counts = ams_calloc(ctx, n_parents, sizeof *s->counts);
    s->x = ams_alloc(ctx, CHUNK * s->d, sizeof *s->x);
    s->truth = ams_alloc(ctx, CHUNK * s->features, sizeof *s->truth);
    s->fired = ams_calloc(ctx, s->d_sae, sizeof *s->fired);
    if (!s->cosine || !s->tracker || !s->counts || !s->x || !s->truth || !s->fired)
        return ams_nomem(ctx, "synthetic score");
    AMS_TRY(atmsae_codes_create(ctx, &s->codes));

    ams_parallel(ctx, (s->d_sae + LATENTS_A_JOB - 1) / LATENTS_A_JOB, find_cosines, s);
    for (uint64_t p = 0; p < n_parents; p++)
        for (uint64_t i = 1; i < s->d_sae; i++)
            if (s->cosine[p * s->d_sae + i] > s->cosine[p * s->d_sae + s->tracker[p]]) s->tracker[p] = i;
    AMS_TRY(match(s, &mcc));
    AMS_TRY(count_rows(s, model, first_row, n_rows));
    atmsae_synth_result r = summarise(s, n_rows);
    r.mcc = mcc;
    return ams_struct_out(ctx, "atmsae_synth_result", result, &r, sizeof r, sizeof r);
}

static atmsae_status score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                           atmsae_synth_result *result)
{
    atmsae_context *ctx = synth->ctx;
    uint64_t d = synth->config.d;
    if (model->d_in != d || model->d_out != d)
        return ams_fail(ctx, ATMSAE_E_ARG, "synthetic score: the model has d_in = %llu, d_out = %llu, expected d = %llu",
                        (unsigned long long)model->d_in, (unsigned long long)model->d_out, (unsigned long long)d);
    AMS_TRY(ams_struct_check(ctx, "atmsae_synth_result", result, sizeof *result));
    if (n_rows == 0 || n_rows > UINT64_MAX - first_row)
        return ams_fail(ctx, ATMSAE_E_ARG, "synthetic score: n_rows = %llu, expected at least 1 and no overflow",
                        (unsigned long long)n_rows);
    scoring s = {.synth = synth, .w_dec = model->w_dec, .d = d, .d_sae = model->d_sae, .features = synth->features};
    atmsae_status status = run(&s, model, first_row, n_rows, result);
    void *memory[] = {s.cosine, s.tracker, s.counts, s.x, s.truth, s.fired};
    atmsae_codes_destroy(s.codes);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}

atmsae_status atmsae_synth_score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row,
                                 uint64_t n_rows, atmsae_synth_result *result)
{
    if (!synth) return ATMSAE_E_ARG;
    if (!model) return ams_fail(synth->ctx, ATMSAE_E_ARG, "synthetic score: model is NULL");
    AMS_CALL(synth->ctx, score(synth, model, first_row, n_rows, result), AMS_READS("model", model));
}
