/* SPDX-License-Identifier: MIT
 *
 * target_l0: the controller's arithmetic, where cuts start, and runs of 1000 steps that must end within 2 % of the target
 * on rows that they have not seen, encoded without a mask. One that cannot must say so.
 */
#include "train/train.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 32, F = 96, FEATURES = 64, BATCH = 256, STEPS = 1000, TEST_ROWS = 16384 };

typedef struct listener {
    int missed; /* warnings about it */
    char text[256];
} listener;

static void listen(void *opaque, int32_t level, const char *message)
{
    listener *l = opaque;
    if (level != ATMSAE_LOG_WARNING || !strstr(message, "target_l0 is missed")) return;
    l->missed++;
    snprintf(l->text, sizeof l->text, "%s", message);
}

static atmsae_context *new_context(listener *l)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    config.log = listen;
    config.log_opaque = l;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

static void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

/* ---- rows: sparse sums of fixed directions about a mean ---------------------------------------------------- */

static uint64_t state;
static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53;
}

static double noise(void) { return uniform() + uniform() + uniform() + uniform() - 2; }

static float direction[FEATURES][D];

static void start_rows(void)
{
    state = 7;
    for (int i = 0; i < FEATURES; i++)
        for (int j = 0; j < D; j++)
            direction[i][j] = (float)noise();
}

static void fill(float *rows, uint64_t n)
{
    for (uint64_t r = 0; r < n; r++, rows += D) {
        for (int j = 0; j < D; j++)
            rows[j] = 2 + 0.2f * (float)noise();
        for (int i = 0; i < FEATURES; i++) {
            if (uniform() > 0.3 / (1 + 0.1 * i)) continue;
            const float size = (float)(1 + 0.3 * noise());
            for (int j = 0; j < D; j++)
                rows[j] += size * direction[i][j];
        }
    }
}

static atmsae_batch batch_of(const float *rows, uint64_t n)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.x = rows;
    b.n_rows = n;
    return b;
}

static double unmasked_l0(const atmsae_model *m, const float *rows, uint64_t n, atmsae_context *ctx)
{
    atmsae_codes *codes;
    ok(atmsae_codes_create(ctx, &codes), ctx);
    atmsae_batch b = batch_of(rows, n);
    ok(atmsae_encode(m, &b, codes), ctx);
    atmsae_codes_view view = {.size = sizeof view};
    ok(atmsae_codes_get(codes, &view), ctx);
    double count = 0;
    for (uint64_t p = 0; p < view.row_start[n]; p++)
        count += view.value[p] > 0;
    atmsae_codes_destroy(codes);
    return count / (double)n;
}

/* ---- the parts ------------------------------------------------------------------------------------------------ */

START_TEST(moves_are_those_of_the_method)
{
    const double close = 1e-12;
    ams_target_move m = ams_target_moves(10, 10, 1, 4000);
    ck_assert_double_eq(m.shift, 0);
    ck_assert_double_eq(m.log_coef, 0);
    m = ams_target_moves(11, 10, 1, 4000); /* too dense: cuts and coefficient rise */
    ck_assert_double_eq_tol(m.shift, 0.2 * log(1.1), close);
    ck_assert_double_eq_tol(m.log_coef, 2.0 / 200 * log(1.1) / 0.2, close);
    m = ams_target_moves(9, 10, 0.5, 100); /* the learning rate at half; the least window */
    ck_assert_double_eq_tol(m.shift, 0.2 * 0.5 * log(0.9), close);
    ck_assert_double_eq_tol(m.log_coef, 2.0 / 40 * 0.5 * log(0.9) / 0.2, close);
    m = ams_target_moves(9, 10, 0, 4000); /* at the end the coefficient stands, cuts go on a little */
    ck_assert_double_eq_tol(m.shift, 0.2 * 0.2 * log(0.9), close);
    ck_assert_double_eq(fabs(m.log_coef), 0);
    m = ams_target_moves(0, 10, 1, 0); /* nothing fires; a run of unknown length */
    ck_assert_double_eq_tol(m.shift, 0.2 * -0.7, close);
    ck_assert_double_eq_tol(m.log_coef, -2.0 / 500, close);
    m = ams_target_moves(1e6, 10, 1, 0);
    ck_assert_double_eq_tol(m.shift, 0.2 * 0.7, close);
    ck_assert_double_eq_tol(m.log_coef, 2.0 / 500, close);
}
END_TEST

