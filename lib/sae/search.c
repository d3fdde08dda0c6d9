/* SPDX-License-Identifier: MIT
 *
 * Which latents have a pre-activation above their cut.
 *
 * The encoder product W_enc x~ is the one dense computation of a step. It is made tile by tile (some
 * rows against some latents) and each tile is scanned while it is in cache, so the n x F matrix
 * never exists. The product only proposes: its values differ from the library's own (ams_dot plus
 * bias) by at most the row's `slack`, so everything within that distance of a cut is kept, computed
 * again by ams_dot, and selected by those values. The result is therefore independent of tiles, of
 * threads and of how the product is made: in 16-bit integers or bf16 (packed.c), or by BLIS in f32. For
 * few rows all values are made by ams_dot, and the slack is 0. See doc/method.md, section 4.
 */
#include "sae/search.h"

#include <math.h>
#include <string.h>

enum {
    TILE_ROWS = 1024,       /* of BLIS's product */
    PACKED_ROWS = 256,      /* of others, where packing is done already */
    GROUP_BYTES = 6 << 20,  /* of W_enc that is packed at a time */
    EXACT_ROWS = 4,         /* up to so many rows, reading W_enc once a row beats packing it */
    CANDIDATE_BYTES = 8 << 20, /* of row lists, times threads; bounds the rows of a pass for large k */
    ENTRIES_A_ROW = 32 /* ABOVE: room at first */
};

atmsae_status ams_search_create(atmsae_context *ctx, ams_search **out)
{
    ams_search *s = ams_calloc(ctx, 1, sizeof *s);
    *out = s;
    if (!s) return ams_nomem(ctx, "the search");
    s->ctx = ctx;
    pthread_mutex_init(&s->lock, NULL);
    s->workers = ams_calloc(ctx, ams_workers(ctx), sizeof *s->workers);
    return s->workers ? ATMSAE_OK : ams_nomem(ctx, "the search");
}

void ams_search_destroy(ams_search *s)
{
    if (!s) return;
    for (unsigned w = 0; s->workers && w < ams_workers(s->ctx); w++) {
        ams_search_worker *k = &s->workers[w];
        void *arrays[] = {k->tile, k->packed, k->bias, k->low, k->hits, k->values, k->entries};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            ams_free(s->ctx, arrays[i]);
    }
    ams_packed_free(s->ctx, &s->packed);
    void *arrays[] = {s->workers, s->shared.entries, s->shared.values, s->by_row, s->lists, s->entries, s->chunks, s->slack, s->norm,
                      s->found, s->values};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(s->ctx, arrays[i]);
    pthread_mutex_destroy(&s->lock);
    ams_free(s->ctx, s);
}

static atmsae_status reserve_worker(const ams_searching *a, ams_search_worker *w)
{
    atmsae_context *ctx = a->s->ctx;
    const uint64_t width = ams_min(AMS_TILE_LATENTS, a->m->d_sae);
    const uint64_t entries = a->q->kind == AMS_BATCH_TOPK ? AMS_LOCAL_ENTRIES : 0;
    AMS_TRY(ams_grow(ctx, &w->tile, &w->tile_capacity, a->exact ? 0 : a->rows * a->tile_ld, 0, sizeof *w->tile));
    const uint64_t packed = a->exact || a->product ? 0 : width * a->m->d_in;
    AMS_TRY(ams_grow(ctx, &w->packed, &w->packed_capacity, packed, 0, sizeof *w->packed));
    AMS_TRY(ams_grow(ctx, &w->bias, &w->bias_capacity, width, 0, sizeof *w->bias));
    AMS_TRY(ams_grow(ctx, &w->low, &w->low_capacity, width, 0, sizeof *w->low));
    AMS_TRY(ams_grow(ctx, &w->hits, &w->hits_capacity, width, 0, sizeof *w->hits));
    AMS_TRY(ams_grow(ctx, &w->values, &w->values_capacity, 2 * a->row_room, 0, sizeof *w->values));
    return ams_grow(ctx, &w->entries, &w->entries_capacity, entries, 0, sizeof *w->entries);
}

