/* SPDX-License-Identifier: MIT
 *
 * Numbers at their edges: NaN, infinities, subnormals, huge and tiny scales, constant and empty data,
 * the smallest shapes, every activation. Each call gives finite numbers or E_NONFINITE with nothing
 * changed; what comes out is compared with sums in double precision; figures that are undefined are
 * NaN, and no others.
 */
#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 13, MOST_D = 7, MOST_F = 20, STEPS = 4 };

static float noise(uint64_t at)
{
    uint64_t x = at * 0x9e3779b97f4a7c15u + 0x1234567;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (float)((x ^ x >> 31) >> 40) * 0x1p-23f - 1;
}

/* ---- data --------------------------------------------------------------------------------------------------- */

enum { FINE, MAY_REFUSE, MUST_REFUSE };
typedef struct data_case {
    const char *name;
    float scale;
    int rows;     /* FINE: every call succeeds on it as it is (INPUT_RAW) */
    int prepared; /* the same after prepare with INPUT_SQRT_D */
} data_case;

enum { NOISE, ZEROS, CONSTANT, ONE_ZERO, ONE_HUGE, EQUAL_COLUMN, OPPOSITE, LARGE, TINY, SUBNORMAL, LARGEST, SMALLEST, A_NAN, AN_INF,
       A_MINUS_INF, DATA };
static const data_case data[DATA] = {
    [NOISE] = {"noise", 1, FINE, FINE},
    [ZEROS] = {"zeros", 0, FINE, FINE},
    [CONSTANT] = {"constant rows", 1, FINE, FINE},
    [ONE_ZERO] = {"a row of zeros", 1, FINE, FINE},
    [ONE_HUGE] = {"a row of 1e30", 1, MUST_REFUSE, MAY_REFUSE},
    [EQUAL_COLUMN] = {"a constant column", 1, FINE, FINE},
    [OPPOSITE] = {"rows x and -x", 1, FINE, FINE},
    [LARGE] = {"1e30", 1e30f, MUST_REFUSE, FINE},
    [TINY] = {"1e-30", 1e-30f, FINE, FINE},
    [SUBNORMAL] = {"1e-42", 1e-42f, FINE, MAY_REFUSE}, /* the scale would be 1e42 */
    [LARGEST] = {"3e38", 3e38f, MUST_REFUSE, FINE},
    [SMALLEST] = {"1e-45", 1.5e-45f, FINE, MAY_REFUSE},
    [A_NAN] = {"a NaN", 1, MUST_REFUSE, MUST_REFUSE},
    [AN_INF] = {"an Inf", 1, MUST_REFUSE, MUST_REFUSE},
    [A_MINUS_INF] = {"a -Inf", 1, MUST_REFUSE, MUST_REFUSE},
};

static void fill(float *x, int kind, uint64_t n, uint64_t d)
{
    for (uint64_t r = 0; r < n; r++)
        for (uint64_t j = 0; j < d; j++) {
            uint64_t row = kind == CONSTANT ? 0 : kind == OPPOSITE ? r / 2 : r;
            float v = noise(row * d + j) + (row % d == j ? 1.5f : 0);
            if (kind == EQUAL_COLUMN && j == 0) v = 3;
            if (kind == OPPOSITE && r % 2) v = -v;
            if (kind == ONE_ZERO && r == n / 2) v = 0;
            if (kind == ONE_HUGE && r == n / 2) v *= 1e30f;
            if (kind == LARGEST) v = copysignf(fminf(fabsf(v), 1), v);
            x[r * d + j] = kind == ZEROS ? 0 : v * data[kind].scale;
        }
    if (kind == A_NAN) x[(n - 1) * d] = NAN;
    if (kind == AN_INF) x[(n - 1) * d] = INFINITY;
    if (kind == A_MINUS_INF) x[(n - 1) * d] = -INFINITY;
}

/* ---- shapes and settings -------------------------------------------------------------------------------------- */

typedef struct shape {
    const char *name;
    uint64_t n, d, F;
    double k;
    int32_t b_dec_init, mask, per_row;
    bool prefixes, dead;
    int weights; /* 1: all but one are 0; 2: all differ */
    bool uncentred;
} shape;

