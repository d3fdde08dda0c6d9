/* SPDX-License-Identifier: MIT
 *
 * Exact linear assignment: an optimal one-to-one match of rows to columns.
 */
#ifndef AMS_EVAL_ASSIGNMENT_H
#define AMS_EVAL_ASSIGNMENT_H

#include "base/base.h"

/* Chooses a distinct column[i] for each of n rows so that the sum of cost[i * m + column[i]] is
 * least; n <= m < 2^32, all costs finite. O(n n m) time at worst, O(m) memory beside the costs. Sums are in
 * double precision, so the match is optimal for the costs as they are, to 1e-12 or so of their size. */
atmsae_status ams_assignment(atmsae_context *ctx, uint64_t n, uint64_t m, const float *cost, uint32_t *column);

#endif
