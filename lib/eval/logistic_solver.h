/* SPDX-License-Identifier: MIT
 *
 * What the solvers of one problem (logistic.c) and of many classes on the same rows (logistic_classes.c) share.
 */
#ifndef AMS_EVAL_LOGISTIC_SOLVER_H
#define AMS_EVAL_LOGISTIC_SOLVER_H

#include "eval/logistic.h"

typedef struct ams_logistic_solver {
    const ams_logistic *p;
    int32_t positive;
    double n;                 /* rows, as often as they count */
    double weight[2];         /* C s of negative and positive rows */
    uint64_t m;               /* d + 1 */
    uint64_t penalised;       /* weights that are: the first d, or all m */
    double *z, *dz;           /* [n] scores, their change along the step */
    double *w, *step, *g;     /* [m] the intercept last; it goes with rows whose mean is taken off */
} ams_logistic_solver;

/* Sets p, positive, n, weight, m and penalised = d; false: one of the classes has no row. */
bool ams_logistic_begin(const ams_logistic *problem, int32_t positive, ams_logistic_solver *s);
/* Derivative of a row's loss (as often as it counts) with respect to z; *curvature gets the second. */
double ams_logistic_slope(const ams_logistic_solver *s, uint64_t i, double z, double *curvature);
/* Step length t > 0 at which the directional derivative has all but vanished; 0 if rounding hides
 * the way down. */
double ams_logistic_line_search(const ams_logistic_solver *s);
/* A gradient below this is one of rounding errors only: features that say nothing. */
double ams_logistic_floor(const ams_logistic_solver *s);
/* Sum of a[j] b[j] */
double ams_dot_f64(const double *a, const double *b, uint64_t n);

#endif
