/* SPDX-License-Identifier: MIT
 *
 * See rows.h.
 */
#include "kernels/rows.h"
#include "kernels/kernels.h"

#include <math.h>

atmsae_status ams_rows_check(atmsae_context *ctx, ams_rows *rows)
{
    uint64_t extent = 0;
    if (rows->ld == 0) rows->ld = rows->d;
    if (!rows->data && rows->n > 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s is NULL, for %llu rows", rows->name, (unsigned long long)rows->n);
    const size_t size = ams_type_size(rows->type);
    if (size == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: type = %d, expected ATMSAE_F32, F16 or BF16", rows->name,
                        (int)rows->type);
    if ((uintptr_t)rows->data % size != 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s is not aligned to its elements of %zu bytes", rows->name, size);
    if (rows->ld < rows->d)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: ld = %llu, expected 0 or at least %llu", rows->name,
                        (unsigned long long)rows->ld, (unsigned long long)rows->d);
    if (!ams_mul(rows->n, rows->ld, &extent) || extent > PTRDIFF_MAX / sizeof(float))
        return ams_fail(ctx, ATMSAE_E_LIMIT, "%s: %llu rows, ld = %llu: more than memory can hold", rows->name,
                        (unsigned long long)rows->n, (unsigned long long)rows->ld);
    return ATMSAE_OK;
}

atmsae_status ams_rows_read(atmsae_context *ctx, const ams_rows *rows, uint64_t r, float *out)
{
    const char *row = (const char *)rows->data + r * rows->ld * ams_type_size(rows->type);
    ams_to_f32(out, row, rows->type, rows->d);
    if (ams_all_finite(out, rows->d)) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_NONFINITE, "%s: row %llu has a NaN or infinite value", rows->name, (unsigned long long)r);
}

atmsae_status ams_row_weights_check(atmsae_context *ctx, const float *weights, uint64_t n)
{
    if ((uintptr_t)weights % sizeof *weights != 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch: row_weights are not aligned to their elements of %zu bytes", sizeof *weights);
    for (uint64_t r = 0; weights && r < n; r++)
        if (!isfinite(weights[r]) || weights[r] < 0)
            return ams_fail(ctx, ATMSAE_E_ARG, "batch: row_weights[%llu] = %g, expected finite and >= 0",
                            (unsigned long long)r, (double)weights[r]);
    return ATMSAE_OK;
}
