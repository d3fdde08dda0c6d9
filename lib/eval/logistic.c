/* SPDX-License-Identifier: MIT
 *
 * Logistic regression to the optimum: Newton steps for few features, L-BFGS for many.
 *
 * Three choices keep it short and exact. The columns are centred on the fly, which the free
 * intercept absorbs, so the objective is the caller's and only the conditioning improves; L-BFGS also begins each
 * step from the diagonal of the Hessian at 0, so that columns may be of very different sizes. Scores
 * z = w.x + b are carried along, so a step costs one product with X and one with X^T, and trying a
 * step length only n exponentials. The line search looks for a zero of the (monotone) directional
 * derivative and never compares objective values, whose rounding would hide the last digits.
 */
#include "eval/logistic_solver.h"

#include <math.h>
#include <string.h>

enum { NEWTON_MAX = 64, HISTORY = 20, MAX_STEPS = 5000, MAX_TRIALS = 60 };

typedef struct solver {
    ams_logistic_solver c;    /* common */
    double *mean;             /* [d] */
    double *g_before;         /* [m] */
    double *diagonal;         /* [m] of the Hessian at 0; L-BFGS */
    double *hessian;          /* [m, m], Newton */
    double *s, *y, *rho, *a;  /* [HISTORY, m] twice, [HISTORY] twice: L-BFGS */
    uint64_t stored;          /* pairs ever stored */
} solver;

/* Sum of a[j] b[j] in eight lanes, so that compilers can use vectors without changing the order. */
#define DEFINE_DOT(name, type)                                          \
    static double name(const type *a, const double *b, uint64_t n)      \
    {                                                                   \
        double lane[8] = {0};                                           \
        uint64_t j = 0;                                                 \
        for (; j + 8 <= n; j += 8)                                      \
            for (int l = 0; l < 8; l++)                                 \
                lane[l] += (double)a[j + (uint64_t)l] * b[j + (uint64_t)l]; \
        for (; j < n; j++)                                              \
            lane[0] += (double)a[j] * b[j];                             \
        return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +            \
               ((lane[1] + lane[5]) + (lane[3] + lane[7]));             \
    }
DEFINE_DOT(dot_float, float)
DEFINE_DOT(dot, double)
double ams_dot_f64(const double *a, const double *b, uint64_t n) { return dot(a, b, n); }

static void axpy(double *y, double a, const double *x, uint64_t n)
{
    for (uint64_t j = 0; j < n; j++)
        y[j] += a * x[j];
}

static double row_dot(const ams_logistic *p, uint64_t i, const double *w)
{
    double sum = 0;
    if (!p->row_start) return dot_float(p->x + i * p->ld, w, p->d);
    for (uint64_t e = p->row_start[i]; e < p->row_start[i + 1]; e++)
        sum += (double)p->x[e] * w[p->column[e]];
    return sum;
}

static void row_add(const ams_logistic *p, uint64_t i, double a, double *out) /* out += a x_i */
{
    const float *x = p->x + i * p->ld;
    for (uint64_t j = 0; j < p->d && !p->row_start; j++)
        out[j] += a * (double)x[j];
    for (uint64_t e = p->row_start ? p->row_start[i] : 0; p->row_start && e < p->row_start[i + 1]; e++)
        out[p->column[e]] += a * (double)p->x[e];
}

static double times(const ams_logistic *p, uint64_t i) { return p->times ? (double)p->times[i] : 1; }
static bool newton(const ams_logistic *p) { return p->d <= NEWTON_MAX && !p->row_start; }

static bool is_positive(const ams_logistic_solver *s, uint64_t i) { return s->p->label[i] == s->positive; }

double ams_logistic_slope(const ams_logistic_solver *s, uint64_t i, double z, double *curvature)
{
    bool positive = is_positive(s, i);
    double q, p = ams_sigmoid(z, &q), weight = times(s->p, i) * s->weight[positive];
    *curvature = weight * p * q;
    return positive ? -weight * q : weight * p;
}

static void gradient(solver *s)
{
    const ams_logistic *p = s->c.p;
    uint64_t d = p->d;
    double total = 0, curvature;
    memcpy(s->c.g, s->c.w, d * sizeof *s->c.g);
    for (uint64_t i = 0; i < p->n; i++) {
        double slope = ams_logistic_slope(&s->c, i, s->c.z[i], &curvature);
        row_add(p, i, slope, s->c.g);
        total += slope;
    }
    axpy(s->c.g, -total, s->mean, d);
    s->c.g[d] = total;
}

/* dz = change of the scores along s->c.step. */
static void project_step(solver *s)
{
    const ams_logistic *p = s->c.p;
    double shift = s->c.step[p->d] - dot(s->mean, s->c.step, p->d);
    for (uint64_t i = 0; i < p->n; i++)
        s->c.dz[i] = row_dot(p, i, s->c.step) + shift;
}

