/* SPDX-License-Identifier: MIT
 *
 * See rows.h.
 */
#include "rows.h"
#include "program.h"

#include <math.h>

bool row_is_bad(const float *row, uint64_t d)
{
    for (uint64_t j = 0; j < d; j++)
        if (!isfinite(row[j])) return true;
    return false;
}

uint64_t row_width(const atmsae_source *source) { return atmsae_source_d(source) + atmsae_source_d_target(source); }

void batch_on(atmsae_batch *batch, const atmsae_source *source, const float *rows)
{
    atmsae_batch_init(batch, sizeof *batch);
    batch->x = rows;
    batch->ld_x = batch->ld_y = row_width(source);
    if (atmsae_source_d_target(source)) batch->y = rows + atmsae_source_d(source);
}

bool has_good_row(const atmsae_batch *batch, const atmsae_source *source)
{
    const uint64_t width = row_width(source);
    const float *rows = batch->x;
    for (uint64_t r = 0; r < batch->n_rows; r++)
        if (!row_is_bad(rows + r * width, width)) return true;
    return false;
}

static bool find_bad_row(const float *rows, uint64_t n, uint64_t d, uint64_t *found)
{
    for (*found = 0; *found < n; ++*found)
        if (row_is_bad(rows + *found * d, d)) return true;
    return false;
}

static void say(const char *path, uint64_t row)
{
    program_error("%s: row %llu (from 0) has a NaN or infinite value", path, (unsigned long long)row);
}

bool rows_are_good(const char *path, const float *rows, uint64_t n, uint64_t d)
{
    uint64_t row;
    if (!find_bad_row(rows, n, d, &row)) return true;
    say(path, row);
    return false;
}

bool explain_bad_row(const atmsae_source *source, const atmsae_batch *batch)
{
    atmsae_row_origin from = {.size = sizeof from};
    const uint64_t width = row_width(source);
    const float *rows = batch->x;
    uint64_t row;
    if (!find_bad_row(rows, batch->n_rows, width, &row) || atmsae_source_locate(source, row, &from) < 0) return false;
    const char *path = row_is_bad(rows + row * width, atmsae_source_d(source)) ? from.path : from.target_path;
    if (!path) return false;
    say(path, from.row);
    return true;
}
