/* SPDX-License-Identifier: MIT
 *
 * The entries of sparse rows, listed by latent: a counting sort. What is summed over rows or kept in cache
 * by latent walks this list.
 *
 * Latents are cut into ranges, and each range is sorted by one owner, whose part of the list stays in the
 * core's cache. Where the ranges part in each row is found first. There is only one such list, so how many
 * ranges there are changes nothing.
 */
#include "sae/sae.h"

#include <string.h>

enum { MOST_RANGES = 32, RANGES_A_THREAD = 4, ROWS_A_JOB = 64, LEAST_ENTRIES = 8192 /* of more than one range */ };

void ams_index_free(atmsae_context *ctx, ams_index *index)
{
    void *arrays[] = {index->start, index->row, index->at, index->value, index->ends};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
}

static uint64_t most_ranges(const atmsae_context *ctx)
{
    return ams_workers(ctx) == 1 ? 1 : ams_min(MOST_RANGES, RANGES_A_THREAD * (uint64_t)ams_workers(ctx));
}

atmsae_status ams_index_reserve(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *s, uint64_t n, uint64_t F)
{
    if (s->latent_capacity > UINT32_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "a batch has room for %llu entries, allowed: up to 2^32 - 1; take fewer rows",
                        (unsigned long long)s->latent_capacity);
    AMS_TRY(ams_grow(ctx, &index->start, &index->start_capacity, F + 1, 0, sizeof *index->start));
    AMS_TRY(ams_grow(ctx, &index->ends, &index->ends_capacity, most_ranges(ctx) * n, 0, sizeof *index->ends));
    AMS_TRY(ams_grow(ctx, &index->row, &index->row_capacity, s->latent_capacity, 0, sizeof *index->row));
    if (kind == AMS_INDEX_VALUES)
        return ams_grow(ctx, &index->value, &index->value_capacity, s->latent_capacity, 0, sizeof *index->value);
    return ams_grow(ctx, &index->at, &index->at_capacity, s->latent_capacity, 0, sizeof *index->at);
}

typedef struct pass {
    ams_index *index;
    const ams_sparse *s;
    uint64_t F, ranges, rows; /* rows of a job */
    int kind;
    _Atomic uint64_t count[MOST_RANGES]; /* entries of a range, then where they start */
} pass;

/* Where a range's entries end in some rows, and how many there are. */
static void part_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    pass *a = arg;
    const ams_sparse *s = a->s;
    const uint64_t first = job * a->rows, last = ams_min(first + a->rows, s->n);
    uint64_t count[MOST_RANGES] = {0}, limit[MOST_RANGES];
    for (uint64_t range = 0; range < a->ranges; range++)
        limit[range] = ams_part_first(a->F, a->ranges, range + 1);
    for (uint64_t r = first; r < last; r++) {
        uint64_t p = s->start[r];
        for (uint64_t range = 0; range < a->ranges; range++) {
            const uint64_t from = p;
            if (range + 1 == a->ranges) p = s->start[r + 1];
            while (p < s->start[r + 1] && s->latent[p] < limit[range])
                p++;
            count[range] += p - from;
            a->index->ends[range * s->n + r] = (uint32_t)p;
        }
    }
    for (uint64_t range = 0; range < a->ranges; range++)
        atomic_fetch_add(&a->count[range], count[range]);
}

static void range_job(void *arg, uint64_t range, unsigned worker)
{
    (void)worker;
    pass *a = arg;
    const ams_sparse *s = a->s;
    ams_index *index = a->index;
    const uint32_t *ends = index->ends + range * s->n, *before = range > 0 ? ends - s->n : NULL;
    const uint64_t first = ams_part_first(a->F, a->ranges, range), last = ams_part_first(a->F, a->ranges, range + 1);
    uint64_t *start = index->start, sum = atomic_load(&a->count[range]);
    memset(start + first, 0, (size_t)(last - first) * sizeof *start);
    for (uint64_t r = 0; r < s->n; r++)
        for (uint64_t p = before ? before[r] : s->start[r]; p < ends[r]; p++)
            start[s->latent[p]]++;
    for (uint64_t i = first; i < last; i++) { /* counts to ends */
        sum += start[i];
        start[i] = sum;
    }
    for (uint64_t r = s->n; r-- > 0;)
        for (uint64_t p = ends[r]; p-- > (before ? before[r] : s->start[r]);) { /* from the back: ends become starts */
            uint64_t slot = --start[s->latent[p]];
            index->row[slot] = (uint32_t)r;
            if (a->kind == AMS_INDEX_VALUES)
                index->value[slot] = s->value[p];
            else
                index->at[slot] = (uint32_t)p;
        }
}

atmsae_status ams_index_build(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *s, uint64_t F)
{
    AMS_TRY(ams_index_reserve(ctx, index, kind, s, s->n, F));
    const uint64_t total = s->start[s->n];
    pass a = {.index = index, .s = s, .F = F, .kind = kind, .ranges = total < LEAST_ENTRIES ? 1 : most_ranges(ctx)};
    a.rows = a.ranges == 1 ? ams_max(1, s->n) : ROWS_A_JOB;
    ams_parallel(ctx, (s->n + a.rows - 1) / a.rows, part_job, &a);
    uint64_t sum = 0;
    for (uint64_t range = 0; range < a.ranges; range++) {
        const uint64_t count = atomic_load(&a.count[range]);
        atomic_store(&a.count[range], sum);
        sum += count;
    }
    ams_parallel(ctx, a.ranges, range_job, &a);
    index->start[F] = total;
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
