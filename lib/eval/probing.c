/* SPDX-License-Identifier: MIT
 *
 * k-sparse probing: the data, and the features that the probes read: means over a text's rows of x
 * or of a model's latents. probing_fit.c has the probes.
 */
#include "eval/probing.h"
#include "eval/latents.h"
#include "kernels/rows.h"
#include "sae/sae.h"

#include <string.h>

void atmsae_probing_config_init(atmsae_probing_config *config, size_t size)
{
    static const uint64_t ks[] = {1, 2, 5};
    static const atmsae_probing_config defaults = {
        .ks = ks, .n_ks = sizeof ks / sizeof *ks, .protocol = ATMSAE_PROBING_SAEBENCH, .c = 1};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check_config(atmsae_context *ctx, const atmsae_probing_config *c)
{
    if (c->n_tasks < 1 || c->n_tasks > 1000000)
        return ams_fail(ctx, ATMSAE_E_ARG, "probing: n_tasks = %llu, expected 1 to 1000000", (unsigned long long)c->n_tasks);
    if (c->n_ks > AMS_MAX_KS || (c->n_ks > 0 && !c->ks))
        return ams_fail(ctx, ATMSAE_E_ARG, "probing: n_ks = %llu, expected at most %d, with ks", (unsigned long long)c->n_ks,
                        AMS_MAX_KS);
    for (uint64_t i = 0; i < c->n_ks; i++)
        if (c->ks[i] < 1 || c->ks[i] > AMS_MAX_K)
            return ams_fail(ctx, ATMSAE_E_ARG, "probing: ks[%llu] = %llu, expected 1 to %d", (unsigned long long)i,
                            (unsigned long long)c->ks[i], AMS_MAX_K);
    if (c->protocol != ATMSAE_PROBING_SAEBENCH && c->protocol != ATMSAE_PROBING_SAE_PROBES)
        return ams_fail(ctx, ATMSAE_E_ARG, "probing: protocol = %d, expected ATMSAE_PROBING_SAEBENCH or _SAE_PROBES",
                        (int)c->protocol);
    if (!(c->c > 0 && c->c <= 1e12))
        return ams_fail(ctx, ATMSAE_E_ARG, "probing: c = %g, expected 0 < c <= 1e12", c->c);
    return ATMSAE_OK;
}

/* Copies the rows that count, and notes where each text begins. */
static atmsae_status copy_rows(atmsae_probing *p, const ams_rows *x, const float *weights, const uint64_t *texts)
{
    uint64_t at = 0, seen = 0;
    for (uint64_t r = 0; r < x->n; r++) {
        uint64_t text = texts ? texts[r] : r;
        for (; seen <= text; seen++)
            p->text_start[seen] = at;
        if (weights && weights[r] == 0) continue;
        AMS_TRY(ams_rows_read(p->ctx, x, r, p->x + at++ * p->d));
    }
    p->text_start[p->n_texts] = p->n_rows = at;
    return ATMSAE_OK;
}

static atmsae_status count_texts(atmsae_probing *p, const ams_rows *x, const uint64_t *texts)
{
    p->n_texts = x->n;
    if (!texts) return ATMSAE_OK;
    p->n_texts = 0;
    for (uint64_t r = 0; r < x->n; r++) {
        if (texts[r] > p->n_texts || texts[r] + 1 < p->n_texts)
            return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: texts[%llu] = %llu, expected %llu or the one before",
                            (unsigned long long)r, (unsigned long long)texts[r], (unsigned long long)p->n_texts);
        p->n_texts = ams_max(p->n_texts, texts[r] + 1);
    }
    return ATMSAE_OK;
}

