/* SPDX-License-Identifier: MIT
 *
 * Loss, gradients, codes and per-latent sums against plain double-precision loops over the formulas
 * of doc/method.md, for every activation and loss term, on small odd shapes. The loops give a loss
 * only; its gradient is taken by central differences. Selections are frozen where the base
 * parameters put them, and a straight-through estimator is the first-order term that it claims the
 * function has: with S = [z > theta] and K = theta / eps inside the band, all at the base,
 *     JUMPRELU       f = S z - K (theta - theta0)          [z > theta] = S - (theta - theta0) / eps
 *     JUMPRELU_TANH  f = S z - K (theta - theta0) + K (z - z0)
 */
#include "suite.h"

#include <atmsae/atmsae.h>

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_D = 19, MAX_F = 33, MAX_N = 13, N_PARAMS = 7, MAX_VALUES = 2 * MAX_F * MAX_D + 4 * MAX_F + MAX_D };
enum { W_ENC, B_ENC, W_DEC, B_DEC, LOG_THRESHOLD, R_MAG, B_MAG };
static const int32_t param_ids[N_PARAMS] = {
    ATMSAE_W_ENC, ATMSAE_B_ENC, ATMSAE_W_DEC, ATMSAE_B_DEC, ATMSAE_THRESHOLD, ATMSAE_R_MAG, ATMSAE_B_MAG};

/* float32 sums of some hundred products against double: a few 1e-7 of the largest term. */
static const double tolerance = 4e-6;
/* Selections closer to a cut than this are drawn anew. */
static const double margin_wanted = 1e-4;

struct problem {
    atmsae_model_config m;
    uint64_t n, F, d_in, d_out, prefixes[2], n_dead;
    double scale_in, scale_out, sparsity_scale;
    float x[MAX_N * MAX_D], y[MAX_N * MAX_D], w[MAX_N];
    atmsae_mask mask;
    bool use_mask, hard; /* hard: there is a mask, and it is no second loss */
    uint8_t masked[MAX_F];
    double p[MAX_F];
    uint32_t dead[MAX_F];
    double base[MAX_VALUES];
    size_t at[N_PARAMS + 1]; /* where each parameter starts in a vector of values */
    /* frozen at the base */
    bool live[MAX_N * MAX_F]; /* row counts, latent is not masked by a hard mask */
    bool hidden[MAX_N * MAX_F]; /* masked by a second loss */
    bool on[MAX_N * MAX_F], band[MAX_N * MAX_F], open[MAX_N * MAX_F], aux[MAX_N * MAX_F];
    double z0[MAX_N * MAX_F], e0[MAX_N * MAX_D], f0[MAX_N * MAX_F];
    uint64_t n_aux; /* dead latents that may be used */
    double margin;
};

struct parts {
    double total, mse, sparsity, aux, prefix, masked, l0;
};

/* ---- the reference ------------------------------------------------------------------------------------ */

static double weight_sum(const struct problem *q)
{
    double sum = 0;
    for (uint64_t r = 0; r < q->n; r++) sum += (double)q->w[r];
    return sum;
}

static void pre_activations(const struct problem *q, const double *v, uint64_t r, double *a, double *z)
{
    for (uint64_t i = 0; i < q->F; i++) {
        a[i] = 0;
        for (uint64_t j = 0; j < q->d_in; j++) {
            double x = q->scale_in * (double)q->x[r * q->d_in + j] - (q->m.transcoder || q->m.uncentred ? 0 : v[q->at[B_DEC] + j]);
            a[i] += v[q->at[W_ENC] + i * q->d_in + j] * x;
        }
        z[i] = a[i] + v[q->at[B_ENC] + i];
    }
}

static double decoder_norm(const struct problem *q, const double *v, uint64_t i)
{
    double sum = 0;
    for (uint64_t j = 0; j < q->d_out; j++) {
        double w = v[q->at[W_DEC] + i * q->d_out + j];
        sum += w * w;
    }
    return sqrt(sum);
}

