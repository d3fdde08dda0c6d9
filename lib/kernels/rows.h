/* SPDX-License-Identifier: MIT
 *
 * One matrix of a caller's: of a batch, checked once and then read row by row as f32; or where rows go.
 */
#ifndef AMS_ROWS_H
#define AMS_ROWS_H

#include "base/base.h"

typedef struct ams_rows {
    const char *name; /* for messages: "batch: x" */
    const void *data;
    uint64_t n, d, ld; /* ld 0: d */
    int32_t type;
} ams_rows;

/* E_ARG or E_LIMIT when the pointer, type or ld cannot be right; resolves ld. */
atmsae_status ams_rows_check(atmsae_context *ctx, ams_rows *rows);
/* Converts row r to out [d]; E_NONFINITE names the row. */
atmsae_status ams_rows_read(atmsae_context *ctx, const ams_rows *rows, uint64_t r, float *out);
/* Checks that all n weights (NULL: none) are finite and >= 0. */
atmsae_status ams_row_weights_check(atmsae_context *ctx, const float *weights, uint64_t n);

#endif
