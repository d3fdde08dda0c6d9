/* SPDX-License-Identifier: MIT
 *
 * Packing for products in bf16: once a search, for all tiles and threads.
 */
#include "sae/packed.h"

enum { ROWS_A_JOB = 8 * AMS_BF16_PANEL };

void ams_packed_free(atmsae_context *ctx, ams_packed *p)
{
    void *arrays[] = {p->x, p->w, p->x_error, p->w_errors};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
}

atmsae_status ams_packed_reserve(atmsae_context *ctx, ams_packed *p, const atmsae_model *m, uint64_t n)
{
    AMS_TRY(ams_grow(ctx, &p->x, &p->x_capacity, ams_bf16_size(n, m->d_in), 0, sizeof *p->x));
    AMS_TRY(ams_grow(ctx, &p->w, &p->w_capacity, ams_bf16_size(m->d_sae, m->d_in), 0, sizeof *p->w));
    AMS_TRY(ams_grow(ctx, &p->x_error, &p->x_error_capacity, n, 0, sizeof *p->x_error));
    return ams_grow(ctx, &p->w_errors, &p->w_errors_capacity, m->d_sae, 0, sizeof *p->w_errors);
}

typedef struct pass {
    ams_packed *p;
    const atmsae_model *m;
    const ams_query *q;
    uint64_t latents;
} pass;

static void x_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t d = a->m->d_in, first = job * ROWS_A_JOB, count = ams_min(ROWS_A_JOB, a->q->n - first);
    ams_bf16_pack_a(a->p->x + first * ams_bf16_depth(d), a->q->x + first * d, d, NULL, count, d, a->p->x_error + first);
}

static void w_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t d = a->m->d_in, first = job * ROWS_A_JOB, count = ams_min(ROWS_A_JOB, a->latents - first);
    const uint32_t *list = a->q->list;
    ams_bf16_pack_b(a->p->w + first * ams_bf16_depth(d), a->m->w_enc + (list ? 0 : first * d), d, list ? list + first : NULL,
                    count, d, a->p->w_errors + first);
}

void ams_packed_fill(atmsae_context *ctx, ams_packed *p, const atmsae_model *m, const ams_query *q, uint64_t latents)
{
    pass a = {p, m, q, latents};
    ams_parallel(ctx, (q->n + ROWS_A_JOB - 1) / ROWS_A_JOB, x_job, &a);
    ams_parallel(ctx, (latents + ROWS_A_JOB - 1) / ROWS_A_JOB, w_job, &a);
    p->w_error = 0;
    for (uint64_t i = 0; i < latents; i++)
        if ((double)p->w_errors[i] > p->w_error) p->w_error = (double)p->w_errors[i];
}
