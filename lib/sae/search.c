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
#include "sae/candidates.h"
#include "sae/packed.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    TILE_LATENTS = 1024,    /* with 1024 rows: 4 MB, and BLIS's packing is a few per cent of the product */
    TILE_ROWS = 1024,
    PACKED_ROWS = 256,      /* of a tile, where packing is done already */
    GROUP_BYTES = 6 << 20,  /* of W_enc that is packed at a time */
    EXACT_ROWS = 4,         /* up to so many rows, reading W_enc once a row beats packing it */
    EXACT_LATENTS = 128,    /* of one job then */
    FINISH_ROWS = 64,       /* with so many latents they fit into the cache of a core */
    FINISH_LATENTS = 32,
    CANDIDATE_BYTES = 8 << 20, /* of row lists, times threads; bounds the rows of a pass for large k */
    LOCAL_ENTRIES = 4096    /* a thread's candidates for the batch's list, before it takes the lock */
};

/* Working memory of a thread. */
typedef struct worker {
    float *tile;     /* [rows of a block, tile_ld] */
    float *packed;   /* [tile, d] rows of W_enc, where the eligible ones are not contiguous */
    float *bias, *low; /* [tile] of them */
    uint32_t *hits;  /* [tile] */
    float *values;   /* [2, room of a list] ROW_TOPK */
    ams_entry *entries; /* [LOCAL_ENTRIES] BATCH_TOPK */
    uint64_t n_entries;
    float cut;          /* BATCH_TOPK: the shared list's, when last seen */
    uint64_t tile_capacity, packed_capacity, bias_capacity, low_capacity, hits_capacity, values_capacity, entries_capacity;
} worker;

/* What a row block found (ABOVE). */
typedef struct block {
    ams_entry *entries;
    uint64_t count, capacity;
} block;

struct ams_search {
    atmsae_context *ctx;
    worker *workers;
    block *blocks;
    uint64_t blocks_capacity;
    pthread_mutex_t lock; /* of `shared` */
    ams_candidates shared; /* BATCH_TOPK */
    const atmsae_model *last_model; /* of the last such search, with the smallest value it took */
    float last_smallest;
    ams_entry *by_row;    /* BATCH_TOPK: the selected entries, row after row */
    uint64_t shared_capacity, by_row_capacity;
    ams_candidates *lists; /* [rows of a pass] ROW_TOPK */
    ams_entry *entries;   /* of all of them */
    uint64_t lists_capacity, entries_capacity;
    float *slack;         /* [n] */
    double *norm;         /* [n] */
    uint64_t slack_capacity, norm_capacity;
    uint32_t *found;      /* [n] entries of each row */
    uint64_t found_capacity;
    ams_packed packed;
    float *values;        /* [n, eligible latents] products of few rows */
    uint64_t values_capacity;
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
        worker *k = &s->workers[w];
        void *arrays[] = {k->tile, k->packed, k->bias, k->low, k->hits, k->values, k->entries};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            ams_free(s->ctx, arrays[i]);
    }
    for (uint64_t b = 0; b < s->blocks_capacity; b++)
        ams_free(s->ctx, s->blocks[b].entries);
    ams_packed_free(s->ctx, &s->packed);
    void *arrays[] = {s->workers, s->blocks, s->shared.entries, s->by_row, s->lists, s->entries, s->slack, s->norm, s->found, s->values};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(s->ctx, arrays[i]);
    pthread_mutex_destroy(&s->lock);
    ams_free(s->ctx, s);
}

typedef struct run {
    ams_search *s;
    const atmsae_model *m;
    const ams_query *q;
    ams_sparse *out;
    uint64_t latents;  /* eligible ones */
    uint64_t group, group_first, group_end; /* latents packed at a time; the present ones */
    uint64_t pass_rows, pass_first; /* rows at a time that meet all latents */
    uint64_t rows;     /* of a block */
    uint64_t tile_ld;
    uint64_t row_room; /* candidates a row (ROW_TOPK) */
    uint64_t batch_room;
    ams_scorer scorer;
    float guess;       /* BATCH_TOPK: taken to be below the k-th value, which is checked; 0: nothing is */
    bool exact;        /* few rows: values by ams_dot, threads share latents */
    const ams_product *product; /* NULL: BLIS */
    float max_slack;
    _Atomic int32_t status;
} run;

