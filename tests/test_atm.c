/* SPDX-License-Identifier: MIT
 *
 * lib/atm against doc/method.md section 3: the tracker's averages and importances, the masker's
 * threshold, probabilities, schedule and draws, each recomputed here in its own words.
 */
#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { F = 64 };
static const double close_enough = 1e-12; /* relative; double sums of 64 terms */

static bool close_to(double a, double b) { return a == b || fabs(a - b) <= close_enough * (fabs(a) + fabs(b)); }

static uint64_t state = 1;
static double next_uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53;
}

static atmsae_context *new_context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

static atmsae_tracker_config tracker_defaults(void)
{
    atmsae_tracker_config config;
    atmsae_tracker_config_init(&config, sizeof config);
    config.d_sae = F;
    return config;
}

/* Hard masks, one a step and so in reach of a test, at the rate that they have by themselves. */
static atmsae_masker_config masker_defaults(void)
{
    atmsae_masker_config config;
    atmsae_masker_config_init(&config, sizeof config);
    config.effect = ATMSAE_EFFECT_HARD;
    config.d_sae = F;
    return config;
}

static atmsae_tracker *new_tracker(atmsae_context *ctx, const atmsae_tracker_config *config)
{
    atmsae_tracker *tracker;
    atmsae_status status = atmsae_tracker_create(ctx, config, &tracker);
    ck_assert_msg(status == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    return tracker;
}

static atmsae_masker *new_masker(atmsae_context *ctx, const atmsae_masker_config *config)
{
    atmsae_masker *masker;
    atmsae_status status = atmsae_masker_create(ctx, config, &masker);
    ck_assert_msg(status == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    return masker;
}

/* ---- tracker ----------------------------------------------------------------------------------- */

typedef struct step_sums {
    double rows[F], sum[3][F]; /* magnitude, frequency, contribution */
    atmsae_latent_sums view;
} step_sums;

static const atmsae_latent_sums *view_of(step_sums *s)
{
    s->view = (atmsae_latent_sums){sizeof s->view, F, s->rows, s->sum[0], s->sum[1], s->sum[2]};
    return &s->view;
}

/* Sums as training makes them: some latents masked for the whole step, some never firing, some
 * whose contribution is negative. */
static void random_sums(step_sums *s)
{
    for (int i = 0; i < F; i++) {
        s->rows[i] = next_uniform() < 0.3 ? 0 : 32 * next_uniform() + 1;
        const double fired = next_uniform() < 0.3 ? 0 : s->rows[i] * next_uniform();
        s->sum[0][i] = fired * (1 + i) * next_uniform();
        s->sum[1][i] = fired;
        s->sum[2][i] = fired * (next_uniform() - 0.2);
    }
}

/* The tracker again, straight from the formulas. */
typedef struct model_tracker {
    double decay, weight[3];
    bool geometric, observed_only;
    double average[3][F], importance[F];
    bool seen[F];
} model_tracker;

static void model_observe(model_tracker *t, const step_sums *s)
{
    for (int i = 0; i < F; i++) {
        if (!(s->rows[i] > 0)) continue;
        for (int k = 0; k < 3; k++) {
            const double now = fmax(0, s->sum[k][i]) / s->rows[i];
            t->average[k][i] = t->seen[i] ? t->decay * t->average[k][i] + (1 - t->decay) * now : now;
        }
        t->seen[i] = true;
    }
    double mean[3] = {0}, count = 0, weights = 0;
    for (int i = 0; i < F; i++)
        count += !t->observed_only || t->seen[i];
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < F; i++)
            mean[k] += count > 0 ? t->average[k][i] / count : 0;
        weights += t->weight[k];
    }
    for (int i = 0; i < F; i++) {
        double sum = 0, product = 1;
        for (int k = 0; k < 3; k++) {
            const double term = mean[k] > 0 ? t->average[k][i] / mean[k] : 0;
            sum += t->weight[k] * term / weights;
            if (t->weight[k] > 0) product *= pow(term, t->weight[k] / weights);
        }
        t->importance[i] = t->geometric ? product : sum;
    }
}

static void same_tracker(const atmsae_tracker *tracker, const model_tracker *expected)
{
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < F; i++)
            ck_assert_msg(close_to(atmsae_tracker_average(tracker, k)[i], expected->average[k][i]),
                          "average %d of latent %d: %.17g, expected %.17g", k, i,
                          atmsae_tracker_average(tracker, k)[i], expected->average[k][i]);
    for (int i = 0; i < F; i++)
        ck_assert_msg(close_to(atmsae_tracker_importance(tracker)[i], expected->importance[i]),
                      "importance of latent %d: %.17g, expected %.17g", i, atmsae_tracker_importance(tracker)[i],
                      expected->importance[i]);
}

