/* SPDX-License-Identifier: MIT
 *
 * Loads a SAELens v6 folder. The result has scales of 1 and gives what SAELens gives at inference;
 * anything that would not is refused. The tensors are checked against cfg.json before the model is
 * made, so that a wrong number cannot ask for memory.
 */
#include "format/json.h"
#include "format/sae_folder.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 24 };

/* ---- cfg.json ----------------------------------------------------------------------------------- */

typedef struct folder_config {
    const char *architecture, *dtype, *normalize, *reshape, *activation_fn, *weights_crc; /* NULL: not there */
    uint64_t d_in, d_sae, d_out;                                            /* 0: not there */
    double k;
    bool apply_b_dec, rescale, finetuned;
    const ams_architecture *kind;
} folder_config;

static const struct key {
    const char *name;
    char kind; /* string, u64, double, bool, metadata; -: of no meaning here */
    bool required;
    size_t offset;
    uint64_t max; /* u64: allowed 1 .. max */
} keys[] = {
    {"architecture", 's', true, offsetof(folder_config, architecture), 0},
    {"d_in", 'u', true, offsetof(folder_config, d_in), 1 << 24},
    {"d_sae", 'u', true, offsetof(folder_config, d_sae), INT32_MAX},
    {"dtype", 's', true, offsetof(folder_config, dtype), 0},
    {"d_out", 'u', false, offsetof(folder_config, d_out), 1 << 24},
    {"k", 'd', false, offsetof(folder_config, k), 0}, /* others than topk may leave any number */
    {"apply_b_dec_to_input", 'b', false, offsetof(folder_config, apply_b_dec), 0},
    {"rescale_acts_by_decoder_norm", 'b', false, offsetof(folder_config, rescale), 0},
    {"normalize_activations", 's', false, offsetof(folder_config, normalize), 0},
    {"reshape_activations", 's', false, offsetof(folder_config, reshape), 0},
    {"activation_fn", 's', false, offsetof(folder_config, activation_fn), 0},     /* before version 6 */
    {"activation_fn_str", 's', false, offsetof(folder_config, activation_fn), 0}, /* before version 5 */
    {"finetuning_scaling_factor", 'b', false, offsetof(folder_config, finetuned), 0},
    {"device", '-', false, 0, 0},
    {"metadata", 'm', false, 0, 0},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* All in it is for others, but for one key. */
static atmsae_status read_metadata(ams_json *json, const ams_json_token *object, folder_config *config)
{
    ams_json_token token;
    if (object->kind != AMS_JSON_OBJECT) return ams_json_skip(json, object);
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) return ATMSAE_OK;
        bool crc = ams_json_is(&token, AMS_FOLDER_CRC);
        AMS_TRY(ams_json_next(json, &token));
        if (crc && token.kind == AMS_JSON_STRING) config->weights_crc = token.text;
        AMS_TRY(ams_json_skip(json, &token));
    }
}

static atmsae_status read_value(ams_json *json, const struct key *key, folder_config *config)
{
    ams_json_token token;
    AMS_TRY(ams_json_next(json, &token));
    void *field = (char *)config + key->offset;
    switch (key->kind) {
    case 's':
        if (token.kind != AMS_JSON_STRING || strlen(token.text) != token.length)
            return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "%s must be a string", key->name);
        *(const char **)field = token.text;
        return ATMSAE_OK;
    case 'u': {
        uint64_t value;
        AMS_TRY(ams_json_u64(json, &token, key->name, &value));
        if (value < 1 || value > key->max)
            return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "%s = %llu, allowed: 1 to %llu", key->name,
                                 (unsigned long long)value, (unsigned long long)key->max);
        *(uint64_t *)field = value;
        return ATMSAE_OK;
    }
    case 'd':
        return ams_json_double(json, &token, key->name, field);
    case 'b':
        return ams_json_bool(json, &token, key->name, field);
    case 'm':
        return read_metadata(json, &token, config);
    default:
        return ams_json_skip(json, &token);
    }
}

static atmsae_status read_keys(ams_json *json, folder_config *config, ams_text *unknown)
{
    ams_json_token token;
    unsigned seen = 0;
    AMS_TRY(ams_json_expect(json, AMS_JSON_OBJECT, "an object", &token));
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) break;
        unsigned i = 0;
        while (i < N_KEYS && !ams_json_is(&token, keys[i].name))
            i++;
        if (i < N_KEYS) {
            seen |= 1u << i;
            AMS_TRY(read_value(json, &keys[i], config));
            continue;
        }
        ams_text_add(unknown, unknown->length ? ", " : "");
        ams_text_add(unknown, token.text);
        AMS_TRY(ams_json_next(json, &token));
        AMS_TRY(ams_json_skip(json, &token));
    }
    AMS_TRY(ams_json_expect(json, AMS_JSON_END, "the end", &token));
    for (unsigned i = 0; i < N_KEYS; i++)
        if (keys[i].required && !(seen >> i & 1))
            return ams_fail(json->ctx, ATMSAE_E_FORMAT, "\"%s\" is missing", keys[i].name);
    return ATMSAE_OK;
}

