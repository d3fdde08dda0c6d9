/* SPDX-License-Identifier: MIT
 *
 * Controls, models that a measure must put in the right order: an oracle, one that absorbs, a permuted decoder, an
 * untrained model, shuffled labels, the same model twice.
 */
#include "known.h"

/* ---- controls --------------------------------------------------------------------------------------------- */

enum { PARENTS = 8, CHILDREN = 4, ALONE = 20, FEATURES = PARENTS * (1 + CHILDREN) + ALONE, WIDTH = 96, ROWS = 6000 };
enum { ORACLE, ABSORBING, PERMUTED, UNTRAINED, SCRAMBLED, CONTROLS };

static atmsae_synth *control_rows(atmsae_context *ctx)
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    config.n_parents = PARENTS;
    config.n_children = CHILDREN;
    config.n_independent = ALONE;
    atmsae_synth *synth;
    ok(ctx, atmsae_synth_create(ctx, &config, &synth));
    return synth;
}

/* A latent a feature. Absorbing: a child's latent also stands for its parent, whose own then keeps silent. */
static atmsae_model *control(atmsae_context *ctx, const atmsae_synth *synth, int kind)
{
    const float *u = atmsae_synth_directions(synth);
    if (kind == UNTRAINED) return new_model(ctx, WIDTH, FEATURES, ATMSAE_TOPK, 3, 9);
    float *enc = zeros(FEATURES * WIDTH, sizeof *enc), *dec = zeros(FEATURES * WIDTH, sizeof *dec), b_enc[FEATURES];
    for (uint64_t i = 0; i < FEATURES; i++) {
        b_enc[i] = -0.45f;
        for (uint64_t j = 0; j < WIDTH; j++) {
            enc[i * WIDTH + j] = u[i * WIDTH + j];
            dec[(kind == PERMUTED ? (i + 5) % FEATURES : i) * WIDTH + j] = u[i * WIDTH + j];
            if (kind == SCRAMBLED) enc[i * WIDTH + j] = (float)(normal(20, i * WIDTH + j) / sqrt(WIDTH));
        }
    }
    for (uint64_t k = PARENTS; kind == ABSORBING && k < PARENTS * (1 + CHILDREN); k++) {
        uint64_t p = (k - PARENTS) / CHILDREN;
        for (uint64_t j = 0; j < WIDTH; j++) {
            enc[p * WIDTH + j] -= 3 * u[k * WIDTH + j];
            dec[k * WIDTH + j] += u[p * WIDTH + j];
        }
    }
    atmsae_model *model = new_model(ctx, WIDTH, FEATURES, ATMSAE_RELU, 1, 1);
    set(ctx, model, ATMSAE_W_ENC, enc);
    set(ctx, model, ATMSAE_W_DEC, dec);
    set(ctx, model, ATMSAE_B_ENC, b_enc);
    free(enc), free(dec);
    return model;
}