/* target - (the first `width` latents' part of f W_dec) - b_dec; returns its squared norm. */
static double residual(const struct problem *q, const double *v, const double *b_dec, uint64_t r, const double *f,
                       uint64_t width, double *e)
{
    double sum = 0;
    for (uint64_t j = 0; j < q->d_out; j++) {
        double rest = q->scale_out * (double)q->y[r * q->d_out + j] - b_dec[j];
        for (uint64_t i = 0; i < width; i++) rest -= f[i] * v[q->at[W_DEC] + i * q->d_out + j];
        if (e) e[j] = rest;
        sum += rest * rest;
    }
    return sum;
}

static struct parts reference_loss(struct problem *q, const double *v, bool at_base)
{
    struct parts s = {0};
    const atmsae_model_config *m = &q->m;
    double W = weight_sum(q), lambda = m->sparsity_coef * q->sparsity_scale, steps = 0;
    double norm[MAX_F], a[MAX_F], z[MAX_F], f[MAX_F], gate[MAX_F], extra[MAX_F], e[MAX_D];
    for (uint64_t i = 0; i < q->F; i++) norm[i] = decoder_norm(q, v, i);
    for (uint64_t r = 0; r < q->n; r++) {
        double w = (double)q->w[r] / W, penalty = 0;
        if (w == 0) continue;
        pre_activations(q, v, r, a, z);
        for (uint64_t i = 0; i < q->F; i++) {
            uint64_t c = r * q->F + i;
            double on = q->on[c], band = q->band[c], eps = m->bandwidth;
            double theta0 = exp(q->base[q->at[LOG_THRESHOLD] + i]), theta = exp(v[q->at[LOG_THRESHOLD] + i]);
            double kernel = band * theta0 / eps;
            gate[i] = 0;
            f[i] = on * z[i];
            switch (m->activation) {
            case ATMSAE_RELU: penalty += lambda * f[i] * norm[i]; break;
            case ATMSAE_JUMPRELU:
                f[i] -= kernel * (theta - theta0);
                steps += w * (on - band * (theta - theta0) / eps);
                break;
            case ATMSAE_JUMPRELU_TANH:
                f[i] += kernel * (z[i] - q->z0[c]) - kernel * (theta - theta0);
                penalty += lambda * tanh(m->tanh_scale * f[i] * norm[i]);
                if (q->hard && q->mask.p) /* the expectation over masks */
                    penalty += m->pre_act_coef * norm[i] * (theta - z[i]) * (1 - q->p[i] - on);
                else if (q->live[c] && !q->on[c])
                    penalty += m->pre_act_coef * norm[i] * (theta - z[i]);
                break;
            case ATMSAE_GATED:
                f[i] = on * (exp(v[q->at[R_MAG] + i]) * a[i] + v[q->at[B_MAG] + i]);
                gate[i] = q->open[c] * z[i];
                penalty += lambda * gate[i] * norm[i];
                break;
            }
            s.l0 += w * on;
            extra[i] = q->aux[c] * z[i];
        }
        double kept[MAX_F], gate_kept[MAX_F]; /* what the second loss reconstructs from */
        for (uint64_t i = 0; i < q->F; i++) {
            kept[i] = q->hidden[r * q->F + i] ? 0 : f[i];
            gate_kept[i] = q->hidden[r * q->F + i] ? 0 : gate[i];
        }
        if (m->activation == ATMSAE_GATED)
            penalty += residual(q, q->base, q->base + q->at[B_DEC], r, gate, q->F, NULL) +
                       q->mask.alpha * residual(q, q->base, q->base + q->at[B_DEC], r, gate_kept, q->F, NULL);
        s.sparsity += w * penalty;
        s.masked += w * q->mask.alpha * residual(q, v, v + q->at[B_DEC], r, kept, q->F, NULL);
        s.mse += w * residual(q, v, v + q->at[B_DEC], r, f, q->F, e);
        for (uint64_t g = 0; g < m->n_prefixes; g++)
            s.prefix += w * residual(q, v, v + q->at[B_DEC], r, f, q->prefixes[g], NULL);
        if (at_base) {
            memcpy(q->f0 + r * q->F, f, q->F * sizeof *f);
            memcpy(q->e0 + r * q->d_out, e, q->d_out * sizeof *e);
        }
        if (!q->n_aux) continue;
        double sum = 0;
        for (uint64_t j = 0; j < q->d_out; j++) {
            double rest = q->e0[r * q->d_out + j];
            for (uint64_t i = 0; i < q->F; i++) rest -= extra[i] * v[q->at[W_DEC] + i * q->d_out + j];
            sum += rest * rest;
        }
        s.aux += w * m->aux_coef * fmin(1, (double)q->n_aux / (double)m->aux_k) * sum;
    }
    if (m->activation == ATMSAE_JUMPRELU)
        s.sparsity = lambda * steps;
    s.total = s.mse + s.prefix + s.aux + s.sparsity + s.masked;
    return s;
}