typedef struct tile {
    uint64_t first, count; /* positions among the eligible latents */
    const float *weights, *bias, *low;
} tile;

/* The latent at a position among the eligible ones. */
static uint64_t eligible(const ams_query *q, uint64_t position) { return q->list ? q->list[position] : position; }

static bool row_takes_part(const ams_query *q, uint64_t row) { return !q->weights || q->weights[row] != 0; }

/* ---- hits of a tile to the lists ------------------------------------------------------------------------ */

/* A row's hits in one tile; what it reads often is kept out of memory. */
static void push_row(const run *a, ams_candidates *l, uint64_t row, const float *values, const tile *t, const uint32_t *hits,
                     uint64_t n_hits)
{
    if (!l) __builtin_unreachable(); /* this kind of query has lists */
    const float slack = a->s->slack[row];
    float cut = l->cut;
    uint64_t count = l->count;
    for (uint64_t h = 0; h < n_hits; h++) {
        const float value = values[hits[h]] + t->bias[hits[h]];
        if (!ams_candidates_may_take(value, cut, slack)) continue;
        l->entries[count++] = (ams_entry){value, (uint32_t)row, (uint32_t)eligible(a->q, t->first + hits[h])};
        if (count < l->room) continue;
        l->count = count;
        ams_candidates_trim(&a->scorer, l, slack);
        cut = l->cut;
        count = l->count;
    }
    l->count = count;
}

