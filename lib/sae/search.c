/* SPDX-License-Identifier: MIT
 *
 * Which latents have a pre-activation above their cut.
 *
 * The encoder product W_enc x~ is the one dense computation of a step. It is made tile by tile (some
 * rows against some latents) and each tile is scanned while it is in cache, so the n x F matrix
 * never exists. The product only proposes: its values differ from the library's own (ams_dot plus
 * bias) by at most `slack`, so everything within that distance of a cut is kept, computed again by
 * ams_dot, and selected by those values. The result is therefore independent of BLIS, of tiles and of
 * threads. For few rows the tile is filled by ams_dot at once, and the slack is 0. See doc/method.md,
 * section 4.
 */
#include "sae/sae.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    TILE_LATENTS = 1024,    /* with 1024 rows: 4 MB, and packing is a few per cent of the product */
    TILE_ROWS = 1024,
    EXACT_ROWS = 4,         /* up to so many rows, reading W_enc once a row beats packing it */
    CANDIDATE_BYTES = 8 << 20 /* of a worker's row candidates; bounds the rows of a block for large k */
};

/* Working memory of a thread. */
typedef struct worker {
    float *tile;     /* [rows of a block, TILE_LATENTS + 16] */
    float *packed;   /* [TILE_LATENTS, d] rows of W_enc, where the eligible ones are not contiguous */
    float *bias;     /* [TILE_LATENTS] */
    float *low;      /* [TILE_LATENTS] */
    uint32_t *hits;  /* [TILE_LATENTS] */
    ams_entry *entries; /* ROW_TOPK: [rows of a block, row_room]; BATCH_TOPK: [batch_room] */
    uint32_t *count; /* [rows of a block] ROW_TOPK */
    float *limit;    /* [rows of a block] ROW_TOPK */
    uint64_t n_entries;   /* BATCH_TOPK */
    float batch_limit;    /* BATCH_TOPK */
    uint64_t tile_capacity, packed_capacity, bias_capacity, low_capacity, hits_capacity, entries_capacity,
        count_capacity, limit_capacity;
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
    ams_entry *merged; /* BATCH_TOPK */
    uint64_t merged_capacity;
    float *slack;      /* [n] */
    uint64_t slack_capacity;
    uint32_t *found;   /* [n] entries of each row */
    uint64_t found_capacity;
};

atmsae_status ams_search_create(atmsae_context *ctx, ams_search **out)
{
    ams_search *s = ams_calloc(ctx, 1, sizeof *s);
    *out = s;
    if (!s) return ams_nomem(ctx, "the search");
    s->ctx = ctx;
    s->workers = ams_calloc(ctx, ams_workers(ctx), sizeof *s->workers);
    return s->workers ? ATMSAE_OK : ams_nomem(ctx, "the search");
}

void ams_search_destroy(ams_search *s)
{
    if (!s) return;
    for (unsigned w = 0; s->workers && w < ams_workers(s->ctx); w++) {
        worker *k = &s->workers[w];
        void *arrays[] = {k->tile, k->packed, k->bias, k->low, k->hits, k->entries, k->count, k->limit};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            ams_free(s->ctx, arrays[i]);
    }
    for (uint64_t b = 0; b < s->blocks_capacity; b++)
        ams_free(s->ctx, s->blocks[b].entries);
    ams_free(s->ctx, s->workers);
    ams_free(s->ctx, s->blocks);
    ams_free(s->ctx, s->merged);
    ams_free(s->ctx, s->slack);
    ams_free(s->ctx, s->found);
    ams_free(s->ctx, s);
}

typedef struct run {
    ams_search *s;
    const atmsae_model *m;
    const ams_query *q;
    ams_sparse *out;
    uint64_t rows;      /* of a block */
    uint64_t latents;   /* eligible ones */
    uint64_t row_room;  /* candidates a row (ROW_TOPK) */
    uint64_t batch_room;
    bool exact;         /* tiles by ams_dot */
    _Atomic uint32_t ties;     /* BATCH_TOPK: a list overflowed with near-ties; run again exactly */
    _Atomic int32_t status;
} run;

static float pre_activation(const run *a, uint64_t row, uint64_t latent)
{
    const atmsae_model *m = a->m;
    return ams_dot(m->w_enc + latent * m->d_in, a->q->x + row * m->d_in, m->d_in) + m->b_enc[latent];
}

