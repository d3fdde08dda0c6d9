/* SPDX-License-Identifier: MIT
 *
 * Hedging (Chanin, Dulka & Garriga-Alonso 2025): how far the first latents of an SAE moved into the
 * directions of latents that were added to it and trained along, beyond what random directions take up.
 */
#include "sae/sae.h"

#include <atmsae/eval.h>
#include <math.h>
#include <string.h>

enum { RANDOM_SUBSPACES = 50 };

typedef struct hedge {
    const atmsae_model *control, *extended;
    uint64_t h, m, d, rank;
    double *basis;     /* [m, d] orthonormal rows, `rank` of them */
    double *projected; /* [h] */
} hedge;

static double dot(const double *a, const double *b, uint64_t n)
{
    double sum = 0;
    for (uint64_t j = 0; j < n; j++)
        sum += a[j] * b[j];
    return sum;
}

/* Gram-Schmidt, twice over for the digits; rows that depend on earlier ones drop out. */
static void orthonormalise(hedge *s)
{
    s->rank = 0;
    for (uint64_t i = 0; i < s->m; i++) {
        double *row = s->basis + s->rank * s->d, before = 0;
        memmove(row, s->basis + i * s->d, s->d * sizeof *row);
        before = sqrt(dot(row, row, s->d));
        for (int pass = 0; pass < 2; pass++)
            for (uint64_t k = 0; k < s->rank; k++) {
                double along = dot(row, s->basis + k * s->d, s->d);
                for (uint64_t j = 0; j < s->d; j++)
                    row[j] -= along * s->basis[k * s->d + j];
            }
        double norm = sqrt(dot(row, row, s->d));
        if (!(norm > 1e-10 * before)) continue;
        for (uint64_t j = 0; j < s->d; j++)
            row[j] /= norm;
        s->rank++;
    }
}

static void project(void *arg, uint64_t i, unsigned worker)
{
    hedge *s = arg;
    const float *now = s->extended->w_dec + i * s->d, *before = s->control->w_dec + i * s->d;
    double squares = 0;
    (void)worker;
    for (uint64_t k = 0; k < s->rank; k++) {
        double along = 0;
        for (uint64_t j = 0; j < s->d; j++)
            along += s->basis[k * s->d + j] * ((double)now[j] - (double)before[j]);
        squares += along * along;
    }
    s->projected[i] = sqrt(squares);
}

/* Mean length of the moves within the subspace. */
static double moved(hedge *s)
{
    double sum = 0;
    orthonormalise(s);
    ams_parallel(s->control->ctx, s->h, project, s);
    for (uint64_t i = 0; i < s->h; i++)
        sum += s->projected[i];
    return sum / (double)s->h;
}

static void random_rows(hedge *s, uint64_t seed, uint64_t subspace)
{
    for (uint64_t i = 0; i < s->m * s->d; i += 2) {
        uint32_t words[4];
        double two[2];
        ams_philox(seed, AMS_DRAW_EVAL, subspace, i / 2, words);
        ams_normal2(words, two);
        s->basis[i] = two[0];
        if (i + 1 < s->m * s->d) s->basis[i + 1] = two[1];
    }
}

static atmsae_status hedging(const atmsae_model *control, const atmsae_model *extended, uint64_t seed,
                             atmsae_hedging_result *out)
{
    atmsae_context *ctx = control->ctx;
    hedge s = {.control = control, .extended = extended, .h = control->d_sae, .d = control->d_out};
    AMS_TRY(ams_struct_check(ctx, atmsae_hedging_result, out));
    if (extended->d_out != s.d || extended->d_sae <= s.h)
        return ams_fail(ctx, ATMSAE_E_ARG, "hedging: d_out = %llu and %llu latents, then %llu and %llu; expected more latents "
                        "of the same width", (unsigned long long)s.d, (unsigned long long)s.h,
                        (unsigned long long)extended->d_out, (unsigned long long)extended->d_sae);
    s.m = extended->d_sae - s.h;
    if (s.m >= s.d)
        return ams_fail(ctx, ATMSAE_E_ARG, "hedging: %llu latents were added, expected fewer than d_out = %llu",
                        (unsigned long long)s.m, (unsigned long long)s.d);
    s.basis = ams_alloc(ctx, s.m * s.d, sizeof *s.basis);
    s.projected = ams_alloc(ctx, s.h, sizeof *s.projected);
    atmsae_status status = s.basis && s.projected ? ATMSAE_OK : ams_nomem(ctx, "hedging");
    if (status == ATMSAE_OK) {
        double size = 0;
        atmsae_hedging_result r = {.size = sizeof r};
        for (uint64_t i = 0; i < s.h; i++)
            size += ams_norm(control->w_dec + i * s.d, s.d) / (double)s.h;
        for (uint64_t i = 0; i < s.m * s.d; i++)
            s.basis[i] = (double)extended->w_dec[s.h * s.d + i];
        r.projection = moved(&s) / size;
        for (uint64_t q = 0; q < RANDOM_SUBSPACES; q++) {
            random_rows(&s, seed, q);
            r.random_projection += moved(&s) / size / RANDOM_SUBSPACES;
        }
        r.score = fmax(0, (r.projection - r.random_projection) / (1 - r.random_projection));
        status = ams_struct_out(ctx, atmsae_hedging_result, out, &r);
    }
    ams_free(ctx, s.basis);
    ams_free(ctx, s.projected);
    return status;
}

atmsae_status atmsae_model_hedging(const atmsae_model *control, const atmsae_model *extended, uint64_t seed,
                                   atmsae_hedging_result *result)
{
    AMS_NEED_BOTH("the control model", control, "the extended model", extended);
    AMS_CALL(control->ctx, hedging(control, extended, seed, result), AMS_READS("model", control),
             AMS_READS("extended model", extended));
}