static bool one_of(const char *text, const char *const *list)
{
    while (*list && strcmp(*list, text) != 0)
        list++;
    return *list != NULL;
}

static atmsae_status check_config(atmsae_context *ctx, folder_config *c)
{
    static const char *const dtypes[] = {"float32", "float64", "float16", "bfloat16", NULL};
    static const char *const norms[] = {"none", "expected_average_only_in", NULL};
    static const char *const shapes[] = {"none", "hook_z", NULL}; /* hook_z: rows come flattened */
    for (int i = 0; i < AMS_ARCHITECTURES; i++)
        if (strcmp(ams_architectures[i].name, c->architecture) == 0) c->kind = &ams_architectures[i];
    if (!c->kind)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "architecture \"%.80s\"; standard, topk, jumprelu, gated, transcoder and "
                        "jumprelu_transcoder are read", c->architecture);
    if (!one_of(c->dtype + (strncmp(c->dtype, "torch.", 6) == 0 ? 6 : 0), dtypes))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "dtype \"%.80s\", allowed: float32, float64, float16, bfloat16", c->dtype);
    if (!one_of(c->normalize, norms))
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "normalize_activations \"%.80s\"; none and expected_average_only_in are read",
                        c->normalize);
    if (!one_of(c->reshape, shapes))
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "reshape_activations \"%.80s\"; none and hook_z are read", c->reshape);
    if (c->finetuned || (c->activation_fn && strcmp(c->activation_fn, "relu") != 0))
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "a folder from before SAELens 6, with %s; load and save it with SAELens 6",
                        c->finetuned ? "finetuning_scaling_factor" : c->activation_fn);
    if (c->kind->transcoder && !c->d_out) return ams_fail(ctx, ATMSAE_E_FORMAT, "\"d_out\" is missing");
    if (!c->kind->transcoder) c->d_out = c->d_in;
    if (c->kind->activation == ATMSAE_TOPK && !(c->k >= 1 && c->k <= (double)c->d_sae && c->k == floor(c->k)))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "k = %g (100 if missing), allowed: whole numbers from 1 to d_sae = %llu", c->k,
                        (unsigned long long)c->d_sae);
    if (strcmp(c->normalize, "none") != 0)
        ams_log(ctx, ATMSAE_LOG_WARNING, "cfg.json: normalize_activations is %s without a factor: rows are used as they come, "
                "as SAELens does", c->normalize);
    return ATMSAE_OK;
}

/* *text holds the strings of *config. */
static atmsae_status read_config(atmsae_context *ctx, const char *path, char **text, folder_config *config)
{
    uint64_t bytes;
    AMS_TRY(ams_read_file(ctx, path, MAX_CONFIG, text, &bytes));
    *config = (folder_config){.k = 100, .apply_b_dec = true, .normalize = "none", .reshape = "none"};
    ams_json json;
    ams_text unknown = {.ctx = ctx};
    ams_json_open(&json, ctx, *text, (size_t)bytes, AMS_JSON_MAX_DEPTH);
    atmsae_status status = read_keys(&json, config, &unknown);
    if (status == ATMSAE_OK) status = unknown.status;
    if (status == ATMSAE_OK) status = check_config(ctx, config);
    if (status == ATMSAE_OK && unknown.length)
        ams_log(ctx, ATMSAE_LOG_WARNING, "%s: ignored: %s", path, unknown.data);
    ams_json_close(&json);
    ams_free(ctx, unknown.data);
    return status < 0 ? ams_fail_in(ctx, status, path) : ATMSAE_OK;
}

/* ---- weights ------------------------------------------------------------------------------------ */

/* Shape of a tensor in the file; rank 1 has cols 1. */
static void expected_shape(const folder_config *c, int32_t parameter, uint64_t *rank, uint64_t *rows, uint64_t *cols)
{
    *rank = parameter == ATMSAE_W_ENC || parameter == ATMSAE_W_DEC ? 2 : 1;
    *rows = parameter == ATMSAE_W_ENC ? c->d_in : parameter == ATMSAE_B_DEC ? c->d_out : c->d_sae;
    *cols = parameter == ATMSAE_W_ENC ? c->d_sae : parameter == ATMSAE_W_DEC ? c->d_out : 1;
}

static bool wanted(const folder_config *c, const ams_folder_tensor *tensor)
{
    return tensor->activations >> c->kind->activation & 1;
}

