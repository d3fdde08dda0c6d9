/* SPDX-License-Identifier: MIT
 *
 * Scores a model against the features that a synthetic row is made of.
 */
#include "eval/absorption.h"
#include "eval/match.h"
#include "eval/similarity.h"
#include "eval/synth_codes.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1024 };

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
    uint32_t *tracker;       /* [n_parents] the parent's latent */
    parent_counts *counts;   /* [n_parents] */
    uint64_t active;         /* over all rows */
    float *x;                /* [CHUNK, d] */
    uint8_t *truth;          /* [CHUNK, features] */
    uint8_t *fired;          /* [F] in one row */
    uint8_t *child_on;       /* [features] in one row: has the feature a child that is on? */
    atmsae_codes *codes;
} scoring;

/* The latent of each parent. */
static atmsae_status find_trackers(scoring *s)
{
    const atmsae_synth *synth = s->synth;
    uint64_t n = synth->n_parents, d = s->d;
    float *unit = ams_alloc(synth->ctx, s->d_sae * d, sizeof *unit), *parents = ams_alloc(synth->ctx, n * d, sizeof *parents);
    float *cosine = ams_alloc(synth->ctx, n, sizeof *cosine);
    atmsae_status status = unit && parents && cosine ? ATMSAE_OK : ams_nomem(synth->ctx, "synthetic score");
    if (status == ATMSAE_OK) {
        ams_unit_rows(s->w_dec, s->d_sae, d, unit);
        for (uint64_t p = 0; p < n; p++)
            memcpy(parents + p * d, synth->directions + synth->parents[p] * d, d * sizeof *parents);
        status = ams_nearest(synth->ctx, parents, n, unit, s->d_sae, d, true, NULL, false, 1, s->tracker, cosine);
    }
    ams_free(synth->ctx, unit);
    ams_free(synth->ctx, parents);
    ams_free(synth->ctx, cosine);
    return status;
}

static void count_row(scoring *s, const uint8_t *truth)
{
    const atmsae_synth *synth = s->synth;
    memset(s->child_on, 0, s->features);
    for (uint64_t k = 0; k < s->features; k++) {
        s->active += truth[k];
        if (truth[k] && synth->parent_of[k] != AMS_NO_PARENT) s->child_on[synth->parent_of[k]] = 1;
    }
    for (uint64_t p = 0; p < synth->n_parents; p++) {
        parent_counts *c = s->counts + p;
        bool on = s->fired[s->tracker[p]], child = s->child_on[synth->parents[p]];
        if (!truth[synth->parents[p]]) {
            c->wrong += on;
            continue;
        }
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
        atmsae_codes_view view;
        const uint64_t n = ams_min(CHUNK, n_rows - r);
        AMS_TRY(ams_synth_encode(s->synth, model, first_row + r, n, s->x, s->truth, s->codes, &view));
        for (uint64_t q = 0; q < n; q++) {
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
    uint64_t n_parents = s->synth->n_parents;
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
    r.parent_recall = ams_mean_or_nan(r.parent_recall, (double)n_parents);
    r.parent_precision = ams_mean_or_nan(r.parent_precision, (double)n_parents);
    r.parent_f1 = ams_mean_or_nan(r.parent_f1, (double)n_parents);
    r.missed = ams_mean_or_nan((double)all.missed, (double)(all.child_on + all.child_off));
    r.missed_child_on = ams_mean_or_nan((double)all.missed_child_on, (double)all.child_on);
    r.missed_child_off = ams_mean_or_nan((double)all.missed_child_off, (double)all.child_off);
    return r;
}

static atmsae_status run(scoring *s, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                         atmsae_synth_result *result)
{
    atmsae_context *ctx = s->synth->ctx;
    uint64_t n_parents = s->synth->n_parents;
    atmsae_match_result match;
    s->tracker = ams_calloc(ctx, n_parents, sizeof *s->tracker);
    s->counts = ams_calloc(ctx, n_parents, sizeof *s->counts);
    s->x = ams_alloc(ctx, CHUNK * s->d, sizeof *s->x);
    s->truth = ams_alloc(ctx, CHUNK * s->features, sizeof *s->truth);
    s->fired = ams_calloc(ctx, s->d_sae, sizeof *s->fired);
    s->child_on = ams_alloc(ctx, s->features, sizeof *s->child_on);
    if (!s->tracker || !s->counts || !s->x || !s->truth || !s->fired || !s->child_on)
        return ams_nomem(ctx, "synthetic score");
    AMS_TRY(atmsae_codes_create(ctx, &s->codes));
    AMS_TRY(find_trackers(s));
    AMS_TRY(ams_match(ctx, s->w_dec, s->d_sae, s->synth->directions, s->features, s->d, true, NULL, &match));
    AMS_TRY(count_rows(s, model, first_row, n_rows));
    atmsae_synth_result r = summarise(s, n_rows);
    r.mcc = match.mcc;
    return ams_struct_out(ctx, atmsae_synth_result, result, &r);
}

static atmsae_status score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                           atmsae_synth_result *result)
{
    atmsae_context *ctx = synth->ctx;
    uint64_t d = synth->config.d;
    AMS_TRY(ams_synth_check(synth, model, first_row, n_rows, "synthetic score"));
    AMS_TRY(ams_struct_check(ctx, atmsae_synth_result, result));
    scoring s = {.synth = synth, .w_dec = model->w_dec, .d = d, .d_sae = model->d_sae, .features = synth->features};
    atmsae_status status = run(&s, model, first_row, n_rows, result);
    void *memory[] = {s.tracker, s.counts, s.x, s.truth, s.fired, s.child_on};
    atmsae_codes_destroy(s.codes);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}

atmsae_status atmsae_synth_score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row,
                                 uint64_t n_rows, atmsae_synth_result *result)
{
    AMS_NEED_BOTH("synth", synth, "model", model);
    AMS_CALL(synth->ctx, score(synth, model, first_row, n_rows, result), AMS_READS("model", model));
}
