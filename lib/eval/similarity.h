/* SPDX-License-Identifier: MIT
 *
 * Cosines between two sets of rows.
 */
#ifndef AMS_EVAL_SIMILARITY_H
#define AMS_EVAL_SIMILARITY_H

#include "base/base.h"

/* Rows divided by their norms; zero rows stay zero. out [n, d]. */
void ams_unit_rows(const float *rows, uint64_t n, uint64_t d, float *out);
/* Calls tile(arg, i0, n_i, j0, n_j, cosine, ld) for blocks that cover a [n, d] x b [m, d], unit rows, with
 * cosine[(i - i0) * ld + j - j0]. A block of rows is one job; its j0 ascend. The products are BLIS's:
 * good to a float's last digits, not to the bit. */
typedef void ams_tile(void *arg, uint64_t i0, uint64_t n_i, uint64_t j0, uint64_t n_j, const float *cosine, uint64_t ld);
atmsae_status ams_cosine_tiles(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                               ams_tile *tile, void *arg);
/* For each of n rows of a, the n_best rows of b with the largest cosines (|cos| if absolute), the lowest on ties:
 * which [n, n_best], and those cosines [n, n_best], by ams_dot, largest first. Unit rows. skip [m] or NULL: 1 for rows
 * of b that are nobody's; self: row i of b is not row i of a's. UINT32_MAX and NaN where there is none. */
atmsae_status ams_nearest(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                          bool absolute, const uint8_t *skip, bool self, uint64_t n_best, uint32_t *which, float *cosine);

#endif
