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

bool explain_bad_row(const atmsae_source *source, const atmsae_batch *batch)
{
    const uint64_t d = atmsae_source_d(source);
    atmsae_row_origin from = {.size = sizeof from};
    uint64_t r = 0;
    while (r < batch->n_rows && !row_is_bad((const float *)batch->x + r * d, d)) r++;
    if (r == batch->n_rows || atmsae_source_locate(source, r, &from) < 0 || !from.path) return false;
    program_error("%s: row %llu (from 0) has a NaN or infinite value", from.path, (unsigned long long)from.row);
    return true;
}
