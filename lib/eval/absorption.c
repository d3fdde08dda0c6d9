/* SPDX-License-Identifier: MIT
 *
 * Feature absorption of labelled classes, full-rate form. The data side: the handle, its rows and
 * the probe. absorption_score.c scores a model.
 *
 * Where SAEBench trains with Adam we solve convex problems to their optimum, so that a score is a
 * function of the data and the SAE alone. All penalties are in units in which the training rows'
 * deviation from their mean has variance 1 per dimension on average, so the units of x do not
 * matter.
 */
#include "eval/absorption.h"
#include "eval/logistic.h"
#include "format/format.h"
#include "kernels/rows.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define FAR 100

/* SAEBench's weight decay of 1e-4 on a loss that is a mean over rows and classes is C = 2e4 / (classes * rows), 0.12 with 26
 * and 6400, in the rows' own units. Deviations of 1 to 4 units, as residual streams have, make that 0.12 to 2 in ours. */
static const struct {
    double c;
    bool free_intercept;
} probes[] = {[ATMSAE_PROBE_SAEBENCH] = {1, false}, [ATMSAE_PROBE_FREE] = {0.1, true}};

void atmsae_absorption_config_init(atmsae_absorption_config *config, size_t size)
{
    static const atmsae_absorption_config defaults = {.min_probe_f1 = 0.6, .min_f1_gain = 0.03, .max_split = 10,
                                                       .probe = ATMSAE_PROBE_SAEBENCH};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check_config(atmsae_context *ctx, const atmsae_absorption_config *c)
{
    if (c->n_classes < 1 || c->n_classes > INT32_MAX)
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: n_classes = %llu, expected 1 to 2^31 - 1",
                        (unsigned long long)c->n_classes);
    if (!(c->min_probe_f1 >= 0 && c->min_probe_f1 < 1))
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: min_probe_f1 = %g, expected 0 <= min_probe_f1 < 1",
                        c->min_probe_f1);
    if (!(c->min_f1_gain >= 0 && c->min_f1_gain <= 1))
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: min_f1_gain = %g, expected 0 to 1", c->min_f1_gain);
    if (c->max_split < 1 || c->max_split > AMS_MAX_SPLIT)
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: max_split = %llu, expected 1 to %d",
                        (unsigned long long)c->max_split, AMS_MAX_SPLIT);
    if (c->probe != ATMSAE_PROBE_SAEBENCH && c->probe != ATMSAE_PROBE_FREE)
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: probe = %d, expected ATMSAE_PROBE_SAEBENCH (1) or ATMSAE_PROBE_FREE (2)",
                        (int)c->probe);
    return ATMSAE_OK;
}

/* Copies rows whose is_train is `train`, from row `at` of the handle on; returns via *at the next. */
static atmsae_status copy_rows(atmsae_absorption *a, const ams_rows *x, const float *weights, const int32_t *labels,
                               const uint8_t *is_train, uint8_t train, uint64_t *at)
{
    for (uint64_t r = 0; r < x->n; r++) {
        if (is_train[r] != train || (weights && weights[r] == 0)) continue;
        AMS_TRY(ams_rows_read(a->ctx, x, r, a->x + *at * a->d));
        if (*at >= a->n_train) a->given[*at - a->n_train] = r;
        a->label[(*at)++] = labels[r];
    }
    return ATMSAE_OK;
}

static atmsae_status check_labels(atmsae_absorption *a, const ams_rows *x, const float *weights, const int32_t *labels,
                                  const uint8_t *is_train)
{
    for (uint64_t r = 0; r < x->n; r++) {
        if (weights && weights[r] == 0) continue;
        if (labels[r] < 0 || (uint64_t)labels[r] >= a->config.n_classes)
            return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: labels[%llu] = %d, expected 0 to %llu",
                            (unsigned long long)r, (int)labels[r], (unsigned long long)a->config.n_classes - 1);
        if (is_train[r] > 1)
            return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: is_train[%llu] = %d, expected 0 or 1",
                            (unsigned long long)r, (int)is_train[r]);
        a->n_train += is_train[r];
        a->n_test += !is_train[r];
    }
    if (a->n_train + a->n_test == 0) return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: no rows");
    if (a->n_train + a->n_test > UINT32_MAX)
        return ams_fail(a->ctx, ATMSAE_E_LIMIT, "absorption: more than 2^32 - 1 rows");
    return ATMSAE_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* FAR medians of n values, which it sorts. */
