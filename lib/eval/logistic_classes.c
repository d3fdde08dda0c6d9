/* SPDX-License-Identifier: MIT
 *
 * Logistic regressions of many classes against the rest, on the same dense rows: Newton's method, all classes
 * a step at a time, so that X is multiplied with all of them at once.
 *
 * A step solves H step = -g by conjugate gradients, as well as the fall of the gradient so far deserves. Products
 * with H are in single precision, which limits only how good a step is; scores and gradients, which decide where
 * it all ends, are in double. A free intercept is eliminated from H, and rows are centred then, as in logistic.c; one
 * that is penalised is the weight of one more column.
 *
 * Conjugate gradients are slow where one column is much larger than the others. So they work on u_j = w_j r_j, r_j the
 * column's root mean square by that of all, or 1 if it is less; and the gradient's norm, which decides when to stop, is
 * that with respect to u, in which a large column does not hide the others. The problem is the caller's all the same.
 */
#include "eval/logistic_solver.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum { GROUP = 32, MAX_STEPS = 100, MAX_INNER = 1000, BLOCK = 512, PANEL = 192 };

typedef struct one { /* class */
    ams_logistic_solver c;
    double *curve;            /* [n] second derivatives of the loss */
    double *residual, *along; /* [d] of the linear system in u, and the direction of conjugate gradients */
    double norm, start, floor, slope_sum, curve_sum, squares, enough;
} one;

typedef struct group {
    const ams_logistic *p;
    double constant;   /* see ams_logistic_fit_classes */
    uint64_t d;        /* columns of x: p's, and that of the constant */
    double *x;         /* [n, d] rows, less their mean where the intercept is free */
    float *xf;         /* the same by unit r_j: a float's range is small */
    double *ratio;     /* [d] r_j */
    double *mean;      /* [d] */
    double unit;       /* root mean square of x */
    double *memory;    /* [GROUP, each] what a class keeps */
    /* Operands and results of products: a row for each class that takes part, by its place there. */
    double *by_row, *by_column; /* [GROUP, n], [GROUP, d] */
    float *by_row_f, *by_column_f;
    one ones[GROUP];
    one *part[GROUP];
    uint64_t n_part;
} group;

/* by_row = by_column X^T, a block of rows a job; by_column = by_row X, a panel of columns. */
static void rows_job(void *arg, uint64_t job, unsigned worker)
{
    group *s = arg;
    uint64_t n = s->p->n, d = s->d, first = job * BLOCK;
    (void)worker;
    ams_gemm_abt_f64(s->n_part, ams_min(BLOCK, n - first), d, s->by_column, d, s->x + first * d, d, s->by_row + first, n);
}
static void rows_job_f(void *arg, uint64_t job, unsigned worker)
{
    group *s = arg;
    uint64_t n = s->p->n, d = s->d, first = job * BLOCK;
    (void)worker;
    ams_gemm_abt(s->n_part, ams_min(BLOCK, n - first), d, s->by_column_f, d, s->xf + first * d, d, s->by_row_f + first, n);
}
static void columns_job(void *arg, uint64_t job, unsigned worker)
{
    group *s = arg;
    uint64_t n = s->p->n, d = s->d, first = job * PANEL;
    (void)worker;
    ams_gemm_ab_f64(s->n_part, ams_min(PANEL, d - first), n, s->by_row, n, s->x + first, d, s->by_column + first, d);
}
static void columns_job_f(void *arg, uint64_t job, unsigned worker)
{
    group *s = arg;
    uint64_t n = s->p->n, d = s->d, first = job * PANEL;
    (void)worker;
    ams_gemm_ab(s->n_part, ams_min(PANEL, d - first), n, s->by_row_f, n, s->xf + first, d, s->by_column_f + first, d);
}

/* ---- a class's part between products ------------------------------------------------------------------ */

