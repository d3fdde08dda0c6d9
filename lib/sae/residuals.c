/* SPDX-License-Identifier: MIT
 *
 * Residuals and the losses of rows: takes what each latent reconstructs out of the targets (doc/method.md,
 * section 2), and of the second loss puts back what the masked ones do (section 3). Work follows the live
 * entries, latent by latent.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <string.h>

typedef struct pass {
    const atmsae_model *m;
    atmsae_codes *c;
    float *e;      /* = the last residual: [n, d_out] */
    uint64_t rows; /* of a job */
} pass;

static double row_penalty(const atmsae_model *m, const atmsae_codes *c, uint64_t p)
{
    double norm = (double)m->dec_norm[c->main.latent[p]], f = (double)c->main.value[p];
    switch (m->config.activation) {
    case ATMSAE_RELU: return f * norm;
    case ATMSAE_JUMPRELU_TANH: return f > 0 ? ams_tanh(m->config.tanh_scale * f * norm) : 0;
    case ATMSAE_GATED: return (double)c->pre[p] * norm;
    default: return 0;
    }
}

/* Rows of one job of a decode. Latents come in ascending order for all of them, so the more rows, the
 * less often W_dec is read from memory; but where entries are dense, rows that stay in the CPU's own
 * cache are worth more. */
static uint64_t rows_a_job(const atmsae_codes *c, const ams_sparse *s, uint64_t latents)
{
    const uint64_t workers = ams_workers(c->ctx);
    return ams_index_dense(s->start[s->n], latents, s->n) ? 64 : ams_max(1, (s->n + workers - 1) / workers);
}

/* Takes a latent's share out of rows first .. last-1 of `rest` [n, d_out]. What its masked entries take goes to
 * `hidden_share` [n, d_out], which only a second loss has. */
static void subtract(const pass *a, uint64_t i, const float *value, float *rest, float *hidden_share, uint64_t first,
                     uint64_t last)
{
    const ams_index *by_latent = &a->c->by_latent;
    const uint64_t d = a->m->d_out, end = by_latent->start[i + 1];
    const float *dec = a->m->w_dec + i * d;
    const bool sparse = end - by_latent->start[i] < a->c->n / 16; /* dense rows the CPU sees coming */
    for (uint64_t p = ams_lower_bound(by_latent->row, by_latent->start[i], end, first); p < end; p++) {
        if (by_latent->row[p] >= last) return;
        if (sparse && p + 1 < end) ams_prefetch(rest + by_latent->row[p + 1] * d, d);
        float f = value[by_latent->at[p]];
        if (f == 0) continue;
        ams_axpy(rest + by_latent->row[p] * d, -f, dec, d);
        if (hidden_share && a->c->hidden[by_latent->at[p]]) ams_axpy(hidden_share + by_latent->row[p] * d, f, dec, d);
    }
}

/* In: `share`, what the masked entries of a row take out. Returns |e'|^2 of e' = e + share; out: e + alpha e'. */
static double second_loss(float *share, const float *e, float alpha, uint64_t d)
{
    for (uint64_t j = 0; j < d; j++)
        share[j] += e[j];
    const double loss = (double)ams_dot(share, share, d);
    for (uint64_t j = 0; j < d; j++)
        share[j] = e[j] + alpha * share[j];
    return loss;
}

/* The losses of a row whose residuals are complete. */
static void sum_row(const pass *a, uint64_t r)
{
    const atmsae_model *m = a->m;
    atmsae_codes *c = a->c;
    const uint64_t d = m->d_out;
    double *sums = c->row_sums + r * AMS_ROW_SUMS;
    const float *e = a->e + r * d, *next = e;
    for (uint64_t p = c->main.start[r]; p < c->main.start[r + 1]; p++) {
        sums[AMS_SUM_PENALTY] += row_penalty(m, c, p);
        sums[AMS_SUM_COUNT] += c->main.value[p] > 0;
    }
    if (m->config.activation == ATMSAE_GATED) {
        const float *gate = c->gate_residual + r * d;
        sums[AMS_SUM_GATE] = (double)ams_dot(gate, gate, d);
        if (c->alpha > 0) sums[AMS_SUM_GATE] += c->alpha * second_loss(c->gate_teacher + r * d, gate, (float)c->alpha, d);
    }
    sums[AMS_SUM_MSE] = (double)ams_dot(e, e, d);
    if (c->alpha > 0) {
        sums[AMS_SUM_HIDDEN] = second_loss(c->teacher + r * d, e, (float)c->alpha, d);
        next = c->teacher + r * d;
    }
    for (uint64_t g = c->n_residuals - 1; g-- > 0;) {
        float *part = ams_residual(c, g) + r * d;
        sums[AMS_SUM_PREFIX] += (double)ams_dot(part, part, d);
        ams_axpy(part, 1, next, d); /* from here on: the suffix sum */
        next = part;
    }
}