/* chosen[c] = z[c] is among the `count` largest positive of the allowed ones. */
static void choose_largest(struct problem *q, const double *z, const bool *allowed, uint64_t n, uint64_t count, bool *chosen)
{
    double lowest = INFINITY, rest = -INFINITY;
    uint64_t kept = 0;
    for (uint64_t c = 0; c < n; c++) {
        uint64_t above = 0;
        for (uint64_t o = 0; o < n; o++) above += allowed[o] && (z[o] > z[c] || (z[o] == z[c] && o < c));
        chosen[c] = allowed[c] && z[c] > 0 && above < count;
        if (!allowed[c]) continue;
        kept += chosen[c];
        if (chosen[c]) lowest = fmin(lowest, z[c]);
        else rest = fmax(rest, z[c]);
    }
    q->margin = fmin(q->margin, lowest - fmax(rest, 0));
    if (kept < count) q->margin = fmin(q->margin, -rest);
}

static void freeze(struct problem *q)
{
    const atmsae_model_config *m = &q->m;
    uint64_t F = q->F, counted = 0;
    double a[MAX_N * MAX_F];
    bool usable[MAX_N * MAX_F];
    q->margin = INFINITY;
    q->n_aux = 0;
    for (uint64_t k = 0; k < q->n_dead; k++) q->n_aux += !(q->hard && q->mask.masked && q->masked[q->dead[k]]);
    memset(usable, 0, sizeof usable);
    for (uint64_t r = 0; r < q->n; r++) {
        pre_activations(q, q->base, r, a + r * F, q->z0 + r * F);
        counted += q->w[r] > 0;
        for (uint64_t i = 0; i < F; i++) {
            uint64_t c = r * F + i;
            double z = q->z0[c], theta = exp(q->base[q->at[LOG_THRESHOLD] + i]), mag;
            const bool masked = q->use_mask && atmsae_mask_test(&q->mask, r, i);
            q->live[c] = q->w[r] > 0 && !(q->hard && masked);
            q->hidden[c] = masked && !q->hard;
            for (uint64_t k = 0; k < q->n_dead; k++) usable[c] |= q->dead[k] == i && q->live[c];
            q->on[c] = q->band[c] = q->open[c] = q->aux[c] = false;
            if (!q->live[c]) continue;
            switch (m->activation) {
            case ATMSAE_RELU:
                q->on[c] = z > 0;
                q->margin = fmin(q->margin, fabs(z));
                break;
            case ATMSAE_JUMPRELU:
            case ATMSAE_JUMPRELU_TANH:
                q->on[c] = z > theta;
                q->band[c] = fabs(z - theta) < m->bandwidth / 2;
                q->margin = fmin(q->margin, fmin(fabs(z - theta), fabs(fabs(z - theta) - m->bandwidth / 2)));
                break;
            case ATMSAE_GATED:
                mag = exp(q->base[q->at[R_MAG] + i]) * a[c] + q->base[q->at[B_MAG] + i];
                q->open[c] = z > 0;
                q->on[c] = z > 0 && mag > 0;
                q->margin = fmin(q->margin, fmin(fabs(z), fabs(mag)));
                break;
            }
        }
        if (m->activation == ATMSAE_TOPK)
            choose_largest(q, q->z0 + r * F, q->live + r * F, F, (uint64_t)m->k, q->on + r * F);
        if (q->n_aux && q->w[r] > 0)
            choose_largest(q, q->z0 + r * F, usable + r * F, F, m->aux_k, q->aux + r * F);
    }
    if (m->activation == ATMSAE_BATCHTOPK)
        choose_largest(q, q->z0, q->live, q->n * F, (uint64_t)floor(m->k * (double)counted), q->on);
}

