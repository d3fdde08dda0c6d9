/* SPDX-License-Identifier: MIT
 *
 * Which latents are masked in this step? The probability that a latent is masked rises as its importance
 * falls below a threshold:
 *
 *     theta = mu + c sigma                       mean and standard deviation of importance
 *     p_i   = 1 - exp(-r (theta - I_i) / theta)  where I_i < theta, else 0
 *
 * Li & Ren 2025, arXiv 2510.08855. The schedule of r, the draws, the controls and the second loss are ours.
 * doc/method.md, section 3.
 */
#include "atm/atm.h"
#include "base/elementary.h"

#include <math.h>
#include <string.h>

void atmsae_masker_config_init(atmsae_masker_config *config, size_t size)
{
    static const atmsae_masker_config defaults = {
        .kind = ATMSAE_MASK_ATM,
        .per_row = -1,
        .c = 1,
        .r = NAN,
        .warmup_steps = UINT64_MAX,
        .cooldown_start = 0.80,
        .cooldown_end = 0.95,
        .effect = ATMSAE_EFFECT_SECOND_LOSS,
        .alpha = 0.3,
    };
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check(atmsae_context *ctx, const atmsae_masker_config *c)
{
    if (c->d_sae < 1 || c->d_sae > INT32_MAX)
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: d_sae = %llu, allowed: 1 to 2^31 - 1", (unsigned long long)c->d_sae);
    if (c->kind < ATMSAE_MASK_NONE || c->kind > ATMSAE_MASK_PERMUTED)
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: kind = %d, allowed: 1 to 5", c->kind);
    if (c->per_row != 0 && c->per_row != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: per_row = %d, allowed: 0, 1 or -1 (the effect's own)", c->per_row);
    if (!(c->c >= 0 && c->c <= 1e9)) /* so that theta cannot overflow */
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: c = %g, allowed: 0 to 1e9", c->c);
    if (!(c->r >= 0 && c->r <= 30)) /* at 37, p would round to 1: masked for ever */
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: r = %g, allowed: 0 to 30, or NaN (the effect's own)", c->r);
    if (!(c->cooldown_start >= 0 && c->cooldown_start <= c->cooldown_end && c->cooldown_end <= 1))
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: cooldown %g to %g, allowed: 0 <= start <= end <= 1",
                        c->cooldown_start, c->cooldown_end);
    if (c->effect != ATMSAE_EFFECT_HARD && c->effect != ATMSAE_EFFECT_SECOND_LOSS)
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: effect = %d, allowed: 0 (hard), 1 (second loss)", c->effect);
    if (!(c->alpha >= 0 && c->alpha <= 1e9))
        return ams_fail(ctx, ATMSAE_E_ARG, "masker: alpha = %g, allowed: 0 to 1e9", c->alpha);
    return ATMSAE_OK;
}

/* A fixed random permutation (Fisher-Yates). */
static void permute(uint32_t *permutation, uint64_t n, uint64_t seed)
{
    for (uint64_t i = 0; i < n; i++)
        permutation[i] = (uint32_t)i;
    for (uint64_t i = n; i-- > 1;) {
        uint32_t words[4];
        ams_philox(seed, AMS_DRAW_PERMUTE, 0, i, words);
        uint64_t j = (uint64_t)(ams_uniform(words[0], words[1]) * (double)(i + 1));
        uint32_t swap = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = swap;
    }
}

static atmsae_status create(atmsae_context *ctx, const atmsae_masker_config *caller, atmsae_masker **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "masker_create: out is NULL");
    atmsae_masker_config config;
    atmsae_masker_config_init(&config, sizeof config);
    AMS_TRY(ams_struct_in(ctx, atmsae_masker_config, &config, caller));
    /* What an effect wants where the caller does not say: a second loss may mask often, since nothing is lost by it. */
    const bool second = config.effect == ATMSAE_EFFECT_SECOND_LOSS;
    if (config.per_row == -1) config.per_row = second;
    if (isnan(config.r)) config.r = second ? 2 : 0.25;
    AMS_TRY(check(ctx, &config));
    atmsae_masker *m = ams_calloc(ctx, 1, sizeof *m);
    if (!m) return ams_nomem(ctx, "the masker");
    m->ctx = ams_context_ref(ctx);
    m->config = config;
    m->importance = ams_calloc(ctx, config.d_sae, sizeof *m->importance);
    m->p = ams_calloc(ctx, config.d_sae, sizeof *m->p);
    m->masked = ams_calloc(ctx, config.d_sae, sizeof *m->masked);
    bool permuted = config.kind == ATMSAE_MASK_PERMUTED;
    if (permuted) m->permutation = ams_alloc(ctx, config.d_sae, sizeof *m->permutation);
    if (!m->importance || !m->p || !m->masked || (permuted && !m->permutation)) {
        atmsae_masker_destroy(m);
        return ams_nomem(ctx, "the masker");
    }
    if (permuted) permute(m->permutation, config.d_sae, config.seed);
    *out = m;
    return ATMSAE_OK;
}

atmsae_status atmsae_masker_create(atmsae_context *ctx, const atmsae_masker_config *caller, atmsae_masker **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, out));
}

