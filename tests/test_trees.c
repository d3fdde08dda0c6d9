/* SPDX-License-Identifier: MIT
 *
 * Generators of features in trees: their rules, shares, magnitudes, correlations, presets.
 */
#include "known.h"

/* ---- generators ----------------------------------------------------------------------------------------- */

enum { TREE_ROWS = 40000 };

static atmsae_synth *make_tree(atmsae_context *ctx, const tree *t)
{
    atmsae_synth *synth;
    ok(ctx, atmsae_synth_create_tree(ctx, &t->config, &synth));
    return synth;
}

/* Shares of rows with each feature on, and with each pair. */
static void count(const uint8_t *on, double pairs[TREE_N][TREE_N])
{
    memset(pairs, 0, TREE_N * sizeof *pairs);
    for (uint64_t r = 0; r < TREE_ROWS; r++)
        for (uint64_t i = 0; i < TREE_N; i++)
            for (uint64_t j = 0; j < TREE_N; j++)
                pairs[i][j] += on[r * TREE_N + i] && on[r * TREE_N + j] ? 1.0 / TREE_ROWS : 0;
}

START_TEST(trees_obey_their_rules)
{
    atmsae_context *ctx = new_context(2), *single = new_context(1);
    static tree t;
    float *x = zeros(TREE_ROWS * TREE_N, sizeof *x), *part = zeros(100 * TREE_N, sizeof *part);
    uint8_t *on = zeros(TREE_ROWS * TREE_N, 1);
    double pairs[TREE_N][TREE_N];
    describe(&t);
    for (int variant = 0; variant < 3; variant++) { /* plain; correlated and compensated; choosing, scaled, with a bias */
        if (variant == 1) t.config.correlation_rank = 3, t.config.correlation_scale = 0.2, t.config.compensate = 1;
        if (variant == 2) {
            t.config.correlation_rank = 0, t.config.compensate = 0, t.config.scale_children = 1;
            t.children[0] = ATMSAE_CHILDREN_CHOOSE_ONE;
        }
        atmsae_synth *synth = make_tree(ctx, &t), *again = make_tree(single, &t);
        ck_assert_uint_eq(atmsae_synth_features(synth), TREE_N);
        ok(ctx, atmsae_synth_rows(synth, 5, TREE_ROWS, x, on));
        ok(single, atmsae_synth_rows(again, 5 + 777, 100, part, NULL));
        ck_assert_mem_eq(part, x + 777 * TREE_N, 100 * TREE_N * sizeof *x);
        count(on, pairs);
        for (uint64_t i = 0; i < TREE_N; i++) {
            uint64_t p = t.parent[i];
            near("a child without its parent", pairs[i][p], pairs[i][i], 1e-12);
            double want = t.probability[i];
            if (variant != 1)
                for (uint64_t k = i; t.parent[k] != k; k = t.parent[k])
                    want *= t.probability[t.parent[k]];
            /* Keeping one of several takes some away; compensation for it is approximate. */
            bool one_of = p == 0 && i != 0 && variant < 2;
            double noise = 4 * sqrt(want / TREE_ROWS);
            between("share of rows", pairs[i][i], want * (one_of ? variant ? 0.85 : 0.75 : 1) - noise,
                    want * (one_of ? 1.1 : 1) + noise);
        }
        for (uint64_t i = 2; i < 5; i++)
            for (uint64_t j = i + 1; j < 5; j++)
                near("two exclusive children", pairs[i][j], 0, 0);
        for (uint64_t r = 0; r < TREE_ROWS * TREE_N; r++)
            ck_assert_msg((x[r] > 0) == on[r], "element %d is %g", (int)r, (double)x[r]);
        /* Magnitudes: 7 has no parent; 5 follows 1 in the last variant. */
        double n = 0, sum = 0, squares = 0, with_parent = 0;
        for (uint64_t r = 0; r < TREE_ROWS; r++) {
            const float *row = x + r * TREE_N;
            if (on[r * TREE_N + 7]) n += 1, sum += (double)row[7], squares += (double)row[7] * (double)row[7];
            if (on[r * TREE_N + 5]) with_parent += ((double)row[1] - 3) * ((double)row[5] - 7);
        }
        near("mean", sum / n, 9, 0.02);
        near("sd", sqrt(squares / n - sum / n * sum / n), 0.25, 0.02);
        double covariance = with_parent / (TREE_ROWS * pairs[5][5]); /* scaled: 7 sd^2 / 3 */
        between("covariance of child and parent", covariance, variant == 2 ? 0.12 : -0.01, variant == 2 ? 0.17 : 0.01);
        atmsae_synth_destroy(synth);
        atmsae_synth_destroy(again);
    }
    free(x), free(part), free(on);
    atmsae_context_destroy(ctx);
    atmsae_context_destroy(single);
}
END_TEST