START_TEST(tracker_follows_the_formulas)
{
    static const struct {
        double decay, weight[3];
        int32_t combine, observed_only;
    } settings[] = {
        {0.99, {1, 1, 1}, ATMSAE_MEAN_ARITHMETIC, 0}, {0.9, {1, 2, 0.5}, ATMSAE_MEAN_ARITHMETIC, 0},
        {0, {1, 1, 1}, ATMSAE_MEAN_ARITHMETIC, 0},    {0.9, {0, 0, 3}, ATMSAE_MEAN_ARITHMETIC, 0},
        {0.99, {1, 1, 1}, ATMSAE_MEAN_GEOMETRIC, 0},  {0.5, {2, 0, 1}, ATMSAE_MEAN_GEOMETRIC, 0},
        {0.9, {1, 0.25, 1}, ATMSAE_MEAN_ARITHMETIC, 1}, {0.9, {1, 1, 2}, ATMSAE_MEAN_GEOMETRIC, 1},
    };
    atmsae_context *ctx = new_context(1);
    for (size_t c = 0; c < sizeof settings / sizeof *settings; c++) {
        atmsae_tracker_config config = tracker_defaults();
        config.decay = settings[c].decay;
        config.weight_magnitude = settings[c].weight[0];
        config.weight_frequency = settings[c].weight[1];
        config.weight_contribution = settings[c].weight[2];
        config.combine = settings[c].combine;
        config.observed_only = settings[c].observed_only;
        atmsae_tracker *tracker = new_tracker(ctx, &config);
        model_tracker expected = {.decay = config.decay,
                                  .geometric = config.combine == ATMSAE_MEAN_GEOMETRIC,
                                  .observed_only = config.observed_only};
        memcpy(expected.weight, settings[c].weight, sizeof expected.weight);
        same_tracker(tracker, &expected); /* all zero before any observation */
        for (int step = 0; step < 30; step++) {
            step_sums sums;
            random_sums(&sums);
            sums.rows[F - 1] = 0; /* never observed */
            ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&sums)), ATMSAE_OK);
            model_observe(&expected, &sums);
            same_tracker(tracker, &expected);
        }
        atmsae_tracker_destroy(tracker);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(tracker_defaults_are_documented)
{
    atmsae_tracker_config config;
    memset(&config, 0x77, sizeof config);
    atmsae_tracker_config_init(&config, sizeof config);
    ck_assert_uint_eq(config.size, sizeof config);
    ck_assert(config.decay == 0.99);
    ck_assert(config.weight_magnitude == 1 && config.weight_frequency == 1 && config.weight_contribution == 1);
    ck_assert_int_eq(config.combine, ATMSAE_MEAN_ARITHMETIC);
    ck_assert_int_eq(config.observed_only, 0);
    ck_assert_uint_eq(config.dead_window, UINT64_MAX);

    atmsae_context *ctx = new_context(1);
    config.d_sae = F;
    atmsae_tracker *tracker = new_tracker(ctx, &config);
    ck_assert_uint_eq(atmsae_tracker_dead_window(tracker), 10000000);
    atmsae_tracker_destroy(tracker);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(tracker_small_facts)
{
    atmsae_context *ctx = new_context(1);
    atmsae_tracker_config config = tracker_defaults();
    config.dead_window = 100;
    atmsae_tracker *tracker = new_tracker(ctx, &config);
    ck_assert_uint_eq(atmsae_tracker_dead_window(tracker), 100);
    ck_assert_ptr_null(atmsae_tracker_average(tracker, 3));
    ck_assert_ptr_null(atmsae_tracker_average(tracker, -1));

    /* The first observation sets, whenever it comes; the second moves by 1 - decay. */
    step_sums sums = {0};
    for (int step = 0; step < 3; step++) {
        sums.rows[0] = 10;
        sums.sum[0][0] = 20;
        sums.sum[1][0] = 5;
        sums.sum[2][0] = step == 2 ? -7 : 30;
        sums.rows[1] = step == 1 ? 4 : 0;
        sums.sum[0][1] = step == 1 ? 8 : 0;
        sums.sum[1][1] = step == 1 ? 1 : 0;
        ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&sums)), ATMSAE_OK);
        ck_assert(close_to(atmsae_tracker_average(tracker, 0)[0], 2));
        ck_assert(close_to(atmsae_tracker_average(tracker, 1)[0], 0.5));
        ck_assert(close_to(atmsae_tracker_average(tracker, 2)[0], step == 2 ? 3 * 0.99 : 3)); /* max(0, -7) */
        ck_assert(atmsae_tracker_average(tracker, 0)[1] == (step == 0 ? 0 : 2));
    }
    atmsae_tracker_destroy(tracker);
    atmsae_tracker_destroy(NULL);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(importance_ignores_scales)
{
    /* Each statistic is divided by its mean: other units change nothing. Powers of two are exact. */
    static const double scales[3] = {0x1p30, 0x1p-3, 0x1p-40};
    for (int geometric = 0; geometric < 2; geometric++) {
        atmsae_context *ctx = new_context(1);
        atmsae_tracker_config config = tracker_defaults();
        config.combine = geometric ? ATMSAE_MEAN_GEOMETRIC : ATMSAE_MEAN_ARITHMETIC;
        atmsae_tracker *one = new_tracker(ctx, &config), *two = new_tracker(ctx, &config);
        for (int step = 0; step < 10; step++) {
            step_sums sums;
            random_sums(&sums);
            ck_assert_int_eq(atmsae_tracker_observe(one, view_of(&sums)), ATMSAE_OK);
            for (int k = 0; k < 3; k++)
                for (int i = 0; i < F; i++)
                    sums.sum[k][i] *= scales[k];
            ck_assert_int_eq(atmsae_tracker_observe(two, view_of(&sums)), ATMSAE_OK);
            for (int i = 0; i < F; i++)
                ck_assert(close_to(atmsae_tracker_importance(one)[i], atmsae_tracker_importance(two)[i]));
        }
        double mean = 0; /* of the arithmetic importance: 1, as each term's is */
        for (int i = 0; i < F; i++)
            mean += atmsae_tracker_importance(one)[i] / F;
        if (!geometric) ck_assert(close_to(mean, 1));
        atmsae_tracker_destroy(one);
        atmsae_tracker_destroy(two);
        atmsae_context_destroy(ctx);
    }
}
END_TEST

