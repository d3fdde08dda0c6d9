/* SPDX-License-Identifier: MIT
 *
 * Rows of trees against their definition, to the bit: rows made one feature after the other, as doc/evaluation.md and
 * eval.h describe them, and checksums of rows that earlier versions made.
 */
#include "base/elementary.h"
#include "known.h"

#include "../bench/synth16k.h"

/* ---- by definition ------------------------------------------------------------------------------------------ */

static bool fires(const atmsae_synth *s, uint64_t i, uint64_t row, const float *common)
{
    const ams_tree *t = s->tree;
    uint32_t words[4];
    ams_synth_words(s, AMS_SYNTH_FIRE, i / 4, row, words);
    const double u = words[i % 4] * 0x1p-32;
    if (t->rank == 0) return u < t->p[i];
    float g = 0;
    for (uint64_t k = 0; k < t->rank; k++)
        g += common[k] * t->factor[(i / 4 * t->rank + k) * 4 + i % 4];
    return u < 0.5 * ams_erfc((t->threshold[i] - (double)g) / t->own[i] * 0.70710678118654752440);
}

/* Which child of a parent that is on keeps what the children's rule allows one of them. */
static void keep_one(const atmsae_synth *s, uint64_t parent, uint64_t row, uint8_t *drawn)
{
    const ams_tree *t = s->tree;
    uint32_t words[4];
    double sum = 0;
    uint64_t n = 0, seen = 0;
    ams_synth_words(s, AMS_SYNTH_CHOICE, parent, row, words);
    const double u = ams_uniform(words[0], words[1]);
    for (uint64_t i = 0; i < s->features; i++)
        n += s->parent_of[i] == parent && drawn[i];
    for (uint64_t i = 0; i < s->features; i++) {
        if (s->parent_of[i] != parent) continue;
        if (t->exclusive[parent] == ATMSAE_CHILDREN_CHOOSE_ONE) {
            drawn[i] = u >= sum && u < sum + t->p[i];
            sum += t->p[i];
        } else if (drawn[i]) {
            drawn[i] = seen++ == ams_min((uint64_t)(u * (double)n), n - 1);
        }
    }
}

static void by_definition(const atmsae_synth *s, uint64_t row, float *x, uint8_t *on)
{
    const ams_tree *t = s->tree;
    uint64_t n = s->features, d = s->config.d;
    float *common = zeros(t->rank + 1, sizeof *common), *magnitude = zeros(n, sizeof *magnitude);
    uint32_t words[4];
    double two[2];
    for (uint64_t k = 0; k < t->rank; k++) {
        ams_synth_words(s, AMS_SYNTH_COMMON, k / 2, row, words);
        ams_normal2(words, two);
        common[k] = (float)two[k % 2];
    }
    for (uint64_t i = 0; i < n; i++)
        on[i] = fires(s, i, row, common);
    memcpy(x, t->bias, d * sizeof *x);
    for (uint64_t i = 0; i < n; i++) { /* a parent has a lower index */
        const uint32_t parent = s->parent_of[i];
        on[i] = on[i] && (parent == AMS_NO_PARENT || on[parent]);
        if (!on[i]) continue;
        ams_synth_words(s, AMS_SYNTH_SIZE, i, row, words);
        ams_normal2(words, two);
        magnitude[i] = (float)fmax(0, (double)t->mean[i] + (double)t->sd[i] * two[0]);
        if (parent != AMS_NO_PARENT && t->scale_children && t->mean[parent] > 0)
            magnitude[i] *= magnitude[parent] / t->mean[parent];
        on[i] = magnitude[i] > 0;
        if (on[i] && t->exclusive[i]) keep_one(s, i, row, on);
        for (uint64_t j = 0; on[i] && j < d; j++)
            x[j] += magnitude[i] * s->directions[i * d + j];
    }
    free(common);
    free(magnitude);
}

static void check_rows(atmsae_synth *s, uint64_t first, uint64_t n, bool with_active)
{
    uint64_t d = s->config.d, features = s->features;
    float *x = zeros(n * d, sizeof *x), *want = zeros(d, sizeof *want);
    uint8_t *on = zeros(n * features, 1), *want_on = zeros(features, 1);
    memset(on, 7, n * features);
    ok(s->ctx, atmsae_synth_rows(s, first, n, x, with_active ? on : NULL));
    for (uint64_t r = 0; r < n; r++) {
        by_definition(s, first + r, want, want_on);
        for (uint64_t i = 0; with_active && i < features; i++) /* an assertion is a system call: too slow for each value */
            if (on[r * features + i] != want_on[i])
                ck_abort_msg("row %llu, feature %llu of %llu: %d, expected %d", (unsigned long long)(first + r),
                             (unsigned long long)i, (unsigned long long)features, on[r * features + i], want_on[i]);
        for (uint64_t j = 0; j < d; j++)
            if (x[r * d + j] != want[j])
                ck_abort_msg("row %llu, element %llu: %a, expected %a", (unsigned long long)(first + r),
                             (unsigned long long)j, (double)x[r * d + j], (double)want[j]);
    }
    free(x), free(want), free(on), free(want_on);
}

