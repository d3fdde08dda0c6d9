/* SPDX-License-Identifier: MIT
 *
 * L1-penalised logistic regression: proximal Newton steps, each a quadratic problem solved by
 * cyclic coordinate descent over the columns that are in play (Friedman, Hastie & Tibshirani 2010;
 * Yuan, Ho & Lin 2012). Cyclic order makes the result the same on every run.
 */
#include "eval/lasso.h"

#include <math.h>
#include <string.h>

enum { MAX_NEWTON = 200, MAX_SWEEPS = 200, MAX_HALVINGS = 40 };

typedef struct solver {
    const ams_lasso *p;
    int32_t positive;
    double weight[2];        /* s / n of negative and positive rows */
    double *z, *dz;          /* [n_rows] scores and their change */
    double *slope, *curve;   /* [n_rows] derivatives of the loss with respect to z */
    double *w, *g;           /* [n_columns] */
    double *dw, *h;          /* [n_columns] step, diagonal of the Hessian */
    double *active;          /* [n_columns] 1: in play */
    double b, db, slope_sum, curve_sum;
} solver;

/* max(z, 0) + log(1 + exp(-|z|)) = log(1 + exp(z)) */
static double softplus(double z)
{
    return (z > 0 ? z : 0) + log1p(exp(-fabs(z)));
}

static double objective(const solver *s, double t)
{
    const ams_lasso *p = s->p;
    double loss = 0, l1 = 0;
    for (uint64_t i = 0; i < p->a.n_rows; i++) {
        bool positive = p->label[i] == s->positive;
        double z = s->z[i] + t * s->dz[i];
        loss += s->weight[positive] * softplus(positive ? -z : z);
    }
    for (uint64_t j = 0; j < p->a.n_columns; j++)
        l1 += fabs(s->w[j] + t * s->dw[j]);
    return loss + p->lambda * l1;
}

/* Derivatives at the current point; returns the largest violation of the optimality conditions. */
static double differentiate(solver *s)
{
    const ams_lasso *p = s->p;
    s->slope_sum = s->curve_sum = 0;
    for (uint64_t i = 0; i < p->a.n_rows; i++) {
        bool positive = p->label[i] == s->positive;
        double e = exp(-fabs(s->z[i])), large = 1 / (1 + e), small = e / (1 + e);
        double on = s->z[i] > 0 ? large : small, off = s->z[i] > 0 ? small : large;
        s->slope[i] = s->weight[positive] * (positive ? -off : on);
        s->curve[i] = s->weight[positive] * on * off;
        s->slope_sum += s->slope[i];
        s->curve_sum += s->curve[i];
    }
    double worst = fabs(s->slope_sum);
    for (uint64_t j = 0; j < p->a.n_columns; j++) {
        double g = 0, h = 0, miss;
        for (uint64_t e = p->a.start[j], end = e + p->a.count[j]; e < end; e++) {
            double a = (double)p->a.value[e];
            g += s->slope[p->a.row[e]] * a;
            h += s->curve[p->a.row[e]] * a * a;
        }
        s->g[j] = g;
        s->h[j] = h;
        if (s->w[j] > 0) miss = fabs(g + p->lambda);
        else if (s->w[j] < 0) miss = fabs(g - p->lambda);
        else miss = fabs(g) - p->lambda;
        s->active[j] = s->w[j] != 0 || miss > 0;
        if (miss > worst) worst = miss;
    }
    return worst;
}

/* Minimiser over v of g v + h v^2 / 2 + lambda |w + v|, h > 0. */
static double shrink(double w, double g, double h, double lambda)
{
    if (g + lambda < h * w) return -(g + lambda) / h;
    if (g - lambda > h * w) return -(g - lambda) / h;
    return -w;
}

/* One sweep over the columns in play; returns the largest fall of the quadratic model. */
static double sweep(solver *s)
{
    const ams_lasso *p = s->p;
    double most = 0;
    for (uint64_t j = 0; j < p->a.n_columns; j++) {
        if (s->active[j] == 0 || s->h[j] <= 0) continue;
        uint64_t first = p->a.start[j], end = first + p->a.count[j];
        double g = s->g[j];
        for (uint64_t e = first; e < end; e++)
            g += s->curve[p->a.row[e]] * s->dz[p->a.row[e]] * (double)p->a.value[e];
        double v = shrink(s->w[j] + s->dw[j], g, s->h[j], p->lambda);
        if (v == 0) continue;
        s->dw[j] += v;
        for (uint64_t e = first; e < end; e++)
            s->dz[p->a.row[e]] += v * (double)p->a.value[e];
        most = fmax(most, s->h[j] * v * v);
    }
    if (s->curve_sum > 0) {
        double g = s->slope_sum;
        for (uint64_t i = 0; i < p->a.n_rows; i++)
            g += s->curve[i] * s->dz[i];
        double v = -g / s->curve_sum;
        s->db += v;
        for (uint64_t i = 0; i < p->a.n_rows; i++)
            s->dz[i] += v;
        most = fmax(most, s->curve_sum * v * v);
    }
    return most;
}