static double bound(double *values, uint64_t n)
{
    ams_sort(values, n, sizeof *values, ascending);
    return FAR * values[n / 2];
}

/* Of the training rows that are not far: the mean, counted from the first row so that equal rows deviate by 0 exactly,
 * and the mean square deviation of each dimension. Of all training rows: the squared length of their deviation. */
static void measure_deviations(const atmsae_absorption *a, const uint8_t *far, double *mean, double *dimension, double *row)
{
    double n = 0;
    memset(mean, 0, a->d * sizeof *mean);
    memset(dimension, 0, a->d * sizeof *dimension);
    for (uint64_t r = 0; r < a->n_train; r++)
        n += !far[r];
    for (uint64_t r = 0; r < a->n_train; r++)
        for (uint64_t j = 0; j < a->d && !far[r]; j++)
            mean[j] += ((double)a->x[r * a->d + j] - (double)a->x[j]) / n;
    for (uint64_t r = 0; r < a->n_train; r++) {
        row[r] = 0;
        for (uint64_t j = 0; j < a->d; j++) {
            double e = (double)a->x[r * a->d + j] - (double)a->x[j] - mean[j];
            row[r] += e * e;
            if (!far[r]) dimension[j] += e * e / n;
        }
    }
}

/* Root mean square deviation of the training rows' entries from their mean; 1 if they are all the same. A few rows or
 * dimensions that are much larger than the others would make it their own, and the penalty too strong for all
 * the rest: rows whose squared deviation is beyond FAR medians take no part, and a dimension counts with at most FAR
 * medians. Where there are none such it is the plain root mean square. */
static atmsae_status measure_unit(atmsae_absorption *a)
{
    uint64_t n = a->n_train, d = a->d;
    double *memory = ams_alloc(a->ctx, 2 * d + 2 * n, sizeof *memory), total = 0;
    uint8_t *far = ams_calloc(a->ctx, n, 1);
    a->unit = 1;
    for (bool more = memory && far && n > 0; more;) {
        double *mean = memory, *dimension = mean + d, *row = dimension + d, *sorted = row + n;
        measure_deviations(a, far, mean, dimension, row);
        memcpy(sorted, row, n * sizeof *row);
        double most = bound(sorted, n);
        more = false;
        for (uint64_t r = 0; r < n && most > 0; r++)
            if (!far[r] && row[r] > most) more = (far[r] = 1);
        if (more) continue;
        most = bound(memcpy(mean, dimension, d * sizeof *mean), d);
        for (uint64_t j = 0; j < d; j++)
            total += most > 0 ? fmin(dimension[j], most) : dimension[j];
        if (total > 0) a->unit = sqrt(total / (double)d);
    }
    atmsae_status status = memory && far ? ATMSAE_OK : ams_nomem(a->ctx, "absorption");
    ams_free(a->ctx, memory);
    ams_free(a->ctx, far);
    return status;
}

double ams_f1(uint64_t true_positives, uint64_t false_positives, uint64_t false_negatives)
{
    double wrong = (double)false_positives + (double)false_negatives, twice = 2 * (double)true_positives;
    return true_positives == 0 ? 0 : twice / (twice + wrong);
}

/* Test logits, projections on the probe and F1 of one class. The projection is the distance from the probe's boundary,
 * intercept included: without it, it would depend on where the rows have their origin, and be mostly that. */
static void test_class(void *arg, uint64_t class, unsigned worker)
{
    (void)worker;
    atmsae_absorption *a = arg;
    uint64_t d = a->d, hits = 0, wrong = 0, missed = 0;
    double *w = a->probe + class * (d + 1), norm = 0;
    for (uint64_t j = 0; j < d; j++)
        norm += w[j] * w[j];
    norm = sqrt(norm);
    for (uint64_t t = 0; t < a->n_test; t++) {
        double z = ams_logistic_score(w, a->x + (a->n_train + t) * d, d);
        bool positive = (uint64_t)a->label[a->n_train + t] == class;
        hits += positive && z > 0;
        missed += positive && !(z > 0);
        wrong += !positive && z > 0;
        if (!positive) continue;
        a->is_hit[t] = z > 0;
        a->projection[t] = norm > 0 ? z / norm : 0;
    }
    a->hits[class] = hits;
    a->probe_f1[class] = ams_f1(hits, wrong, missed);
}