START_TEST(dead_latents)
{
    /* The clock counts rows seen unmasked since the last firing: it stands still while masked. */
    atmsae_context *ctx = new_context(1);
    atmsae_tracker_config config = tracker_defaults();
    config.dead_window = 100;
    atmsae_tracker *tracker = new_tracker(ctx, &config);
    double clock[F] = {0};
    bool ever_dead = false, revived = false;
    bool was_dead[F] = {false};
    for (int step = 0; step < 200; step++) {
        step_sums sums = {0};
        for (int i = 0; i < F; i++) {
            sums.rows[i] = i % 4 == 0 ? 0 : i % 4 == 1 ? 9 : i % 4 == 2 ? 0.7 : 25; /* 25: exactly 100 */
            const bool fires = sums.rows[i] > 0 && next_uniform() < 1.0 / (1 + i);
            sums.sum[1][i] = fires ? 0.25 : 0;
            sums.sum[0][i] = fires ? 1 : 0;
            clock[i] = fires ? 0 : clock[i] + sums.rows[i];
        }
        ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&sums)), ATMSAE_OK);
        uint64_t n_dead = 12345, n = 0;
        const uint32_t *dead = atmsae_tracker_dead(tracker, &n_dead);
        for (uint32_t i = 0; i < F; i++) {
            const bool is_dead = clock[i] >= 100;
            ever_dead |= is_dead;
            revived |= was_dead[i] && !is_dead;
            was_dead[i] = is_dead;
            if (!is_dead) continue;
            ck_assert_uint_lt(n, n_dead);
            ck_assert_uint_eq(dead[n], i);
            n++;
        }
        ck_assert_uint_eq(n, n_dead);
    }
    ck_assert(ever_dead && revived);
    atmsae_tracker_destroy(tracker);

    config.dead_window = 0; /* never */
    tracker = new_tracker(ctx, &config);
    for (int step = 0; step < 10; step++) {
        step_sums sums = {0};
        for (int i = 0; i < F; i++)
            sums.rows[i] = 1e9;
        ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&sums)), ATMSAE_OK);
        uint64_t n_dead = 1;
        atmsae_tracker_dead(tracker, &n_dead);
        ck_assert_uint_eq(n_dead, 0);
    }
    atmsae_tracker_destroy(tracker);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(bad_sums_change_nothing)
{
    atmsae_context *ctx = new_context(1);
    atmsae_tracker_config config = tracker_defaults();
    config.dead_window = 50;
    atmsae_tracker *tracker = new_tracker(ctx, &config);
    model_tracker expected = {.decay = 0.99, .weight = {1, 1, 1}};
    step_sums good, bad;
    random_sums(&good);
    ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&good)), ATMSAE_OK);
    model_observe(&expected, &good);

    random_sums(&good);
    static const double values[] = {NAN, INFINITY, -INFINITY, -1};
    for (int at = 0; at < F; at += F - 1)
        for (int field = 0; field < 4; field++)
            for (int v = 0; v < 4; v++) {
                bad = good;
                bad.rows[at] = 8;
                double *array = field == 3 ? bad.rows : bad.sum[field];
                array[at] = values[v];
                const atmsae_status status = atmsae_tracker_observe(tracker, view_of(&bad));
                if (field == 2 && v == 3) { /* a contribution may be negative */
                    ck_assert_int_eq(status, ATMSAE_OK);
                    model_observe(&expected, &bad);
                } else if (v < 3) {
                    ck_assert_int_eq(status, ATMSAE_E_NONFINITE);
                } else {
                    ck_assert_int_eq(status, ATMSAE_E_ARG);
                }
                same_tracker(tracker, &expected);
            }
    view_of(&good);
    good.view.d_sae = F - 1;
    ck_assert_int_eq(atmsae_tracker_observe(tracker, &good.view), ATMSAE_E_ARG);
    view_of(&good);
    good.view.rows = NULL;
    ck_assert_int_eq(atmsae_tracker_observe(tracker, &good.view), ATMSAE_E_ARG);
    view_of(&good);
    good.view.size = 0;
    ck_assert_int_eq(atmsae_tracker_observe(tracker, &good.view), ATMSAE_E_ABI);
    ck_assert_int_eq(atmsae_tracker_observe(tracker, NULL), ATMSAE_E_ARG);
    same_tracker(tracker, &expected);
    atmsae_tracker_destroy(tracker);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(tracker_settings_are_checked)
{
    static const struct {
        size_t offset;
        double value;
    } wrong[] = {
#define BAD(field, value) {offsetof(atmsae_tracker_config, field), value}
        BAD(decay, 1),  BAD(decay, -0.01), BAD(decay, 1.5), BAD(decay, NAN), BAD(decay, INFINITY),
        BAD(weight_magnitude, -1), BAD(weight_magnitude, NAN), BAD(weight_frequency, -1e-9),
        BAD(weight_frequency, INFINITY), BAD(weight_contribution, -INFINITY), BAD(weight_contribution, NAN),
#undef BAD
    };
    atmsae_context *ctx = new_context(1);
    atmsae_tracker *tracker;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atmsae_tracker_config config = tracker_defaults();
        memcpy((char *)&config + wrong[i].offset, &wrong[i].value, sizeof(double));
        tracker = (atmsae_tracker *)ctx;
        ck_assert_msg(atmsae_tracker_create(ctx, &config, &tracker) == ATMSAE_E_ARG, "setting %zu", i);
        ck_assert_ptr_null(tracker);
        ck_assert_uint_gt(strlen(atmsae_last_error(ctx)), 10);
    }
    atmsae_tracker_config config = tracker_defaults();
    config.weight_magnitude = config.weight_frequency = config.weight_contribution = 0;
    ck_assert_int_eq(atmsae_tracker_create(ctx, &config, &tracker), ATMSAE_E_ARG);
    config = tracker_defaults();
    config.combine = 3;
    ck_assert_int_eq(atmsae_tracker_create(ctx, &config, &tracker), ATMSAE_E_ARG);
    config = tracker_defaults();
    config.d_sae = 0;
    ck_assert_int_eq(atmsae_tracker_create(ctx, &config, &tracker), ATMSAE_E_ARG);
    config = tracker_defaults();
    config.size = 8;
    ck_assert_int_eq(atmsae_tracker_create(ctx, &config, &tracker), ATMSAE_E_ABI);
    ck_assert_int_eq(atmsae_tracker_create(ctx, NULL, &tracker), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- masker: threshold and probabilities ---------------------------------------------------------- */

static void random_importances(double importance[F])
{
    for (int i = 0; i < F; i++)
        importance[i] = i % 8 == 0 ? 0 : 3 * next_uniform() * next_uniform();
}

static void check_probabilities(const atmsae_masker *masker, const double importance[F], double c, double r)
{
    double mu = 0, variance = 0, mean_p = 0;
    for (int i = 0; i < F; i++)
        mu += importance[i] / F;
    for (int i = 0; i < F; i++)
        variance += (importance[i] - mu) * (importance[i] - mu) / F;
    const double theta = mu + c * sqrt(variance);
    ck_assert(close_to(atmsae_masker_mu(masker), mu));
    ck_assert_double_le(fabs(atmsae_masker_sigma(masker) - sqrt(variance)), 1e-12 * (mu + sqrt(variance)));
    ck_assert(close_to(atmsae_masker_theta(masker), theta));
    ck_assert(close_to(atmsae_masker_rate(masker), r));
    for (int i = 0; i < F; i++) {
        const double p = atmsae_masker_p(masker)[i];
        const double expected =
            theta > 0 && importance[i] < theta ? 1 - exp(-r * (theta - importance[i]) / theta) : 0;
        ck_assert_double_le(fabs(p - expected), 1e-12);
        ck_assert_double_lt(p, 1);
        if (importance[i] > theta * (1 + 1e-12)) ck_assert(p == 0);
        mean_p += p / F;
    }
    ck_assert(close_to(atmsae_masker_mean_p(masker), mean_p));
}

START_TEST(probabilities_follow_the_formula)
{
    static const double cs[] = {0, 0.5, 1, 4}, rs[] = {0, 0.25, 1, 30};
    atmsae_context *ctx = new_context(1);
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            atmsae_masker_config config = masker_defaults();
            config.c = cs[a];
            config.r = rs[b];
            config.warmup_steps = 0;
            atmsae_masker *masker = new_masker(ctx, &config);
            for (uint64_t step = 0; step < 20; step++) {
                double importance[F];
                random_importances(importance);
                ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
                ck_assert_int_eq(atmsae_masker_draw(masker, step), ATMSAE_OK);
                check_probabilities(masker, importance, cs[a], rs[b]);
            }
            atmsae_masker_destroy(masker);
        }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(probabilities_at_the_edges)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    config.r = 0.5;
    config.c = 0;
    atmsae_masker *masker = new_masker(ctx, &config);
    ck_assert_ptr_null(atmsae_masker_mask(masker));

    double importance[F] = {0};
    for (int round = 0; round < 2; round++) {
        /* Before any importance, and with none at all: theta = 0 gives p = 0. */
        ck_assert_int_eq(atmsae_masker_draw(masker, 0), ATMSAE_OK);
        ck_assert(atmsae_masker_theta(masker) == 0);
        ck_assert(atmsae_masker_mean_p(masker) == 0);
        for (uint64_t i = 0; i < F; i++) {
            ck_assert(atmsae_masker_p(masker)[i] == 0);
            ck_assert_int_eq(atmsae_mask_test(atmsae_masker_mask(masker), 0, i), 0);
        }
        ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    }

    /* I = 0 gives 1 - e^-r; all equal and c = 0 gives I = theta, so 0. */
    for (int i = 0; i < F; i++)
        importance[i] = i % 2;
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    ck_assert_int_eq(atmsae_masker_draw(masker, 0), ATMSAE_OK);
    for (int i = 0; i < F; i++)
        ck_assert(i % 2 ? atmsae_masker_p(masker)[i] == 0 : close_to(atmsae_masker_p(masker)[i], 1 - exp(-0.5)));
    for (int i = 0; i < F; i++)
        importance[i] = 0.75;
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    ck_assert_int_eq(atmsae_masker_draw(masker, 0), ATMSAE_OK);
    for (int i = 0; i < F; i++)
        ck_assert(atmsae_masker_p(masker)[i] == 0);
    atmsae_masker_destroy(masker);

    /* The largest r: still below 1. */
    config.r = 30;
    masker = new_masker(ctx, &config);
    importance[0] = 0;
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    ck_assert_int_eq(atmsae_masker_draw(masker, 0), ATMSAE_OK);
    ck_assert_double_lt(atmsae_masker_p(masker)[0], 1);
    ck_assert_double_gt(atmsae_masker_p(masker)[0], 0.999);
    atmsae_masker_destroy(masker);
    atmsae_masker_destroy(NULL);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(scale_of_importance_does_not_matter)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    atmsae_masker *one = new_masker(ctx, &config), *two = new_masker(ctx, &config);
    static const double scales[] = {0x1p-200, 0x1p-3, 0x1p100, 3.7, 1e-30};
    for (int s = 0; s < 5; s++) {
        double importance[F], scaled[F];
        random_importances(importance);
        for (int i = 0; i < F; i++)
            scaled[i] = importance[i] * scales[s];
        ck_assert_int_eq(atmsae_masker_update(one, importance, F), ATMSAE_OK);
        ck_assert_int_eq(atmsae_masker_update(two, scaled, F), ATMSAE_OK);
        ck_assert_int_eq(atmsae_masker_draw(one, 7), ATMSAE_OK);
        ck_assert_int_eq(atmsae_masker_draw(two, 7), ATMSAE_OK);
        for (int i = 0; i < F; i++)
            ck_assert_double_le(fabs(atmsae_masker_p(one)[i] - atmsae_masker_p(two)[i]), 1e-13);
        if (s < 3) ck_assert_mem_eq(atmsae_masker_p(one), atmsae_masker_p(two), F * sizeof(double));
    }
    atmsae_masker_destroy(one);
    atmsae_masker_destroy(two);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(masker_settings_are_checked)
{
    atmsae_masker_config config;
    memset(&config, 0x77, sizeof config);
    atmsae_masker_config_init(&config, sizeof config);
    ck_assert_uint_eq(config.size, sizeof config);
    ck_assert_int_eq(config.kind, ATMSAE_MASK_ATM);
    ck_assert(config.c == 1 && isnan(config.r) && config.cooldown_start == 0.80 && config.cooldown_end == 0.95);
    ck_assert(config.effect == ATMSAE_EFFECT_SECOND_LOSS && config.alpha == 0.3);
    ck_assert(config.seed == 0 && config.per_row == -1 && config.total_steps == 0 && config.warmup_steps == UINT64_MAX);

    static const struct {
        size_t offset;
        double value;
    } wrong[] = {
#define BAD(field, value) {offsetof(atmsae_masker_config, field), value}
        BAD(c, -1e-9), BAD(c, NAN), BAD(c, INFINITY), BAD(c, -INFINITY),
        BAD(r, -0.25), BAD(r, INFINITY), BAD(r, 30.5),
        BAD(cooldown_start, -0.1), BAD(cooldown_start, NAN), BAD(cooldown_start, 0.96), BAD(cooldown_end, 0.79),
        BAD(cooldown_end, 1.01), BAD(cooldown_end, NAN), BAD(alpha, -1e-9), BAD(alpha, NAN), BAD(alpha, INFINITY),
#undef BAD
    };
    atmsae_context *ctx = new_context(1);
    atmsae_masker *masker;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        config = masker_defaults();
        memcpy((char *)&config + wrong[i].offset, &wrong[i].value, sizeof(double));
        masker = (atmsae_masker *)ctx;
        ck_assert_msg(atmsae_masker_create(ctx, &config, &masker) == ATMSAE_E_ARG, "setting %zu", i);
        ck_assert_ptr_null(masker);
        ck_assert_uint_gt(strlen(atmsae_last_error(ctx)), 10);
    }
    static const int32_t kinds[] = {0, 6, -1};
    for (int i = 0; i < 3; i++) {
        config = masker_defaults();
        config.kind = kinds[i];
        ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_E_ARG);
    }
    for (int32_t effect = -1; effect <= 2; effect += 3) {
        config = masker_defaults();
        config.effect = effect;
        ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_E_ARG);
    }
    config = masker_defaults();
    config.d_sae = 0;
    ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_E_ARG);
    config = masker_defaults();
    config.size = SIZE_MAX;
    ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_E_ABI);
    ck_assert_int_eq(atmsae_masker_create(ctx, NULL, &masker), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

/* What an effect wants by itself, and what the caller wants all the same. */
START_TEST(rate_and_rows_follow_the_effect)
{
    static const struct {
        int32_t effect, per_row;
        double r;
        bool rows;
        double rate;
    } cases[] = {
        {ATMSAE_EFFECT_SECOND_LOSS, -1, NAN, true, 2}, {ATMSAE_EFFECT_HARD, -1, NAN, false, 0.25},
        {ATMSAE_EFFECT_SECOND_LOSS, 0, 0.5, false, 0.5}, {ATMSAE_EFFECT_HARD, 1, 3, true, 3},
    };
    atmsae_context *ctx = new_context(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atmsae_masker_config config = masker_defaults();
        config.effect = cases[i].effect;
        config.per_row = cases[i].per_row;
        config.r = cases[i].r;
        config.warmup_steps = 0;
        atmsae_masker *masker = new_masker(ctx, &config);
        ck_assert_int_eq(atmsae_masker_draw(masker, 7), ATMSAE_OK);
        ck_assert(atmsae_masker_rate(masker) == cases[i].rate);
        const atmsae_mask *mask = atmsae_masker_mask(masker);
        ck_assert(mask->effect == cases[i].effect && (mask->p != NULL) == cases[i].rows && (mask->masked == NULL) == cases[i].rows);
        atmsae_masker_destroy(masker);
    }
    atmsae_masker_config config = masker_defaults();
    atmsae_masker *masker;
    for (config.per_row = -2; config.per_row <= 2; config.per_row += 4)
        ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(bad_importances_change_nothing)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    atmsae_masker *masker = new_masker(ctx, &config);
    double importance[F], bad[F];
    random_importances(importance);
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    static const double values[] = {NAN, INFINITY, -INFINITY, -1e-9};
    for (int at = 0; at < F; at += F - 1)
        for (int v = 0; v < 4; v++) {
            memcpy(bad, importance, sizeof bad);
            bad[at] = values[v];
            const atmsae_status status = atmsae_masker_update(masker, bad, F);
            ck_assert(status == ATMSAE_E_NONFINITE || status == ATMSAE_E_ARG);
        }
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F - 1), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_masker_update(masker, NULL, F), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_masker_draw(masker, 3), ATMSAE_OK);
    check_probabilities(masker, importance, 1, 0.25);
    atmsae_masker_destroy(masker);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- masker: schedule -------------------------------------------------------------------------------- */

