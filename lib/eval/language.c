/* SPDX-License-Identifier: MIT
 *
 * What a language model loses when activations are replaced by an SAE's reconstruction. The caller runs
 * the language model; this file asks for three runs of each batch and compares them.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <atmsae/eval.h>
#include <math.h>
#include <string.h>

enum { COUNTS = 1, KEPT = 2 }; /* of a token: it has a cross-entropy; it keeps its activation */

typedef struct runs {
    atmsae_context *ctx;
    const atmsae_model *model;
    const atmsae_language_model *lm;
    atmsae_codes *codes;
    float *replacement, *ce, *log_p; /* [n, d_out]; of the original run: [n], [n, vocab] */
    uint64_t replacement_capacity, ce_capacity, log_p_capacity;
    uint64_t n, vocab, tokens, kl_tokens;
    double sums[3], kl[3];           /* original, reconstruction, zeros */
    uint8_t *flags; /* of the tokens of a batch: COUNTS, KEPT */
    uint64_t flags_capacity;
} runs;

static atmsae_status call(const runs *s, uint64_t batch, const float *replacement, atmsae_lm_output *out)
{
    *out = (atmsae_lm_output){.size = sizeof *out};
    int32_t code = s->lm->run(s->lm->opaque, batch, replacement, out);
    if (code != 0)
        return ams_fail(s->ctx, ATMSAE_E_CALLBACK, "language model: run returned %d for batch %llu", (int)code,
                        (unsigned long long)batch);
    if (out->n_tokens > 0 && (!out->ce || (!replacement && !out->activations) || (out->logits && out->vocab < 1)))
        return ams_fail(s->ctx, ATMSAE_E_ARG, "language model: batch %llu: ce, activations or vocab is missing",
                        (unsigned long long)batch);
    if (replacement && (out->n_tokens != s->n || (s->vocab && (!out->logits || out->vocab != s->vocab))))
        return ams_fail(s->ctx, ATMSAE_E_ARG, "language model: batch %llu: %llu tokens and %llu logits each, the first run "
                        "had %llu and %llu", (unsigned long long)batch, (unsigned long long)out->n_tokens,
                        (unsigned long long)(out->logits ? out->vocab : 0), (unsigned long long)s->n,
                        (unsigned long long)s->vocab);
    return ATMSAE_OK;
}

static double log_sum_exp(const float *z, uint64_t n)
{
    double most = (double)z[0], sum = 0;
    for (uint64_t i = 1; i < n; i++)
        most = fmax(most, (double)z[i]);
    for (uint64_t i = 0; i < n; i++)
        sum += ams_exp((double)z[i] - most);
    return most + ams_ln(fmax(sum, 1)); /* one term is exp(0) */
}

/* Keeps what later runs are compared with, and makes the reconstruction. */
static atmsae_status take_original(runs *s, const atmsae_lm_output *out)
{
    uint64_t d = s->model->d_out, logits = 0, values = 0;
    s->n = out->n_tokens;
    s->vocab = out->logits ? out->vocab : 0;
    if (!ams_mul(s->n, d, &values) || !ams_mul(s->n, s->vocab, &logits)) return ams_nomem(s->ctx, "language model");
    AMS_TRY(ams_grow(s->ctx, &s->replacement, &s->replacement_capacity, values, 0, sizeof *s->replacement));
    AMS_TRY(ams_grow(s->ctx, &s->ce, &s->ce_capacity, s->n, 0, sizeof *s->ce));
    AMS_TRY(ams_grow(s->ctx, &s->log_p, &s->log_p_capacity, logits, 0, sizeof *s->log_p));
    memcpy(s->ce, out->ce, s->n * sizeof *s->ce);
    for (uint64_t t = 0; t < s->n && s->vocab; t++) {
        const float *z = out->logits + t * s->vocab;
        double total = log_sum_exp(z, s->vocab);
        for (uint64_t v = 0; v < s->vocab; v++)
            s->log_p[t * s->vocab + v] = (float)((double)z[v] - total);
    }
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = s->n;
    batch.x = out->activations;
    AMS_TRY(atmsae_encode(s->model, &batch, s->codes));
    AMS_TRY(atmsae_decode(s->model, s->codes, s->replacement, 0));
    for (uint64_t t = 0; t < s->n && out->keep; t++)
        if (out->keep[t] && out->outputs) memcpy(s->replacement + t * d, out->outputs + t * d, d * sizeof(float));
        else if (out->keep[t]) memcpy(s->replacement + t * d, out->activations + t * d, d * sizeof(float));
    return ATMSAE_OK;
}