/* Newton's method in t, kept inside a bracket. */
double ams_logistic_line_search(const ams_logistic_solver *s)
{
    const ams_logistic *p = s->p;
    double ww = dot(s->w, s->step, s->penalised), ss = dot(s->step, s->step, s->penalised), start = dot(s->g, s->step, s->m);
    double low = 0, high = INFINITY, t = 1;
    if (!(start < 0)) return 0;
    for (int trial = 0; trial < MAX_TRIALS; trial++) {
        double first = ww + t * ss, second = ss, curvature;
        for (uint64_t i = 0; i < p->n; i++) {
            first += ams_logistic_slope(s, i, s->z[i] + t * s->dz[i], &curvature) * s->dz[i];
            second += curvature * s->dz[i] * s->dz[i];
        }
        if (fabs(first) <= -0.1 * start) return t;
        if (first < 0) low = t;
        else high = t;
        double next = t - first / second;
        if (!(next > low && next < high)) next = isinf(high) ? 2 * t : 0.5 * (low + high);
        t = next;
    }
    return low;
}

/* step = -(hessian^-1) g, by a Cholesky factorisation in place. */
static void newton_direction(solver *s)
{
    const ams_logistic *p = s->c.p;
    uint64_t m = s->c.m, d = p->d;
    double *h = s->hessian, *row = s->g_before; /* free in Newton's method */
    memset(h, 0, m * m * sizeof *h);
    for (uint64_t j = 0; j < d; j++)
        h[j * m + j] = 1;
    row[d] = 1;
    for (uint64_t i = 0; i < p->n; i++) {
        double curvature;
        (void)ams_logistic_slope(&s->c, i, s->c.z[i], &curvature);
        for (uint64_t j = 0; j < d; j++)
            row[j] = (double)p->x[i * p->ld + j] - s->mean[j];
        for (uint64_t j = 0; j < m; j++)
            axpy(h + j * m, curvature * row[j], row, j + 1);
    }
    for (uint64_t j = 0; j < m; j++) {
        double ridge = 1e-14 * h[j * m + j] + 1e-300; /* saturated rows leave nothing for b */
        for (uint64_t k = 0; k < j; k++)
            h[j * m + k] = (h[j * m + k] - dot(h + j * m, h + k * m, k)) / h[k * m + k];
        double left = h[j * m + j] - dot(h + j * m, h + j * m, j);
        h[j * m + j] = sqrt(left > ridge ? left : ridge);
    }
    for (uint64_t j = 0; j < m; j++)
        s->c.step[j] = (-s->c.g[j] - dot(h + j * m, s->c.step, j)) / h[j * m + j];
    for (uint64_t j = m; j-- > 0;) {
        s->c.step[j] /= h[j * m + j];
        axpy(s->c.step, -s->c.step[j], h + j * m, j);
    }
}

/* Of the centred columns, by what their squares are without the mean. */
static void measure_diagonal(solver *s)
{
    const ams_logistic *p = s->c.p;
    double all = 0, curvature;
    for (uint64_t i = 0; i < p->n; i++) {
        const uint64_t first = p->row_start ? p->row_start[i] : i * p->ld;
        const uint64_t n = p->row_start ? p->row_start[i + 1] - first : p->d;
        (void)ams_logistic_slope(&s->c, i, 0, &curvature);
        all += curvature;
        for (uint64_t e = 0; e < n; e++) {
            const double x = (double)p->x[first + e];
            s->diagonal[p->row_start ? p->column[first + e] : e] += curvature * x * x;
        }
    }
    for (uint64_t j = 0; j < p->d; j++)
        s->diagonal[j] = 1 + fmax(0, s->diagonal[j] - all * s->mean[j] * s->mean[j]);
    s->diagonal[p->d] = all;
}

static void lbfgs_direction(solver *s)
{
    uint64_t m = s->c.m, oldest = s->stored > HISTORY ? s->stored - HISTORY : 0;
    for (uint64_t j = 0; j < m; j++)
        s->c.step[j] = -s->c.g[j];
    for (uint64_t k = s->stored; k-- > oldest;) {
        uint64_t at = k % HISTORY;
        s->a[at] = s->rho[at] * dot(s->s + at * m, s->c.step, m);
        axpy(s->c.step, -s->a[at], s->y + at * m, m);
    }
    double scale = 1;
    if (s->stored > 0) {
        const double *y = s->y + (s->stored - 1) % HISTORY * m;
        double size = 0;
        for (uint64_t j = 0; j < m; j++)
            size += y[j] * y[j] / s->diagonal[j];
        scale = 1 / (s->rho[(s->stored - 1) % HISTORY] * size);
    }
    for (uint64_t j = 0; j < m; j++)
        s->c.step[j] *= scale / s->diagonal[j];
    for (uint64_t k = oldest; k < s->stored; k++) {
        uint64_t at = k % HISTORY;
        double b = s->rho[at] * dot(s->y + at * m, s->c.step, m);
        axpy(s->c.step, s->a[at] - b, s->s + at * m, m);
    }
}

