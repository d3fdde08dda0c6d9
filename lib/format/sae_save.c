/* SPDX-License-Identifier: MIT
 *
 * Saves a model as a SAELens v6 folder: cfg.json and sae_weights.safetensors, with exactly the
 * tensors that SAELens's loader demands. Its W_enc is [d_in, F], ours [F, d_in]; its models see
 * raw rows, ours scaled ones:
 *     x~ = s x - b_dec = s (x - b_dec / s), so W_enc' = s W_enc, W_dec' = W_dec / t, b_dec' = b_dec / t,
 * with t = s for an autoencoder. Pre-activations, and so thresholds and biases of latents, stay.
 */
#include "format/json.h"
#include "format/sae_folder.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const ams_architecture ams_architectures[AMS_ARCHITECTURES] = {
    {"standard", ATMSAE_RELU, false},  {"topk", ATMSAE_TOPK, false},
    {"jumprelu", ATMSAE_JUMPRELU, false}, {"gated", ATMSAE_GATED, false},
    {"transcoder", ATMSAE_RELU, true}, {"jumprelu_transcoder", ATMSAE_JUMPRELU, true},
};

#define ALL (~0u)
#define GATED (1u << ATMSAE_GATED)
const ams_folder_tensor ams_folder_tensors[AMS_FOLDER_TENSORS] = {
    {"W_enc", ATMSAE_W_ENC, ALL},     {"W_dec", ATMSAE_W_DEC, ALL},     {"b_dec", ATMSAE_B_DEC, ALL},
    {"b_enc", ATMSAE_B_ENC, ~GATED},  {"b_gate", ATMSAE_B_ENC, GATED},  {"r_mag", ATMSAE_R_MAG, GATED},
    {"b_mag", ATMSAE_B_MAG, GATED},   {"threshold", ATMSAE_THRESHOLD, 1u << ATMSAE_JUMPRELU},
};

char *ams_path_join(atmsae_context *ctx, const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = ams_alloc(ctx, size, 1);
    if (path) ams_format(path, size, "%s/%s", dir, name);
    else (void)ams_nomem(ctx, dir);
    return path;
}

void atmsae_save_options_init(atmsae_save_options *options, size_t size)
{
    static const atmsae_save_options defaults = {0};
    ams_struct_init(options, size, &defaults, sizeof defaults);
}

/* ---- weights ------------------------------------------------------------------------------------ */

/* What a fill function works on: [rows, cols] values of the model and a factor. */
typedef struct matrix {
    const float *values;
    uint64_t rows, cols;
    float factor;
} matrix;

static void fill_transposed(const void *arg, uint64_t first, uint64_t n, void *out_bytes)
{
    enum { TILE = 16 }; /* floats in a cache line, both ways */
    const matrix *m = arg;
    float *out = out_bytes;
    for (uint64_t i0 = 0; i0 < m->rows; i0 += TILE)
        for (uint64_t j = 0; j < n; j++)
            for (uint64_t i = i0; i < ams_min(i0 + TILE, m->rows); i++)
                out[j * m->rows + i] = m->values[i * m->cols + first + j] * m->factor;
}

static void fill_divided(const void *arg, uint64_t first, uint64_t n, void *out_bytes)
{
    const matrix *m = arg;
    const float *in = m->values + first * m->cols;
    float *out = out_bytes;
    for (uint64_t j = 0; j < n * m->cols; j++)
        out[j] = in[j] / m->factor;
}

static void fill_constant(const void *arg, uint64_t first, uint64_t n, void *out_bytes)
{
    (void)first;
    float *out = out_bytes;
    for (uint64_t j = 0; j < n; j++)
        out[j] = ((const matrix *)arg)->factor;
}

/* How the model is written: under another architecture and with the batch threshold spread out. */
typedef struct plan {
    const atmsae_model *model;
    atmsae_model_config config;
    int32_t activation; /* of the file */
    const ams_architecture *architecture;
    float s, t, threshold; /* threshold: BATCHTOPK's */
} plan;

static float scalar(const atmsae_model *model, int32_t parameter)
{
    const float *value = atmsae_model_view(model, parameter, NULL);
    return value ? *value : 1;
}

