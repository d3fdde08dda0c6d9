/* SPDX-License-Identifier: MIT
 *
 * One matrix of a caller's batch, checked once and then read row by row as f32.
 */
#include "kernels/rows.h"
#include "kernels/kernels.h"

#include <math.h>

atmsae_status ams_rows_check(atmsae_context *ctx, ams_rows *rows)
{
    uint64_t extent = 0;
    if (rows->ld == 0) rows->ld = rows->d;
    if (!rows->data && rows->n > 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch: %s is NULL, but n_rows = %llu", rows->name,
                        (unsigned long long)rows->n);
    if (ams_type_size(rows->type) == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch: %s_type = %d, expected ATMSAE_F32, F16 or BF16", rows->name,
                        (int)rows->type);
    if ((uintptr_t)rows->data % ams_type_size(rows->type) != 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch: %s is not aligned to its elements of %zu bytes", rows->name,
                        ams_type_size(rows->type));
    if (rows->ld < rows->d)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch: ld_%s = %llu, expected 0 or at least %llu", rows->name,
                        (unsigned long long)rows->ld, (unsigned long long)rows->d);
    if (!ams_mul(rows->n, rows->ld, &extent) || extent > SIZE_MAX / sizeof(float))
        return ams_fail(ctx, ATMSAE_E_LIMIT, "batch: %s: %llu rows of ld %llu overflow", rows->name,
                        (unsigned long long)rows->n, (unsigned long long)rows->ld);
    return ATMSAE_OK;
}

atmsae_status ams_rows_read(atmsae_context *ctx, const ams_rows *rows, uint64_t r, float *out)
{
    const char *row = (const char *)rows->data + r * rows->ld * ams_type_size(rows->type);
    ams_to_f32(out, row, rows->type, rows->d);
    if (ams_all_finite(out, rows->d)) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_NONFINITE, "batch: row %llu of %s has a NaN or an Inf", (unsigned long long)r,
                    rows->name);
}

atmsae_status ams_row_weights_check(atmsae_context *ctx, const float *weights, uint64_t n)
{
    for (uint64_t r = 0; weights && r < n; r++)
        if (!isfinite(weights[r]) || weights[r] < 0)
            return ams_fail(ctx, ATMSAE_E_ARG, "batch: row_weights[%llu] = %g, expected finite and >= 0",
                            (unsigned long long)r, (double)weights[r]);
    return ATMSAE_OK;
}