static atmsae_status copy_labels(atmsae_probing *p, const int8_t *labels, const uint8_t *is_train)
{
    uint64_t n_tasks = p->config.n_tasks;
    memcpy(p->label, labels, p->n_texts * n_tasks);
    memcpy(p->is_train, is_train, p->n_texts);
    for (uint64_t i = 0; i < p->n_texts * n_tasks; i++)
        if (labels[i] < -1 || labels[i] > 1)
            return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: label of text %llu, task %llu = %d, expected 1, 0 or -1",
                            (unsigned long long)(i / n_tasks), (unsigned long long)(i % n_tasks), (int)labels[i]);
    for (uint64_t t = 0; t < p->n_texts; t++)
        if (is_train[t] > 1)
            return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: is_train[%llu] = %d, expected 0 or 1", (unsigned long long)t,
                            (int)is_train[t]);
    for (uint64_t k = 0; k < n_tasks; k++) {
        uint64_t of[2][2] = {{0}};
        for (uint64_t t = 0; t < p->n_texts; t++)
            if (labels[t * n_tasks + k] >= 0) of[is_train[t]][labels[t * n_tasks + k]]++;
        if (!of[1][0] || !of[1][1] || of[0][0] + of[0][1] == 0)
            return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: task %llu: %llu positive and %llu negative training texts and "
                            "%llu test texts, expected some of each", (unsigned long long)k, (unsigned long long)of[1][1],
                            (unsigned long long)of[1][0], (unsigned long long)(of[0][0] + of[0][1]));
    }
    return ATMSAE_OK;
}

static atmsae_status fill(atmsae_probing *p, const atmsae_batch *batch, const uint64_t *texts, const int8_t *labels,
                          const uint8_t *is_train)
{
    ams_rows x = {"batch: x", batch->x, batch->n_rows, p->d, batch->ld_x, batch->x_type};
    uint64_t size = 0, n_labels = 0;
    AMS_TRY(ams_rows_check(p->ctx, &x));
    AMS_TRY(ams_row_weights_check(p->ctx, batch->row_weights, x.n));
    AMS_TRY(count_texts(p, &x, texts));
    if (!ams_mul(x.n, p->d, &size) || !ams_mul(p->n_texts, p->config.n_tasks, &n_labels)) return ams_nomem(p->ctx, "probing");
    p->x = ams_alloc(p->ctx, size, sizeof *p->x);
    p->text_start = ams_alloc(p->ctx, p->n_texts + 1, sizeof *p->text_start);
    p->label = ams_alloc(p->ctx, n_labels, sizeof *p->label);
    p->is_train = ams_alloc(p->ctx, p->n_texts, sizeof *p->is_train);
    if (!p->x || !p->text_start || !p->label || !p->is_train) return ams_nomem(p->ctx, "probing");
    AMS_TRY(copy_labels(p, labels, is_train));
    return copy_rows(p, &x, batch->row_weights, texts);
}

static atmsae_status create(atmsae_context *ctx, const atmsae_probing_config *caller, const atmsae_batch *caller_batch,
                            uint64_t d, const int8_t *labels, const uint8_t *is_train, atmsae_probing **out)
{
    if (!out || !labels || !is_train) return ams_fail(ctx, ATMSAE_E_ARG, "probing: out, labels or is_train is NULL");
    if (d < 1 || d > (1 << 24))
        return ams_fail(ctx, ATMSAE_E_ARG, "probing: d = %llu, expected 1 to 2^24", (unsigned long long)d);
    atmsae_probing_config config;
    atmsae_batch batch;
    atmsae_probing_config_init(&config, sizeof config);
    atmsae_batch_init(&batch, sizeof batch);
    AMS_TRY(ams_struct_in(ctx, atmsae_probing_config, &config, caller));
    AMS_TRY(ams_struct_in(ctx, atmsae_batch, &batch, caller_batch));
    AMS_TRY(check_config(ctx, &config));

    atmsae_probing *p = ams_calloc(ctx, 1, sizeof *p);
    if (!p) return ams_nomem(ctx, "probing");
    p->ctx = ams_context_ref(ctx);
    p->config = config;
    p->d = d;
    for (uint64_t i = 0; i < config.n_ks; i++)
        p->ks[i] = config.ks[i];
    p->config.ks = p->ks;
    p->config.texts = NULL;
    atmsae_status status = fill(p, &batch, config.texts, labels, is_train);
    if (status < 0) {
        atmsae_probing_destroy(p);
        return status;
    }
    *out = p;
    return ATMSAE_OK;
}

atmsae_status atmsae_probing_create(atmsae_context *ctx, const atmsae_probing_config *caller,
                                    const atmsae_batch *caller_batch, uint64_t d, const int8_t *labels,
                                    const uint8_t *is_train, atmsae_probing **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, caller_batch, d, labels, is_train, out));
}

void atmsae_probing_destroy(atmsae_probing *p)
{
    if (!p) return;
    atmsae_context *ctx = p->ctx;
    void *memory[] = {p->x, p->text_start, p->label, p->is_train, p};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
    atmsae_context_destroy(ctx);
}

