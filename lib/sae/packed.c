/* SPDX-License-Identifier: MIT
 *
 * Packing for products with 16-bit inputs: once a search, for all tiles and threads.
 */
#include "sae/packed.h"

enum { ROWS_A_JOB = 8 * AMS_PANEL };

void ams_packed_free(atmsae_context *ctx, ams_packed *p)
{
    void *arrays[] = {p->x.values, p->x.scale, p->x.error, p->w.values, p->w.scale, p->w.error};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
}

static atmsae_status reserve(atmsae_context *ctx, ams_panels *p, uint64_t *values, uint64_t *scale, uint64_t *error,
                             uint64_t n, uint64_t d)
{
    AMS_TRY(ams_grow(ctx, &p->values, values, ams_panel_size(n, d), 0, sizeof *p->values));
    AMS_TRY(ams_grow(ctx, &p->scale, scale, ams_panel_rows(n), 0, sizeof *p->scale));
    return ams_grow(ctx, &p->error, error, n, 0, sizeof *p->error);
}

atmsae_status ams_packed_reserve(atmsae_context *ctx, ams_packed *p, uint64_t rows, uint64_t latents, uint64_t d)
{
    AMS_TRY(reserve(ctx, &p->x, &p->x_values, &p->x_scale, &p->x_error, rows, d));
    return reserve(ctx, &p->w, &p->w_values, &p->w_scale, &p->w_error_room, latents, d);
}

typedef struct pass {
    const ams_product *product;
    const ams_panels *out;
    const float *rows;
    const uint32_t *list;
    uint64_t n, d;
    bool right;
} pass;

static void pack_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t first = job * ROWS_A_JOB, count = ams_min(ROWS_A_JOB, a->n - first);
    const ams_panels out = ams_panels_from(a->out, first, a->d);
    (a->right ? ams_pack_b : ams_pack_a)(a->product, &out, a->list ? a->rows : a->rows + first * a->d, a->d,
                                         a->list ? a->list + first : NULL, count, a->d);
}

static void pack(atmsae_context *ctx, pass *a)
{
    ams_parallel(ctx, (a->n + ROWS_A_JOB - 1) / ROWS_A_JOB, pack_job, a);
}

void ams_packed_rows(atmsae_context *ctx, ams_packed *p, const ams_product *product, const float *x, uint64_t n, uint64_t d)
{
    pack(ctx, &(pass){product, &p->x, x, NULL, n, d, false});
    p->w_error = 0;
}

void ams_packed_latents(atmsae_context *ctx, ams_packed *p, const ams_product *product, const atmsae_model *m,
                        const uint32_t *list, uint64_t first, uint64_t count)
{
    const uint64_t d = m->d_in;
    pack(ctx, &(pass){product, &p->w, list ? m->w_enc : m->w_enc + first * d, list ? list + first : NULL, count, d, true});
    for (uint64_t i = 0; i < count; i++)
        if (!((double)p->w.error[i] <= p->w_error)) p->w_error = (double)p->w.error[i];
}
