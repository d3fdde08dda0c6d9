/* SPDX-License-Identifier: MIT
 *
 * The generator of rows with known features: frequencies, hierarchy, rows against directions, and
 * independence of how the rows are asked for.
 */
#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void *test_alloc(void *opaque, size_t align, size_t bytes)
{
    (void)opaque;
    void *memory = NULL;
    if (bytes > (size_t)1 << 40) return NULL; /* sanitizers abort where malloc would fail */
    return posix_memalign(&memory, align, bytes) == 0 ? memory : NULL;
}

static void test_free(void *opaque, void *memory)
{
    (void)opaque;
    free(memory);
}

static atmsae_context *new_context(uint32_t threads)
{
    static const atmsae_allocator allocator = {NULL, test_alloc, test_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    config.allocator = &allocator;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), 0);
    return ctx;
}

static atmsae_synth *new_synth(atmsae_context *ctx, const atmsae_synth_config *config)
{
    atmsae_synth *synth;
    atmsae_status status = atmsae_synth_create(ctx, config, &synth);
    ck_assert_msg(status == 0, "%s", atmsae_last_error(ctx));
    return synth;
}

static atmsae_synth_config defaults(void)
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    return config;
}

static void *must_alloc(size_t bytes)
{
    void *memory = malloc(bytes);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

enum { D = 96, PARENTS = 12, CHILDREN = 8, INDEPENDENT = 60, FEATURES = PARENTS * (1 + CHILDREN) + INDEPENDENT };

START_TEST(directions_are_unit_and_spread)
{
    atmsae_context *ctx = new_context(1);
    atmsae_synth_config config = defaults();
    atmsae_synth *synth = new_synth(ctx, &config);
    ck_assert_uint_eq(atmsae_synth_features(synth), FEATURES);
    const float *v = atmsae_synth_directions(synth);
    double squared_cosines = 0, mean[D] = {0};
    for (int a = 0; a < FEATURES; a++)
        for (int b = 0; b <= a; b++) {
            double dot = 0;
            for (int j = 0; j < D; j++)
                dot += (double)v[a * D + j] * (double)v[b * D + j];
            if (a == b)
                ck_assert_double_eq_tol(dot, 1, 1e-6);
            else
                squared_cosines += dot * dot;
        }
    /* uniform on the sphere: E cos^2 = 1/d, and the mean vector has norm about 1/sqrt(features) */
    double pairs = FEATURES * (FEATURES - 1) / 2.0;
    ck_assert_double_eq_tol(squared_cosines / pairs * D, 1, 5 * sqrt(2 / pairs));
    double norm = 0;
    for (int j = 0; j < D; j++) {
        for (int a = 0; a < FEATURES; a++)
            mean[j] += (double)v[a * D + j] / FEATURES;
        norm += mean[j] * mean[j];
    }
    ck_assert_double_lt(sqrt(norm), 2 / sqrt(FEATURES));
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

/* |count/n - p| within 5 standard deviations */
static void check_share(const char *what, int i, double count, double n, double p)
{
    double sd = sqrt(p * (1 - p) / n);
    ck_assert_msg(fabs(count / n - p) <= 5 * sd + 1e-12, "%s %d: %.6f of %.0f, expected %.6f +- %.6f", what, i, count / n, n, p, sd);
}

START_TEST(frequencies_and_hierarchy)
{
    enum { ROWS = 200000, BLOCK = 1000 };
    atmsae_context *ctx = new_context(2);
    atmsae_synth_config config = defaults();
    config.seed = 3;
    atmsae_synth *synth = new_synth(ctx, &config);
    float *x = must_alloc(sizeof *x * BLOCK * D);
    uint8_t *active = must_alloc(BLOCK * FEATURES);
    static double count[FEATURES];
    double both_parents = 0;
    int strange = 0; /* an assertion is a system call: too slow for each value */
    for (uint64_t first = 0; first < ROWS; first += BLOCK) {
        ck_assert_int_eq(atmsae_synth_rows(synth, first, BLOCK, x, active), 0);
        for (int r = 0; r < BLOCK; r++) {
            const uint8_t *a = active + r * FEATURES;
            for (int f = 0; f < FEATURES; f++) {
                strange += a[f] > 1;
                count[f] += a[f];
            }
            for (int p = 0; p < PARENTS; p++) {
                int children = 0;
                for (int c = 0; c < CHILDREN; c++)
                    children += a[PARENTS + p * CHILDREN + c];
                strange += children > a[p]; /* exclusive, and only under their parent */
            }
            both_parents += a[0] & a[1];
        }
    }
    ck_assert_int_eq(strange, 0);
    double weights = 0, lowest = 1, highest = 0;
    for (int c = 0; c < CHILDREN; c++)
        weights += pow(c + 1, -0.7);
    for (int p = 0; p < PARENTS; p++) {
        check_share("parent", p, count[p], ROWS, 0.06);
        for (int c = 0; c < CHILDREN; c++)
            check_share("child", p * CHILDREN + c, count[PARENTS + p * CHILDREN + c], count[p], 0.8 * pow(c + 1, -0.7) / weights);
    }
    check_share("parents 0 and 1", 0, both_parents, ROWS, 0.06 * 0.06);
    /* log-uniform probabilities: their logarithms have the mean and variance of a uniform */
    double mean = 0, range = log(0.08 / 0.01);
    for (int i = 0; i < INDEPENDENT; i++) {
        double p = count[FEATURES - INDEPENDENT + i] / ROWS;
        lowest = fmin(lowest, p);
        highest = fmax(highest, p);
        mean += (log(p) - log(0.01)) / range / INDEPENDENT;
    }
    ck_assert_double_gt(lowest, 0.01 - 5 * sqrt(0.01 / ROWS));
    ck_assert_double_lt(highest, 0.08 + 5 * sqrt(0.08 / ROWS));
    ck_assert_double_lt(lowest, 0.015);
    ck_assert_double_gt(highest, 0.06);
    ck_assert_double_eq_tol(mean, 0.5, 5 * sqrt(1.0 / 12 / INDEPENDENT));
    free(x);
    free(active);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

/* Solves the symmetric positive system a s = b, n <= 32, by Gaussian elimination. */
static void solve(int n, double a[32][32], double *b)
{
    for (int k = 0; k < n; k++)
        for (int i = k + 1; i < n; i++) {
            double m = a[i][k] / a[k][k];
            for (int j = k; j < n; j++)
                a[i][j] -= m * a[k][j];
            b[i] -= m * b[k];
        }
    for (int k = n; k-- > 0;) {
        for (int j = k + 1; j < n; j++)
            b[k] -= a[k][j] * b[j];
        b[k] /= a[k][k];
    }
}

/* Least squares on the active directions must leave no residual, and magnitudes as configured. */
START_TEST(rows_are_sums_of_their_directions)
{
    enum { ROWS = 4000 };
    atmsae_context *ctx = new_context(1);
    atmsae_synth_config config = defaults();
    config.magnitude_sd = 0.6; /* so that the floor of 0.1 is reached */
    atmsae_synth *synth = new_synth(ctx, &config);
    const float *v = atmsae_synth_directions(synth);
    float *x = must_alloc(sizeof *x * ROWS * D);
    uint8_t *active = must_alloc(ROWS * FEATURES);
    ck_assert_int_eq(atmsae_synth_rows(synth, 17, ROWS, x, active), 0);
    double n = 0, at_floor = 0, below_one = 0, too_small = 0, worst = 0, pairs = 0, agree = 0;
    for (int r = 0; r < ROWS; r++) {
        int set[32], m = 0;
        for (int f = 0; f < FEATURES; f++)
            if (active[r * FEATURES + f]) {
                if (m == 32) ck_abort_msg("more than 32 active features");
                set[m++] = f;
            }
        double gram[32][32], s[32], residual = 0;
        for (int a = 0; a < m; a++) {
            s[a] = 0;
            for (int j = 0; j < D; j++)
                s[a] += (double)v[set[a] * D + j] * (double)x[r * D + j];
            for (int b = 0; b < m; b++) {
                gram[a][b] = 0;
                for (int j = 0; j < D; j++)
                    gram[a][b] += (double)v[set[a] * D + j] * (double)v[set[b] * D + j];
            }
        }
        solve(m, gram, s);
        for (int j = 0; j < D; j++) {
            double e = (double)x[r * D + j];
            for (int a = 0; a < m; a++)
                e -= s[a] * (double)v[set[a] * D + j];
            residual += e * e;
        }
        worst = fmax(worst, residual);
        for (int a = 0; a < m; a++) {
            too_small += s[a] < 0.1 - 1e-4;
            n++;
            at_floor += s[a] < 0.1 + 1e-4;
            below_one += s[a] < 1;
            if (set[a] >= PARENTS) continue;
            for (int b = a + 1; b < m; b++) /* a parent and its child have magnitudes of their own */
                if (set[b] >= PARENTS && set[b] < FEATURES - INDEPENDENT && (set[b] - PARENTS) / CHILDREN == set[a]) {
                    pairs++;
                    agree += (s[a] < 1) == (s[b] < 1);
                }
        }
    }
    ck_assert_double_lt(worst, 1e-10);
    ck_assert_double_eq(too_small, 0);
    check_share("magnitudes at 0.1", 0, at_floor, n, 0.5 * erfc(0.9 / 0.6 / sqrt(2)));
    check_share("magnitudes below 1", 0, below_one, n, 0.5);
    check_share("parent and child on the same side of 1", 0, agree, pairs, 0.5);
    free(x);
    free(active);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(same_rows_however_asked_for)
{
    enum { ROWS = 333 };
    const uint64_t first = UINT64_MAX - ROWS + 1; /* up to the last row there is */
    atmsae_synth_config config = defaults();
    atmsae_context *ctx1 = new_context(1), *ctx3 = new_context(3);
    atmsae_synth *one = new_synth(ctx1, &config), *three = new_synth(ctx3, &config);
    config.seed = 1;
    atmsae_synth *other = new_synth(ctx1, &config);
    ck_assert_mem_eq(atmsae_synth_directions(one), atmsae_synth_directions(three), sizeof(float) * FEATURES * D);
    ck_assert_mem_ne(atmsae_synth_directions(one), atmsae_synth_directions(other), sizeof(float) * FEATURES * D);
    size_t bytes = sizeof(float) * ROWS * D;
    float *a = must_alloc(bytes), *b = must_alloc(bytes), *c = must_alloc(bytes), *o = must_alloc(bytes);
    uint8_t *active = must_alloc(ROWS * FEATURES), *split = must_alloc(ROWS * FEATURES);
    ck_assert_int_eq(atmsae_synth_rows(one, first, ROWS, a, active), 0);
    ck_assert_int_eq(atmsae_synth_rows(three, first, ROWS, b, NULL), 0);
    for (uint64_t r = 0, n; r < ROWS; r += n) {
        n = 1 + r % 70;
        if (n > ROWS - r) n = ROWS - r;
        ck_assert_int_eq(atmsae_synth_rows(three, first + r, n, c + r * D, split + r * FEATURES), 0);
    }
    ck_assert_int_eq(atmsae_synth_rows(other, first, ROWS, o, NULL), 0);
    ck_assert_mem_eq(a, b, bytes);
    ck_assert_mem_eq(a, c, bytes);
    ck_assert_mem_eq(active, split, ROWS * FEATURES);
    ck_assert_mem_ne(a, o, bytes);
    ck_assert_int_eq(atmsae_synth_rows(one, first + 1, ROWS, a, NULL), ATMSAE_E_LIMIT); /* one too many */
    ck_assert_int_eq(atmsae_synth_rows(one, 0, UINT64_MAX / 8, a, NULL), ATMSAE_E_LIMIT);
    ck_assert_int_eq(atmsae_synth_rows(one, 0, 1, NULL, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_synth_rows(one, 0, 0, NULL, NULL), 0);
    free(a), free(b), free(c), free(o), free(active), free(split);
    atmsae_context_destroy(ctx1); /* handles keep it alive */
    atmsae_synth_destroy(one);
    atmsae_synth_destroy(other);
    atmsae_synth_destroy(three);
    atmsae_context_destroy(ctx3);
}
END_TEST

START_TEST(corners)
{
    atmsae_context *ctx = new_context(1);
    atmsae_synth_config config = defaults();
    config.n_independent = 0;
    config.n_children = 3;
    config.p_parent = config.p_child = 1;
    config.d = 5;
    config.magnitude_sd = 0;
    atmsae_synth *synth = new_synth(ctx, &config);
    float x[5];
    uint8_t active[48];
    ck_assert_uint_eq(atmsae_synth_features(synth), 48);
    for (uint64_t r = 0; r < 50; r++) {
        ck_assert_int_eq(atmsae_synth_rows(synth, r, 1, x, active), 0);
        for (int p = 0; p < 12; p++)
            ck_assert_int_eq(active[p] + active[12 + 3 * p] + active[13 + 3 * p] + active[14 + 3 * p], 2);
    }
    atmsae_synth_destroy(synth);
    config = defaults();
    config.n_parents = 0;
    config.n_independent = 2;
    config.p_independent_min = config.p_independent_max = 1;
    config.d = 1;
    config.magnitude_sd = 0;
    synth = new_synth(ctx, &config);
    const float *v = atmsae_synth_directions(synth);
    ck_assert_float_eq(fabsf(v[0]), 1);
    ck_assert_int_eq(atmsae_synth_rows(synth, 9, 1, x, NULL), 0);
    ck_assert_float_eq(x[0], v[0] + v[1]);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(bad_settings_are_named)
{
    static const struct {
        const char *name;
        size_t offset;
        bool is_double;
        double value;
    } table[] = {
#define N(field, value) {#field, offsetof(atmsae_synth_config, field), false, value}
#define P(field, value) {#field, offsetof(atmsae_synth_config, field), true, value}
        N(d, 0), N(d, 16777217), N(n_parents, 1e18), N(n_children, 1e18), N(n_independent, 1e18),
        P(p_parent, -0.01), P(p_parent, 1.01), P(p_parent, NAN), P(p_child, 2), P(p_child, NAN),
        P(child_power, -1), P(child_power, INFINITY), P(p_independent_min, 0), P(p_independent_min, NAN),
        P(p_independent_max, 0.001), P(p_independent_max, 1.5), P(magnitude_sd, -1), P(magnitude_sd, NAN),
#undef N
#undef P
    };
    atmsae_context *ctx = new_context(1);
    atmsae_synth *synth;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        atmsae_synth_config config = defaults();
        char *field = (char *)&config + table[i].offset;
        uint64_t whole = table[i].is_double ? 0 : (uint64_t)table[i].value;
        memcpy(field, table[i].is_double ? (const void *)&table[i].value : &whole, 8);
        ck_assert_int_eq(atmsae_synth_create(ctx, &config, &synth), ATMSAE_E_ARG);
        ck_assert_ptr_null(synth);
        ck_assert_msg(strstr(atmsae_last_error(ctx), table[i].name) != NULL, "%s: %s", table[i].name, atmsae_last_error(ctx));
    }
    atmsae_synth_config config = defaults();
    config.n_parents = config.n_independent = 0;
    ck_assert_int_eq(atmsae_synth_create(ctx, &config, &synth), ATMSAE_E_ARG);
    config = defaults();
    config.size = 8;
    ck_assert_int_eq(atmsae_synth_create(ctx, &config, &synth), ATMSAE_E_ABI);
    ck_assert_int_eq(atmsae_synth_create(ctx, NULL, &synth), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_synth_create(NULL, &config, &synth), ATMSAE_E_ARG);
    config = defaults();
    config.n_independent = 1 << 24;
    config.d = 1 << 24; /* 2^48 floats: no such memory */
    ck_assert_int_eq(atmsae_synth_create(ctx, &config, &synth), ATMSAE_E_NOMEM);
    atmsae_synth_destroy(NULL);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("synth");
    TCase *tests = tcase_create("synth");
    tcase_add_test(tests, directions_are_unit_and_spread);
    tcase_add_test(tests, frequencies_and_hierarchy);
    tcase_add_test(tests, rows_are_sums_of_their_directions);
    tcase_add_test(tests, same_rows_however_asked_for);
    tcase_add_test(tests, corners);
    tcase_add_test(tests, bad_settings_are_named);
    suite_add_tcase(suite, tests);
    return run_all(suite);
}
