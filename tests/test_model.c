/* SPDX-License-Identifier: MIT
 *
 * The model's search and selection against a naive one: the claim is equality to the bit, over odd
 * shapes, ties, masks and thread counts. Also misuse of the model's and codes' functions.
 */
#include "sae/sae.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static atmsae_context *new_context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

static void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static float uniform(uint64_t *state) /* [-1, 1) */
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) * 0x1p-23f - 1;
}

static float *random_rows(uint64_t n, uint64_t d, uint64_t seed)
{
    float *x = malloc(n * d * sizeof *x);
    for (uint64_t j = 0; j < n * d; j++)
        x[j] = uniform(&seed);
    return x;
}

static atmsae_model_config config_of(int32_t activation, uint64_t d, uint64_t F, double k)
{
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    c.d_in = d;
    c.d_sae = F;
    c.activation = activation;
    c.k = k;
    c.seed = 7;
    return c;
}

static atmsae_model *new_model(atmsae_context *ctx, const atmsae_model_config *config)
{
    atmsae_model *m;
    ok(atmsae_model_create(ctx, config, &m), ctx);
    uint64_t state = 3, F = config->d_sae;
    float *b = malloc(F * sizeof *b);
    for (uint64_t i = 0; i < F; i++)
        b[i] = 0.1f * uniform(&state);
    ok(atmsae_model_set(m, ATMSAE_B_ENC, b, F), ctx);
    free(b);
    return m;
}

static atmsae_batch batch_of(const float *x, uint64_t n)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.x = x;
    b.n_rows = n;
    return b;
}

/* ---- the naive selection ------------------------------------------------------------------------------ */

static int by_rank(const void *a, const void *b)
{
    return ams_before(a, b) ? -1 : ams_before(b, a) ? 1 : 0;
}

static int by_place(const void *a, const void *b)
{
    const ams_entry *x = a, *y = b;
    if (x->row != y->row) return x->row < y->row ? -1 : 1;
    return x->latent < y->latent ? -1 : x->latent > y->latent;
}

/* Entries of rows 0..n-1 that are eligible and above their limit, in order of rank. */
static uint64_t naive_entries(const atmsae_model *m, const float *xt, uint64_t n, const atmsae_mask *mask,
                              const float *weights, float low_shift, ams_entry *out)
{
    uint64_t count = 0;
    for (uint64_t r = 0; r < n; r++) {
        if (weights && weights[r] == 0) continue;
        for (uint64_t i = 0; i < m->d_sae; i++) {
            if (atmsae_mask_test(mask, r, i)) continue;
            float z = ams_dot(m->w_enc + i * m->d_in, xt + r * m->d_in, m->d_in) + m->b_enc[i];
            float low = m->threshold ? m->threshold[i] - low_shift : 0;
            if (z > low) out[count++] = (ams_entry){z, (uint32_t)r, (uint32_t)i};
        }
    }
    qsort(out, count, sizeof *out, by_rank);
    return count;
}

static uint64_t naive_topk(ams_entry *e, uint64_t count, uint64_t n, uint64_t k)
{
    uint64_t *taken = calloc(n, sizeof *taken), kept = 0;
    for (uint64_t p = 0; p < count; p++)
        if (taken[e[p].row]++ < k) e[kept++] = e[p];
    free(taken);
    return kept;
}

static void assert_equal(const atmsae_codes *codes, ams_entry *e, uint64_t count, bool values_are_z)
{
    atmsae_codes_view v = {.size = sizeof v};
    ck_assert_int_eq(atmsae_codes_get(codes, &v), ATMSAE_OK);
    ck_assert_uint_eq(v.row_start[v.n_rows], count);
    qsort(e, count, sizeof *e, by_place);
    uint64_t p = 0;
    for (uint64_t r = 0; r < v.n_rows; r++)
        for (; p < v.row_start[r + 1]; p++) {
            ck_assert_uint_eq(e[p].row, r);
            ck_assert_uint_eq(e[p].latent, v.latent[p]);
            if (values_are_z) ck_assert_msg(memcmp(&e[p].value, &v.value[p], sizeof(float)) == 0, "value of entry %d", (int)p);
        }
}

/* ---- the grid ------------------------------------------------------------------------------------------- */

static const struct {
    uint64_t d, F, n;
    double k;
} shapes[] = {
    {1, 1, 1, 1},      {1, 33, 5, 3},    {1, 2500, 13, 7}, /* d = 1 with unit rows: nearly all values are ties */
    {3, 5, 2, 5},      {7, 64, 70, 64},  {19, 700, 33, 9}, {64, 1500, 5, 1},
    {65, 1025, 4, 40}, {130, 2100, 67, 32}, {575, 300, 9, 20}, {577, 1030, 40, 12}, {16, 40, 1, 40},
};

