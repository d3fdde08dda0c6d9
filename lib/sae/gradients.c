/* SPDX-License-Identifier: MIT
 *
 * The gradients handle: memory, access, and the per-latent sums of a step.
 */
#include "sae/sae.h"

#include <string.h>

static atmsae_status create(const atmsae_model *m, atmsae_gradients **out)
{
    atmsae_context *ctx = m->ctx;
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "gradients_create: out is NULL");
    atmsae_gradients *g = ams_calloc(ctx, 1, sizeof *g);
    if (!g) return ams_nomem(ctx, "gradients");
    g->ctx = ams_context_ref(ctx);
    g->d_in = m->d_in;
    g->d_out = m->d_out;
    g->d_sae = m->d_sae;
    bool complete = true;
    for (unsigned p = 0; p < m->n_params; p++) {
        g->n_params++;
        g->params[p].id = m->params[p].id;
        g->params[p].count = m->params[p].rows * m->params[p].cols;
        g->params[p].value = ams_alloc(ctx, g->params[p].count, sizeof(float));
        complete = complete && g->params[p].value;
    }
    g->slot = ams_calloc(ctx, g->d_sae, sizeof *g->slot);
    g->masked = ams_calloc(ctx, g->d_sae, sizeof *g->masked);
    g->sums = ams_calloc(ctx, 4 * g->d_sae, sizeof *g->sums);
    g->pre_sum = ams_calloc(ctx, g->d_sae, sizeof *g->pre_sum);
    g->norms = ams_calloc(ctx, g->d_sae + 1, sizeof *g->norms);
    if (!complete || !ams_backward_memory(g) || !g->slot || !g->masked || !g->sums || !g->pre_sum || !g->norms) {
        atmsae_gradients_destroy(g);
        return ams_nomem(ctx, "gradients");
    }
    *out = g;
    return ATMSAE_OK;
}

atmsae_status atmsae_gradients_create(const atmsae_model *m, atmsae_gradients **out)
{
    if (out) *out = NULL;
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, create(m, out), AMS_READS("model", m));
}

void atmsae_gradients_destroy(atmsae_gradients *g)
{
    if (!g) return;
    atmsae_context *ctx = g->ctx;
    for (unsigned p = 0; p < g->n_params; p++)
        ams_free(ctx, g->params[p].value);
    void *arrays[] = {g->slot, g->masked, g->sums, g->pre_sum, g->norms, g->latents, g->row, g->pieces};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ams_free(ctx, arrays[i]);
    ams_free(ctx, g);
    atmsae_context_destroy(ctx);
}

float *ams_gradient(const atmsae_gradients *g, int32_t id)
{
    for (unsigned p = 0; p < g->n_params; p++)
        if (g->params[p].id == id) return g->params[p].value;
    return NULL;
}

static atmsae_status get(const atmsae_gradients *g, int32_t parameter, float *out, uint64_t count)
{
    if (g->state != AMS_GRADIENTS_READY)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "gradients_get: there was no backward since the last optimizer_step");
    for (unsigned p = 0; p < g->n_params; p++) {
        if (g->params[p].id != parameter) continue;
        AMS_CHECK_ARRAY(g->ctx, "gradients_get: out", out);
        if (count != g->params[p].count)
            return ams_fail(g->ctx, ATMSAE_E_ARG, "gradients_get: parameter %d has %llu values, got room for %llu",
                            parameter, (unsigned long long)g->params[p].count, (unsigned long long)count);
        uint64_t cols = parameter == ATMSAE_W_ENC ? g->d_in : parameter == ATMSAE_W_DEC ? g->d_out : 0;
        if (!cols) memcpy(out, g->params[p].value, (size_t)count * sizeof *out);
        for (uint64_t i = 0; cols && i < g->d_sae; i++)
            if (g->slot[i] == AMS_NO_SLOT)
                memset(out + i * cols, 0, (size_t)cols * sizeof *out);
            else
                memcpy(out + i * cols, g->params[p].value + g->slot[i] * cols, (size_t)cols * sizeof *out);
        return ATMSAE_OK;
    }
    return ams_fail(g->ctx, ATMSAE_E_ARG, "gradients_get: this model trains no parameter %d", parameter);
}

atmsae_status atmsae_gradients_get(const atmsae_gradients *g, int32_t parameter, float *out, uint64_t count)
{
    if (!g) return ATMSAE_E_ARG;
    AMS_CALL(g->ctx, get(g, parameter, out, count), AMS_READS("gradients", g));
}

static atmsae_status get_sums(const atmsae_gradients *g, atmsae_latent_sums *sums)
{
    if (g->state == AMS_GRADIENTS_NONE)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "gradients_sums: no backward was run yet");
    uint64_t F = g->d_sae;
    const atmsae_latent_sums local = {sizeof local, F, g->sums, g->sums + F, g->sums + 2 * F, g->sums + 3 * F};
    return ams_struct_out(g->ctx, atmsae_latent_sums, sums, &local);
}

atmsae_status atmsae_gradients_sums(const atmsae_gradients *g, atmsae_latent_sums *sums)
{
    if (!g) return ATMSAE_E_ARG;
    AMS_CALL(g->ctx, get_sums(g, sums), AMS_READS("gradients", g));
}
