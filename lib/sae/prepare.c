/* SPDX-License-Identifier: MIT
 *
 * Scales, decoder bias and, for target_l0, cuts from a sample of the data.
 */
#include "kernels/rows.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

/* One side of the batch, x or y, and room to work on it. */
typedef struct sample {
    atmsae_context *ctx;
    ams_rows rows;
    const float *weights; /* [n] row weights; NULL: 1 */
    float *one;           /* [workers, d] a row as f32 */
    double *norm;         /* [n] */
    double *sum;          /* [d] */
    const float *centre;  /* norms are of row - centre; NULL: of the row */
} sample;

static double weight(const sample *a, uint64_t r) { return a->weights ? (double)a->weights[r] : 1; }

static const float *row(const sample *a, uint64_t r, float *out)
{
    const ams_rows *rows = &a->rows;
    ams_to_f32(out, (const char *)rows->data + r * rows->ld * ams_type_size(rows->type), rows->type, rows->d);
    return out;
}

static void norm_job(void *arg, uint64_t r, unsigned worker)
{
    sample *a = arg;
    a->norm[r] = 0;
    if (weight(a, r) == 0) return;
    const float *x = row(a, r, a->one + worker * a->rows.d);
    double squares = 0;
    for (uint64_t j = 0; j < a->rows.d; j++) {
        double v = (double)x[j] - (a->centre ? (double)a->centre[j] : 0);
        squares += v * v;
    }
    a->norm[r] = sqrt(squares);
}

/* Norms of all rows, and their weighted mean. */
static atmsae_status mean_norm(sample *a, double *out)
{
    double total = 0, weights = 0;
    a->centre = NULL;
    ams_parallel(a->ctx, a->rows.n, norm_job, a);
    for (uint64_t r = 0; r < a->rows.n; r++) {
        if (!isfinite(a->norm[r]))
            return ams_fail(a->ctx, ATMSAE_E_NONFINITE, "%s: row %llu has a NaN or infinite value", a->rows.name,
                            (unsigned long long)r);
        total += weight(a, r) * a->norm[r];
        weights += weight(a, r);
    }
    if (!(weights > 0)) return ams_fail(a->ctx, ATMSAE_E_ARG, "batch: the row weights sum to 0");
    *out = total / weights;
    return ATMSAE_OK;
}

/* sum = weighted mean of the rows, in the order of the rows; each row's weight is divided by its
 * distance, at least `nearest`, where that is above 0. */
static void mean_row(sample *a, double nearest)
{
    double total = 0;
    memset(a->sum, 0, (size_t)a->rows.d * sizeof *a->sum);
    for (uint64_t r = 0; r < a->rows.n; r++) {
        double w = weight(a, r);
        if (w == 0) continue;
        if (nearest > 0) w /= fmax(a->norm[r], nearest);
        const float *x = row(a, r, a->one);
        for (uint64_t j = 0; j < a->rows.d; j++)
            a->sum[j] += w * (double)x[j];
        total += w;
    }
    for (uint64_t j = 0; j < a->rows.d; j++)
        a->sum[j] /= total;
}

/* Weiszfeld's iteration, from the mean in `centre`. */
static void geometric_median(sample *a, float *centre, double typical_norm)
{
    enum { MOST_ITERATIONS = 100 };
    const double tolerance = 1e-5;
    for (int iteration = 0; iteration < MOST_ITERATIONS; iteration++) {
        a->centre = centre;
        ams_parallel(a->ctx, a->rows.n, norm_job, a);
        mean_row(a, 1e-10 * typical_norm);
        double change = 0, size = 0;
        for (uint64_t j = 0; j < a->rows.d; j++) {
            change += (a->sum[j] - (double)centre[j]) * (a->sum[j] - (double)centre[j]);
            size += a->sum[j] * a->sum[j];
            centre[j] = (float)a->sum[j];
        }
        if (sqrt(change) <= tolerance * sqrt(size)) break;
    }
}