/* ---- problems --------------------------------------------------------------------------------------------- */

static const int32_t activations[] = {
    ATMSAE_RELU, ATMSAE_TOPK, ATMSAE_BATCHTOPK, ATMSAE_JUMPRELU, ATMSAE_JUMPRELU_TANH, ATMSAE_GATED,
};
static const struct {
    uint64_t d_in, d_out, F, n;
    double k;
} shapes[] = {
    {1, 1, 1, 1, 1},   {1, 1, 5, 2, 2},   {3, 3, 5, 2, 5},     {7, 7, 1, 13, 1},  {7, 7, 33, 1, 3},
    {7, 7, 33, 13, 1}, {19, 3, 5, 13, 2}, {3, 19, 33, 2, 4},   {19, 19, 33, 13, 33}, {19, 19, 33, 13, 3},
};
enum { WEIGHTS = 1, STEP_MASK = 2, ROW_MASK = 4, PREFIXES = 8, AUX = 16, SILENT = 32, ALL_MASKED = 64, TRANSCODER = 128,
       SECOND = 256, UNCENTRED = 512 };
static const unsigned options[] = {
    0, WEIGHTS | STEP_MASK | PREFIXES, WEIGHTS | AUX | TRANSCODER, STEP_MASK | AUX | PREFIXES,
    WEIGHTS | ROW_MASK, ROW_MASK | AUX, SILENT | AUX, ALL_MASKED | STEP_MASK | WEIGHTS | PREFIXES,
    SILENT | WEIGHTS, SECOND | ROW_MASK | WEIGHTS | AUX | TRANSCODER, SECOND | STEP_MASK | AUX,
    SECOND | ROW_MASK | PREFIXES | WEIGHTS, SECOND | STEP_MASK | ALL_MASKED | PREFIXES, SECOND | ROW_MASK | SILENT,
    UNCENTRED | PREFIXES | WEIGHTS, UNCENTRED | AUX | STEP_MASK, UNCENTRED | SECOND | ROW_MASK | WEIGHTS,
};
enum {
    N_ACTIVATIONS = sizeof activations / sizeof *activations,
    N_SHAPES = sizeof shapes / sizeof *shapes,
    N_OPTIONS = sizeof options / sizeof *options
};

static double draw(uint64_t *state) /* splitmix64, to (-1, 1) */
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

