/* SPDX-License-Identifier: MIT
 *
 * L1-penalised logistic regression: proximal Newton steps, each a quadratic problem solved by
 * cyclic coordinate descent over the columns that are in play (Friedman, Hastie & Tibshirani 2010;
 * Yuan, Ho & Lin 2012). Cyclic order makes the result the same on every run.
 *
 * Few columns end up with a weight, and a sweep costs what the columns in play hold. So the worst come into
 * play first, and the others are looked at again when those are done well enough; in the end all are. In the
 * quadratic problem the intercept is at its optimum for every w, which takes no pass over rows. The step's
 * length comes from the slope along it, which takes the derivatives that the next step needs anyway.
 *
 * Where a few rows far larger than all others make columns all but the same, sweeps crawl. Then the quadratic problem is
 * solved by an active-set method with Cholesky's factors instead.
 */
#include "eval/lasso.h"
#include "eval/logistic.h"

#include <math.h>
#include <string.h>

enum { MAX_NEWTON = 400, PATIENCE = 100, CRAWLS = 8, MAX_SWEEPS = 200, MAX_HALVINGS = 40, MOST_AT_ONCE = 256 };

typedef struct solver {
    const ams_lasso *p;
    int32_t positive;
    double weight[2];        /* s / n of negative and positive rows */
    double *z, *dz;          /* [n_rows] scores and their change, dz without db; curve dz while sweeping */
    double *slope, *curve;   /* [n_rows] derivatives of the loss with respect to z */
    double *w, *g;           /* [n_columns]; g: gradient of the loss */
    double *dw, *h, *sum;    /* [n_columns] step, diagonal of the Hessian, sum of curve a; of columns in play */
    double *hessian, *factor; /* [MOST_AT_ONCE, MOST_AT_ONCE] of columns in play, and its factors */
    double *slopes, *direction, *sign; /* [MOST_AT_ONCE] gradient of the loss, a direction, signs of weights */
    uint32_t *play;          /* columns in play, ascending */
    uint64_t n_play;
    double b, db, slope_sum, curve_sum;
} solver;

/* At z + t (dz + db). */
static void differentiate_rows(solver *s, double t)
{
    const ams_lasso *p = s->p;
    s->slope_sum = s->curve_sum = 0;
    for (uint64_t i = 0; i < p->a.n_rows; i++) {
        bool positive = p->label[i] == s->positive;
        double off, on = ams_sigmoid(s->z[i] + t * (s->dz[i] + s->db), &off);
        s->slope[i] = s->weight[positive] * (positive ? -off : on);
        s->curve[i] = s->weight[positive] * on * off;
        s->slope_sum += s->slope[i];
        s->curve_sum += s->curve[i];
    }
}

