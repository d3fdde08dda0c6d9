/* SPDX-License-Identifier: MIT
 *
 * A model's latents on a set of rows, by row and by latent, in the units of the data.
 */
#include "eval/latents.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1024 };

static void measure_norms(ams_latents *l, const float *w_dec, uint64_t d)
{
    for (uint64_t i = 0; i < l->d_sae; i++) {
        double squares = 0;
        for (uint64_t j = 0; j < d; j++)
            squares += (double)w_dec[i * d + j] * (double)w_dec[i * d + j];
        l->norm[i] = sqrt(squares);
    }
}

static atmsae_status encode_rows(atmsae_context *ctx, const atmsae_model *model, const float *x, atmsae_codes *codes,
                                 ams_latents *l)
{
    double scale = (double)*atmsae_model_view(model, ATMSAE_OUTPUT_SCALE, &(uint64_t){0});
    uint64_t total = 0;
    l->row_start[0] = 0;
    for (uint64_t r = 0; r < l->n_rows; r += CHUNK) {
        atmsae_batch batch;
        atmsae_codes_view view = {.size = sizeof view};
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = ams_min(CHUNK, l->n_rows - r);
        batch.x = x + r * model->d_in;
        AMS_TRY(atmsae_encode(model, &batch, codes));
        AMS_TRY(atmsae_codes_get(codes, &view));
        uint64_t more = view.row_start[batch.n_rows];
        AMS_TRY(ams_grow(ctx, &l->latent, &l->capacity, total + more + 1, total, sizeof *l->latent));
        AMS_TRY(ams_grow(ctx, &l->value, &l->value_capacity, total + more + 1, total, sizeof *l->value));
        for (uint64_t e = 0; e < more; e++) {
            l->latent[total + e] = view.latent[e];
            l->value[total + e] = (float)((double)view.value[e] * l->norm[view.latent[e]] / scale);
        }
        for (uint64_t q = 1; q <= batch.n_rows; q++)
            l->row_start[r + q] = total + view.row_start[q];
        total += more;
    }
    return ATMSAE_OK;
}

atmsae_status ams_latents_transpose(atmsae_context *ctx, uint64_t first, ams_latents *l)
{
    uint64_t total = l->row_start[l->n_rows];
    l->column_start = ams_calloc(ctx, l->d_sae, sizeof *l->column_start);
    l->first_count = ams_calloc(ctx, l->d_sae, sizeof *l->first_count);
    l->column_count = ams_calloc(ctx, l->d_sae, sizeof *l->column_count);
    l->row = ams_alloc(ctx, total, sizeof *l->row);
    l->column_value = ams_alloc(ctx, total, sizeof *l->column_value);
    if (!l->column_start || !l->first_count || !l->column_count || !l->row || !l->column_value)
        return ams_nomem(ctx, "latents by column");
    for (uint64_t e = 0; e < total; e++)
        l->column_count[l->latent[e]]++;
    for (uint64_t i = 0, at = 0; i < l->d_sae; at += l->column_count[i++])
        l->column_start[i] = at;
    memset(l->column_count, 0, l->d_sae * sizeof *l->column_count); /* counts again, as the cursor */
    for (uint64_t r = 0; r < l->n_rows; r++)
        for (uint64_t e = l->row_start[r]; e < l->row_start[r + 1]; e++) {
            uint64_t to = l->column_start[l->latent[e]] + l->column_count[l->latent[e]]++;
            l->row[to] = (uint32_t)r;
            l->column_value[to] = l->value[e];
        }
    for (uint64_t e = 0; e < l->row_start[first]; e++)
        l->first_count[l->latent[e]]++; // NOLINT(clang-analyzer-core.NullDereference): entries exist, so latent does
    return ATMSAE_OK;
}

atmsae_status ams_latents_encode(atmsae_context *ctx, const atmsae_model *model, const float *x, uint64_t n,
                                 ams_latents *out)
{
    ams_latents l = {.n_rows = n, .d_sae = model->d_sae};
    atmsae_codes *codes = NULL;
    atmsae_status status = atmsae_codes_create(ctx, &codes);
    if (status < 0) goto fail;
    l.norm = ams_alloc(ctx, l.d_sae, sizeof *l.norm);
    l.row_start = ams_alloc(ctx, n + 1, sizeof *l.row_start);
    if (!l.norm || !l.row_start) {
        status = ams_nomem(ctx, "latents");
        goto fail;
    }
    measure_norms(&l, atmsae_model_view(model, ATMSAE_W_DEC, &(uint64_t){0}), model->d_out);
    status = encode_rows(ctx, model, x, codes, &l);
    if (status < 0) goto fail;
    atmsae_codes_destroy(codes);
    *out = l;
    return ATMSAE_OK;
fail:
    atmsae_codes_destroy(codes);
    ams_latents_free(ctx, &l);
    return status;
}

void ams_latents_free(atmsae_context *ctx, ams_latents *l)
{
    void *memory[] = {l->norm, l->row_start, l->latent, l->value, l->column_start,
                      l->first_count, l->column_count, l->row, l->column_value};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
}