START_TEST(truth_orders_the_controls)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth = control_rows(ctx);
    atmsae_truth_result r[CONTROLS], again;
    for (int k = 0; k < CONTROLS; k++) {
        atmsae_model *model = control(ctx, synth, k);
        r[k].size = again.size = sizeof again;
        ok(ctx, atmsae_synth_truth(synth, model, 0, ROWS, &r[k]));
        ok(ctx, atmsae_synth_truth(synth, model, 0, ROWS, &again)); /* the same SAE twice */
        ck_assert_mem_eq(&r[k], &again, sizeof again);
        atmsae_model_destroy(model);
    }
    ck_assert_uint_eq(r[ORACLE].parents, PARENTS);
    between("oracle's MCC", r[ORACLE].mcc, 0.999, 1.001);
    between("oracle's F1", r[ORACLE].f1, 0.9, 1);
    near("uniqueness", r[ORACLE].uniqueness, 1, 0);
    between("oracle's absorption", r[ORACLE].absorption, -0.05, 0.05);
    between("oracle's full rate", r[ORACLE].full_rate, 0, 0.05);
    between("oracle's leak", r[ORACLE].decoder_leak, -1e-6, 1e-6);
    between("absorbing", r[ABSORBING].absorption, 0.65, 1);
    between("absorbing, full rate", r[ABSORBING].full_rate, 0.6, 0.9); /* a child is on in 0.8 of the rows */
    between("absorbing, fraction", r[ABSORBING].fraction_v060, 0.6, 0.9);
    between("absorbing, leak", r[ABSORBING].decoder_leak, 0.5, 0.8);
    ck_assert_double_lt(r[ABSORBING].f1, r[ORACLE].f1);
    between("absorbing, MCC", r[ABSORBING].mcc, 0.8, 0.95);
    /* A permuted decoder has the right directions, so MCC cannot see it; F1 does. */
    near("permuted, MCC", r[PERMUTED].mcc, r[ORACLE].mcc, 1e-6);
    ck_assert_double_lt(r[PERMUTED].f1, 0.15);
    ck_assert_double_lt(r[UNTRAINED].f1, 0.3);
    ck_assert_double_lt(r[SCRAMBLED].f1, 0.15);
    ck_assert_double_lt(r[UNTRAINED].mcc, 0.5);
    /* Where nothing is tracked nothing can be absorbed: a low rate alone is no merit, the recall tells. */
    for (int k = PERMUTED; k < CONTROLS; k++) {
        ck_assert_double_lt(r[k].full_rate, 0.3);
        ck_assert_double_lt(r[k].parent_recall_child_off, 0.6);
    }
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(reconstruction_orders_the_controls)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth = control_rows(ctx);
    float *x = zeros(ROWS * WIDTH, sizeof *x);
    double fvu[CONTROLS];
    ok(ctx, atmsae_synth_rows(synth, 0, ROWS, x, NULL));
    atmsae_batch batch = rows(x, ROWS);
    for (int k = 0; k < CONTROLS; k++) {
        atmsae_model *model = control(ctx, synth, k);
        atmsae_metrics *metrics;
        atmsae_metrics_result r = {.size = sizeof r};
        ok(ctx, atmsae_metrics_create(model, &metrics));
        ok(ctx, atmsae_metrics_add(metrics, &batch));
        ok(ctx, atmsae_metrics_get(metrics, &r));
        fvu[k] = r.fvu;
        atmsae_metrics_destroy(metrics);
        atmsae_model_destroy(model);
    }
    for (int k = PERMUTED; k < CONTROLS; k++)
        ck_assert_msg(fvu[ORACLE] < 0.6 * fvu[k], "FVU %g of the oracle, %g of control %d", fvu[ORACLE], fvu[k], k);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(x);
}
END_TEST

START_TEST(probing_orders_the_controls)
{
    enum { TEXTS = 2000, TASKS = 6, COLUMNS = 4 };
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth = control_rows(ctx);
    float *x = zeros(TEXTS * WIDTH, sizeof *x);
    uint8_t *on = zeros(TEXTS * FEATURES, 1), *is_train = zeros(TEXTS, 1);
    int8_t *labels = zeros(TEXTS * TASKS, 1);
    ok(ctx, atmsae_synth_rows(synth, 0, TEXTS, x, on));
    /* Task t: is independent feature t on? Balanced, by leaving out most of the rows where it is not; task 5's labels
     * are shuffled. */
    for (uint64_t i = 0; i < TEXTS; i++) {
        is_train[i] = i % 3 != 0;
        for (uint64_t t = 0; t < TASKS; t++) {
            bool is = on[i * FEATURES + PARENTS * (1 + CHILDREN) + t];
            labels[i * TASKS + t] = (int8_t)(is ? 1 : normal(30 + t, i) > 1.5 ? 0 : -1);
            if (t == 5 && labels[i * TASKS + t] >= 0) labels[i * TASKS + t] = normal(40, i) > 0;
        }
    }
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = TASKS;
    atmsae_batch batch = rows(x, TEXTS);
    atmsae_probing *probing;
    ok(ctx, atmsae_probing_create(ctx, &config, &batch, WIDTH, labels, is_train, &probing));
    atmsae_probing_entry e[CONTROLS][TASKS * COLUMNS], raw[TASKS * COLUMNS], again[TASKS * COLUMNS];
    ok(ctx, atmsae_probing_baseline(probing, raw));
    for (int k = 0; k < CONTROLS; k++) {
        atmsae_model *model = control(ctx, synth, k);
        ok(ctx, atmsae_probing_score(probing, model, e[k]));
        ok(ctx, atmsae_probing_score(probing, model, again));
        ck_assert_mem_eq(e[k], again, sizeof again);
        atmsae_model_destroy(model);
    }
    double top1[CONTROLS] = {0}, raw1 = 0;
    for (uint64_t t = 0; t < 5; t++) {
        for (int k = 0; k < CONTROLS; k++)
            top1[k] += e[k][t * COLUMNS].accuracy / 5;
        raw1 += raw[t * COLUMNS].accuracy / 5;
        ck_assert_uint_eq(e[ORACLE][t * COLUMNS].best, PARENTS * (1 + CHILDREN) + t);
        ck_assert_uint_eq(e[ORACLE][t * COLUMNS + 3].best, UINT64_MAX);
        between("oracle, AUC", e[ORACLE][t * COLUMNS].auc, 0.95, 1);
        between("all of x", raw[t * COLUMNS + 3].accuracy, 0.85, 1);
    }
    between("oracle, top 1", top1[ORACLE], 0.95, 1);
    near("a permuted decoder changes no latent", top1[PERMUTED], top1[ORACLE], 0);
    for (int k = UNTRAINED; k < CONTROLS; k++)
        ck_assert_msg(top1[k] < top1[ORACLE] - 0.1, "control %d: %g", k, top1[k]);
    ck_assert_double_lt(raw1, top1[ORACLE] - 0.1);
    for (int k = 0; k < CONTROLS; k++)
        between("shuffled labels", e[k][5 * COLUMNS].accuracy, 0.3, 0.7);
    config.n_tasks = 0;
    atmsae_probing *bad;
    ck_assert_int_eq(atmsae_probing_create(ctx, &config, &batch, WIDTH, labels, is_train, &bad), ATMSAE_E_ARG);
    ck_assert_ptr_null(bad);
    config.n_tasks = TASKS;
    labels[3] = 2;
    ck_assert_int_eq(atmsae_probing_create(ctx, &config, &batch, WIDTH, labels, is_train, &bad), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "text 0, task 3 = 2"));
    atmsae_probing_destroy(probing);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(x), free(on), free(is_train), free(labels);
}
END_TEST

