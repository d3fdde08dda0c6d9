/* SPDX-License-Identifier: MIT
 *
 * The inside of a search, shared by its parts: search.c plans and runs it, search_tiles.c finds candidates,
 * search_collect.c makes rows of them, search_batch.c those of the batch's k largest.
 */
#ifndef AMS_SEARCH_H
#define AMS_SEARCH_H

#include "sae/candidates.h"
#include "sae/packed.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    AMS_TILE_LATENTS = 1024, /* with 1024 rows: 4 MB, and BLIS's packing is a few per cent of the product */
    AMS_EXACT_LATENTS = 128, /* of a job, for the few rows whose reading of W_enc beats packing it */
    AMS_FINISH_ROWS = 64,    /* of a job: with so many latents they fit into the cache of a core */
    AMS_LOCAL_ENTRIES = 4096, /* a thread's candidates for the batch's list, before it takes the lock */
    AMS_CHUNK_ENTRIES = 1024, /* 12 KB, of which a job leaves half a chunk unused */
    AMS_DIGIT = 11           /* bits of a key that are counted at a time */
};

/* A piece of what was found (ABOVE): entries of one row block, in the order of the search. */
typedef struct ams_search_chunk {
    uint64_t block;
    uint64_t count;
} ams_search_chunk;

/* Working memory of a thread. */
typedef struct ams_search_worker {
    float *tile;     /* [rows of a block, tile_ld] */
    float *packed;   /* [tile, d] rows of W_enc, where the eligible ones are not contiguous */
    float *bias, *low; /* [tile] of them */
    uint32_t *hits;  /* [tile] */
    float *values;   /* [2, room of a list] ROW_TOPK */
    ams_entry *entries; /* [AMS_LOCAL_ENTRIES] BATCH_TOPK */
    uint64_t n_entries;
    float cut;          /* BATCH_TOPK: the shared list's, when last seen */
    uint64_t tile_capacity, packed_capacity, bias_capacity, low_capacity, hits_capacity, values_capacity, entries_capacity;
} ams_search_worker;

struct ams_search {
    atmsae_context *ctx;
    ams_search_worker *workers;
    pthread_mutex_t lock; /* of `shared` */
    ams_candidates shared; /* BATCH_TOPK */
    const atmsae_model *last_model; /* of the last such search, with the smallest value it took */
    float last_smallest;
    ams_entry *by_row;    /* BATCH_TOPK: the selected entries, row after row */
    _Atomic uint64_t digits[1 << AMS_DIGIT]; /* BATCH_TOPK: how many keys have which digit */
    uint64_t shared_capacity, shared_values_capacity, by_row_capacity;
    ams_candidates *lists; /* [rows of a pass] ROW_TOPK */
    ams_entry *entries;   /* of all of them; ABOVE: of the chunks */
    ams_search_chunk *chunks; /* ABOVE: in the order in which they were begun */
    _Atomic uint64_t n_chunks;
    uint64_t lists_capacity, entries_capacity, chunks_capacity;
    float *slack;         /* [n] */
    double *norm;         /* [n] */
    uint64_t slack_capacity, norm_capacity;
    uint32_t *found;      /* [n] entries of each row so far */
    uint64_t found_capacity;
    ams_packed packed;
    float *values;        /* [n, eligible latents] products of few rows */
    uint64_t values_capacity;
};

typedef struct ams_searching {
    ams_search *s;
    const atmsae_model *m;
    const ams_query *q;
    ams_sparse *out;
    uint64_t latents;  /* eligible ones */
    uint64_t group, group_first, group_end; /* latents packed at a time; the present ones */
    uint64_t pass_rows, pass_first; /* rows at a time that meet all latents */
    uint64_t rows;     /* of a row block */
    uint64_t tile_ld;
    uint64_t row_room; /* candidates a row (ROW_TOPK) */
    uint64_t batch_room;
    ams_scorer scorer;
    float guess;       /* BATCH_TOPK: taken to be below the k-th value, which is checked; 0: nothing is */
    bool exact;        /* few rows: values by ams_dot, threads share latents */
    const ams_product *product; /* NULL: BLIS */
    atomic_bool beyond; /* values may be too large for the product */
    atomic_bool full; /* ABOVE: the chunks were not enough */
} ams_searching;

/* Chunks that there is room for. */
static inline uint64_t ams_search_chunks(const ams_search *s) { return s->entries_capacity / AMS_CHUNK_ENTRIES; }

/* The latent at a position among the eligible ones. */
static inline uint64_t ams_eligible(const ams_query *q, uint64_t position) { return q->list ? q->list[position] : position; }

/* Row blocks of all rows (ABOVE). */
static inline uint64_t ams_blocks(const ams_searching *a) { return (a->q->n + a->rows - 1) / a->rows; }

/* One past the last row of the present pass. */
static inline uint64_t ams_pass_end(const ams_searching *a) { return ams_min(a->pass_first + a->pass_rows, a->q->n); }

static inline bool ams_row_takes_part(const ams_query *q, uint64_t row) { return !q->weights || q->weights[row] != 0; }

/* Jobs: latents of all rows by ams_dot; a row block against the present latents; final entries of rows, and
 * these in the output. */
void ams_search_exact_job(void *searching, uint64_t job, unsigned worker);
void ams_search_block_job(void *searching, uint64_t job, unsigned worker);
void ams_search_finish_job(void *searching, uint64_t job, unsigned worker);
void ams_search_write_job(void *searching, uint64_t job, unsigned worker);
/* What was found, as rows of the output. *found: false where the guess was too high, and there is none. */
atmsae_status ams_search_collect(ams_searching *a, bool *found);
atmsae_status ams_search_batch(ams_searching *a, bool *found); /* BATCH_TOPK's part of it */
/* Row starts from s->found, then room for the entries. */
atmsae_status ams_search_start_rows(const ams_searching *a);

#endif