static atmsae_status make_plan(plan *p, const atmsae_model *model)
{
    atmsae_context *ctx = model->ctx;
    *p = (plan){.model = model, .config = {.size = sizeof p->config}};
    AMS_TRY(atmsae_model_get_config(model, &p->config));
    int32_t a = p->config.activation;
    p->activation = a == ATMSAE_BATCHTOPK || a == ATMSAE_JUMPRELU_TANH ? ATMSAE_JUMPRELU : a;
    p->s = scalar(model, ATMSAE_INPUT_SCALE);
    p->t = scalar(model, ATMSAE_OUTPUT_SCALE);
    p->threshold = scalar(model, ATMSAE_BATCH_THRESHOLD);
    if (a == ATMSAE_BATCHTOPK && isnan(p->threshold))
        return ams_fail(ctx, ATMSAE_E_STATE, "model_save: BATCHTOPK has no threshold yet; train it or call atmsae_model_calibrate");
    bool transcoder = p->config.transcoder;
    if (!transcoder && p->s != p->t)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "model_save: input scale %g and output scale %g of an autoencoder differ",
                        (double)p->s, (double)p->t);
    /* Without a transcoder form of its own, one of equal widths is an SAE that does not centre. */
    for (int pass = 0; pass < 2 && !p->architecture; pass++)
        for (int i = 0; i < AMS_ARCHITECTURES && !p->architecture; i++)
            if (ams_architectures[i].activation == p->activation &&
                ams_architectures[i].transcoder == (transcoder && pass == 0) &&
                (pass == 0 || p->config.d_in == p->config.d_out))
                p->architecture = &ams_architectures[i];
    if (!p->architecture)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "model_save: SAELens has no TOPK or GATED transcoder with d_out = %llu, d_in = %llu",
                        (unsigned long long)p->config.d_out, (unsigned long long)p->config.d_in);
    return ATMSAE_OK;
}

static atmsae_status stage_weights(const plan *p, const char *path, ams_writer *writer)
{
    atmsae_context *ctx = p->model->ctx;
    const atmsae_model_config *c = &p->config;
    ams_tensor_out out[AMS_FOLDER_TENSORS] = {{0}};
    matrix sources[AMS_FOLDER_TENSORS] = {{0}};
    uint64_t n = 0, count;
    for (int i = 0; i < AMS_FOLDER_TENSORS; i++) {
        const ams_folder_tensor *tensor = &ams_folder_tensors[i];
        if (!(tensor->activations >> p->activation & 1)) continue;
        const float *values = atmsae_model_view(p->model, tensor->parameter, &count);
        if (values && !ams_all_finite(values, count))
            return ams_fail(ctx, ATMSAE_E_NONFINITE, "model_save: %s has values that are not finite", tensor->name);
        ams_tensor_out *o = &out[n];
        matrix *m = &sources[n++];
        *o = (ams_tensor_out){.name = tensor->name, .dtype = "F32", .rank = 1, .shape = {c->d_sae}, .data = values, .arg = m};
        *m = (matrix){values, c->d_sae, 1, p->t};
        switch (tensor->parameter) {
        case ATMSAE_W_ENC:
            o->rank = 2, o->shape[0] = c->d_in, o->shape[1] = c->d_sae;
            o->data = NULL, o->fill = fill_transposed;
            m->cols = c->d_in, m->factor = p->s;
            break;
        case ATMSAE_W_DEC:
            o->rank = 2, o->shape[1] = m->cols = c->d_out;
            o->data = NULL, o->fill = fill_divided;
            break;
        case ATMSAE_B_DEC:
            o->shape[0] = c->d_out;
            o->data = NULL, o->fill = fill_divided;
            break;
        case ATMSAE_THRESHOLD:
            o->fill = fill_constant;
            m->factor = p->threshold;
            break;
        }
    }
    const ams_metadata_out mark = {AMS_FOLDER_MARK, AMS_FOLDER_MARK_TEXT};
    return ams_safetensors_stage(ctx, path, out, n, &mark, 1, false, true, writer);
}

/* ---- cfg.json ----------------------------------------------------------------------------------- */

static void pair(ams_text *text, const char *indent, const char *key, const char *string)
{
    if (!string) return;
    ams_text_add(text, indent);
    ams_text_string(text, key);
    ams_text_add(text, ": ");
    ams_text_string(text, string);
}

static void pair_u64(ams_text *text, const char *key, uint64_t value)
{
    ams_text_add(text, ",\n  ");
    ams_text_string(text, key);
    ams_text_add(text, ": ");
    ams_text_u64(text, value);
}

