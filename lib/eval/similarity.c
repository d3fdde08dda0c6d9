/* SPDX-License-Identifier: MIT
 *
 * Cosines between two sets of rows, tile by tile; and how near a model's latents lie to each other.
 */
#include "eval/similarity.h"
#include "sae/sae.h"

#include <atmsae/eval.h>
#include <math.h>

enum { TILE = 512, MOST_NEIGHBOURS = 256 };

void ams_unit_rows(const float *rows, uint64_t n, uint64_t d, float *out)
{
    for (uint64_t i = 0; i < n; i++) {
        double norm = ams_norm(rows + i * d, d);
        for (uint64_t j = 0; j < d; j++)
            out[i * d + j] = norm > 0 ? (float)((double)rows[i * d + j] / norm) : 0;
    }
}

typedef struct tiles {
    const float *a, *b;
    uint64_t n, m, d;
    float *product; /* [workers, TILE, TILE] */
    ams_tile *tile;
    void *arg;
} tiles;

static void one_block(void *arg, uint64_t block, unsigned worker)
{
    const tiles *t = arg;
    float *c = t->product + (uint64_t)worker * TILE * TILE;
    uint64_t i0 = block * TILE, n_i = ams_min(TILE, t->n - i0);
    for (uint64_t j0 = 0; j0 < t->m; j0 += TILE) {
        uint64_t n_j = ams_min(TILE, t->m - j0);
        ams_gemm_abt(n_i, n_j, t->d, t->a + i0 * t->d, t->d, t->b + j0 * t->d, t->d, c, TILE);
        t->tile(t->arg, i0, n_i, j0, n_j, c, TILE);
    }
}

atmsae_status ams_cosine_tiles(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                               ams_tile *tile, void *arg)
{
    tiles t = {a, b, n, m, d, ams_alloc(ctx, (uint64_t)ams_workers(ctx) * TILE * TILE, sizeof(float)), tile, arg};
    if (!t.product) return ams_nomem(ctx, "cosines");
    ams_parallel(ctx, (n + TILE - 1) / TILE, one_block, &t);
    ams_free(ctx, t.product);
    return ATMSAE_OK;
}

/* ---- nearest ----------------------------------------------------------------------------------------- */

typedef struct nearest {
    const float *a, *b;
    uint64_t d, n_best;
    bool absolute, self;
    const uint8_t *skip;
    float slack;     /* how far the tile's cosines may be from ams_dot's, twice */
    uint32_t *which; /* [n, n_best] */
    float *best;     /* [n, n_best] by ams_dot, |.| if absolute; largest first */
} nearest;

static void keep_best(void *arg, uint64_t i0, uint64_t n_i, uint64_t j0, uint64_t n_j, const float *cosine, uint64_t ld)
{
    const nearest *s = arg;
    for (uint64_t i = i0; i < i0 + n_i; i++) {
        float *best = s->best + i * s->n_best;
        uint32_t *which = s->which + i * s->n_best;
        for (uint64_t j = j0; j < j0 + n_j; j++) {
            uint64_t at = s->n_best - 1; /* the place to give away */
            float c = cosine[(i - i0) * ld + j - j0];
            if (s->absolute) c = fabsf(c);
            if (c < best[at] - s->slack || (s->self && j == i) || (s->skip && s->skip[j])) continue;
            c = ams_dot(s->a + i * s->d, s->b + j * s->d, s->d);
            if (s->absolute) c = fabsf(c);
            if (!(c > best[at])) continue;
            for (; at > 0 && c > best[at - 1]; at--) {
                best[at] = best[at - 1];
                which[at] = which[at - 1];
            }
            best[at] = c;
            which[at] = (uint32_t)j;
        }
    }
}

atmsae_status ams_nearest(atmsae_context *ctx, const float *a, uint64_t n, const float *b, uint64_t m, uint64_t d,
                          bool absolute, const uint8_t *skip, bool self, uint64_t n_best, uint32_t *which, float *cosine)
{
    nearest s = {a, b, d, n_best, absolute, self, skip, (float)d * 0x1p-22f, which, cosine};
    for (uint64_t i = 0; i < n * n_best; i++) {
        which[i] = UINT32_MAX;
        cosine[i] = -INFINITY;
    }
    AMS_TRY(ams_cosine_tiles(ctx, a, n, b, m, d, keep_best, &s));
    for (uint64_t i = 0; i < n * n_best; i++)
        if (which[i] == UINT32_MAX) cosine[i] = NAN;
    return ATMSAE_OK;
}