/* ---- trees of all kinds ------------------------------------------------------------------------------------- */

enum { MOST = 700 };

static uint64_t state;
static uint64_t below(uint64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

static atmsae_synth *random_tree(atmsae_context *ctx, uint64_t seed)
{
    static const double chances[] = {0, 1, 1e-9, 1e-4, 0.003, 0.02, 0.1, 0.3, 0.5, 0.7, 0.97, 1 - 1e-9};
    static double probability[MOST], mean[MOST], sd[MOST];
    static uint64_t parent[MOST];
    static int32_t children[MOST];
    state = seed;
    below(2);
    atmsae_tree_config config;
    atmsae_tree_config_init(&config, sizeof config);
    const uint64_t n = seed % 5 == 0 ? 1 + below(9) : 1 + below(MOST), roots = 1 + below(n), rare = below(2);
    for (uint64_t i = 0; i < n; i++) {
        parent[i] = i == 0 || below(n) < roots ? i : seed % 3 ? below(i) : below(1 + i / 4);
        children[i] = (int32_t)below(3);
        probability[i] = chances[rare && below(4) ? 2 + below(4) : below(12)];
        mean[i] = below(5) ? 2 + (double)below(100) / 50 : 0;
        sd[i] = (double)below(3);
    }
    config.n_features = n;
    config.d = 1 + below(seed % 4 ? 40 : 300);
    config.seed = seed;
    config.probability = probability;
    config.parent = below(4) ? parent : NULL;
    config.children = children;
    config.mean = mean;
    config.sd = sd;
    config.scale_children = (int32_t)below(2);
    config.compensate = (int32_t)below(2);
    config.correlation_rank = below(3) ? below(30) : 0;
    config.correlation_scale = below(2) ? 0.1 : 0.5;
    config.bias_norm = (double)below(2);
    atmsae_synth *synth;
    ok(ctx, atmsae_synth_create_tree(ctx, &config, &synth));
    return synth;
}

START_TEST(rows_of_random_trees)
{
    atmsae_context *ctx[] = {new_context(1), new_context(2), new_context(3)};
    for (uint64_t seed = 1; seed <= 60; seed++) {
        atmsae_synth *synth = random_tree(ctx[seed % 3], seed);
        check_rows(synth, seed * 1000003, 1 + below(20), true);
        check_rows(synth, UINT64_MAX - 400, seed % 8 ? 3 : 401, seed % 2);
        atmsae_synth_destroy(synth);
    }
    for (int i = 0; i < 3; i++)
        atmsae_context_destroy(ctx[i]);
}
END_TEST

START_TEST(rows_of_synthsaebench)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth;
    ok(ctx, synth16k_create(ctx, 24, &synth));
    check_rows(synth, 0, 70, true);
    check_rows(synth, (uint64_t)1 << 40, 300, false);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- rows of earlier versions --------------------------------------------------------------------------------- */

static void check_sum(const char *what, atmsae_synth *s, uint64_t first, uint64_t n, uint64_t want)
{
    uint64_t d = s->config.d;
    float *x = zeros(n * d, sizeof *x);
    uint8_t *on = zeros(n * s->features, 1);
    ok(s->ctx, atmsae_synth_rows(s, first, n, x, on));
    const uint64_t sum = ams_crc64(ams_crc64(0, x, n * d * sizeof *x), on, n * s->features);
    ck_assert_msg(sum == want, "%s: checksum %016llx, expected %016llx", what, (unsigned long long)sum, (unsigned long long)want);
    free(x), free(on);
}

START_TEST(rows_are_those_of_earlier_versions)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth;
    ok(ctx, atmsae_synth_create_preset(ctx, ATMSAE_SYNTH_CHANIN, 3, &synth));
    check_sum("chanin", synth, 5, 1000, 0x988f755e40275cc4);
    atmsae_synth_destroy(synth);
    ok(ctx, atmsae_synth_create_preset(ctx, ATMSAE_SYNTH_MATRYOSHKA, 3, &synth));
    check_sum("matryoshka", synth, 5, 1000, 0xb165399aaaf7e46a);
    atmsae_synth_destroy(synth);
    synth = random_tree(ctx, 4);
    check_sum("random tree", synth, 5, 1000, 0x798437d624646735);
    atmsae_synth_destroy(synth);
    ok(ctx, synth16k_create(ctx, 24, &synth));
    check_sum("synthsaebench", synth, 123456789, 500, 0x6682c6d89201acc3);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        rows_of_random_trees,
        rows_of_synthsaebench,
        rows_are_those_of_earlier_versions,
    };
    return run_tests("tree rows", tests, sizeof tests / sizeof *tests);
}