void atmsae_masker_destroy(atmsae_masker *m)
{
    if (!m) return;
    atmsae_context *ctx = m->ctx;
    ams_free(ctx, m->importance);
    ams_free(ctx, m->permutation);
    ams_free(ctx, m->p);
    ams_free(ctx, m->masked);
    ams_free(ctx, m);
    atmsae_context_destroy(ctx);
}

/* ---- theta --------------------------------------------------------------------------------------------- */

typedef struct statistics {
    const double *importance;
    double mu;
} statistics;

static bool is_no_importance(void *arg, uint64_t i)
{
    const double importance = ((const statistics *)arg)->importance[i];
    return !(importance >= 0 && importance < INFINITY);
}

static void sum_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const statistics *a = arg;
    for (uint64_t i = first; i < last; i++)
        sums[0] += a->importance[i];
}

static void squares_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const statistics *a = arg;
    for (uint64_t i = first; i < last; i++)
        sums[0] += (a->importance[i] - a->mu) * (a->importance[i] - a->mu);
}

atmsae_status ams_masker_update(atmsae_masker *m, const double *importance, uint64_t d_sae)
{
    if (!importance || d_sae != m->config.d_sae)
        return ams_fail(m->ctx, ATMSAE_E_ARG, "masker_update: needs %llu importances, got %llu%s",
                        (unsigned long long)m->config.d_sae, (unsigned long long)d_sae, importance ? "" : " and NULL");
    statistics a = {.importance = importance};
    const uint64_t bad = ams_find(m->ctx, d_sae, is_no_importance, &a);
    if (bad < d_sae)
        return ams_fail(m->ctx, isfinite(importance[bad]) ? ATMSAE_E_ARG : ATMSAE_E_NONFINITE,
                        "masker_update: importance[%llu] = %g, allowed: 0 to any finite number", (unsigned long long)bad,
                        importance[bad]);
    double sums[AMS_PIECE_SUMS];
    ams_pieces(m->ctx, d_sae, sum_job, &a, sums);
    a.mu = sums[0] / (double)d_sae;
    ams_pieces(m->ctx, d_sae, squares_job, &a, sums);
    const double sigma = sqrt(sums[0] / (double)d_sae), theta = a.mu + m->config.c * sigma;
    if (!isfinite(theta))
        return ams_fail(m->ctx, ATMSAE_E_NONFINITE, "masker_update: the importances overflow: mu %g, sigma %g", a.mu, sigma);
    m->mu = a.mu;
    m->sigma = sigma;
    m->theta = theta;
    memcpy(m->importance, importance, (size_t)d_sae * sizeof *importance);
    return ATMSAE_OK;
}

atmsae_status atmsae_masker_update(atmsae_masker *m, const double *importance, uint64_t d_sae)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, ams_masker_update(m, importance, d_sae), AMS_CHANGES("masker", m));
}

/* ---- r over time ------------------------------------------------------------------------------------- */

/* 1 before `from`, 0 from `to` on, linear between. */
static double ramp_down(double step, double from, double to)
{
    if (step >= to) return 0;
    return step <= from ? 1 : (to - step) / (to - from);
}

static uint64_t warmup_steps(const atmsae_masker_config *c)
{
    if (c->warmup_steps != UINT64_MAX) return c->warmup_steps;
    return c->total_steps > 0 && c->total_steps < 500 ? c->total_steps / 10 : 50;
}