static void make_problem(struct problem *q, unsigned activation, unsigned shape, unsigned option, uint64_t seed)
{
    memset(q, 0, sizeof *q);
    uint64_t state = seed * 1000003 + activation * 10007 + shape * 101 + option;
    atmsae_model_config *m = &q->m;
    atmsae_model_config_init(m, sizeof *m);
    m->activation = activations[activation];
    m->d_in = q->d_in = shapes[shape].d_in;
    m->d_out = q->d_out = shapes[shape].d_out;
    m->d_sae = q->F = shapes[shape].F;
    q->n = shapes[shape].n;
    m->transcoder = q->d_in != q->d_out || (option & TRANSCODER) != 0;
    m->uncentred = (option & UNCENTRED) != 0;
    m->decoder_norm = ATMSAE_DECODER_FREE;
    m->k = shapes[shape].k;
    m->sparsity_coef = 0.6;
    m->bandwidth = 0.7;
    m->tanh_scale = 1.5;
    m->pre_act_coef = 0.4;
    m->aux_coef = option & AUX ? 0.5 : 0;
    m->aux_k = q->F > 1 ? 2 : 1;
    if (option & PREFIXES && q->F > 1) {
        q->prefixes[0] = 1;
        q->prefixes[1] = q->F / 2;
        m->n_prefixes = q->F == 5 ? 1 : 2;
        m->prefixes = q->prefixes;
    }
    q->scale_in = 1.25;
    q->scale_out = m->transcoder ? 0.75 : 1.25;
    q->sparsity_scale = 0.7;

    const size_t counts[N_PARAMS] = {q->F * q->d_in, q->F, q->F * q->d_out, q->d_out, q->F, q->F, q->F};
    for (int k = 0; k < N_PARAMS; k++) q->at[k + 1] = q->at[k] + counts[k];
    double wide = 1.5 / sqrt((double)q->d_in), high = 1.5 / sqrt((double)q->d_out);
    const double spread[N_PARAMS] = {wide, 0.3, high, 0.4, 0.3, 0.3, 0.2};
    for (int k = 0; k < N_PARAMS; k++)
        for (size_t j = q->at[k]; j < q->at[k + 1]; j++) q->base[j] = (double)(float)(spread[k] * draw(&state));
    for (uint64_t i = 0; i < q->F; i++) {
        double *bias = &q->base[q->at[B_ENC] + i], *log_theta = &q->base[q->at[LOG_THRESHOLD] + i];
        if (option & SILENT) *bias -= 40;
        *log_theta = log((double)(float)exp(*log_theta - 0.9)); /* theta is a float */
    }
    for (uint64_t j = 0; j < q->n * q->d_in; j++) q->x[j] = (float)(1.6 * draw(&state));
    for (uint64_t j = 0; j < q->n * q->d_out; j++) q->y[j] = m->transcoder ? (float)(1.6 * draw(&state)) : q->x[j];
    static const float some[] = {1.5f, 0, 0.25f, 1, 0, 3};
    for (uint64_t r = 0; r < q->n; r++) q->w[r] = option & WEIGHTS ? some[r % 6] : 1;
    for (uint64_t i = 0; i < q->F; i++) {
        q->masked[i] = option & ALL_MASKED || draw(&state) > 0.2;
        q->p[i] = i % 4 ? 0.5 + 0.5 * draw(&state) : 0;
        if (option & AUX && i % 3 == (q->F > 1)) q->dead[q->n_dead++] = (uint32_t)i;
    }
    q->use_mask = (option & (STEP_MASK | ROW_MASK)) != 0;
    q->mask = (atmsae_mask){.size = sizeof q->mask, .d_sae = q->F, .masked = option & STEP_MASK ? q->masked : NULL,
                            .p = option & ROW_MASK ? q->p : NULL, .seed = seed, .step = 5};
    if (option & SECOND) {
        q->mask.effect = ATMSAE_EFFECT_SECOND_LOSS;
        q->mask.alpha = 0.7;
    }
    q->hard = q->use_mask && q->mask.effect == ATMSAE_EFFECT_HARD;
    freeze(q);
}

/* ---- the comparison ----------------------------------------------------------------------------------------- */

static void near(const char *where, const char *what, uint64_t i, double got, double want, double scale)
{
    ck_assert_msg(fabs(got - want) <= tolerance * fmax(scale, fabs(want)), "%s: %s[%llu] is %.9g, not %.9g (scale %.3g)",
                  where, what, (unsigned long long)i, got, want, scale);
}

