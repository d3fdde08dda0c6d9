/* SPDX-License-Identifier: MIT
 *
 * The cuts of an activation, for target_l0: what a pre-activation must exceed for its latent to fire. JUMPRELU's are
 * thresholds, whose logarithms are trained; those of RELU and GATED are biases with the sign turned.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>

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

atmsae_status ams_cuts_start(atmsae_model *m, const atmsae_batch *checked)
{
    float cut;
    AMS_TRY(ams_find_cut(m, checked, m->config.target_l0, &cut));
    if (!(cut > 0)) return ATMSAE_OK; /* fewer are positive: the lowest cut is where they are */
    const double now = m->log_threshold ? ams_ln(m->config.init_threshold) : 0;
    ams_cuts_shift(m, (m->log_threshold ? ams_ln((double)cut) : (double)cut) - now);
    return ATMSAE_OK;
}

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
    const double most_log = 1;
    margin a = {m, c};
    double sums[AMS_PIECE_SUMS];
    ams_pieces(m->ctx, c->n, margin_job, &a, sums);
    if (m->log_threshold) return sums[THRESHOLD] > 0 ? fmin(most_log, sums[EXCESS] / sums[THRESHOLD]) : most_log;
    return sums[WEIGHT] > 0 ? sums[EXCESS] / sums[WEIGHT] : m->enc_norm_max;
}
