/* SPDX-License-Identifier: MIT
 *
 * Reconstruction and sparsity over any number of batches. Encoding and decoding take nearly all of
 * the time and are parallel inside; the sums run over the rows in order, so they depend neither on
 * the number of threads nor on how the rows were cut into batches.
 */
#include "eval/metrics.h"
#include "kernels/rows.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1024 }; /* rows encoded at a time */

static atmsae_status create(const atmsae_model *model, atmsae_metrics **out)
{
    atmsae_context *ctx = model->ctx;
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "metrics: out is NULL");
    atmsae_status status = ATMSAE_E_NOMEM;
    uint64_t width = 0;
    atmsae_metrics *m = ams_calloc(ctx, 1, sizeof *m);
    if (!m) return ams_nomem(ctx, "metrics");
    m->ctx = ams_context_ref(ctx);
    m->model = model;
    m->d_in = model->d_in;
    m->d_out = model->d_out;
    m->d_sae = model->d_sae;
    if (!ams_mul(ams_max(m->d_in, m->d_out), CHUNK, &width)) goto fail;
    m->x = ams_alloc(ctx, m->d_in * CHUNK, sizeof *m->x);
    m->y = ams_alloc(ctx, m->d_out * CHUNK, sizeof *m->y);
    m->recon = ams_alloc(ctx, m->d_out * CHUNK, sizeof *m->recon);
    m->y0 = ams_calloc(ctx, m->d_out, sizeof *m->y0);
    m->shift = ams_calloc(ctx, m->d_out, sizeof *m->shift);
    m->shift_was = ams_calloc(ctx, m->d_out, sizeof *m->shift_was);
    m->error_sum = ams_calloc(ctx, m->d_out, sizeof *m->error_sum);
    m->error_sum_was = ams_calloc(ctx, m->d_out, sizeof *m->error_sum_was);
    m->batch_mean = ams_calloc(ctx, m->d_out, sizeof *m->batch_mean);
    m->counts = ams_calloc(ctx, m->d_sae, sizeof *m->counts);
    m->counts_was = ams_calloc(ctx, m->d_sae, sizeof *m->counts_was);
    if (!m->x || !m->y || !m->recon || !m->y0 || !m->shift || !m->shift_was || !m->error_sum || !m->error_sum_was ||
        !m->batch_mean || !m->counts || !m->counts_was)
        goto fail;
    status = atmsae_codes_create(ctx, &m->codes);
    if (status < 0) goto fail;
    *out = m;
    return ATMSAE_OK;
fail:
    if (status == ATMSAE_E_NOMEM) status = ams_nomem(ctx, "metrics");
    atmsae_metrics_destroy(m);
    return status;
}

atmsae_status atmsae_metrics_create(const atmsae_model *model, atmsae_metrics **out)
{
    if (out) *out = NULL;
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, create(model, out), AMS_READS("model", model));
}

void atmsae_metrics_destroy(atmsae_metrics *m)
{
    if (!m) return;
    atmsae_context *ctx = m->ctx;
    void *memory[] = {m->x, m->y, m->recon, m->y0, m->shift, m->shift_was, m->error_sum,
                      m->error_sum_was, m->batch_mean, m->counts, m->counts_was, m};
    atmsae_codes_destroy(m->codes);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    atmsae_context_destroy(ctx);
}

static void add_row(atmsae_metrics *m, const float *y, const float *recon)
{
    double error = 0, yy = 0, shifted = 0, rr = 0, yr = 0, from_batch = 0;
    if (m->sums.rows == 0) memcpy(m->y0, y, m->d_out * sizeof *y);
    for (uint64_t j = 0; j < m->d_out; j++) {
        double a = (double)y[j], b = (double)recon[j], c = a - (double)m->y0[j];
        error += (a - b) * (a - b);
        yy += a * a;
        shifted += c * c;
        rr += b * b;
        yr += a * b;
        m->shift[j] += c;
        m->error_sum[j] += a - b;
        from_batch += (a - m->batch_mean[j]) * (a - m->batch_mean[j]);
    }
    m->sums.rows++;
    m->sums.error += error;
    m->sums.shifted += shifted;
    m->sums.recon += rr;
    m->sums.dot += yr;
    m->sums.error_norm += sqrt(error);
    m->sums.bench_ev += from_batch > 0 ? 1 - error / from_batch : error > 0 ? -INFINITY : NAN;
    if (sqrt(yy) > 1e-6) {
        m->sums.norm_ratio += sqrt(rr) / sqrt(yy);
        m->sums.ratios++;
    }
    if (yy > 0 && rr > 0) {
        m->sums.cosine += yr / (sqrt(yy) * sqrt(rr));
        m->sums.cosines++;
    }
}

/* Encodes n gathered rows in m->x and adds them. */
static atmsae_status add_chunk(atmsae_metrics *m, uint64_t n, const float *y)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = m->x;
    atmsae_codes_view view = {.size = sizeof view};
    AMS_TRY(atmsae_encode(m->model, &batch, m->codes));
    AMS_TRY(atmsae_decode(m->model, m->codes, m->recon, 0));
    AMS_TRY(atmsae_codes_get(m->codes, &view));
    for (uint64_t r = 0; r < n; r++) {
        add_row(m, y + r * m->d_out, m->recon + r * m->d_out);
        for (uint64_t e = view.row_start[r]; e < view.row_start[r + 1]; e++) {
            if (!(view.value[e] > 0)) continue;
            m->counts[view.latent[e]]++;
            m->sums.l0 += 1;
            m->sums.l1 += (double)view.value[e];
        }
    }
    return ATMSAE_OK;
}

