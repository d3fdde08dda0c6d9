/* SPDX-License-Identifier: MIT
 *
 * Rows of very large norm: what is measured of them, against a plain computation in double precision; that a trainer
 * with max_norm does what one does that never sees them; and who is warned.
 */
#include <atmsae/atmsae.h>

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 24, DY = 13, F = 60, N = 256, STEPS = 8, TOTAL = N * STEPS };

static void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static void refused(atmsae_status status, atmsae_status wanted, const char *text, const atmsae_context *ctx)
{
    ck_assert_msg(status == wanted, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
    ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "\"%s\" does not say \"%s\"", atmsae_last_error(ctx), text);
}

/* ---- contexts that listen ---------------------------------------------------------------------------------- */

typedef struct heard {
    char text[2048];
    int warnings;
} heard;

static void listen(void *opaque, int32_t level, const char *message)
{
    heard *h = opaque;
    if (level != ATMSAE_LOG_WARNING) return;
    h->warnings++;
    const size_t used = strlen(h->text);
    snprintf(h->text + used, sizeof h->text - used, "%s\n", message);
}

static atmsae_context *new_context(uint32_t threads, heard *h)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    if (h) {
        *h = (heard){0};
        config.log = listen;
        config.log_opaque = h;
    }
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static uint64_t noise_state = 7;
static double uniform(void)
{
    noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(noise_state >> 40) + 0.5) * 0x1p-24;
}
static double normal(void) { return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()); }

/* The bits of a type, cut: the value that the library is to see comes back through widen. */
static void put(void *rows, int32_t type, size_t at, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t exponent = bits >> 23 & 0xff, sign = bits >> 16 & 0x8000;
    const uint16_t half = (uint16_t)(exponent == 0xff   ? sign | 0x7c00 | (bits >> 13 & 0x3ff)
                                     : exponent <= 112 ? sign
                                                       : sign | (exponent - 112) << 10 | (bits >> 13 & 0x3ff));
    if (type == ATMSAE_F32) ((float *)rows)[at] = value;
    else ((uint16_t *)rows)[at] = type == ATMSAE_BF16 ? (uint16_t)(bits >> 16) : half;
}

static float widen(const void *rows, int32_t type, size_t at)
{
    if (type == ATMSAE_F32) return ((const float *)rows)[at];
    const uint32_t half = ((const uint16_t *)rows)[at];
    const uint32_t exponent = half >> 10 & 0x1f;
    uint32_t bits = half << 16;
    if (type == ATMSAE_F16)
        bits = (half & 0x8000) << 16 | (exponent == 0 ? 0 : exponent == 31 ? 0x7f800000 | (half & 0x3ff) << 13 : (exponent + 112) << 23 | (half & 0x3ff) << 13);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* ---- what is measured -------------------------------------------------------------------------------------------- */

typedef struct plain {
    double norm, energy;
    int row;
} plain;

static int longest_first(const void *a, const void *b)
{
    const plain *x = a, *y = b;
    if (x->norm != y->norm) return x->norm < y->norm ? 1 : -1;
    return x->row - y->row;
}

/* The definition, by sorting. Norms are compared as floats, as the library keeps them. */
static atmsae_row_norms plainly(const void *rows, int32_t type, int n, int d, int ld, const float *weights)
{
    atmsae_row_norms out = {.size = sizeof out};
    plain *p = calloc((size_t)n + 1, sizeof *p);
    double *mean = calloc((size_t)d, sizeof *mean), total = 0, top = 0;
    int m = 0;
    for (int r = 0; r < n; r++) {
        double squares = 0;
        for (int j = 0; j < d; j++)
            squares += pow((double)widen(rows, type, (size_t)(r * ld + j)), 2);
        if ((weights && weights[r] == 0) || !isfinite(squares)) continue;
        p[m++] = (plain){(double)(float)sqrt(squares), 0, r};
        for (int j = 0; j < d; j++)
            mean[j] += (double)widen(rows, type, (size_t)(r * ld + j));
    }
    out.rows = (uint64_t)m;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < d; j++)
            p[i].energy += pow((double)widen(rows, type, (size_t)(p[i].row * ld + j)) - mean[j] / m, 2);
    qsort(p, (size_t)m, sizeof *p, longest_first);
    if (m > 0) {
        out.largest = p[0].norm;
        out.median = (p[(m - 1) / 2].norm + p[m / 2].norm) / 2;
        int above = 0, percent = (m + 99) / 100;
        while (out.median > 0 && above < m && p[above].norm > 10 * out.median)
            above++;
        out.top_rows = (uint64_t)(above > percent ? above : percent);
    }
    for (int i = 0; i < m; i++) {
        total += p[i].energy;
        if ((uint64_t)i < out.top_rows) top += p[i].energy;
    }
    out.top_share = total > 0 ? top / total : 0;
    free(p);
    free(mean);
    return out;
}

