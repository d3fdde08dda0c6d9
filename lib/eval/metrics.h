/* SPDX-License-Identifier: MIT
 *
 * The inside of the reconstruction measures: sums over rows, from which the results follow.
 */
#ifndef AMS_EVAL_METRICS_H
#define AMS_EVAL_METRICS_H

#include "base/base.h"

#include <atmsae/eval.h>

/* y0, the first row of all, is taken off before squares are summed: constant data then have a
 * variance of exactly 0, and a large mean costs no digits. */
typedef struct ams_metric_sums {
    uint64_t rows, cosines;
    double error;     /* sum |y - y^|^2 */
    double shifted;   /* sum |y - y0|^2 */
    double cosine;    /* sum of cos(y, y^) */
    double l0, l1;
    double recon, dot; /* sum |y^|^2, sum y.y^ */
    double error_norm;        /* sum |y - y^| */
    double norm_ratio;        /* sum |y^| / |y| */
    uint64_t ratios;
    double bench_mse, bench_ev; /* SAEBench's, see get_details */
    uint64_t batches;
} ams_metric_sums;

struct atmsae_metrics {
    atmsae_context *ctx;
    ams_use use;
    const atmsae_model *model;
    uint64_t d_in, d_out, d_sae;
    atmsae_codes *codes;
    float *x, *y, *recon;      /* [CHUNK, d] */
    float *y0;                 /* [d_out] */
    double *shift, *shift_was; /* [d_out] sum (y - y0), and as it was before this add */
    uint64_t *counts, *counts_was; /* [F] */
    double *error_sum, *error_sum_was; /* [d_out] sum (y - y^) */
    double *batch_mean;        /* [d_out] of the batch being added */
    ams_metric_sums sums;
};

/* Sum of squares of y about its mean. */
double ams_metrics_variance(const atmsae_metrics *metrics);

#endif
