/* SPDX-License-Identifier: MIT
 *
 * From what a search found to rows.
 */
#include "sae/search.h"

#include <string.h>

/* Row starts from s->found, then room for the entries. */
static atmsae_status start_rows(const ams_searching *a)
{
    uint64_t total = 0;
    for (uint64_t r = 0; r < a->q->n; r++)
        total += a->s->found[r];
    AMS_TRY(ams_sparse_reserve(a->s->ctx, a->out, a->q->n, total));
    total = 0;
    for (uint64_t r = 0; r < a->q->n; r++) {
        a->out->start[r] = total;
        total += a->s->found[r];
    }
    a->out->start[a->q->n] = total;
    return ATMSAE_OK;
}

/* A block's entries come tile by tile, so a stable distribution over rows leaves latents ascending. */
static void scatter_job(void *arg, uint64_t block, unsigned which)
{
    (void)which;
    ams_searching *a = arg;
    const ams_search *s = a->s;
    const uint64_t chunks = atomic_load(&s->n_chunks);
    for (uint64_t c = 0; c < chunks; c++) {
        if (s->chunks[c].block != block) continue;
        const ams_entry *e = s->entries + c * AMS_CHUNK_ENTRIES, *end = e + s->chunks[c].count;
        for (; e < end; e++) {
            const uint64_t at = a->out->start[e->row + 1] - s->found[e->row]--;
            a->out->latent[at] = e->latent;
            a->out->value[at] = e->value;
        }
    }
}

static atmsae_status collect_above(ams_searching *a)
{
    AMS_TRY(start_rows(a));
    ams_parallel(a->s->ctx, ams_blocks(a), scatter_job, a);
    return ATMSAE_OK;
}

static void collect_row_topk(ams_searching *a)
{
    uint64_t total = 0;
    for (uint64_t r = 0; r < a->q->n; r++) {
        uint64_t count = a->s->found[r], from = r * a->q->k;
        a->out->start[r] = total;
        memmove(a->out->latent + total, a->out->latent + from, count * sizeof *a->out->latent);
        memmove(a->out->value + total, a->out->value + from, count * sizeof *a->out->value);
        total += count;
    }
    a->out->start[a->q->n] = total;
}

enum { ENTRIES_A_JOB = 1024 };

static void rescore_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    ams_searching *a = arg;
    ams_candidates *l = &a->s->shared;
    uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, l->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        if (i + 1 < last) ams_prefetch_latent(&a->scorer, l->entries[i + 1].latent);
        l->entries[i].value = ams_pre_activation(&a->scorer, l->entries[i].row, l->entries[i].latent);
    }
}

static void sort_by_latent(ams_entry *e, uint64_t n) /* Shell sort: n is small and nearly ordered */
{
    for (uint64_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint64_t i = gap; i < n; i++) {
            ams_entry x = e[i];
            uint64_t j = i;
            for (; j >= gap && x.latent < e[j - gap].latent; j -= gap)
                e[j] = e[j - gap];
            e[j] = x;
        }
}

static void sort_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    ams_searching *a = arg;
    uint64_t first = a->out->start[row], last = a->out->start[row + 1];
    ams_entry *e = a->s->by_row;
    sort_by_latent(e + first, last - first);
    for (uint64_t i = first; i < last; i++) {
        a->out->latent[i] = e[i].latent;
        a->out->value[i] = e[i].value;
    }
}

/* *found: false where the guess was too high, and nothing is collected. */
static atmsae_status collect_batch_topk(ams_searching *a, bool *found)
{
    ams_search *s = a->s;
    ams_candidates *l = &s->shared;
    ams_candidates_cut(&a->scorer, l);
    if (!l->crowded) { /* what ams_candidates_select begins with, on all threads */
        ams_parallel(s->ctx, (l->count + ENTRIES_A_JOB - 1) / ENTRIES_A_JOB, rescore_job, a);
        uint64_t kept = 0;
        for (uint64_t i = 0; i < l->count; i++)
            if (l->entries[i].value > 0) l->entries[kept++] = l->entries[i];
        l->count = l->exact = l->next = kept;
    }
    ams_candidates_select(&a->scorer, l);
    float smallest = INFINITY;
    for (uint64_t i = 0; i < l->count; i++)
        smallest = fminf(smallest, l->entries[i].value);
    *found = !(a->guess > 0) || (l->count == a->q->k && smallest >= a->guess);
    if (!*found) return ATMSAE_OK;
    s->last_model = a->m;
    s->last_smallest = l->count > 0 ? smallest : 0;
    memset(s->found, 0, (size_t)a->q->n * sizeof *s->found);
    for (uint64_t i = 0; i < l->count; i++)
        s->found[l->entries[i].row]++;
    AMS_TRY(start_rows(a));
    for (uint64_t i = 0; i < l->count; i++) {
        ams_entry e = l->entries[i];
        s->by_row[a->out->start[e.row + 1] - s->found[e.row]--] = e;
    }
    ams_parallel(s->ctx, a->q->n, sort_job, a);
    return ATMSAE_OK;
}

atmsae_status ams_search_collect(ams_searching *a, bool *found)
{
    *found = true;
    if (a->q->kind == AMS_ABOVE) return collect_above(a);
    if (a->q->kind == AMS_BATCH_TOPK) return collect_batch_topk(a, found);
    collect_row_topk(a);
    return ATMSAE_OK;
}