static bool row_takes_part(const ams_query *q, uint64_t row) { return !q->weights || q->weights[row] != 0; }

/* ---- ROW_TOPK: a few candidates a row ------------------------------------------------------------ */

/* Keeps the candidates that can still be among the first k. False: more near-ties than room. */
static bool trim(ams_entry *e, uint64_t *count, uint64_t k, float slack, float *limit)
{
    ams_select(e, *count, k);
    float cut = e[k - 1].value - 2 * slack;
    uint64_t kept = k;
    if (slack > 0)
        for (uint64_t i = k; i < *count; i++)
            if (e[i].value >= cut) e[kept++] = e[i];
    *limit = nextafterf(cut, -INFINITY); /* ties still come in: a lower row or latent may be among them */
    bool fits = kept < *count;
    *count = kept;
    return fits;
}

/* The row's first k of all eligible latents by exact values, for rows with too many near-ties. */
static uint64_t exact_row(const run *a, uint64_t row, ams_entry *e)
{
    const ams_query *q = a->q;
    uint64_t count = 0;
    float limit = 0;
    for (uint64_t t = 0; t < a->latents; t++) {
        uint64_t latent = q->list ? q->list[t] : t;
        float z = pre_activation(a, row, latent);
        if (!(z > limit)) continue;
        if (q->row_mask && atmsae_mask_test(q->row_mask, row, latent)) continue;
        e[count++] = (ams_entry){z, (uint32_t)row, (uint32_t)latent};
        if (count == a->row_room) trim(e, &count, q->k, 0, &limit);
    }
    return count;
}

static int by_latent(const ams_entry *a, const ams_entry *b) { return a->latent < b->latent; }

static void sort_by_latent(ams_entry *e, uint64_t n) /* Shell sort: n is small and nearly ordered */
{
    for (uint64_t gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint64_t i = gap; i < n; i++) {
            ams_entry x = e[i];
            uint64_t j = i;
            for (; j >= gap && by_latent(&x, &e[j - gap]); j -= gap)
                e[j] = e[j - gap];
            e[j] = x;
        }
}

/* Candidates to the row's final entries, written at row * k of the output. */
static void finish_row(const run *a, uint64_t row, ams_entry *e, uint64_t count, bool exact)
{
    const ams_query *q = a->q;
    float limit;
    if (!exact) {
        if (count > q->k) trim(e, &count, q->k, a->s->slack[row], &limit);
        uint64_t kept = 0;
        for (uint64_t i = 0; i < count; i++) {
            float z = pre_activation(a, row, e[i].latent);
            if (z > 0) e[kept++] = (ams_entry){z, (uint32_t)row, e[i].latent};
        }
        count = kept;
    }
    if (count > q->k) {
        ams_select(e, count, q->k);
        count = q->k;
    }
    sort_by_latent(e, count);
    for (uint64_t i = 0; i < count; i++) {
        a->out->latent[row * q->k + i] = e[i].latent;
        a->out->value[row * q->k + i] = e[i].value;
    }
    a->s->found[row] = (uint32_t)count;
}

/* ---- one tile, one row block ----------------------------------------------------------------------- */

typedef struct tile {
    uint64_t first, count; /* positions among the eligible latents */
    const float *weights, *bias, *low;
} tile;

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
    float z = pre_activation(a, row, latent);
    if (!(z > (q->low ? q->low[latent] : q->limit))) return true;
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

/* Handles the hits of one row in one tile. False: stop (out of memory, or too many ties). */
static bool take_hits(run *a, worker *w, block *b, uint64_t row, uint64_t in_block, const float *values,
                      const tile *t, uint64_t n_hits)
{
    const ams_query *q = a->q;
    float slack = a->exact ? 0 : a->s->slack[row];
    for (uint64_t h = 0; h < n_hits; h++) {
        uint64_t at = w->hits[h], latent = q->list ? q->list[t->first + at] : t->first + at;
        float v = values[at] + t->bias[at];
        if (q->row_mask && atmsae_mask_test(q->row_mask, row, latent)) continue;
        if (q->kind == AMS_ABOVE) {
            if (!push_above(a, b, row, latent)) return false;
        } else if (q->kind == AMS_ROW_TOPK) {
            if (w->count[in_block] == UINT32_MAX || !(v > w->limit[in_block])) continue;
            ams_entry *e = w->entries + in_block * a->row_room;
            uint64_t count = w->count[in_block];
            e[count++] = (ams_entry){v, (uint32_t)row, (uint32_t)latent};
            bool fits = count < a->row_room || trim(e, &count, q->k, slack, &w->limit[in_block]);
            w->count[in_block] = fits ? (uint32_t)count : UINT32_MAX; /* the row is done exactly later */
        } else {
            if (!(v > w->batch_limit)) continue;
            w->entries[w->n_entries++] = (ams_entry){v, (uint32_t)row, (uint32_t)latent};
            if (w->n_entries < a->batch_room) continue;
            float batch_slack = a->exact ? 0 : a->s->slack[q->n];
            if (!trim(w->entries, &w->n_entries, q->k, batch_slack, &w->batch_limit)) {
                atomic_store(&a->ties, 1);
                return false;
            }
        }
    }
    return true;
}