START_TEST(correlated_draws_follow_the_copula)
{
    atmsae_context *ctx = new_context(2);
    static tree t;
    describe(&t);
    t.config.parent = NULL;
    t.config.children = NULL;
    t.config.correlation_rank = 1;
    t.config.correlation_scale = 0.6;
    for (uint64_t i = 0; i < TREE_N; i++)
        t.probability[i] = 0.5; /* P(both) = 1/4 + asin(rho) / 2 pi */
    atmsae_synth *synth = make_tree(ctx, &t);
    float *x = zeros(TREE_ROWS * TREE_N, sizeof *x);
    uint8_t *on = zeros(TREE_ROWS * TREE_N, 1);
    double pairs[TREE_N][TREE_N], largest = 0;
    ok(ctx, atmsae_synth_rows(synth, 0, TREE_ROWS, x, on));
    count(on, pairs);
    for (uint64_t i = 0; i < TREE_N; i++)
        for (uint64_t j = 0; j < i; j++) {
            double rho = (double)synth->tree->factor[i] * (double)synth->tree->factor[j];
            near("both on", pairs[i][j], 0.25 + asin(rho) / (2 * M_PI), 0.012);
            largest = fmax(largest, fabs(rho));
        }
    ck_assert_double_gt(largest, 0.3); /* there is something to see */
    atmsae_synth_destroy(synth);
    free(x), free(on);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(presets_have_their_published_figures)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth;
    float *x = zeros(TREE_ROWS * 50, sizeof *x);
    uint8_t *on = zeros(TREE_ROWS * 20, 1);
    ok(ctx, atmsae_synth_create_preset(ctx, ATMSAE_SYNTH_CHANIN, 3, &synth));
    ck_assert_uint_eq(atmsae_synth_features(synth), 4);
    ok(ctx, atmsae_synth_rows(synth, 0, TREE_ROWS, x, on));
    double share[4] = {0}, l0 = 0;
    for (uint64_t r = 0; r < TREE_ROWS; r++)
        for (uint64_t i = 0; i < 4; i++) {
            share[i] += on[r * 4 + i] / (double)TREE_ROWS;
            ck_assert(i != 1 || !on[r * 4 + 1] || on[r * 4]);
        }
    near("feature 0", share[0], 0.25, 0.01);
    for (int i = 1; i < 4; i++)
        near("features 1 to 3", share[i], 0.05, 0.005);
    atmsae_synth_destroy(synth);
    ok(ctx, atmsae_synth_create_preset(ctx, ATMSAE_SYNTH_MATRYOSHKA, 3, &synth));
    ck_assert_uint_eq(atmsae_synth_features(synth), 20);
    ok(ctx, atmsae_synth_rows(synth, 0, TREE_ROWS, x, on));
    for (uint64_t i = 0; i < TREE_ROWS * 20; i++)
        l0 += on[i] / (double)TREE_ROWS;
    near("L0", l0, 3 * 0.15 * 1.6 + 8 * 0.05, 0.02);
    atmsae_synth_destroy(synth);
    ck_assert_int_eq(atmsae_synth_create_preset(ctx, 4, 0, &synth), ATMSAE_E_ARG);
    ck_assert_ptr_null(synth);
    atmsae_context_destroy(ctx);
    free(x), free(on);
}
END_TEST

static double mean_max_cosine(const float *rows_of, uint64_t n, uint64_t d)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        double most = 0;
        for (uint64_t j = 0; j < n; j++)
            if (j != i) most = fmax(most, fabs((double)ams_dot(rows_of + i * d, rows_of + j * d, d)));
        sum += most / (double)n;
    }
    return sum;
}

START_TEST(directions_move_apart)
{
    enum { MANY = 120, WIDTH = 64 };
    atmsae_context *ctx = new_context(2);
    double p[MANY], random = 0;
    for (int i = 0; i < MANY; i++)
        p[i] = 0.1;
    atmsae_tree_config config;
    atmsae_tree_config_init(&config, sizeof config);
    config.d = WIDTH;
    config.n_features = MANY;
    config.probability = p;
    config.orthogonal_lr = 3e-3;
    for (uint64_t steps = 0; steps <= 200; steps += 200) {
        atmsae_synth *synth;
        config.orthogonal_steps = steps;
        ok(ctx, atmsae_synth_create_tree(ctx, &config, &synth));
        const float *directions = atmsae_synth_directions(synth);
        double now = mean_max_cosine(directions, MANY, WIDTH);
        for (uint64_t i = 0; i < MANY; i++)
            near("norm", ams_norm(directions + i * WIDTH, WIDTH), 1, 1e-6);
        if (steps == 0) random = now;
        else ck_assert_double_lt(now, 0.75 * random);
        atmsae_synth_destroy(synth);
    }
    config.n_features = 0;
    atmsae_synth *synth;
    ck_assert_int_eq(atmsae_synth_create_tree(ctx, &config, &synth), ATMSAE_E_ARG);
    config.n_features = MANY;
    p[7] = 1.5;
    ck_assert_int_eq(atmsae_synth_create_tree(ctx, &config, &synth), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "probability[7] = 1.5"));
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        trees_obey_their_rules,
        correlated_draws_follow_the_copula,
        presets_have_their_published_figures,
        directions_move_apart,
    };
    return run_tests("trees", tests, sizeof tests / sizeof *tests);
}
