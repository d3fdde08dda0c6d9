/* SPDX-License-Identifier: MIT
 *
 * The rows on which each latent is largest. Entries are kept in one total order (value, then row), so what
 * is left at the end depends neither on how rows were cut into batches nor on which came first.
 */
#include "sae/sae.h"

#include <atmsae/eval.h>

#define MOST_TOP 1024

typedef struct top_entry {
    uint64_t row;
    float value;
    float pad_;
} top_entry;

struct atmsae_top_rows {
    atmsae_context *ctx;
    ams_use use;
    uint64_t d_sae, n_top;
    uint64_t *count;  /* [F] entries in use */
    top_entry *entry; /* [F, n_top], best first */
};

static atmsae_status create(atmsae_context *ctx, uint64_t d_sae, uint64_t n_top, atmsae_top_rows **out)
{
    uint64_t n;
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "top_rows: out is NULL");
    if (d_sae < 1 || d_sae > INT32_MAX || n_top < 1 || n_top > MOST_TOP)
        return ams_fail(ctx, ATMSAE_E_ARG, "top_rows: d_sae = %llu, n_top = %llu, expected 1 .. 2^31 - 1 and 1 .. %d",
                        (unsigned long long)d_sae, (unsigned long long)n_top, MOST_TOP);
    atmsae_top_rows *top = ams_calloc(ctx, 1, sizeof *top);
    if (!top) return ams_nomem(ctx, "top rows");
    top->ctx = ams_context_ref(ctx);
    top->d_sae = d_sae;
    top->n_top = n_top;
    top->count = ams_calloc(ctx, d_sae, sizeof *top->count);
    top->entry = ams_mul(d_sae, n_top, &n) ? ams_alloc(ctx, n, sizeof *top->entry) : NULL;
    if (!top->count || !top->entry) {
        atmsae_top_rows_destroy(top);
        return ams_nomem(ctx, "top rows");
    }
    *out = top;
    return ATMSAE_OK;
}

atmsae_status atmsae_top_rows_create(atmsae_context *ctx, uint64_t d_sae, uint64_t n_top, atmsae_top_rows **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, d_sae, n_top, out));
}

void atmsae_top_rows_destroy(atmsae_top_rows *top)
{
    if (!top) return;
    atmsae_context *ctx = top->ctx;
    ams_free(ctx, top->count);
    ams_free(ctx, top->entry);
    ams_free(ctx, top);
    atmsae_context_destroy(ctx);
}

static bool better(const top_entry *a, const top_entry *b)
{
    return a->value != b->value ? a->value > b->value : a->row < b->row;
}

/* n_top is small and few entries get in once the list is full, so the list is an array in order. */
static void insert(atmsae_top_rows *top, uint64_t latent, const top_entry *e)
{
    top_entry *list = top->entry + latent * top->n_top;
    uint64_t n = top->count[latent], at = n;
    if (n == top->n_top && !better(e, &list[n - 1])) return;
    if (n < top->n_top) top->count[latent] = n + 1;
    else at = n - 1;
    for (; at > 0 && better(e, &list[at - 1]); at--)
        list[at] = list[at - 1];
    list[at] = *e;
}

static atmsae_status add(atmsae_top_rows *top, const atmsae_codes *codes, uint64_t first_row)
{
    const ams_sparse *v = &codes->main;
    if (codes->state == AMS_CODES_EMPTY)
        return ams_fail(top->ctx, ATMSAE_E_STATE, "top_rows: nothing was encoded into these codes yet");
    if (codes->d_sae != top->d_sae)
        return ams_fail(top->ctx, ATMSAE_E_ARG, "top_rows: codes of %llu latents, expected %llu",
                        (unsigned long long)codes->d_sae, (unsigned long long)top->d_sae);
    if (first_row > UINT64_MAX - codes->n)
        return ams_fail(top->ctx, ATMSAE_E_LIMIT, "top_rows: first_row = %llu with %llu rows overflows",
                        (unsigned long long)first_row, (unsigned long long)codes->n);
    for (uint64_t r = 0; r < codes->n; r++)
        for (uint64_t e = v->start[r]; e < v->start[r + 1]; e++)
            if (v->value[e] > 0) insert(top, v->latent[e], &(top_entry){.row = first_row + r, .value = v->value[e]});
    return ATMSAE_OK;
}

atmsae_status atmsae_top_rows_add(atmsae_top_rows *top, const atmsae_codes *codes, uint64_t first_row)
{
    AMS_NEED_BOTH("top_rows", top, "codes", codes);
    AMS_CALL(top->ctx, add(top, codes, first_row), AMS_CHANGES("top_rows", top), AMS_READS("codes", codes));
}

static atmsae_status merge(atmsae_top_rows *top, const atmsae_top_rows *from)
{
    if (top->d_sae != from->d_sae || top->n_top != from->n_top)
        return ams_fail(top->ctx, ATMSAE_E_ARG, "top_rows merge: %llu latents and %llu rows each, the other has %llu and %llu",
                        (unsigned long long)top->d_sae, (unsigned long long)top->n_top, (unsigned long long)from->d_sae,
                        (unsigned long long)from->n_top);
    for (uint64_t i = 0; i < top->d_sae; i++)
        for (uint64_t e = 0; e < from->count[i]; e++)
            insert(top, i, &from->entry[i * from->n_top + e]);
    return ATMSAE_OK;
}

atmsae_status atmsae_top_rows_merge(atmsae_top_rows *top, const atmsae_top_rows *from)
{
    AMS_NEED_BOTH("top_rows", top, "the other", from);
    if (from == top) return ams_fail(top->ctx, ATMSAE_E_ARG, "top_rows merge: the other is the same handle");
    AMS_CALL(top->ctx, merge(top, from), AMS_CHANGES("top_rows", top), AMS_READS("other top_rows", from));
}

static atmsae_status get(const atmsae_top_rows *top, uint64_t latent, uint64_t *rows, float *values, uint64_t *n)
{
    if (!n) return ams_fail(top->ctx, ATMSAE_E_ARG, "top_rows: n is NULL");
    if (latent >= top->d_sae)
        return ams_fail(top->ctx, ATMSAE_E_ARG, "top_rows: latent = %llu, expected 0 .. %llu",
                        (unsigned long long)latent, (unsigned long long)top->d_sae - 1);
    *n = top->count[latent];
    for (uint64_t e = 0; e < *n; e++) {
        if (rows) rows[e] = top->entry[latent * top->n_top + e].row;
        if (values) values[e] = top->entry[latent * top->n_top + e].value;
    }
    return ATMSAE_OK;
}

atmsae_status atmsae_top_rows_get(const atmsae_top_rows *top, uint64_t latent, uint64_t *rows, float *values, uint64_t *n)
{
    if (!top) return ATMSAE_E_ARG;
    AMS_CALL(top->ctx, get(top, latent, rows, values, n), AMS_READS("top_rows", top));
}
