/* SPDX-License-Identifier: MIT
 *
 * Scales and decoder bias from a sample of the data.
 */
#include "sae/sae.h"

#include <math.h>
#include <string.h>

typedef struct rows {
    atmsae_context *ctx;
    const char *name;
    const char *data;
    uint64_t n, d, ld;
    int32_t type;
    float *one;      /* [workers, d] */
    double *norm;    /* [n] */
    uint64_t bad;    /* first row with a non-finite value; n: none */
    const float *centre; /* norms are of row - centre; NULL: of the row */
    double *weight;  /* [n] for the weighted column sums; NULL: 1 */
    double *sum;     /* [d] */
} rows;

static const float *row(const rows *a, uint64_t r, float *out)
{
    ams_to_f32(out, a->data + r * a->ld * ams_type_size(a->type), a->type, a->d);
    return out;
}

static void norm_job(void *arg, uint64_t r, unsigned worker)
{
    rows *a = arg;
    const float *x = row(a, r, a->one + worker * a->d);
    double squares = 0;
    for (uint64_t j = 0; j < a->d; j++) {
        double v = (double)x[j] - (a->centre ? (double)a->centre[j] : 0);
        squares += v * v;
    }
    a->norm[r] = sqrt(squares);
}

/* Weighted sum over rows, in the order of the rows: one thread, a row at a time. */
static double sum_rows(rows *a)
{
    double total = 0;
    memset(a->sum, 0, (size_t)a->d * sizeof *a->sum);
    for (uint64_t r = 0; r < a->n; r++) {
        double w = a->weight ? a->weight[r] : 1;
        const float *x = row(a, r, a->one);
        for (uint64_t j = 0; j < a->d; j++)
            a->sum[j] += w * (double)x[j];
        total += w;
    }
    return total;
}

static atmsae_status mean_norm(rows *a, double *out)
{
    a->centre = NULL;
    ams_parallel(a->ctx, a->n, norm_job, a);
    double total = 0;
    for (uint64_t r = 0; r < a->n; r++) {
        if (!isfinite(a->norm[r]))
            return ams_fail(a->ctx, ATMSAE_E_NONFINITE, "batch: row %llu of %s has a NaN or infinite value",
                            (unsigned long long)r, a->name);
        total += a->norm[r];
    }
    *out = total / (double)a->n;
    return ATMSAE_OK;
}

/* Weiszfeld's iteration from the mean: rows weighted by 1 / distance. */
static void geometric_median(rows *a, float *centre, double scale_of_data)
{
    enum { MOST_ITERATIONS = 100 };
    const double tolerance = 1e-5, nearest = 1e-10 * scale_of_data;
    for (int iteration = 0; iteration < MOST_ITERATIONS; iteration++) {
        a->centre = centre;
        ams_parallel(a->ctx, a->n, norm_job, a);
        for (uint64_t r = 0; r < a->n; r++)
            a->norm[r] = 1 / fmax(a->norm[r], nearest);
        a->weight = a->norm;
        double total = sum_rows(a);
        double change = 0, size = 0;
        for (uint64_t j = 0; j < a->d; j++) {
            double next = a->sum[j] / total;
            change += (next - (double)centre[j]) * (next - (double)centre[j]);
            size += next * next;
            centre[j] = (float)next;
        }
        a->weight = NULL;
        if (sqrt(change) <= tolerance * sqrt(size)) break;
    }
}

atmsae_status atmsae_model_prepare(atmsae_model *m, const atmsae_batch *caller)
{
    if (!m) return ATMSAE_E_ARG;
    atmsae_context *ctx = m->ctx;
    atmsae_batch b;
    AMS_TRY(ams_batch_check(ctx, m, caller, &b));
    rows x = {.ctx = ctx, .name = "x", .data = b.x, .n = b.n_rows, .d = m->d_in, .ld = b.ld_x, .type = b.x_type};
    rows y = x;
    if (b.y) {
        y = (rows){.ctx = ctx, .name = "y", .data = b.y, .n = b.n_rows, .d = m->d_out, .ld = b.ld_y, .type = b.y_type};
    }
    uint64_t widest = ams_max(m->d_in, m->d_out);
    float *one = ams_alloc(ctx, ams_workers(ctx) * widest, sizeof *one);
    float *centre = ams_calloc(ctx, m->d_out, sizeof *centre);
    double *norm = ams_alloc(ctx, b.n_rows, sizeof *norm), *sum = ams_alloc(ctx, widest, sizeof *sum);
    atmsae_status status = one && centre && norm && sum ? ATMSAE_OK : ams_nomem(ctx, "prepare");
    x.one = y.one = one;
    x.norm = y.norm = norm;
    x.sum = y.sum = sum;

    double x_norm = 0, y_norm = 0;
    if (status == ATMSAE_OK) status = mean_norm(&x, &x_norm);
    if (status == ATMSAE_OK) status = b.y ? mean_norm(&y, &y_norm) : (y_norm = x_norm, ATMSAE_OK);
    if (status == ATMSAE_OK) {
        bool scale = m->config.input_norm == ATMSAE_INPUT_SQRT_D;
        float s = scale && x_norm > 0 ? (float)(sqrt((double)m->d_in) / x_norm) : 1;
        float t = !m->config.transcoder ? s : scale && y_norm > 0 ? (float)(sqrt((double)m->d_out) / y_norm) : 1;
        if (m->config.b_dec_init != ATMSAE_B_DEC_ZERO) {
            double total = sum_rows(&y);
            for (uint64_t j = 0; j < m->d_out; j++)
                centre[j] = (float)(sum[j] / total);
            if (m->config.b_dec_init == ATMSAE_B_DEC_MEDIAN) geometric_median(&y, centre, y_norm);
        }
        m->input_scale = s;
        m->output_scale = t;
        for (uint64_t j = 0; j < m->d_out; j++)
            m->b_dec[j] = t * centre[j];
    }
    ams_free(ctx, one);
    ams_free(ctx, centre);
    ams_free(ctx, norm);
    ams_free(ctx, sum);
    return status;
}