static void check_shape(uint32_t threads, size_t s, int32_t activation, int mask_kind)
{
    atmsae_context *ctx = new_context(threads);
    const uint64_t d = shapes[s].d, F = shapes[s].F, n = shapes[s].n;
    atmsae_model_config config = config_of(activation, d, F, shapes[s].k);
    config.init_threshold = 0.3;
    config.bandwidth = 0.2;
    atmsae_model *m = new_model(ctx, &config);
    float *x = random_rows(n, d, 11 + s), *weights = malloc(n * sizeof *weights);
    for (uint64_t r = 0; r < n; r++)
        weights[r] = r % 5 == 3 ? 0 : 1;
    if (n > 6) memset(x + 6 * d, 0, d * sizeof *x); /* a zero row: values are the biases */
    for (uint64_t j = 0; n > 8 && j < d; j++)
        x[8 * d + j] *= 3000; /* one row far longer than the others */
    uint8_t *masked = malloc(F);
    double *p = malloc(F * sizeof *p);
    for (uint64_t i = 0; i < F; i++) {
        masked[i] = mask_kind == 3 || i % 3 == 1;
        p[i] = (double)(i % 4) / 4;
    }
    atmsae_mask mask = {.size = sizeof mask, .d_sae = F, .seed = 5, .step = 9};
    mask.masked = mask_kind == 1 || mask_kind == 3 ? masked : NULL;
    mask.p = mask_kind == 2 ? p : NULL;

    atmsae_batch b = batch_of(x, n);
    b.row_weights = weights;
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    options.mask = mask_kind ? &mask : NULL;
    atmsae_codes *codes;
    ok(atmsae_codes_create(ctx, &codes), ctx);
    ok(atmsae_forward(m, &b, &options, codes, NULL), ctx);

    ams_entry *e = malloc(n * F * sizeof *e);
    uint64_t count = naive_entries(m, codes->x, n, options.mask, weights, 0.1f, e), rows = 0;
    for (uint64_t r = 0; r < n; r++)
        rows += weights[r] != 0;
    if (activation == ATMSAE_TOPK) count = naive_topk(e, count, n, (uint64_t)shapes[s].k);
    if (activation == ATMSAE_BATCHTOPK && count > (uint64_t)(shapes[s].k * (double)rows))
        count = (uint64_t)(shapes[s].k * (double)rows);
    if (mask_kind == 3) ck_assert_uint_eq(count, 0);
    assert_equal(codes, e, count, activation != ATMSAE_JUMPRELU && activation != ATMSAE_GATED);
    free(e);
    free(x);
    free(weights);
    free(masked);
    free(p);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
}

static const int32_t activations[] = {ATMSAE_RELU, ATMSAE_TOPK, ATMSAE_BATCHTOPK, ATMSAE_JUMPRELU, ATMSAE_GATED};
enum { SHAPES = sizeof shapes / sizeof *shapes, ACTIVATIONS = sizeof activations / sizeof *activations };

START_TEST(selection_equals_the_naive_one)
{
    const uint32_t threads[] = {1, 2, 3, 7};
    for (size_t a = 0; a < ACTIVATIONS; a++)
        for (int mask_kind = 0; mask_kind < 4; mask_kind++)
            check_shape(threads[(size_t)_i % 4], (size_t)_i, activations[a], mask_kind);
}
END_TEST

/* Same values everywhere: every candidate list overflows with ties, which the exact path resolves. */
START_TEST(ties_go_to_the_lower_index)
{
    for (uint32_t threads = 1; threads <= 2; threads++)
        for (int batch = 0; batch < 2; batch++) {
            atmsae_context *ctx = new_context(threads);
            const uint64_t d = 4, F = 3000, n = 40, k = 3;
            atmsae_model_config config = config_of(batch ? ATMSAE_BATCHTOPK : ATMSAE_TOPK, d, F, (double)k);
            atmsae_model *m;
            ok(atmsae_model_create(ctx, &config, &m), ctx);
            float *w = malloc(F * d * sizeof *w), *x = malloc(n * d * sizeof *x);
            for (uint64_t j = 0; j < F * d; j++)
                w[j] = 0.5f;
            for (uint64_t j = 0; j < n * d; j++)
                x[j] = 1;
            ok(atmsae_model_set(m, ATMSAE_W_ENC, w, F * d), ctx);
            atmsae_codes *codes;
            ok(atmsae_codes_create(ctx, &codes), ctx);
            atmsae_batch b = batch_of(x, n);
            ok(atmsae_forward(m, &b, NULL, codes, NULL), ctx);
            atmsae_codes_view v = {.size = sizeof v};
            ok(atmsae_codes_get(codes, &v), ctx);
            ck_assert_uint_eq(v.row_start[n], n * k);
            for (uint64_t p = 0; p < n * k; p++)
                ck_assert_uint_eq(v.latent[p], batch ? p : p % k);
            if (batch) ck_assert_uint_eq(v.row_start[1], n * k); /* all of them in the first row */
            free(w);
            free(x);
            atmsae_codes_destroy(codes);
            atmsae_model_destroy(m);
            atmsae_context_destroy(ctx);
        }
}
END_TEST

