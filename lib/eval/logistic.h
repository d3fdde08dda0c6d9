/* SPDX-License-Identifier: MIT
 *
 * Logistic regression with scikit-learn's objective, solved to its unique optimum.
 *
 *   minimise over (w, b):  |w|^2 / 2 + C sum_i s_i log(1 + exp(-t_i (w.x_i + b))),  t_i = +-1
 *
 * s_i is 1, or n / (2 n_class(i)) if balanced; the intercept b is free of penalty.
 */
#ifndef AMS_EVAL_LOGISTIC_H
#define AMS_EVAL_LOGISTIC_H

#include "base/base.h"
#include "base/elementary.h"

#include <math.h>

typedef struct ams_logistic {
    const float *x; /* [n, d], ld elements between rows */
    uint64_t n, d, ld;
    const int32_t *label; /* [n]; row i is positive if label[i] is the class asked for */
    double c;             /* C > 0 */
    bool balanced;
    const uint64_t *row_start; /* NULL; or the rows are sparse: entries row_start[i] .. row_start[i+1]-1 of */
    const uint32_t *column;    /* column and x, and ld means nothing */
    const uint32_t *times;     /* [n] how often each row counts, 0 or more; NULL: once */
} ams_logistic;

/* 1 / (1 + exp(-z)) and what is left of it to 1, each to its last digits. */
static inline double ams_sigmoid(double z, double *rest)
{
    const double e = ams_exp(-fabs(z)), large = 1 / (1 + e), small = e / (1 + e);
    *rest = z > 0 ? small : large;
    return z > 0 ? large : small;
}

/* The gradient's norm at a solution, divided by that at w = 0, b = 0. */
#define AMS_LOGISTIC_TOLERANCE 1e-9

/* Doubles of working memory that ams_logistic_fit needs; 0 if that overflows. */
uint64_t ams_logistic_work(const ams_logistic *problem);
/* One class against the rest: w [d + 1], the intercept last. Returns the relative norm reached, at
 * most AMS_LOGISTIC_TOLERANCE unless the data are beyond double precision. Without a positive or
 * without a negative row there is no optimum: w = 0 and the result is 0. Calls nothing of ctx, so
 * it may run in a job. */
double ams_logistic_fit(const ams_logistic *problem, int32_t positive, double *work, double *w);
/* All classes 0 .. n_classes - 1, in parallel: w [n_classes, d + 1]. constant 0: the intercept is free. Above 0 it is
 * penalised, as the weight v of one more column that is `constant` in every row: |v|^2 / 2 joins the objective, and
 * b = constant v. E_NONFINITE names a class that did not converge. */
atmsae_status ams_logistic_fit_classes(atmsae_context *ctx, const ams_logistic *problem, double constant, uint64_t n_classes,
                                       double *w);
/* w.x_i + b of row i of a problem; rows beyond its n may be there. */
double ams_logistic_row_score(const ams_logistic *problem, uint64_t i, const double *w);
/* w.x + b */
double ams_logistic_score(const double *w, const float *x, uint64_t d);

#endif
