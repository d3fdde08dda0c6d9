/* SPDX-License-Identifier: MIT
 *
 * Rows of files that no run can use, by the file that they come from.
 */
#ifndef ROWS_H
#define ROWS_H

#include "command.h"

/* Does a row [d] hold a NaN or infinite value? */
bool row_is_bad(const float *row, uint64_t d);
/* Numbers in a row of a source, its target included. */
uint64_t row_width(const atmsae_source *source);
/* A batch on rows that the source writes to `rows`, of which there are none yet. */
void batch_on(atmsae_batch *batch, const atmsae_source *source, const float *rows);
/* Is one of the rows of such a batch good, and its target too? */
bool has_good_row(const atmsae_batch *batch, const atmsae_source *source);
/* Rows [n, d] of a whole file; false after a message that names the first bad one. */
bool rows_are_good(const char *path, const float *rows, uint64_t n, uint64_t d);
/* Says on stderr which row of which file the first bad row or target of such a batch is, whose rows are those that the
 * source gave last. False, and nothing is said, if there is none: the failure is of another kind. */
bool explain_bad_row(const atmsae_source *source, const atmsae_batch *batch);

#endif