/* What row r got among the others is what it got alone, to the bit. */
static void assert_same_row(const atmsae_codes_view *all, uint64_t r, const atmsae_codes_view *alone)
{
    uint64_t first = all->row_start[r], count = all->row_start[r + 1] - first;
    ck_assert_uint_eq(alone->row_start[1], count);
    ck_assert_mem_eq(alone->latent, all->latent + first, count * sizeof *alone->latent);
    ck_assert_mem_eq(alone->value, all->value + first, count * sizeof *alone->value);
}

/* Rows so small that their squares vanish, and latents that differ in their last bits: what the
 * product says and what ams_dot says must not be taken for the same. */
START_TEST(small_rows_do_not_depend_on_the_others)
{
    const uint64_t d = 64, F = 1200, n = 24;
    atmsae_context *ctx = new_context(2);
    atmsae_model_config config = config_of(ATMSAE_TOPK, d, F, 4);
    atmsae_model *m;
    ok(atmsae_model_create(ctx, &config, &m), ctx);
    float *w = random_rows(F, d, 5), *x = random_rows(n, d, 6);
    for (uint64_t i = 0; i < F * d; i++)
        w[i] = w[i % (3 * d)] * (1 + 1e-7f * (float)(i % 5));
    for (uint64_t j = 0; j < n * d; j++)
        x[j] *= 1e-24f;
    ok(atmsae_model_set(m, ATMSAE_W_ENC, w, F * d), ctx);
    atmsae_codes *codes, *single;
    ok(atmsae_codes_create(ctx, &codes), ctx);
    ok(atmsae_codes_create(ctx, &single), ctx);
    atmsae_batch b = batch_of(x, n);
    ok(atmsae_encode(m, &b, codes), ctx);
    atmsae_codes_view v = {.size = sizeof v}, one = {.size = sizeof one};
    ok(atmsae_codes_get(codes, &v), ctx);
    for (uint64_t r = 0; r < n; r++) {
        atmsae_batch row = batch_of(x + r * d, 1);
        ok(atmsae_encode(m, &row, single), ctx);
        ok(atmsae_codes_get(single, &one), ctx);
        assert_same_row(&v, r, &one);
    }
    free(w);
    free(x);
    atmsae_codes_destroy(codes);
    atmsae_codes_destroy(single);
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- inference ---------------------------------------------------------------------------------------- */

START_TEST(a_row_does_not_depend_on_the_others)
{
    const uint64_t d = 70, F = 1300, n = 50;
    atmsae_context *ctx = new_context(2);
    for (size_t a = 0; a < ACTIVATIONS; a++) {
        atmsae_model_config config = config_of(activations[a], d, F, 8);
        config.init_threshold = 0.3;
        atmsae_model *m = new_model(ctx, &config);
        float *x = random_rows(n, d, 5), *all = malloc(n * d * sizeof *all), *one = malloc(d * sizeof *one);
        atmsae_batch b = batch_of(x, n);
        ok(atmsae_model_prepare(m, &b), ctx);
        ok(atmsae_model_calibrate(m, &b), ctx);
        atmsae_codes *codes, *single;
        ok(atmsae_codes_create(ctx, &codes), ctx);
        ok(atmsae_codes_create(ctx, &single), ctx);
        ok(atmsae_encode(m, &b, codes), ctx);
        ok(atmsae_decode(m, codes, all, 0), ctx);
        atmsae_codes_view v = {.size = sizeof v}, w = {.size = sizeof w};
        ok(atmsae_codes_get(codes, &v), ctx);
        ck_assert_uint_gt(v.row_start[n], n);
        for (uint64_t r = 0; r < n; r++) {
            atmsae_batch row = batch_of(x + r * d, 1);
            ok(atmsae_encode(m, &row, single), ctx);
            ok(atmsae_codes_get(single, &w), ctx);
            assert_same_row(&v, r, &w);
            ok(atmsae_decode(m, single, one, 0), ctx);
            ck_assert_mem_eq(one, all + r * d, d * sizeof *one);
            for (uint64_t p = 0; p < w.row_start[1]; p++)
                ck_assert_float_gt(w.value[p], 0);
        }
        atmsae_codes_destroy(codes);
        atmsae_codes_destroy(single);
        atmsae_model_destroy(m);
        free(x);
        free(all);
        free(one);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(calibration_keeps_k_a_row)
{
    const uint64_t d = 24, F = 500, n = 800;
    atmsae_context *ctx = new_context(2);
    for (double k = 2.5; k < 40; k *= 3) {
        atmsae_model_config config = config_of(ATMSAE_BATCHTOPK, d, F, k);
        atmsae_model *m = new_model(ctx, &config);
        float *x = random_rows(n, d, 77);
        atmsae_batch b = batch_of(x, n);
        atmsae_codes *codes;
        ok(atmsae_codes_create(ctx, &codes), ctx);
        ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_STATE);
        ok(atmsae_model_prepare(m, &b), ctx);
        ok(atmsae_model_calibrate(m, &b), ctx);
        ok(atmsae_encode(m, &b, codes), ctx);
        atmsae_codes_view v = {.size = sizeof v};
        ok(atmsae_codes_get(codes, &v), ctx);
        ck_assert_uint_eq(v.row_start[n], (uint64_t)(k * (double)n));
        /* The threshold is half-way between the smallest kept value and the next one. */
        float theta = *atmsae_model_view(m, ATMSAE_BATCH_THRESHOLD, NULL), smallest = INFINITY, next = 0;
        for (uint64_t p = 0; p < v.row_start[n]; p++)
            smallest = fminf(smallest, v.value[p]);
        ck_assert(theta > 0 && theta < smallest);
        const float lower = theta - (smallest - theta) * 1.5f;
        ok(atmsae_model_set(m, ATMSAE_BATCH_THRESHOLD, &lower, 1), ctx);
        ok(atmsae_encode(m, &b, codes), ctx);
        ok(atmsae_codes_get(codes, &v), ctx);
        for (uint64_t p = 0; p < v.row_start[n]; p++)
            if (v.value[p] < theta) next = fmaxf(next, v.value[p]);
        ck_assert(fabsf((smallest + next) / 2 - theta) <= 1e-6f * theta);
        atmsae_codes_destroy(codes);
        atmsae_model_destroy(m);
        free(x);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(calibration_without_enough_positives_is_zero)
{
    atmsae_context *ctx = new_context(1);
    atmsae_model_config config = config_of(ATMSAE_BATCHTOPK, 3, 4, 4);
    atmsae_model *m = new_model(ctx, &config);
    float *x = random_rows(6, 3, 1);
    atmsae_batch b = batch_of(x, 6);
    ok(atmsae_model_calibrate(m, &b), ctx);
    ck_assert_float_eq(*atmsae_model_view(m, ATMSAE_BATCH_THRESHOLD, NULL), 0);
    free(x);
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- rows in, scales ------------------------------------------------------------------------------------- */

START_TEST(types_and_strides_do_not_matter)
{
    const uint64_t d = 37, F = 90, n = 9, ld = 50;
    atmsae_context *ctx = new_context(2);
    atmsae_model_config config = config_of(ATMSAE_TOPK, d, F, 6);
    atmsae_model *m = new_model(ctx, &config);
    uint16_t *half = calloc(n * ld, sizeof *half), *brain = calloc(n * ld, sizeof *brain);
    float *from_half = malloc(n * d * sizeof *from_half), *from_brain = malloc(n * d * sizeof *from_brain);
    uint64_t state = 8;
    for (uint64_t r = 0; r < n; r++)
        for (uint64_t j = 0; j < d; j++) {
            uint32_t bits;
            float value = uniform(&state);
            memcpy(&bits, &value, sizeof bits);
            brain[r * ld + j] = (uint16_t)(bits >> 16);
            bits &= 0xffff0000;
            memcpy(&from_brain[r * d + j], &bits, sizeof bits);
            half[r * ld + j] = (uint16_t)(0x3000 + (uint16_t)(fabsf(value) * 3000) + (value < 0 ? 0x8000 : 0));
            from_half[r * d + j] = ams_f16_to_f32(half[r * ld + j]);
        }
    for (uint64_t r = 0; r < n; r++) /* what lies between rows is nobody's business */
        for (uint64_t j = d; j < ld; j++)
            half[r * ld + j] = brain[r * ld + j] = 0x7fff;
    const struct {
        const void *data;
        int32_t type;
        const float *plain;
    } cases[] = {{half, ATMSAE_F16, from_half}, {brain, ATMSAE_BF16, from_brain}};
    atmsae_codes *a, *b;
    ok(atmsae_codes_create(ctx, &a), ctx);
    ok(atmsae_codes_create(ctx, &b), ctx);
    for (int c = 0; c < 2; c++) {
        atmsae_batch strided = batch_of(cases[c].data, n), plain = batch_of(cases[c].plain, n);
        strided.x_type = cases[c].type;
        strided.ld_x = ld;
        ok(atmsae_model_prepare(m, &plain), ctx);
        float scale = *atmsae_model_view(m, ATMSAE_INPUT_SCALE, NULL);
        ok(atmsae_model_prepare(m, &strided), ctx);
        ck_assert_float_eq(scale, *atmsae_model_view(m, ATMSAE_INPUT_SCALE, NULL));
        ok(atmsae_encode(m, &strided, a), ctx);
        ok(atmsae_encode(m, &plain, b), ctx);
        atmsae_codes_view v = {.size = sizeof v}, w = {.size = sizeof w};
        ok(atmsae_codes_get(a, &v), ctx);
        ok(atmsae_codes_get(b, &w), ctx);
        ck_assert_mem_eq(v.row_start, w.row_start, (n + 1) * sizeof *v.row_start);
        ck_assert_mem_eq(v.value, w.value, v.row_start[n] * sizeof *v.value);
        ck_assert_mem_eq(v.latent, w.latent, v.row_start[n] * sizeof *v.latent);
    }
    atmsae_codes_destroy(a);
    atmsae_codes_destroy(b);
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
    free(half);
    free(brain);
    free(from_half);
    free(from_brain);
}
END_TEST

START_TEST(prepare_sets_scale_mean_and_median)
{
    const uint64_t d = 6, n = 401;
    atmsae_context *ctx = new_context(2);
    float *x = random_rows(n, d, 4);
    for (uint64_t r = 0; r < n; r++)
        for (uint64_t j = 0; j < d; j++)
            x[r * d + j] += (float)j + (r % 10 == 0 ? 50.0f : 0); /* outliers move the mean, hardly the median */
    double norm = 0, mean[6] = {0};
    for (uint64_t r = 0; r < n; r++) {
        double squares = 0;
        for (uint64_t j = 0; j < d; j++) {
            squares += (double)x[r * d + j] * (double)x[r * d + j];
            mean[j] += (double)x[r * d + j] / (double)n;
        }
        norm += sqrt(squares) / (double)n;
    }
    atmsae_batch b = batch_of(x, n);
    for (int32_t init = ATMSAE_B_DEC_ZERO; init <= ATMSAE_B_DEC_MEDIAN; init++) {
        atmsae_model_config config = config_of(ATMSAE_TOPK, d, 8, 2);
        config.b_dec_init = init;
        atmsae_model *m = new_model(ctx, &config);
        ok(atmsae_model_prepare(m, &b), ctx);
        double s = sqrt((double)d) / norm;
        ck_assert_double_eq_tol((double)*atmsae_model_view(m, ATMSAE_INPUT_SCALE, NULL), s, 1e-6 * s);
        const float *b_dec = atmsae_model_view(m, ATMSAE_B_DEC, NULL);
        if (init == ATMSAE_B_DEC_ZERO)
            for (uint64_t j = 0; j < d; j++)
                ck_assert_float_eq(b_dec[j], 0);
        if (init == ATMSAE_B_DEC_MEAN)
            for (uint64_t j = 0; j < d; j++)
                ck_assert_double_eq_tol((double)b_dec[j], s * mean[j], 1e-5);
        if (init == ATMSAE_B_DEC_MEDIAN) { /* the gradient of the sum of distances vanishes there */
            double pull[6] = {0}, size = 0;
            for (uint64_t r = 0; r < n; r++) {
                double delta[6], squares = 0;
                for (uint64_t j = 0; j < d; j++) {
                    delta[j] = (double)x[r * d + j] - (double)b_dec[j] / s;
                    squares += delta[j] * delta[j];
                }
                for (uint64_t j = 0; j < d; j++)
                    pull[j] += delta[j] / sqrt(squares) / (double)n;
            }
            for (uint64_t j = 0; j < d; j++)
                size += pull[j] * pull[j];
            ck_assert_double_lt(sqrt(size), 1e-3);
        }
        atmsae_model_destroy(m);
    }
    free(x);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(rows_of_weight_zero_take_no_part)
{
    const uint64_t d = 5, n = 12;
    atmsae_context *ctx = new_context(2);
    float *x = random_rows(n, d, 3), *kept = malloc(n * d * sizeof *kept), weights[12];
    uint64_t n_kept = 0;
    for (uint64_t r = 0; r < n; r++) {
        weights[r] = r % 3 == 1 ? 0 : 1;
        if (weights[r] > 0)
            memcpy(kept + n_kept++ * d, x + r * d, d * sizeof *x);
        else
            x[r * d + 2] = r == 1 ? NAN : 1e30f;
    }
    for (int32_t init = ATMSAE_B_DEC_MEAN; init <= ATMSAE_B_DEC_MEDIAN; init++) {
        atmsae_model_config config = config_of(ATMSAE_RELU, d, 9, 1);
        config.b_dec_init = init;
        atmsae_model *a = new_model(ctx, &config), *b = new_model(ctx, &config);
        atmsae_batch with = batch_of(x, n), without = batch_of(kept, n_kept);
        with.row_weights = weights;
        ok(atmsae_model_prepare(a, &with), ctx);
        ok(atmsae_model_prepare(b, &without), ctx);
        ck_assert_mem_eq(atmsae_model_view(a, ATMSAE_B_DEC, NULL), atmsae_model_view(b, ATMSAE_B_DEC, NULL), d * sizeof *x);
        ck_assert_float_eq(*atmsae_model_view(a, ATMSAE_INPUT_SCALE, NULL), *atmsae_model_view(b, ATMSAE_INPUT_SCALE, NULL));
        atmsae_codes *codes;
        ok(atmsae_codes_create(ctx, &codes), ctx);
        atmsae_loss p = {.size = sizeof p}, q = {.size = sizeof q};
        ok(atmsae_forward(a, &with, NULL, codes, &p), ctx);
        ok(atmsae_forward(b, &without, NULL, codes, &q), ctx);
        ck_assert(p.total == q.total && p.l0 == q.l0 && p.rows == q.rows && p.fvu == q.fvu);
        atmsae_codes_destroy(codes);
        atmsae_model_destroy(a);
        atmsae_model_destroy(b);
    }
    free(x);
    free(kept);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(prepare_never_breaks_a_model)
{
    const uint64_t d = 4, n = 6;
    const float sizes[] = {0, 1e-42f, 1e-38f, 1e37f};
    atmsae_context *ctx = new_context(1);
    for (int s = 0; s < 4; s++)
        for (int32_t init = ATMSAE_B_DEC_ZERO; init <= ATMSAE_B_DEC_MEDIAN; init++) {
            atmsae_model_config config = config_of(ATMSAE_TOPK, d, 8, 2);
            config.b_dec_init = init;
            atmsae_model *m = new_model(ctx, &config);
            float *x = random_rows(n, d, 2);
            for (uint64_t j = 0; j < n * d; j++)
                x[j] *= sizes[s];
            atmsae_batch b = batch_of(x, n);
            atmsae_status status = atmsae_model_prepare(m, &b);
            ck_assert_int_eq(status, s == 1 ? ATMSAE_E_NONFINITE : ATMSAE_OK);
            float scale = *atmsae_model_view(m, ATMSAE_INPUT_SCALE, NULL);
            ck_assert(isfinite(scale) && scale > 0);
            ck_assert(ams_all_finite(atmsae_model_view(m, ATMSAE_B_DEC, NULL), d));
            free(x);
            atmsae_model_destroy(m);
        }
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- misuse ------------------------------------------------------------------------------------------------ */

START_TEST(bad_settings_are_named)
{
    atmsae_context *ctx = new_context(1);
    const uint64_t falling[] = {8, 4}, too_wide[] = {64};
    struct {
        const char *word;
        atmsae_model_config c;
    } cases[32];
    int n = 0;
#define CASE(text, change)                                                  \
    do {                                                                    \
        cases[n].word = text;                                               \
        cases[n].c = config_of(ATMSAE_BATCHTOPK, 8, 64, 4);                 \
        atmsae_model_config *c = &cases[n++].c;                             \
        change;                                                             \
    } while (0)
    CASE("d_in = 0", c->d_in = 0);
    CASE("d_in", c->d_in = 1u << 25);
    CASE("d_sae = 0", c->d_sae = 0);
    CASE("d_sae", c->d_sae = UINT64_MAX);
    CASE("activation = 0", c->activation = 0);
    CASE("activation = 7", c->activation = 7);
    CASE("k = 65", c->k = 65);
    CASE("at most d_sae = 64", c->k = 65);
    CASE("k = 0", c->k = 0);
    CASE("k = nan", c->k = NAN);
    CASE("k = 2.5", (c->activation = ATMSAE_TOPK, c->k = 2.5));
    CASE("decoder_norm", c->decoder_norm = 3);
    CASE("input_norm", c->input_norm = -1);
    CASE("b_dec_init", c->b_dec_init = 9);
    CASE("transcoder", c->transcoder = 2);
    CASE("uncentred", c->uncentred = -1);
    CASE("uncentred", (c->transcoder = 1, c->uncentred = 2));
    CASE("sparsity_coef", c->sparsity_coef = -1);
    CASE("bandwidth", (c->activation = ATMSAE_JUMPRELU, c->bandwidth = 0));
    CASE("init_threshold", (c->activation = ATMSAE_JUMPRELU, c->init_threshold = -1));
    CASE("target_l0", c->target_l0 = 3);
    CASE("target_l0", (c->activation = ATMSAE_JUMPRELU, c->target_l0 = 65));
    CASE("sparsity_coef = 0", (c->activation = ATMSAE_GATED, c->target_l0 = 3, c->sparsity_coef = 0));
    CASE("aux_coef", c->aux_coef = -1);
    CASE("tanh_scale", c->tanh_scale = NAN);
    CASE("pre_act_coef", c->pre_act_coef = INFINITY);
    CASE("decoder_init_norm", c->decoder_init_norm = 0);
    CASE("n_prefixes", c->n_prefixes = 64);
    CASE("prefixes is NULL", c->n_prefixes = 1);
    CASE("prefixes[1] = 4", (c->n_prefixes = 2, c->prefixes = falling));
    CASE("prefixes[0] = 64", (c->n_prefixes = 1, c->prefixes = too_wide));
#undef CASE
    for (int i = 0; i < n; i++) {
        atmsae_model *m = (atmsae_model *)ctx;
        ck_assert_int_eq(atmsae_model_create(ctx, &cases[i].c, &m), ATMSAE_E_ARG);
        ck_assert_ptr_null(m);
        ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].word), "\"%s\" does not say \"%s\"",
                      atmsae_last_error(ctx), cases[i].word);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(bad_batches_are_refused)
{
    const uint64_t d = 5, n = 7;
    atmsae_context *ctx = new_context(2);
    atmsae_model_config config = config_of(ATMSAE_TOPK, d, 20, 3);
    atmsae_model *m = new_model(ctx, &config);
    float *x = random_rows(n, d, 2), weights[7] = {1, 1, 1, 1, 1, 1, 1};
    atmsae_codes *codes;
    ok(atmsae_codes_create(ctx, &codes), ctx);
    atmsae_codes_view v = {.size = sizeof v};
    ck_assert_int_eq(atmsae_codes_get(codes, &v), ATMSAE_E_STATE);
    float out[35];
    ck_assert_int_eq(atmsae_decode(m, codes, out, 0), ATMSAE_E_STATE);
    atmsae_gradients *g;
    ok(atmsae_gradients_create(m, &g), ctx);
    ck_assert_int_eq(atmsae_backward(m, codes, g), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_gradients_get(g, ATMSAE_B_DEC, out, d), ATMSAE_E_STATE);

    atmsae_batch b = batch_of(x, n);
    b.n_rows = 0;
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ARG);
    b = batch_of(NULL, n);
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ARG);
    b = batch_of(x, n);
    b.ld_x = d - 1;
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ARG);
    b = batch_of(x, n);
    b.x_type = 4;
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ARG);
    b = batch_of(x, n - 1);
    b.x = (const char *)b.x + 2;
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "aligned"));
    b = batch_of(x, n);
    b.size = 3;
    ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_ABI);
    b = batch_of(x, n);
    b.row_weights = weights;
    weights[4] = -1;
    ck_assert_int_eq(atmsae_forward(m, &b, NULL, codes, NULL), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "row_weights[4]"));
    memset(weights, 0, sizeof weights);
    ck_assert_int_eq(atmsae_forward(m, &b, NULL, codes, NULL), ATMSAE_E_ARG);

    for (int special = 0; special < 3; special++) {
        b = batch_of(x, n);
        float old = x[5 * d + 2];
        x[5 * d + 2] = special == 0 ? NAN : special == 1 ? INFINITY : -INFINITY;
        ck_assert_int_eq(atmsae_encode(m, &b, codes), ATMSAE_E_NONFINITE);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "x: row 5"));
        ck_assert_int_eq(atmsae_model_prepare(m, &b), ATMSAE_E_NONFINITE);
        b.y = x;
        float *good = random_rows(n, d, 3);
        b.x = good;
        ck_assert_int_eq(atmsae_forward(m, &b, NULL, codes, NULL), ATMSAE_E_NONFINITE);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "y: row 5"));
        free(good);
        x[5 * d + 2] = old;
    }
    b = batch_of(x, n);
    ok(atmsae_encode(m, &b, codes), ctx); /* all of it left the handles usable */
    ck_assert_int_eq(atmsae_backward(m, codes, g), ATMSAE_E_STATE); /* encoded, not forward */
    uint32_t dead[2] = {4, 4};
    atmsae_forward_options o;
    atmsae_forward_options_init(&o, sizeof o);
    o.dead = dead;
    o.n_dead = 2;
    ck_assert_int_eq(atmsae_forward(m, &b, &o, codes, NULL), ATMSAE_E_ARG);
    o.n_dead = 0;
    o.sparsity_scale = -0.5;
    ck_assert_int_eq(atmsae_forward(m, &b, &o, codes, NULL), ATMSAE_E_ARG);
    float bad[20] = {0};
    bad[3] = NAN;
    ck_assert_int_eq(atmsae_model_set(m, ATMSAE_B_ENC, bad, 20), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_set(m, ATMSAE_B_ENC, bad, 19), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_set(m, ATMSAE_THRESHOLD, bad, 20), ATMSAE_E_ARG);
    uint64_t count = 9;
    ck_assert_ptr_null(atmsae_model_view(m, ATMSAE_R_MAG, &count));
    ck_assert_uint_eq(count, 0);
    atmsae_gradients_destroy(g);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
    free(x);
}
END_TEST

