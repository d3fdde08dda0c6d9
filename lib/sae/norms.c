/* SPDX-License-Identifier: MIT
 *
 * Norms of rows: the median, what hangs on the longest ones, and which are above a limit. A few rows that are many
 * times longer than the others (attention sinks, BOS rows) decide every sum of squares.
 */
#include "kernels/rows.h"
#include "sae/sae.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { COLUMNS_A_JOB = 64, ROWS_A_PERCENT = 100, MOST_COLUMNS = 1 << 22 };

static const char *row_at(const ams_rows *rows, uint64_t r)
{
    return (const char *)rows->data + r * rows->ld * ams_type_size(rows->type);
}

/* Row r as f32 in this worker's part of `room`. */
static const float *row(const ams_rows *rows, uint64_t r, float *room, unsigned worker)
{
    float *one = room + worker * rows->d;
    ams_to_f32(one, row_at(rows, r), rows->type, rows->d);
    return one;
}

/* ---- what hangs on the longest rows ------------------------------------------------------------------------------ */

typedef struct norms {
    const ams_rows *rows;
    const float *weights; /* [n]; NULL: 1 */
    float *room;          /* [workers, d] */
    float *norm;          /* [n] -1: the row takes no part */
    float *values, *rest; /* [n] for kth_norm */
    double *energy;       /* [n] |x - mean|^2 */
    double *mean;         /* [d] */
    uint64_t n;           /* rows that take part */
} norms;

static void norm_job(void *arg, uint64_t r, unsigned worker)
{
    norms *a = arg;
    const bool counts = !a->weights || a->weights[r] != 0;
    const double norm = counts ? ams_norm(row(a->rows, r, a->room, worker), a->rows->d) : (double)NAN;
    a->norm[r] = isfinite(norm) ? (float)fmin(norm, (double)FLT_MAX) : -1;
}

static void mean_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    norms *a = arg;
    float part[COLUMNS_A_JOB];
    const uint64_t first = job * COLUMNS_A_JOB, count = ams_min(COLUMNS_A_JOB, a->rows->d - first);
    double *mean = a->mean + first;
    memset(mean, 0, (size_t)count * sizeof *mean);
    for (uint64_t r = 0; r < a->rows->n; r++) {
        if (a->norm[r] < 0) continue;
        ams_to_f32(part, row_at(a->rows, r) + first * ams_type_size(a->rows->type), a->rows->type, count);
        for (uint64_t j = 0; j < count; j++)
            mean[j] += (double)part[j];
    }
    for (uint64_t j = 0; j < count; j++)
        mean[j] /= (double)a->n;
}

static void energy_job(void *arg, uint64_t r, unsigned worker)
{
    norms *a = arg;
    a->energy[r] = 0;
    if (a->norm[r] < 0) return;
    const float *x = row(a->rows, r, a->room, worker);
    for (uint64_t j = 0; j < a->rows->d; j++)
        a->energy[r] += ((double)x[j] - a->mean[j]) * ((double)x[j] - a->mean[j]);
}

/* The k-th largest norm, k from 1. */
static double kth_norm(const norms *a, uint64_t k)
{
    uint64_t n = 0;
    for (uint64_t r = 0; r < a->rows->n; r++)
        if (a->norm[r] >= 0) a->values[n++] = a->norm[r];
    return (double)ams_kth(a->values, a->rest, n, k);
}

static uint64_t count_longer(const norms *a, double norm)
{
    uint64_t n = 0;
    for (uint64_t r = 0; r < a->rows->n; r++)
        n += (double)a->norm[r] > norm;
    return n;
}

/* Share of the energy in the `top` longest rows; of those as long as the last of them, the first ones. */
static double share_of(const norms *a, uint64_t top)
{
    const double shortest = kth_norm(a, top);
    uint64_t equal = top - count_longer(a, shortest);
    double in_top = 0, total = 0;
    for (uint64_t r = 0; r < a->rows->n; r++) {
        const double norm = (double)a->norm[r];
        const bool last = norm == shortest && equal > 0;
        equal -= last;
        total += a->energy[r];
        if (norm > shortest || last) in_top += a->energy[r];
    }
    return total > 0 ? in_top / total : 0;
}

static void measure(atmsae_context *ctx, norms *a, bool shares, atmsae_row_norms *out)
{
    ams_parallel(ctx, a->rows->n, norm_job, a);
    out->rows = a->n = count_longer(a, -0.5);
    if (a->n == 0) return;
    out->median = (kth_norm(a, (a->n + 1) / 2) + kth_norm(a, a->n / 2 + 1)) / 2;
    out->largest = kth_norm(a, 1);
    if (!shares) return;
    const uint64_t percent = (a->n + ROWS_A_PERCENT - 1) / ROWS_A_PERCENT;
    out->top_rows = ams_max(percent, out->median > 0 ? count_longer(a, AMS_LONG_ROW * out->median) : 0);
    ams_parallel(ctx, (a->rows->d + COLUMNS_A_JOB - 1) / COLUMNS_A_JOB, mean_job, a);
    ams_parallel(ctx, a->rows->n, energy_job, a);
    out->top_share = share_of(a, out->top_rows);
}