/* The file has each wanted tensor, in its shape, and no other. */
static atmsae_status check_tensors(atmsae_context *ctx, const folder_config *c, const atmsae_tensors *file,
                                   uint64_t index[AMS_FOLDER_TENSORS])
{
    uint64_t found = 0;
    for (int i = 0; i < AMS_FOLDER_TENSORS; i++) {
        const ams_folder_tensor *tensor = &ams_folder_tensors[i];
        if (!wanted(c, tensor)) continue;
        if (atmsae_tensors_find(file, tensor->name, &index[i]) < 0)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" of architecture %s is missing", tensor->name, c->architecture);
        atmsae_tensor_info info = {.size = sizeof info};
        AMS_TRY(atmsae_tensors_info(file, index[i], &info));
        uint64_t rank, rows, cols;
        expected_shape(c, tensor->parameter, &rank, &rows, &cols);
        if (info.rank != rank || info.shape[0] != rows || (rank == 2 && info.shape[1] != cols))
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" has rank %llu, shape [%llu, %llu]; cfg.json asks for rank %llu, [%llu, %llu]",
                            tensor->name, (unsigned long long)info.rank, (unsigned long long)info.shape[0],
                            (unsigned long long)info.shape[1], (unsigned long long)rank, (unsigned long long)rows,
                            (unsigned long long)(rank == 2 ? cols : 0));
        found++;
    }
    for (uint64_t j = 0; found < atmsae_tensors_count(file) && j < atmsae_tensors_count(file); j++) {
        atmsae_tensor_info info = {.size = sizeof info};
        AMS_TRY(atmsae_tensors_info(file, j, &info));
        bool known = false;
        for (int i = 0; i < AMS_FOLDER_TENSORS; i++)
            known = known || (wanted(c, &ams_folder_tensors[i]) && index[i] == j);
        if (!known)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%.200s\" does not belong to architecture %s", info.name, c->architecture);
    }
    return ATMSAE_OK;
}

/* Are they of one save? (sae_folder.h) */
static atmsae_status check_pair(atmsae_context *ctx, const folder_config *c, const atmsae_tensors *file)
{
    const char *mark = ams_tensors_metadata(file, AMS_FOLDER_MARK);
    if (!mark || strcmp(mark, AMS_FOLDER_MARK_TEXT) != 0) return ATMSAE_OK;
    uint64_t crc;
    char text[20];
    AMS_TRY(ams_tensors_crc(file, &crc));
    ams_format(text, sizeof text, "%016llx", (unsigned long long)crc);
    if (c->weights_crc && strcmp(c->weights_crc, text) == 0) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_FORMAT, "cfg.json is not of the same save, or the weights were damaged: their CRC-64 is %s, "
                    "cfg.json's metadata." AMS_FOLDER_CRC " %.80s", text, c->weights_crc ? c->weights_crc : "is missing");
}

/* [rows, cols] of the file to out [cols, rows]. */
static atmsae_status read_transposed(atmsae_context *ctx, const atmsae_tensors *file, uint64_t index, uint64_t rows,
                                     uint64_t cols, float *out)
{
    uint64_t block_rows = ams_min(rows, ams_max(16, (1 << 18) / cols));
    float *block = ams_alloc(ctx, block_rows * cols, sizeof *block);
    if (!block) return ams_nomem(ctx, "a block of W_enc");
    atmsae_status status = ATMSAE_OK;
    for (uint64_t first = 0; first < rows && status == ATMSAE_OK; first += block_rows) {
        uint64_t n = ams_min(block_rows, rows - first);
        status = ams_tensors_read_part(file, index, first * cols, n * cols, block);
        for (uint64_t i = 0; i < cols && status == ATMSAE_OK; i++)
            for (uint64_t j = 0; j < n; j++)
                out[i * rows + first + j] = block[j * cols + i];
    }
    ams_free(ctx, block);
    return status;
}

static atmsae_status check_values(atmsae_context *ctx, const char *name, const float *values, uint64_t count, bool threshold)
{
    if (!ams_all_finite(values, count))
        return ams_fail(ctx, ATMSAE_E_NONFINITE, "tensor \"%s\" has values that are not finite", name);
    for (uint64_t i = 0; threshold && i < count; i++)
        if (values[i] < 0)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "threshold[%llu] = %g, allowed: 0 or more", (unsigned long long)i, (double)values[i]);
    return ATMSAE_OK;
}

/* topk that weighs latents by |d_i|: the norms go into the encoder, and the decoder gets unit rows.
 * W_dec comes first and sets the norms. A zero row never fires and stays as it is. */