/* One task without training texts of label 1, one without test texts and one without any leave the third's results as
 * they are when it is alone. */
START_TEST(probing_leaves_out_what_cannot_be_probed)
{
    enum { TEXTS = 200, TASKS = 4, COLUMNS = 4 };
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth = control_rows(ctx);
    float *x = zeros(TEXTS * WIDTH, sizeof *x);
    int8_t labels[TEXTS * TASKS], alone[TEXTS];
    uint8_t is_train[TEXTS];
    uint64_t test[2] = {0};
    ok(ctx, atmsae_synth_rows(synth, 0, TEXTS, x, NULL));
    for (uint64_t i = 0; i < TEXTS; i++) {
        is_train[i] = i % 3 != 0;
        alone[i] = normal(50, i) > 0.5;
        if (!is_train[i]) test[alone[i]]++;
        labels[i * TASKS] = (int8_t)(alone[i] && !is_train[i]);
        labels[i * TASKS + 1] = alone[i];
        labels[i * TASKS + 2] = (int8_t)(is_train[i] ? alone[i] : -1);
        labels[i * TASKS + 3] = -1;
    }
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    atmsae_batch batch = rows(x, TEXTS);
    atmsae_probing *probing[2];
    atmsae_probing_entry e[TASKS * COLUMNS], want[COLUMNS];
    atmsae_probing_task tasks[TASKS] = {{.size = sizeof *tasks}};
    config.n_tasks = TASKS;
    ok(ctx, atmsae_probing_create(ctx, &config, &batch, WIDTH, labels, is_train, &probing[0]));
    config.n_tasks = 1;
    ok(ctx, atmsae_probing_create(ctx, &config, &batch, WIDTH, alone, is_train, &probing[1]));
    atmsae_model *model = control(ctx, synth, ORACLE);
    for (int raw = 0; raw < 2; raw++) {
        ok(ctx, raw ? atmsae_probing_baseline(probing[0], e) : atmsae_probing_score(probing[0], model, e));
        ok(ctx, raw ? atmsae_probing_baseline(probing[1], want) : atmsae_probing_score(probing[1], model, want));
        ck_assert_mem_eq(e + COLUMNS, want, sizeof want);
        for (uint64_t i = 0; i < TASKS * COLUMNS; i++)
            ck_assert(i / COLUMNS == 1 || (isnan(e[i].accuracy) && isnan(e[i].f1) && isnan(e[i].auc) && e[i].best == UINT64_MAX));
    }
    ok(ctx, atmsae_probing_tasks(probing[0], tasks));
    for (int k = 0; k < TASKS; k++)
        ck_assert_int_eq(tasks[k].probed, k == 1);
    ck_assert(tasks[0].train[0] > 0 && tasks[0].train[1] == 0 && tasks[0].test[1] == test[1]);
    ck_assert(tasks[1].test[0] == test[0] && tasks[1].test[1] == test[1] && test[0] > test[1]);
    near("majority", tasks[1].majority, (double)test[0] / (double)(test[0] + test[1]), 1e-15);
    ck_assert(tasks[2].train[1] > 0 && tasks[2].test[0] + tasks[2].test[1] == 0 && isnan(tasks[2].majority));
    atmsae_model_destroy(model);
    atmsae_probing_destroy(probing[0]);
    atmsae_probing_destroy(probing[1]);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(x);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        truth_orders_the_controls,
        reconstruction_orders_the_controls,
        probing_orders_the_controls,
        probing_leaves_out_what_cannot_be_probed,
    };
    return run_tests("controls", tests, sizeof tests / sizeof *tests);
}