/* Mean of the rows of a batch that count, and how many they are. */
static atmsae_status find_batch_mean(atmsae_metrics *m, const ams_rows *rows, const float *weights, uint64_t *n)
{
    memset(m->batch_mean, 0, m->d_out * sizeof *m->batch_mean);
    *n = 0;
    for (uint64_t r = 0; r < rows->n; r++) {
        if (weights && weights[r] == 0) continue;
        AMS_TRY(ams_rows_read(m->ctx, rows, r, m->y));
        for (uint64_t j = 0; j < m->d_out; j++)
            m->batch_mean[j] += (double)m->y[j];
        ++*n;
    }
    for (uint64_t j = 0; j < m->d_out; j++)
        m->batch_mean[j] /= (double)ams_max(*n, 1);
    return ATMSAE_OK;
}

static atmsae_status add_rows(atmsae_metrics *m, const ams_rows *x, const ams_rows *y, const float *weights)
{
    uint64_t in_batch;
    double before = m->sums.error;
    AMS_TRY(find_batch_mean(m, y ? y : x, weights, &in_batch));
    for (uint64_t r = 0; r < x->n;) {
        uint64_t n = 0;
        for (; r < x->n && n < CHUNK; r++) {
            if (weights && weights[r] == 0) continue;
            AMS_TRY(ams_rows_read(m->ctx, x, r, m->x + n * m->d_in));
            if (y) AMS_TRY(ams_rows_read(m->ctx, y, r, m->y + n * m->d_out));
            n++;
        }
        if (n > 0) AMS_TRY(add_chunk(m, n, y ? m->y : m->x));
    }
    if (in_batch == 0) return ATMSAE_OK;
    m->sums.bench_mse += (m->sums.error - before) / ((double)in_batch * (double)in_batch);
    m->sums.batches++;
    return ATMSAE_OK;
}

static atmsae_status add(atmsae_metrics *m, const atmsae_batch *caller)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    AMS_TRY(ams_struct_in(m->ctx, atmsae_batch, &batch, caller));
    ams_rows x = {"batch: x", batch.x, batch.n_rows, m->d_in, batch.ld_x, batch.x_type};
    ams_rows y = {"batch: y", batch.y, batch.n_rows, m->d_out, batch.ld_y, batch.y_type};
    AMS_TRY(ams_rows_check(m->ctx, &x));
    if (batch.y) AMS_TRY(ams_rows_check(m->ctx, &y));
    else AMS_TRY(ams_needs_no_targets(m->ctx, m->model, "metrics: batch"));
    AMS_TRY(ams_row_weights_check(m->ctx, batch.row_weights, batch.n_rows));

    ams_metric_sums was = m->sums;
    memcpy(m->shift_was, m->shift, m->d_out * sizeof *m->shift);
    memcpy(m->error_sum_was, m->error_sum, m->d_out * sizeof *m->error_sum);
    memcpy(m->counts_was, m->counts, m->d_sae * sizeof *m->counts);
    atmsae_status status = add_rows(m, &x, batch.y ? &y : NULL, batch.row_weights);
    if (status < 0) { /* some chunks may have been added */
        m->sums = was;
        memcpy(m->shift, m->shift_was, m->d_out * sizeof *m->shift);
        memcpy(m->error_sum, m->error_sum_was, m->d_out * sizeof *m->error_sum);
        memcpy(m->counts, m->counts_was, m->d_sae * sizeof *m->counts);
    }
    return status;
}

atmsae_status atmsae_metrics_add(atmsae_metrics *m, const atmsae_batch *caller)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, add(m, caller), AMS_READS("model", m->model), AMS_CHANGES("metrics", m));
}

/* A mean of nothing, or a share of 0, is undefined. */
static double ratio(double a, double b) { return b == 0 ? (double)NAN : a / b; }

double ams_metrics_variance(const atmsae_metrics *m)
{
    double variance = m->sums.shifted;
    for (uint64_t j = 0; j < m->d_out; j++)
        variance -= m->shift[j] * ratio(m->shift[j], (double)m->sums.rows);
    return variance;
}

static atmsae_status get(const atmsae_metrics *m, atmsae_metrics_result *out)
{
    const ams_metric_sums *s = &m->sums;
    atmsae_metrics_result r = {.size = sizeof r, .rows = s->rows};
    double n = (double)s->rows, variance = ams_metrics_variance(m);
    r.mse = ratio(s->error, n);
    r.fvu = variance > 0 ? s->error / variance : NAN;
    r.cosine = ratio(s->cosine, (double)s->cosines);
    r.l0 = ratio(s->l0, n);
    r.l1 = ratio(s->l1, n);
    r.bias = ratio(s->recon, s->dot);
    for (uint64_t i = 0; i < m->d_sae; i++) {
        r.dead += m->counts[i] == 0;
        r.dense += (double)m->counts[i] > 0.1 * n;
    }
    return ams_struct_out(m->ctx, atmsae_metrics_result, out, &r);
}

atmsae_status atmsae_metrics_get(const atmsae_metrics *m, atmsae_metrics_result *out)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, get(m, out), AMS_READS("metrics", m));
}

const uint64_t *atmsae_metrics_counts(const atmsae_metrics *m)
{
    return m ? m->counts : NULL;
}
