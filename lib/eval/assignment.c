/* SPDX-License-Identifier: MIT
 *
 * Exact linear assignment by shortest augmenting paths (Jonker & Volgenant 1987; the rectangular
 * form is Crouse 2016). Rows enter one at a time; each search is Dijkstra's over columns with costs
 * reduced by the dual prices, which keeps every reduced cost >= 0.
 */
#include "eval/assignment.h"

#include <math.h>

#define NONE UINT64_MAX

typedef struct search {
    uint64_t m;
    const double *cost;
    double *row_price, *col_price; /* [n], [m] */
    uint64_t *owner;               /* [m] row matched to a column, or NONE */
    double *distance;              /* [m] of the shortest path from the new row */
    uint64_t *from;                /* [m] last row on that path */
    uint64_t *open;                /* [m] columns not yet reached, in open[0 .. n_open-1] */
    uint64_t *closed;              /* [m] columns reached, in order */
} search;

/* Finds the shortest path from `start` to a free column, which it returns, and updates the prices. */
static uint64_t find_path(search *s, uint64_t start)
{
    uint64_t n_open = s->m, n_closed = 0, row = start, sink = NONE;
    double reached = 0;
    for (uint64_t j = 0; j < s->m; j++) {
        s->distance[j] = INFINITY;
        s->open[j] = s->m - 1 - j; /* so that on ties the lower column is met last and wins by <= */
    }
    while (sink == NONE) {
        const double *cost = s->cost + row * s->m;
        double least = INFINITY;
        uint64_t at = 0;
        for (uint64_t q = 0; q < n_open; q++) {
            uint64_t j = s->open[q];
            double through = reached + (cost[j] - s->row_price[row] - s->col_price[j]);
            if (through < s->distance[j]) {
                s->distance[j] = through;
                s->from[j] = row;
            }
            /* Among equals a free column ends the search sooner. */
            if (s->distance[j] < least || (s->distance[j] == least && s->owner[j] == NONE)) {
                least = s->distance[j];
                at = q;
            }
        }
        uint64_t j = s->open[at];
        reached = least;
        s->open[at] = s->open[--n_open];
        s->closed[n_closed++] = j;
        if (s->owner[j] == NONE) sink = j;
        else row = s->owner[j];
    }
    s->row_price[start] += reached;
    for (uint64_t q = 0; q + 1 < n_closed; q++) { /* the sink's own price does not change */
        uint64_t j = s->closed[q];
        s->row_price[s->owner[j]] += reached - s->distance[j];
        s->col_price[j] -= reached - s->distance[j];
    }
    return sink;
}

/* Flips the matches along the path that ends in column j. */
static void augment(search *s, uint64_t start, uint64_t j, uint64_t *column)
{
    for (;;) {
        uint64_t row = s->from[j], previous = column[row];
        s->owner[j] = row;
        column[row] = j;
        if (row == start) return;
        j = previous;
    }
}

atmsae_status ams_assignment(atmsae_context *ctx, uint64_t n, uint64_t m, const double *cost, uint64_t *column)
{
    if (n > m)
        return ams_fail(ctx, ATMSAE_E_ARG, "assignment: %llu rows, but only %llu columns", (unsigned long long)n,
                        (unsigned long long)m);
    for (uint64_t i = 0; i < n * m; i++)
        if (!isfinite(cost[i]))
            return ams_fail(ctx, ATMSAE_E_NONFINITE, "assignment: the cost of row %llu, column %llu is not finite",
                            (unsigned long long)(i / m), (unsigned long long)(i % m));

    double *prices = ams_calloc(ctx, n + 2 * m, sizeof *prices);
    uint64_t *lists = ams_alloc(ctx, 4 * m, sizeof *lists);
    atmsae_status status = ATMSAE_OK;
    if (!prices || !lists) {
        status = ams_nomem(ctx, "assignment");
        goto done;
    }
    search s = {.m = m, .cost = cost, .row_price = prices, .col_price = prices + n, .distance = prices + n + m,
                .owner = lists, .from = lists + m, .open = lists + 2 * m, .closed = lists + 3 * m};
    for (uint64_t j = 0; j < m; j++)
        s.owner[j] = NONE;
    for (uint64_t i = 0; i < n; i++)
        column[i] = NONE;
    for (uint64_t i = 0; i < n; i++)
        augment(&s, i, find_path(&s, i), column);
done:
    ams_free(ctx, prices);
    ams_free(ctx, lists);
    return status;
}
