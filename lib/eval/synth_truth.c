/* SPDX-License-Identifier: MIT
 *
 * Scores a model against the features that rows are made of: every latent as a sign of its nearest feature, as SAELens
 * does for synthetic data, and every parent feature for what its children take from it.
 */
#include "eval/absorption.h"
#include "eval/match.h"
#include "eval/similarity.h"
#include "eval/synth_codes.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 512, MIN_ROWS = 50 };

/* Counts over the rows on which a parent is on. */
typedef struct parent_counts {
    uint64_t rows[2], hits[2]; /* without and with a child that is on */
    double v060, v032;
    uint64_t absorbed;
} parent_counts;

typedef struct scoring {
    const atmsae_synth *synth;
    const atmsae_model *model;
    uint64_t d, d_sae, n;
    float *unit;                       /* [F, d] */
    uint32_t *feature_of, *latent_of;  /* [F] and [n]: the nearest of the other kind */
    float *cosine_f, *cosine_n;        /* their |cos| */
    uint64_t *on, *fired, *both;       /* [n] rows; [F] rows; [F] rows with the latent and its feature on */
    parent_counts *parents;            /* [n_parents] */
    float *x;                          /* [CHUNK, d] */
    uint8_t *truth, *child_on;         /* [CHUNK, n], [n] */
    float *value;                      /* [F] of the row's active latents, in units of x with unit decoder rows */
    double *cosine;                    /* [F] of the row's active latents with one parent */
    atmsae_codes *codes;
    double l0, true_l0;
} scoring;

static void judge_parent(scoring *s, parent_counts *c, uint32_t feature, const float *x, uint64_t count,
                         const uint32_t *latent, const float *value, bool child)
{
    const float *u = s->synth->directions + feature * s->d;
    uint32_t split = s->latent_of[feature];
    double along = 0;
    bool hit = false;
    for (uint64_t j = 0; j < s->d; j++)
        along += (double)x[j] * (double)u[j];
    for (uint64_t e = 0; e < count; e++) {
        hit |= latent[e] == split;
        s->cosine[latent[e]] = (double)ams_dot(s->unit + latent[e] * s->d, u, s->d);
    }
    ams_absorption_row row = {count, latent, value, s->cosine, &split, 1, along};
    c->rows[child]++;
    c->hits[child] += hit;
    c->v060 += ams_absorbed_fraction_v060(&row);
    c->v032 += ams_absorbed_fraction_v032(&row);
    c->absorbed += ams_absorbed_fully(&row);
}

static void count_row(scoring *s, const uint8_t *truth, const float *x, uint64_t count, const uint32_t *latent,
                      const float *value)
{
    const atmsae_synth *synth = s->synth;
    memset(s->child_on, 0, s->n);
    for (uint64_t k = 0; k < s->n; k++) {
        if (!truth[k]) continue;
        s->on[k]++;
        s->true_l0 += 1;
        if (synth->parent_of[k] != AMS_NO_PARENT) s->child_on[synth->parent_of[k]] = 1;
    }
    for (uint64_t e = 0; e < count; e++) {
        s->fired[latent[e]]++;
        s->both[latent[e]] += truth[s->feature_of[latent[e]]];
    }
    s->l0 += (double)count;
    for (uint64_t p = 0; p < synth->n_parents; p++)
        if (truth[synth->parents[p]])
            judge_parent(s, s->parents + p, synth->parents[p], x, count, latent, value, s->child_on[synth->parents[p]]);
}

