/* SPDX-License-Identifier: MIT
 *
 * Rows of files that no run can use, by the file that they come from.
 */
#ifndef ROWS_H
#define ROWS_H

#include "command.h"

/* Does a row [d] hold a NaN or infinite value? */
bool row_is_bad(const float *row, uint64_t d);
/* Is one of the f32 rows of a batch good? */
bool has_good_row(const atmsae_batch *batch, uint64_t d);
/* Rows [n, d] of a whole file; false after a message that names the first bad one. */
bool rows_are_good(const char *path, const float *rows, uint64_t n, uint64_t d);
/* Says on stderr which row of which file the first such row of `batch` is, whose f32 rows are those that `source` gave
 * last. False, and nothing is said, if there is none: the failure is of another kind. */
bool explain_bad_row(const atmsae_source *source, const atmsae_batch *batch);

#endif