/* ---- nearest other latents ----------------------------------------------------------------------- */

/* The n_best nearest of each latent, [F, n_best]. */
static atmsae_status neighbours(const atmsae_model *model, int32_t parameter, uint64_t n_best, uint32_t *which, float *cosine)
{
    uint64_t f = model->d_sae, d = parameter == ATMSAE_W_ENC ? model->d_in : model->d_out;
    if (parameter != ATMSAE_W_ENC && parameter != ATMSAE_W_DEC)
        return ams_fail(model->ctx, ATMSAE_E_ARG, "similarity: parameter = %d, expected ATMSAE_W_ENC or ATMSAE_W_DEC",
                        (int)parameter);
    float *unit = ams_alloc(model->ctx, f * d, sizeof *unit);
    uint8_t *zero = ams_alloc(model->ctx, f, 1);
    atmsae_status status = unit && zero ? ATMSAE_OK : ams_nomem(model->ctx, "similarity");
    if (status == ATMSAE_OK) {
        ams_unit_rows(parameter == ATMSAE_W_ENC ? model->w_enc : model->w_dec, f, d, unit);
        for (uint64_t i = 0; i < f; i++)
            zero[i] = !(ams_norm(unit + i * d, d) > 0);
        status = ams_nearest(model->ctx, unit, f, unit, f, d, false, zero, true, n_best, which, cosine);
    }
    for (uint64_t e = 0; status == ATMSAE_OK && e < f * n_best; e++)
        if (zero[e / n_best]) {
            which[e] = UINT32_MAX;
            cosine[e] = NAN;
        }
    ams_free(model->ctx, unit);
    ams_free(model->ctx, zero);
    return status;
}

static atmsae_status public_neighbours(const atmsae_model *model, int32_t parameter, uint64_t n_best, uint32_t *latents,
                                       float *cosines)
{
    AMS_CHECK_ARRAY(model->ctx, "neighbours: latents", latents);
    AMS_CHECK_ARRAY(model->ctx, "neighbours: cosines", cosines);
    if (n_best < 1 || n_best > MOST_NEIGHBOURS)
        return ams_fail(model->ctx, ATMSAE_E_ARG, "neighbours: n = %llu, expected 1 .. %d",
                        (unsigned long long)n_best, MOST_NEIGHBOURS);
    return neighbours(model, parameter, n_best, latents, cosines);
}

atmsae_status atmsae_model_neighbours(const atmsae_model *model, int32_t parameter, uint64_t n, uint32_t *latents,
                                      float *cosines)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, public_neighbours(model, parameter, n, latents, cosines), AMS_READS("model", model));
}

static atmsae_status similarity(const atmsae_model *model, int32_t parameter, float *nearest_cosine, double *mean)
{
    uint64_t f = model->d_sae, n = 0;
    float *best = ams_alloc(model->ctx, f, sizeof *best);
    uint32_t *which = ams_alloc(model->ctx, f, sizeof *which);
    atmsae_status status = best && which ? neighbours(model, parameter, 1, which, best) : ams_nomem(model->ctx, "similarity");
    double sum = 0;
    for (uint64_t i = 0; status == ATMSAE_OK && i < f; i++) {
        if (nearest_cosine) nearest_cosine[i] = best[i];
        if (which[i] == UINT32_MAX) continue;
        sum += (double)best[i];
        n++;
    }
    if (status == ATMSAE_OK && mean) *mean = n ? sum / (double)n : (double)NAN;
    ams_free(model->ctx, best);
    ams_free(model->ctx, which);
    return status;
}

atmsae_status atmsae_model_similarity(const atmsae_model *model, int32_t parameter, float *nearest_cosine, double *mean)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, similarity(model, parameter, nearest_cosine, mean), AMS_READS("model", model));
}