static const shape shapes[] = {
    {"plain", 13, 7, 20, 3, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_ATM, 0, false, true, 0, false},
    {"median, per row", 13, 7, 20, 3, ATMSAE_B_DEC_MEDIAN, ATMSAE_MASK_ATM, 1, false, true, 0, false},
    {"k = F, prefixes", 13, 7, 20, 20, ATMSAE_B_DEC_ZERO, ATMSAE_MASK_UNIFORM, 0, true, false, 0, false},
    {"d = 1", 13, 1, 8, 2, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_PERMUTED, 0, false, true, 0, false},
    {"F = 1", 13, 7, 1, 1, ATMSAE_B_DEC_MEDIAN, ATMSAE_MASK_PAPER, 0, false, true, 0, false},
    {"d = F = 1, one row", 1, 1, 1, 1, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_ATM, 0, false, true, 0, false},
    {"one row", 1, 7, 20, 3, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_ATM, 0, false, true, 0, false},
    {"k under a row", 13, 7, 20, 1.0 / 32, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_ATM, 0, false, false, 0, false},
    {"one row of weight", 13, 7, 20, 3, ATMSAE_B_DEC_MEAN, ATMSAE_MASK_ATM, 0, false, true, 1, false},
    {"weights", 13, 7, 20, 3, ATMSAE_B_DEC_ZERO, ATMSAE_MASK_ATM, 0, false, true, 2, false},
    {"uncentred", 13, 7, 20, 3, ATMSAE_B_DEC_MEDIAN, ATMSAE_MASK_ATM, 0, false, true, 0, true},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Rows that are all the same have no variance. */
static bool constant(const shape *s, int kind)
{
    return kind == ZEROS || kind == CONSTANT || s->n == 1 || (kind == EQUAL_COLUMN && s->d == 1);
}

typedef struct run {
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    atmsae_model *model;
    const shape *s;
    atmsae_batch batch;
    float x[MOST_ROWS * MOST_D], weights[MOST_ROWS];
    char name[160];
} run;

static atmsae_context *small_context(void)
{
    atmsae_context *ctx;
    atmsae_context_config cc;
    atmsae_context_config_init(&cc, sizeof cc);
    cc.threads = 1;
    ck_assert_int_eq(atmsae_context_create(&cc, &ctx), ATMSAE_OK);
    return ctx;
}

static void start(run *a, const shape *s, int kind, int32_t activation, int32_t input_norm)
{
    static const uint64_t prefixes[] = {5, 10};
    *a = (run){.s = s};
    snprintf(a->name, sizeof a->name, "%s, %s, activation %d, input_norm %d", data[kind].name, s->name, activation, input_norm);
    fill(a->x, kind, s->n, s->d);
    atmsae_batch_init(&a->batch, sizeof a->batch);
    a->batch.n_rows = s->n;
    a->batch.x = a->x;
    if (s->weights) a->batch.row_weights = a->weights;
    a->weights[s->n - 1] = 1e-3f; /* the row with the NaN */
    for (uint64_t r = 0; r < s->n && s->weights == 2; r++)
        a->weights[r] = 1.1f + noise(r + 300);

    static atmsae_context *shared; /* one in each of Check's processes */
    if (!shared) shared = small_context();
    a->ctx = shared;
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = s->d;
    model.d_sae = s->F;
    model.k = activation == ATMSAE_TOPK ? ceil(s->k) : s->k;
    model.activation = activation;
    model.input_norm = input_norm;
    model.b_dec_init = s->b_dec_init;
    model.uncentred = s->uncentred;
    if (s->prefixes) model.n_prefixes = 2, model.prefixes = prefixes;
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.dead_window = s->dead ? 1 : 0; /* 1: whoever misses a step is dead */
    tracker.decay = 0.5;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = s->mask;
    masker.per_row = s->per_row;
    masker.warmup_steps = 0;
    masker.r = 3;
    atmsae_trainer_config c;
    atmsae_trainer_config_init(&c, sizeof c);
    c.model = &model;
    c.tracker = &tracker;
    c.masker = &masker;
    c.batch_rows = s->n;
    ck_assert_msg(atmsae_trainer_create(a->ctx, &c, &a->trainer) == ATMSAE_OK, "%s: %s", a->name, atmsae_last_error(a->ctx));
    a->model = atmsae_trainer_model(a->trainer);
}

static void stop(run *a)
{
    atmsae_trainer_destroy(a->trainer);
}

/* ---- all numbers of a trainer ------------------------------------------------------------------------------- */

typedef struct numbers {
    double value[3 * MOST_F * MOST_D + 16 * MOST_F];
    size_t count;
} numbers;

static void add(numbers *all, double value) { all->value[all->count++] = value; }

static numbers collect(const run *a)
{
    numbers all = {.count = 0};
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_OUTPUT_SCALE; p++) {
        uint64_t count;
        const float *v = atmsae_model_view(a->model, p, &count);
        for (uint64_t j = 0; j < count; j++)
            if (p != ATMSAE_BATCH_THRESHOLD || !isnan(v[j])) add(&all, (double)v[j]);
    }
    const atmsae_tracker *t = atmsae_trainer_tracker(a->trainer);
    const atmsae_masker *m = atmsae_trainer_masker(a->trainer);
    for (uint64_t i = 0; i < a->s->F; i++) {
        add(&all, atmsae_tracker_importance(t)[i]);
        for (int32_t k = 0; k < 3; k++)
            add(&all, atmsae_tracker_average(t, k)[i]);
    }
    add(&all, atmsae_masker_mu(m));
    add(&all, atmsae_masker_sigma(m));
    add(&all, atmsae_masker_theta(m));
    add(&all, (double)atmsae_trainer_steps_done(a->trainer));
    return all;
}