/* Sum over a column's entries, in four lanes, which need not wait for each other. */
static double column_dot(const ams_columns *a, uint64_t j, const double *x)
{
    const uint32_t *row = a->row + a->start[j];
    const float *value = a->value + a->start[j];
    uint64_t e = 0, n = a->count[j];
    double lane[4] = {0};
    for (; e + 4 <= n; e += 4)
        for (uint64_t l = 0; l < 4; l++)
            lane[l] += x[row[e + l]] * (double)value[e + l];
    for (; e < n; e++)
        lane[0] += x[row[e]] * (double)value[e];
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* Renews a column's gradient; returns its violation of the optimality conditions. */
static double differentiate_column(solver *s, uint64_t j)
{
    double g = s->g[j] = column_dot(&s->p->a, j, s->slope);
    if (s->w[j] > 0) return fabs(g + s->p->lambda);
    if (s->w[j] < 0) return fabs(g - s->p->lambda);
    return fabs(g) - s->p->lambda;
}

static double differentiate_play(solver *s)
{
    double worst = fabs(s->slope_sum);
    for (uint64_t q = 0; q < s->n_play; q++)
        worst = fmax(worst, differentiate_column(s, s->play[q]));
    return worst;
}

/* Looks at all columns, and brings into play those with a weight and the worst of the others: all that violate
 * the conditions once none does by more than lambda. */
static double differentiate_all(solver *s)
{
    double worst = fabs(s->slope_sum), *miss = s->dw; /* free between steps */
    for (uint64_t j = 0; j < s->p->a.n_columns; j++) {
        miss[j] = differentiate_column(s, j);
        worst = fmax(worst, miss[j]);
    }
    double from = worst > s->p->lambda ? worst / 10 : 0;
    s->n_play = 0;
    for (uint64_t j = 0; j < s->p->a.n_columns; j++)
        if (s->w[j] != 0 || miss[j] > from) s->play[s->n_play++] = (uint32_t)j;
    return worst;
}

/* Minimiser over v of g v + h v^2 / 2 + lambda |w + v|, h > 0. */
static double shrink(double w, double g, double h, double lambda)
{
    if (g + lambda < h * w) return -(g + lambda) / h;
    if (g - lambda > h * w) return -(g - lambda) / h;
    return -w;
}

static void begin_sweeps(solver *s)
{
    const ams_columns *a = &s->p->a;
    memset(s->dz, 0, a->n_rows * sizeof *s->dz);
    for (uint64_t q = 0; q < s->n_play; q++) {
        uint32_t j = s->play[q];
        s->dw[j] = s->h[j] = s->sum[j] = 0;
        for (uint64_t e = a->start[j], end = e + a->count[j]; e < end; e++) {
            double part = s->curve[a->row[e]] * (double)a->value[e];
            s->sum[j] += part;
            s->h[j] += part * (double)a->value[e];
        }
        if (s->curve_sum > 0) s->h[j] -= s->sum[j] * s->sum[j] / s->curve_sum;
    }
    s->db = s->curve_sum > 0 ? -s->slope_sum / s->curve_sum : 0;
}

/* One sweep over the columns in play; returns the largest fall of the quadratic model. */
static double sweep(solver *s)
{
    const ams_columns *a = &s->p->a;
    double most = 0;
    for (uint64_t q = 0; q < s->n_play; q++) {
        uint32_t j = s->play[q];
        uint64_t first = a->start[j], end = first + a->count[j];
        if (s->h[j] <= 0) continue;
        double g = s->g[j] + s->db * s->sum[j] + column_dot(a, j, s->dz);
        double v = shrink(s->w[j] + s->dw[j], g, s->h[j], s->p->lambda);
        if (v == 0) continue;
        s->dw[j] += v;
        for (uint64_t e = first; e < end; e++)
            s->dz[a->row[e]] += v * s->curve[a->row[e]] * (double)a->value[e];
        if (s->curve_sum > 0) s->db -= v * s->sum[j] / s->curve_sum;
        most = fmax(most, s->h[j] * v * v);
    }
    return most;
}

static void end_sweeps(solver *s)
{
    const ams_columns *a = &s->p->a;
    memset(s->dz, 0, a->n_rows * sizeof *s->dz);
    for (uint64_t q = 0; q < s->n_play; q++) {
        uint32_t j = s->play[q];
        for (uint64_t e = a->start[j], end = e + a->count[j]; s->dw[j] != 0 && e < end; e++)
            s->dz[a->row[e]] += s->dw[j] * (double)a->value[e];
    }
}

/* ---- all columns in play at once ---------------------------------------------------------------------------- */

/* Hessian of the columns in play and gradient, for an intercept that is at its optimum. False: too many. */
static bool assemble(solver *s)
{
    const ams_columns *a = &s->p->a;
    if (s->n_play == 0 || s->n_play > MOST_AT_ONCE || !(s->curve_sum > 0)) return false;
    memset(s->dz, 0, a->n_rows * sizeof *s->dz);
    for (uint64_t q = 0; q < s->n_play; q++) {
        const uint32_t column = s->play[q];
        const uint64_t first = a->start[column], end = first + a->count[column];
        s->sum[column] = 0;
        for (uint64_t e = first; e < end; e++) {
            s->dz[a->row[e]] = s->curve[a->row[e]] * (double)a->value[e];
            s->sum[column] += s->dz[a->row[e]];
        }
        for (uint64_t r = 0; r <= q; r++)
            s->hessian[q * MOST_AT_ONCE + r] = s->hessian[r * MOST_AT_ONCE + q] =
                column_dot(a, s->play[r], s->dz) - s->sum[column] * s->sum[s->play[r]] / s->curve_sum;
        for (uint64_t e = first; e < end; e++)
            s->dz[a->row[e]] = 0;
        s->slopes[q] = s->g[column] - s->sum[column] * s->slope_sum / s->curve_sum;
    }
    return true;
}

/* Newton's direction among the n columns `set` with a sign: by Cholesky's factors, in `factor` and `direction`. */
static void solve(solver *s, const uint32_t *set, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        double *row = s->factor + i * MOST_AT_ONCE, x = -(s->slopes[set[i]] + s->p->lambda * s->sign[set[i]]);
        const double *h = s->hessian + (size_t)set[i] * MOST_AT_ONCE;
        for (uint64_t j = 0; j <= i; j++) {
            const double *other = s->factor + j * MOST_AT_ONCE;
            double left = h[set[j]];
            for (uint64_t k = 0; k < j; k++)
                left -= row[k] * other[k];
            row[j] = j < i ? left / other[j] : sqrt(fmax(left, 1e-13 * h[set[i]]));
        }
        for (uint64_t k = 0; k < i; k++)
            x -= row[k] * s->direction[k];
        s->direction[i] = x / row[i];
    }
    for (uint64_t i = n; i-- > 0;) {
        s->direction[i] /= s->factor[i * MOST_AT_ONCE + i];
        for (uint64_t k = 0; k < i; k++)
            s->direction[k] -= s->direction[i] * s->factor[i * MOST_AT_ONCE + k];
    }
}