static void near(const char *what, double got, double want)
{
    ck_assert_msg(fabs(got - want) <= 1e-6 * fabs(want), "%s is %.12g, expected %.12g", what, got, want);
}

enum { MANY = 700, LD = D + 5 };

static void fill(void *rows, int32_t type, int kind, float *weights)
{
    for (int r = 0; r < MANY; r++) {
        double times = 1;
        if (kind == 1 && r % 250 == 17) times = 300;             /* fewer than 1 % */
        if (kind == 2 && r % 16 == 3) times = 50;                /* more */
        if (kind == 3) times = exp(0.5 * normal());              /* no two alike */
        if (kind == 4 && r % 3 > 0) times = 0;                   /* most are zeros */
        for (int j = 0; j < D; j++)
            put(rows, type, (size_t)(r * LD + j), (float)(times * (normal() + 2 * (j == 3))));
        if (kind == 5)                                           /* all as long, and not the same */
            for (int j = 0; j < D; j++)
                put(rows, type, (size_t)(r * LD + j), j == r % D ? 3.0f : 0.0f);
        if (kind == 6)                                           /* all the same */
            for (int j = 0; j < D; j++)
                put(rows, type, (size_t)(r * LD + j), 1.5f);
        weights[r] = r % 7 == 2 ? 0 : 0.5f;
    }
    put(rows, type, 5 * LD + 2, NAN);
    put(rows, type, 11 * LD + 4, INFINITY);
}

START_TEST(norms_are_those_of_the_definition)
{
    const int32_t type = (const int32_t[]){ATMSAE_F32, ATMSAE_F16, ATMSAE_BF16}[_i % 3];
    const int kind = _i / 3;
    void *rows = calloc(MANY * LD, 4);
    float weights[MANY];
    noise_state = (uint64_t)_i;
    fill(rows, type, kind, weights);
    for (int n = MANY - 1; n <= MANY; n++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const atmsae_row_norms want = plainly(rows, type, n, D, LD, weighted ? weights : NULL);
            atmsae_row_norms first = {0};
            for (uint32_t threads = 1; threads <= 5; threads += 2) {
                atmsae_context *ctx = new_context(threads, NULL);
                atmsae_batch b;
                atmsae_batch_init(&b, sizeof b);
                b.n_rows = (uint64_t)n;
                b.x = rows;
                b.ld_x = LD;
                b.x_type = type;
                b.row_weights = weighted ? weights : NULL;
                atmsae_row_norms got = {.size = sizeof got};
                ok(atmsae_batch_norms(ctx, &b, D, &got), ctx);
                if (threads == 1) first = got;
                ck_assert(memcmp(&got, &first, sizeof got) == 0);
                atmsae_context_destroy(ctx);
            }
            ck_assert_uint_eq(first.rows, want.rows);
            near("median", first.median, want.median);
            near("largest", first.largest, want.largest);
            ck_assert_uint_eq(first.top_rows, want.top_rows);
            if (kind != 5) near("top_share", first.top_share, want.top_share); /* where all are as long, rounding says which are first */
            if (kind == 1 || kind == 2) ck_assert(first.top_share > 0.9);
            if (kind == 0 || kind == 5 || kind == 6) ck_assert(first.top_share < 0.1);
        }
    free(rows);
}
END_TEST

