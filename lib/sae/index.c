/* SPDX-License-Identifier: MIT
 *
 * The entries of sparse rows, listed by latent. What is summed over rows or kept in cache by latent
 * walks this list.
 */
#include "sae/sae.h"

#include <string.h>

void ams_index_free(atmsae_context *ctx, ams_index *index)
{
    ams_free(ctx, index->start);
    ams_free(ctx, index->row);
    ams_free(ctx, index->at);
    ams_free(ctx, index->value);
}

atmsae_status ams_index_reserve(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *s, uint64_t F)
{
    if (s->latent_capacity > UINT32_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "a batch has room for %llu entries, allowed: up to 2^32 - 1; take fewer rows",
                        (unsigned long long)s->latent_capacity);
    AMS_TRY(ams_grow(ctx, &index->start, &index->start_capacity, F + 1, 0, sizeof *index->start));
    AMS_TRY(ams_grow(ctx, &index->row, &index->row_capacity, s->latent_capacity, 0, sizeof *index->row));
    if (kind == AMS_INDEX_VALUES)
        return ams_grow(ctx, &index->value, &index->value_capacity, s->latent_capacity, 0, sizeof *index->value);
    return ams_grow(ctx, &index->at, &index->at_capacity, s->latent_capacity, 0, sizeof *index->at);
}

atmsae_status ams_index_build(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *s, uint64_t F)
{
    AMS_TRY(ams_index_reserve(ctx, index, kind, s, F));
    uint64_t *start = index->start, total = s->start[s->n], sum = 0;
    memset(start, 0, (size_t)(F + 1) * sizeof *start);
    for (uint64_t p = 0; p < total; p++)
        start[s->latent[p]]++;
    for (uint64_t i = 0; i <= F; i++) { /* counts to ends */
        sum += i < F ? start[i] : 0;
        start[i] = sum;
    }
    for (uint64_t r = s->n; r-- > 0;)
        for (uint64_t p = s->start[r + 1]; p-- > s->start[r];) { /* from the back: ends become starts */
            uint64_t slot = --start[s->latent[p]];
            index->row[slot] = (uint32_t)r;
            if (kind == AMS_INDEX_VALUES)
                index->value[slot] = s->value[p];
            else
                index->at[slot] = (uint32_t)p;
        }
    return ATMSAE_OK;
}

uint64_t ams_lower_bound(const uint32_t *ascending, uint64_t from, uint64_t to, uint64_t value)
{
    uint64_t step = 8; /* what is sought is mostly near the start: steps that double, then halves */
    while (to - from > step && ascending[from + step] < value) {
        from += step;
        step *= 2;
    }
    to = ams_min(to, from + step);
    while (from < to) {
        const uint64_t middle = from + (to - from) / 2;
        if (ascending[middle] < value)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}