static double rate_at(atmsae_masker *masker, uint64_t step)
{
    ck_assert_int_eq(atmsae_masker_draw(masker, step), ATMSAE_OK);
    return atmsae_masker_rate(masker);
}

START_TEST(schedule)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker_config config = masker_defaults();
    config.total_steps = 1000;
    atmsae_masker *masker = new_masker(ctx, &config);
    for (uint64_t t = 0; t < 1010; t++) { /* 50 steps without, flat to 800, linear to 0 at 950 */
        const double expected = t < 50 || t >= 950 ? 0 : t <= 800 ? 0.25 : 0.25 * (double)(950 - t) / 150;
        ck_assert_msg(fabs(rate_at(masker, t) - expected) <= 1e-12, "step %d: %g, not %g", (int)t,
                      atmsae_masker_rate(masker), expected);
    }
    atmsae_masker_destroy(masker);

    static const struct {
        uint64_t total, asked, warmup;
    } warm[] = {{0, UINT64_MAX, 50},  {499, UINT64_MAX, 49}, {500, UINT64_MAX, 50}, {100, UINT64_MAX, 10},
                {9, UINT64_MAX, 0},   {1000, 0, 0},          {1000, 123, 123},      {0, 7, 7}};
    for (size_t i = 0; i < sizeof warm / sizeof *warm; i++) {
        config = masker_defaults();
        config.total_steps = warm[i].total;
        config.warmup_steps = warm[i].asked;
        masker = new_masker(ctx, &config);
        if (warm[i].warmup > 0) ck_assert(rate_at(masker, warm[i].warmup - 1) == 0);
        ck_assert_msg(rate_at(masker, warm[i].warmup) == 0.25, "row %zu", i);
        if (warm[i].total == 0) ck_assert(rate_at(masker, (uint64_t)1 << 40) == 0.25); /* no cool-down */
        atmsae_masker_destroy(masker);
    }

    /* A cool-down of no length is a step; one over the whole run starts at once. */
    config = masker_defaults();
    config.total_steps = 100;
    config.warmup_steps = 0;
    config.cooldown_start = config.cooldown_end = 0.5;
    masker = new_masker(ctx, &config);
    ck_assert(rate_at(masker, 49) == 0.25);
    ck_assert(rate_at(masker, 50) == 0);
    atmsae_masker_destroy(masker);
    config.cooldown_start = 0;
    config.cooldown_end = 1;
    masker = new_masker(ctx, &config);
    for (uint64_t t = 0; t < 100; t++)
        ck_assert_double_le(fabs(rate_at(masker, t) - 0.25 * (double)(100 - t) / 100), 1e-12);
    atmsae_masker_destroy(masker);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(schedule_of_the_paper_and_of_none)
{
    atmsae_context *ctx = new_context(1);
    for (int kind = 0; kind < 2; kind++) {
        atmsae_masker_config config = masker_defaults();
        config.total_steps = 100;
        config.kind = kind ? ATMSAE_MASK_PAPER : ATMSAE_MASK_NONE;
        atmsae_masker *masker = new_masker(ctx, &config);
        double importance[F];
        random_importances(importance);
        ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
        for (uint64_t t = 0; t < 120; t++) {
            ck_assert_int_eq(atmsae_masker_draw(masker, t), ATMSAE_OK);
            if (kind) {
                check_probabilities(masker, importance, 1, 0.25);
            } else {
                ck_assert(atmsae_masker_mean_p(masker) == 0);
                for (uint64_t i = 0; i < F; i++)
                    ck_assert(!atmsae_masker_mask(masker) || atmsae_mask_test(atmsae_masker_mask(masker), t, i) == 0);
            }
        }
        atmsae_masker_destroy(masker);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(cooldown_on_request)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    atmsae_masker *masker = new_masker(ctx, &config);
    ck_assert(rate_at(masker, 5000) == 0.25);
    ck_assert_int_eq(atmsae_masker_begin_cooldown(masker, 6000, 200), ATMSAE_OK);
    for (uint64_t t = 5990; t < 6210; t++) {
        const double expected = t <= 6000 ? 0.25 : t >= 6200 ? 0 : 0.25 * (double)(6200 - t) / 200;
        ck_assert_double_le(fabs(rate_at(masker, t) - expected), 1e-12);
    }
    atmsae_masker_destroy(masker);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- masker: draws -------------------------------------------------------------------------------------- */

/* |count - expected| within 5 standard deviations of a binomial. */
static void within_5_sigma(double count, double n, double p, const char *what, int i)
{
    const double sigma = sqrt(n * p * (1 - p));
    ck_assert_msg(fabs(count - n * p) <= 5 * sigma + 1e-9, "%s %d: %g of %g, p = %g", what, i, count, n, p);
}

START_TEST(draws_match_p)
{
    enum { DRAWS = 4000 };
    atmsae_context *ctx = new_context(1);
    for (int32_t per_row = 0; per_row < 2; per_row++)
        for (int32_t kind = ATMSAE_MASK_ATM; kind <= ATMSAE_MASK_PERMUTED; kind++) {
            atmsae_masker_config config = masker_defaults();
            config.kind = kind;
            config.per_row = per_row;
            config.warmup_steps = 0;
            config.r = 0.7;
            config.seed = 42;
            atmsae_masker *masker = new_masker(ctx, &config);
            double importance[F], p[F];
            random_importances(importance);
            ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
            int count[F] = {0}, both = 0, repeats = 0, last[F] = {0};
            for (uint64_t n = 0; n < DRAWS; n++) {
                ck_assert_int_eq(atmsae_masker_draw(masker, per_row ? 3 : n), ATMSAE_OK);
                memcpy(p, atmsae_masker_p(masker), sizeof p);
                const atmsae_mask *mask = atmsae_masker_mask(masker);
                ck_assert_uint_eq(mask->d_sae, F);
                ck_assert(per_row ? mask->p != NULL && mask->masked == NULL : mask->masked != NULL);
                int now[F], wrong = 0; /* one assertion a draw: each costs a system call */
                for (uint64_t i = 0; i < F; i++) {
                    now[i] = atmsae_mask_test(mask, n, i);
                    wrong += now[i] != 0 && now[i] != 1;
                    if (!per_row) /* one mask for every row */
                        wrong += now[i] != mask->masked[i] || now[i] != atmsae_mask_test(mask, n + 1, i);
                    count[i] += now[i];
                }
                ck_assert_int_eq(wrong, 0);
                both += now[0] && now[8];
                repeats += n > 0 && now[0] && last[0];
                memcpy(last, now, sizeof last);
            }
            for (int i = 0; i < F; i++)
                within_5_sigma(count[i], DRAWS, p[i], "latent", i);
            /* Latents are independent of each other, and draws of the one before. */
            within_5_sigma(both, DRAWS, p[0] * p[8], "pair", 8);
            ck_assert_double_le(fabs(repeats - (DRAWS - 1) * p[0] * p[0]),
                                5 * sqrt(3.0 * DRAWS * p[0] * p[0] * (1 - p[0])) + 1e-9);
            atmsae_masker_destroy(masker);
        }
    atmsae_context_destroy(ctx);
}
END_TEST

static void masks_of(atmsae_context *ctx, uint64_t seed, int32_t per_row, uint64_t step, const double *importance,
                     uint8_t out[16 * F])
{
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    config.r = 1;
    config.seed = seed;
    config.per_row = per_row;
    atmsae_masker *masker = new_masker(ctx, &config);
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    ck_assert_int_eq(atmsae_masker_draw(masker, step), ATMSAE_OK);
    for (uint64_t row = 0; row < 16; row++)
        for (uint64_t i = 0; i < F; i++)
            out[row * F + i] = (uint8_t)atmsae_mask_test(atmsae_masker_mask(masker), row, i);
    atmsae_masker_destroy(masker);
}

START_TEST(draws_depend_on_their_key_only)
{
    double importance[F];
    random_importances(importance);
    for (int32_t per_row = 0; per_row < 2; per_row++) {
        static uint8_t first[16 * F], other[16 * F];
        atmsae_context *ctx = new_context(1);
        masks_of(ctx, 5, per_row, 77, importance, first);
        for (uint32_t threads = 1; threads <= 4; threads++) {
            atmsae_context *more = new_context(threads);
            masks_of(more, 5, per_row, 77, importance, other);
            ck_assert_mem_eq(first, other, sizeof first);
            atmsae_context_destroy(more);
        }
        masks_of(ctx, 6, per_row, 77, importance, other);
        ck_assert_mem_ne(first, other, sizeof first);
        masks_of(ctx, 5, per_row, 78, importance, other);
        ck_assert_mem_ne(first, other, sizeof first);
        masks_of(ctx, 5 + ((uint64_t)1 << 40), per_row, 77, importance, other);
        ck_assert_mem_ne(first, other, sizeof first);
        if (per_row) ck_assert_mem_ne(first, first + F, F);
        atmsae_context_destroy(ctx);
    }
}
END_TEST

START_TEST(redrawing_a_step_repeats_it)
{
    atmsae_context *ctx = new_context(2);
    atmsae_masker_config config = masker_defaults();
    config.warmup_steps = 0;
    config.r = 1;
    atmsae_masker *masker = new_masker(ctx, &config);
    double importance[F];
    random_importances(importance);
    ck_assert_int_eq(atmsae_masker_update(masker, importance, F), ATMSAE_OK);
    uint8_t seen[20][F];
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < 20; k++) {
            const int step = pass ? 19 - k : k; /* backwards: no hidden state */
            ck_assert_int_eq(atmsae_masker_draw(masker, (uint64_t)step), ATMSAE_OK);
            const uint8_t *masked = atmsae_masker_mask(masker)->masked;
            if (pass)
                ck_assert_mem_eq(seen[step], masked, F);
            else
                memcpy(seen[step], masked, F);
        }
    atmsae_masker_destroy(masker);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(masks_made_by_hand)
{
    uint8_t masked[F];
    double p[F];
    for (int i = 0; i < F; i++) {
        masked[i] = i % 3 == 0;
        p[i] = i % 4 * 0.25;
    }
    const atmsae_mask whole = {.size = sizeof whole, .d_sae = F, .masked = masked};
    const atmsae_mask rows = {.size = sizeof rows, .d_sae = F, .p = p, .seed = 9, .step = 4};
    int count[F] = {0}, wrong = 0;
    for (uint64_t row = 0; row < 2000; row++)
        for (uint64_t i = 0; i < F; i++) {
            wrong += atmsae_mask_test(&whole, row, i) != masked[i];
            count[i] += atmsae_mask_test(&rows, row, i);
        }
    ck_assert_int_eq(wrong, 0);
    for (int i = 0; i < F; i++)
        within_5_sigma(count[i], 2000, p[i], "latent", i);
}
END_TEST

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

START_TEST(controls_keep_the_mean)
{
    atmsae_context *ctx = new_context(1);
    atmsae_masker *masker[3];
    for (int k = 0; k < 3; k++) {
        atmsae_masker_config config = masker_defaults();
        config.kind = ATMSAE_MASK_ATM + (k == 0 ? 0 : k + 1);
        config.total_steps = 100;
        config.warmup_steps = 5;
        config.seed = 3;
        masker[k] = new_masker(ctx, &config);
    }
    int from[F]; /* where each latent's p comes from under PERMUTED */
    for (int i = 0; i < F; i++)
        from[i] = -1;
    for (uint64_t t = 0; t < 100; t += 7) {
        double importance[F], p[3][F];
        for (int i = 0; i < F; i++)
            importance[i] = next_uniform(); /* all different */
        for (int k = 0; k < 3; k++) {
            ck_assert_int_eq(atmsae_masker_update(masker[k], importance, F), ATMSAE_OK);
            ck_assert_int_eq(atmsae_masker_draw(masker[k], t), ATMSAE_OK);
            memcpy(p[k], atmsae_masker_p(masker[k]), sizeof p[k]);
            ck_assert_double_le(fabs(atmsae_masker_mean_p(masker[k]) - atmsae_masker_mean_p(masker[0])), 1e-12);
            ck_assert(close_to(atmsae_masker_rate(masker[k]), atmsae_masker_rate(masker[0])));
        }
        for (int i = 0; i < F; i++)
            ck_assert_double_le(fabs(p[1][i] - atmsae_masker_mean_p(masker[0])), 1e-12);
        for (int i = 0; i < F; i++) { /* the same permutation at every step */
            if (!(p[2][i] > 0)) continue;
            int source = 0;
            while (source < F && p[0][source] != p[2][i])
                source++;
            ck_assert_int_lt(source, F);
            if (from[i] >= 0) ck_assert_int_eq(from[i], source);
            from[i] = source;
        }
        qsort(p[0], F, sizeof *p[0], by_value);
        qsort(p[2], F, sizeof *p[2], by_value);
        ck_assert_mem_eq(p[0], p[2], sizeof p[0]);
    }
    int moved = 0;
    for (int i = 0; i < F; i++)
        moved += from[i] >= 0 && from[i] != i;
    ck_assert_int_gt(moved, F / 2);
    for (int k = 0; k < 3; k++)
        atmsae_masker_destroy(masker[k]);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- both: memory and lifetime ------------------------------------------------------------------------------ */

typedef struct counter {
    long blocks, calls, fail_at;
} counter;
static void *counted_alloc(void *opaque, size_t align, size_t bytes)
{
    counter *c = opaque;
    if (++c->calls == c->fail_at) return NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, align, bytes) != 0) return NULL;
    memset(memory, 0xA5, bytes);
    c->blocks++;
    return memory;
}
static void counted_free(void *opaque, void *memory)
{
    ((counter *)opaque)->blocks--;
    free(memory);
}

START_TEST(allocations_may_fail)
{
    bool tracker_made = false, masker_made = false;
    for (long n = 1; !(tracker_made && masker_made); n++) {
        ck_assert_int_lt(n, 50);
        counter c = {0};
        const atmsae_allocator allocator = {&c, counted_alloc, counted_free};
        atmsae_context_config context_config;
        atmsae_context_config_init(&context_config, sizeof context_config);
        context_config.threads = 1;
        context_config.allocator = &allocator;
        atmsae_context *ctx;
        ck_assert_int_eq(atmsae_context_create(&context_config, &ctx), ATMSAE_OK);
        atmsae_tracker_config tracker_config = tracker_defaults();
        atmsae_masker_config masker_config = masker_defaults();
        masker_config.kind = ATMSAE_MASK_PERMUTED;
        atmsae_tracker *tracker = (atmsae_tracker *)ctx;
        atmsae_masker *masker = (atmsae_masker *)ctx;

        c.fail_at = c.calls + n;
        atmsae_status status = atmsae_tracker_create(ctx, &tracker_config, &tracker);
        tracker_made = status == ATMSAE_OK;
        ck_assert(tracker_made ? tracker != NULL : status == ATMSAE_E_NOMEM && tracker == NULL);
        c.fail_at = c.calls + n;
        status = atmsae_masker_create(ctx, &masker_config, &masker);
        masker_made = status == ATMSAE_OK;
        ck_assert(masker_made ? masker != NULL : status == ATMSAE_E_NOMEM && masker == NULL);

        atmsae_context_destroy(ctx); /* first: the handles keep it */
        c.fail_at = 0;
        if (tracker_made && masker_made) {
            const long calls = c.calls;
            for (uint64_t t = 0; t < 100; t++) { /* a step allocates nothing */
                step_sums sums;
                random_sums(&sums);
                ck_assert_int_eq(atmsae_masker_draw(masker, t), ATMSAE_OK);
                ck_assert_int_eq(atmsae_tracker_observe(tracker, view_of(&sums)), ATMSAE_OK);
                ck_assert_int_eq(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), F), ATMSAE_OK);
            }
            ck_assert_int_eq(c.calls, calls);
        }
        atmsae_tracker_destroy(tracker);
        atmsae_masker_destroy(masker);
        ck_assert_int_eq(c.blocks, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("atm");
    TCase *tcase = tcase_create("atm");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, tracker_follows_the_formulas);
    tcase_add_test(tcase, tracker_defaults_are_documented);
    tcase_add_test(tcase, tracker_small_facts);
    tcase_add_test(tcase, importance_ignores_scales);
    tcase_add_test(tcase, dead_latents);
    tcase_add_test(tcase, bad_sums_change_nothing);
    tcase_add_test(tcase, tracker_settings_are_checked);
    tcase_add_test(tcase, probabilities_follow_the_formula);
    tcase_add_test(tcase, probabilities_at_the_edges);
    tcase_add_test(tcase, scale_of_importance_does_not_matter);
    tcase_add_test(tcase, masker_settings_are_checked);
    tcase_add_test(tcase, rate_and_rows_follow_the_effect);
    tcase_add_test(tcase, bad_importances_change_nothing);
    tcase_add_test(tcase, schedule);
    tcase_add_test(tcase, schedule_of_the_paper_and_of_none);
    tcase_add_test(tcase, cooldown_on_request);
    tcase_add_test(tcase, draws_match_p);
    tcase_add_test(tcase, draws_depend_on_their_key_only);
    tcase_add_test(tcase, redrawing_a_step_repeats_it);
    tcase_add_test(tcase, masks_made_by_hand);
    tcase_add_test(tcase, controls_keep_the_mean);
    tcase_add_test(tcase, allocations_may_fail);
    return run_all(suite);
}
