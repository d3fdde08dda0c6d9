/* SPDX-License-Identifier: MIT
 *
 * The cuts of an activation, for target_l0: what a pre-activation must exceed for its latent to fire. JUMPRELU's are
 * thresholds, whose logarithms are trained; those of RELU and GATED are biases with the sign turned. They start where
 * the target is met, and are set so that it is once more when training is over. BATCHTOPK's one threshold is set then.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

typedef struct cuts {
    atmsae_model *m;
    float bias, log_threshold; /* added to every latent's; the other one is 0 */
} cuts;

static void shift_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece, (void)sums;
    const cuts *a = arg;
    for (uint64_t i = first; i < last; i++) {
        a->m->b_enc[i] += a->bias;
        if (a->m->log_threshold) a->m->log_threshold[i] += a->log_threshold;
    }
    ams_model_exp_thresholds(a->m, first, last);
}

void ams_cuts_shift(atmsae_model *m, double by)
{
    cuts a = {.m = m};
    *(m->log_threshold ? &a.log_threshold : &a.bias) = (float)(m->log_threshold ? by : -by);
    ams_pieces(m->ctx, m->d_sae, shift_job, &a, NULL);
    ams_model_refresh_max(m);
}

/* ---- where a cut belongs ----------------------------------------------------------------------------------- */

/* The middle of the two smallest of n values: as far from either as can be, so that no rounding, such as that of a saved
 * model's folded scales, moves a value across it. Below the second one; with one value alone, that value. */
static float between_two_smallest(const float *values, uint64_t n)
{
    float smallest = INFINITY, second = INFINITY;
    for (uint64_t p = 0; p < n; p++) {
        second = fminf(second, fmaxf(smallest, values[p]));
        smallest = fminf(smallest, values[p]);
    }
    const float middle = smallest + (second - smallest) / 2;
    return middle < second && second < INFINITY ? middle : smallest;
}

atmsae_status ams_find_cut(const atmsae_model *m, const atmsae_batch *b, double k, float *cut)
{
    atmsae_codes *codes = NULL;
    AMS_TRY(atmsae_codes_create(m->ctx, &codes)); /* of its own: it is far larger than a step's */
    atmsae_status status = ams_codes_load_rows(codes, m, b);
    uint64_t rows = b->n_rows;
    for (uint64_t r = 0; b->row_weights && r < b->n_rows; r++)
        rows -= b->row_weights[r] == 0;
    ams_query q = {.kind = AMS_BATCH_TOPK,
                   .k = (uint64_t)(k * (double)rows) + 1,
                   .x = codes->x,
                   .n = b->n_rows,
                   .weights = b->row_weights};
    if (status == ATMSAE_OK) status = ams_search_run(codes->search, m, &q, &codes->main);
    if (status == ATMSAE_OK) {
        const ams_sparse *s = &codes->main;
        *cut = s->start[s->n] < q.k ? 0 : between_two_smallest(s->value, q.k);
    }
    atmsae_codes_destroy(codes);
    return status;
}

atmsae_status ams_cuts_start(atmsae_model *m, const atmsae_batch *checked)
{
    float cut;
    AMS_TRY(ams_find_cut(m, checked, m->config.target_l0, &cut));
    if (!(cut > 0)) return ATMSAE_OK; /* fewer are positive: the lowest cut is where they are */
    const double now = m->log_threshold ? ams_ln(m->config.init_threshold) : 0;
    ams_cuts_shift(m, (m->log_threshold ? ams_ln((double)cut) : (double)cut) - now);
    return ATMSAE_OK;
}

/* By how much active latents of a total weight exceed their cuts on average, in the units of ams_cuts_shift, from the sums of
 * both. Thresholds shift by their logarithms, at most by 1 at a time. Where nothing is active, a shift that is large. */
static double mean_excess(const atmsae_model *m, double weight, double excess, double thresholds)
{
    if (m->log_threshold) return thresholds > 0 ? fmin(1, excess / thresholds) : 1;
    return weight > 0 ? excess / weight : m->enc_norm_max;
}

/* ---- after training ------------------------------------------------------------------------------------------- */

