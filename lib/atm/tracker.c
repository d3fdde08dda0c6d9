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

atmsae_status ams_tracker_check(const atmsae_tracker *t, const atmsae_latent_sums *s)
{
    if (s->d_sae != t->config.d_sae || !s->rows || !s->magnitude || !s->frequency || !s->contribution)
        return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: needs four arrays of d_sae = %llu, got d_sae = %llu",
                        (unsigned long long)t->config.d_sae, (unsigned long long)s->d_sae);
    for (uint64_t i = 0; i < s->d_sae; i++) {
        if (!isfinite(s->rows[i]) || !isfinite(s->magnitude[i]) || !isfinite(s->frequency[i]) || !isfinite(s->contribution[i]))
            return ams_fail(t->ctx, ATMSAE_E_NONFINITE, "tracker_observe: latent %llu has a NaN or infinite sum",
                            (unsigned long long)i);
        if (s->rows[i] < 0 || s->magnitude[i] < 0 || s->frequency[i] < 0)
            return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: latent %llu has rows %g, magnitude %g, frequency %g, allowed: at least 0",
                            (unsigned long long)i, s->rows[i], s->magnitude[i], s->frequency[i]);
        double largest = fmax(fmax(s->magnitude[i], s->frequency[i]), s->contribution[i]);
        if (s->rows[i] > LARGEST || (s->rows[i] > 0 && largest / s->rows[i] > LARGEST))
            return ams_fail(t->ctx, ATMSAE_E_ARG, "tracker_observe: latent %llu has rows %g and a sum of %g, allowed: to %g, also by row",
                            (unsigned long long)i, s->rows[i], largest, LARGEST);
    }
    return ATMSAE_OK;
}

atmsae_status ams_tracker_observe(atmsae_tracker *t, const atmsae_latent_sums *caller)
{
    atmsae_latent_sums s = {0};
    AMS_TRY(ams_struct_in(t->ctx, atmsae_latent_sums, &s, caller));
    AMS_TRY(ams_tracker_check(t, &s));
    const double decay = t->config.decay;
    for (uint64_t i = 0; i < s.d_sae; i++) {
        double n = s.rows[i];
        if (n == 0) continue; /* masked throughout: averages and clock stand still */
        const double now[3] = {s.magnitude[i] / n, s.frequency[i] / n, fmax(0, s.contribution[i]) / n};
        for (int k = 0; k < 3; k++) {
            double *average = &t->average[k][i];
            *average = t->observed[i] ? decay * *average + (1 - decay) * now[k] : now[k];
        }
        t->observed[i] = 1;
        t->clock[i] = s.frequency[i] > 0 ? 0 : t->clock[i] + n;
    }
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

static double mean(const atmsae_tracker *t, const double *values)
{
    double sum = 0, n = 0;
    for (uint64_t i = 0; i < t->config.d_sae; i++) {
        if (!counts(t, i)) continue;
        sum += values[i];
        n++;
    }
    return n > 0 ? sum / n : 0;
}

/* Each average over its mean, then the weighted mean of the three. */
void ams_tracker_derive(atmsae_tracker *t)
{
    const atmsae_tracker_config *c = &t->config;
    const double weights[3] = {c->weight_magnitude, c->weight_frequency, c->weight_contribution};
    const double total = weights[0] + weights[1] + weights[2];
    const double means[3] = {mean(t, t->average[0]), mean(t, t->average[1]), mean(t, t->average[2])};
    bool geometric = c->combine == ATMSAE_MEAN_GEOMETRIC;
    for (uint64_t i = 0; i < c->d_sae; i++) {
        double combined = geometric ? 1 : 0;
        for (int k = 0; k < 3; k++) {
            if (weights[k] == 0) continue;
            double term = means[k] > 0 ? t->average[k][i] / means[k] : 0;
            if (geometric)
                combined *= ams_pow(term, weights[k] / total);
            else
                combined += weights[k] / total * term;
        }
        t->importance[i] = counts(t, i) ? combined : 0;
    }
    t->n_dead = 0;
    for (uint64_t i = 0; i < c->d_sae; i++)
        if (c->dead_window > 0 && t->clock[i] >= (double)c->dead_window) t->dead[t->n_dead++] = (uint32_t)i;
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
