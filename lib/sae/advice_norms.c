/* SPDX-License-Identifier: MIT
 *
 * A warning in the log of a few rows that hold most of the variance.
 */
#include "kernels/rows.h"
#include "sae/sae.h"

#include <math.h>

#define LEAST_ROWS 16
#define MOST_SHARE 0.5 /* with more, FVU says more of these rows than of all others together */
#define TOLD_APART 2.0 /* times the median norm: with the longest row below, a limit would leave out ordinary rows too */

static void look(atmsae_model *m, const char *what, const ams_rows *rows, const float *weights)
{
    atmsae_row_norms n;
    if (!ams_row_norms(m->ctx, rows, weights, true, &n) || !(n.top_share > MOST_SHARE && n.median > 0)) return;
    const double times = n.largest / n.median, share = 100 * n.top_share, percent = 100 * (double)n.top_rows / (double)n.rows;
    m->rows_warned = true;
    if (times < TOLD_APART)
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "the longest %.2g %% of the %s hold %.1f %% of the variance. They decide scale, b_dec and FVU, and norms, "
                "of up to %.3g times the median, do not tell them apart: take them out of the data", percent, what, share, times);
    else
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "the longest %.2g %% of the %s hold %.1f %% of the variance, with norms of up to %.3g times the median, "
                "as attention sinks and BOS tokens have. They decide scale, b_dec and FVU: leave them out with max_norm %.3g",
                percent, what, share, times, times > AMS_LONG_ROW ? AMS_LONG_ROW : sqrt(times));
}

void ams_advise_norms(atmsae_model *m, const ams_rows *x, const ams_rows *y, const float *weights)
{
    if (m->rows_warned || x->n < LEAST_ROWS || !ams_logs(m->ctx, ATMSAE_LOG_WARNING)) return;
    look(m, "rows", x, weights);
    if (y) look(m, "targets", y, weights);
}
