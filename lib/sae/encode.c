/* SPDX-License-Identifier: MIT
 *
 * Inference: encode and decode.
 */
#include "base/elementary.h"
#include "kernels/rows.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

/* GATED keeps the gate's value beside f; a_i is recovered as z_i - b_enc_i. */
static float gated_magnitude(const atmsae_model *m, uint64_t i, float z)
{
    float f = (float)ams_exp((double)m->r_mag[i]) * (z - m->b_enc[i]) + m->b_mag[i];
    return f > 0 ? f : 0;
}

typedef struct activate {
    const atmsae_model *m;
    atmsae_codes *codes;
} activate;

static void activate_job(void *arg, uint64_t row, unsigned worker)
{
    (void)worker;
    const activate *a = arg;
    const atmsae_model *m = a->m;
    ams_sparse *s = &a->codes->main;
    bool gated = m->config.activation == ATMSAE_GATED;
    for (uint64_t p = s->start[row]; p < s->start[row + 1]; p++) {
        uint64_t i = s->latent[p];
        float z = s->value[p];
        if (gated) a->codes->pre[p] = z;
        s->value[p] = gated ? gated_magnitude(m, i, z) : z > m->threshold[i] ? z : 0;
    }
}

void ams_activate(const atmsae_model *m, atmsae_codes *codes)
{
    activate a = {m, codes};
    ams_parallel(codes->ctx, codes->main.n, activate_job, &a);
}

/* After encode only latents that fire are left. */
static void drop_zeros(ams_sparse *s)
{
    uint64_t kept = 0, p = 0;
    for (uint64_t r = 0; r < s->n; r++) {
        uint64_t last = s->start[r + 1];
        s->start[r] = kept;
        for (; p < last; p++)
            if (s->value[p] > 0) {
                s->latent[kept] = s->latent[p];
                s->value[kept++] = s->value[p];
            }
    }
    s->start[s->n] = kept;
}

atmsae_status ams_encode(const atmsae_model *m, const atmsae_batch *caller, atmsae_codes *codes)
{
    atmsae_context *ctx = codes->ctx;
    atmsae_batch given, b;
    atmsae_batch_init(&given, sizeof given);
    AMS_TRY(ams_struct_in(ctx, atmsae_batch, &given, caller));
    given.row_weights = NULL;
    AMS_TRY(ams_batch_check(ctx, m, &given, false, &b));
    if (m->config.activation == ATMSAE_BATCHTOPK && isnan(m->batch_threshold))
        return ams_fail(ctx, ATMSAE_E_STATE, "encode: BATCHTOPK has no inference threshold yet; calibrate the model");
    AMS_TRY(ams_codes_load_rows(codes, m, &b));
    ams_query q = {.kind = AMS_ABOVE, .x = codes->x, .n = codes->n};
    if (m->config.activation == ATMSAE_TOPK) {
        q.kind = AMS_ROW_TOPK;
        q.k = (uint64_t)m->config.k;
    } else if (m->config.activation == ATMSAE_BATCHTOPK) {
        q.limit = m->batch_threshold;
    } else if (m->threshold) {
        q.low = m->threshold;
    }
    AMS_TRY(ams_search_run(codes->search, m, &q, &codes->main));
    if (m->config.activation == ATMSAE_GATED) {
        AMS_TRY(ams_grow(ctx, &codes->pre, &codes->pre_capacity, codes->main.start[codes->n], 0, sizeof *codes->pre));
        ams_activate(m, codes);
        for (uint64_t p = 0; p < codes->main.start[codes->n]; p++)
            if (!isfinite(codes->main.value[p]))
                return ams_fail(ctx, ATMSAE_E_NONFINITE, "encode: latent %u overflows: its r_mag is %g", codes->main.latent[p],
                                (double)m->r_mag[codes->main.latent[p]]);
        drop_zeros(&codes->main);
    }
    codes->state = AMS_CODES_ENCODED;
    return ATMSAE_OK;
}

atmsae_status atmsae_encode(const atmsae_model *m, const atmsae_batch *caller, atmsae_codes *codes)
{
    AMS_NEED_BOTH("model", m, "codes", codes);
    AMS_CALL(codes->ctx, ams_encode(m, caller, codes), AMS_READS("model", m), AMS_CHANGES("codes", codes));
}

typedef struct decode {
    const atmsae_model *m;
    const ams_sparse *codes;
    float *out;
    uint64_t ld;
} decode;

static void decode_job(void *arg, uint64_t row, unsigned worker)
{
    (void)worker;
    const decode *a = arg;
    const atmsae_model *m = a->m;
    float *out = a->out + row * a->ld;
    memcpy(out, m->b_dec, (size_t)m->d_out * sizeof *out);
    for (uint64_t p = a->codes->start[row]; p < a->codes->start[row + 1]; p++)
        ams_axpy(out, a->codes->value[p], m->w_dec + a->codes->latent[p] * m->d_out, m->d_out);
    for (uint64_t j = 0; j < m->d_out; j++)
        out[j] /= m->output_scale;
}

static atmsae_status decode_rows(const atmsae_model *m, const atmsae_codes *codes, float *out, uint64_t ld)
{
    if (codes->state == AMS_CODES_EMPTY || codes->d_sae != m->d_sae)
        return ams_fail(m->ctx, ATMSAE_E_STATE, "decode: these codes hold nothing of this model");
    ams_rows rows = {"decode: out", out, codes->n, m->d_out, ld, ATMSAE_F32};
    AMS_TRY(ams_rows_check(m->ctx, &rows));
    decode a = {m, &codes->main, out, rows.ld};
    ams_parallel(m->ctx, codes->n, decode_job, &a);
    return ATMSAE_OK;
}

atmsae_status atmsae_decode(const atmsae_model *m, const atmsae_codes *codes, float *out, uint64_t ld)
{
    AMS_NEED_BOTH("model", m, "codes", codes);
    AMS_CALL(m->ctx, decode_rows(m, codes, out, ld), AMS_READS("model", m), AMS_READS("codes", codes));
}
