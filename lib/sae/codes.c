/* SPDX-License-Identifier: MIT
 *
 * The codes handle: memory for a batch's sparse latents, and its rows in the library's own form.
 */
#include "sae/sae.h"

#include <float.h>
#include <math.h>
#include <string.h>

static atmsae_status create(atmsae_context *ctx, atmsae_codes **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "codes_create: out is NULL");
    atmsae_codes *codes = ams_calloc(ctx, 1, sizeof *codes);
    if (!codes) return ams_nomem(ctx, "codes");
    codes->ctx = ams_context_ref(ctx);
    atmsae_status status = ams_search_create(ctx, &codes->search);
    if (status < 0) {
        atmsae_codes_destroy(codes);
        return status;
    }
    *out = codes;
    return ATMSAE_OK;
}

atmsae_status atmsae_codes_create(atmsae_context *ctx, atmsae_codes **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, out));
}

void atmsae_codes_destroy(atmsae_codes *codes)
{
    if (!codes) return;
    atmsae_context *ctx = codes->ctx;
    ams_search_destroy(codes->search);
    ams_sparse_free(ctx, &codes->main);
    ams_sparse_free(ctx, &codes->aux);
    ams_index_free(ctx, &codes->by_latent);
    ams_index_free(ctx, &codes->aux_by_latent);
    void *arrays[] = {codes->pre, codes->x, codes->residual, codes->gate_residual, codes->hidden, codes->teacher,
                      codes->gate_teacher, codes->weights, codes->masked, codes->row_p, codes->list, codes->aux_list,
                      codes->aux_residual, codes->gather, codes->position,
                      codes->x_sum, codes->columns, codes->row_sums, codes->low};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
    ams_free(ctx, codes);
    atmsae_context_destroy(ctx);
}

void ams_sparse_free(atmsae_context *ctx, ams_sparse *sparse)
{
    ams_free(ctx, sparse->start);
    ams_free(ctx, sparse->latent);
    ams_free(ctx, sparse->value);
}

atmsae_status ams_sparse_reserve(atmsae_context *ctx, ams_sparse *sparse, uint64_t n, uint64_t entries)
{
    AMS_TRY(ams_grow(ctx, &sparse->start, &sparse->start_capacity, n + 1, 0, sizeof *sparse->start));
    AMS_TRY(ams_grow(ctx, &sparse->latent, &sparse->latent_capacity, entries, 0, sizeof *sparse->latent));
    return ams_grow(ctx, &sparse->value, &sparse->value_capacity, entries, 0, sizeof *sparse->value);
}

static atmsae_status get(const atmsae_codes *codes, atmsae_codes_view *view)
{
    if (codes->state == AMS_CODES_EMPTY)
        return ams_fail(codes->ctx, ATMSAE_E_STATE, "codes_get: nothing was encoded into these codes yet");
    const atmsae_codes_view local = {sizeof local, codes->n, codes->d_sae, codes->main.start, codes->main.latent,
                                     codes->main.value};
    return ams_struct_out(codes->ctx, atmsae_codes_view, view, &local);
}

atmsae_status atmsae_codes_get(const atmsae_codes *codes, atmsae_codes_view *view)
{
    if (!codes) return ATMSAE_E_ARG;
    AMS_CALL(codes->ctx, get(codes, view), AMS_READS("codes", codes));
}

/* ---- rows in ------------------------------------------------------------------------------------ */

typedef struct load {
    atmsae_codes *codes;
    const atmsae_model *model;
    const atmsae_batch *batch;
    uint8_t *bad; /* [jobs] */
} load;

enum { ROWS_A_JOB = 32 };

enum { ROW_GOOD, ROW_NONFINITE, ROW_OVERFLOWS };

/* Would a pre-activation overflow? The bound on all of them nearly always says no. */
static bool overflows(const atmsae_model *m, const float *x)
{
    if (1.01 * ams_norm(x, m->d_in) * (double)m->enc_norm_max + (double)m->b_enc_max < (double)FLT_MAX) return false;
    for (uint64_t i = 0; i < m->d_sae; i++)
        if (!isfinite(ams_dot(m->w_enc + i * m->d_in, x, m->d_in) + m->b_enc[i])) return true;
    return false;
}

static int load_row(const load *a, uint64_t r)
{
    const atmsae_model *m = a->model;
    const atmsae_batch *b = a->batch;
    float *x = a->codes->x + r * m->d_in;
    if (b->row_weights && b->row_weights[r] == 0) { /* whatever it holds */
        memset(x, 0, (size_t)m->d_in * sizeof *x);
        return ROW_GOOD;
    }
    ams_to_f32(x, (const char *)b->x + r * b->ld_x * ams_type_size(b->x_type), b->x_type, m->d_in);
    if (!ams_all_finite(x, m->d_in)) return ROW_NONFINITE;
    if (m->config.uncentred)
        for (uint64_t j = 0; j < m->d_in; j++)
            x[j] *= m->input_scale;
    else
        for (uint64_t j = 0; j < m->d_in; j++)
            x[j] = x[j] * m->input_scale - m->b_dec[j];
    return overflows(m, x) ? ROW_OVERFLOWS : ROW_GOOD;
}

static void load_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const load *a = arg;
    uint64_t last = ams_min((job + 1) * ROWS_A_JOB, a->batch->n_rows);
    for (uint64_t r = job * ROWS_A_JOB; r < last; r++)
        if (load_row(a, r) != ROW_GOOD) a->bad[job] = 1;
}

atmsae_status ams_codes_load_rows(atmsae_codes *codes, const atmsae_model *model, const atmsae_batch *batch)
{
    uint64_t n = batch->n_rows, count;
    if (!ams_mul(n, model->d_in, &count)) return ams_fail(codes->ctx, ATMSAE_E_LIMIT, "n_rows * d_in overflows");
    codes->state = AMS_CODES_EMPTY;
    AMS_TRY(ams_grow(codes->ctx, &codes->x, &codes->x_capacity, count, 0, sizeof *codes->x));
    uint64_t jobs = (n + ROWS_A_JOB - 1) / ROWS_A_JOB;
    AMS_TRY(ams_grow(codes->ctx, &codes->row_sums, &codes->row_sums_capacity, n * AMS_ROW_SUMS, 0, sizeof *codes->row_sums));
    load a = {codes, model, batch, (uint8_t *)codes->row_sums}; /* free until the losses need it */
    memset(a.bad, 0, (size_t)jobs);
    ams_parallel(codes->ctx, jobs, load_job, &a);
    for (uint64_t job = 0; job < jobs; job++) {
        if (!a.bad[job]) continue;
        uint64_t r = job * ROWS_A_JOB;
        int found;
        while ((found = load_row(&a, r)) == ROW_GOOD)
            r++;
        return ams_fail(codes->ctx, ATMSAE_E_NONFINITE, "batch: x: row %llu %s", (unsigned long long)r,
                        found == ROW_NONFINITE ? "has a NaN or infinite value" : "is so large that pre-activations overflow");
    }
    codes->n = n;
    codes->d_in = model->d_in;
    codes->d_out = model->d_out;
    codes->d_sae = model->d_sae;
    codes->activation = model->config.activation;
    return ATMSAE_OK;
}