/* ---- features ---------------------------------------------------------------------------------- */

static atmsae_status baseline(const atmsae_probing *p, atmsae_probing_entry *entries)
{
    if (!entries) return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: entries is NULL");
    uint64_t size = 0;
    float *mean = ams_mul(p->n_texts, p->d, &size) ? ams_alloc(p->ctx, size, sizeof *mean) : NULL;
    double *sum = ams_alloc(p->ctx, p->d, sizeof *sum);
    atmsae_status status = mean && sum ? ATMSAE_OK : ams_nomem(p->ctx, "probing");
    for (uint64_t t = 0; status == ATMSAE_OK && t < p->n_texts; t++) {
        uint64_t first = p->text_start[t], n = p->text_start[t + 1] - first;
        memset(sum, 0, p->d * sizeof *sum);
        for (uint64_t i = first; i < first + n; i++)
            for (uint64_t j = 0; j < p->d; j++)
                sum[j] += (double)p->x[i * p->d + j];
        for (uint64_t j = 0; j < p->d; j++)
            mean[t * p->d + j] = n ? (float)(sum[j] / (double)n) : 0;
    }
    if (status == ATMSAE_OK) status = ams_probe(p, &(ams_features){.width = p->d, .value = mean}, entries);
    ams_free(p->ctx, mean);
    ams_free(p->ctx, sum);
    return status;
}

atmsae_status atmsae_probing_baseline(const atmsae_probing *p, atmsae_probing_entry *entries)
{
    if (!p) return ATMSAE_E_ARG;
    AMS_CALL(p->ctx, baseline(p, entries));
}

/* Replaces the latents of rows by their means over texts, in place: a text has at most as many entries
 * as its rows. sum and seen [F] are working memory, seen all 0. Columns ascend within a text. */
static void pool(const atmsae_probing *p, ams_latents *l, double *sum, uint8_t *seen, uint64_t *start)
{
    uint64_t to = 0;
    for (uint64_t t = 0; t < p->n_texts; t++) {
        uint64_t first = l->row_start[p->text_start[t]], end = l->row_start[p->text_start[t + 1]];
        double n = (double)(p->text_start[t + 1] - p->text_start[t]);
        for (uint64_t e = first; e < end; e++) {
            if (!seen[l->latent[e]]) sum[l->latent[e]] = 0;
            seen[l->latent[e]] = 1;
            sum[l->latent[e]] += (double)l->value[e];
        }
        start[t] = to;
        for (uint64_t e = first; e < end; e++) {
            uint32_t i = l->latent[e];
            if (!seen[i]) continue;
            seen[i] = 0;
            l->latent[to] = i;
            l->value[to++] = (float)(sum[i] / n);
        }
    }
    start[p->n_texts] = to;
}

static atmsae_status score(const atmsae_probing *p, const atmsae_model *model, atmsae_probing_entry *entries)
{
    if (!entries) return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: entries is NULL");
    if (model->d_in != p->d)
        return ams_fail(p->ctx, ATMSAE_E_ARG, "probing: the model has d_in = %llu, expected d = %llu",
                        (unsigned long long)model->d_in, (unsigned long long)p->d);
    ams_latents l = {0};
    AMS_TRY(ams_latents_encode(p->ctx, model, p->x, p->n_rows, &l));
    double *sum = ams_alloc(p->ctx, model->d_sae, sizeof *sum);
    uint8_t *seen = ams_calloc(p->ctx, model->d_sae, sizeof *seen);
    uint64_t *start = ams_alloc(p->ctx, p->n_texts + 1, sizeof *start);
    atmsae_status status = ATMSAE_E_NOMEM;
    if (sum && seen && start) {
        pool(p, &l, sum, seen, start);
        ams_features f = {.width = model->d_sae, .value = l.value, .row_start = start, .column = l.latent};
        status = ams_probe(p, &f, entries);
    } else {
        status = ams_nomem(p->ctx, "probing");
    }
    ams_latents_free(p->ctx, &l);
    void *memory[] = {sum, seen, start};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(p->ctx, memory[i]);
    return status;
}

atmsae_status atmsae_probing_score(const atmsae_probing *p, const atmsae_model *model, atmsae_probing_entry *entries)
{
    AMS_NEED_BOTH("probing", p, "model", model);
    AMS_CALL(p->ctx, score(p, model, entries), AMS_READS("model", model));
}