START_TEST(nothing_to_measure)
{
    atmsae_context *ctx = new_context(2, NULL);
    float rows[3 * D], weights[3] = {0};
    for (int j = 0; j < 3 * D; j++)
        rows[j] = NAN;
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.x = rows;
    for (int i = 0; i < 3; i++) {
        b.n_rows = i ? 3 : 0;
        b.row_weights = i == 2 ? weights : NULL;
        atmsae_row_norms got;
        memset(&got, 0xA5, sizeof got);
        got.size = sizeof got;
        ok(atmsae_batch_norms(ctx, &b, D, &got), ctx);
        const atmsae_row_norms zero = {.size = sizeof zero};
        ck_assert(memcmp(&got, &zero, sizeof got) == 0);
        uint64_t n = 9;
        ok(atmsae_batch_limit(ctx, &b, D, 1, weights, &n), ctx);
        ck_assert_uint_eq(n, 0);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(limited_rows_have_weight_0)
{
    const int32_t type = (const int32_t[]){ATMSAE_F32, ATMSAE_F16, ATMSAE_BF16}[_i];
    void *rows = calloc(MANY * LD, 4);
    float own[MANY], weights[MANY];
    fill(rows, type, 3, own);
    put(rows, type, 30 * LD, type == ATMSAE_F16 ? 6e4f : 3e38f); /* whose square f32 does not hold */
    atmsae_context *ctx = new_context(3, NULL);
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = MANY;
    b.x = rows;
    b.ld_x = LD;
    b.x_type = type;
    const double limit = 6.5;
    for (int how = 0; how < 3; how++) { /* without weights, with weights, in their place */
        b.row_weights = how == 0 ? NULL : how == 1 ? own : weights;
        if (how == 2) memcpy(weights, own, sizeof own);
        uint64_t left_out = 9, expected = 0;
        ok(atmsae_batch_limit(ctx, &b, D, limit, weights, &left_out), ctx);
        for (int r = 0; r < MANY; r++) {
            double squares = 0;
            for (int j = 0; j < D; j++)
                squares += pow((double)widen(rows, type, (size_t)(r * LD + j)), 2);
            const float before = how ? own[r] : 1;
            const bool above = sqrt(squares) > limit && isfinite(squares);
            ck_assert_msg(!(fabs(sqrt(squares) - limit) <= 1e-5), "row %d is too near to the limit to tell", r);
            ck_assert_msg(weights[r] == (above ? 0 : before), "row %d: weight %g", r, (double)weights[r]);
            expected += above && before != 0;
        }
        ck_assert_uint_eq(left_out, expected);
        ck_assert_uint_gt(left_out, 30);
        ck_assert_uint_lt(left_out, MANY / 2);
        ok(atmsae_batch_limit(ctx, &b, D, INFINITY, weights, NULL), ctx);
    }
    free(rows);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- trainers ---------------------------------------------------------------------------------------------------------- */

typedef struct setup {
    const char *name;
    int32_t activation;
    uint64_t d_out;
    double target;
} setup;
static const setup setups[] = {
    {"relu", ATMSAE_RELU, 0, 0},         {"topk", ATMSAE_TOPK, 0, 0},
    {"batchtopk", ATMSAE_BATCHTOPK, 0, 0}, {"jumprelu", ATMSAE_JUMPRELU, 0, 0},
    {"gated", ATMSAE_GATED, 0, 4},       {"relu with a target", ATMSAE_RELU, 0, 4},
    {"transcoder", ATMSAE_BATCHTOPK, DY, 0},
};
enum { SETUPS = sizeof setups / sizeof *setups };

static atmsae_trainer *new_trainer(atmsae_context *ctx, const setup *s, double max_norm)
{
    atmsae_model_config model;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_trainer_config config;
    atmsae_model_config_init(&model, sizeof model);
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    atmsae_masker_config_init(&masker, sizeof masker);
    atmsae_trainer_config_init(&config, sizeof config);
    model.d_in = D;
    model.d_out = s->d_out;
    model.d_sae = F;
    model.k = 4;
    model.activation = s->activation;
    model.target_l0 = s->target;
    model.b_dec_init = ATMSAE_B_DEC_MEDIAN;
    tracker.dead_window = 2 * N;
    masker.warmup_steps = 2;
    masker.per_row = 0; /* a row's own mask would go with its number, which changes as others are removed */
    config.model = &model;
    config.tracker = &tracker;
    config.masker = &masker;
    config.batch_rows = N;
    config.total_rows = TOTAL;
    config.skip_bad_rows = 1000;
    config.max_norm = max_norm;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t), ctx);
    return t;
}

typedef struct data {
    char x[TOTAL * D * 4], y[TOTAL * DY * 4];
    float weights[TOTAL];
    bool outlier[TOTAL]; /* as they were made: 100 times as long, in x or y */
    int32_t type;
    uint64_t d_out;
} data;

static double norm_of(const data *d, int r, bool y)
{
    const int width = y ? DY : D;
    double squares = 0;
    for (int j = 0; j < width; j++)
        squares += pow((double)widen(y ? d->y : d->x, d->type, (size_t)(r * width + j)), 2);
    return sqrt(squares);
}

/* outliers: rows 21, 62, .. are 100 times as long. */
static data *make_data(int32_t type, uint64_t d_out, bool outliers)
{
    static data d;
    memset(&d, 0, sizeof d);
    d.type = type;
    d.d_out = d_out;
    noise_state = 5;
    for (int r = 0; r < TOTAL; r++) {
        const int kind = r % 41 == 21 && outliers ? r % 2 : -1; /* 0: x; 1: y */
        d.outlier[r] = kind == 0 || (kind == 1 && d_out > 0);
        d.weights[r] = r % 7 == 2 ? 0 : 0.5f + 0.125f * (float)(r % 5);
        for (int j = 0; j < D; j++)
            put(d.x, type, (size_t)(r * D + j), (float)((normal() + 1) * (kind == 0 ? 100 : 1)));
        for (int j = 0; j < DY; j++)
            put(d.y, type, (size_t)(r * DY + j), (float)((normal() - 1) * (kind == 1 ? 100 : 1)));
    }
    return &d;
}

static atmsae_batch batch_of(const data *d, int first, int n)
{
    const size_t size = d->type == ATMSAE_F32 ? 4 : 2;
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = (uint64_t)n;
    b.x = d->x + (size_t)(first * D) * size;
    b.x_type = b.y_type = d->type;
    if (d->d_out) b.y = d->y + (size_t)(first * DY) * size;
    b.row_weights = d->weights + first;
    return b;
}

static void same_model(atmsae_trainer *a, atmsae_trainer *b, const char *what)
{
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_OUTPUT_SCALE; p++) {
        uint64_t n, m;
        const float *x = atmsae_model_view(atmsae_trainer_model(a), p, &n), *y = atmsae_model_view(atmsae_trainer_model(b), p, &m);
        ck_assert_uint_eq(n, m);
        if (n) ck_assert_msg(memcmp(x, y, n * sizeof *x) == 0, "%s: parameter %d", what, p);
    }
}