static void all_finite(const run *a, const char *what)
{
    const numbers all = collect(a);
    for (size_t j = 0; j < all.count; j++)
        ck_assert_msg(isfinite(all.value[j]), "%s: after %s, number %zu is %g", a->name, what, j, all.value[j]);
    uint64_t F = a->s->F;
    const double *p = atmsae_masker_p(atmsae_trainer_masker(a->trainer));
    for (uint64_t i = 0; i < F; i++)
        ck_assert_msg(p[i] >= 0 && p[i] < 1, "%s: p[%llu] = %g", a->name, (unsigned long long)i, p[i]);
}

/* The status must be what the data allow; after a refusal everything is as before. */
static bool judge(const run *a, const char *what, atmsae_status status, int allowed, const numbers *before)
{
    if (status == ATMSAE_OK) {
        ck_assert_msg(allowed != MUST_REFUSE, "%s: %s accepts this", a->name, what);
        all_finite(a, what);
        return true;
    }
    ck_assert_msg(status == ATMSAE_E_NONFINITE && allowed != FINE, "%s: %s: %s, %s", a->name, what, atmsae_status_name(status),
                  atmsae_last_error(a->ctx));
    const numbers after = collect(a);
    ck_assert_msg(after.count == before->count && memcmp(after.value, before->value, after.count * sizeof(double)) == 0,
                  "%s: %s failed and changed something", a->name, what);
    return false;
}

/* ---- encode and decode against double precision --------------------------------------------------------------- */

static double view(const run *a, int32_t parameter, uint64_t at)
{
    uint64_t count;
    const float *v = atmsae_model_view(a->model, parameter, &count);
    return v ? (double)v[at % count] : 0;
}

/* Pre-activation of a row and latent, and how far a float computation may be from it. */
static double reference_z(const run *a, uint64_t r, uint64_t i, double *error)
{
    double z = view(a, ATMSAE_B_ENC, i), size = fabs(z), scale = view(a, ATMSAE_INPUT_SCALE, 0);
    for (uint64_t j = 0; j < a->s->d; j++) {
        double w = view(a, ATMSAE_W_ENC, i * a->s->d + j), b = a->s->uncentred ? 0 : view(a, ATMSAE_B_DEC, j);
        double x = (double)a->x[r * a->s->d + j] * scale;
        z += w * (x - b);
        size += fabs(w) * (fabs(x) + fabs(b));
    }
    *error = 4e-6 * size + 1e-43;
    return z;
}

static void check_codes(const run *a, int32_t activation, const atmsae_codes *codes)
{
    atmsae_codes_view v = {.size = sizeof v};
    ck_assert_int_eq(atmsae_codes_get(codes, &v), ATMSAE_OK);
    for (uint64_t r = 0; r < v.n_rows; r++) {
        double smallest = INFINITY, slack = 0;
        uint64_t count = v.row_start[r + 1] - v.row_start[r];
        for (uint64_t p = v.row_start[r]; p < v.row_start[r + 1]; p++)
            if ((double)v.value[p] < smallest) smallest = (double)v.value[p];
        uint64_t at = v.row_start[r];
        for (uint64_t i = 0; i < v.d_sae; i++) {
            double error, z = reference_z(a, r, i, &error), f = z, cut = 0;
            if (error > slack) slack = error;
            if (activation == ATMSAE_JUMPRELU || activation == ATMSAE_JUMPRELU_TANH) cut = view(a, ATMSAE_THRESHOLD, i);
            if (activation == ATMSAE_BATCHTOPK) cut = view(a, ATMSAE_BATCH_THRESHOLD, 0);
            if (activation == ATMSAE_TOPK && count == (uint64_t)ceil(a->s->k)) cut = smallest;
            if (activation == ATMSAE_GATED) {
                double gain = exp(view(a, ATMSAE_R_MAG, i));
                f = gain * (z - view(a, ATMSAE_B_ENC, i)) + view(a, ATMSAE_B_MAG, i);
                if (f <= 0) f = 0;
                error *= 1 + gain;
            }
            bool on = at < v.row_start[r + 1] && v.latent[at] == i;
            if (on) {
                float value = v.value[at++];
                ck_assert_msg(isfinite(value) && value > 0, "%s: row %llu latent %llu is %g", a->name, (unsigned long long)r,
                              (unsigned long long)i, (double)value);
                ck_assert_msg(fabs((double)value - f) <= error && z >= cut - error, "%s: row %llu latent %llu is %g, reference %g",
                              a->name, (unsigned long long)r, (unsigned long long)i, (double)value, f);
            } else if (activation != ATMSAE_GATED || f > error) {
                ck_assert_msg(z <= cut + 2 * slack, "%s: row %llu latent %llu is off, reference %g, cut %g", a->name,
                              (unsigned long long)r, (unsigned long long)i, z, cut);
            }
        }
        ck_assert_uint_eq(at, v.row_start[r + 1]);
    }
}