static atmsae_status count_rows(scoring *s, uint64_t first_row, uint64_t n_rows)
{
    const atmsae_model *model = s->model;
    for (uint64_t r = 0; r < n_rows; r += CHUNK) {
        atmsae_codes_view view;
        const uint64_t n = ams_min(CHUNK, n_rows - r);
        AMS_TRY(ams_synth_encode(s->synth, model, first_row + r, n, s->x, s->truth, s->codes, &view));
        for (uint64_t q = 0; q < n; q++) {
            uint64_t from = view.row_start[q], count = view.row_start[q + 1] - from;
            for (uint64_t e = 0; e < count; e++) {
                double norm = (double)model->dec_norm[view.latent[from + e]];
                s->value[e] = (float)((double)view.value[from + e] * norm / (double)model->output_scale);
            }
            count_row(s, s->truth + q * s->n, s->x + q * s->d, count, view.latent + from, s->value);
        }
    }
    return ATMSAE_OK;
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

static void score_latents(const scoring *s, double n_rows, atmsae_truth_result *r)
{
    uint64_t distinct = 0;
    uint8_t *seen = s->child_on; /* free now */
    memset(seen, 0, s->n);
    for (uint64_t i = 0; i < s->d_sae; i++) {
        uint32_t feature = s->feature_of[i];
        double hit = (double)s->both[i], fired = (double)s->fired[i], on = (double)s->on[feature];
        distinct += !seen[feature];
        seen[feature] = 1;
        r->dead += s->fired[i] == 0;
        r->precision += share(hit, fired);
        r->recall += share(hit, on);
        r->f1 += share(2 * hit, fired + on);
        r->accuracy += (n_rows - fired - on + 2 * hit) / n_rows;
    }
    double *means[] = {&r->precision, &r->recall, &r->f1, &r->accuracy};
    for (size_t k = 0; k < sizeof means / sizeof *means; k++)
        *means[k] /= (double)s->d_sae;
    r->uniqueness = (double)distinct / (double)s->d_sae;
}

/* How much of a parent's direction the latents of its children have beyond the children's own. */
static double find_leak(const scoring *s, uint32_t parent)
{
    const float *u = s->synth->directions + parent * s->d;
    double sum = 0, children = 0;
    for (uint64_t k = 0; k < s->n; k++) {
        if (s->synth->parent_of[k] != parent) continue;
        const float *child = s->synth->directions + k * s->d, *latent = s->unit + s->latent_of[k] * s->d;
        double sign = ams_dot(latent, child, s->d) < 0 ? -1 : 1;
        sum += sign * (double)ams_dot(latent, u, s->d) - (double)ams_dot(child, u, s->d);
        children += 1;
    }
    return sum / children;
}

static void score_parents(const scoring *s, atmsae_truth_result *r)
{
    for (uint64_t p = 0; p < s->synth->n_parents; p++) {
        const parent_counts *c = s->parents + p;
        double rows = (double)(c->rows[0] + c->rows[1]);
        if (c->rows[0] < MIN_ROWS || c->rows[1] < MIN_ROWS) continue;
        r->parents++;
        r->parent_recall_child_off += (double)c->hits[0] / (double)c->rows[0];
        r->parent_recall_child_on += (double)c->hits[1] / (double)c->rows[1];
        r->decoder_leak += find_leak(s, s->synth->parents[p]);
        r->fraction_v060 += c->v060 / rows;
        r->fraction_v032 += c->v032 / rows;
        r->full_rate += (double)c->absorbed / rows;
    }
    r->absorption = r->parent_recall_child_off - r->parent_recall_child_on;
    double *means[] = {&r->parent_recall_child_off, &r->parent_recall_child_on, &r->absorption, &r->decoder_leak,
                       &r->fraction_v060, &r->fraction_v032, &r->full_rate};
    for (size_t k = 0; k < sizeof means / sizeof *means; k++)
        *means[k] = ams_mean_or_nan(*means[k], (double)r->parents);
}

static atmsae_status allocate(scoring *s)
{
    atmsae_context *ctx = s->synth->ctx;
    s->unit = ams_alloc(ctx, s->d_sae * s->d, sizeof *s->unit);
    s->feature_of = ams_alloc(ctx, s->d_sae, sizeof *s->feature_of);
    s->latent_of = ams_alloc(ctx, s->n, sizeof *s->latent_of);
    s->cosine_f = ams_alloc(ctx, s->d_sae, sizeof *s->cosine_f);
    s->cosine_n = ams_alloc(ctx, s->n, sizeof *s->cosine_n);
    s->on = ams_calloc(ctx, s->n, sizeof *s->on);
    s->fired = ams_calloc(ctx, s->d_sae, sizeof *s->fired);
    s->both = ams_calloc(ctx, s->d_sae, sizeof *s->both);
    s->parents = ams_calloc(ctx, s->synth->n_parents, sizeof *s->parents);
    s->x = ams_alloc(ctx, CHUNK * s->d, sizeof *s->x);
    s->truth = ams_alloc(ctx, CHUNK * s->n, sizeof *s->truth);
    s->child_on = ams_alloc(ctx, s->n, sizeof *s->child_on);
    s->value = ams_alloc(ctx, s->d_sae, sizeof *s->value);
    s->cosine = ams_alloc(ctx, s->d_sae, sizeof *s->cosine);
    if (!s->unit || !s->feature_of || !s->latent_of || !s->cosine_f || !s->cosine_n || !s->on || !s->fired || !s->both ||
        !s->parents || !s->x || !s->truth || !s->child_on || !s->value || !s->cosine)
        return ams_nomem(ctx, "a score against the truth");
    return atmsae_codes_create(ctx, &s->codes);
}

static atmsae_status run(scoring *s, uint64_t first_row, uint64_t n_rows, atmsae_truth_result *result)
{
    atmsae_context *ctx = s->synth->ctx;
    const float *directions = s->synth->directions, *w_dec = s->model->w_dec;
    atmsae_truth_result r = {.size = sizeof r};
    atmsae_match_result match;
    AMS_TRY(allocate(s));
    ams_unit_rows(w_dec, s->d_sae, s->d, s->unit);
    AMS_TRY(ams_nearest(ctx, s->unit, s->d_sae, directions, s->n, s->d, true, NULL, false, 1, s->feature_of, s->cosine_f));
    AMS_TRY(ams_nearest(ctx, directions, s->n, s->unit, s->d_sae, s->d, true, NULL, false, 1, s->latent_of, s->cosine_n));
    AMS_TRY(ams_match(ctx, w_dec, s->d_sae, directions, s->n, s->d, true, NULL, &match));
    r.mcc = match.mcc;
    AMS_TRY(ams_match(ctx, w_dec, s->d_sae, directions, s->n, s->d, false, NULL, &match));
    r.mcc_signed = match.mcc;
    AMS_TRY(count_rows(s, first_row, n_rows));
    r.l0 = s->l0 / (double)n_rows;
    r.true_l0 = s->true_l0 / (double)n_rows;
    score_latents(s, (double)n_rows, &r);
    score_parents(s, &r);
    return ams_struct_out(ctx, atmsae_truth_result, result, &r);
}

static atmsae_status score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                           atmsae_truth_result *result)
{
    atmsae_context *ctx = synth->ctx;
    uint64_t d = synth->config.d;
    AMS_TRY(ams_synth_check(synth, model, first_row, n_rows, "synthetic truth"));
    AMS_TRY(ams_struct_check(ctx, atmsae_truth_result, result));
    scoring s = {.synth = synth, .model = model, .d = d, .d_sae = model->d_sae, .n = synth->features};
    atmsae_status status = run(&s, first_row, n_rows, result);
    atmsae_codes_destroy(s.codes);
    void *memory[] = {s.unit, s.feature_of, s.latent_of, s.cosine_f, s.cosine_n, s.on, s.fired, s.both, s.parents,
                      s.x, s.truth, s.child_on, s.value, s.cosine};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}

atmsae_status atmsae_synth_truth(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row,
                                 uint64_t n_rows, atmsae_truth_result *result)
{
    AMS_NEED_BOTH("synth", synth, "model", model);
    AMS_CALL(synth->ctx, score(synth, model, first_row, n_rows, result), AMS_READS("model", model));
}