/* max_norm: what a caller does who gives such rows weight 0, to the bit. */
START_TEST(left_out_rows_are_rows_of_weight_0)
{
    const setup *s = &setups[_i / 3];
    const int32_t type = (const int32_t[]){ATMSAE_F32, ATMSAE_F16, ATMSAE_BF16}[_i % 3];
    data *d = make_data(type, s->d_out, true);
    atmsae_context *ctx[2] = {new_context(1, NULL), new_context(3, NULL)};
    atmsae_trainer *t = new_trainer(ctx[1], s, 10), *by_hand = new_trainer(ctx[0], s, 0);
    float weights[TOTAL];
    uint64_t expected = 0;
    for (int r = 0; r < TOTAL; r++)
        weights[r] = d->outlier[r] ? 0 : d->weights[r];
    atmsae_batch all = batch_of(d, 0, TOTAL), good = all;
    good.row_weights = weights;
    ok(atmsae_trainer_prepare(t, &all), ctx[1]);
    ok(atmsae_trainer_prepare(by_hand, &good), ctx[0]);
    same_model(t, by_hand, "prepare");
    for (int step = 0; step < STEPS; step++) {
        atmsae_step_stats a = {.size = sizeof a}, b = {.size = sizeof b};
        all = batch_of(d, step * N, N);
        good = all;
        good.row_weights = weights + step * N;
        uint64_t here = 0;
        for (int r = 0; r < N; r++)
            here += d->outlier[step * N + r] && d->weights[step * N + r] > 0;
        ok(atmsae_trainer_step(t, &all, &a), ctx[1]);
        ok(atmsae_trainer_step(by_hand, &good, &b), ctx[0]);
        ck_assert_uint_eq(a.outlier_rows, here);
        ck_assert_uint_eq(b.outlier_rows, 0);
        ck_assert_uint_eq(a.rows, b.rows);
        ck_assert(a.loss == b.loss && a.grad_norm == b.grad_norm);
        expected += here;
    }
    ck_assert_uint_gt(expected, s->d_out ? 30 : 15);
    ck_assert_uint_eq(atmsae_trainer_outlier_rows(t), expected);
    all = batch_of(d, 0, TOTAL);
    good = all;
    good.row_weights = weights;
    if (s->d_out) { /* targets are no part of calibration */
        for (int r = 0; r < TOTAL; r++)
            if (d->outlier[r] && r % 2 == 1) weights[r] = d->weights[r];
    }
    ok(atmsae_trainer_calibrate(t, &all), ctx[1]);
    ok(atmsae_trainer_calibrate(by_hand, &good), ctx[0]);
    same_model(t, by_hand, s->name);
    all.y = NULL; /* and need not be there */
    ok(atmsae_trainer_calibrate(t, &all), ctx[1]);
    same_model(t, by_hand, s->name);
    ck_assert_uint_eq(atmsae_trainer_outlier_rows(t), expected);
    for (int y = 0; y < (s->d_out ? 2 : 1); y++) { /* the limit is the multiple of the median that it says it is */
        plain p[TOTAL];
        int n = 0;
        for (int r = 0; r < TOTAL; r++)
            if (d->weights[r] > 0) p[n++] = (plain){norm_of(d, r, y), 0, r};
        qsort(p, (size_t)n, sizeof *p, longest_first);
        near("limit", atmsae_trainer_norm_limit(t, y), 10 * (p[(n - 1) / 2].norm + p[n / 2].norm) / 2);
    }
    if (!s->d_out) ck_assert_double_eq(atmsae_trainer_norm_limit(t, 1), 0);
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(by_hand);
    atmsae_context_destroy(ctx[0]);
    atmsae_context_destroy(ctx[1]);
}
END_TEST