/* Adds KL(original || this run) over the tokens that count. */
static void add_kl(runs *s, const atmsae_lm_output *out, const uint8_t *flags, int which)
{
    for (uint64_t t = 0; t < s->n; t++) {
        if (!(flags[t] & COUNTS)) continue;
        const float *z = out->logits + t * s->vocab, *log_p = s->log_p + t * s->vocab;
        double total = log_sum_exp(z, s->vocab), kl = 0;
        for (uint64_t v = 0; v < s->vocab; v++)
            kl += ams_exp((double)log_p[v]) * ((double)log_p[v] - ((double)z[v] - total));
        s->kl[which] += kl;
    }
}

static atmsae_status one_batch(runs *s, uint64_t b)
{
    atmsae_lm_output out;
    AMS_TRY(call(s, b, NULL, &out));
    if (out.n_tokens == 0) return ATMSAE_OK;
    if (s->model->config.transcoder && out.keep && !out.outputs)
        return ams_fail(s->ctx, ATMSAE_E_ARG, "language model: keep needs outputs for a transcoder");
    const uint8_t *keep = out.keep;
    uint64_t d = s->model->d_out;
    AMS_TRY(take_original(s, &out));
    AMS_TRY(ams_grow(s->ctx, &s->flags, &s->flags_capacity, s->n, 0, 1));
    for (uint64_t t = 0; t < s->n; t++) {
        s->flags[t] = (uint8_t)((isnan(s->ce[t]) ? 0 : COUNTS) + (keep && keep[t] ? KEPT : 0));
        if (!(s->flags[t] & COUNTS)) continue;
        s->sums[0] += (double)s->ce[t];
        s->tokens++;
        s->kl_tokens += s->vocab > 0;
    }
    for (int which = 1; which < 3; which++) {
        if (which == 2)
            for (uint64_t t = 0; t < s->n; t++)
                if (!(s->flags[t] & KEPT)) memset(s->replacement + t * d, 0, d * sizeof(float));
        AMS_TRY(call(s, b, s->replacement, &out));
        for (uint64_t t = 0; t < s->n; t++)
            if (s->flags[t] & COUNTS) s->sums[which] += (double)out.ce[t];
        if (s->vocab) add_kl(s, &out, s->flags, which);
    }
    return ATMSAE_OK;
}

static double share(double whole, double part) { return whole == 0 ? (double)NAN : part / whole; }

/* Also where an exception of the callback leaves the call. */
static void free_runs(runs *s)
{
    atmsae_codes_destroy(s->codes);
    void *memory[] = {s->replacement, s->ce, s->log_p, s->flags};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(s->ctx, memory[i]);
}

static atmsae_status score(const atmsae_model *model, const atmsae_language_model *caller, atmsae_lm_result *result)
{
    atmsae_context *ctx = model->ctx;
    atmsae_language_model lm = {.size = sizeof lm};
    AMS_TRY(ams_struct_in(ctx, atmsae_language_model, &lm, caller));
    AMS_TRY(ams_struct_check(ctx, atmsae_lm_result, result));
    if (!lm.run) return ams_fail(ctx, ATMSAE_E_ARG, "language model: run is NULL");
    __attribute__((cleanup(free_runs))) runs s = {.ctx = ctx, .model = model, .lm = &lm};
    atmsae_status status = atmsae_codes_create(ctx, &s.codes);
    for (uint64_t b = 0; status == ATMSAE_OK && b < lm.n_batches; b++)
        status = one_batch(&s, b);
    if (status == ATMSAE_OK) {
        double n = (double)s.tokens;
        atmsae_lm_result r = {.size = sizeof r, .tokens = s.tokens};
        r.ce_original = s.sums[0] / n;
        r.ce_reconstruction = s.sums[1] / n;
        r.ce_zero = s.sums[2] / n;
        r.ce_score = share(s.sums[2] - s.sums[0], s.sums[2] - s.sums[1]);
        r.kl_reconstruction = s.kl_tokens ? s.kl[1] / (double)s.kl_tokens : (double)NAN;
        r.kl_zero = s.kl_tokens ? s.kl[2] / (double)s.kl_tokens : (double)NAN;
        r.kl_score = share(s.kl[2], s.kl[2] - s.kl[1]);
        status = ams_struct_out(ctx, atmsae_lm_result, result, &r);
    }
    return status;
}

atmsae_status atmsae_model_language(const atmsae_model *model, const atmsae_language_model *lm, atmsae_lm_result *result)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, score(model, lm, result), AMS_READS("model", model));
}
