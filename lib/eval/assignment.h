/* SPDX-License-Identifier: MIT
 *
 * Exact linear assignment: an optimal one-to-one match of rows to columns.
 */
#ifndef AMS_EVAL_ASSIGNMENT_H
#define AMS_EVAL_ASSIGNMENT_H

#include "base/base.h"

/* Chooses a distinct column[i] for each of n rows so that the sum of cost[i * m + column[i]] is
 * least; n <= m, all costs finite. O(n n m) time, O(m) extra memory. */
atmsae_status ams_assignment(atmsae_context *ctx, uint64_t n, uint64_t m, const double *cost, uint64_t *column);

#endif