static void fold_norms(int32_t parameter, float *values, float *norms, uint64_t rows, uint64_t cols)
{
    for (uint64_t i = 0; i < rows; i++) {
        float *row = values + i * cols;
        if (parameter == ATMSAE_W_DEC) {
            double sum = 0;
            for (uint64_t j = 0; j < cols; j++)
                sum += (double)row[j] * (double)row[j];
            norms[i] = (float)sqrt(sum);
        }
        for (uint64_t j = 0; j < cols; j++)
            row[j] = parameter != ATMSAE_W_DEC ? row[j] * norms[i] : norms[i] > 0 ? row[j] / norms[i] : row[j];
    }
}

static atmsae_status read_weights(atmsae_context *ctx, const folder_config *c, const atmsae_tensors *file,
                                  const uint64_t index[AMS_FOLDER_TENSORS], atmsae_model *model)
{
    static const int order[AMS_FOLDER_TENSORS] = {1, 0, 2, 3, 4, 5, 6, 7}; /* W_dec before W_enc */
    bool fold = c->rescale && c->kind->activation == ATMSAE_TOPK;
    uint64_t room = ams_max(c->d_sae, 1) * ams_max(c->d_in, c->d_out); /* fits: the file has as much */
    float *values = ams_alloc(ctx, room, sizeof *values);
    float *norms = ams_alloc(ctx, fold ? c->d_sae : 1, sizeof *norms);
    atmsae_status status = values && norms ? ATMSAE_OK : ams_nomem(ctx, "a copy of W_enc");
    for (int o = 0; o < AMS_FOLDER_TENSORS && status == ATMSAE_OK; o++) {
        const ams_folder_tensor *tensor = &ams_folder_tensors[order[o]];
        if (!wanted(c, tensor)) continue;
        uint64_t rank, rows, cols;
        expected_shape(c, tensor->parameter, &rank, &rows, &cols);
        status = tensor->parameter == ATMSAE_W_ENC
                     ? read_transposed(ctx, file, index[order[o]], rows, cols, values)
                     : ams_tensors_read_part(file, index[order[o]], 0, rows * cols, values);
        if (status == ATMSAE_OK)
            status = check_values(ctx, tensor->name, values, rows * cols, tensor->parameter == ATMSAE_THRESHOLD);
        if (status < 0) break;
        if (fold && tensor->parameter != ATMSAE_B_DEC)
            fold_norms(tensor->parameter, values, norms, c->d_sae, rows * cols / c->d_sae);
        status = atmsae_model_set(model, tensor->parameter, values, rows * cols);
    }
    ams_free(ctx, values);
    ams_free(ctx, norms);
    return status;
}

static atmsae_status create(atmsae_context *ctx, const folder_config *c, atmsae_model **out)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = c->d_in;
    config.d_sae = c->d_sae;
    config.d_out = c->d_out;
    config.activation = c->kind->activation;
    config.decoder_norm = ATMSAE_DECODER_FREE;
    config.input_norm = ATMSAE_INPUT_RAW;
    config.transcoder = c->kind->transcoder || !c->apply_b_dec;
    if (c->kind->activation == ATMSAE_TOPK) config.k = c->k;
    return ams_model_create_blank(ctx, &config, out);
}

static atmsae_status load(atmsae_context *ctx, const char *dir, atmsae_model **out)
{
    if (!dir || !out) return ams_fail(ctx, ATMSAE_E_ARG, "model_load: NULL argument");
    char *text = NULL;
    atmsae_tensors *file = NULL;
    atmsae_model *model = NULL;
    folder_config config;
    uint64_t index[AMS_FOLDER_TENSORS] = {0};
    char *config_path = ams_path_join(ctx, dir, "cfg.json");
    char *weights_path = ams_path_join(ctx, dir, "sae_weights.safetensors");
    atmsae_status status = config_path && weights_path ? ATMSAE_OK : ATMSAE_E_NOMEM;
    if (status < 0) goto end;
    status = read_config(ctx, config_path, &text, &config);
    if (status < 0) goto end;
    status = atmsae_tensors_open(ctx, weights_path, &file);
    if (status < 0) goto end;
    status = check_pair(ctx, &config, file);
    if (status == ATMSAE_OK) status = check_tensors(ctx, &config, file, index);
    if (status < 0) {
        status = ams_fail_in(ctx, status, weights_path);
        goto end;
    }
    status = create(ctx, &config, &model);
    if (status < 0) goto end;
    status = read_weights(ctx, &config, file, index, model);
    if (status < 0) {
        atmsae_model_destroy(model);
        status = ams_fail_in(ctx, status, weights_path);
        goto end;
    }
    *out = model;
end:
    atmsae_tensors_close(file);
    ams_free(ctx, text);
    ams_free(ctx, config_path);
    ams_free(ctx, weights_path);
    return status;
}

atmsae_status atmsae_model_load(atmsae_context *ctx, const char *dir, atmsae_model **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, load(ctx, dir, out));
}