static float scan_limit(const run *a, const worker *w, uint64_t row, uint64_t in_block)
{
    if (a->q->kind == AMS_ROW_TOPK) return w->limit[in_block];
    if (a->q->kind == AMS_BATCH_TOPK) return w->batch_limit;
    return a->exact ? a->q->limit : a->q->limit - a->s->slack[row];
}

static void block_job(void *arg, uint64_t job, unsigned which)
{
    run *a = arg;
    const ams_query *q = a->q;
    const atmsae_model *m = a->m;
    worker *w = &a->s->workers[which];
    block *b = q->kind == AMS_ABOVE ? &a->s->blocks[job] : NULL;
    if (b) b->count = 0;
    uint64_t first_row = job * a->rows, rows = ams_min(a->rows, q->n - first_row);
    if (q->kind == AMS_ROW_TOPK)
        for (uint64_t r = 0; r < rows; r++) {
            w->count[r] = 0;
            w->limit[r] = a->exact ? 0 : -a->s->slack[first_row + r];
        }
    const uint64_t ld = TILE_LATENTS + 16; /* not a multiple of 4 KB: rows would share cache sets */
    for (uint64_t first = 0; first < a->latents; first += TILE_LATENTS) {
        if (atomic_load_explicit(&a->status, memory_order_relaxed) < 0 ||
            atomic_load_explicit(&a->ties, memory_order_relaxed))
            return;
        tile t = load_tile(a, w, first);
        if (!a->exact)
            ams_gemm_abt(rows, t.count, m->d_in, q->x + first_row * m->d_in, m->d_in, t.weights, m->d_in, w->tile, ld);
        for (uint64_t r = 0; r < rows; r++) {
            uint64_t row = first_row + r;
            if (!row_takes_part(q, row)) continue;
            float *values = w->tile + r * ld;
            if (a->exact) ams_dot_rows(t.weights, m->d_in, t.count, q->x + row * m->d_in, m->d_in, values);
            uint64_t n_hits =
                t.low ? ams_scan_each(values, t.bias, t.low, a->exact ? 0 : a->s->slack[row], t.count, w->hits)
                      : ams_scan(values, t.bias, scan_limit(a, w, row, r), t.count, w->hits);
            if (n_hits > 0 && !take_hits(a, w, b, row, r, values, &t, n_hits)) return;
        }
    }
    if (q->kind == AMS_ROW_TOPK)
        for (uint64_t r = 0; r < rows; r++) {
            uint64_t row = first_row + r, count = w->count[r];
            ams_entry *e = w->entries + r * a->row_room;
            bool overflow = count == UINT32_MAX;
            if (overflow) count = exact_row(a, row, e);
            finish_row(a, row, e, count, a->exact || overflow);
        }
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

typedef struct rescore {
    run *a;
    uint64_t count;
} rescore;

static void rescore_job(void *arg, uint64_t job, unsigned which)
{
    (void)which;
    rescore *x = arg;
    uint64_t last = ams_min((job + 1) * ENTRIES_A_JOB, x->count);
    for (uint64_t i = job * ENTRIES_A_JOB; i < last; i++) {
        ams_entry *e = &x->a->s->merged[i];
        e->value = pre_activation(x->a, e->row, e->latent);
    }
}

typedef struct sort_rows {
    run *a;
    ams_entry *entries;
} sort_rows;

static void sort_job(void *arg, uint64_t row, unsigned which)
{
    (void)which;
    sort_rows *x = arg;
    uint64_t first = x->a->out->start[row], last = x->a->out->start[row + 1];
    sort_by_latent(x->entries + first, last - first);
    for (uint64_t i = first; i < last; i++) {
        x->a->out->latent[i] = x->entries[i].latent;
        x->a->out->value[i] = x->entries[i].value;
    }
}

static atmsae_status collect_batch_topk(run *a)
{
    ams_search *s = a->s;
    const ams_query *q = a->q;
    uint64_t total = 0;
    for (unsigned w = 0; w < ams_workers(s->ctx); w++) {
        if (s->workers[w].n_entries)
            memcpy(s->merged + total, s->workers[w].entries, s->workers[w].n_entries * sizeof *s->merged);
        total += s->workers[w].n_entries;
    }
    float limit;
    if (total > q->k) trim(s->merged, &total, q->k, a->exact ? 0 : s->slack[q->n], &limit);
    if (!a->exact) {
        rescore x = {a, total};
        ams_parallel(s->ctx, (total + ENTRIES_A_JOB - 1) / ENTRIES_A_JOB, rescore_job, &x);
        uint64_t kept = 0;
        for (uint64_t i = 0; i < total; i++)
            if (s->merged[i].value > 0) s->merged[kept++] = s->merged[i];
        total = kept;
        if (total > q->k) {
            ams_select(s->merged, total, q->k);
            total = q->k;
        }
    }
    memset(s->found, 0, (size_t)q->n * sizeof *s->found);
    for (uint64_t i = 0; i < total; i++)
        s->found[s->merged[i].row]++;
    AMS_TRY(start_rows(a));
    /* Distribute over rows into the second half of `merged`, then order each row. */
    ams_entry *by_row = s->merged + total;
    for (uint64_t i = 0; i < total; i++) {
        ams_entry e = s->merged[i];
        by_row[a->out->start[e.row + 1] - s->found[e.row]--] = e;
    }
    sort_rows x = {a, by_row};
    ams_parallel(s->ctx, q->n, sort_job, &x);
    return ATMSAE_OK;
}

/* ---- memory and the run ------------------------------------------------------------------------------ */

static atmsae_status reserve(run *a, uint64_t blocks)
{
    ams_search *s = a->s;
    const ams_query *q = a->q;
    atmsae_context *ctx = s->ctx;
    AMS_TRY(ams_grow(ctx, &s->slack, &s->slack_capacity, q->n + 1, 0, sizeof *s->slack));
    AMS_TRY(ams_grow(ctx, &s->found, &s->found_capacity, q->n, 0, sizeof *s->found));
    if (q->kind == AMS_ABOVE && blocks > s->blocks_capacity) {
        uint64_t old = s->blocks_capacity;
        AMS_TRY(ams_grow(ctx, &s->blocks, &s->blocks_capacity, blocks, old, sizeof *s->blocks));
        memset(s->blocks + old, 0, (s->blocks_capacity - old) * sizeof *s->blocks);
    }
    uint64_t entries = 0, all = 0;
    if (q->kind == AMS_ROW_TOPK) entries = a->rows * a->row_room;
    if (q->kind == AMS_BATCH_TOPK) entries = a->batch_room;
    for (unsigned i = 0; i < ams_workers(ctx); i++) {
        worker *w = &s->workers[i];
        AMS_TRY(ams_grow(ctx, &w->tile, &w->tile_capacity, a->rows * (TILE_LATENTS + 16), 0, sizeof *w->tile));
        AMS_TRY(ams_grow(ctx, &w->hits, &w->hits_capacity, TILE_LATENTS, 0, sizeof *w->hits));
        AMS_TRY(ams_grow(ctx, &w->packed, &w->packed_capacity, TILE_LATENTS * a->m->d_in, 0, sizeof *w->packed));
        AMS_TRY(ams_grow(ctx, &w->bias, &w->bias_capacity, TILE_LATENTS, 0, sizeof *w->bias));
        AMS_TRY(ams_grow(ctx, &w->low, &w->low_capacity, TILE_LATENTS, 0, sizeof *w->low));
        AMS_TRY(ams_grow(ctx, &w->entries, &w->entries_capacity, entries, 0, sizeof *w->entries));
        AMS_TRY(ams_grow(ctx, &w->count, &w->count_capacity, a->rows, 0, sizeof *w->count));
        AMS_TRY(ams_grow(ctx, &w->limit, &w->limit_capacity, a->rows, 0, sizeof *w->limit));
        all += entries;
    }
    if (q->kind == AMS_ROW_TOPK) return ams_sparse_reserve(ctx, a->out, q->n, q->n * q->k);
    if (q->kind == AMS_ABOVE) return ATMSAE_OK;
    AMS_TRY(ams_grow(ctx, &s->merged, &s->merged_capacity, all + q->k, 0, sizeof *s->merged));
    return ams_sparse_reserve(ctx, a->out, q->n, q->k);
}

static void start_workers(const run *a)
{
    for (unsigned i = 0; i < ams_workers(a->s->ctx); i++) {
        a->s->workers[i].n_entries = 0;
        a->s->workers[i].batch_limit = a->exact ? 0 : -a->s->slack[a->q->n];
    }
}

/* How far a product's value of row r can be from ams_dot's: doc/method.md, section 4. slack[n] is the
 * largest of the batch. */
static void bound_errors(const run *a)
{
    const ams_query *q = a->q;
    const uint64_t d = a->m->d_in;
    const double u = 0x1p-24, g = (double)d * u / (1 - (double)d * u);
    float largest = 0;
    for (uint64_t r = 0; r < q->n; r++) {
        const float *x = q->x + r * d;
        double scale = 1.001 * sqrt((double)ams_dot(x, x, d)) * (double)a->m->enc_norm_max;
        a->s->slack[r] = (float)((2 * g + 4 * u) * scale + 4 * u * (double)a->m->b_enc_max * (scale > 0));
        if (row_takes_part(q, r) && a->s->slack[r] > largest) largest = a->s->slack[r];
    }
    a->s->slack[q->n] = largest;
}

static void plan(run *a)
{
    const ams_query *q = a->q;
    uint64_t workers = ams_workers(a->s->ctx);
    a->rows = ams_min(TILE_ROWS, ams_max(1, (q->n + workers - 1) / workers));
    if (q->kind == AMS_ROW_TOPK) {
        a->row_room = ams_min(2 * q->k + 32, a->latents + 1);
        uint64_t most = ams_max(1, CANDIDATE_BYTES / (a->row_room * sizeof(ams_entry)));
        a->rows = ams_min(a->rows, most);
    }
    if (q->kind == AMS_BATCH_TOPK) a->batch_room = ams_min(q->k + q->k / 2 + 4096, q->n * a->latents + 1);
}

/* A query's plan; q gets k bounded by what there is. */
static run plan_run(ams_search *s, const atmsae_model *m, ams_query *q, ams_sparse *out)
{
    run a = {.s = s, .m = m, .q = q, .out = out, .exact = q->n <= EXACT_ROWS};
    a.latents = q->list ? q->n_list : m->d_sae;
    if (q->kind == AMS_ROW_TOPK) q->k = ams_min(q->k, a.latents);
    if (q->kind == AMS_BATCH_TOPK) q->k = ams_min(q->k, q->n * a.latents);
    plan(&a);
    return a;
}

atmsae_status ams_search_reserve(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out)
{
    ams_query q = *query;
    run a = plan_run(s, m, &q, out);
    return reserve(&a, (q.n + a.rows - 1) / a.rows);
}

atmsae_status ams_search_run(ams_search *s, const atmsae_model *m, const ams_query *query, ams_sparse *out)
{
    ams_query q = *query;
    run a = plan_run(s, m, &q, out);
    uint64_t blocks = (q.n + a.rows - 1) / a.rows;
    out->n = q.n;
    AMS_TRY(reserve(&a, blocks));
    if (a.latents == 0 || (q.kind != AMS_ABOVE && q.k == 0)) {
        AMS_TRY(ams_sparse_reserve(s->ctx, out, q.n, 0));
        memset(out->start, 0, (size_t)(q.n + 1) * sizeof *out->start);
        return ATMSAE_OK;
    }
    bound_errors(&a);
    start_workers(&a);
    if (q.kind == AMS_ROW_TOPK) memset(s->found, 0, (size_t)q.n * sizeof *s->found);
    ams_parallel(s->ctx, blocks, block_job, &a);
    AMS_TRY(atomic_load(&a.status));
    if (atomic_load(&a.ties)) {
        atomic_store(&a.ties, 0);
        a.exact = true;
        start_workers(&a);
        ams_parallel(s->ctx, blocks, block_job, &a);
    }
    if (q.kind == AMS_ABOVE) return collect_above(&a, blocks);
    if (q.kind == AMS_BATCH_TOPK) return collect_batch_topk(&a);
    collect_row_topk(&a);
    return ATMSAE_OK;
}