static const struct {
    int32_t activation, mask;
    double target;
} runs[] = {
    {ATMSAE_JUMPRELU, ATMSAE_MASK_NONE, 4},  {ATMSAE_JUMPRELU, ATMSAE_MASK_ATM, 8},       {ATMSAE_JUMPRELU, ATMSAE_MASK_NONE, 24},
    {ATMSAE_GATED, ATMSAE_MASK_NONE, 8},     {ATMSAE_GATED, ATMSAE_MASK_ATM, 16},         {ATMSAE_RELU, ATMSAE_MASK_NONE, 8},
    {ATMSAE_RELU, ATMSAE_MASK_ATM, 16},      {ATMSAE_JUMPRELU_TANH, ATMSAE_MASK_NONE, 8},
};
enum { RUNS = sizeof runs / sizeof *runs };

static atmsae_trainer *new_trainer(atmsae_context *ctx, int32_t activation, int32_t mask, double target, uint64_t steps)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D;
    model.d_sae = F;
    model.activation = activation;
    model.target_l0 = target;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = mask;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.masker = &masker;
    config.batch_rows = BATCH;
    config.total_rows = steps * BATCH;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t), ctx);
    return t;
}

START_TEST(cuts_start_at_the_target)
{
    static float rows[4096 * D];
    listener l = {0};
    atmsae_context *ctx = new_context(&l);
    start_rows();
    fill(rows, 4096);
    atmsae_trainer *t = new_trainer(ctx, runs[_i].activation, runs[_i].mask, runs[_i].target, STEPS);
    atmsae_batch b = batch_of(rows, 4096);
    ok(atmsae_trainer_prepare(t, &b), ctx);
    ck_assert_double_eq_tol(unmasked_l0(atmsae_trainer_model(t), rows, 4096, ctx), runs[_i].target, 0.01);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- whole runs ------------------------------------------------------------------------------------------------- */

static double train(int32_t activation, int32_t mask, double target, uint64_t steps, listener *l)
{
    static float rows[TEST_ROWS * D];
    atmsae_context *ctx = new_context(l);
    start_rows();
    fill(rows, TEST_ROWS);
    atmsae_trainer *t = new_trainer(ctx, activation, mask, target, steps);
    atmsae_batch b = batch_of(rows, TEST_ROWS);
    ok(atmsae_trainer_prepare(t, &b), ctx);
    for (uint64_t s = 0; s < steps; s++) {
        fill(rows, BATCH);
        b = batch_of(rows, BATCH);
        ok(atmsae_trainer_step(t, &b, NULL), ctx);
    }
    fill(rows, TEST_ROWS);
    const double l0 = unmasked_l0(atmsae_trainer_model(t), rows, TEST_ROWS, ctx);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
    return l0;
}

START_TEST(a_run_ends_at_its_target)
{
    listener l = {0};
    const double l0 = train(runs[_i].activation, runs[_i].mask, runs[_i].target, STEPS, &l);
    ck_assert_msg(fabs(l0 / runs[_i].target - 1) <= 0.02, "activation %d, target %g: L0 %.3f", runs[_i].activation, runs[_i].target, l0);
    ck_assert_int_eq(l.missed, 0);
}
END_TEST

/* No cut is below 0, so no more than about half of all latents can fire. */
START_TEST(a_target_that_is_missed_is_told)
{
    listener l = {0};
    const double l0 = train(ATMSAE_JUMPRELU, ATMSAE_MASK_NONE, 90, 250, &l);
    ck_assert_double_lt(l0, 85);
    ck_assert_int_eq(l.missed, 1);
    ck_assert_msg(strstr(l.text, "the target 90") && strstr(l.text, "250") && strstr(l.text, "(96)"), "%s", l.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("target");
    TCase *t = tcase_create("parts");
    tcase_add_test(t, moves_are_those_of_the_method);
    tcase_add_loop_test(t, cuts_start_at_the_target, 0, RUNS);
    suite_add_tcase(suite, t);
    t = tcase_create("runs");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, a_run_ends_at_its_target, 0, RUNS);
    tcase_add_test(t, a_target_that_is_missed_is_told);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