/* Of rows of non-zero weight: mean number of active latents, and their mean excess. */
static atmsae_status measure(const atmsae_model *m, const atmsae_batch *b, atmsae_codes *codes, double *l0, double *excess)
{
    AMS_TRY(ams_encode(m, b, codes));
    double rows = 0, active = 0, sum = 0, sum_cuts = 0;
    for (uint64_t r = 0; r < codes->n; r++) {
        if (b->row_weights && b->row_weights[r] == 0) continue;
        rows++;
        for (uint64_t p = codes->main.start[r]; p < codes->main.start[r + 1]; p++) {
            const double cut = m->threshold ? (double)m->threshold[codes->main.latent[p]] : 0;
            active++;
            sum_cuts += cut;
            sum += (double)codes->main.value[p] - cut;
        }
    }
    *l0 = rows > 0 ? active / rows : 0;
    *excess = mean_excess(m, active, sum, sum_cuts);
    return ATMSAE_OK;
}

/* Newton's method on ln L0, whose slope is about -1 / excess, within what is known to be too low or too high. */
static atmsae_status settle(atmsae_model *m, const atmsae_batch *b, atmsae_codes *codes, double *l0)
{
    enum { TRIES = 24 };
    const double enough = 0.001, target = m->config.target_l0;
    double at = 0, low = -INFINITY, high = INFINITY, excess;
    for (int i = 0;; i++) {
        AMS_TRY(measure(m, b, codes, l0, &excess));
        const double error = *l0 > 0 ? ams_ln(*l0 / target) : -1;
        if (fabs(error) <= enough || i == TRIES) return ATMSAE_OK;
        *(error > 0 ? &low : &high) = at;
        double next = at + fmax(-1, fmin(1, error)) * excess;
        if (!(next > low && next < high)) next = (low + high) / 2;
        ams_cuts_shift(m, next - at);
        at = next;
    }
}

atmsae_status ams_cuts_settle(atmsae_model *m, const atmsae_batch *checked)
{
    const double target = m->config.target_l0;
    float *now = m->log_threshold ? m->log_threshold : m->b_enc, *before = ams_alloc(m->ctx, m->d_sae, sizeof *before);
    atmsae_codes *codes = NULL;
    double l0 = 0;
    atmsae_status status = before ? atmsae_codes_create(m->ctx, &codes) : ams_nomem(m->ctx, "calibrate");
    if (before) memcpy(before, now, (size_t)m->d_sae * sizeof *before);
    if (status == ATMSAE_OK) status = settle(m, checked, codes, &l0);
    if (status < 0 && before) {
        memcpy(now, before, (size_t)m->d_sae * sizeof *before);
        ams_cuts_shift(m, 0);
    } else if (status == ATMSAE_OK && fabs(l0 / target - 1) > 0.02 && !m->target_told) {
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "target_l0 is missed: L0 is %.4g on the rows of calibrate, the target %g: lower target_l0, for no more "
                "latents have a positive pre-activation", l0, target);
    }
    atmsae_codes_destroy(codes);
    ams_free(m->ctx, before);
    return status;
}

/* ---- while training -------------------------------------------------------------------------------------------- */

typedef struct margin {
    const atmsae_model *m;
    const atmsae_codes *c;
} margin;

enum { WEIGHT, EXCESS, THRESHOLD };

static void margin_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const margin *a = arg;
    const atmsae_codes *c = a->c;
    const bool gated = a->m->config.activation == ATMSAE_GATED;
    for (uint64_t r = first; r < last; r++)
        for (uint64_t p = c->main.start[r]; p < c->main.start[r + 1]; p++) {
            const double f = (double)c->main.value[p], w = (double)c->weights[r];
            if (!(f > 0)) continue;
            const double threshold = a->m->threshold ? (double)a->m->threshold[c->main.latent[p]] : 0;
            sums[WEIGHT] += w;
            sums[EXCESS] += w * (gated ? (double)c->pre[p] : f - threshold);
            sums[THRESHOLD] += w * threshold;
        }
}

double ams_cuts_margin(const atmsae_model *m, const atmsae_codes *c)
{
    margin a = {m, c};
    double sums[AMS_PIECE_SUMS];
    ams_pieces(m->ctx, c->n, margin_job, &a, sums);
    return mean_excess(m, sums[WEIGHT], sums[EXCESS], sums[THRESHOLD]);
}

/* ---- calibration ------------------------------------------------------------------------------------------- */

atmsae_status ams_model_calibrate(atmsae_model *m, const atmsae_batch *caller)
{
    if (!ams_calibrates(m)) return ATMSAE_OK;
    atmsae_batch b;
    AMS_TRY(ams_batch_check(m->ctx, m, caller, false, &b));
    if (m->config.target_l0 > 0) return ams_cuts_settle(m, &b);
    return ams_find_cut(m, &b, m->config.k, &m->batch_threshold);
}

atmsae_status atmsae_model_calibrate(atmsae_model *m, const atmsae_batch *caller)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, ams_model_calibrate(m, caller), AMS_CHANGES("model", m));
}