/* A thread's candidates to the list of the batch. */
static void flush(run *a, worker *w)
{
    ams_candidates *shared = &a->s->shared;
    pthread_mutex_lock(&a->s->lock);
    for (uint64_t i = 0; i < w->n_entries; i++)
        ams_candidates_push(&a->scorer, shared, w->entries[i], a->max_slack);
    w->cut = shared->cut;
    pthread_mutex_unlock(&a->s->lock);
    w->n_entries = 0;
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

/* A row's final entries, written at row * k of the output. */
static void finish_row(const run *a, uint64_t row, ams_candidates *l)
{
    const uint64_t k = a->q->k;
    ams_candidates_select(&a->scorer, l);
    for (uint64_t i = 0; i < l->count; i++) {
        a->out->latent[row * k + i] = l->entries[i].latent;
        a->out->value[row * k + i] = l->entries[i].value;
    }
    a->s->found[row] = (uint32_t)l->count;
}

/* Final entries of some rows. Where they are dense, rows and latents that stay in cache are rescored
 * together. */
static void finish_rows(const run *a, ams_candidates *lists, uint64_t first_row, uint64_t rows)
{
    const ams_query *q = a->q;
    const uint64_t step = q->k > a->latents / 16 ? FINISH_LATENTS : a->latents;
    for (ams_candidates *l = lists; l < lists + rows; l++)
        if (l->count > q->k && !l->crowded) ams_candidates_trim(&a->scorer, l, a->s->slack[first_row + (uint64_t)(l - lists)]);
    for (uint64_t end = step; end < a->latents; end += step)
        for (ams_candidates *l = lists; l < lists + rows; l++)
            ams_candidates_rescore(&a->scorer, l, eligible(q, end));
    for (uint64_t r = 0; r < rows; r++)
        finish_row(a, first_row + r, &lists[r]);
}

/* ---- one tile, one row block ----------------------------------------------------------------------- */

static tile load_tile(const run *a, worker *w, uint64_t first)
{
    const ams_query *q = a->q;
    const atmsae_model *m = a->m;
    tile t = {first, ams_min(TILE_LATENTS, a->latents - first), NULL, NULL, NULL};
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

static bool push_above(run *a, block *b, uint64_t row, uint64_t latent)
{
    const ams_query *q = a->q;
    float z = ams_pre_activation(&a->scorer, row, latent);
    if (!(z > (q->low ? q->low[latent] : q->limit))) return true;
    if (!b) __builtin_unreachable(); /* this kind of query has blocks */
    if (b->count == b->capacity) {
        atmsae_status status =
            ams_grow(a->s->ctx, &b->entries, &b->capacity, ams_max(4096, b->count + 1), b->count, sizeof *b->entries);
        if (status < 0) {
            atomic_store(&a->status, status);
            return false;
        }
    }
    b->entries[b->count++] = (ams_entry){z, (uint32_t)row, (uint32_t)latent};
    return true;
}

static uint64_t unmasked(const ams_query *q, uint32_t *hits, uint64_t n_hits, uint64_t row, const tile *t)
{
    uint64_t kept = 0;
    for (uint64_t h = 0; h < n_hits; h++)
        if (!atmsae_mask_test(q->row_mask, row, eligible(q, t->first + hits[h]))) hits[kept++] = hits[h];
    return kept;
}

/* Handles the hits of one row in one tile. False: out of memory. */
static bool take_hits(run *a, worker *w, block *b, uint64_t row, ams_candidates *l, const float *values, const tile *t,
                      uint64_t n_hits)
{
    const ams_query *q = a->q;
    if (q->row_mask) n_hits = unmasked(q, w->hits, n_hits, row, t);
    if (q->kind == AMS_ROW_TOPK) {
        push_row(a, l, row, values, t, w->hits, n_hits);
        return true;
    }
    for (uint64_t h = 0; h < n_hits; h++) {
        uint64_t at = w->hits[h], latent = eligible(q, t->first + at);
        if (q->kind == AMS_ABOVE) {
            if (h + 1 < n_hits) ams_prefetch_latent(&a->scorer, eligible(q, t->first + w->hits[h + 1]));
            if (!push_above(a, b, row, latent)) return false;
            continue;
        }
        w->entries[w->n_entries++] = (ams_entry){values[at] + t->bias[at], (uint32_t)row, (uint32_t)latent};
        if (w->n_entries == LOCAL_ENTRIES) flush(a, w);
    }
    return true;
}

static uint64_t scan_row(const run *a, const worker *w, uint64_t row, const ams_candidates *l, const float *values, const tile *t)
{
    const ams_query *q = a->q;
    const float slack = a->s->slack[row];
    if (t->low) return ams_scan_each(values, t->bias, t->low, slack, t->count, w->hits);
    float limit = q->kind == AMS_ABOVE ? q->limit - slack : ams_candidates_limit(l ? l->cut : w->cut, slack);
    return ams_scan(values, t->bias, limit, t->count, w->hits);
}

static void multiply(const run *a, const worker *w, uint64_t first_row, uint64_t rows, const tile *t)
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

static void exact_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    const run *a = arg;
    const ams_query *q = a->q;
    const uint64_t d = a->m->d_in, last = ams_min((job + 1) * EXACT_LATENTS, a->latents);
    for (uint64_t i = job * EXACT_LATENTS; i < last; i++) {
        const float *w = a->m->w_enc + eligible(q, i) * d;
        for (uint64_t r = 0; r < q->n; r++)
            a->s->values[r * a->latents + i] = ams_dot(w, q->x + r * d, d);
    }
}

/* A row block against the present latents. */
static void block_job(void *arg, uint64_t job, unsigned which)
{
    run *a = arg;
    const ams_query *q = a->q;
    worker *w = &a->s->workers[which];
    const uint64_t first_row = a->pass_first + job * a->rows, end = ams_min(a->pass_first + a->pass_rows, q->n);
    const uint64_t rows = ams_min(a->rows, end - first_row);
    block *b = q->kind == AMS_ABOVE ? &a->s->blocks[first_row / a->rows] : NULL;
    for (uint64_t first = a->group_first; first < a->group_end; first += TILE_LATENTS) {
        if (atomic_load_explicit(&a->status, memory_order_relaxed) < 0) return;
        tile t = load_tile(a, w, first);
        if (!a->exact) multiply(a, w, first_row, rows, &t);
        for (uint64_t r = 0; r < rows; r++) {
            uint64_t row = first_row + r;
            if (!row_takes_part(q, row)) continue;
            const float *values = a->exact ? a->s->values + row * a->latents + first : w->tile + r * a->tile_ld;
            ams_candidates *l = q->kind == AMS_ROW_TOPK ? &a->s->lists[row - a->pass_first] : NULL;
            if (l) l->values = w->values;
            uint64_t n_hits = scan_row(a, w, row, l, values, &t);
            if (n_hits > 0 && !take_hits(a, w, b, row, l, values, &t, n_hits)) return;
        }
    }
    if (q->kind == AMS_BATCH_TOPK) flush(a, w);
}

static void finish_job(void *arg, uint64_t job, unsigned which)
{
    run *a = arg;
    const uint64_t first = job * FINISH_ROWS, rows = ams_min(a->pass_rows, a->q->n - a->pass_first);
    const uint64_t count = ams_min(FINISH_ROWS, rows - first);
    ams_candidates *lists = a->s->lists + first;
    for (uint64_t r = 0; r < count; r++)
        lists[r].values = a->s->workers[which].values;
    finish_rows(a, lists, a->pass_first + first, count);
}

/* ---- from what the blocks found to rows ------------------------------------------------------------ */

/* Row starts from s->found, then room for the entries. */
static atmsae_status start_rows(const run *a)
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

static void count_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    run *a = arg;
    const block *b = &a->s->blocks[job];
    for (uint64_t i = 0; i < b->count; i++)
        a->s->found[b->entries[i].row]++;
}