static void decode_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const atmsae_model *m = a->m;
    atmsae_codes *c = a->c;
    const uint64_t first = job * a->rows, last = ams_min(first + a->rows, c->n), d = m->d_out;
    const size_t bytes = (size_t)((last - first) * d) * sizeof(float);
    const bool gated = m->config.activation == ATMSAE_GATED;
    float *const share = c->alpha > 0 ? c->teacher : NULL, *const gate_share = c->alpha > 0 ? c->gate_teacher : NULL;
    if (share) memset(share + first * d, 0, bytes);
    if (gated && gate_share) memset(gate_share + first * d, 0, bytes);
    if (gated) memcpy(c->gate_residual + first * d, a->e + first * d, bytes);
    uint64_t i = 0;
    for (uint64_t g = 0; g < c->n_residuals; g++) {
        const uint64_t end = g + 1 < c->n_residuals ? m->prefixes[g] : m->d_sae;
        for (; i < end; i++) {
            subtract(a, i, c->main.value, a->e, share, first, last);
            if (gated) subtract(a, i, c->pre, c->gate_residual, gate_share, first, last);
        }
        if (end < m->d_sae) memcpy(ams_residual(c, g) + first * d, a->e + first * d, bytes);
    }
    for (uint64_t r = first; r < last; r++)
        sum_row(a, r);
}

enum { AUX_ROWS_A_JOB = 64 };

static void copy_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t d = a->m->d_out, first = job * AUX_ROWS_A_JOB, last = ams_min(first + AUX_ROWS_A_JOB, a->c->n);
    memcpy(a->c->aux_residual + first * d, a->e + first * d, (size_t)((last - first) * d) * sizeof *a->e);
}

static void aux_job(void *arg, uint64_t r, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t d = a->m->d_out;
    const float *rest = a->c->aux_residual + r * d;
    a->c->row_sums[r * AMS_ROW_SUMS + AMS_SUM_AUX] = (double)ams_dot(rest, rest, d);
}

static atmsae_status decode_aux(pass *a)
{
    atmsae_codes *c = a->c;
    const uint64_t d = a->m->d_out;
    AMS_TRY(ams_index_build(c->ctx, &c->aux_by_latent, AMS_INDEX_VALUES, &c->aux, c->n_aux));
    ams_parallel(c->ctx, (c->n + AUX_ROWS_A_JOB - 1) / AUX_ROWS_A_JOB, copy_job, a);
    const ams_gather subtract_dead = {.start = c->aux.start, .at = c->aux.latent, .value = c->aux.value, .n = c->n, .d = d,
                                      .rows = a->m->w_dec, .row_of = c->aux_list, .n_rows = c->n_aux, .factor = -1,
                                      .out = c->aux_residual};
    ams_gather_run(c->ctx, c->gather, &subtract_dead);
    ams_parallel(c->ctx, c->n, aux_job, a);
    return ATMSAE_OK;
}

atmsae_status ams_take_out_latents(const atmsae_model *m, atmsae_codes *c)
{
    pass a = {.m = m, .c = c, .e = ams_residual(c, c->n_residuals - 1)};
    AMS_TRY(ams_index_build(c->ctx, &c->by_latent, AMS_INDEX_PLACES, &c->main, c->d_sae));
    a.rows = rows_a_job(c, &c->main, c->d_sae);
    ams_parallel(c->ctx, (c->n + a.rows - 1) / a.rows, decode_job, &a);
    return c->aux_scale == 0 ? ATMSAE_OK : decode_aux(&a);
}