static double scale_for(const atmsae_model *m, uint64_t d, double norm)
{
    return m->config.input_norm == ATMSAE_INPUT_SQRT_D && norm > 0 ? sqrt((double)d) / norm : 1;
}

/* Scales and b_dec become those given; these, what they were. */
static void exchange(atmsae_model *m, float *input_scale, float *output_scale, float *b_dec)
{
    const float s = m->input_scale, t = m->output_scale;
    m->input_scale = *input_scale;
    m->output_scale = *output_scale;
    *input_scale = s;
    *output_scale = t;
    for (uint64_t j = 0; j < m->d_out; j++) {
        const float b = m->b_dec[j];
        m->b_dec[j] = b_dec[j];
        b_dec[j] = b;
    }
}

/* x: inputs; y: targets (the inputs again without any); centre: room for [d_out]; b: the batch of both. */
static atmsae_status prepare(atmsae_model *m, sample *x, sample *y, const atmsae_batch *b, float *centre)
{
    double x_norm, y_norm;
    AMS_TRY(mean_norm(x, &x_norm));
    y_norm = x_norm;
    if (b->y) AMS_TRY(mean_norm(y, &y_norm));
    float s = (float)scale_for(m, m->d_in, x_norm);
    float t = m->config.transcoder ? (float)scale_for(m, m->d_out, y_norm) : s;
    if (m->config.b_dec_init != ATMSAE_B_DEC_ZERO) {
        mean_row(y, 0);
        for (uint64_t j = 0; j < m->d_out; j++)
            centre[j] = (float)y->sum[j];
        if (m->config.b_dec_init == ATMSAE_B_DEC_MEDIAN && y_norm > 0) geometric_median(y, centre, y_norm);
    }
    for (uint64_t j = 0; j < m->d_out; j++)
        centre[j] *= t;
    if (!isfinite(s) || !isfinite(t) || s <= 0 || t <= 0 || !ams_all_finite(centre, m->d_out))
        return ams_fail(m->ctx, ATMSAE_E_NONFINITE,
                        "prepare: rows of mean norm %g cannot be scaled in single precision", x_norm);
    exchange(m, &s, &t, centre);
    atmsae_status status = m->config.target_l0 > 0 ? ams_cuts_start(m, b) : ATMSAE_OK;
    if (status < 0) exchange(m, &s, &t, centre);
    return status;
}

atmsae_status ams_model_prepare(atmsae_model *m, const atmsae_batch *caller)
{
    atmsae_context *ctx = m->ctx;
    atmsae_batch b;
    AMS_TRY(ams_batch_check(ctx, m, caller, true, &b));
    uint64_t widest = ams_max(m->d_in, m->d_out);
    float *one = ams_alloc(ctx, ams_workers(ctx) * widest, sizeof *one);
    float *centre = ams_calloc(ctx, m->d_out, sizeof *centre);
    double *norm = ams_alloc(ctx, b.n_rows, sizeof *norm), *sum = ams_alloc(ctx, widest, sizeof *sum);
    sample x = {ctx, {"batch: x", b.x, b.n_rows, m->d_in, b.ld_x, b.x_type}, b.row_weights, one, norm, sum, NULL}, y = x;
    if (b.y) y.rows = (ams_rows){"batch: y", b.y, b.n_rows, m->d_out, b.ld_y, b.y_type};
    atmsae_status status =
        one && centre && norm && sum ? prepare(m, &x, &y, &b, centre) : ams_nomem(ctx, "prepare");
    if (status >= 0) ams_advise_rows(m, &x.rows, b.y ? &y.rows : NULL, b.row_weights);
    ams_free(ctx, one);
    ams_free(ctx, centre);
    ams_free(ctx, norm);
    ams_free(ctx, sum);
    return status;
}

atmsae_status atmsae_model_prepare(atmsae_model *m, const atmsae_batch *caller)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, ams_model_prepare(m, caller), AMS_CHANGES("model", m));
}