static void differentiate(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    one *o = s->part[k];
    double *slope = s->by_row + k * s->p->n;
    (void)worker;
    o->slope_sum = o->curve_sum = 0;
    for (uint64_t i = 0; i < s->p->n; i++) {
        slope[i] = ams_logistic_slope(&o->c, i, o->c.z[i], o->curve + i);
        s->by_row_f[k * s->p->n + i] = (float)(o->curve[i] * s->unit * s->unit);
        if (s->constant > 0) continue; /* the sums are of the free intercept, and 0 without one */
        o->slope_sum += slope[i];
        o->curve_sum += o->curve[i];
    }
}

/* The gradient, and the linear system's start at 0. */
static void begin_step(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    one *o = s->part[k];
    uint64_t d = s->d;
    double shift = o->curve_sum > 0 ? o->slope_sum / o->curve_sum : 0, squares = 0;
    (void)worker;
    for (uint64_t j = 0; j < d; j++) {
        o->c.g[j] = o->c.w[j] + s->by_column[k * d + j];
        o->residual[j] = o->along[j] = (double)s->by_column_f[k * d + j] / s->unit * shift - o->c.g[j] / s->ratio[j];
        o->c.step[j] = 0;
        squares += o->c.g[j] / s->ratio[j] * (o->c.g[j] / s->ratio[j]);
    }
    if (s->constant <= 0) o->c.g[d] = o->slope_sum;
    o->norm = sqrt(squares + o->slope_sum * o->slope_sum);
    if (o->start < 0) o->start = o->norm;
    o->squares = ams_dot_f64(o->residual, o->residual, d);
    double share = fmin(0.1, o->norm / o->start); /* square of the part of the residual that may stay */
    o->enough = o->squares * share;
}

static void ask(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    (void)worker;
    for (uint64_t j = 0; j < s->d; j++)
        s->by_column_f[k * s->d + j] = (float)s->part[k]->along[j];
}

/* From X along to curve (X along - its mean under curve), both by `unit`. */
static void weigh(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    const one *o = s->part[k];
    float *u = s->by_row_f + k * s->p->n;
    double mean = 0;
    (void)worker;
    for (uint64_t i = 0; i < s->p->n; i++)
        mean += o->curve[i] * (double)u[i];
    mean = o->curve_sum > 0 ? mean / o->curve_sum : 0;
    for (uint64_t i = 0; i < s->p->n; i++)
        u[i] = (float)(o->curve[i] * s->unit * s->unit * ((double)u[i] - mean));
}

static void descend(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    one *o = s->part[k];
    uint64_t d = s->d;
    const float *product = s->by_column_f + k * d;
    double curvature = 0, before = o->squares;
    (void)worker;
    for (uint64_t j = 0; j < d; j++)
        curvature += o->along[j] * (o->along[j] / (s->ratio[j] * s->ratio[j]) + (double)product[j]);
    double t = before / curvature;
    for (uint64_t j = 0; j < d; j++) {
        o->c.step[j] += t * o->along[j];
        o->residual[j] -= t * (o->along[j] / (s->ratio[j] * s->ratio[j]) + (double)product[j]);
    }
    o->squares = ams_dot_f64(o->residual, o->residual, d);
    for (uint64_t j = 0; j < d; j++)
        o->along[j] = o->residual[j] + o->squares / before * o->along[j];
}

/* From u to w. */
static void give_step(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    (void)worker;
    for (uint64_t j = 0; j < s->d; j++)
        s->by_column[k * s->d + j] = s->part[k]->c.step[j] /= s->ratio[j];
}

static void end_step(void *arg, uint64_t k, unsigned worker)
{
    group *s = arg;
    one *o = s->part[k];
    uint64_t n = s->p->n;
    (void)worker;
    o->c.dz = s->by_row + k * n;
    double shift = o->curve_sum > 0 ? -(o->slope_sum + ams_dot_f64(o->curve, o->c.dz, n)) / o->curve_sum : 0;
    for (uint64_t i = 0; i < n; i++)
        o->c.dz[i] += shift;
    if (s->constant <= 0) o->c.step[s->d] = shift;
    double t = ams_logistic_line_search(&o->c);
    for (uint64_t j = 0; j < o->c.m; j++)
        o->c.w[j] += t * o->c.step[j];
    for (uint64_t i = 0; i < n; i++)
        o->c.z[i] += t * o->c.dz[i];
    if (!(t > 0)) o->enough = -1; /* rounding hides the way down: as good as it gets */
}