static void check_decode(const run *a, const atmsae_codes *codes, const float *out)
{
    atmsae_codes_view v = {.size = sizeof v};
    ck_assert_int_eq(atmsae_codes_get(codes, &v), ATMSAE_OK);
    for (uint64_t r = 0; r < v.n_rows; r++)
        for (uint64_t j = 0; j < a->s->d; j++) {
            double y = view(a, ATMSAE_B_DEC, j), size = fabs(y), scale = view(a, ATMSAE_OUTPUT_SCALE, 0);
            for (uint64_t p = v.row_start[r]; p < v.row_start[r + 1]; p++) {
                double term = (double)v.value[p] * view(a, ATMSAE_W_DEC, v.latent[p] * a->s->d + j);
                y += term;
                size += fabs(term);
            }
            double got = (double)out[r * a->s->d + j];
            if (size / scale > FLT_MAX) continue;
            ck_assert_msg(fabs(got - y / scale) <= (4e-6 * size + 1.5e-45 * MOST_F) / scale + 1.5e-45, "%s: decoded %g, reference %g", a->name, got, y / scale);
        }
}

/* ---- metrics against double precision ------------------------------------------------------------------------- */

static double ratio(double a, double b) { return b == 0 ? (double)NAN : a / b; }

static void same(const run *a, const char *what, double got, double want, double relative)
{
    bool good = isnan(want) ? isnan(got) : got == want || fabs(got - want) <= relative * fabs(want) + DBL_MIN;
    ck_assert_msg(good, "%s: %s = %.17g, reference %.17g", a->name, what, got, want);
}

static void check_metrics(const run *a, const atmsae_codes *codes, const float *out, int kind)
{
    atmsae_metrics *metrics;
    atmsae_metrics_result m = {.size = sizeof m};
    ck_assert_int_eq(atmsae_metrics_create(a->model, &metrics), ATMSAE_OK);
    ck_assert_int_eq(atmsae_metrics_get(metrics, &m), ATMSAE_OK);
    ck_assert_msg(m.rows == 0 && isnan(m.mse) && isnan(m.fvu) && isnan(m.cosine) && isnan(m.l0) && isnan(m.bias),
                  "metrics of no rows");
    atmsae_batch all = a->batch;
    all.row_weights = NULL;
    ck_assert_msg(atmsae_metrics_add(metrics, &all) == ATMSAE_OK, "%s: %s", a->name, atmsae_last_error(a->ctx));
    ck_assert_int_eq(atmsae_metrics_get(metrics, &m), ATMSAE_OK);
    atmsae_metrics_destroy(metrics);

    const uint64_t n = a->s->n, d = a->s->d;
    atmsae_codes_view v = {.size = sizeof v};
    ck_assert_int_eq(atmsae_codes_get(codes, &v), ATMSAE_OK);
    double error = 0, spread = 0, yr = 0, rr = 0, cosines = 0, counted = 0, l1 = 0;
    for (uint64_t j = 0; j < d; j++) {
        double mean = 0;
        for (uint64_t r = 0; r < n; r++)
            mean += (double)a->x[r * d + j] / (double)n;
        for (uint64_t r = 0; r < n && !constant(a->s, kind); r++)
            spread += pow((double)a->x[r * d + j] - mean, 2);
    }
    for (uint64_t r = 0; r < n; r++) {
        double y2 = 0, r2 = 0, dot = 0;
        for (uint64_t j = 0; j < d; j++) {
            double y = (double)a->x[r * d + j], rec = (double)out[r * d + j];
            error += (y - rec) * (y - rec);
            y2 += y * y;
            r2 += rec * rec;
            dot += y * rec;
        }
        rr += r2;
        yr += dot;
        if (y2 > 0 && r2 > 0) cosines += dot / sqrt(y2) / sqrt(r2), counted++;
    }
    for (uint64_t p = 0; p < v.row_start[n]; p++)
        l1 += (double)v.value[p];
    same(a, "mse", m.mse, error / (double)n, 1e-12);
    same(a, "fvu", m.fvu, ratio(error, spread), 1e-9);
    same(a, "cosine", m.cosine, ratio(cosines, counted), 1e-9);
    same(a, "bias", m.bias, ratio(rr, yr), 1e-9);
    same(a, "l0", m.l0, (double)v.row_start[n] / (double)n, 1e-12);
    same(a, "l1", m.l1, l1 / (double)n, 1e-12);
}

