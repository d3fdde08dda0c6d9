/* SPDX-License-Identifier: MIT
 *
 * How important is each latent, over time? Three moving averages per latent (activation magnitude,
 * frequency, reconstruction contribution) and their combination: Li & Ren 2025, arXiv 2510.08855.
 * The paper fixes the three statistics and that they are exponential moving averages; their exact
 * form and the combination are ours. doc/method.md, section 3.
 */
#include "atm/atm.h"
#include "base/elementary.h"

#include <math.h>

void atmsae_tracker_config_init(atmsae_tracker_config *config, size_t size)
{
    static const atmsae_tracker_config defaults = {
        .decay = 0.99,
        .weight_magnitude = 1,
        .weight_frequency = 1,
        .weight_contribution = 1,
        .combine = ATMSAE_MEAN_ARITHMETIC,
        .dead_window = UINT64_MAX,
    };
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check(atmsae_context *ctx, const atmsae_tracker_config *c)
{
    if (c->d_sae < 1 || c->d_sae > INT32_MAX)
        return ams_fail(ctx, ATMSAE_E_ARG, "tracker: d_sae = %llu, allowed: 1 to 2^31 - 1", (unsigned long long)c->d_sae);
    if (!(c->decay >= 0 && c->decay < 1))
        return ams_fail(ctx, ATMSAE_E_ARG, "tracker: decay = %g, allowed: 0 to below 1", c->decay);
    const double weights[3] = {c->weight_magnitude, c->weight_frequency, c->weight_contribution};
    for (int k = 0; k < 3; k++)
        if (!(weights[k] >= 0 && weights[k] <= 1e100))
            return ams_fail(ctx, ATMSAE_E_ARG, "tracker: weight %d = %g, allowed: 0 to 1e100", k, weights[k]);
    double sum = weights[0] + weights[1] + weights[2];
    if (!(sum > 0 && sum < INFINITY))
        return ams_fail(ctx, ATMSAE_E_ARG, "tracker: the weights' sum is %g, allowed: above 0, finite", sum);
    if (c->combine != ATMSAE_MEAN_ARITHMETIC && c->combine != ATMSAE_MEAN_GEOMETRIC)
        return ams_fail(ctx, ATMSAE_E_ARG, "tracker: combine = %d, allowed: 1 (arithmetic), 2 (geometric)", c->combine);
    if (c->observed_only != 0 && c->observed_only != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "tracker: observed_only = %d, allowed: 0 or 1", c->observed_only);
    return ATMSAE_OK;
}

static atmsae_status create(atmsae_context *ctx, const atmsae_tracker_config *caller, atmsae_tracker **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "tracker_create: out is NULL");
    atmsae_tracker_config config;
    atmsae_tracker_config_init(&config, sizeof config);
    AMS_TRY(ams_struct_in(ctx, atmsae_tracker_config, &config, caller));
    if (config.dead_window == UINT64_MAX) config.dead_window = AMS_DEAD_WINDOW;
    AMS_TRY(check(ctx, &config));
    atmsae_tracker *t = ams_calloc(ctx, 1, sizeof *t);
    if (!t) return ams_nomem(ctx, "the tracker");
    t->ctx = ams_context_ref(ctx);
    t->config = config;
    uint64_t F = config.d_sae;
    for (int k = 0; k < 3; k++)
        t->average[k] = ams_calloc(ctx, F, sizeof(double));
    t->clock = ams_calloc(ctx, F, sizeof *t->clock);
    t->observed = ams_calloc(ctx, F, sizeof *t->observed);
    t->importance = ams_calloc(ctx, F, sizeof *t->importance);
    t->dead = ams_calloc(ctx, F, sizeof *t->dead);
    if (!t->average[0] || !t->average[1] || !t->average[2] || !t->clock || !t->observed || !t->importance || !t->dead) {
        atmsae_tracker_destroy(t);
        return ams_nomem(ctx, "the tracker");
    }
    *out = t;
    return ATMSAE_OK;
}

atmsae_status atmsae_tracker_create(atmsae_context *ctx, const atmsae_tracker_config *caller, atmsae_tracker **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, out));
}

void atmsae_tracker_destroy(atmsae_tracker *t)
{
    if (!t) return;
    atmsae_context *ctx = t->ctx;
    void *arrays[] = {t->average[0], t->average[1], t->average[2], t->clock, t->observed, t->importance, t->dead};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
    ams_free(ctx, t);
    atmsae_context_destroy(ctx);
}

/* ---- one observation ------------------------------------------------------------------------------ */

/* No sum of floats comes near; above, averages and clocks could overflow. */
static const double LARGEST = 1e200;

static double largest(const atmsae_latent_sums *s, uint64_t i)
{
    return fmax(fmax(s->magnitude[i], s->frequency[i]), s->contribution[i]);
}

static bool is_finite(const atmsae_latent_sums *s, uint64_t i)
{
    return isfinite(s->rows[i]) && isfinite(s->magnitude[i]) && isfinite(s->frequency[i]) && isfinite(s->contribution[i]);
}

static bool is_negative(const atmsae_latent_sums *s, uint64_t i)
{
    return s->rows[i] < 0 || s->magnitude[i] < 0 || s->frequency[i] < 0;
}

static bool is_bad(void *sums, uint64_t i)
{
    const atmsae_latent_sums *s = sums;
    return !is_finite(s, i) || is_negative(s, i) || s->rows[i] > LARGEST ||
           (s->rows[i] > 0 && largest(s, i) / s->rows[i] > LARGEST);
}