/* The quadratic problem's solution itself, by the active-set method: directions among the columns with a sign, as far as the
 * first that becomes 0 and leaves them; at the optimum among them, the column that violates the conditions the most comes in. */
static bool solve_at_once(solver *s)
{
    uint32_t set[MOST_AT_ONCE];
    const double lambda = s->p->lambda;
    if (!assemble(s)) return false;
    for (uint64_t q = 0; q < s->n_play; q++) {
        const double w = s->w[s->play[q]];
        s->dw[s->play[q]] = 0;
        s->sign[q] = (double)((w > 0) - (w < 0));
    }
    uint64_t came = UINT64_MAX;
    for (uint64_t tries = 0; tries < 4 * s->n_play; tries++) {
        uint64_t n = 0, leaves = UINT64_MAX;
        double part = 1;
        for (uint64_t q = 0; q < s->n_play; q++)
            if (s->sign[q] != 0) set[n++] = (uint32_t)q;
        solve(s, set, n);
        for (uint64_t i = 0; i < n; i++) {
            const double x = s->w[s->play[set[i]]] + s->dw[s->play[set[i]]];
            if (s->sign[set[i]] * (x + s->direction[i]) >= 0 || -x / s->direction[i] >= part) continue;
            part = fmax(0, -x / s->direction[i]);
            leaves = set[i];
        }
        for (uint64_t i = 0; i < n; i++) {
            s->dw[s->play[set[i]]] += part * s->direction[i];
            for (uint64_t q = 0; q < s->n_play; q++)
                s->slopes[q] += part * s->direction[i] * s->hessian[(size_t)set[i] * MOST_AT_ONCE + q];
        }
        if (leaves < UINT64_MAX) {
            s->dw[s->play[leaves]] = -s->w[s->play[leaves]];
            s->sign[leaves] = 0;
            if (leaves == came && part == 0) break; /* only rounding is left */
            continue;
        }
        double most = AMS_LASSO_TOLERANCE / 10 * lambda;
        came = UINT64_MAX;
        for (uint64_t q = 0; q < s->n_play; q++)
            if (s->sign[q] == 0 && fabs(s->slopes[q]) - lambda > most) {
                most = fabs(s->slopes[q]) - lambda;
                came = q;
            }
        if (came == UINT64_MAX) break;
        s->sign[came] = s->slopes[came] > 0 ? -1 : 1;
    }
    double drift = s->slope_sum;
    for (uint64_t q = 0; q < s->n_play; q++)
        drift += s->sum[s->play[q]] * s->dw[s->play[q]];
    s->db = -drift / s->curve_sum;
    return true;
}

