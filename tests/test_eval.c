/* SPDX-License-Identifier: MIT
 *
 * Evaluation: solvers against scikit-learn, SciPy and brute force; metrics against a naive
 * computation in double; absorption and synthetic scores against models whose answer is known.
 */
#include "eval/absorption.h"
#include "eval/assignment.h"
#include "eval/lasso.h"
#include "eval/logistic.h"
#include "suite.h"

#include <atmsae/eval.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void ok(atmsae_context *ctx, atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static void near(const char *what, double got, double want, double tolerance)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%s is %.12g, expected %.12g", what, got, want);
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

static void *zeros(uint64_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* Uniform and normal numbers of a fixed stream. */
static double uniform(uint64_t stream, uint64_t i)
{
    uint32_t words[4];
    ams_philox(4711, AMS_DRAW_EVAL, stream, i, words);
    return ams_uniform(words[0], words[1]);
}

static double normal(uint64_t stream, uint64_t i)
{
    uint32_t words[4];
    double two[2];
    ams_philox(4711, AMS_DRAW_EVAL, stream, i, words);
    ams_normal2(words, two);
    return two[0];
}

static atmsae_tensors *open_solvers(atmsae_context *ctx)
{
    const char *tests = getenv("ATMSAE_TESTS");
    char path[1024];
    atmsae_tensors *file;
    ams_format(path, sizeof path, "%s/fixtures/eval_solvers.safetensors", tests ? tests : "tests");
    ok(ctx, atmsae_tensors_open(ctx, path, &file));
    return file;
}

/* Reads group.name; shape[0], shape[1] (1 if there is none) go to *rows, *cols. */
static void *read_tensor(atmsae_context *ctx, atmsae_tensors *file, const char *group, const char *name, uint64_t *rows,
                         uint64_t *cols)
{
    char full[64];
    uint64_t index;
    atmsae_tensor_info info = {.size = sizeof info};
    ams_format(full, sizeof full, "%s.%s", group, name);
    ok(ctx, atmsae_tensors_find(file, full, &index));
    ok(ctx, atmsae_tensors_info(file, index, &info));
    *rows = info.shape[0];
    *cols = info.rank == 2 ? info.shape[1] : 1;
    uint64_t count = *rows * *cols;
    if (strcmp(info.dtype, "F32") == 0) {
        float *out = zeros(count, sizeof *out);
        ok(ctx, atmsae_tensors_read_f32(file, index, out, count));
        return out;
    }
    int64_t *wide = zeros(count, sizeof *wide);
    int32_t *out = zeros(count, sizeof *out);
    ok(ctx, atmsae_tensors_read_i64(file, index, wide, count));
    for (uint64_t i = 0; i < count; i++)
        out[i] = (int32_t)wide[i];
    free(wide);
    return out;
}

/* ---- logistic regression ---------------------------------------------------------------------- */

static const struct {
    const char *name;
    double c;
    bool balanced;
} ridge_cases[] = {{"few", 1, true}, {"few_plain", 0.05, false}, {"many", 0.3, true}, {"column", 0.5, true}, {"row", 0.5, true}};

/* Norm of the objective's gradient, straight from the formula. */
static double gradient_norm(const ams_logistic *p, int32_t positive, const double *w)
{
    double *g = zeros(p->d + 1, sizeof *g), n_positive = 0, total = 0;
    for (uint64_t i = 0; i < p->n; i++)
        n_positive += p->label[i] == positive;
    for (uint64_t j = 0; j < p->d; j++)
        g[j] = w[j];
    for (uint64_t i = 0; i < p->n; i++) {
        double z = w[p->d], y = p->label[i] == positive, of_class = y > 0 ? n_positive : (double)p->n - n_positive;
        for (uint64_t j = 0; j < p->d; j++)
            z += w[j] * (double)p->x[i * p->ld + j];
        double slope = p->c * (p->balanced ? (double)p->n / (2 * of_class) : 1) * (1 / (1 + exp(-z)) - y);
        for (uint64_t j = 0; j < p->d; j++)
            g[j] += slope * (double)p->x[i * p->ld + j];
        g[p->d] += slope;
    }
    for (uint64_t j = 0; j <= p->d; j++)
        total += g[j] * g[j];
    free(g);
    return sqrt(total);
}

START_TEST(logistic_finds_the_optimum_of_scikit_learn)
{
    atmsae_context *ctx = new_context(2);
    atmsae_tensors *file = open_solvers(ctx);
    const char *name = ridge_cases[_i].name;
    uint64_t n, d, one, classes, m;
    float *x = read_tensor(ctx, file, name, "x", &n, &d);
    int32_t *label = read_tensor(ctx, file, name, "label", &n, &one);
    float *want = read_tensor(ctx, file, name, "w", &classes, &m);
    double *w = zeros(classes * m, sizeof *w), *zero = zeros(m, sizeof *zero);
    ams_logistic p = {x, n, d, d, label, ridge_cases[_i].c, ridge_cases[_i].balanced, NULL, NULL, NULL};
    ok(ctx, ams_logistic_fit_classes(ctx, &p, classes, w));
    for (uint64_t k = 0; k < classes; k++) {
        for (uint64_t j = 0; j < m; j++)
            near(name, w[k * m + j], (double)want[k * m + j], 2e-6 * (1 + fabs((double)want[k * m + j])));
        double start = gradient_norm(&p, (int32_t)k, zero);
        ck_assert_double_le(gradient_norm(&p, (int32_t)k, w + k * m), 1e-8 * start);
        near("score", ams_logistic_score(w + k * m, x, 0), w[k * m], 0);
    }

    double *work = zeros(ams_logistic_work(&p), sizeof *work), *single = zeros(m, sizeof *single);
    for (uint64_t k = 0; k < classes; k++) { /* one problem at a time takes other ways to the same place */
        ck_assert_double_le(ams_logistic_fit(&p, (int32_t)k, work, single), AMS_LOGISTIC_TOLERANCE);
        for (uint64_t j = 0; j < m; j++)
            near("alone", single[j], w[k * m + j], 1e-6 * (1 + fabs(w[k * m + j])));
    }
    free(work);
    free(single);

    atmsae_context *alone = new_context(1); /* the same bits on one thread */
    double *again = zeros(classes * m, sizeof *again);
    ok(alone, ams_logistic_fit_classes(alone, &p, classes, again));
    ck_assert_mem_eq(w, again, classes * m * sizeof *w);
    atmsae_context_destroy(alone);
    free(again);
    free(w);
    free(zero);
    free(want);
    free(label);
    free(x);
    atmsae_tensors_close(file);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(logistic_counts_rows_as_often_as_it_is_told)
{
    enum { N = 60, D = 3 };
    float x[N][D], copies[2 * N][D];
    int32_t label[N], labels[2 * N];
    uint32_t times[N];
    for (uint64_t i = 0; i < N; i++) {
        times[i] = (uint32_t)(i % 3);
        label[i] = uniform(1, i) < 0.4;
        for (uint64_t j = 0; j < D; j++)
            x[i][j] = (float)(normal(2, i * D + j) + 0.5 * label[i]);
    }
    ams_logistic once = {&x[0][0], N, D, D, label, 2, true, NULL, NULL, times};
    double *work = zeros(2 * ams_logistic_work(&once), sizeof *work), w[D + 1], again[D + 1];
    ck_assert_double_le(ams_logistic_fit(&once, 1, work, w), AMS_LOGISTIC_TOLERANCE);
    uint64_t kept = 0;
    for (uint64_t i = 0; i < N; i++)
        for (uint32_t t = 0; t < times[i]; t++) {
            memcpy(copies[kept], x[i], sizeof x[i]);
            labels[kept++] = label[i];
        }
    ams_logistic copied = {&copies[0][0], kept, D, D, labels, 2, true, NULL, NULL, NULL};
    ck_assert_double_le(ams_logistic_fit(&copied, 1, work, again), AMS_LOGISTIC_TOLERANCE);
    for (int j = 0; j <= D; j++)
        near("weight", w[j], again[j], 1e-8);
    free(work);
}
END_TEST

START_TEST(logistic_fits_classes_in_groups)
{
    enum { N = 120, D = 5, CLASSES = 40 }; /* more than go at a time; the last has no rows */
    float x[N][D];
    int32_t label[N];
    for (uint64_t i = 0; i < N; i++) {
        label[i] = (int32_t)(i % (CLASSES - 1));
        for (uint64_t j = 0; j < D; j++)
            x[i][j] = (float)normal(3, i * D + j);
    }
    atmsae_context *ctx = new_context(2);
    ams_logistic p = {&x[0][0], N, D, D, label, 0.5, true, NULL, NULL, NULL};
    double w[CLASSES][D + 1], single[D + 1], *work = zeros(ams_logistic_work(&p), sizeof *work);
    ok(ctx, ams_logistic_fit_classes(ctx, &p, CLASSES, &w[0][0]));
    for (int k = 0; k < CLASSES; k++) {
        ck_assert_double_le(ams_logistic_fit(&p, k, work, single), AMS_LOGISTIC_TOLERANCE);
        for (int j = 0; j <= D; j++)
            near("weight", w[k][j], single[j], k == CLASSES - 1 ? 0 : 1e-7);
    }
    for (int sign = -1; sign <= 1; sign += 2) { /* units of x do not matter */
        double unit = pow(2, 8 * sign), scaled[CLASSES][D + 1];
        float y[N][D];
        for (uint64_t i = 0; i < (uint64_t)N * D; i++)
            y[i / D][i % D] = (float)((double)x[i / D][i % D] * unit);
        ams_logistic other = p;
        other.x = &y[0][0];
        other.c /= unit * unit;
        ok(ctx, ams_logistic_fit_classes(ctx, &other, CLASSES, &scaled[0][0]));
        for (int k = 0; k < CLASSES; k++)
            for (int j = 0; j < D; j++)
                near("weight in other units", scaled[k][j] * unit, w[k][j], 1e-6);
    }
    free(work);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(logistic_survives_hard_data)
{
    /* Rows that a line separates, huge values, a constant column; then a class without rows. */
    enum { N = 40 };
    float x[N][2];
    int32_t label[N];
    for (int i = 0; i < N; i++) {
        x[i][0] = (float)(1e4 * (i - 19.5));
        x[i][1] = 1e6f;
        label[i] = i >= N / 2;
    }
    ams_logistic p = {&x[0][0], N, 2, 2, label, 1e3, true, NULL, NULL, NULL};
    double *work = zeros(ams_logistic_work(&p), sizeof *work), w[3] = {7, 7, 7};
    ck_assert_double_le(ams_logistic_fit(&p, 1, work, w), AMS_LOGISTIC_TOLERANCE);
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(ams_logistic_score(w, x[i], 2) > 0, label[i]);
    near("result without positive rows", ams_logistic_fit(&p, 5, work, w), 0, 0);
    for (int j = 0; j < 3; j++)
        near("weight", w[j], 0, 0);
    free(work);
}
END_TEST

START_TEST(lasso_finds_the_optimum_of_scikit_learn)
{
    atmsae_context *ctx = new_context(1);
    atmsae_tensors *file = open_solvers(ctx);
    uint64_t n, d, one, entries = 0;
    float *a = read_tensor(ctx, file, "lasso", "a", &n, &d), *want = read_tensor(ctx, file, "lasso", "w", &d, &one);
    int32_t *label = read_tensor(ctx, file, "lasso", "label", &n, &one);
    uint64_t *start = zeros(d, sizeof *start), *count = zeros(d, sizeof *count);
    uint32_t *row = zeros(n * d, sizeof *row);
    float *value = zeros(n * d, sizeof *value);
    for (uint64_t j = 0; j < d; j++) {
        start[j] = entries;
        for (uint64_t i = 0; i < n; i++) {
            if (a[i * d + j] == 0) continue;
            row[entries] = (uint32_t)i;
            value[entries++] = a[i * d + j];
        }
        count[j] = entries - start[j];
    }
    ams_lasso p = {{n, d, start, count, row, value}, label, 0.02};
    double *work = zeros(ams_lasso_work(&p), sizeof *work), *w = zeros(d, sizeof *w), *g = zeros(d, sizeof *g);
    ck_assert_double_le(ams_lasso_fit(&p, 1, work, w, g), AMS_LASSO_TOLERANCE);
    for (uint64_t j = 0; j < d; j++) {
        near("weight", w[j], (double)want[j], 2e-5);
        ck_assert_int_eq(w[j] == 0, want[j] == 0);
    }

    uint32_t best[5];
    ams_lasso_rank(w, g, d, 5, best);
    for (int k = 0; k < 5; k++)
        for (uint64_t j = 0; j < d; j++) {
            bool above = false;
            for (int q = 0; q < k; q++)
                above |= best[q] == j;
            ck_assert(above || (double)want[j] <= (double)want[best[k]]);
        }
    free(work), free(w), free(g), free(start), free(count), free(row), free(value), free(a), free(want), free(label);
    atmsae_tensors_close(file);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(ranks_break_ties_by_pull_then_index)
{
    const double w[] = {0, -1, 2, 0, 2, 0, 3}, g[] = {0.1, -9, 1, -0.2, 1, -0.2, 0};
    const uint32_t want[] = {6, 2, 4, 3, 5, 0, 1};
    uint32_t best[7];
    for (uint64_t k = 0; k <= 7; k++) {
        ams_lasso_rank(w, g, 7, k, best);
        for (uint64_t i = 0; i < k; i++)
            ck_assert_uint_eq(best[i], want[i]);
    }
}
END_TEST

/* ---- assignment ------------------------------------------------------------------------------- */

static double cheapest(const float *cost, uint64_t n, uint64_t m, uint64_t row, unsigned taken)
{
    if (row == n) return 0;
    double best = INFINITY;
    for (uint64_t j = 0; j < m; j++)
        if (!(taken >> j & 1)) best = fmin(best, (double)cost[row * m + j] + cheapest(cost, n, m, row + 1, taken | 1u << j));
    return best;
}

static double total_cost(const float *cost, uint64_t n, uint64_t m, const uint32_t *column)
{
    double total = 0;
    for (uint64_t i = 0; i < n; i++) {
        ck_assert_uint_lt(column[i], m);
        for (uint64_t q = 0; q < i; q++)
            ck_assert_uint_ne(column[i], column[q]);
        total += (double)cost[i * m + column[i]];
    }
    return total;
}

START_TEST(assignment_equals_brute_force)
{
    atmsae_context *ctx = new_context(1);
    float cost[49];
    uint32_t column[7];
    for (uint64_t trial = 0; trial < 300; trial++) {
        uint64_t n = 1 + trial % 6, m = n + trial / 6 % (8 - n);
        for (uint64_t i = 0; i < n * m; i++) {
            cost[i] = (float)uniform(1, trial * 64 + i);
            if (trial % 3 == 0) cost[i] = floorf(4 * cost[i]) - 1; /* ties and negative costs */
        }
        ok(ctx, ams_assignment(ctx, n, m, cost, column));
        near("total cost", total_cost(cost, n, m, column), cheapest(cost, n, m, 0, 0), 1e-12);
    }
    cost[1] = NAN;
    ck_assert_int_eq(ams_assignment(ctx, 2, 2, cost, column), ATMSAE_E_NONFINITE);
    ck_assert_int_eq(ams_assignment(ctx, 3, 2, cost, column), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(assignment_equals_scipy)
{
    static const char *const names[] = {"square", "wide"};
    atmsae_context *ctx = new_context(1);
    atmsae_tensors *file = open_solvers(ctx);
    for (int c = 0; c < 2; c++) {
        uint64_t n, m, rows, one;
        uint32_t column[64];
        float *cost = read_tensor(ctx, file, names[c], "cost", &n, &m);
        int32_t *want = read_tensor(ctx, file, names[c], "column", &rows, &one);
        ok(ctx, ams_assignment(ctx, n, m, cost, column));
        for (uint64_t i = 0; i < n; i++)
            ck_assert_int_eq((int)column[i], want[i]);
        free(cost), free(want);
    }
    atmsae_tensors_close(file);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- models ----------------------------------------------------------------------------------- */

/* A ReLU model without initial scales whose parameters the test sets. */
static atmsae_model *new_model(atmsae_context *ctx, uint64_t d_in, uint64_t d_out, uint64_t d_sae)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = d_in;
    config.d_out = d_out;
    config.d_sae = d_sae;
    config.activation = ATMSAE_RELU;
    config.input_norm = ATMSAE_INPUT_RAW;
    config.seed = 3;
    atmsae_model *model;
    ok(ctx, atmsae_model_create(ctx, &config, &model));
    return model;
}

static void set(atmsae_context *ctx, atmsae_model *model, int32_t parameter, const float *values)
{
    uint64_t count;
    ck_assert_ptr_nonnull(atmsae_model_view(model, parameter, &count));
    ok(ctx, atmsae_model_set(model, parameter, values, count));
}

/* ---- metrics ---------------------------------------------------------------------------------- */

enum { N = 1500, D_IN = 20, D_OUT = 12, F = 40 };

typedef struct metrics_case {
    atmsae_context *ctx;
    atmsae_model *model;
    bool transcoder;
    float *x, *y; /* [N, D_IN], [N, D_OUT] */
    uint64_t d_out;
} metrics_case;

static metrics_case new_case(uint32_t threads, bool transcoder)
{
    metrics_case c = {.ctx = new_context(threads), .transcoder = transcoder, .d_out = transcoder ? D_OUT : D_IN};
    c.model = new_model(c.ctx, D_IN, c.d_out, F);
    float *bias = zeros(F, sizeof *bias), *offset = zeros(D_IN, sizeof *offset);
    for (uint64_t i = 0; i < F; i++)
        bias[i] = i == 0 ? -100 : (float)(0.3 - 2 * uniform(2, i)); /* latent 0 is dead */
    for (uint64_t j = 0; j < D_IN; j++)
        offset[j] = (float)normal(3, j);
    set(c.ctx, c.model, ATMSAE_B_ENC, bias);
    set(c.ctx, c.model, ATMSAE_B_DEC, offset);
    set(c.ctx, c.model, ATMSAE_INPUT_SCALE, &(float){0.5f});
    if (transcoder) set(c.ctx, c.model, ATMSAE_OUTPUT_SCALE, &(float){2.5f});
    c.x = zeros(N * D_IN, sizeof *c.x);
    c.y = zeros(N * c.d_out, sizeof *c.y);
    for (uint64_t i = 0; i < N * D_IN; i++)
        c.x[i] = (float)(2 * normal(4, i) + 30);
    for (uint64_t i = 0; i < N * c.d_out; i++)
        c.y[i] = transcoder ? (float)normal(5, i) : c.x[i];
    if (!transcoder) { /* bring x~ near 0 */
        for (uint64_t j = 0; j < D_IN; j++)
            offset[j] += 15;
        set(c.ctx, c.model, ATMSAE_B_DEC, offset);
    } else
        for (uint64_t i = 0; i < N * D_IN; i++)
            c.x[i] -= 30;
    free(bias), free(offset);
    return c;
}

static void end_case(metrics_case *c)
{
    atmsae_model_destroy(c->model);
    atmsae_context_destroy(c->ctx);
    free(c->x), free(c->y);
}

static atmsae_batch rows_of(const metrics_case *c, uint64_t first, uint64_t count)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = count;
    batch.x = c->x + first * D_IN;
    if (c->transcoder) batch.y = c->y + first * c->d_out;
    return batch;
}

static atmsae_metrics_result result_of(const metrics_case *c, const atmsae_metrics *metrics)
{
    atmsae_metrics_result r = {.size = sizeof r};
    ok(c->ctx, atmsae_metrics_get(metrics, &r));
    return r;
}

/* The formulas of the header, row by row in double, from the parameters alone. */
static atmsae_metrics_result naive_metrics(const metrics_case *c, uint64_t *counts)
{
    const float *w_enc = atmsae_model_view(c->model, ATMSAE_W_ENC, NULL);
    const float *w_dec = atmsae_model_view(c->model, ATMSAE_W_DEC, NULL);
    const float *b_enc = atmsae_model_view(c->model, ATMSAE_B_ENC, NULL);
    const float *b_dec = atmsae_model_view(c->model, ATMSAE_B_DEC, NULL);
    double in = (double)*atmsae_model_view(c->model, ATMSAE_INPUT_SCALE, NULL);
    double out = (double)*atmsae_model_view(c->model, ATMSAE_OUTPUT_SCALE, NULL);
    double mean[D_IN] = {0}, error = 0, variance = 0, recon_size = 0, along = 0;
    atmsae_metrics_result r = {.size = sizeof r, .rows = N};
    for (uint64_t i = 0; i < N; i++)
        for (uint64_t j = 0; j < c->d_out; j++)
            mean[j] += (double)c->y[i * c->d_out + j] / N;
    for (uint64_t i = 0; i < N; i++) {
        double recon[D_IN] = {0}, yy = 0, rr = 0, yr = 0;
        for (uint64_t k = 0; k < F; k++) {
            double z = (double)b_enc[k];
            for (uint64_t j = 0; j < D_IN; j++) {
                double x = in * (double)c->x[i * D_IN + j] - (c->transcoder ? 0 : (double)b_dec[j]);
                z += (double)w_enc[k * D_IN + j] * x;
            }
            if (z <= 0) continue;
            counts[k]++;
            r.l0 += 1.0 / N;
            r.l1 += z / N;
            for (uint64_t j = 0; j < c->d_out; j++)
                recon[j] += z * (double)w_dec[k * c->d_out + j];
        }
        for (uint64_t j = 0; j < c->d_out; j++) {
            double y = (double)c->y[i * c->d_out + j], q = (recon[j] + (double)b_dec[j]) / out;
            error += (y - q) * (y - q);
            variance += (y - mean[j]) * (y - mean[j]);
            yy += y * y;
            rr += q * q;
            yr += y * q;
        }
        recon_size += rr;
        along += yr;
        r.cosine += yr / sqrt(yy * rr) / N;
    }
    r.mse = error / N;
    r.fvu = error / variance;
    r.bias = recon_size / along;
    for (uint64_t k = 0; k < F; k++) {
        r.dead += counts[k] == 0;
        r.dense += (double)counts[k] > 0.1 * N;
    }
    return r;
}

START_TEST(metrics_equal_a_naive_computation)
{
    metrics_case c = new_case(2, _i == 1);
    atmsae_metrics *metrics;
    ok(c.ctx, atmsae_metrics_create(c.model, &metrics));
    atmsae_batch all = rows_of(&c, 0, N);
    ok(c.ctx, atmsae_metrics_add(metrics, &all));
    uint64_t counts[F] = {0};
    atmsae_metrics_result got = result_of(&c, metrics), want = naive_metrics(&c, counts);
    ck_assert_uint_eq(got.rows, N);
    near("mse", got.mse, want.mse, 1e-5 * want.mse);
    near("fvu", got.fvu, want.fvu, 1e-5 * want.fvu);
    near("cosine", got.cosine, want.cosine, 1e-6);
    near("l0", got.l0, want.l0, 1e-12 * want.l0);
    near("l1", got.l1, want.l1, 1e-5 * want.l1);
    near("bias", got.bias, want.bias, 1e-5 * fabs(want.bias));
    ck_assert_uint_eq(got.dead, want.dead);
    ck_assert_uint_eq(got.dense, want.dense);
    ck_assert_uint_ge(want.dead, 1);
    ck_assert(want.dense > 0 && want.dense < F - want.dead);
    ck_assert_mem_eq(atmsae_metrics_counts(metrics), counts, sizeof counts);
    atmsae_metrics_destroy(metrics);
    end_case(&c);
}
END_TEST

START_TEST(metrics_do_not_depend_on_threads_or_cuts)
{
    metrics_case one = new_case(1, false), two = new_case(3, false);
    atmsae_metrics *whole, *pieces;
    ok(one.ctx, atmsae_metrics_create(one.model, &whole));
    ok(two.ctx, atmsae_metrics_create(two.model, &pieces));
    atmsae_batch all = rows_of(&one, 0, N);
    ok(one.ctx, atmsae_metrics_add(whole, &all));
    for (uint64_t first = 0, count; first < N; first += count) {
        count = ams_min(1 + first / 3, N - first);
        atmsae_batch piece = rows_of(&two, first, count);
        ok(two.ctx, atmsae_metrics_add(pieces, &piece));
    }
    atmsae_metrics_result a = result_of(&one, whole), b = result_of(&two, pieces);
    ck_assert_mem_eq(&a, &b, sizeof a);
    atmsae_metrics_destroy(whole);
    atmsae_metrics_destroy(pieces);
    end_case(&one);
    end_case(&two);
}
END_TEST

START_TEST(metrics_take_strides_types_and_weights)
{
    /* Rows of weight 0 may even hold NaN; a failing batch leaves no trace. */
    metrics_case c = new_case(1, false);
    atmsae_metrics *plain, *strided;
    ok(c.ctx, atmsae_metrics_create(c.model, &plain));
    ok(c.ctx, atmsae_metrics_create(c.model, &strided));
    enum { LD = D_IN + 3 };
    uint16_t *half = zeros(N * LD, sizeof *half);
    float *weights = zeros(N, sizeof *weights), *kept = zeros(N * D_IN, sizeof *kept);
    uint64_t n_kept = 0;
    for (uint64_t i = 0; i < N; i++) {
        weights[i] = i % 7 != 3;
        for (uint64_t j = 0; j < D_IN; j++) {
            uint32_t bits;
            memcpy(&bits, c.x + i * D_IN + j, sizeof bits);
            half[i * LD + j] = weights[i] == 0 ? 0x7fc0 : (uint16_t)(bits >> 16);
            bits &= 0xffff0000u;
            if (weights[i] > 0) memcpy(kept + n_kept * D_IN + j, &bits, sizeof bits);
        }
        n_kept += weights[i] > 0;
    }
    atmsae_batch a = rows_of(&c, 0, n_kept), b = rows_of(&c, 0, N);
    a.x = kept;
    b.x = half;
    b.ld_x = LD;
    b.x_type = ATMSAE_BF16;
    b.row_weights = weights;
    ok(c.ctx, atmsae_metrics_add(plain, &a));
    ok(c.ctx, atmsae_metrics_add(strided, &b));

    weights[N - 4] = 1; /* now the NaN in the last chunk counts */
    uint64_t bad = 3;
    while (bad + 7 < N) bad += 7;
    weights[bad] = 1;
    ck_assert_int_eq(atmsae_metrics_add(strided, &b), ATMSAE_E_NONFINITE);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(c.ctx), "row "));
    weights[0] = -1;
    ck_assert_int_eq(atmsae_metrics_add(strided, &b), ATMSAE_E_ARG);
    b.ld_x = D_IN - 1;
    ck_assert_int_eq(atmsae_metrics_add(strided, &b), ATMSAE_E_ARG);
    b.x = NULL;
    ck_assert_int_eq(atmsae_metrics_add(strided, &b), ATMSAE_E_ARG);

    atmsae_metrics_result p = result_of(&c, plain), q = result_of(&c, strided);
    ck_assert_uint_eq(p.rows, n_kept);
    ck_assert_mem_eq(&p, &q, sizeof p);
    ck_assert_mem_eq(atmsae_metrics_counts(plain), atmsae_metrics_counts(strided), F * sizeof(uint64_t));
    atmsae_metrics_destroy(plain);
    atmsae_metrics_destroy(strided);
    free(half), free(weights), free(kept);
    end_case(&c);
}
END_TEST

START_TEST(metrics_without_variance_or_rows)
{
    metrics_case c = new_case(1, false);
    atmsae_metrics *metrics;
    ok(c.ctx, atmsae_metrics_create(c.model, &metrics));
    atmsae_metrics_result r = result_of(&c, metrics);
    ck_assert_uint_eq(r.rows, 0);
    ck_assert(isnan(r.mse) && isnan(r.fvu) && isnan(r.cosine) && isnan(r.l0) && isnan(r.bias));
    ck_assert_uint_eq(r.dead, F);
    for (uint64_t i = 1; i < N; i++)
        memcpy(c.x + i * D_IN, c.x, D_IN * sizeof *c.x);
    atmsae_batch all = rows_of(&c, 0, N);
    ok(c.ctx, atmsae_metrics_add(metrics, &all));
    r = result_of(&c, metrics);
    ck_assert(isnan(r.fvu) && r.mse > 0);
    memset(c.x, 0, D_IN * sizeof *c.x); /* a zero row has no cosine */
    double before = r.cosine;
    atmsae_batch first = rows_of(&c, 0, 1);
    ok(c.ctx, atmsae_metrics_add(metrics, &first));
    r = result_of(&c, metrics);
    near("cosine", r.cosine, before, 0);
    ck_assert_uint_eq(r.rows, N + 1);
    atmsae_metrics_destroy(metrics);
    atmsae_metrics_destroy(NULL);
    end_case(&c);
}
END_TEST

/* ---- absorption ------------------------------------------------------------------------------- */

START_TEST(absorption_rule_golden_rows)
{
    static const struct {
        float a[5];
        double cosine[5];
        uint64_t n, n_split;
        double projection;
        double v060, v032;
        bool full;
    } rows[] = {
        {{0, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, 1, 1, true},
        {{2, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, .609756, .609756, false},
        {{7, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, 0, 0, false},
        {{2, 1, 1, 1}, {.8, .05, .05, .05}, 4, 1, 5, 0, .085714, false},
        {{1, 2, 2, 2, 2}, {.5, .4, .4, .4, .4}, 5, 1, 4, .827586, .864865, false},
        {{0, 3, 0, 10}, {.8, .5, .1, -.2}, 4, 1, 4, 0, 0, false},
        {{0, 3, 0, 0}, {.8, .02, .1, -.2}, 4, 1, .1, 0, 1, false},
        {{1, 5, 0, 0}, {-.8, .5, .1, -.2}, 4, 1, 3, 1, 1, false},
        {{0, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, -1, 0, 0, false},
        /* A = 0 and NaN; no latent fires; a zero decoder row (cos 0); S empty; two split latents */
        {{0, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 0, 0, 0, false},
        {{0, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, NAN, 0, 0, false},
        {{0, 0, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, 0, 0, false},
        {{0, 5, 0, 0}, {.8, 0, .1, -.2}, 4, 1, 5, 0, 0, false},
        {{4, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 0, 5, 1, 1, true},
        {{0, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 2, 5, 0, 0, false},
        {{1e-9f, 5, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, 1, 1, true},
        /* fewer than three absorbers; absorbers that exceed what the split latents leave */
        {{1, 3, 3, 0}, {.8, .5, .5, -.2}, 4, 1, 5, .789474, .789474, false},
        {{3, 9, 0, 0}, {.8, .5, .1, -.2}, 4, 1, 5, .52, .652174, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        static const uint32_t split[] = {0, 1};
        uint32_t latent[5];
        float value[5];
        uint64_t count = 0; /* sparse, as the library holds rows */
        for (uint32_t j = 0; j < rows[i].n; j++) {
            if (rows[i].a[j] == 0) continue;
            latent[count] = j;
            value[count++] = rows[i].a[j];
        }
        ams_absorption_row row = {count, latent, value, rows[i].cosine, split, rows[i].n_split, rows[i].projection};
        ck_assert_msg(ams_absorbed_fully(&row) == rows[i].full, "golden row %zu", i);
        near("fraction 0.6.0", ams_absorbed_fraction_v060(&row), rows[i].v060, 1e-6);
        near("fraction 0.3.2", ams_absorbed_fraction_v032(&row), rows[i].v032, 1e-6);
    }
}
END_TEST

/* Words: class c is direction c; a third direction tells which of ten rare tokens a word is. Class 0
 * alone has rare tokens, each on 2 % of its words. */
enum { CLASSES = 4, TOKENS = 10, OTHERS = 6, WORD_D = CLASSES + TOKENS + OTHERS, WORDS = 4000 };

typedef struct words {
    float *x;
    int32_t *label;
    uint8_t *is_train;
    int *token; /* -1: none */
} words;

static words new_words(void)
{
    words w = {zeros(WORDS * WORD_D, sizeof *w.x), zeros(WORDS, sizeof *w.label), zeros(WORDS, 1),
               zeros(WORDS, sizeof *w.token)};
    for (uint64_t i = 0; i < WORDS; i++) {
        float *x = w.x + i * WORD_D;
        w.label[i] = (int32_t)(i % CLASSES);
        w.is_train[i] = uniform(10, i) < 0.6;
        double u = 50 * uniform(11, i);
        w.token[i] = w.label[i] == 0 && u < TOKENS ? (int)u : -1;
        for (uint64_t j = 0; j < WORD_D; j++)
            x[j] = (float)(0.01 * normal(12, i * WORD_D + j) + 0.1 * (double)(j % 3));
        x[w.label[i]] += 1;
        if (w.token[i] >= 0) x[CLASSES + w.token[i]] += 1;
        for (uint64_t j = CLASSES + TOKENS; j < WORD_D; j++)
            if (uniform(13, i * WORD_D + j) < 0.2) x[j] += 1;
    }
    return w;
}

static void free_words(words *w)
{
    free(w->x), free(w->label), free(w->is_train), free(w->token);
}

static atmsae_absorption *new_absorption(atmsae_context *ctx, const words *w)
{
    atmsae_absorption_config config;
    atmsae_absorption_config_init(&config, sizeof config);
    config.n_classes = CLASSES;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = WORDS;
    batch.x = w->x;
    atmsae_absorption *a;
    ok(ctx, atmsae_absorption_create(ctx, &config, &batch, WORD_D, w->label, w->is_train, &a));
    return a;
}

/* One latent a direction; if `absorbing`, a rare token's latent also stands for class 0, whose own
 * latent then keeps silent. Latent 0's encoder and decoder are stretched by `stretch`. */
static atmsae_model *word_model(atmsae_context *ctx, bool absorbing, float stretch, float scale)
{
    atmsae_model *model = new_model(ctx, WORD_D, 0, WORD_D);
    float *enc = zeros(WORD_D * WORD_D, sizeof *enc), *dec = zeros(WORD_D * WORD_D, sizeof *dec);
    float *b_enc = zeros(WORD_D, sizeof *b_enc), *b_dec = zeros(WORD_D, sizeof *b_dec);
    for (uint64_t i = 0; i < WORD_D; i++) {
        enc[i * WORD_D + i] = dec[i * WORD_D + i] = 1;
        b_enc[i] = -0.3f;
        b_dec[i] = scale * 0.1f * (float)(i % 3);
    }
    for (uint64_t t = CLASSES; absorbing && t < CLASSES + TOKENS; t++) {
        enc[t] = -3;
        dec[t * WORD_D] = dec[t * WORD_D + t] = 0.70710678f;
        enc[t * WORD_D + t] = 1.4142136f;
    }
    for (uint64_t i = 0; i < WORD_D; i++) {
        for (uint64_t j = 0; j < WORD_D; j++) {
            enc[i * WORD_D + j] *= stretch / scale;
            dec[i * WORD_D + j] *= scale / stretch;
        }
        b_enc[i] *= stretch;
    }
    set(ctx, model, ATMSAE_W_ENC, enc);
    set(ctx, model, ATMSAE_W_DEC, dec);
    set(ctx, model, ATMSAE_B_ENC, b_enc);
    set(ctx, model, ATMSAE_B_DEC, b_dec);
    set(ctx, model, ATMSAE_INPUT_SCALE, &scale);
    free(enc), free(dec), free(b_enc), free(b_dec);
    return model;
}

static atmsae_absorption_result score(atmsae_context *ctx, const atmsae_absorption *a, const atmsae_model *model,
                                      atmsae_absorption_class *classes)
{
    atmsae_absorption_result r = {.size = sizeof r};
    ok(ctx, atmsae_absorption_score(a, model, &r, classes));
    return r;
}

static atmsae_absorption_measures measure(atmsae_context *ctx, const atmsae_absorption *a, const atmsae_model *model,
                                          atmsae_absorption_entry *classes, uint8_t *rows)
{
    atmsae_absorption_measures r = {.size = sizeof r};
    classes[0].size = sizeof *classes;
    ok(ctx, atmsae_absorption_measure(a, model, &r, classes, rows));
    return r;
}

START_TEST(absorption_of_an_oracle_is_zero)
{
    atmsae_context *ctx = new_context(2);
    words w = new_words();
    atmsae_absorption *a = new_absorption(ctx, &w);
    atmsae_model *model = word_model(ctx, false, 1, 1);
    atmsae_absorption_class classes[CLASSES];
    atmsae_absorption_result r = score(ctx, a, model, classes);
    ck_assert_uint_eq(r.classes, CLASSES);
    near("full_rate", r.full_rate, 0, 0);
    near("recall", r.recall, 1, 0);
    near("sparse_f1", r.sparse_f1, 1, 1e-12);
    near("probe_f1", r.probe_f1, 1, 1e-12);
    near("mean_split", r.mean_split, 1, 0);
    uint64_t test_rows = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        test_rows += !w.is_train[i];
    ck_assert_uint_eq(r.true_positives, test_rows);
    for (uint64_t c = 0; c < CLASSES; c++)
        ck_assert_uint_eq(classes[c].main_latent, c);
    atmsae_absorption_entry entries[CLASSES];
    atmsae_absorption_measures m = measure(ctx, a, model, entries, NULL);
    near("full_rate", m.full_rate, 0, 0);
    near("fraction 0.6.0", m.fraction_v060, 0, 0);
    ck_assert_double_lt(m.fraction_v032, 0.2); /* it counts every latent that points a little that way */
    near("main_recall", m.main_recall, 1, 0);
    near("main_precision", m.main_precision, 1, 0);
    near("split_f1", m.split_f1, 1, 1e-12);
    near("sd", m.full_rate_sd, 0, 0);
    atmsae_model_destroy(model);
    atmsae_absorption_destroy(a);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

/* The other forms, on a model in which the words of class 0 with a rare token are absorbed. */
static void check_entries(atmsae_context *ctx, const words *w, const atmsae_absorption *a, const atmsae_model *model,
                          uint64_t absorbed, uint64_t of_class)
{
    atmsae_absorption_entry e[CLASSES];
    uint8_t *rows = zeros(WORDS, 1);
    atmsae_absorption_measures m = measure(ctx, a, model, e, rows);
    double rate = (double)absorbed / (double)of_class;
    for (uint64_t i = 0; i < WORDS; i++) {
        int want = w->is_train[i] ? ATMSAE_ROW_NOT_COUNTED : w->token[i] >= 0 ? ATMSAE_ROW_ABSORBED : ATMSAE_ROW_KEPT;
        ck_assert_msg(rows[i] == want, "row %d is %d, expected %d", (int)i, rows[i], want);
    }
    ck_assert_uint_eq(e[0].absorbed, absorbed);
    ck_assert_uint_eq(m.absorbed, absorbed);
    near("fraction 0.6.0", e[0].fraction_v060, rate, 1e-12); /* all of it, where it is absorbed */
    ck_assert_double_ge(e[0].fraction_v032, rate);
    near("main recall", e[0].main_recall, 1 - rate, 1e-12);
    near("split recall", e[0].split_recall, 1 - rate, 1e-12);
    ck_assert_double_gt(e[0].main_precision, 0.99); /* noise may reach it */
    near("mean", m.full_rate, rate / CLASSES, 1e-12);
    near("sd", m.full_rate_sd, rate / 2, 1e-12); /* of rate, 0, 0, 0 */
    ck_assert_uint_eq(e[0].split[0], 0);
    free(rows);
}

START_TEST(absorption_finds_what_was_built_in)
{
    /* Every test word with a rare token is absorbed, whatever the decoder's norms, the model's scale
     * or the number of threads; a second run gives the same bits. */
    words w = new_words();
    uint64_t absorbed = 0, of_class = 0;
    for (uint64_t i = 0; i < WORDS; i++) {
        absorbed += !w.is_train[i] && w.token[i] >= 0;
        of_class += !w.is_train[i] && w.label[i] == 0;
    }
    ck_assert_uint_ge(absorbed, 40);
    static const struct {
        uint32_t threads;
        float stretch, scale;
    } runs[] = {{1, 1, 1}, {3, 1, 1}, {1, 0.25f, 1}, {1, 1, 0.25f}};
    atmsae_absorption_class first[CLASSES], now[CLASSES];
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        atmsae_context *ctx = new_context(runs[i].threads);
        atmsae_absorption *a = new_absorption(ctx, &w);
        atmsae_model *model = word_model(ctx, true, runs[i].stretch, runs[i].scale);
        atmsae_absorption_result r = score(ctx, a, model, now);
        ck_assert_uint_eq(now[0].absorbed, absorbed);
        ck_assert_uint_eq(now[0].true_positives, of_class);
        ck_assert_uint_eq(now[0].n_split, 1);
        ck_assert_uint_eq(now[0].main_latent, 0);
        near("recall", now[0].recall, 1 - (double)absorbed / (double)of_class, 1e-12);
        near("sparse_f1", now[0].sparse_f1,
             2 * (double)(of_class - absorbed) / (double)(2 * of_class - absorbed), 1e-12);
        near("full_rate", r.full_rate, (double)absorbed / (double)of_class / CLASSES, 1e-12);
        if (i == 0) memcpy(first, now, sizeof now);
        ck_assert_mem_eq(first, now, sizeof now);
        check_entries(ctx, &w, a, model, absorbed, of_class);
        score(ctx, a, model, now);
        ck_assert_mem_eq(first, now, sizeof now);
        atmsae_model_destroy(model);
        atmsae_absorption_destroy(a);
        atmsae_context_destroy(ctx);
    }
    free_words(&w);
}
END_TEST

START_TEST(absorption_in_other_units_is_the_same)
{
    /* Random latents: each class's best ones are hard to tell apart, so the penalties matter. */
    words w = new_words();
    atmsae_context *ctx = new_context(1);
    atmsae_model *model = new_model(ctx, WORD_D, 0, 60);
    atmsae_absorption_class small[CLASSES], large[CLASSES];
    atmsae_absorption *a = new_absorption(ctx, &w);
    score(ctx, a, model, small);
    for (uint64_t i = 0; i < WORDS * WORD_D; i++)
        w.x[i] *= 4096;
    atmsae_absorption *b = new_absorption(ctx, &w);
    set(ctx, model, ATMSAE_INPUT_SCALE, &(float){1.0f / 4096});
    score(ctx, b, model, large);
    ck_assert_mem_eq(small, large, sizeof small);
    for (uint64_t j = 0; j < WORD_D; j++)
        near("probe", 4096 * b->probe[j], a->probe[j], 1e-6 * fabs(a->probe[j]) + 1e-9);
    atmsae_model_destroy(model);
    atmsae_absorption_destroy(a);
    atmsae_absorption_destroy(b);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(absorption_controls)
{
    atmsae_context *ctx = new_context(1);
    words w = new_words();
    atmsae_absorption *a = new_absorption(ctx, &w);
    atmsae_absorption_class classes[CLASSES];

    /* A dead SAE absorbs nothing and finds nothing: the other columns show it. */
    atmsae_model *dead = word_model(ctx, false, 1, 1);
    float silent[WORD_D];
    for (int i = 0; i < WORD_D; i++)
        silent[i] = -100;
    set(ctx, dead, ATMSAE_B_ENC, silent);
    atmsae_absorption_result r = score(ctx, a, dead, classes);
    ck_assert_uint_eq(r.classes, CLASSES);
    near("full_rate", r.full_rate, 0, 0);
    near("recall", r.recall, 0, 0);
    near("sparse_f1", r.sparse_f1, 0, 0);
    near("mean_split", r.mean_split, 1, 0);

    /* Turning the decoder's rows leaves the split as it is, but no latent points right. */
    atmsae_model *turned_model = word_model(ctx, true, 1, 1);
    float turned[WORD_D * WORD_D];
    const float *dec = atmsae_model_view(turned_model, ATMSAE_W_DEC, NULL);
    for (uint64_t i = 0; i < WORD_D; i++)
        for (uint64_t j = 0; j < WORD_D; j++)
            turned[i * WORD_D + j] = dec[i * WORD_D + (j + 3) % WORD_D];
    memset(turned + 5 * WORD_D, 0, WORD_D * sizeof *turned); /* a zero row */
    set(ctx, turned_model, ATMSAE_W_DEC, turned);
    r = score(ctx, a, turned_model, classes);
    ck_assert_double_lt(classes[0].full_rate, 0.02);

    /* Labels without meaning: no class passes its probe. */
    for (uint64_t i = 0; i < WORDS; i++)
        w.label[i] = (int32_t)(CLASSES * uniform(14, i));
    atmsae_absorption *shuffled = new_absorption(ctx, &w);
    r = score(ctx, shuffled, dead, classes);
    ck_assert_uint_eq(r.classes, 0);
    ck_assert_uint_eq(r.true_positives, 0);
    ck_assert(isnan(r.full_rate) && isnan(r.recall) && isnan(r.sparse_f1) && isnan(r.probe_f1));
    ck_assert(!classes[0].used && classes[0].probe_f1 < 0.6);

    atmsae_absorption_destroy(shuffled);
    atmsae_model_destroy(dead);
    atmsae_model_destroy(turned_model);
    atmsae_absorption_destroy(a);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(absorption_bears_rogue_values)
{
    /* One dimension 100 times or 1000 times the others, or one row of 1e5: every class counts, and the words that were
     * absorbed still are. The large dimension or row is one that no latent reads. */
    static const struct {
        float dimension, row;
    } rogue[] = {{100, 1}, {1000, 1}, {1, 1e5f}};
    atmsae_context *ctx = new_context(2);
    words w = new_words();
    uint64_t first = 0, absorbed = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        absorbed += !w.is_train[i] && w.token[i] >= 0;
    while (!w.is_train[first])
        first++;
    float *as_it_was = zeros(WORDS * WORD_D, sizeof *as_it_was);
    memcpy(as_it_was, w.x, WORDS * WORD_D * sizeof *as_it_was);
    for (size_t k = 0; k < sizeof rogue / sizeof *rogue; k++) {
        memcpy(w.x, as_it_was, WORDS * WORD_D * sizeof *as_it_was);
        for (uint64_t i = 0; i < WORDS; i++)
            w.x[i * WORD_D + WORD_D - 1] *= rogue[k].dimension;
        w.x[first * WORD_D + WORD_D - 1] = rogue[k].row > 1 ? rogue[k].row : w.x[first * WORD_D + WORD_D - 1];
        atmsae_absorption *a = new_absorption(ctx, &w);
        atmsae_model *model = word_model(ctx, true, 1, 1);
        atmsae_absorption_class classes[CLASSES];
        atmsae_absorption_result r = score(ctx, a, model, classes);
        ck_assert_uint_eq(r.classes, CLASSES);
        near("probe_f1", r.probe_f1, 1, 1e-12);
        ck_assert_uint_eq(classes[0].absorbed, absorbed);
        ck_assert(a->unit > 0.1 && a->unit < 2);
        atmsae_model_destroy(model);
        atmsae_absorption_destroy(a);
    }
    free(as_it_was);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(absorption_leaves_out_classes_without_words)
{
    /* Class 1 has no training words and class 2 no test words: the others' results stay; rows that are all the
     * same give no class at all, and no failure. */
    atmsae_context *ctx = new_context(1);
    words w = new_words();
    atmsae_model *model = word_model(ctx, true, 1, 1);
    for (uint64_t i = 0; i < WORDS; i++)
        w.is_train[i] = w.label[i] == 1 ? 0 : w.label[i] == 2 ? 1 : w.is_train[i];
    atmsae_absorption_entry e[CLASSES];
    atmsae_absorption *a = new_absorption(ctx, &w);
    atmsae_absorption_measures m = measure(ctx, a, model, e, NULL);
    ck_assert_uint_eq(m.classes, CLASSES - 2);
    for (int c = 0; c < CLASSES; c++) {
        ck_assert_int_eq(e[c].used, c != 1 && c != 2);
        ck_assert_uint_eq(e[c].train_rows + e[c].test_rows, WORDS / CLASSES);
    }
    ck_assert_uint_eq(e[1].train_rows, 0);
    ck_assert_uint_eq(e[2].test_rows, 0);
    ck_assert_double_gt(e[0].full_rate, 0.1);
    atmsae_absorption_destroy(a);
    memset(w.is_train, 1, WORDS); /* no test words at all */
    a = new_absorption(ctx, &w);
    ck_assert_uint_eq(measure(ctx, a, model, e, NULL).classes, 0);
    atmsae_absorption_destroy(a);
    memset(w.is_train, 0, WORDS);
    a = new_absorption(ctx, &w);
    ck_assert_uint_eq(measure(ctx, a, model, e, NULL).classes, 0);
    atmsae_absorption_destroy(a);
    for (uint64_t i = 0; i < WORDS; i++) {
        w.is_train[i] = i % 3 != 0;
        memcpy(w.x + i * WORD_D, w.x, WORD_D * sizeof *w.x);
    }
    a = new_absorption(ctx, &w);
    m = measure(ctx, a, model, e, NULL);
    ck_assert(m.classes == 0 && isnan(m.full_rate));
    atmsae_absorption_destroy(a);
    atmsae_model_destroy(model);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(absorption_rejects_bad_input)
{
    atmsae_context *ctx = new_context(1);
    words w = new_words();
    atmsae_absorption_config good, config;
    atmsae_absorption_config_init(&good, sizeof good);
    good.n_classes = CLASSES;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = WORDS;
    batch.x = w.x;
    atmsae_absorption *a;
#define REFUSED(status, word)                                                                                 \
    do {                                                                                                      \
        a = (atmsae_absorption *)&config;                                                                     \
        ck_assert_int_eq(atmsae_absorption_create(ctx, &config, &batch, WORD_D, w.label, w.is_train, &a), status); \
        ck_assert_ptr_null(a);                                                                                \
        ck_assert_msg(strstr(atmsae_last_error(ctx), word) != NULL, "%s", atmsae_last_error(ctx));            \
        config = good;                                                                                        \
    } while (0)
    config = good, config.n_classes = 0;
    REFUSED(ATMSAE_E_ARG, "n_classes = 0");
    config.min_probe_f1 = NAN;
    REFUSED(ATMSAE_E_ARG, "min_probe_f1");
    config.min_f1_gain = -0.1;
    REFUSED(ATMSAE_E_ARG, "min_f1_gain = -0.1");
    config.max_split = 0;
    REFUSED(ATMSAE_E_ARG, "max_split = 0");
    config.max_split = AMS_MAX_SPLIT + 1;
    REFUSED(ATMSAE_E_ARG, "max_split");
    config.n_classes = CLASSES - 1;
    REFUSED(ATMSAE_E_ARG, "labels[3] = 3");
    config.size = 8;
    REFUSED(ATMSAE_E_ABI, "size = 8");
    w.is_train[7] = 2;
    REFUSED(ATMSAE_E_ARG, "is_train[7] = 2");
    w.is_train[7] = 1;
    float was = w.x[9 * WORD_D];
    w.x[9 * WORD_D] = NAN;
    REFUSED(ATMSAE_E_NONFINITE, "row 9");
    w.x[9 * WORD_D] = was;
    batch.n_rows = 0;
    REFUSED(ATMSAE_E_ARG, "no rows");
    batch.n_rows = WORDS;

    a = new_absorption(ctx, &w);
    atmsae_model *other = new_model(ctx, WORD_D + 1, 0, 8);
    atmsae_absorption_result r = {.size = sizeof r};
    ck_assert_int_eq(atmsae_absorption_score(a, other, &r, NULL), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "d = 20"));
    atmsae_model_destroy(other);
    other = word_model(ctx, false, 1, 1);
    ck_assert_int_eq(atmsae_absorption_score(a, other, NULL, NULL), ATMSAE_E_ARG);
    atmsae_model_destroy(other);
    atmsae_absorption_destroy(a);
    free_words(&w);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- synthetic truth -------------------------------------------------------------------------- */

enum { SYNTH_D = 1024, PARENTS = 4, CHILDREN = 3, LONE = 6, FEATURES = PARENTS * (1 + CHILDREN) + LONE, ROWS = 3000 };

static atmsae_synth *new_synth(atmsae_context *ctx)
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    config.d = SYNTH_D;
    config.n_parents = PARENTS;
    config.n_children = CHILDREN;
    config.n_independent = LONE;
    config.magnitude_sd = 0.05;
    atmsae_synth *synth;
    ok(ctx, atmsae_synth_create(ctx, &config, &synth));
    return synth;
}

/* One latent a feature, in reverse order, after `blank` latents with zero rows. `suppress`: a child
 * silences its parent's latent. */
static atmsae_model *oracle(atmsae_context *ctx, const atmsae_synth *synth, uint64_t blank, float suppress)
{
    uint64_t d_sae = blank + FEATURES;
    atmsae_model *model = new_model(ctx, SYNTH_D, 0, d_sae);
    const float *direction = atmsae_synth_directions(synth);
    float *enc = zeros(d_sae * SYNTH_D, sizeof *enc), *dec = zeros(d_sae * SYNTH_D, sizeof *dec);
    float *b_enc = zeros(d_sae, sizeof *b_enc);
    for (uint64_t k = 0; k < FEATURES; k++) {
        uint64_t i = blank + FEATURES - 1 - k;
        b_enc[i] = -0.5f;
        memcpy(enc + i * SYNTH_D, direction + k * SYNTH_D, SYNTH_D * sizeof *enc);
        for (uint64_t j = 0; j < SYNTH_D; j++)
            dec[i * SYNTH_D + j] = -2 * direction[k * SYNTH_D + j]; /* any norm and sign will do */
        for (uint64_t q = 0; k < PARENTS && q < CHILDREN; q++)
            for (uint64_t j = 0; j < SYNTH_D; j++)
                enc[i * SYNTH_D + j] -= suppress * direction[(PARENTS + k * CHILDREN + q) * SYNTH_D + j];
    }
    set(ctx, model, ATMSAE_W_ENC, enc);
    set(ctx, model, ATMSAE_W_DEC, dec);
    set(ctx, model, ATMSAE_B_ENC, b_enc);
    free(enc), free(dec), free(b_enc);
    return model;
}

static atmsae_synth_result synth_score(atmsae_context *ctx, const atmsae_synth *synth, const atmsae_model *model)
{
    atmsae_synth_result r = {.size = sizeof r};
    ok(ctx, atmsae_synth_score(synth, model, 500, ROWS, &r));
    return r;
}

START_TEST(synth_oracle_is_perfect)
{
    atmsae_context *ctx = new_context(2);
    atmsae_synth *synth = new_synth(ctx);
    for (uint64_t blank = 0; blank <= 9; blank += 9) {
        atmsae_model *model = oracle(ctx, synth, blank, 0);
        atmsae_synth_result r = synth_score(ctx, synth, model);
        near("missed", r.missed, 0, 0);
        near("missed, child on", r.missed_child_on, 0, 0);
        near("missed, child off", r.missed_child_off, 0, 0);
        near("recall", r.parent_recall, 1, 1e-12);
        near("precision", r.parent_precision, 1, 1e-12);
        near("F1", r.parent_f1, 1, 1e-12);
        near("MCC", r.mcc, 1, 1e-6);
        atmsae_model_destroy(model);
    }
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(synth_absorption_is_seen_where_it_is)
{
    atmsae_context *ctx = new_context(1), *many = new_context(3);
    atmsae_synth *synth = new_synth(ctx), *synth_many = new_synth(many);
    atmsae_model *model = oracle(ctx, synth, 2, 1), *model_many = oracle(many, synth_many, 2, 1);
    atmsae_synth_result r = synth_score(ctx, synth, model), again = synth_score(ctx, synth, model);
    atmsae_synth_result threads = synth_score(many, synth_many, model_many);
    ck_assert_mem_eq(&r, &again, sizeof r);
    ck_assert_mem_eq(&r, &threads, sizeof r);
    near("missed, child on", r.missed_child_on, 1, 0);
    near("missed, child off", r.missed_child_off, 0, 0);
    near("MCC", r.mcc, 1, 1e-6);

    float *x = zeros(ROWS * SYNTH_D, sizeof *x);
    uint8_t *active = zeros(ROWS * FEATURES, 1);
    ok(ctx, atmsae_synth_rows(synth, 500, ROWS, x, active));
    double total = 0, parents = 0, with_child = 0, recall = 0;
    for (uint64_t p = 0; p < PARENTS; p++) {
        double on = 0, alone = 0;
        for (uint64_t i = 0; i < ROWS; i++) {
            const uint8_t *a = active + i * FEATURES, *child = a + PARENTS + p * CHILDREN;
            on += a[p];
            alone += a[p] && !(child[0] | child[1] | child[2]);
        }
        parents += on;
        with_child += on - alone;
        recall += alone / on / PARENTS;
    }
    for (uint64_t i = 0; i < ROWS * FEATURES; i++)
        total += active[i];
    near("true L0", r.true_l0, total / ROWS, 1e-12);
    near("missed", r.missed, with_child / parents, 1e-12);
    near("recall", r.parent_recall, recall, 1e-12);
    ck_assert_double_gt(r.parent_precision, 0.97);
    free(x), free(active);
    atmsae_model_destroy(model);
    atmsae_model_destroy(model_many);
    atmsae_synth_destroy(synth);
    atmsae_synth_destroy(synth_many);
    atmsae_context_destroy(ctx);
    atmsae_context_destroy(many);
}
END_TEST

START_TEST(synth_random_and_blank_decoders_are_poor)
{
    atmsae_context *ctx = new_context(1);
    atmsae_synth *synth = new_synth(ctx);
    atmsae_model *random = new_model(ctx, SYNTH_D, 0, 10); /* fewer latents than features */
    atmsae_synth_result r = synth_score(ctx, synth, random);
    ck_assert(r.mcc > 0 && r.mcc < 0.3);
    ck_assert_double_lt(r.parent_f1, 0.4);
    float *zero = zeros(10 * SYNTH_D, sizeof *zero);
    set(ctx, random, ATMSAE_W_DEC, zero);
    set(ctx, random, ATMSAE_W_ENC, zero);
    r = synth_score(ctx, synth, random);
    near("MCC", r.mcc, 0, 0);
    near("missed", r.missed, 1, 0);
    near("F1", r.parent_f1, 0, 0);
    ck_assert_int_eq(atmsae_synth_score(synth, random, 0, 0, &r), ATMSAE_E_ARG);
    atmsae_model *other = new_model(ctx, 8, 0, 10);
    ck_assert_int_eq(atmsae_synth_score(synth, other, 0, 10, &r), ATMSAE_E_ARG);
    atmsae_model_destroy(other);
    atmsae_model_destroy(random);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(zero);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval");
    const struct {
        const char *name;
        const TTest *test;
        int runs;
    } tests[] = {
        {"logistic", logistic_finds_the_optimum_of_scikit_learn, 5},
        {"logistic", logistic_counts_rows_as_often_as_it_is_told, 1},
        {"logistic", logistic_fits_classes_in_groups, 1},
        {"logistic", logistic_survives_hard_data, 1},
        {"lasso", lasso_finds_the_optimum_of_scikit_learn, 1},
        {"lasso", ranks_break_ties_by_pull_then_index, 1},
        {"assignment", assignment_equals_brute_force, 1},
        {"assignment", assignment_equals_scipy, 1},
        {"metrics", metrics_equal_a_naive_computation, 2},
        {"metrics", metrics_do_not_depend_on_threads_or_cuts, 1},
        {"metrics", metrics_take_strides_types_and_weights, 1},
        {"metrics", metrics_without_variance_or_rows, 1},
        {"absorption", absorption_rule_golden_rows, 1},
        {"absorption", absorption_of_an_oracle_is_zero, 1},
        {"absorption", absorption_finds_what_was_built_in, 1},
        {"absorption", absorption_in_other_units_is_the_same, 1},
        {"absorption", absorption_controls, 1},
        {"absorption", absorption_bears_rogue_values, 1},
        {"absorption", absorption_leaves_out_classes_without_words, 1},
        {"absorption", absorption_rejects_bad_input, 1},
        {"synth", synth_oracle_is_perfect, 1},
        {"synth", synth_absorption_is_seen_where_it_is, 1},
        {"synth", synth_random_and_blank_decoders_are_poor, 1},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        TCase *tcase = tcase_create(tests[i].name);
        tcase_add_loop_test(tcase, tests[i].test, 0, tests[i].runs);
        suite_add_tcase(suite, tcase);
    }
    return run_all(suite);
}