/* The same as training on what is left when they are removed, but for the order of sums. */
START_TEST(left_out_rows_might_as_well_be_removed)
{
    const setup *s = &setups[_i];
    const data *d = make_data(ATMSAE_F32, s->d_out, true);
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *t = new_trainer(ctx, s, 10), *removed = new_trainer(ctx, s, 0);
    static float x[TOTAL * D], y[TOTAL * DY], weights[TOTAL];
    int start[STEPS + 1], kept = 0;
    double norms = 0, total = 0, mean[D] = {0};
    for (int r = 0; r < TOTAL; r++) {
        if (r % N == 0) start[r / N] = kept;
        if (d->outlier[r]) continue;
        memcpy(x + kept * D, d->x + r * D * 4, D * 4);
        memcpy(y + kept * DY, d->y + r * DY * 4, DY * 4);
        weights[kept++] = d->weights[r];
        norms += (double)d->weights[r] * norm_of(d, r, false);
        total += (double)d->weights[r];
        for (int j = 0; j < D; j++)
            mean[j] += (double)d->weights[r] * (double)widen(d->x, ATMSAE_F32, (size_t)(r * D + j));
    }
    start[STEPS] = kept;
    ck_assert_int_lt(kept, TOTAL - (s->d_out ? 45 : 20));
    for (int step = -1; step < STEPS; step++) {
        const int first = step < 0 ? 0 : start[step], n = step < 0 ? kept : start[step + 1] - first;
        atmsae_batch all = step < 0 ? batch_of(d, 0, TOTAL) : batch_of(d, step * N, N), left = all;
        left.n_rows = (uint64_t)n;
        left.x = x + first * D;
        left.y = s->d_out ? y + first * DY : NULL;
        left.row_weights = weights + first;
        if (step < 0) {
            ok(atmsae_trainer_prepare(t, &all), ctx);
            ok(atmsae_trainer_prepare(removed, &left), ctx);
            near("input_scale", (double)*atmsae_model_view(atmsae_trainer_model(t), ATMSAE_INPUT_SCALE, NULL), sqrt(D) * total / norms);
            continue;
        }
        atmsae_step_stats a = {.size = sizeof a}, b = {.size = sizeof b};
        ok(atmsae_trainer_step(t, &all, &a), ctx);
        ok(atmsae_trainer_step(removed, &left, &b), ctx);
        ck_assert_msg(fabs(a.loss / b.loss - 1) < 1e-4 && fabs(a.fvu / b.fvu - 1) < 1e-4, "%s, step %d: %.9g, %.9g", s->name, step, a.loss, b.loss);
    }
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_B_DEC; p++) {
        uint64_t n;
        const float *a = atmsae_model_view(atmsae_trainer_model(t), p, &n), *b = atmsae_model_view(atmsae_trainer_model(removed), p, &n);
        for (uint64_t i = 0; i < n; i++)
            ck_assert_msg(fabs((double)(a[i] - b[i])) < 1e-4, "%s: parameter %d [%d]: %.9g, %.9g", s->name, p, (int)i, (double)a[i], (double)b[i]);
    }
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(removed);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(clean_rows_are_not_touched)
{
    const setup *s = &setups[_i];
    const data *d = make_data(ATMSAE_F32, s->d_out, false);
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *t = new_trainer(ctx, s, 10), *off = new_trainer(ctx, s, 0);
    atmsae_trainer *const both[] = {t, off};
    for (int i = 0; i < 2; i++) {
        atmsae_batch b = batch_of(d, 0, TOTAL);
        ok(atmsae_trainer_prepare(both[i], &b), ctx);
        for (int step = 0; step < STEPS; step++) {
            b = batch_of(d, step * N, N);
            if (step == 3) b.row_weights = NULL;
            ok(atmsae_trainer_step(both[i], &b, NULL), ctx);
        }
        ok(atmsae_trainer_calibrate(both[i], &b), ctx);
    }
    same_model(t, off, s->name);
    ck_assert_uint_eq(atmsae_trainer_outlier_rows(t), 0);
    ck_assert_double_gt(atmsae_trainer_norm_limit(t, 0), 0);
    ck_assert_double_eq(atmsae_trainer_norm_limit(off, 0), 0);
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(off);
    atmsae_context_destroy(ctx);
}
END_TEST