static atmsae_status allocate(atmsae_absorption *a)
{
    uint64_t n = a->n_train + a->n_test, size = 0, probe = 0;
    if (!ams_mul(n, a->d, &size) || !ams_mul(a->config.n_classes, a->d + 1, &probe))
        return ams_nomem(a->ctx, "absorption");
    a->x = ams_alloc(a->ctx, size, sizeof *a->x);
    a->label = ams_alloc(a->ctx, n, sizeof *a->label);
    a->probe = ams_alloc(a->ctx, probe, sizeof *a->probe);
    a->probe_f1 = ams_alloc(a->ctx, a->config.n_classes, sizeof *a->probe_f1);
    a->hits = ams_alloc(a->ctx, a->config.n_classes, sizeof *a->hits);
    a->given = ams_alloc(a->ctx, a->n_test, sizeof *a->given);
    a->projection = ams_alloc(a->ctx, a->n_test, sizeof *a->projection);
    a->is_hit = ams_alloc(a->ctx, a->n_test, sizeof *a->is_hit);
    if (!a->x || !a->label || !a->probe || !a->probe_f1 || !a->hits || !a->given || !a->projection || !a->is_hit)
        return ams_nomem(a->ctx, "absorption");
    return ATMSAE_OK;
}

static atmsae_status fill(atmsae_absorption *a, const atmsae_batch *batch, const int32_t *labels,
                          const uint8_t *is_train)
{
    ams_rows x = {"batch: x", batch->x, batch->n_rows, a->d, batch->ld_x, batch->x_type};
    uint64_t at = 0;
    a->n_given = x.n;
    AMS_TRY(ams_rows_check(a->ctx, &x));
    AMS_TRY(ams_row_weights_check(a->ctx, batch->row_weights, x.n));
    AMS_TRY(check_labels(a, &x, batch->row_weights, labels, is_train));
    AMS_TRY(allocate(a));
    AMS_TRY(copy_rows(a, &x, batch->row_weights, labels, is_train, 1, &at));
    AMS_TRY(copy_rows(a, &x, batch->row_weights, labels, is_train, 0, &at));
    AMS_TRY(measure_unit(a));
    ams_logistic probe = {.x = a->x, .n = a->n_train, .d = a->d, .ld = a->d, .label = a->label,
                          .c = probes[a->config.probe].c / (a->unit * a->unit), .balanced = true};
    const double constant = probes[a->config.probe].free_intercept ? 0 : a->unit;
    AMS_TRY(ams_logistic_fit_classes(a->ctx, &probe, constant, a->config.n_classes, a->probe));
    ams_parallel(a->ctx, a->config.n_classes, test_class, a);
    return ATMSAE_OK;
}

static atmsae_status create(atmsae_context *ctx, const atmsae_absorption_config *caller,
                            const atmsae_batch *caller_batch, uint64_t d, const int32_t *labels,
                            const uint8_t *is_train, atmsae_absorption **out)
{
    if (!out || !labels || !is_train)
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: out, labels or is_train is NULL");
    if (d < 1 || d > (1 << 24))
        return ams_fail(ctx, ATMSAE_E_ARG, "absorption: d = %llu, expected 1 to 2^24", (unsigned long long)d);
    atmsae_absorption_config config;
    atmsae_batch batch;
    atmsae_absorption_config_init(&config, sizeof config);
    atmsae_batch_init(&batch, sizeof batch);
    AMS_TRY(ams_struct_in(ctx, atmsae_absorption_config, &config, caller));
    AMS_TRY(ams_struct_in(ctx, atmsae_batch, &batch, caller_batch));
    AMS_TRY(check_config(ctx, &config));

    atmsae_absorption *a = ams_calloc(ctx, 1, sizeof *a);
    if (!a) return ams_nomem(ctx, "absorption");
    a->ctx = ams_context_ref(ctx);
    a->config = config;
    a->d = d;
    atmsae_status status = fill(a, &batch, labels, is_train);
    if (status < 0) {
        atmsae_absorption_destroy(a);
        return status;
    }
    *out = a;
    return ATMSAE_OK;
}

atmsae_status atmsae_absorption_create(atmsae_context *ctx, const atmsae_absorption_config *caller,
                                       const atmsae_batch *caller_batch, uint64_t d, const int32_t *labels,
                                       const uint8_t *is_train, atmsae_absorption **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, caller_batch, d, labels, is_train, out));
}

void atmsae_absorption_destroy(atmsae_absorption *a)
{
    if (!a) return;
    atmsae_context *ctx = a->ctx;
    void *memory[] = {a->x, a->label, a->probe, a->probe_f1, a->hits, a->given, a->projection, a->is_hit, a};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    atmsae_context_destroy(ctx);
}