static void compose_config(const plan *p, const atmsae_save_options *options, uint64_t weights_crc, ams_text *text)
{
    static const char *const trained_as[] = {
        [ATMSAE_RELU] = "standard", [ATMSAE_TOPK] = "topk", [ATMSAE_BATCHTOPK] = "batchtopk",
        [ATMSAE_JUMPRELU] = "jumprelu", [ATMSAE_JUMPRELU_TANH] = "jumprelu", [ATMSAE_GATED] = "gated",
    };
    const atmsae_model_config *c = &p->config;
    char trained[48], crc[20];
    ams_format(crc, sizeof crc, "%016llx", (unsigned long long)weights_crc);
    ams_format(trained, sizeof trained, "%s%s", c->n_prefixes ? "matryoshka_" : "", trained_as[c->activation]);
    pair(text, "{\n  ", "architecture", p->architecture->name);
    pair_u64(text, "d_in", c->d_in);
    pair_u64(text, "d_sae", c->d_sae);
    if (p->architecture->transcoder) pair_u64(text, "d_out", c->d_out);
    if (p->activation == ATMSAE_TOPK) {
        pair_u64(text, "k", (uint64_t)c->k);
        ams_text_add(text, ",\n  \"rescale_acts_by_decoder_norm\": false");
    }
    pair(text, ",\n  ", "dtype", "float32");
    pair(text, ",\n  ", "device", "cpu");
    ams_text_add(text, ",\n  \"apply_b_dec_to_input\": ");
    ams_text_add(text, c->transcoder ? "false" : "true");
    pair(text, ",\n  ", "normalize_activations", "none");
    pair(text, ",\n  ", "reshape_activations", "none");
    /* The version decides how SAELens reads the rest, so it is one of SAELens's; ours has its own key. */
    pair(text, ",\n  \"metadata\": {\n    ", "sae_lens_version", "6.0.0");
    pair(text, ",\n    ", "libatmsae_version", atmsae_version_string());
    pair(text, ",\n    ", AMS_FOLDER_CRC, crc);
    pair(text, ",\n    ", "training_architecture", trained);
    pair(text, ",\n    ", "model_name", options->model_name);
    pair(text, ",\n    ", "hook_name", options->hook_name);
    ams_text_add(text, "\n  }\n}\n");
}

/* ---- the folder --------------------------------------------------------------------------------- */

/* Makes the new folder's name outlast a power cut, as far as that can be asked for. */
static void sync_parent(atmsae_context *ctx, const char *dir)
{
    char *parent = ams_path_join(ctx, dir, "..");
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    ams_free(ctx, parent);
}

static atmsae_status save(const atmsae_model *model, const char *dir, const atmsae_save_options *caller)
{
    atmsae_context *ctx = model->ctx;
    if (!dir) return ams_fail(ctx, ATMSAE_E_ARG, "model_save: dir is NULL");
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    if (caller) AMS_TRY(ams_struct_in(ctx, "atmsae_save_options", &options, sizeof options, sizeof options, caller));
    plan p;
    AMS_TRY(make_plan(&p, model));

    bool made = false;
    ams_text config = {.ctx = ctx};
    ams_writer weights, writer;
    char *config_path = ams_path_join(ctx, dir, "cfg.json");
    char *weights_path = ams_path_join(ctx, dir, "sae_weights.safetensors");
    atmsae_status status = config_path && weights_path ? ATMSAE_OK : ATMSAE_E_NOMEM;
    if (status < 0) goto end;
    compose_config(&p, &options, 0, &config); /* are the caller's strings UTF-8? */
    status = config.status;
    if (status < 0) goto end;
    made = mkdir(dir, 0777) == 0;
    if (!made && errno != EEXIST) {
        status = ams_fail_errno(ctx, dir, "cannot make the folder", errno);
        goto end;
    }
    /* Both files are on the disk before either takes its place. cfg.json is last, so a new folder that
     * has one is complete; an old cfg.json does not have the CRC of the new weights. */
    status = stage_weights(&p, weights_path, &weights);
    if (status < 0) goto end;
    config.length = 0;
    compose_config(&p, &options, weights.crc, &config);
    status = config.status;
    if (status == ATMSAE_OK) status = ams_writer_begin(&writer, ctx, config_path, config.length, false);
    if (status < 0) {
        ams_writer_abandon(&weights);
        goto end;
    }
    ams_writer_append(&writer, config.data, config.length);
    status = ams_writer_sync(&writer);
    if (status < 0)
        ams_writer_abandon(&weights);
    else
        status = ams_writer_commit(&weights);
    if (status < 0) {
        ams_writer_abandon(&writer);
        goto end;
    }
    status = ams_writer_commit(&writer);
    if (made) sync_parent(ctx, dir);
end:
    if (status < 0 && made) (void)rmdir(dir);
    ams_free(ctx, config.data);
    ams_free(ctx, config_path);
    ams_free(ctx, weights_path);
    return status;
}

atmsae_status atmsae_model_save(const atmsae_model *model, const char *dir, const atmsae_save_options *caller)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, save(model, dir, caller), AMS_READS("model", model));
}