/* Takes the step, halved until the objective falls enough (up to its rounding); false: never. */
static bool move(solver *s)
{
    const ams_lasso *p = s->p;
    double here = objective(s, 0), slope = s->slope_sum * s->db, t = 1;
    for (uint64_t j = 0; j < p->a.n_columns; j++)
        if (s->active[j] != 0)
            slope += s->g[j] * s->dw[j] + p->lambda * (fabs(s->w[j] + s->dw[j]) - fabs(s->w[j]));
    for (int k = 0; k < MAX_HALVINGS; k++, t *= 0.5) {
        if (!(objective(s, t) <= here + 0.01 * t * slope + 1e-13 * here)) continue;
        for (uint64_t j = 0; j < p->a.n_columns; j++)
            s->w[j] += t * s->dw[j];
        for (uint64_t i = 0; i < p->a.n_rows; i++)
            s->z[i] += t * s->dz[i];
        s->b += t * s->db;
        return true;
    }
    return false;
}

uint64_t ams_lasso_work(const ams_lasso *p)
{
    uint64_t rows = 0, columns = 0, total = 0;
    if (!ams_mul(p->a.n_rows, 4, &rows) || !ams_mul(p->a.n_columns, 3, &columns) ||
        __builtin_add_overflow(rows, columns + 1, &total))
        return 0;
    return total;
}

double ams_lasso_fit(const ams_lasso *p, int32_t positive, double *work, double *w, double *gradient)
{
    uint64_t n = p->a.n_rows, f = p->a.n_columns, n_positive = 0;
    for (uint64_t i = 0; i < n; i++)
        n_positive += p->label[i] == positive;
    memset(work, 0, ams_lasso_work(p) * sizeof *work);
    memset(w, 0, f * sizeof *w);
    solver s = {.p = p, .positive = positive, .w = w, .g = gradient};
    s.weight[0] = 1 / (double)n;
    s.weight[1] = (double)(n - n_positive) / (double)n_positive / (double)n;
    s.z = work;
    s.dz = s.z + n;
    s.slope = s.dz + n;
    s.curve = s.slope + n;
    s.dw = s.curve + n;
    s.h = s.dw + f;
    s.active = s.h + f;

    double worst = differentiate(&s);
    for (int k = 0; k < MAX_NEWTON && worst > AMS_LASSO_TOLERANCE * p->lambda; k++) {
        memset(s.dz, 0, n * sizeof *s.dz);
        memset(s.dw, 0, f * sizeof *s.dw);
        s.db = 0;
        /* Sweeps end when a sweep gains little against the first: far from the optimum the model
         * is not worth more. */
        double first = sweep(&s), gain = first;
        for (int q = 1; q < MAX_SWEEPS && gain > 1e-4 * first; q++)
            gain = sweep(&s);
        if (!move(&s)) break;
        worst = differentiate(&s);
    }
    return worst / p->lambda;
}

static bool before(const double *w, const double *gradient, uint32_t a, uint32_t b)
{
    if (w[a] != w[b]) return w[a] > w[b];
    if (gradient[a] != gradient[b]) return gradient[a] < gradient[b];
    return a < b;
}

void ams_lasso_rank(const double *w, const double *gradient, uint64_t n_columns, uint64_t k, uint32_t *best)
{
    uint64_t kept = 0;
    for (uint64_t j = 0; j < n_columns; j++) {
        uint64_t at = kept < k ? kept++ : k;
        if (at == k && (k == 0 || !before(w, gradient, (uint32_t)j, best[k - 1]))) continue;
        if (at == k) at--;
        for (; at > 0 && before(w, gradient, (uint32_t)j, best[at - 1]); at--)
            best[at] = best[at - 1];
        best[at] = (uint32_t)j;
    }
}