/* ---- all classes of a group --------------------------------------------------------------------------- */

static void keep(group *s, bool (*takes_part)(const one *))
{
    uint64_t kept = 0;
    for (uint64_t k = 0; k < s->n_part; k++)
        if (takes_part(s->part[k])) s->part[kept++] = s->part[k];
    s->n_part = kept;
}
static bool unsolved(const one *o) { return o->squares > o->enough; }
static bool off(const one *o) { return o->norm > AMS_LOGISTIC_TOLERANCE * o->start && o->norm > o->floor; }
static bool unfinished(const one *o) { return off(o) && o->enough >= 0; }

static void solve(atmsae_context *ctx, group *s)
{
    uint64_t blocks = (s->p->n - 1) / BLOCK + 1, panels = (s->d - 1) / PANEL + 1;
    one *going[GROUP];
    for (int step = 0; step < MAX_STEPS; step++) {
        ams_parallel(ctx, s->n_part, differentiate, s);
        ams_parallel(ctx, panels, columns_job, s);
        ams_parallel(ctx, panels, columns_job_f, s); /* of curve */
        ams_parallel(ctx, s->n_part, begin_step, s);
        keep(s, unfinished);
        if (s->n_part == 0) return;
        memcpy(going, s->part, sizeof going);
        const uint64_t n_going = s->n_part;
        for (int k = 0; keep(s, unsolved), k < MAX_INNER && s->n_part > 0; k++) {
            ams_parallel(ctx, s->n_part, ask, s);
            ams_parallel(ctx, blocks, rows_job_f, s);
            ams_parallel(ctx, s->n_part, weigh, s);
            ams_parallel(ctx, panels, columns_job_f, s);
            ams_parallel(ctx, s->n_part, descend, s);
        }
        memcpy(s->part, going, sizeof going);
        s->n_part = n_going;
        ams_parallel(ctx, s->n_part, give_step, s);
        ams_parallel(ctx, blocks, rows_job, s);
        ams_parallel(ctx, s->n_part, end_step, s);
    }
}

/* Rows that are all the same have a mean that is exact: it is counted from the first one on. */
static void find_mean(group *s)
{
    const ams_logistic *p = s->p;
    for (uint64_t i = 0; i < p->n; i++)
        for (uint64_t j = 0; j < p->d; j++)
            s->mean[j] += ((double)p->x[i * p->ld + j] - (double)p->x[j]) / (double)p->n;
    for (uint64_t j = 0; j < p->d && p->n > 0; j++)
        s->mean[j] += (double)p->x[j];
}

static void copy_rows(group *s)
{
    const ams_logistic *p = s->p;
    const uint64_t d = s->d;
    double squares = 0;
    for (uint64_t i = 0; i < p->n; i++)
        for (uint64_t j = 0; j < d; j++) {
            double x = s->x[i * d + j] = j < p->d ? (double)p->x[i * p->ld + j] - s->mean[j] : s->constant;
            s->ratio[j] += x * x / (double)p->n;
        }
    for (uint64_t j = 0; j < d; j++)
        squares += s->ratio[j] / (double)d;
    s->unit = squares > 0 ? sqrt(squares) : 1;
    for (uint64_t j = 0; j < d; j++)
        s->ratio[j] = fmax(1, sqrt(s->ratio[j]) / s->unit);
    for (uint64_t i = 0; i < p->n; i++)
        for (uint64_t j = 0; j < d; j++)
            s->xf[i * d + j] = (float)(s->x[i * d + j] / (s->unit * s->ratio[j]));
}

