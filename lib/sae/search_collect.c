/* SPDX-License-Identifier: MIT
 *
 * From what a search found to rows.
 */
#include "sae/search.h"

atmsae_status ams_search_start_rows(const ams_searching *a)
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
    AMS_TRY(ams_search_start_rows(a));
    ams_parallel(a->s->ctx, ams_blocks(a), scatter_job, a);
    return ATMSAE_OK;
}

atmsae_status ams_search_collect(ams_searching *a, bool *found)
{
    *found = true;
    if (a->q->kind == AMS_ABOVE) return collect_above(a);
    return a->q->kind == AMS_BATCH_TOPK ? ams_search_batch(a, found) : ATMSAE_OK; /* ROW_TOPK: pass by pass */
}