/* Same widths are not enough: prefixes and centring belong to the shape. */
START_TEST(backward_wants_the_model_of_its_forward)
{
    const uint64_t d = 6, F = 30, n = 8, few[] = {5}, other[] = {6}, many[] = {5, 10, 20};
    atmsae_context *ctx = new_context(1);
    float *x = random_rows(n, d, 2);
    atmsae_batch b = batch_of(x, n);
    atmsae_model *models[5];
    for (int i = 0; i < 5; i++) {
        atmsae_model_config config = config_of(ATMSAE_TOPK, d, F, 3);
        config.prefixes = i == 1 ? few : i == 2 ? other : many;
        config.n_prefixes = i == 0 || i == 4 ? 0 : i == 3 ? 3 : 1;
        config.uncentred = i == 4;
        models[i] = new_model(ctx, &config);
    }
    atmsae_codes *codes;
    atmsae_gradients *g;
    ok(atmsae_codes_create(ctx, &codes), ctx);
    ok(atmsae_gradients_create(models[0], &g), ctx);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            ok(atmsae_forward(models[i], &b, NULL, codes, NULL), ctx);
            ck_assert_int_eq(atmsae_backward(models[j], codes, g), i == j ? ATMSAE_OK : ATMSAE_E_STATE);
        }
    double p[30] = {0};
    p[7] = 1.5;
    atmsae_mask mask = {.size = sizeof mask, .d_sae = F, .p = p};
    atmsae_forward_options o;
    atmsae_forward_options_init(&o, sizeof o);
    o.mask = &mask;
    ck_assert_int_eq(atmsae_forward(models[0], &b, &o, codes, NULL), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "mask.p[7] = 1.5"));
    atmsae_gradients_destroy(g);
    atmsae_codes_destroy(codes);
    for (int i = 0; i < 5; i++)
        atmsae_model_destroy(models[i]);
    free(x);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *t = tcase_create("selection");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, selection_equals_the_naive_one, 0, SHAPES);
    tcase_add_test(t, ties_go_to_the_lower_index);
    tcase_add_test(t, small_rows_do_not_depend_on_the_others);
    suite_add_tcase(suite, t);
    t = tcase_create("inference");
    tcase_add_test(t, a_row_does_not_depend_on_the_others);
    tcase_add_test(t, calibration_keeps_k_a_row);
    tcase_add_test(t, calibration_without_enough_positives_is_zero);
    suite_add_tcase(suite, t);
    t = tcase_create("rows");
    tcase_add_test(t, types_and_strides_do_not_matter);
    tcase_add_test(t, prepare_sets_scale_mean_and_median);
    tcase_add_test(t, rows_of_weight_zero_take_no_part);
    tcase_add_test(t, prepare_never_breaks_a_model);
    suite_add_tcase(suite, t);
    t = tcase_create("misuse");
    tcase_add_test(t, bad_settings_are_named);
    tcase_add_test(t, bad_batches_are_refused);
    tcase_add_test(t, backward_wants_the_model_of_its_forward);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