atmsae_masker_config ams_masker_resolved(const atmsae_masker *m)
{
    atmsae_masker_config c = m->config;
    c.warmup_steps = warmup_steps(&c);
    return c;
}

static double rate(const atmsae_masker *m, uint64_t step)
{
    const atmsae_masker_config *c = &m->config;
    if (c->kind == ATMSAE_MASK_NONE) return 0;
    if (c->kind == ATMSAE_MASK_PAPER) return c->r;
    if (step < warmup_steps(c)) return 0;
    double r = c->r, total = (double)c->total_steps;
    if (c->total_steps > 0) r *= ramp_down((double)step, c->cooldown_start * total, c->cooldown_end * total);
    if (m->cooldown_steps > 0)
        r *= ramp_down((double)step, (double)m->cooldown_from, (double)m->cooldown_from + (double)m->cooldown_steps);
    return r;
}

atmsae_status ams_masker_begin_cooldown(atmsae_masker *m, uint64_t first_step, uint64_t steps)
{
    if (steps == 0) return ams_fail(m->ctx, ATMSAE_E_ARG, "begin_cooldown: steps = 0, allowed: at least 1");
    m->cooldown_from = first_step;
    m->cooldown_steps = steps;
    return ATMSAE_OK;
}

atmsae_status atmsae_masker_begin_cooldown(atmsae_masker *m, uint64_t first_step, uint64_t steps)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, ams_masker_begin_cooldown(m, first_step, steps), AMS_CHANGES("masker", m));
}

/* ---- the draw ------------------------------------------------------------------------------------------ */

static double probability(double importance, double theta, double r)
{
    if (!(theta > 0) || importance >= theta) return 0;
    return -ams_expm1(-r * ((theta - importance) / theta));
}

static void probability_job(void *masker, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const atmsae_masker *m = masker;
    for (uint64_t i = first; i < last; i++) {
        uint64_t of = m->permutation ? m->permutation[i] : i;
        m->p[i] = probability(m->importance[of], m->theta, m->rate);
        sums[0] += m->p[i];
    }
}

static void draw_job(void *masker, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece, (void)sums;
    const atmsae_masker *m = masker;
    const atmsae_masker_config *c = &m->config;
    for (uint64_t i = first; i < last; i++) {
        if (c->kind == ATMSAE_MASK_UNIFORM) m->p[i] = m->mean_p;
        m->masked[i] = !c->per_row && ams_mask_drawn(c->seed, AMS_DRAW_MASK, m->mask.step, i, m->p[i]);
    }
}

atmsae_status ams_masker_draw(atmsae_masker *m, uint64_t step)
{
    const atmsae_masker_config *c = &m->config;
    const uint64_t F = c->d_sae;
    double sums[AMS_PIECE_SUMS];
    m->rate = rate(m, step);
    m->mask = (atmsae_mask){.size = sizeof m->mask, .d_sae = F, .seed = c->seed, .step = step};
    m->mask.effect = c->effect;
    m->mask.alpha = c->kind == ATMSAE_MASK_NONE ? 0 : c->alpha;
    m->mask.masked = c->per_row ? NULL : m->masked;
    m->mask.p = c->per_row ? m->p : NULL;
    ams_pieces(m->ctx, F, probability_job, m, sums);
    m->mean_p = sums[0] / (double)F;
    ams_pieces(m->ctx, F, draw_job, m, NULL);
    m->drawn = true;
    return ATMSAE_OK;
}

atmsae_status atmsae_masker_draw(atmsae_masker *m, uint64_t step)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, ams_masker_draw(m, step), AMS_CHANGES("masker", m));
}

const atmsae_mask *atmsae_masker_mask(const atmsae_masker *m) { return m && m->drawn ? &m->mask : NULL; }
double atmsae_masker_mu(const atmsae_masker *m) { return m ? m->mu : NAN; }
double atmsae_masker_sigma(const atmsae_masker *m) { return m ? m->sigma : NAN; }
double atmsae_masker_theta(const atmsae_masker *m) { return m ? m->theta : NAN; }
double atmsae_masker_rate(const atmsae_masker *m) { return m ? m->rate : NAN; }
double atmsae_masker_mean_p(const atmsae_masker *m) { return m ? m->mean_p : NAN; }
const double *atmsae_masker_p(const atmsae_masker *m) { return m ? m->p : NULL; }