bool ams_row_norms(atmsae_context *ctx, const ams_rows *rows, const float *weights, bool shares, atmsae_row_norms *out)
{
    *out = (atmsae_row_norms){.size = sizeof *out};
    norms a = {.rows = rows, .weights = weights};
    void *taken[] = {a.room = ams_alloc(ctx, ams_workers(ctx) * rows->d, sizeof *a.room),
                     a.norm = ams_alloc(ctx, rows->n, sizeof *a.norm),
                     a.values = ams_alloc(ctx, rows->n, sizeof *a.values),
                     a.rest = ams_alloc(ctx, rows->n, sizeof *a.rest),
                     a.energy = ams_alloc(ctx, shares ? rows->n : 0, sizeof *a.energy),
                     a.mean = ams_alloc(ctx, shares ? rows->d : 0, sizeof *a.mean)};
    const size_t n = sizeof taken / sizeof *taken;
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all = all && taken[i];
    if (all) measure(ctx, &a, shares, out);
    for (size_t i = 0; i < n; i++)
        ams_free(ctx, taken[i]);
    return all;
}

/* ---- rows above a limit ------------------------------------------------------------------------------------------- */

typedef struct limit {
    const ams_rows *rows;
    double norm;
    float *weights, *room;
} limit;

static void limit_job(void *arg, uint64_t r, unsigned worker)
{
    limit *a = arg;
    if (a->weights[r] == 0) return;
    const double norm = ams_norm(row(a->rows, r, a->room, worker), a->rows->d);
    if (norm > a->norm && isfinite(norm)) a->weights[r] = -1;
}

uint64_t ams_limit_rows(atmsae_context *ctx, const ams_rows *rows, double norm, float *weights, float *room)
{
    limit a = {rows, norm, weights, room};
    uint64_t left_out = 0;
    ams_parallel(ctx, rows->n, limit_job, &a);
    for (uint64_t r = 0; r < rows->n; r++) {
        if (weights[r] >= 0) continue;
        weights[r] = 0;
        left_out++;
    }
    return left_out;
}

/* ---- public -------------------------------------------------------------------------------------------------------- */

/* x of a caller's batch, checked; *weights: its weights. */
static atmsae_status check(atmsae_context *ctx, const atmsae_batch *caller, uint64_t d, ams_rows *x, const float **weights)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    AMS_TRY(ams_struct_in(ctx, atmsae_batch, &b, caller));
    if (d < 1 || d > MOST_COLUMNS) return ams_fail(ctx, ATMSAE_E_ARG, "d = %llu, allowed: 1 to 2^22", (unsigned long long)d);
    *x = (ams_rows){"batch: x", b.x, b.n_rows, d, b.ld_x, b.x_type};
    AMS_TRY(ams_rows_check(ctx, x));
    *weights = b.row_weights;
    return ams_row_weights_check(ctx, b.row_weights, b.n_rows);
}

static atmsae_status batch_norms(atmsae_context *ctx, const atmsae_batch *batch, uint64_t d, atmsae_row_norms *out)
{
    ams_rows x;
    const float *weights;
    atmsae_row_norms local;
    AMS_TRY(ams_struct_check(ctx, atmsae_row_norms, out));
    AMS_TRY(check(ctx, batch, d, &x, &weights));
    if (!ams_row_norms(ctx, &x, weights, true, &local)) return ams_nomem(ctx, "norms of rows");
    return ams_struct_out(ctx, atmsae_row_norms, out, &local);
}

atmsae_status atmsae_batch_norms(atmsae_context *ctx, const atmsae_batch *batch, uint64_t d, atmsae_row_norms *out)
{
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, batch_norms(ctx, batch, d, out));
}

static atmsae_status batch_limit(atmsae_context *ctx, const atmsae_batch *batch, uint64_t d, double norm, float *weights,
                                 uint64_t *left_out)
{
    ams_rows x;
    const float *own;
    AMS_TRY(check(ctx, batch, d, &x, &own));
    if (!(norm > 0)) return ams_fail(ctx, ATMSAE_E_ARG, "batch_limit: norm = %g, expected above 0", norm);
    if (x.n == 0) return ATMSAE_OK;
    AMS_CHECK_ARRAY(ctx, "batch_limit: weights", weights);
    float *room = ams_alloc(ctx, ams_workers(ctx) * d, sizeof *room);
    if (!room) return ams_nomem(ctx, "rows to measure");
    for (uint64_t r = 0; r < x.n; r++)
        weights[r] = own ? own[r] : 1;
    const uint64_t n = ams_limit_rows(ctx, &x, norm, weights, room);
    ams_free(ctx, room);
    if (left_out) *left_out = n;
    return ATMSAE_OK;
}

atmsae_status atmsae_batch_limit(atmsae_context *ctx, const atmsae_batch *batch, uint64_t d, double norm, float *weights,
                                 uint64_t *left_out)
{
    if (left_out) *left_out = 0;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, batch_limit(ctx, batch, d, norm, weights, left_out));
}
