/* SPDX-License-Identifier: MIT
 *
 * Exact linear assignment by shortest augmenting paths (Jonker & Volgenant 1987; rectangular form as in
 * Crouse 2016). Prices of columns are at most 0, those of unmatched columns 0; a row's price is its
 * least reduced cost. Bidding gives most rows their column first; the rows left over enter one at a
 * time by Dijkstra's search over columns, in which reduced costs are never negative.
 */
#include "eval/assignment.h"

#include <math.h>
#include <string.h>

#define NONE UINT32_MAX

enum { BIDS_A_ROW = 16 };

typedef struct search {
    uint64_t n, m;
    const float *cost;
    double *row_price, *col_price; /* [n], [m] */
    double *price;                 /* [m] col_price of columns not yet reached, else -INFINITY */
    double *key;                   /* [m] distance of columns not yet reached, else INFINITY */
    double *distance;              /* [m] of columns reached */
    uint32_t *owner;               /* [m] row matched to a column, or NONE */
    uint32_t *from;                /* [m] last row on the shortest path to a column */
    uint32_t *closed;              /* [m] columns reached, in order */
    uint32_t *column;              /* [n] the match */
} search;

/* Rows without a column bid for their cheapest one, as high as their second choice allows, and push out
 * its owner, who bids next. Ends with a valid set of prices wherever it is cut off. */
static void bid(search *s)
{
    uint64_t bids = BIDS_A_ROW * s->n;
    for (uint64_t start = 0; start < s->n; start++)
        for (uint32_t row = (uint32_t)start; row != NONE && bids > 0; bids--) {
            const float *cost = s->cost + row * s->m;
            double least = INFINITY, second = INFINITY;
            uint32_t at = 0;
            for (uint64_t j = 0; j < s->m; j++) {
                double reduced = (double)cost[j] - s->col_price[j];
                if (reduced >= second) continue;
                if (reduced < least) {
                    second = least;
                    least = reduced;
                    at = (uint32_t)j;
                } else {
                    second = reduced;
                }
            }
            uint32_t loser = s->owner[at];
            if (isinf(second)) second = least; /* a single column */
            if (loser != NONE && !(second > least)) break; /* a tie: the search will settle it */
            s->row_price[row] = second;
            s->col_price[at] -= second - least;
            s->owner[at] = row;
            s->column[row] = at;
            if (loser != NONE) s->column[loser] = NONE;
            row = loser;
        }
}

/* The column not yet reached with the least key; among equals a free one, then the lowest. */
static uint32_t nearest(const search *s)
{
    double lane[4] = {INFINITY, INFINITY, INFINITY, INFINITY};
    uint64_t j = 0;
    for (; j + 4 <= s->m; j += 4)
        for (uint64_t l = 0; l < 4; l++)
            lane[l] = s->key[j + l] < lane[l] ? s->key[j + l] : lane[l];
    for (; j < s->m; j++)
        lane[0] = fmin(lane[0], s->key[j]);
    double least = fmin(fmin(lane[0], lane[1]), fmin(lane[2], lane[3]));
    uint32_t best = NONE;
    for (j = 0; j < s->m; j++) {
        if (s->key[j] != least) continue;
        if (s->owner[j] == NONE) return (uint32_t)j;
        if (best == NONE) best = (uint32_t)j;
    }
    return best;
}

/* Finds the shortest path from `start` to a free column, which it returns, and updates the prices. */
static uint32_t find_path(search *s, uint32_t start)
{
    uint64_t n_closed = 0;
    uint32_t row = start, sink = NONE;
    double reached = 0;
    memcpy(s->price, s->col_price, s->m * sizeof *s->price);
    for (uint64_t j = 0; j < s->m; j++)
        s->key[j] = INFINITY;
    while (sink == NONE) {
        const float *cost = s->cost + row * s->m;
        double base = reached - s->row_price[row];
        for (uint64_t j = 0; j < s->m; j++) {
            double through = base + ((double)cost[j] - s->price[j]);
            bool shorter = through < s->key[j];
            s->key[j] = shorter ? through : s->key[j];
            s->from[j] = shorter ? row : s->from[j];
        }
        uint32_t j = nearest(s);
        reached = s->distance[j] = s->key[j];
        s->key[j] = INFINITY;
        s->price[j] = -INFINITY;
        s->closed[n_closed++] = j;
        if (s->owner[j] == NONE) sink = j;
        else row = s->owner[j];
    }
    s->row_price[start] += reached;
    for (uint64_t q = 0; q + 1 < n_closed; q++) { /* the sink's own price does not change */
        uint32_t j = s->closed[q];
        s->row_price[s->owner[j]] += reached - s->distance[j];
        s->col_price[j] -= reached - s->distance[j];
    }
    return sink;
}

/* Flips the matches along the path that ends in column j. */
static void augment(search *s, uint32_t start, uint32_t j)
{
    for (;;) {
        uint32_t row = s->from[j], previous = s->column[row];
        s->owner[j] = row;
        s->column[row] = j;
        if (row == start) return;
        j = previous;
    }
}

static void solve(search *s)
{
    for (uint64_t j = 0; j < s->m; j++)
        s->owner[j] = NONE;
    for (uint64_t i = 0; i < s->n; i++)
        s->column[i] = NONE;
    bid(s);
    for (uint64_t i = 0; i < s->n; i++) {
        const float *cost = s->cost + i * s->m;
        if (s->column[i] != NONE) { /* a later bid may have lowered its column's price */
            s->row_price[i] = (double)cost[s->column[i]] - s->col_price[s->column[i]];
            continue;
        }
        s->row_price[i] = INFINITY;
        for (uint64_t j = 0; j < s->m; j++)
            s->row_price[i] = fmin(s->row_price[i], (double)cost[j] - s->col_price[j]);
    }
    for (uint32_t i = 0; i < s->n; i++)
        if (s->column[i] == NONE) augment(s, i, find_path(s, i));
}

atmsae_status ams_assignment(atmsae_context *ctx, uint64_t n, uint64_t m, const float *cost, uint32_t *column)
{
    if (n > m || m >= NONE)
        return ams_fail(ctx, ATMSAE_E_ARG, "assignment: %llu rows and %llu columns, expected no more rows than columns",
                        (unsigned long long)n, (unsigned long long)m);
    for (uint64_t i = 0; i < n * m; i++)
        if (!isfinite(cost[i]))
            return ams_fail(ctx, ATMSAE_E_NONFINITE, "assignment: the cost of row %llu, column %llu is not finite",
                            (unsigned long long)(i / m), (unsigned long long)(i % m));
    double *numbers = ams_calloc(ctx, n + 4 * m, sizeof *numbers);
    uint32_t *lists = ams_calloc(ctx, 3 * m, sizeof *lists);
    atmsae_status status = ATMSAE_OK;
    if (numbers && lists) {
        search s = {.n = n, .m = m, .cost = cost, .row_price = numbers, .col_price = numbers + n,
                    .price = numbers + n + m, .key = numbers + n + 2 * m, .distance = numbers + n + 3 * m,
                    .owner = lists, .from = lists + m, .closed = lists + 2 * m, .column = column};
        solve(&s);
    } else {
        status = ams_nomem(ctx, "assignment");
    }
    ams_free(ctx, numbers);
    ams_free(ctx, lists);
    return status;
}