/* A run that is saved and loaded in its middle, on another number of threads. */
START_TEST(resumed_runs_have_the_same_limit)
{
    const setup *s = &setups[_i];
    const data *d = make_data(ATMSAE_F32, s->d_out, true);
    atmsae_context *ctx[2] = {new_context(1, NULL), new_context(4, NULL)};
    atmsae_trainer *whole = new_trainer(ctx[0], s, 10), *t = new_trainer(ctx[1], s, 10);
    char path[] = "/tmp/atmsae-outliers-XXXXXX";
    ck_assert_int_ge(mkstemp(path), 0);
    atmsae_batch b = batch_of(d, 0, TOTAL);
    ok(atmsae_trainer_prepare(whole, &b), ctx[0]);
    ok(atmsae_trainer_prepare(t, &b), ctx[1]);
    for (int step = 0; step < STEPS; step++) {
        b = batch_of(d, step * N, N);
        ok(atmsae_trainer_step(whole, &b, NULL), ctx[0]);
        if (step == 0 || step == 4) { /* right after prepare, too */
            ok(atmsae_trainer_save(t, NULL, path), ctx[1]);
            atmsae_trainer_destroy(t);
            ok(atmsae_trainer_load(ctx[1], path, NULL, &t), ctx[1]);
            atmsae_trainer_config config = {.size = sizeof config};
            ok(atmsae_trainer_get_config(t, &config), ctx[1]);
            ck_assert_double_eq(config.max_norm, 10);
        }
        ok(atmsae_trainer_step(t, &b, NULL), ctx[1]);
    }
    same_model(whole, t, s->name);
    for (int y = 0; y < 2; y++)
        ck_assert(atmsae_trainer_norm_limit(whole, y) == atmsae_trainer_norm_limit(t, y));
    ck_assert_uint_gt(atmsae_trainer_outlier_rows(t), 15);
    ck_assert_uint_eq(atmsae_trainer_outlier_rows(whole), atmsae_trainer_outlier_rows(t));
    remove(path);
    atmsae_trainer_destroy(whole);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx[0]);
    atmsae_context_destroy(ctx[1]);
}
END_TEST