static atmsae_status reserve(const ams_searching *a)
{
    ams_search *s = a->s;
    const ams_query *q = a->q;
    atmsae_context *ctx = s->ctx;
    AMS_TRY(ams_grow(ctx, &s->slack, &s->slack_capacity, q->n, 0, sizeof *s->slack));
    AMS_TRY(ams_grow(ctx, &s->norm, &s->norm_capacity, q->n, 0, sizeof *s->norm));
    AMS_TRY(ams_grow(ctx, &s->found, &s->found_capacity, q->n, 0, sizeof *s->found));
    if (a->product)
        AMS_TRY(ams_packed_reserve(ctx, &s->packed, ams_min(a->pass_rows, q->n), ams_min(a->group, a->m->d_sae), a->m->d_in));
    if (a->exact) AMS_TRY(ams_grow(ctx, &s->values, &s->values_capacity, q->n * a->m->d_sae, 0, sizeof *s->values));
    for (unsigned i = 0; i < ams_workers(ctx); i++)
        AMS_TRY(reserve_worker(a, &s->workers[i]));
    if (q->kind == AMS_ROW_TOPK) {
        const uint64_t rows = ams_min(a->pass_rows, q->n);
        AMS_TRY(ams_grow(ctx, &s->lists, &s->lists_capacity, rows, 0, sizeof *s->lists));
        AMS_TRY(ams_grow(ctx, &s->entries, &s->entries_capacity, rows * a->row_room, 0, sizeof *s->entries));
        return ams_sparse_reserve(ctx, a->out, q->n, q->n * q->k);
    }
    if (q->kind == AMS_BATCH_TOPK) {
        AMS_TRY(ams_grow(ctx, &s->shared.entries, &s->shared_capacity, a->batch_room, 0, sizeof *s->shared.entries));
        AMS_TRY(ams_grow(ctx, &s->shared.values, &s->shared_values_capacity, 2 * a->batch_room, 0, sizeof *s->shared.values));
        AMS_TRY(ams_grow(ctx, &s->by_row, &s->by_row_capacity, q->k, 0, sizeof *s->by_row));
        return ams_sparse_reserve(ctx, a->out, q->n, q->k);
    }
    /* Each job begins a chunk. */
    const uint64_t jobs = ams_blocks(a) * ((a->m->d_sae - 1) / a->group + 1), more = q->n * ENTRIES_A_ROW / AMS_CHUNK_ENTRIES;
    AMS_TRY(ams_grow(ctx, &s->entries, &s->entries_capacity, (jobs + more) * AMS_CHUNK_ENTRIES, 0, sizeof *s->entries));
    return ams_grow(ctx, &s->chunks, &s->chunks_capacity, ams_search_chunks(s), 0, sizeof *s->chunks);
}

static void norm_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    const ams_searching *a = arg;
    a->s->norm[row] = ams_norm(a->q->x + row * a->m->d_in, a->m->d_in);
}

/* How far a product's value of a row of this pass can be from ams_dot's: doc/method.md, section 4. Done
 * for each group of latents; a bound that grows leaves what was decided by smaller ones right. */
static void bound_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece, (void)sums;
    ams_searching *a = arg;
    const uint64_t d = a->m->d_in;
    const double u = 0x1p-24, g = (double)d * u / (1 - (double)d * u);
    for (uint64_t r = a->pass_first + first; r < a->pass_first + last; r++) {
        const double norm = a->exact ? 0 : a->s->norm[r], scale = 1.01 * norm * a->m->enc_norm_max;
        double slack = (2 * g + 4 * u) * scale + 4 * u * (double)a->m->b_enc_max * (scale > 0);
        if (a->product)
            slack += ams_product_bound(a->product, d, norm, (double)a->s->packed.x.error[r - a->pass_first],
                                       a->m->enc_norm_max, a->s->packed.w_error);
        a->s->slack[r] = nextafterf((float)slack, slack > 0 ? INFINITY : 0);
        if (ams_row_takes_part(a->q, r) && a->s->slack[r] == INFINITY) atomic_store(&a->beyond, true);
    }
}

static void start_lists(ams_searching *a)
{
    ams_search *s = a->s;
    s->shared = (ams_candidates){.entries = s->shared.entries, .values = s->shared.values, .room = a->batch_room,
                                 .batch = true, .cut = a->guess};
    for (unsigned i = 0; i < ams_workers(s->ctx); i++) {
        s->workers[i].n_entries = 0;
        s->workers[i].cut = a->guess;
    }
    atomic_store(&s->n_chunks, 0);
    memset(s->found, 0, (size_t)a->q->n * sizeof *s->found);
}

/* Rows pass_first .. against all latents. False: the product cannot hold these values. */
static bool search_rows(ams_searching *a)
{
    ams_search *s = a->s;
    const uint64_t d = a->m->d_in, rows = ams_pass_end(a) - a->pass_first;
    const bool by_row = a->q->kind == AMS_ROW_TOPK;
    for (uint64_t r = 0; by_row && r < rows; r++)
        s->lists[r] = (ams_candidates){.entries = s->entries + r * a->row_room, .room = a->row_room};
    if (a->product) ams_packed_rows(s->ctx, &s->packed, a->product, a->q->x + a->pass_first * d, rows, d);
    for (a->group_first = 0; a->group_first < a->latents; a->group_first = a->group_end) {
        a->group_end = ams_min(a->group_first + a->group, a->latents);
        if (a->product)
            ams_packed_latents(s->ctx, &s->packed, a->product, a->m, a->q->list, a->group_first, a->group_end - a->group_first);
        ams_pieces(s->ctx, rows, bound_job, a, NULL);
        if (a->product && atomic_load(&a->beyond)) return false;
        ams_parallel(s->ctx, (rows + a->rows - 1) / a->rows, ams_search_block_job, a);
        if (atomic_load(&a->full)) return true;
    }
    if (!by_row) return true;
    const uint64_t jobs = (rows + AMS_FINISH_ROWS - 1) / AMS_FINISH_ROWS;
    ams_parallel(s->ctx, jobs, ams_search_finish_job, a);
    uint64_t *start = a->out->start + a->pass_first;
    if (a->pass_first == 0) *start = 0;
    for (uint64_t r = 0; r < rows; r++)
        start[r + 1] = start[r] + s->found[a->pass_first + r];
    ams_parallel(s->ctx, jobs, ams_search_write_job, a);
    return true;
}