/* Classes first .. first + count-1. */
static void begin_group(group *s, uint64_t each, uint64_t first, uint64_t count, double *w)
{
    uint64_t n = s->p->n, d = s->d, m = s->p->d + 1;
    memset(s->memory, 0, GROUP * each * sizeof *s->memory);
    s->n_part = 0;
    for (uint64_t k = 0; k < count; k++) {
        one *o = s->ones + k;
        bool both = ams_logistic_begin(s->p, (int32_t)(first + k), &o->c);
        if (s->constant > 0) o->c.penalised = m;
        o->c.z = s->memory + k * each;
        o->curve = o->c.z + n;
        o->c.step = o->curve + n;
        o->c.g = o->c.step + m;
        o->residual = o->c.g + m;
        o->along = o->residual + d;
        o->c.w = w + (first + k) * m;
        o->start = -1;
        o->floor = both ? ams_logistic_floor(&o->c) * s->unit : 0;
        o->norm = 0;
        o->enough = 0;
        memset(o->c.w, 0, m * sizeof *o->c.w);
        if (both) s->part[s->n_part++] = o;
    }
}

static atmsae_status fit(atmsae_context *ctx, group *s, uint64_t n_classes, double *w)
{
    const uint64_t n = s->p->n, d = s->d;
    uint64_t size = 0, each = 0, total = 0;
    if (!ams_mul(n, d, &size) || __builtin_add_overflow(2 * n, 4 * d + 2, &each) || !ams_mul(each, GROUP, &total))
        return ams_nomem(ctx, "logistic regression");
    s->x = ams_alloc(ctx, size, sizeof *s->x);
    s->xf = ams_alloc(ctx, size, sizeof *s->xf);
    s->mean = ams_calloc(ctx, d, sizeof *s->mean);
    s->ratio = ams_calloc(ctx, d, sizeof *s->ratio);
    s->memory = ams_alloc(ctx, total, sizeof *s->memory);
    s->by_row = ams_alloc(ctx, GROUP * n, sizeof *s->by_row);
    s->by_column = ams_alloc(ctx, GROUP * d, sizeof *s->by_column);
    s->by_row_f = ams_alloc(ctx, GROUP * n, sizeof *s->by_row_f);
    s->by_column_f = ams_alloc(ctx, GROUP * d, sizeof *s->by_column_f);
    if (!s->x || !s->xf || !s->mean || !s->ratio || !s->memory || !s->by_row || !s->by_column || !s->by_row_f || !s->by_column_f)
        return ams_nomem(ctx, "logistic regression");
    if (s->constant <= 0) find_mean(s);
    copy_rows(s);
    for (uint64_t first = 0; first < n_classes; first += GROUP) {
        uint64_t count = ams_min(GROUP, n_classes - first);
        begin_group(s, each, first, count, w);
        if (s->n_part > 0) solve(ctx, s);
        for (uint64_t k = 0; k < count; k++) {
            const one *o = s->ones + k;
            if (s->constant > 0) o->c.w[s->p->d] *= s->constant;
            else o->c.w[d] -= ams_dot_f64(s->mean, o->c.w, d);
            if (off(o))
                return ams_fail(ctx, ATMSAE_E_NONFINITE,
                                "logistic regression: class %llu stopped at a relative gradient of %g, expected %g",
                                (unsigned long long)(first + k), o->norm / o->start, AMS_LOGISTIC_TOLERANCE);
        }
    }
    return ATMSAE_OK;
}

atmsae_status ams_logistic_fit_classes(atmsae_context *ctx, const ams_logistic *problem, double constant, uint64_t n_classes,
                                       double *w)
{
    group *s = ams_calloc(ctx, 1, sizeof *s);
    if (!s) return ams_nomem(ctx, "logistic regression");
    s->p = problem;
    s->constant = constant;
    s->d = problem->d + (constant > 0);
    atmsae_status status = fit(ctx, s, n_classes, w);
    void *memory[] = {s->x, s->xf, s->mean, s->ratio, s->memory, s->by_row, s->by_column, s->by_row_f, s->by_column_f, s};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}
