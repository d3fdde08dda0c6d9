/* SPDX-License-Identifier: MIT
 *
 * How alike two dictionaries are: an optimal one-to-one match of their rows by cosine. Between seeds it is
 * PW-MCC, against true features MCC.
 */
#include "eval/match.h"
#include "eval/assignment.h"
#include "eval/similarity.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>

#define SHARED 0.7

typedef struct fill {
    float *cost;   /* [n, m] - cos, or - |cos| */
    uint64_t m;
    bool absolute;
} fill;

static void fill_tile(void *arg, uint64_t i0, uint64_t n_i, uint64_t j0, uint64_t n_j, const float *cosine, uint64_t ld)
{
    const fill *f = arg;
    for (uint64_t i = 0; i < n_i; i++)
        for (uint64_t j = 0; j < n_j; j++) {
            float c = cosine[i * ld + j];
            f->cost[(i0 + i) * f->m + j0 + j] = f->absolute ? -fabsf(c) : -c;
        }
}

atmsae_status ams_match(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                        bool absolute, uint32_t *partner, atmsae_match_result *result)
{
    bool swap = n > m; /* the assignment wants the fewer as rows */
    const float *few = swap ? b : a, *many = swap ? a : b;
    uint64_t rows = swap ? m : n, columns = swap ? n : m, pairs = 0, size_a = 0, size_b = 0;
    if (!ams_mul(rows, columns, &pairs) || !ams_mul(rows, d, &size_a) || !ams_mul(columns, d, &size_b))
        return ams_nomem(ctx, "a match of latents");
    float *unit_few = ams_alloc(ctx, size_a, sizeof *unit_few), *unit_many = ams_alloc(ctx, size_b, sizeof *unit_many);
    fill f = {ams_alloc(ctx, pairs, sizeof(float)), columns, absolute};
    uint32_t *column = ams_alloc(ctx, rows, sizeof *column);
    atmsae_status status = unit_few && unit_many && f.cost && column ? ATMSAE_OK : ams_nomem(ctx, "a match of latents");
    if (status == ATMSAE_OK) {
        ams_unit_rows(few, rows, d, unit_few);
        ams_unit_rows(many, columns, d, unit_many);
        status = ams_cosine_tiles(ctx, unit_few, rows, unit_many, columns, d, fill_tile, &f);
    }
    if (status == ATMSAE_OK) status = ams_assignment(ctx, rows, columns, f.cost, column);
    if (status == ATMSAE_OK) {
        double sum = 0;
        uint64_t shared = 0;
        for (uint64_t i = 0; i < n && partner; i++)
            partner[i] = UINT32_MAX;
        for (uint64_t i = 0; i < rows; i++) {
            double c = (double)ams_dot(unit_few + i * d, unit_many + column[i] * d, d);
            if (absolute) c = fabs(c);
            sum += c;
            shared += c > SHARED;
            if (partner) partner[swap ? column[i] : i] = swap ? (uint32_t)i : column[i];
        }
        result->pairs = rows;
        result->mcc = sum / (double)rows;
        result->shared = (double)shared / (double)rows;
    }
    void *memory[] = {unit_few, unit_many, f.cost, column};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    return status;
}

static atmsae_status match(const atmsae_model *a, const atmsae_model *b, int32_t parameter, int32_t absolute,
                           uint32_t *partner, atmsae_match_result *out)
{
    atmsae_match_result result = {.size = sizeof result};
    bool encoder = parameter == ATMSAE_W_ENC;
    uint64_t d = encoder ? a->d_in : a->d_out, d_b = encoder ? b->d_in : b->d_out;
    if ((!encoder && parameter != ATMSAE_W_DEC) || absolute < 0 || absolute > 1)
        return ams_fail(a->ctx, ATMSAE_E_ARG, "match: parameter = %d, absolute = %d, expected ATMSAE_W_ENC or "
                        "ATMSAE_W_DEC, and 0 or 1", (int)parameter, (int)absolute);
    if (d != d_b)
        return ams_fail(a->ctx, ATMSAE_E_ARG, "match: rows of %llu and of %llu numbers", (unsigned long long)d,
                        (unsigned long long)d_b);
    AMS_TRY(ams_struct_check(a->ctx, atmsae_match_result, out));
    AMS_TRY(ams_match(a->ctx, encoder ? a->w_enc : a->w_dec, a->d_sae, encoder ? b->w_enc : b->w_dec, b->d_sae, d,
                      absolute == 1, partner, &result));
    return ams_struct_out(a->ctx, atmsae_match_result, out, &result);
}

atmsae_status atmsae_model_match(const atmsae_model *a, const atmsae_model *b, int32_t parameter, int32_t absolute,
                                 uint32_t *partner, atmsae_match_result *result)
{
    AMS_NEED_BOTH("model", a, "the other model", b);
    AMS_CALL(a->ctx, match(a, b, parameter, absolute, partner, result), AMS_READS("model", a), AMS_READS("other model", b));
}