/* ---- the grid ------------------------------------------------------------------------------------------------------ */

static void all_calls(const shape *s, int kind, int32_t activation, int32_t input_norm)
{
    run a;
    start(&a, s, kind, activation, input_norm);
    int allowed = input_norm == ATMSAE_INPUT_RAW ? data[kind].rows : data[kind].prepared;
    if (s->weights == 1 && kind == ONE_HUGE) allowed = input_norm == ATMSAE_INPUT_RAW ? FINE : allowed; /* of weight 0 */
    if (kind == ONE_HUGE && s->n == 1) allowed = MAY_REFUSE;
    bool bad_row = kind == A_NAN || kind == AN_INF || kind == A_MINUS_INF;
    int prepares = input_norm == ATMSAE_INPUT_RAW ? (bad_row ? MUST_REFUSE : FINE) : data[kind].prepared;
    if (kind == ONE_HUGE || kind == ONE_ZERO) prepares = FINE;

    numbers before = collect(&a);
    if (!judge(&a, "prepare", atmsae_trainer_prepare(a.trainer, &a.batch), prepares, &before)) allowed = MAY_REFUSE;
    if (allowed == MUST_REFUSE && !bad_row) allowed = MAY_REFUSE; /* b_dec may have taken the mean away */
    if (bad_row) {
        char row[32];
        snprintf(row, sizeof row, "row %d ", (int)s->n - 1);
        ck_assert_msg(strstr(atmsae_last_error(a.ctx), row) != NULL, "%s: \"%s\"", a.name, atmsae_last_error(a.ctx));
        allowed = MUST_REFUSE;
    }
    for (int step = 0; step < STEPS; step++) {
        before = collect(&a);
        atmsae_step_stats stats = {.size = sizeof stats};
        if (!judge(&a, "step", atmsae_trainer_step(a.trainer, &a.batch, &stats), allowed, &before)) continue;
        const double figures[] = {stats.loss, stats.mse, stats.sparsity, stats.aux, stats.l0, stats.mean_p, stats.r, stats.lr,
                                  stats.grad_norm};
        for (size_t f = 0; f < sizeof figures / sizeof *figures; f++)
            ck_assert_msg(isfinite(figures[f]), "%s: figure %zu of step %d is %g", a.name, f, step, figures[f]);
        ck_assert_msg(constant(s, kind) || s->weights == 1 ? isnan(stats.fvu) : kind >= TINY || (isfinite(stats.fvu) && stats.fvu >= 0),
                      "%s: fvu is %g", a.name, stats.fvu);
    }
    before = collect(&a);
    judge(&a, "calibrate", atmsae_trainer_calibrate(a.trainer, &a.batch), activation != ATMSAE_BATCHTOPK ? FINE : bad_row ? MUST_REFUSE : MAY_REFUSE, &before);

    atmsae_codes *codes;
    float out[MOST_ROWS * MOST_D];
    ck_assert_int_eq(atmsae_codes_create(a.ctx, &codes), ATMSAE_OK);
    if (activation == ATMSAE_BATCHTOPK && isnan(view(&a, ATMSAE_BATCH_THRESHOLD, 0)))
        ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_BATCH_THRESHOLD, &(float){0.5f}, 1), ATMSAE_OK);
    before = collect(&a);
    int encodes = allowed == FINE && !s->weights ? FINE : bad_row ? MUST_REFUSE : MAY_REFUSE;
    if (judge(&a, "encode", atmsae_encode(a.model, &a.batch, codes), encodes, &before)) {
        check_codes(&a, activation, codes);
        ck_assert_int_eq(atmsae_decode(a.model, codes, out, 0), ATMSAE_OK);
        check_decode(&a, codes, out);
        check_metrics(&a, codes, out, kind);
    }
    atmsae_codes_destroy(codes);
    stop(&a);
}