/* A block's entries come tile by tile, so a stable distribution over rows leaves latents ascending. */
static void scatter_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    run *a = arg;
    const block *b = &a->s->blocks[job];
    for (uint64_t i = 0; i < b->count; i++) {
        ams_entry e = b->entries[i];
        uint64_t at = a->out->start[e.row + 1] - a->s->found[e.row]--;
        a->out->latent[at] = e.latent;
        a->out->value[at] = e.value;
    }
}

static atmsae_status collect_above(run *a, uint64_t blocks)
{
    memset(a->s->found, 0, (size_t)a->q->n * sizeof *a->s->found);
    ams_parallel(a->s->ctx, blocks, count_job, a);
    AMS_TRY(start_rows(a));
    ams_parallel(a->s->ctx, blocks, scatter_job, a);
    return ATMSAE_OK;
}

static void collect_row_topk(run *a)
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
    run *a = arg;
    ams_candidates *l = &a->s->shared;
    uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, l->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        if (i + 1 < last) ams_prefetch_latent(&a->scorer, l->entries[i + 1].latent);
        l->entries[i].value = ams_pre_activation(&a->scorer, l->entries[i].row, l->entries[i].latent);
    }
}

static void sort_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    run *a = arg;
    uint64_t first = a->out->start[row], last = a->out->start[row + 1];
    ams_entry *e = a->s->by_row;
    sort_by_latent(e + first, last - first);
    for (uint64_t i = first; i < last; i++) {
        a->out->latent[i] = e[i].latent;
        a->out->value[i] = e[i].value;
    }
}

