/* SPDX-License-Identifier: MIT
 *
 * Logistic regression to the optimum: Newton steps for few features, L-BFGS for many.
 *
 * Three choices keep it short and exact. The columns are centred on the fly, which the free
 * intercept absorbs, so the objective is the caller's and only the conditioning improves. Scores
 * z = w.x + b are carried along, so a step costs one product with X and one with X^T, and trying a
 * step length only n exponentials. The line search looks for a zero of the (monotone) directional
 * derivative and never compares objective values, whose rounding would hide the last digits.
 */
#include "eval/logistic.h"

#include <math.h>
#include <string.h>

enum { NEWTON_MAX = 64, HISTORY = 20, MAX_STEPS = 5000, MAX_TRIALS = 60 };

typedef struct solver {
    const ams_logistic *p;
    int32_t positive;
    double weight[2];         /* C s of negative and positive rows */
    uint64_t m;               /* d + 1 */
    double *z, *dz;           /* [n] scores, their change along the step */
    double *mean;             /* [d] */
    double *w, *step;         /* [m] */
    double *g, *g_before;     /* [m] */
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

static bool newton(const ams_logistic *p) { return p->d <= NEWTON_MAX && !p->row_start; }

static bool is_positive(const solver *s, uint64_t i)
{
    return s->p->label[i] == s->positive;
}

/* Derivative of one row's loss with respect to z; *curvature gets the second. */
static double row_slope(const solver *s, uint64_t i, double z, double *curvature)
{
    bool positive = is_positive(s, i);
    double e = exp(-fabs(z)), large = 1 / (1 + e), small = e / (1 + e), weight = s->weight[positive];
    double p = z > 0 ? large : small, q = z > 0 ? small : large;
    *curvature = weight * p * q;
    return positive ? -weight * q : weight * p;
}

static void gradient(solver *s)
{
    const ams_logistic *p = s->p;
    uint64_t d = p->d;
    double total = 0, curvature;
    memcpy(s->g, s->w, d * sizeof *s->g);
    for (uint64_t i = 0; i < p->n; i++) {
        double slope = row_slope(s, i, s->z[i], &curvature);
        row_add(p, i, slope, s->g);
        total += slope;
    }
    axpy(s->g, -total, s->mean, d);
    s->g[d] = total;
}

/* dz = change of the scores along s->step. */
static void project_step(solver *s)
{
    const ams_logistic *p = s->p;
    double shift = s->step[p->d] - dot(s->mean, s->step, p->d);
    for (uint64_t i = 0; i < p->n; i++)
        s->dz[i] = row_dot(p, i, s->step) + shift;
}

/* Step length t > 0 at which the directional derivative has all but vanished; 0 if rounding hides
 * the way down. Newton's method in t, kept inside a bracket. */
static double line_search(const solver *s)
{
    const ams_logistic *p = s->p;
    double ww = dot(s->w, s->step, p->d), ss = dot(s->step, s->step, p->d), start = dot(s->g, s->step, s->m);
    double low = 0, high = INFINITY, t = 1;
    if (!(start < 0)) return 0;
    for (int trial = 0; trial < MAX_TRIALS; trial++) {
        double first = ww + t * ss, second = ss, curvature;
        for (uint64_t i = 0; i < p->n; i++) {
            first += row_slope(s, i, s->z[i] + t * s->dz[i], &curvature) * s->dz[i];
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
    const ams_logistic *p = s->p;
    uint64_t m = s->m, d = p->d;
    double *h = s->hessian, *row = s->g_before; /* free in Newton's method */
    memset(h, 0, m * m * sizeof *h);
    for (uint64_t j = 0; j < d; j++)
        h[j * m + j] = 1;
    row[d] = 1;
    for (uint64_t i = 0; i < p->n; i++) {
        double curvature;
        (void)row_slope(s, i, s->z[i], &curvature);
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
        s->step[j] = (-s->g[j] - dot(h + j * m, s->step, j)) / h[j * m + j];
    for (uint64_t j = m; j-- > 0;) {
        s->step[j] /= h[j * m + j];
        axpy(s->step, -s->step[j], h + j * m, j);
    }
}

static void lbfgs_direction(solver *s)
{
    uint64_t m = s->m, oldest = s->stored > HISTORY ? s->stored - HISTORY : 0;
    for (uint64_t j = 0; j < m; j++)
        s->step[j] = -s->g[j];
    for (uint64_t k = s->stored; k-- > oldest;) {
        uint64_t at = k % HISTORY;
        s->a[at] = s->rho[at] * dot(s->s + at * m, s->step, m);
        axpy(s->step, -s->a[at], s->y + at * m, m);
    }
    double scale = 1 / sqrt(dot(s->g, s->g, m)); /* the first step: length 1 */
    if (s->stored > 0) {
        const double *y = s->y + (s->stored - 1) % HISTORY * m;
        scale = 1 / (s->rho[(s->stored - 1) % HISTORY] * dot(y, y, m));
    }
    for (uint64_t j = 0; j < m; j++)
        s->step[j] *= scale;
    for (uint64_t k = oldest; k < s->stored; k++) {
        uint64_t at = k % HISTORY;
        double b = s->rho[at] * dot(s->y + at * m, s->step, m);
        axpy(s->step, s->a[at] - b, s->s + at * m, m);
    }
}

/* After w moved by t * step and g was renewed. */
static void lbfgs_store(solver *s, double t)
{
    uint64_t m = s->m, at = s->stored % HISTORY;
    double *ds = s->s + at * m, *dy = s->y + at * m;
    for (uint64_t j = 0; j < m; j++) {
        ds[j] = t * s->step[j];
        dy[j] = s->g[j] - s->g_before[j];
    }
    double curvature = dot(ds, dy, m);
    if (!(curvature > 0)) return;
    s->rho[at] = 1 / curvature;
    s->stored++;
}

static double solve(solver *s)
{
    const ams_logistic *p = s->p;
    bool second_order = newton(p);
    gradient(s);
    double start = sqrt(dot(s->g, s->g, s->m)), norm = start;
    /* Features that say nothing have a gradient of rounding errors only. */
    double floor = 1e-13 * (double)p->n * (s->weight[0] + s->weight[1]);
    for (int k = 0; k < MAX_STEPS && norm > AMS_LOGISTIC_TOLERANCE * start && norm > floor; k++) {
        if (second_order) newton_direction(s);
        else lbfgs_direction(s);
        project_step(s);
        double t = line_search(s);
        if (!(t > 0)) break;
        axpy(s->w, t, s->step, s->m);
        axpy(s->z, t, s->dz, p->n);
        memcpy(s->g_before, s->g, s->m * sizeof *s->g);
        gradient(s);
        if (!second_order) lbfgs_store(s, t);
        norm = sqrt(dot(s->g, s->g, s->m));
    }
    return norm > floor ? norm / start : 0;
}

uint64_t ams_logistic_work(const ams_logistic *p)
{
    uint64_t m = p->d + 1, rows = 0, columns = 0, total = 0;
    uint64_t each = newton(p) ? 4 + m : 4 + 2 * HISTORY;
    // cppcheck-suppress knownConditionTrueFalse ; d + 1 may wrap
    if (m == 0 || !ams_mul(p->n, 2, &rows) || !ams_mul(m, each, &columns) ||
        __builtin_add_overflow(rows, columns + (uint64_t)2 * HISTORY, &total))
        return 0;
    return total;
}

double ams_logistic_fit(const ams_logistic *p, int32_t positive, double *work, double *w)
{
    uint64_t n = p->n, d = p->d, m = d + 1, n_positive = 0;
    memset(w, 0, m * sizeof *w);
    for (uint64_t i = 0; i < n; i++)
        n_positive += p->label[i] == positive;
    if (n_positive == 0 || n_positive == n) return 0;

    memset(work, 0, ams_logistic_work(p) * sizeof *work);
    solver s = {.p = p, .positive = positive, .m = m, .w = w, .weight = {p->c, p->c}};
    if (p->balanced) {
        s.weight[0] *= (double)n / (2 * (double)(n - n_positive));
        s.weight[1] *= (double)n / (2 * (double)n_positive);
    }
    s.z = work;
    s.dz = s.z + n;
    s.mean = s.dz + n;
    s.step = s.mean + m;
    s.g = s.step + m;
    s.g_before = s.g + m;
    s.hessian = s.s = s.g_before + m;
    s.y = s.s + HISTORY * m;
    s.rho = s.y + HISTORY * m;
    s.a = s.rho + HISTORY;

    for (uint64_t i = 0; i < n; i++)
        row_add(p, i, 1, s.mean);
    for (uint64_t j = 0; j < d; j++)
        s.mean[j] /= (double)n;
    double reached = solve(&s);
    w[d] -= dot(s.mean, w, d);
    return reached;
}

typedef struct classes {
    const ams_logistic *problem;
    double *work; /* [workers, work_each] */
    uint64_t work_each;
    double *w, *reached;
} classes;

static void fit_class(void *arg, uint64_t i, unsigned worker)
{
    const classes *c = arg;
    c->reached[i] =
        ams_logistic_fit(c->problem, (int32_t)i, c->work + worker * c->work_each, c->w + i * (c->problem->d + 1));
}

atmsae_status ams_logistic_fit_classes(atmsae_context *ctx, const ams_logistic *problem, uint64_t n_classes, double *w)
{
    atmsae_status status = ATMSAE_OK;
    uint64_t total = 0;
    classes c = {.problem = problem, .w = w, .work_each = ams_logistic_work(problem)};
    bool sized = c.work_each > 0 && ams_mul(c.work_each, ams_workers(ctx), &total);
    c.work = sized ? ams_alloc(ctx, total, sizeof *c.work) : NULL;
    c.reached = ams_alloc(ctx, n_classes, sizeof *c.reached);
    if (!c.work || !c.reached) {
        status = ams_nomem(ctx, "logistic regression");
        goto done;
    }
    ams_parallel(ctx, n_classes, fit_class, &c);
    for (uint64_t i = 0; i < n_classes && status == ATMSAE_OK; i++)
        if (!(c.reached[i] <= AMS_LOGISTIC_TOLERANCE))
            status = ams_fail(ctx, ATMSAE_E_NONFINITE,
                              "logistic regression: class %llu stopped at a relative gradient of %g, expected %g",
                              (unsigned long long)i, c.reached[i], AMS_LOGISTIC_TOLERANCE);
done:
    ams_free(ctx, c.reached);
    ams_free(ctx, c.work);
    return status;
}

double ams_logistic_row_score(const ams_logistic *p, uint64_t i, const double *w)
{
    return row_dot(p, i, w) + w[p->d];
}

double ams_logistic_score(const double *w, const float *x, uint64_t d)
{
    return dot_float(x, w, d) + w[d];
}