static void check_codes(const char *where, const struct problem *q, const atmsae_codes *codes)
{
    atmsae_codes_view view = {.size = sizeof view};
    ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
    ck_assert_uint_eq(view.n_rows, q->n);
    double dense[MAX_N * MAX_F] = {0};
    for (uint64_t r = 0; r < q->n; r++)
        for (uint64_t k = view.row_start[r]; k < view.row_start[r + 1]; k++) {
            ck_assert(k == view.row_start[r] || view.latent[k - 1] < view.latent[k]);
            dense[r * q->F + view.latent[k]] = (double)view.value[k];
        }
    for (uint64_t c = 0; c < q->n * q->F; c++)
        if (q->w[c / q->F] > 0) near(where, "f", c, dense[c], q->f0[c], 1);
}

static void check_sums(const char *where, const struct problem *q, const atmsae_gradients *gradients)
{
    atmsae_latent_sums sums = {.size = sizeof sums};
    ck_assert_int_eq(atmsae_gradients_sums(gradients, &sums), ATMSAE_OK);
    ck_assert_uint_eq(sums.d_sae, q->F);
    for (uint64_t i = 0; i < q->F; i++) {
        double rows = 0, magnitude = 0, frequency = 0, contribution = 0, scale = 1;
        double norm = decoder_norm(q, q->base, i);
        for (uint64_t r = 0; r < q->n; r++) {
            double w = (double)q->w[r], f = q->f0[r * q->F + i], dot = 0, size = 0;
            bool step_masked = q->hard && q->mask.masked && q->masked[i];
            rows += w * (q->hard && q->mask.p ? 1 - q->p[i] : !step_masked);
            if (w == 0) continue;
            for (uint64_t j = 0; j < q->d_out; j++) {
                dot += q->e0[r * q->d_out + j] * q->base[q->at[W_DEC] + i * q->d_out + j];
                size += pow(q->e0[r * q->d_out + j], 2);
            }
            magnitude += w * f * norm;
            frequency += w * (f > 0);
            contribution += w * f * (2 * dot + f * norm * norm);
            scale += w * f * (2 * sqrt(size) * norm + f * norm * norm);
        }
        near(where, "rows", i, sums.rows[i], rows, 1);
        near(where, "magnitude", i, sums.magnitude[i], magnitude, 1);
        near(where, "frequency", i, sums.frequency[i], frequency, 1);
        near(where, "contribution", i, sums.contribution[i], contribution, scale);
    }
}

static void check_gradients(const char *where, struct problem *q, const atmsae_model *model,
                            const atmsae_gradients *gradients)
{
    static const char *const names[N_PARAMS] = {"W_enc", "b_enc", "W_dec", "b_dec", "log theta", "r_mag", "b_mag"};
    double v[MAX_VALUES], want[MAX_VALUES], h = 1e-4;
    float got[MAX_VALUES];
    for (int k = 0; k < N_PARAMS; k++) {
        uint64_t count, stride = q->at[k + 1] - q->at[k];
        double largest = 1;
        if (!atmsae_model_view(model, param_ids[k], &count)) continue;
        ck_assert_uint_eq(count, stride);
        ck_assert_int_eq(atmsae_gradients_get(gradients, param_ids[k], got, count), ATMSAE_OK);
        for (uint64_t i = 0; i < count; i++) {
            memcpy(v, q->base, sizeof v);
            v[q->at[k] + i] += h;
            double up = reference_loss(q, v, false).total;
            v[q->at[k] + i] -= 2 * h;
            want[i] = (up - reference_loss(q, v, false).total) / (2 * h);
            largest = fmax(largest, fabs(want[i]));
        }
        for (uint64_t i = 0; i < count; i++) near(where, names[k], i, (double)got[i], want[i], largest);
    }
}

