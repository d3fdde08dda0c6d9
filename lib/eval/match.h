/* SPDX-License-Identifier: MIT
 *
 * An optimal one-to-one match of two sets of directions.
 */
#ifndef AMS_EVAL_MATCH_H
#define AMS_EVAL_MATCH_H

#include "base/base.h"

#include <atmsae/eval.h>

/* a [n, d], b [m, d], any norms; zero rows have cosine 0. partner [n] or NULL: the row of b of each row of a,
 * UINT32_MAX for none. Fills pairs, mcc, shared. Takes 4 n m bytes. */
atmsae_status ams_match(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                        bool absolute, uint32_t *partner, atmsae_match_result *result);

#endif
