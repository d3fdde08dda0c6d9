/* SPDX-License-Identifier: MIT
 *
 * Saves chosen latents as a llama.cpp control vector: GGUF version 3, general.architecture
 * "controlvector", and one tensor direction.N, f32 [n_embd], which llama.cpp adds to the output of
 * block N (from 0; its loader refuses 0), multiplied by the strength it is given.
 */
#include "format/sae_formats.h"
#include "sae/sae.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { ALIGNMENT = 32, TYPE_F32 = 0, TYPE_UINT32 = 4, TYPE_STRING = 8, HEADER_ROOM = 1024, MAX_HINT = 256, MAX_LAYER = 1 << 16 };

typedef struct cursor {
    unsigned char bytes[HEADER_ROOM];
    uint64_t length;
} cursor;

static void put(cursor *c, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < n; i++)
        c->bytes[c->length++] = (unsigned char)(value >> 8 * i & 255);
}

static void put_text(cursor *c, const char *text)
{
    size_t n = strlen(text);
    put(c, 8, n);
    memcpy(c->bytes + c->length, text, n);
    c->length += n;
}

static void put_pair(cursor *c, const char *key, const char *text)
{
    put_text(c, key);
    put(c, 4, TYPE_STRING);
    put_text(c, text);
}

static void make_header(cursor *c, const char *hint, uint64_t layer, uint64_t d)
{
    char name[32];
    ams_format(name, sizeof name, "direction.%llu", (unsigned long long)layer);
    memcpy(c->bytes, "GGUF", 4);
    c->length = 4;
    put(c, 4, 3); /* version */
    put(c, 8, 1); /* tensors */
    put(c, 8, 3); /* pairs */
    put_pair(c, "general.architecture", "controlvector");
    put_pair(c, "controlvector.model_hint", hint);
    put_text(c, "controlvector.layer_count");
    put(c, 4, TYPE_UINT32);
    put(c, 4, 1);
    put_text(c, name);
    put(c, 4, 1); /* dimensions */
    put(c, 8, d);
    put(c, 4, TYPE_F32);
    put(c, 8, 0); /* where its data begin */
    while (c->length % ALIGNMENT != 0)
        put(c, 1, 0);
}

/* sum of strength_i W_dec_i in the units of the rows; `sum`: room for it in double precision. */
static atmsae_status make_direction(const atmsae_model *model, const atmsae_save_options *o, double *sum, float *direction)
{
    atmsae_context *ctx = model->ctx;
    double most = 0;
    const float t = *atmsae_model_view(model, ATMSAE_OUTPUT_SCALE, NULL);
    for (uint64_t n = 0; n < o->n_latents; n++) {
        if (o->latents[n] >= model->d_sae)
            return ams_fail(ctx, ATMSAE_E_ARG, "model_save: latents[%llu] = %u, allowed: 0 to d_sae - 1 = %llu", (unsigned long long)n,
                            (unsigned)o->latents[n], (unsigned long long)model->d_sae - 1);
        float strength = o->strengths ? o->strengths[n] : 1;
        if (!isfinite(strength))
            return ams_fail(ctx, ATMSAE_E_ARG, "model_save: strengths[%llu] = %g, allowed: finite", (unsigned long long)n, (double)strength);
        const float *row = model->w_dec + o->latents[n] * model->d_out;
        for (uint64_t j = 0; j < model->d_out; j++)
            sum[j] += (double)strength * (double)row[j] / (double)t;
    }
    for (uint64_t j = 0; j < model->d_out; j++) {
        direction[j] = (float)sum[j];
        most = isfinite(sum[j]) ? fmax(most, fabs(sum[j])) : (double)INFINITY;
    }
    if (most == 0 || (most >= (double)FLT_MIN && most <= (double)FLT_MAX)) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "model_save: the largest value of the direction would be %g; single precision holds %g to %g. "
                    "Choose other strengths", most, (double)FLT_MIN, (double)FLT_MAX);
}

static atmsae_status check(const atmsae_model *model, const atmsae_save_options *o, const char *hint)
{
    if (o->n_latents == 0 || !o->latents)
        return ams_fail(model->ctx, ATMSAE_E_ARG, "model_save: gguf takes chosen latents: latents and n_latents are not set");
    if (o->layer < 1 || o->layer > MAX_LAYER)
        return ams_fail(model->ctx, ATMSAE_E_ARG, "model_save: layer = %u, allowed: 1 to %d (llama.cpp cannot steer the output of block 0)",
                        (unsigned)o->layer, MAX_LAYER);
    if (strlen(hint) > MAX_HINT)
        return ams_fail(model->ctx, ATMSAE_E_ARG, "model_save: model_name of %zu bytes, at most %d are written to a gguf", strlen(hint), MAX_HINT);
    return ATMSAE_OK;
}

atmsae_status ams_write_gguf(const atmsae_model *model, const char *path, const atmsae_save_options *o)
{
    atmsae_context *ctx = model->ctx;
    const char *hint = o->model_name ? o->model_name : "";
    AMS_TRY(check(model, o, hint));
    float *direction = ams_alloc(ctx, model->d_out, sizeof *direction);
    double *sum = ams_calloc(ctx, model->d_out, sizeof *sum);
    cursor *header = ams_alloc(ctx, 1, sizeof *header);
    atmsae_status status = direction && sum && header ? make_direction(model, o, sum, direction) : ams_nomem(ctx, path);
    if (status < 0) goto end;
    static const char zeros[ALIGNMENT] = {0};
    uint64_t bytes = model->d_out * sizeof *direction, pad = (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
    make_header(header, hint, o->layer, model->d_out);
    ams_writer writer;
    status = ams_writer_begin(&writer, ctx, path, false);
    if (status < 0) goto end;
    ams_writer_reserve(&writer, header->length + bytes + pad);
    ams_writer_append(&writer, header->bytes, header->length);
    ams_writer_append(&writer, direction, bytes);
    ams_writer_append(&writer, zeros, pad);
    status = ams_writer_commit(&writer);
end:
    ams_free(ctx, direction);
    ams_free(ctx, sum);
    ams_free(ctx, header);
    return status;
}