START_TEST(what_is_refused)
{
    const setup *s = &setups[2];
    data *d = make_data(ATMSAE_F32, 0, true);
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_trainer *t = new_trainer(ctx, s, 10), *clean = new_trainer(ctx, s, 10);
    atmsae_batch all = batch_of(d, 0, TOTAL), b = batch_of(d, 0, N);
    refused(atmsae_trainer_step(t, &b, NULL), ATMSAE_E_STATE, "atmsae_trainer_prepare", ctx);
    refused(atmsae_trainer_calibrate(t, &b), ATMSAE_E_STATE, "atmsae_trainer_prepare", ctx);
    ok(atmsae_trainer_prepare(t, &all), ctx);
    ok(atmsae_trainer_prepare(clean, &all), ctx);
    const double limit = atmsae_trainer_norm_limit(t, 0);

    static float zeros[N * D], far[N * D];
    for (int i = 0; i < N * D; i++)
        far[i] = 1e4f + (float)i;
    atmsae_batch other = b;
    other.row_weights = NULL;
    other.x = zeros;
    refused(atmsae_trainer_prepare(t, &other), ATMSAE_E_ARG, "median norm is 0", ctx);
    other.x = far;
    refused(atmsae_trainer_step(t, &other, NULL), ATMSAE_E_ARG, "are above the norm limit", ctx);
    refused(atmsae_trainer_calibrate(t, &other), ATMSAE_E_ARG, "are above the norm limit", ctx);
    for (int i = 0; i < N * D; i++)
        far[i] = i % D == 3 ? NAN : 1;
    refused(atmsae_trainer_prepare(t, &other), ATMSAE_E_NONFINITE, "all of its 256 rows have a NaN", ctx);
    ck_assert(atmsae_trainer_norm_limit(t, 0) == limit);
    same_model(t, clean, "refused");

    /* A bad row is bad, not long: it counts as such, and so does what is long beside it. */
    float *x = (float *)(void *)d->x;
    x[3 * D + 5] = INFINITY;
    x[4 * D + 5] = NAN;
    atmsae_step_stats stats = {.size = sizeof stats};
    ok(atmsae_trainer_step(t, &b, &stats), ctx);
    ck_assert_uint_eq(stats.bad_rows, 2);
    ck_assert_uint_eq(stats.outlier_rows, 2);
    float weights[N];
    for (int r = 0; r < N; r++)
        weights[r] = r == 3 || r == 4 ? 0 : d->weights[r];
    b.row_weights = weights;
    ok(atmsae_trainer_step(clean, &b, NULL), ctx);
    same_model(t, clean, "bad rows and outliers");
    atmsae_trainer_destroy(t);
    atmsae_trainer_destroy(clean);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- warnings -------------------------------------------------------------------------------------------------------------- */

enum { SAMPLE = 4000 };

/* Prepares a trainer on rows; what it logs. */
static heard prepared(const float *x, uint64_t n, uint64_t d, double max_norm)
{
    heard h;
    atmsae_context *ctx = new_context(2, &h);
    atmsae_model_config model;
    atmsae_trainer_config config;
    atmsae_model_config_init(&model, sizeof model);
    atmsae_trainer_config_init(&config, sizeof config);
    model.d_in = d;
    model.d_sae = 2 * d;
    model.k = 2;
    config.model = &model;
    config.max_norm = max_norm;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t), ctx);
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = n;
    b.x = x;
    ok(atmsae_trainer_prepare(t, &b), ctx);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
    return h;
}

static void warns(const char *kind, const heard *h, const char *text)
{
    const bool right = text ? strstr(h->text, text) != NULL && strstr(h->text, "hold") && h->warnings == 1 : h->warnings == 0;
    ck_assert_msg(right, "%s: %d warnings: %s", kind, h->warnings, h->text);
}

START_TEST(few_long_rows_are_told)
{
    static float x[SAMPLE * D];
    static const struct {
        const char *kind;
        int every, of; /* rows r % every < of are longer, */
        double times, spread; /* so many times, along one direction; norms of the others: exp(spread normal), */
        double common;        /* once this was added to all elements */
        const char *text;
    } kinds[] = {
        {"none", SAMPLE, 0, 1, 0, 0, NULL},
        {"BOS of a sequence of 128", 127, 1, 70, 0, 0, "max_norm 10"},
        {"BOS of a sequence of 16", 16, 1, 70, 0, 0, "max_norm 10"},
        {"sinks", 400, 1, 560, 0, 0, "norms of up to 5"},
        {"one row", SAMPLE, 1, 1e4, 0, 0, "max_norm 10"},
        {"a few, six times as long", 100, 1, 12, 0, 2, "max_norm 2."},
        {"norms that vary", SAMPLE, 0, 1, 0.5, 0, NULL},
        {"norms that vary much", SAMPLE, 0, 1, 0.9, 0, NULL},
        {"long rows of small effect", 1000, 1, 12, 0, 0, NULL},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        noise_state = 3;
        for (int r = 0; r < SAMPLE; r++) {
            const bool longer = r % kinds[k].every < kinds[k].of;
            const double scale = exp(kinds[k].spread * normal());
            for (int j = 0; j < D; j++)
                x[r * D + j] = (float)(longer ? (j == 7) * kinds[k].times * sqrt(D) : kinds[k].common + scale * normal());
        }
        const heard h = prepared(x, SAMPLE, D, 0);
        warns(kinds[k].kind, &h, kinds[k].text);
        if (!kinds[k].text || !strstr(kinds[k].text, "max_norm 10")) continue;
        const heard limited = prepared(x, SAMPLE, D, 10);
        warns(kinds[k].kind, &limited, NULL);
    }
    /* Rows of one length differ by direction only. */
    for (int r = 0; r < SAMPLE; r++)
        for (int j = 0; j < D; j++)
            x[r * D + j] = j == r % D ? 5.0f : 0.0f;
    heard h = prepared(x, SAMPLE, D, 0);
    ck_assert_msg(!strstr(h.text, "hold"), "%s", h.text);
    /* A common part hides what is far from it. */
    for (int r = 0; r < SAMPLE; r++)
        for (int j = 0; j < D; j++)
            x[r * D + j] = (float)((j == 0) * 100 + 0.1 * normal() + (r % 200 == 9 && j == 5 ? 60 : 0));
    h = prepared(x, SAMPLE, D, 0);
    ck_assert_msg(strstr(h.text, "do not tell them apart: take them out of the data"), "%s", h.text);
}
END_TEST