/* *found: false where the guess was too high, and nothing is collected. */
static atmsae_status collect_batch_topk(run *a, bool *found)
{
    ams_search *s = a->s;
    ams_candidates *l = &s->shared;
    if (l->count > a->q->k && !l->crowded) ams_candidates_trim(&a->scorer, l, a->max_slack);
    if (!l->crowded) { /* select_exact's work, on all threads */
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

/* ---- memory and the run ------------------------------------------------------------------------------ */

static atmsae_status reserve_worker(const run *a, worker *w)
{
    atmsae_context *ctx = a->s->ctx;
    const uint64_t width = ams_min(TILE_LATENTS, a->m->d_sae);
    const uint64_t entries = a->q->kind == AMS_BATCH_TOPK ? LOCAL_ENTRIES : 0;
    AMS_TRY(ams_grow(ctx, &w->tile, &w->tile_capacity, a->exact ? 0 : a->rows * a->tile_ld, 0, sizeof *w->tile));
    AMS_TRY(ams_grow(ctx, &w->packed, &w->packed_capacity, a->exact || a->product ? 0 : width * a->m->d_in, 0, sizeof *w->packed));
    AMS_TRY(ams_grow(ctx, &w->bias, &w->bias_capacity, width, 0, sizeof *w->bias));
    AMS_TRY(ams_grow(ctx, &w->low, &w->low_capacity, width, 0, sizeof *w->low));
    AMS_TRY(ams_grow(ctx, &w->hits, &w->hits_capacity, width, 0, sizeof *w->hits));
    AMS_TRY(ams_grow(ctx, &w->values, &w->values_capacity, 2 * a->row_room, 0, sizeof *w->values));
    return ams_grow(ctx, &w->entries, &w->entries_capacity, entries, 0, sizeof *w->entries);
}

static atmsae_status reserve(const run *a)
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
        AMS_TRY(ams_grow(ctx, &s->by_row, &s->by_row_capacity, q->k, 0, sizeof *s->by_row));
        return ams_sparse_reserve(ctx, a->out, q->n, q->k);
    }
    const uint64_t blocks = (q->n + a->rows - 1) / a->rows;
    if (blocks > s->blocks_capacity) {
        uint64_t old = s->blocks_capacity;
        AMS_TRY(ams_grow(ctx, &s->blocks, &s->blocks_capacity, blocks, old, sizeof *s->blocks));
        memset(s->blocks + old, 0, (s->blocks_capacity - old) * sizeof *s->blocks);
    }
    return ATMSAE_OK;
}

static void norm_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    const run *a = arg;
    a->s->norm[row] = ams_norm(a->q->x + row * a->m->d_in, a->m->d_in);
}

/* How far a product's value of a row of this pass can be from ams_dot's: doc/method.md, section 4. Called
 * for each group of latents; a bound that grows leaves what was decided by smaller ones right. */
static void bound_errors(run *a)
{
    const ams_query *q = a->q;
    const uint64_t d = a->m->d_in, end = ams_min(a->pass_first + a->pass_rows, q->n);
    const double u = 0x1p-24, g = (double)d * u / (1 - (double)d * u);
    for (uint64_t r = a->pass_first; r < end; r++) {
        const double norm = a->exact ? 0 : a->s->norm[r], scale = 1.01 * norm * a->m->enc_norm_max;
        double slack = (2 * g + 4 * u) * scale + 4 * u * (double)a->m->b_enc_max * (scale > 0);
        if (a->product)
            slack += ams_product_bound(a->product, d, norm, (double)a->s->packed.x.error[r - a->pass_first],
                                       a->m->enc_norm_max, a->s->packed.w_error);
        a->s->slack[r] = nextafterf((float)slack, slack > 0 ? INFINITY : 0);
        if (row_takes_part(q, r) && a->s->slack[r] > a->max_slack) a->max_slack = a->s->slack[r];
    }
}

static void start_lists(run *a)
{
    ams_search *s = a->s;
    s->shared = (ams_candidates){.entries = s->shared.entries, .room = a->batch_room, .cut = a->guess};
    for (unsigned i = 0; i < ams_workers(s->ctx); i++) {
        s->workers[i].n_entries = 0;
        s->workers[i].cut = a->guess;
    }
    for (uint64_t b = 0; b < s->blocks_capacity; b++)
        s->blocks[b].count = 0;
    memset(s->found, 0, (size_t)a->q->n * sizeof *s->found);
}