/* Slope of the objective along the step, from the current derivatives: just before its end t, or just after
 * its start. */
static double slope_along(const solver *s, double t)
{
    double slope = s->slope_sum * s->db;
    for (uint64_t i = 0; i < s->p->a.n_rows; i++)
        slope += s->slope[i] * s->dz[i];
    for (uint64_t q = 0; q < s->n_play; q++) {
        double dw = s->dw[s->play[q]], start = s->w[s->play[q]], w = start + t * dw;
        if (w == 0) w = start;
        slope += w != 0 ? copysign(s->p->lambda, w) * dw : s->p->lambda * fabs(dw);
    }
    return slope;
}

/* Takes the step, halved until the objective does not rise steeply at its end; leaves the derivatives there.
 * The objective is convex, so it has fallen; its values, whose rounding hides the last digits, are not compared. */
static bool move(solver *s)
{
    double start = slope_along(s, 0), t = 1;
    if (!(start < 0)) return false;
    for (int k = 0; k < MAX_HALVINGS; k++) {
        differentiate_rows(s, t);
        if (slope_along(s, t) <= -0.1 * start) break;
        t *= 0.5;
    }
    for (uint64_t q = 0; q < s->n_play; q++)
        s->w[s->play[q]] += t * s->dw[s->play[q]];
    for (uint64_t i = 0; i < s->p->a.n_rows; i++)
        s->z[i] += t * (s->dz[i] + s->db);
    s->b += t * s->db;
    return true;
}

uint64_t ams_lasso_work(const ams_lasso *p)
{
    uint64_t rows = 0, columns = 0, total = 0;
    if (!ams_mul(p->a.n_rows, 4, &rows) || !ams_mul(p->a.n_columns, 4, &columns) ||
        __builtin_add_overflow(rows, columns, &total) || __builtin_add_overflow(total, MOST_AT_ONCE * (2 * MOST_AT_ONCE + 3), &total))
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
    s.sum = s.h + f;
    s.hessian = s.sum + f;
    s.factor = s.hessian + (size_t)MOST_AT_ONCE * MOST_AT_ONCE;
    s.slopes = s.factor + (size_t)MOST_AT_ONCE * MOST_AT_ONCE;
    s.direction = s.slopes + MOST_AT_ONCE;
    s.sign = s.direction + MOST_AT_ONCE;
    s.play = (uint32_t *)(s.sign + MOST_AT_ONCE);

    double limit = AMS_LASSO_TOLERANCE * p->lambda, enough = limit, worst, best = INFINITY;
    int best_at = 0; /* the last step that brought the columns in play clearly nearer to their optimum */
    bool at_once = false;
    differentiate_rows(&s, 0);
    for (int k = 0; k < MAX_NEWTON; k++) {
        if (k > 0) worst = differentiate_play(&s);
        if (k == 0 || worst <= enough) {
            worst = differentiate_all(&s);
            if (worst <= limit) break;
            enough = worst > p->lambda ? worst / 10 : limit;
            best = worst, best_at = k;
        } else if (worst < best / 2) {
            best = worst, best_at = k;
        } else if (k - best_at > PATIENCE) {
            break;
        }
        at_once = at_once || k - best_at > CRAWLS;
        if (!at_once || !solve_at_once(&s)) {
            begin_sweeps(&s);
            /* Sweeps end when a sweep gains little against the first: far from the optimum the model
             * is not worth more. */
            double first = sweep(&s), gain = first;
            for (int q = 1; q < MAX_SWEEPS && gain > 1e-2 * first; q++)
                gain = sweep(&s);
        }
        end_sweeps(&s);
        if (!move(&s)) break;
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
