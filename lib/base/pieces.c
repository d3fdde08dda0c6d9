/* SPDX-License-Identifier: MIT
 *
 * Work on many small items, latents or rows, in 64 ordered pieces: why and how is in base.h.
 */
#include "base.h"

#include <string.h>

/* With fewer items, waking the workers costs more than they save. What comes out is the same. */
enum { LEAST_ITEMS = 4096 };

typedef struct pass {
    uint64_t n;
    ams_piece_job *job;
    void *arg;
    double sums[AMS_PIECES][AMS_PIECE_SUMS];
} pass;

static void run_piece(void *arg, uint64_t piece, unsigned worker)
{
    (void)worker;
    pass *a = arg;
    double sums[AMS_PIECE_SUMS] = {0}; /* pieces' own lie side by side in cache lines */
    a->job(a->arg, piece, ams_piece_first(a->n, piece), ams_piece_first(a->n, piece + 1), sums);
    memcpy(a->sums[piece], sums, sizeof sums);
}

void ams_pieces(atmsae_context *ctx, uint64_t n, ams_piece_job *job, void *arg, double sums[AMS_PIECE_SUMS])
{
    pass a = {.n = n, .job = job, .arg = arg};
    if (n >= LEAST_ITEMS)
        ams_parallel(ctx, AMS_PIECES, run_piece, &a);
    else
        for (uint64_t p = 0; p < AMS_PIECES; p++)
            run_piece(&a, p, 0);
    for (int k = 0; sums && k < AMS_PIECE_SUMS; k++) {
        sums[k] = 0;
        for (uint64_t p = 0; p < AMS_PIECES; p++)
            sums[k] += a.sums[p][k];
    }
}

/* ---- which items? ------------------------------------------------------------------------------------ */

typedef struct choice {
    ams_chosen *chosen;
    ams_take *take;
    void *arg;
    uint64_t of[AMS_PIECES]; /* the first one chosen; or how many were, then how many before the piece */
} choice;

static void find_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)sums;
    choice *a = arg;
    while (first < last && !a->chosen(a->arg, first))
        first++;
    a->of[piece] = first < last ? first : UINT64_MAX;
}

uint64_t ams_find(atmsae_context *ctx, uint64_t n, ams_chosen *chosen, void *arg)
{
    choice a = {.chosen = chosen, .arg = arg};
    ams_pieces(ctx, n, find_job, &a, NULL);
    for (uint64_t p = 0; p < AMS_PIECES; p++)
        if (a.of[p] != UINT64_MAX) return a.of[p];
    return n;
}

static void count_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)sums;
    choice *a = arg;
    uint64_t count = 0;
    for (uint64_t i = first; i < last; i++)
        count += a->chosen(a->arg, i);
    a->of[piece] = count;
}

static void take_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)sums;
    choice *a = arg;
    uint64_t number = a->of[piece];
    for (uint64_t i = first; i < last; i++)
        if (a->chosen(a->arg, i)) a->take(a->arg, i, number++);
}

uint64_t ams_number(atmsae_context *ctx, uint64_t n, ams_chosen *chosen, ams_take *take, void *arg)
{
    choice a = {.chosen = chosen, .take = take, .arg = arg};
    ams_pieces(ctx, n, count_job, &a, NULL);
    uint64_t total = 0;
    for (uint64_t p = 0; p < AMS_PIECES; p++) {
        const uint64_t count = a.of[p];
        a.of[p] = total;
        total += count;
    }
    ams_pieces(ctx, n, take_job, &a, NULL);
    return total;
}
