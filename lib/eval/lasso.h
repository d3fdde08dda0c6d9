/* SPDX-License-Identifier: MIT
 *
 * L1-penalised logistic regression over sparse columns, and the ranking of latents that it gives.
 *
 *   minimise over (w, b):  (1/n) sum_i s_i log(1 + exp(-t_i z_i)) + lambda sum_j |w_j|
 *
 * with z_i = b + sum_j a_ij w_j, s_i = n_neg / n_pos for positive rows and 1 for negative ones. It
 * is the objective of SAEBench's k-sparse probe (lambda 0.01), which there is trained for 50 epochs
 * of Adam from a random start; here it is solved.
 */
#ifndef AMS_EVAL_LASSO_H
#define AMS_EVAL_LASSO_H

#include "base/base.h"

/* Column j holds the entries start[j] .. start[j] + count[j] - 1 of row and value. */
typedef struct ams_columns {
    uint64_t n_rows, n_columns;
    const uint64_t *start, *count;
    const uint32_t *row;
    const float *value;
} ams_columns;

typedef struct ams_lasso {
    ams_columns a;
    const int32_t *label; /* [n_rows]; row i is positive if label[i] is the class asked for */
    double lambda;        /* > 0 */
} ams_lasso;

/* Largest violation of the optimality conditions at a solution, relative to lambda. */
#define AMS_LASSO_TOLERANCE 1e-6

/* Doubles of working memory that ams_lasso_fit needs; 0 if that overflows. */
uint64_t ams_lasso_work(const ams_lasso *problem);
/* w [n_columns] and gradient [n_columns], that of the mean loss at the solution. Both classes must
 * be there. Returns the relative violation reached. Allocates nothing; may run in a job. */
double ams_lasso_fit(const ams_lasso *problem, int32_t positive, double *work, double *w, double *gradient);
/* The k best columns: larger weight first; among equal weights (mostly 0) the one whose gradient
 * pulls up the more, then the lower index. k <= n_columns. */
void ams_lasso_rank(const double *w, const double *gradient, uint64_t n_columns, uint64_t k, uint32_t *best);

#endif
