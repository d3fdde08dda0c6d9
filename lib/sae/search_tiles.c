/* SPDX-License-Identifier: MIT
 *
 * Finding candidates: the product of a row block and some latents, made tile by tile, scanned while it is in
 * cache, and what passes put on its list.
 */
#include "sae/search.h"

#include <string.h>

enum { FINISH_LATENTS = 32 };

typedef struct tile {
    uint64_t first, count; /* positions among the eligible latents */
    const float *weights, *bias, *low;
} tile;

/* ---- hits of a tile to the lists ------------------------------------------------------------------------ */

/* A row's hits in one tile; what it reads often is kept out of memory. */
static void push_row(const ams_searching *a, ams_candidates *l, uint64_t row, const float *values, const tile *t,
                     const uint32_t *hits, uint64_t n_hits)
{
    if (!l) __builtin_unreachable(); /* this kind of query has lists */
    const float slack = a->s->slack[row];
    float cut = l->cut;
    uint64_t count = l->count;
    for (uint64_t h = 0; h < n_hits; h++) {
        const float value = values[hits[h]] + t->bias[hits[h]];
        if (!ams_candidates_may_take(value, cut, slack)) continue;
        l->entries[count++] = (ams_entry){value, (uint32_t)row, (uint32_t)ams_eligible(a->q, t->first + hits[h])};
        if (count < l->room) continue;
        l->count = count;
        ams_candidates_trim(&a->scorer, l);
        cut = l->cut;
        count = l->count;
    }
    l->count = count;
}

/* A thread's candidates to the list of the batch. */
static void flush(ams_searching *a, ams_search_worker *w)
{
    ams_candidates *shared = &a->s->shared;
    pthread_mutex_lock(&a->s->lock);
    for (uint64_t i = 0; i < w->n_entries; i++)
        ams_candidates_push(&a->scorer, shared, w->entries[i]);
    w->cut = shared->cut;
    pthread_mutex_unlock(&a->s->lock);
    w->n_entries = 0;
}

/* ---- one tile, one row block ----------------------------------------------------------------------- */

static tile load_tile(const ams_searching *a, ams_search_worker *w, uint64_t first)
{
    const ams_query *q = a->q;
    const atmsae_model *m = a->m;
    tile t = {first, ams_min(AMS_TILE_LATENTS, a->latents - first), NULL, NULL, NULL};
    if (!q->list) {
        t.weights = m->w_enc + first * m->d_in;
        t.bias = m->b_enc + first;
        t.low = q->low ? q->low + first : NULL;
        return t;
    }
    for (uint64_t i = 0; i < t.count; i++) {
        uint64_t latent = q->list[first + i];
        if (!a->exact && !a->product)
            memcpy(w->packed + i * m->d_in, m->w_enc + latent * m->d_in, (size_t)m->d_in * sizeof(float));
        w->bias[i] = m->b_enc[latent];
        if (q->low) w->low[i] = q->low[latent];
    }
    t.weights = w->packed;
    t.bias = w->bias;
    t.low = q->low ? w->low : NULL;
    return t;
}

/* A new chunk for a row block; NULL: there is no room. */
static ams_search_chunk *begin_chunk(ams_searching *a, uint64_t block)
{
    const uint64_t c = atomic_fetch_add(&a->s->n_chunks, 1);
    if (c >= ams_search_chunks(a->s)) {
        atomic_store(&a->full, true);
        return NULL;
    }
    a->s->chunks[c] = (ams_search_chunk){block, 0};
    return &a->s->chunks[c];
}

/* *chunk: the row block's present one. False: no room. */
static bool push_above(ams_searching *a, ams_search_chunk **chunk, uint64_t row, uint64_t latent)
{
    const ams_query *q = a->q;
    const float z = ams_pre_activation(&a->scorer, row, latent);
    if (!(z > (q->low ? q->low[latent] : q->limit))) return true;
    if (!*chunk || (*chunk)->count == AMS_CHUNK_ENTRIES) *chunk = begin_chunk(a, row / a->rows);
    if (!*chunk) return false;
    ams_entry *entries = a->s->entries + (*chunk - a->s->chunks) * AMS_CHUNK_ENTRIES;
    entries[(*chunk)->count++] = (ams_entry){z, (uint32_t)row, (uint32_t)latent};
    a->s->found[row]++;
    return true;
}

static uint64_t unmasked(const ams_query *q, uint32_t *hits, uint64_t n_hits, uint64_t row, const tile *t)
{
    uint64_t kept = 0;
    for (uint64_t h = 0; h < n_hits; h++)
        if (!atmsae_mask_test(q->row_mask, row, ams_eligible(q, t->first + hits[h]))) hits[kept++] = hits[h];
    return kept;
}

/* Handles the hits of one row in one tile. False: no room. */
static bool take_hits(ams_searching *a, ams_search_worker *w, ams_search_chunk **chunk, uint64_t row,
                      ams_candidates *l, const float *values, const tile *t, uint64_t n_hits)
{
    const ams_query *q = a->q;
    if (q->row_mask) n_hits = unmasked(q, w->hits, n_hits, row, t);
    if (q->kind == AMS_ROW_TOPK) {
        push_row(a, l, row, values, t, w->hits, n_hits);
        return true;
    }
    const bool sparse = n_hits < t->count / 16; /* dense ones the CPU sees coming */
    for (uint64_t h = 0; h < n_hits; h++) {
        uint64_t at = w->hits[h], latent = ams_eligible(q, t->first + at);
        if (q->kind == AMS_ABOVE) {
            if (sparse && h + 1 < n_hits) ams_prefetch_latent(&a->scorer, ams_eligible(q, t->first + w->hits[h + 1]));
            if (!push_above(a, chunk, row, latent)) return false;
            continue;
        }
        w->entries[w->n_entries++] = (ams_entry){values[at] + t->bias[at], (uint32_t)row, (uint32_t)latent};
        if (w->n_entries == AMS_LOCAL_ENTRIES) flush(a, w);
    }
    return true;
}