/* Of a batch's smallest value, from one step to the next: what a running cut would climb to is skipped. */
#define GUESS 0.85f

/* Sizes, which do not depend on how many latents are eligible today: memory is taken once. q gets k
 * bounded by what there is. */
static ams_searching plan(ams_search *s, const atmsae_model *m, ams_query *q, ams_sparse *out, const ams_product *product)
{
    ams_searching a = {.s = s, .m = m, .q = q, .out = out, .exact = q->n <= EXACT_ROWS, .pass_rows = ams_max(1, q->n)};
    a.product = a.exact ? NULL : product;
    a.latents = q->list ? q->n_list : m->d_sae;
    const uint64_t width = ams_min(AMS_TILE_LATENTS, m->d_sae), workers = ams_workers(s->ctx);
    a.tile_ld = width + 16; /* not a multiple of 4 KB: rows would share cache sets */
    a.group = UINT64_MAX;
    if (a.product) a.group = ams_max(1, GROUP_BYTES / (2 * ams_panel_depth(m->d_in)) / AMS_TILE_LATENTS) * AMS_TILE_LATENTS;
    if (q->kind == AMS_ROW_TOPK) {
        q->k = ams_min(q->k, m->d_sae);
        a.row_room = 2 * q->k + 32;
        const uint64_t most = CANDIDATE_BYTES * workers / (a.row_room * sizeof(ams_entry));
        a.pass_rows = ams_min(a.pass_rows, ams_panel_rows(ams_max(1, most)));
    }
    a.rows = ams_min(a.product ? PACKED_ROWS : TILE_ROWS, (a.pass_rows + workers - 1) / workers);
    if (a.product) a.rows = ams_panel_rows(a.rows);
    if (q->kind == AMS_BATCH_TOPK) {
        q->k = ams_min(q->k, q->n * m->d_sae);
        a.batch_room = 2 * q->k + 4096;
        if (s->last_model == m) a.guess = GUESS * s->last_smallest;
    }
    return a;
}

atmsae_status ams_search_reserve(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out)
{
    ams_query q = *query;
    const ams_searching a = plan(s, m, &q, out, ams_product_of(s->ctx));
    return reserve(&a);
}

/* False: the product could not hold all values, and nothing is found yet. */
static bool search(ams_searching *a)
{
    ams_search *s = a->s;
    a->scorer = (ams_scorer){a->m, a->q->x, s->slack, a->q->k};
    start_lists(a);
    if (a->exact) ams_parallel(s->ctx, (a->latents + AMS_EXACT_LATENTS - 1) / AMS_EXACT_LATENTS, ams_search_exact_job, a);
    else ams_parallel(s->ctx, a->q->n, norm_job, a);
    bool held = true;
    for (; held && a->pass_first < a->q->n; a->pass_first += a->pass_rows)
        held = search_rows(a);
    return held;
}

/* *found: as ams_search_collect has it. */
static atmsae_status run(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out, bool *found)
{
    const ams_product *product = ams_product_of(s->ctx);
    for (;;) {
        ams_query q = *query;
        ams_searching a = plan(s, m, &q, out, product);
        AMS_TRY(reserve(&a));
        out->n = q.n;
        if (a.latents == 0 || (q.kind != AMS_ABOVE && q.k == 0)) {
            AMS_TRY(ams_sparse_reserve(s->ctx, out, q.n, 0));
            memset(out->start, 0, (size_t)(q.n + 1) * sizeof *out->start);
            *found = true;
            return ATMSAE_OK;
        }
        if (!search(&a)) /* rows or latents beyond what 16 bits can hold */
            product = NULL;
        else if (atomic_load(&a.full)) /* twice as much, or a quarter more where that cannot be had */
            AMS_TRY(ams_grow(s->ctx, &s->entries, &s->entries_capacity, s->entries_capacity / 4 * 5, 0, sizeof *s->entries));
        else
            return ams_search_collect(&a, found);
    }
}

atmsae_status ams_search_run(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out)
{
    bool found;
    AMS_TRY(run(s, m, query, out, &found));
    if (found) return ATMSAE_OK;
    s->last_model = NULL; /* and so without a guess */
    return run(s, m, query, out, &found);
}

float ams_search_smallest(const ams_search *s) { return s->last_smallest; }