/* After w moved by t * step and g was renewed. */
static void lbfgs_store(solver *s, double t)
{
    uint64_t m = s->c.m, at = s->stored % HISTORY;
    double *ds = s->s + at * m, *dy = s->y + at * m;
    for (uint64_t j = 0; j < m; j++) {
        ds[j] = t * s->c.step[j];
        dy[j] = s->c.g[j] - s->g_before[j];
    }
    double curvature = dot(ds, dy, m);
    if (!(curvature > 0)) return;
    s->rho[at] = 1 / curvature;
    s->stored++;
}

double ams_logistic_floor(const ams_logistic_solver *s) { return 1e-13 * s->n * (s->weight[0] + s->weight[1]); }

static double solve(solver *s)
{
    const ams_logistic *p = s->c.p;
    bool second_order = newton(p);
    if (!second_order) measure_diagonal(s);
    gradient(s);
    double start = sqrt(dot(s->c.g, s->c.g, s->c.m)), norm = start;
    double floor = ams_logistic_floor(&s->c);
    for (int k = 0; k < MAX_STEPS && norm > AMS_LOGISTIC_TOLERANCE * start && norm > floor; k++) {
        if (second_order) newton_direction(s);
        else lbfgs_direction(s);
        project_step(s);
        double t = ams_logistic_line_search(&s->c);
        if (!(t > 0)) break;
        axpy(s->c.w, t, s->c.step, s->c.m);
        axpy(s->c.z, t, s->c.dz, p->n);
        memcpy(s->g_before, s->c.g, s->c.m * sizeof *s->c.g);
        gradient(s);
        if (!second_order) lbfgs_store(s, t);
        norm = sqrt(dot(s->c.g, s->c.g, s->c.m));
    }
    return norm > floor ? norm / start : 0;
}

uint64_t ams_logistic_work(const ams_logistic *p)
{
    uint64_t m = p->d + 1, rows = 0, columns = 0, total = 0;
    uint64_t each = newton(p) ? 4 + m : 5 + 2 * HISTORY;
    // cppcheck-suppress knownConditionTrueFalse ; d + 1 may wrap
    if (m == 0 || !ams_mul(p->n, 2, &rows) || !ams_mul(m, each, &columns) ||
        __builtin_add_overflow(rows, columns + (uint64_t)2 * HISTORY, &total))
        return 0;
    return total;
}

bool ams_logistic_begin(const ams_logistic *p, int32_t positive, ams_logistic_solver *s)
{
    double rows[2] = {0}; /* negative and positive */
    for (uint64_t i = 0; i < p->n; i++)
        rows[p->label[i] == positive] += times(p, i);
    *s = (ams_logistic_solver){.p = p, .positive = positive, .m = p->d + 1, .penalised = p->d, .n = rows[0] + rows[1]};
    if (!(rows[0] > 0 && rows[1] > 0)) return false;
    for (int k = 0; k < 2; k++)
        s->weight[k] = p->balanced ? p->c * s->n / (2 * rows[k]) : p->c;
    return true;
}

double ams_logistic_fit(const ams_logistic *p, int32_t positive, double *work, double *w)
{
    uint64_t n = p->n, d = p->d, m = d + 1;
    solver s = {0};
    memset(w, 0, m * sizeof *w);
    if (!ams_logistic_begin(p, positive, &s.c)) return 0;
    memset(work, 0, ams_logistic_work(p) * sizeof *work);
    s.c.w = w;
    s.c.z = work;
    s.c.dz = s.c.z + n;
    s.mean = s.c.dz + n;
    s.c.step = s.mean + m;
    s.c.g = s.c.step + m;
    s.g_before = s.c.g + m;
    s.hessian = s.diagonal = s.g_before + m;
    s.s = s.diagonal + m;
    s.y = s.s + HISTORY * m;
    s.rho = s.y + HISTORY * m;
    s.a = s.rho + HISTORY;

    for (uint64_t i = 0; i < n; i++)
        row_add(p, i, times(p, i), s.mean);
    for (uint64_t j = 0; j < d; j++)
        s.mean[j] /= s.c.n;
    double reached = solve(&s);
    w[d] -= dot(s.mean, w, d);
    return reached;
}

double ams_logistic_row_score(const ams_logistic *p, uint64_t i, const double *w)
{
    return row_dot(p, i, w) + w[p->d];
}

double ams_logistic_score(const double *w, const float *x, uint64_t d)
{
    return dot_float(x, w, d) + w[d];
}