START_TEST(every_activation_on_all_data)
{
    for (int s = 0; s < SHAPES; s++)
        for (int kind = 0; kind < DATA; kind++)
            for (int32_t norm = ATMSAE_INPUT_RAW; norm <= ATMSAE_INPUT_SQRT_D; norm++)
                all_calls(&shapes[s], kind, _i, norm);
}
END_TEST

/* ---- masks and importances at their edges -------------------------------------------------------------------- */

START_TEST(importances)
{
    enum { F = 6 };
    const double cases[][F] = {
        {0, 0, 0, 0, 0, 0},                                  /* theta = 0: nobody is below it */
        {3, 3, 3, 3, 3, 3},                                  /* sigma = 0: likewise */
        {0.1, 0.1, 0.1, 0.1, 0.1, 0.1},                      /* a mean that is not exact */
        {5e-324, 0, 0, 0, 0, 0},
        {1e-310, 2e-310, 3e-310, 1e-310, 0, 0},
        {1e300, 0, 0, 0, 0, 0},
        {1e308, 1e308, 1e308, 1e308, 1e308, 1e308},
        {1.7e308, 0, 1, 0, 1.7e308, 0},
        {0, 1e-300, 1, 1e300, 1e150, 1e-150},
    };
    atmsae_context *ctx = small_context();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int32_t kind = ATMSAE_MASK_NONE; kind <= ATMSAE_MASK_PERMUTED; kind++) {
            atmsae_masker *masker;
            atmsae_masker_config config;
            atmsae_masker_config_init(&config, sizeof config);
            config.d_sae = F;
            config.kind = kind;
            config.warmup_steps = 0;
            config.r = 30;
            ck_assert_int_eq(atmsae_masker_create(ctx, &config, &masker), ATMSAE_OK);
            const double ones[F] = {1, 1, 1, 1, 1, 2};
            ck_assert_int_eq(atmsae_masker_update(masker, ones, F), ATMSAE_OK);
            double theta = atmsae_masker_theta(masker);
            atmsae_status status = atmsae_masker_update(masker, cases[c], F);
            if (status != ATMSAE_OK) {
                ck_assert_msg(c >= 5 && status == ATMSAE_E_NONFINITE, "case %zu: %s", c, atmsae_status_name(status));
                ck_assert_double_eq(atmsae_masker_theta(masker), theta);
                atmsae_masker_destroy(masker);
                continue;
            }
            ck_assert_int_eq(atmsae_masker_draw(masker, 1), ATMSAE_OK);
            ck_assert_msg(isfinite(atmsae_masker_mu(masker)) && isfinite(atmsae_masker_sigma(masker)) &&
                              isfinite(atmsae_masker_theta(masker)) && isfinite(atmsae_masker_mean_p(masker)),
                          "case %zu: mu %g sigma %g theta %g mean p %g", c, atmsae_masker_mu(masker), atmsae_masker_sigma(masker),
                          atmsae_masker_theta(masker), atmsae_masker_mean_p(masker));
            for (int i = 0; i < F; i++) {
                double p = atmsae_masker_p(masker)[i];
                ck_assert_msg(p >= 0 && p < 1, "case %zu: p[%d] = %g", c, i, p);
                if (c < 2) ck_assert_double_eq(p, 0);
                if (c == 2) ck_assert_double_lt(p, 1e-13);
            }
            atmsae_masker_destroy(masker);
        }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(sums_of_a_tracker)
{
    enum { F = 4 };
    atmsae_context *ctx = small_context();
    for (int32_t combine = ATMSAE_MEAN_ARITHMETIC; combine <= ATMSAE_MEAN_GEOMETRIC; combine++) {
        const double sums[][4][F] = {
            /* rows, magnitude, frequency, contribution */
            {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, /* nobody was seen */
            {{9, 9, 9, 9}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, /* nobody fired */
            {{9, 0, 9, 0}, {1, 0, 0, 0}, {1, 0, 0, 0}, {-5, 0, 0, 0}},
            {{1e-300, 1, 1, 1}, {1, 5e-324, 1e-310, 0}, {1e-300, 1, 1, 0}, {1e-320, 1, -1, 0}},
            {{1, 1, 1, 1}, {1e300, 1, 0, 0}, {1, 1, 0, 0}, {1e300, -1e300, 0, 0}},
            {{1e-320, 1, 1, 1}, {1e300, 1, 0, 0}, {1, 1, 0, 0}, {1e300, 1, 0, 0}}, /* averages overflow */
        };
        for (size_t c = 0; c < sizeof sums / sizeof *sums; c++) {
            atmsae_tracker *tracker;
            atmsae_tracker_config config;
            atmsae_tracker_config_init(&config, sizeof config);
            config.d_sae = F;
            config.combine = combine;
            ck_assert_int_eq(atmsae_tracker_create(ctx, &config, &tracker), ATMSAE_OK);
            const double before[F] = {0};
            atmsae_latent_sums s = {sizeof s, F, sums[c][0], sums[c][1], sums[c][2], sums[c][3]};
            for (int time = 0; time < 3; time++) {
                atmsae_status status = atmsae_tracker_observe(tracker, &s);
                ck_assert_msg(status == ATMSAE_OK || (c > 2 && (status == ATMSAE_E_NONFINITE || status == ATMSAE_E_ARG)), "case %zu: %s", c,
                              atmsae_last_error(ctx));
                const double *importance = atmsae_tracker_importance(tracker);
                if (status < 0) ck_assert_mem_eq(importance, before, sizeof before);
                for (int i = 0; i < F; i++)
                    ck_assert_msg(importance[i] >= 0 && isfinite(importance[i]), "case %zu: importance[%d] = %g", c, i, importance[i]);
                if (c < 2)
                    for (int i = 0; i < F; i++)
                        ck_assert_double_eq(importance[i], 0);
            }
            atmsae_tracker_destroy(tracker);
        }
    }
    atmsae_context_destroy(ctx);
}
END_TEST

/* With every latent masked, or none that could fire, the reconstruction is b_dec and nothing moves
 * but b_dec. */
START_TEST(no_latent_takes_part)
{
    for (int per_row = 0; per_row < 3; per_row++) { /* 2: no mask, but biases that silence everything */
        run a;
        start(&a, &shapes[0], NOISE, _i, ATMSAE_INPUT_RAW);
        const uint64_t F = a.s->F;
        uint8_t masked[MOST_F];
        double p[MOST_F];
        uint32_t dead[MOST_F];
        memset(masked, 1, sizeof masked);
        for (uint32_t i = 0; i < F; i++) {
            p[i] = 1;
            dead[i] = i;
        }
        if (per_row == 2) {
            float low[MOST_F];
            for (uint64_t i = 0; i < F; i++)
                low[i] = -1e6f;
            ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_B_ENC, low, F), ATMSAE_OK);
        }
        atmsae_mask mask = {.size = sizeof mask, .d_sae = F, .masked = per_row ? NULL : masked, .p = per_row == 1 ? p : NULL};
        atmsae_forward_options o;
        atmsae_forward_options_init(&o, sizeof o);
        if (per_row < 2) o.mask = &mask;
        o.dead = dead;
        o.n_dead = F;
        atmsae_codes *codes;
        atmsae_gradients *gradients;
        ck_assert_int_eq(atmsae_codes_create(a.ctx, &codes), ATMSAE_OK);
        ck_assert_int_eq(atmsae_gradients_create(a.model, &gradients), ATMSAE_OK);
        atmsae_loss loss = {.size = sizeof loss};
        ck_assert_msg(atmsae_forward(a.model, &a.batch, &o, codes, &loss) == ATMSAE_OK, "%s", atmsae_last_error(a.ctx));
        double mse = 0;
        for (uint64_t j = 0; j < a.s->n * a.s->d; j++)
            mse += pow((double)a.x[j], 2) / (double)a.s->n; /* b_dec is 0 */
        same(&a, "mse", loss.mse, mse, 1e-6);
        same(&a, "l0", loss.l0, 0, 0);
        ck_assert_int_eq(atmsae_backward(a.model, codes, gradients), ATMSAE_OK);
        atmsae_latent_sums sums = {.size = sizeof sums};
        ck_assert_int_eq(atmsae_gradients_sums(gradients, &sums), ATMSAE_OK);
        for (uint64_t i = 0; i < F; i++) {
            ck_assert_double_eq(sums.rows[i], per_row == 2 ? (double)a.s->n : 0);
            ck_assert(sums.magnitude[i] == 0 && sums.frequency[i] == 0 && sums.contribution[i] == 0);
        }
        float gradient[MOST_F * MOST_D];
        ck_assert_int_eq(atmsae_gradients_get(gradients, ATMSAE_W_DEC, gradient, F * a.s->d), ATMSAE_OK);
        for (uint64_t j = 0; j < F * a.s->d && per_row != 2; j++)
            ck_assert_msg(gradient[j] == 0, "activation %d: gradient of a masked latent", _i);
        atmsae_optimizer *optimizer = atmsae_trainer_optimizer(a.trainer);
        ck_assert_int_eq(atmsae_optimizer_step(optimizer, a.model, gradients, NULL), ATMSAE_OK);
        ck_assert_int_eq(atmsae_tracker_observe(atmsae_trainer_tracker(a.trainer), &sums), ATMSAE_OK);
        all_finite(&a, "a step without latents");
        atmsae_gradients_destroy(gradients);
        atmsae_codes_destroy(codes);
        stop(&a);
    }
}
END_TEST