/* Real rows, and how far they are from the limit. */
START_TEST(real_rows_are_not)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/../examples/data/activations-train.npy", getenv("ATMSAE_TESTS"));
    enum { WIDTH = 576, ROWS = 8192 };
    float *x = malloc(sizeof(float) * WIDTH * ROWS);
    atmsae_context *ctx = new_context(2, NULL);
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 0;
    atmsae_source *source;
    uint64_t got;
    ok(atmsae_source_create(ctx, &config, &source), ctx);
    ok(atmsae_source_add_file(source, path, NULL, 0), ctx);
    ok(atmsae_source_next(source, ROWS, x, &got), ctx);
    ck_assert_uint_eq(got, ROWS);
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = ROWS;
    b.x = x;
    atmsae_row_norms n = {.size = sizeof n};
    ok(atmsae_batch_norms(ctx, &b, WIDTH, &n), ctx);
    ck_assert_msg(n.top_share < 0.05 && n.largest < 2 * n.median, "share %g, largest %g, median %g", n.top_share, n.largest, n.median);
    const heard h = prepared(x, ROWS, WIDTH, 0);
    warns("real rows", &h, NULL);
    free(x);
    atmsae_source_destroy(source);
    atmsae_context_destroy(ctx);
}
END_TEST

/* Long rows that come after those given to prepare are told too, and then nothing that follows from them. */
START_TEST(late_long_rows_are_told)
{
    data *d = make_data(ATMSAE_F32, 0, _i == 1);
    heard h;
    atmsae_context *ctx = new_context(2, &h);
    const double max_norm = _i == 2 ? 10 : 0;
    atmsae_model_config model;
    atmsae_trainer_config config;
    atmsae_model_config_init(&model, sizeof model);
    atmsae_trainer_config_init(&config, sizeof config);
    model.d_in = D;
    model.d_sae = F;
    model.k = 8;
    config.model = &model;
    config.batch_rows = N;
    config.total_rows = 220 * N;
    config.max_norm = max_norm;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t), ctx);
    atmsae_batch b = batch_of(d, 0, 20); /* the 21st is the first long one */
    ok(atmsae_trainer_prepare(t, &b), ctx);
    ck_assert_int_eq(h.warnings, 0);
    if (_i == 2) d = make_data(ATMSAE_F32, 0, true);
    for (int step = 0; step < 220; step++) {
        b = batch_of(d, step % STEPS * N, N);
        ok(atmsae_trainer_step(t, &b, NULL), ctx);
    }
    const char *told = strstr(h.text, "of the rows hold");
    if (_i == 1) ck_assert_msg(told && h.warnings == 1, "%d warnings: %s", h.warnings, h.text);
    else ck_assert_msg(!told, "%s", h.text);
    atmsae_trainer_destroy(t);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outliers");
    TCase *t = tcase_create("outliers");
    tcase_add_loop_test(t, norms_are_those_of_the_definition, 0, 7 * 3);
    tcase_add_test(t, nothing_to_measure);
    tcase_add_loop_test(t, limited_rows_have_weight_0, 0, 3);
    tcase_add_loop_test(t, left_out_rows_are_rows_of_weight_0, 0, 3 * SETUPS);
    tcase_add_loop_test(t, left_out_rows_might_as_well_be_removed, 0, SETUPS);
    tcase_add_loop_test(t, clean_rows_are_not_touched, 0, SETUPS);
    tcase_add_loop_test(t, resumed_runs_have_the_same_limit, 0, SETUPS);
    tcase_add_test(t, what_is_refused);
    tcase_add_test(t, few_long_rows_are_told);
    tcase_add_test(t, real_rows_are_not);
    tcase_add_loop_test(t, late_long_rows_are_told, 0, 3);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