/* Rows pass_first .. against all latents. False: the product cannot hold these values. */
static bool search_rows(run *a)
{
    ams_search *s = a->s;
    const uint64_t d = a->m->d_in, rows = ams_min(a->pass_rows, a->q->n - a->pass_first);
    const bool by_row = a->q->kind == AMS_ROW_TOPK;
    for (uint64_t r = 0; by_row && r < rows; r++)
        s->lists[r] = (ams_candidates){.entries = s->entries + r * a->row_room, .room = a->row_room};
    if (a->product) ams_packed_rows(s->ctx, &s->packed, a->product, a->q->x + a->pass_first * d, rows, d);
    for (a->group_first = 0; a->group_first < a->latents; a->group_first = a->group_end) {
        a->group_end = ams_min(a->group_first + a->group, a->latents);
        if (a->product)
            ams_packed_latents(s->ctx, &s->packed, a->product, a->m, a->q->list, a->group_first, a->group_end - a->group_first);
        bound_errors(a);
        if (a->product && a->max_slack == INFINITY) return false;
        ams_parallel(s->ctx, (rows + a->rows - 1) / a->rows, block_job, a);
        if (atomic_load(&a->status) < 0) return true;
    }
    if (by_row) ams_parallel(s->ctx, (rows + FINISH_ROWS - 1) / FINISH_ROWS, finish_job, a);
    return true;
}

/* Of a batch's smallest value, from one step to the next: what a running cut would climb to is skipped. */
#define GUESS 0.85f

/* Sizes, which do not depend on how many latents are eligible today: memory is taken once. q gets k
 * bounded by what there is. */
static run plan(ams_search *s, const atmsae_model *m, ams_query *q, ams_sparse *out, const ams_product *product)
{
    run a = {.s = s, .m = m, .q = q, .out = out, .exact = q->n <= EXACT_ROWS, .pass_rows = ams_max(1, q->n)};
    a.product = a.exact ? NULL : product;
    a.latents = q->list ? q->n_list : m->d_sae;
    const uint64_t width = ams_min(TILE_LATENTS, m->d_sae), workers = ams_workers(s->ctx);
    a.tile_ld = width + 16; /* not a multiple of 4 KB: rows would share cache sets */
    a.group = UINT64_MAX;
    if (a.product) a.group = ams_max(1, GROUP_BYTES / (2 * ams_panel_depth(m->d_in)) / TILE_LATENTS) * TILE_LATENTS;
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
    const run a = plan(s, m, &q, out, ams_product_of(s->ctx));
    return reserve(&a);
}

/* *held: the product could hold all values; else nothing is found yet. */
static atmsae_status search(run *a, bool *held)
{
    ams_search *s = a->s;
    AMS_TRY(reserve(a));
    a->scorer = (ams_scorer){a->m, a->q->x, s->slack, a->q->k};
    start_lists(a);
    if (!a->exact) ams_parallel(s->ctx, a->q->n, norm_job, a);
    if (a->exact) ams_parallel(s->ctx, (a->latents + EXACT_LATENTS - 1) / EXACT_LATENTS, exact_job, a);
    for (*held = true; *held && a->pass_first < a->q->n; a->pass_first += a->pass_rows)
        *held = search_rows(a);
    return atomic_load(&a->status);
}

atmsae_status ams_search_run(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out)
{
    ams_query q = *query;
    run a = plan(s, m, &q, out, ams_product_of(s->ctx));
    out->n = q.n;
    if (a.latents == 0 || (q.kind != AMS_ABOVE && q.k == 0)) {
        AMS_TRY(reserve(&a));
        AMS_TRY(ams_sparse_reserve(s->ctx, out, q.n, 0));
        memset(out->start, 0, (size_t)(q.n + 1) * sizeof *out->start);
        return ATMSAE_OK;
    }
    bool held;
    AMS_TRY(search(&a, &held));
    if (!held) { /* rows or latents beyond what 16 bits can hold */
        a = plan(s, m, &q, out, NULL);
        AMS_TRY(search(&a, &held));
    }
    if (q.kind == AMS_ABOVE) return collect_above(&a, (q.n + a.rows - 1) / a.rows);
    if (q.kind == AMS_ROW_TOPK) {
        collect_row_topk(&a);
        return ATMSAE_OK;
    }
    bool found;
    AMS_TRY(collect_batch_topk(&a, &found));
    if (found) return ATMSAE_OK;
    s->last_model = NULL;
    return ams_search_run(s, m, query, out);
}