/* Half formats carry their own NaN and infinities, and subnormals that are ordinary floats. */
START_TEST(half_rows)
{
    const uint16_t bad[2][3] = {{0x7c00, 0xfc00, 0x7e01}, {0x7f80, 0xff80, 0x7fc1}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        run a;
        start(&a, &shapes[0], NOISE, ATMSAE_RELU, ATMSAE_INPUT_RAW);
        uint16_t rows[MOST_ROWS * MOST_D] = {1, 0x8001, 0x03ff}; /* subnormals, both formats */
        a.batch.x = rows;
        a.batch.x_type = bf16 ? ATMSAE_BF16 : ATMSAE_F16;
        ck_assert_msg(atmsae_trainer_step(a.trainer, &a.batch, NULL) == ATMSAE_OK, "%s", atmsae_last_error(a.ctx));
        all_finite(&a, "a step on subnormal halves");
        for (int b = 0; b < 3; b++) {
            rows[9 * MOST_D + 3] = bad[bf16][b];
            numbers before = collect(&a);
            judge(&a, "step", atmsae_trainer_step(a.trainer, &a.batch, NULL), MUST_REFUSE, &before);
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(a.ctx), "row 9 "));
        }
        stop(&a);
    }
}
END_TEST

/* A model whose weights are extreme, not its data: set accepts any finite value. */
START_TEST(extreme_weights)
{
    const float sizes[] = {0, 1e-45f, 1e-42f, 1e-30f, 1e30f, 3e38f};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int which = 0; which < 3; which++)
            for (int bias = 0; bias < 2; bias++) {
                run a;
                start(&a, &shapes[0], s % 2 ? NOISE : LARGE, _i, ATMSAE_INPUT_RAW);
                float w[MOST_F * MOST_D], b[MOST_F];
                for (uint64_t j = 0; j < MOST_F * MOST_D; j++)
                    w[j] = noise(j + 77) * sizes[s];
                for (uint64_t i = 0; i < MOST_F; i++)
                    b[i] = noise(i + 5);
                const uint64_t count = a.s->F * a.s->d;
                if (which != 1) ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_W_ENC, w, count), ATMSAE_OK);
                if (which != 0) ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_W_DEC, w, count), ATMSAE_OK);
                if (bias) ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_B_ENC, b, a.s->F), ATMSAE_OK);
                if (_i == ATMSAE_BATCHTOPK) ck_assert_int_eq(atmsae_model_set(a.model, ATMSAE_BATCH_THRESHOLD, &(float){0.25f}, 1), ATMSAE_OK);
                snprintf(a.name, sizeof a.name, "activation %d, weights of %g in matrix %d, bias %d", _i, (double)sizes[s], which, bias);
                atmsae_codes *codes;
                ck_assert_int_eq(atmsae_codes_create(a.ctx, &codes), ATMSAE_OK);
                numbers before = collect(&a);
                if (judge(&a, "encode", atmsae_encode(a.model, &a.batch, codes), MAY_REFUSE, &before)) check_codes(&a, _i, codes);
                for (int step = 0; step < 3; step++) {
                    before = collect(&a);
                    judge(&a, "step", atmsae_trainer_step(a.trainer, &a.batch, NULL), MAY_REFUSE, &before);
                }
                atmsae_codes_destroy(codes);
                stop(&a);
            }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("numbers");
    TCase *tcase = tcase_create("numbers");
    tcase_set_timeout(tcase, 280);
    suite_add_tcase(suite, tcase);
    tcase_add_loop_test(tcase, every_activation_on_all_data, ATMSAE_RELU, ATMSAE_GATED + 1);
    tcase_add_loop_test(tcase, no_latent_takes_part, ATMSAE_RELU, ATMSAE_GATED + 1);
    tcase_add_loop_test(tcase, extreme_weights, ATMSAE_RELU, ATMSAE_GATED + 1);
    tcase_add_test(tcase, importances);
    tcase_add_test(tcase, sums_of_a_tracker);
    tcase_add_test(tcase, half_rows);
    return run_all(suite);
}