atmsae_status ams_tracker_check(const atmsae_tracker *t, const atmsae_latent_sums *sums)
{
    atmsae_latent_sums s = *sums;
    if (s.d_sae != t->config.d_sae || !s.rows || !s.magnitude || !s.frequency || !s.contribution)
        return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: needs four arrays of d_sae = %llu, got d_sae = %llu",
                        (unsigned long long)t->config.d_sae, (unsigned long long)s.d_sae);
    const uint64_t i = ams_find(t->ctx, s.d_sae, is_bad, &s);
    if (i == s.d_sae) return ATMSAE_OK;
    if (!is_finite(&s, i))
        return ams_fail(t->ctx, ATMSAE_E_NONFINITE, "tracker_observe: latent %llu has a NaN or infinite sum",
                        (unsigned long long)i);
    if (is_negative(&s, i))
        return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: latent %llu has rows %g, magnitude %g, frequency %g, allowed: at least 0",
                        (unsigned long long)i, s.rows[i], s.magnitude[i], s.frequency[i]);
    return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: latent %llu has rows %g and a sum of %g, allowed: to %g, also by row",
                    (unsigned long long)i, s.rows[i], largest(&s, i), LARGEST);
}

typedef struct observation {
    atmsae_tracker *t;
    atmsae_latent_sums s;
} observation;

static void observe_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece, (void)sums;
    const observation *a = arg;
    atmsae_tracker *t = a->t;
    const atmsae_latent_sums *s = &a->s;
    const double decay = t->config.decay;
    for (uint64_t i = first; i < last; i++) {
        double n = s->rows[i];
        if (n == 0) continue; /* masked throughout: averages and clock stand still */
        const double now[3] = {s->magnitude[i] / n, s->frequency[i] / n, fmax(0, s->contribution[i]) / n};
        for (int k = 0; k < 3; k++) {
            double *average = &t->average[k][i];
            *average = t->observed[i] ? decay * *average + (1 - decay) * now[k] : now[k];
        }
        t->observed[i] = 1;
        t->clock[i] = s->frequency[i] > 0 ? 0 : t->clock[i] + n;
    }
}

atmsae_status ams_tracker_observe(atmsae_tracker *t, const atmsae_latent_sums *caller)
{
    observation a = {.t = t};
    AMS_TRY(ams_struct_in(t->ctx, atmsae_latent_sums, &a.s, caller));
    AMS_TRY(ams_tracker_check(t, &a.s));
    ams_pieces(t->ctx, a.s.d_sae, observe_job, &a, NULL);
    ams_tracker_derive(t);
    return ATMSAE_OK;
}

atmsae_status atmsae_tracker_observe(atmsae_tracker *t, const atmsae_latent_sums *caller)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, ams_tracker_observe(t, caller), AMS_CHANGES("tracker", t));
}

/* ---- importance -------------------------------------------------------------------------------------- */

static bool counts(const atmsae_tracker *t, uint64_t i) { return !t->config.observed_only || t->observed[i]; }

typedef struct derivation {
    atmsae_tracker *t;
    double means[3]; /* of the averages, over latents */
} derivation;

enum { COUNT = 3 }; /* of the latents in the sums of the three averages */

static void mean_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const atmsae_tracker *t = ((const derivation *)arg)->t;
    for (uint64_t i = first; i < last; i++) {
        if (!counts(t, i)) continue;
        for (int k = 0; k < 3; k++)
            sums[k] += t->average[k][i];
        sums[COUNT]++;
    }
}

/* Each average over its mean, then the weighted mean of the three. */
static void importance_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece, (void)sums;
    const derivation *a = arg;
    atmsae_tracker *t = a->t;
    const atmsae_tracker_config *c = &t->config;
    const double weights[3] = {c->weight_magnitude, c->weight_frequency, c->weight_contribution};
    const double total = weights[0] + weights[1] + weights[2];
    bool geometric = c->combine == ATMSAE_MEAN_GEOMETRIC;
    for (uint64_t i = first; i < last; i++) {
        double combined = geometric ? 1 : 0;
        for (int k = 0; k < 3; k++) {
            if (weights[k] == 0) continue;
            double term = a->means[k] > 0 ? t->average[k][i] / a->means[k] : 0;
            if (geometric)
                combined *= ams_pow(term, weights[k] / total);
            else
                combined += weights[k] / total * term;
        }
        t->importance[i] = counts(t, i) ? combined : 0;
    }
}

static bool is_dead(void *tracker, uint64_t i)
{
    const atmsae_tracker *t = tracker;
    return t->clock[i] >= (double)t->config.dead_window;
}

static void list_dead(void *tracker, uint64_t i, uint64_t number)
{
    atmsae_tracker *t = tracker;
    t->dead[number] = (uint32_t)i;
}

void ams_tracker_derive(atmsae_tracker *t)
{
    const uint64_t F = t->config.d_sae;
    derivation a = {.t = t};
    double sums[AMS_PIECE_SUMS];
    ams_pieces(t->ctx, F, mean_job, &a, sums);
    for (int k = 0; k < 3; k++)
        a.means[k] = sums[COUNT] > 0 ? sums[k] / sums[COUNT] : 0;
    ams_pieces(t->ctx, F, importance_job, &a, NULL);
    t->n_dead = t->config.dead_window > 0 ? ams_number(t->ctx, F, is_dead, list_dead, t) : 0;
}

const double *atmsae_tracker_importance(const atmsae_tracker *t) { return t ? t->importance : NULL; }

const double *atmsae_tracker_average(const atmsae_tracker *t, int32_t which)
{
    return t && which >= 0 && which < 3 ? t->average[which] : NULL;
}

const uint32_t *atmsae_tracker_dead(const atmsae_tracker *t, uint64_t *n_dead)
{
    if (n_dead) *n_dead = t ? t->n_dead : 0;
    return t ? t->dead : NULL;
}

uint64_t atmsae_tracker_dead_window(const atmsae_tracker *t) { return t ? t->config.dead_window : 0; }