static uint64_t scan_row(const ams_searching *a, const ams_search_worker *w, uint64_t row, const ams_candidates *l,
                         const float *values, const tile *t)
{
    const ams_query *q = a->q;
    const float slack = a->s->slack[row];
    if (t->low) return ams_scan_each(values, t->bias, t->low, slack, t->count, w->hits);
    float limit = q->kind == AMS_ABOVE ? q->limit - slack : ams_candidates_limit(l ? l->cut : w->cut, slack);
    return ams_scan(values, t->bias, limit, t->count, w->hits);
}

static void multiply(const ams_searching *a, const ams_search_worker *w, uint64_t first_row, uint64_t rows, const tile *t)
{
    const uint64_t d = a->m->d_in;
    const ams_packed *p = &a->s->packed;
    if (!a->product) {
        ams_gemm_abt(rows, t->count, d, a->q->x + first_row * d, d, t->weights, d, w->tile, a->tile_ld);
        return;
    }
    const ams_panels x = ams_panels_from(&p->x, first_row - a->pass_first, d);
    const ams_panels latents = ams_panels_from(&p->w, t->first - a->group_first, d);
    ams_panels_multiply(a->product, rows, t->count, d, &x, &latents, w->tile, a->tile_ld);
}

void ams_search_exact_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    const ams_searching *a = arg;
    const ams_query *q = a->q;
    const uint64_t d = a->m->d_in, last = ams_min((job + 1) * AMS_EXACT_LATENTS, a->latents);
    for (uint64_t i = job * AMS_EXACT_LATENTS; i < last; i++) {
        const float *w = a->m->w_enc + ams_eligible(q, i) * d;
        for (uint64_t r = 0; r < q->n; r++)
            a->s->values[r * a->latents + i] = ams_dot(w, q->x + r * d, d);
    }
}

/* A row block against the present latents. */
void ams_search_block_job(void *arg, uint64_t job, unsigned which)
{
    ams_searching *a = arg;
    const ams_query *q = a->q;
    ams_search_worker *w = &a->s->workers[which];
    const uint64_t first_row = a->pass_first + job * a->rows, rows = ams_min(a->rows, ams_pass_end(a) - first_row);
    ams_search_chunk *chunk = NULL;
    for (uint64_t first = a->group_first; first < a->group_end; first += AMS_TILE_LATENTS) {
        if (atomic_load_explicit(&a->full, memory_order_relaxed)) return;
        tile t = load_tile(a, w, first);
        if (!a->exact) multiply(a, w, first_row, rows, &t);
        for (uint64_t r = 0; r < rows; r++) {
            uint64_t row = first_row + r;
            if (!ams_row_takes_part(q, row)) continue;
            const float *values = a->exact ? a->s->values + row * a->latents + first : w->tile + r * a->tile_ld;
            ams_candidates *l = q->kind == AMS_ROW_TOPK ? &a->s->lists[row - a->pass_first] : NULL;
            if (l) l->values = w->values;
            uint64_t n_hits = scan_row(a, w, row, l, values, &t);
            if (n_hits > 0 && !take_hits(a, w, &chunk, row, l, values, &t, n_hits)) return;
        }
    }
    if (q->kind == AMS_BATCH_TOPK) flush(a, w);
}

/* Final entries of some rows. Where they are dense, rows and latents that stay in cache are rescored
 * together. */
void ams_search_finish_job(void *arg, uint64_t job, unsigned which)
{
    ams_searching *a = arg;
    const ams_query *q = a->q;
    const uint64_t first = a->pass_first + job * AMS_FINISH_ROWS, end = ams_min(first + AMS_FINISH_ROWS, ams_pass_end(a));
    const uint64_t step = q->k > a->latents / 16 ? FINISH_LATENTS : a->latents;
    ams_candidates *lists = a->s->lists + job * AMS_FINISH_ROWS, *last = lists + (end - first);
    for (ams_candidates *l = lists; l < last; l++) {
        l->values = a->s->workers[which].values;
        ams_candidates_cut(&a->scorer, l);
    }
    for (uint64_t upto = step; upto < a->latents; upto += step)
        for (ams_candidates *l = lists; l < last; l++)
            ams_candidates_rescore(&a->scorer, l, ams_eligible(q, upto));
    for (ams_candidates *l = lists; l < last; l++) {
        ams_candidates_select(&a->scorer, l);
        a->s->found[first + (uint64_t)(l - lists)] = (uint32_t)l->count;
    }
}

/* They go to the output once it is known where each row starts. */
void ams_search_write_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    ams_searching *a = arg;
    const uint64_t first = a->pass_first + job * AMS_FINISH_ROWS, end = ams_min(first + AMS_FINISH_ROWS, ams_pass_end(a));
    for (uint64_t row = first; row < end; row++) {
        const ams_candidates *l = &a->s->lists[row - a->pass_first];
        for (uint64_t i = 0; i < l->count; i++) {
            a->out->latent[a->out->start[row] + i] = l->entries[i].latent;
            a->out->value[a->out->start[row] + i] = l->entries[i].value;
        }
    }
}
