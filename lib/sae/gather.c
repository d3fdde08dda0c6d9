/* SPDX-License-Identifier: MIT
 *
 * Sums of many rows each: the product of a sparse matrix, some per cent full, and a dense one. AuxK's
 * reconstruction and gradients are such sums. 64 columns of 1024 dense rows at a time are packed into
 * memory that stays in a core's own cache, and a sum's 64 columns stay in registers.
 */
#include "sae/sae.h"

#include <string.h>

enum { COLUMNS = 64, ROWS_A_BLOCK = 1024, LISTS_A_JOB = 1024 };

struct ams_gather_memory {
    float packed[ROWS_A_BLOCK * COLUMNS];
    uint64_t next[LISTS_A_JOB]; /* of each list: the first entry that is not summed yet */
};

typedef struct pass {
    const ams_gather *g;
    ams_gather_memory *memory;
    uint64_t groups; /* of lists */
} pass;

atmsae_status ams_gather_reserve(atmsae_context *ctx, ams_gather_memory **memory, uint64_t *capacity)
{
    return ams_grow(ctx, memory, capacity, ams_workers(ctx), 0, sizeof **memory);
}

static void pack(const ams_gather *g, float *packed, uint64_t first, uint64_t count, uint64_t column, uint64_t columns)
{
    for (uint64_t j = 0; j < count; j++) {
        const uint64_t row = first + j;
        const float *from = g->rows + (g->row_of ? g->row_of[row] : row) * g->d + column;
        const float times = (float)(g->factor * (g->weights ? (double)g->weights[row] : 1));
        float *to = packed + j * COLUMNS;
        for (uint64_t c = 0; c < columns; c++)
            to[c] = times * from[c];
        for (uint64_t c = columns; c < COLUMNS; c++)
            to[c] = 0;
    }
}

static void add_entries(const ams_gather *g, const ams_gather_memory *w, uint64_t list, uint64_t first, uint64_t end,
                        uint64_t block, uint64_t column, uint64_t columns)
{
    float *out = g->out + (g->out_of ? g->out_of[g->out_names[list]] : list) * g->d + column, sum[COLUMNS] = {0};
    if (columns == COLUMNS) {
        ams_gather_64(out, g->value + first, g->at + first, (uint32_t)block, w->packed, end - first);
        return;
    }
    memcpy(sum, out, (size_t)columns * sizeof *out);
    ams_gather_64(sum, g->value + first, g->at + first, (uint32_t)block, w->packed, end - first);
    memcpy(out, sum, (size_t)columns * sizeof *out);
}

/* Of the next list as many entries as this one had: such pieces are too short for the CPU to see coming. */
static void prefetch(const ams_gather *g, uint64_t from, uint64_t count)
{
    for (uint64_t p = from; p < from + count; p += 16) {
        __builtin_prefetch(g->at + p);
        __builtin_prefetch(g->value + p);
    }
}

static void gather_job(void *arg, uint64_t job, unsigned worker)
{
    const pass *a = arg;
    const ams_gather *g = a->g;
    ams_gather_memory *w = &a->memory[worker];
    const uint64_t column = job / a->groups * COLUMNS, columns = ams_min(COLUMNS, g->d - column);
    const uint64_t first = job % a->groups * LISTS_A_JOB, last = ams_min(first + LISTS_A_JOB, g->n);
    for (uint64_t i = first; i < last; i++)
        w->next[i - first] = g->start[i];
    for (uint64_t block = 0; block < g->n_rows; block += ROWS_A_BLOCK) {
        const uint64_t block_end = ams_min(block + ROWS_A_BLOCK, g->n_rows);
        pack(g, w->packed, block, block_end - block, column, columns);
        for (uint64_t i = first; i < last; i++) {
            const uint64_t from = w->next[i - first], end = g->start[i + 1];
            const uint64_t p = ams_lower_bound(g->at, from, end, block_end);
            if (i + 1 < last) prefetch(g, w->next[i + 1 - first], p - from);
            if (p > from) add_entries(g, w, i, from, p, block, column, columns);
            w->next[i - first] = p;
        }
    }
}

void ams_gather_run(atmsae_context *ctx, ams_gather_memory *memory, const ams_gather *gather)
{
    pass a = {gather, memory, (gather->n + LISTS_A_JOB - 1) / LISTS_A_JOB};
    ams_parallel(ctx, a.groups * ((gather->d + COLUMNS - 1) / COLUMNS), gather_job, &a);
}