static void set_parameters(const struct problem *q, atmsae_model *model)
{
    float values[MAX_VALUES];
    for (int k = 0; k < N_PARAMS; k++) {
        uint64_t count;
        if (!atmsae_model_view(model, param_ids[k], &count)) continue;
        for (size_t j = q->at[k]; j < q->at[k + 1]; j++)
            values[j - q->at[k]] = (float)(k == LOG_THRESHOLD ? exp(q->base[j]) : q->base[j]);
        ck_assert_int_eq(atmsae_model_set(model, param_ids[k], values, count), ATMSAE_OK);
    }
    float in = (float)q->scale_in, out = (float)q->scale_out;
    ck_assert_int_eq(atmsae_model_set(model, ATMSAE_INPUT_SCALE, &in, 1), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_set(model, ATMSAE_OUTPUT_SCALE, &out, 1), ATMSAE_OK);
}

static void check_problem(const char *where, atmsae_context *ctx, struct problem *q)
{
    atmsae_model *model;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    ck_assert_msg(atmsae_model_create(ctx, &q->m, &model) == ATMSAE_OK, "%s: %s", where, atmsae_last_error(ctx));
    ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
    ck_assert_int_eq(atmsae_gradients_create(model, &gradients), ATMSAE_OK);
    set_parameters(q, model);

    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = q->n;
    batch.x = q->x;
    batch.y = q->m.transcoder ? q->y : NULL;
    batch.row_weights = q->w;
    /* Other rows first, so that all working memory is dirty. */
    float others[MAX_N * MAX_D];
    for (uint64_t j = 0; j < q->n * q->d_in; j++) others[j] = 3 - q->x[j];
    batch.x = others;
    ck_assert_int_eq(atmsae_forward(model, &batch, NULL, codes, NULL), ATMSAE_OK);
    ck_assert_int_eq(atmsae_backward(model, codes, gradients), ATMSAE_OK);
    batch.x = q->x;

    atmsae_forward_options forward;
    atmsae_forward_options_init(&forward, sizeof forward);
    forward.mask = q->use_mask ? &q->mask : NULL;
    forward.dead = q->n_dead ? q->dead : NULL;
    forward.n_dead = q->n_dead;
    forward.sparsity_scale = q->sparsity_scale;
    atmsae_loss loss = {.size = sizeof loss};
    ck_assert_msg(atmsae_forward(model, &batch, &forward, codes, &loss) == ATMSAE_OK, "%s: %s", where,
                  atmsae_last_error(ctx));
    struct parts want = reference_loss(q, q->base, true);
    near(where, "mse", 0, loss.mse, want.mse, 1);
    near(where, "sparsity", 0, loss.sparsity, want.sparsity, 1);
    near(where, "aux", 0, loss.aux, want.aux, 1);
    near(where, "prefix", 0, loss.prefix, want.prefix, 1);
    near(where, "masked", 0, loss.masked, want.masked, 1);
    near(where, "total", 0, loss.total, want.total, 1);
    near(where, "l0", 0, loss.l0, want.l0, 1);
    check_codes(where, q, codes);

    ck_assert_msg(atmsae_backward(model, codes, gradients) == ATMSAE_OK, "%s: %s", where, atmsae_last_error(ctx));
    check_sums(where, q, gradients);
    check_gradients(where, q, model, gradients);
    atmsae_gradients_destroy(gradients);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
}

START_TEST(one_activation)
{
    static struct problem q;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(NULL, &ctx), ATMSAE_OK);
    for (unsigned shape = 0; shape < N_SHAPES; shape++)
        for (unsigned option = 0; option < N_OPTIONS; option++) {
            uint64_t seed = 0;
            do make_problem(&q, (unsigned)_i, shape, options[option], seed++);
            while (q.margin < margin_wanted);
            char where[96];
            snprintf(where, sizeof where, "activation %d, shape %u, options %#x", q.m.activation, shape, options[option]);
            check_problem(where, ctx, &q);
        }
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gradients");
    TCase *tc = tcase_create("finite differences");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, one_activation, 0, N_ACTIVATIONS);
    suite_add_tcase(suite, tc);
    return run_all(suite);
}
