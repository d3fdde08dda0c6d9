/* SPDX-License-Identifier: MIT
 *
 * From the tensors of a file to a model: what the readers of all formats share. The tensors are checked
 * before the model is made, so that a wrong number cannot ask for memory. The model has scales of 1 and
 * gives what the format's own package gives at inference; anything that would not is refused.
 */
#include "format/sae_formats.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

enum { MAX_TENSORS = 20, MAX_D = 1 << 22 };

/* Shape of a parameter in the file; rank 1 has cols 1. */
static void expected_shape(const ams_sae_parts *p, const ams_sae_tensor *tensor, uint64_t *rank, uint64_t *rows, uint64_t *cols)
{
    uint64_t d = tensor->parameter == ATMSAE_W_ENC ? p->d_in : p->d_out;
    bool matrix = tensor->parameter == ATMSAE_W_ENC || tensor->parameter == ATMSAE_W_DEC;
    bool scalar = tensor->parameter == ATMSAE_BATCH_THRESHOLD;
    *rank = matrix ? 2 : scalar ? 0 : 1;
    *rows = scalar ? 1 : tensor->parameter == ATMSAE_B_DEC || (matrix && tensor->latents_last) ? d : p->d_sae;
    *cols = !matrix ? 1 : tensor->latents_last ? p->d_sae : d;
}

static bool by_k(const ams_sae_parts *p) { return ams_takes_k(p->activation); }

static bool wanted(const ams_sae_parts *p, const ams_sae_tensor *tensor)
{
    return tensor->parameter > 0 && tensor->kinds >> p->kind & 1;
}

static atmsae_status check_ones(atmsae_context *ctx, const ams_sae_tensor *tensor, const atmsae_tensors *file, uint64_t index)
{
    atmsae_tensor_info info = {.size = sizeof info};
    AMS_TRY(atmsae_tensors_info(file, index, &info));
    bool ones = info.rank <= 1;
    uint64_t count = info.rank == 0 ? 1 : info.shape[0];
    for (uint64_t i = 0; ones && i < count; i++) {
        float value;
        AMS_TRY(ams_tensors_read_part(file, index, i, 1, &value));
        ones = fabsf(value - 1) <= 1e-5f; /* torch.allclose, which SAELens asks */
    }
    if (ones) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "tensor \"%s\" is not all ones: latents scaled after training are not read", tensor->name);
}

static atmsae_status check_one(atmsae_context *ctx, const ams_sae_parts *p, const ams_sae_tensor *tensor,
                               const atmsae_tensors *file, uint64_t index)
{
    atmsae_tensor_info info = {.size = sizeof info};
    AMS_TRY(atmsae_tensors_info(file, index, &info));
    uint64_t rank, rows, cols;
    expected_shape(p, tensor, &rank, &rows, &cols);
    if (info.rank == rank && (rank < 1 || info.shape[0] == rows) && (rank < 2 || info.shape[1] == cols)) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" has rank %llu, shape [%llu, %llu]; %s asks for rank %llu, [%llu, %llu]",
                    tensor->name, (unsigned long long)info.rank, (unsigned long long)info.shape[0], (unsigned long long)info.shape[1],
                    p->config, (unsigned long long)rank, (unsigned long long)rows, (unsigned long long)(rank == 2 ? cols : 0));
}

/* The file has each wanted tensor, in its shape, and no other. */
static atmsae_status check_tensors(atmsae_context *ctx, const ams_sae_parts *p, const atmsae_tensors *file, uint64_t index[MAX_TENSORS])
{
    uint64_t found = 0;
    for (int i = 0; p->tensors[i].name; i++)
        if (p->tensors[i].parameter == AMS_TENSOR_REFUSED && ams_tensors_index(file, p->tensors[i].name) < UINT64_MAX)
            return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "tensor \"%s\": %s", p->tensors[i].name, p->tensors[i].refusal);
    for (int i = 0; p->tensors[i].name; i++) {
        const ams_sae_tensor *tensor = &p->tensors[i];
        index[i] = UINT64_MAX;
        if (!wanted(p, tensor) && tensor->parameter > 0) continue;
        index[i] = ams_tensors_index(file, tensor->name);
        bool there = index[i] < UINT64_MAX;
        found += there;
        if (there && tensor->parameter == AMS_TENSOR_ONES) AMS_TRY(check_ones(ctx, tensor, file, index[i]));
        if (!wanted(p, tensor)) continue;
        if (!there)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" of architecture %s is missing", tensor->name, p->architecture);
        AMS_TRY(check_one(ctx, p, tensor, file, index[i]));
    }
    for (uint64_t j = 0; found < atmsae_tensors_count(file) && j < atmsae_tensors_count(file); j++) {
        atmsae_tensor_info info = {.size = sizeof info};
        AMS_TRY(atmsae_tensors_info(file, j, &info));
        bool known = false;
        for (int i = 0; p->tensors[i].name; i++)
            known = known || index[i] == j;
        if (!known)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%.200s\" does not belong to architecture %s", info.name, p->architecture);
    }
    return ATMSAE_OK;
}

/* [rows, cols] as stored to out [cols, rows]. */
static atmsae_status read_transposed(atmsae_context *ctx, const atmsae_tensors *file, uint64_t index, uint64_t rows,
                                     uint64_t cols, float *out)
{
    uint64_t block_rows = ams_min(rows, ams_max(16, (1 << 18) / cols));
    float *block = ams_alloc(ctx, block_rows * cols, sizeof *block);
    if (!block) return ams_nomem(ctx, "a block of a matrix");
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

/* Latents first, whichever way the file has them. */
static atmsae_status read_values(atmsae_context *ctx, const ams_sae_tensor *tensor, const atmsae_tensors *file, uint64_t index,
                                 uint64_t rows, uint64_t cols, float *out)
{
    bool columns = ams_tensors_column_major(file, index);
    if (tensor->latents_last == columns) return ams_tensors_read_part(file, index, 0, rows * cols, out);
    return columns ? read_transposed(ctx, file, index, cols, rows, out) : read_transposed(ctx, file, index, rows, cols, out);
}

/* f = z [z > theta] with f >= 0: every theta below 0 is one of 0. */
static atmsae_status check_values(atmsae_context *ctx, const char *name, float *values, uint64_t count, bool threshold)
{
    if (!ams_all_finite(values, count))
        return ams_fail(ctx, ATMSAE_E_NONFINITE, "tensor \"%s\" has values that are not finite", name);
    for (uint64_t i = 0; threshold && i < count; i++)
        if (values[i] < 0) values[i] = 0;
    return ATMSAE_OK;
}

/* The norms of W_dec's rows go into all that belongs to a latent, and W_dec gets unit rows. It comes first
 * and sets the norms. A zero row never fires and stays as it is. */
static void fold_norms(int32_t parameter, float *values, float *norms, uint64_t rows, uint64_t cols)
{
    for (uint64_t i = 0; i < rows; i++) {
        float *row = values + i * cols;
        if (parameter == ATMSAE_W_DEC) norms[i] = ams_fold_norm(row, cols, 1);
        for (uint64_t j = 0; j < cols; j++)
            row[j] = parameter != ATMSAE_W_DEC ? row[j] * norms[i] : norms[i] > 0 ? row[j] / norms[i] : row[j];
    }
}

static atmsae_status read_one(atmsae_context *ctx, const ams_sae_parts *p, const ams_sae_tensor *tensor, const atmsae_tensors *file,
                              uint64_t index, float *values, float *norms, atmsae_model *model)
{
    uint64_t rank, rows, cols;
    expected_shape(p, tensor, &rank, &rows, &cols);
    AMS_TRY(read_values(ctx, tensor, file, index, rows, cols, values));
    if (tensor->parameter == ATMSAE_BATCH_THRESHOLD && values[0] < 0) return ATMSAE_OK; /* not set yet */
    AMS_TRY(check_values(ctx, tensor->name, values, rows * cols, tensor->parameter == ATMSAE_THRESHOLD));
    if (norms && tensor->parameter != ATMSAE_B_DEC && rank > 0)
        fold_norms(tensor->parameter, values, norms, p->d_sae, rows * cols / p->d_sae);
    return atmsae_model_set(model, tensor->parameter, values, rows * cols);
}

/* W_dec first. */
static atmsae_status read_weights(atmsae_context *ctx, const ams_sae_parts *p, const atmsae_tensors *file,
                                  const uint64_t index[MAX_TENSORS], atmsae_model *model)
{
    uint64_t room = p->d_sae * ams_max(p->d_in, p->d_out); /* fits: the file has as much */
    float *values = ams_alloc(ctx, room, sizeof *values);
    float *norms = p->weigh_by_norm ? ams_alloc(ctx, p->d_sae, sizeof *norms) : NULL;
    atmsae_status status = values && (norms || !p->weigh_by_norm) ? ATMSAE_OK : ams_nomem(ctx, "a copy of W_enc");
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; p->tensors[i].name && status == ATMSAE_OK; i++)
            if (wanted(p, &p->tensors[i]) && (p->tensors[i].parameter == ATMSAE_W_DEC) == (pass == 0))
                status = read_one(ctx, p, &p->tensors[i], file, index[i], values, norms, model);
    ams_free(ctx, values);
    ams_free(ctx, norms);
    return status;
}

/* text NULL: nothing to copy. False: out of memory. */
static bool copy_text(atmsae_context *ctx, const char *text, char **copy)
{
    if (!text) return true;
    size_t size = strlen(text) + 1;
    *copy = ams_alloc(ctx, size, 1);
    if (*copy) memcpy(*copy, text, size);
    return *copy != NULL;
}

static atmsae_status create(atmsae_context *ctx, const ams_sae_parts *p, atmsae_model **out)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = p->d_in;
    config.d_sae = p->d_sae;
    config.d_out = p->d_out;
    config.activation = p->activation;
    config.decoder_norm = ATMSAE_DECODER_FREE;
    config.input_norm = ATMSAE_INPUT_RAW;
    config.transcoder = p->transcoder;
    config.uncentred = !p->centred;
    if (by_k(p)) config.k = p->k;
    AMS_TRY(ams_model_create_blank(ctx, &config, out));
    ams_model_origin *origin = &(*out)->origin;
    origin->format = p->format;
    origin->unsaid = p->unsaid && !p->centred;
    if (copy_text(ctx, p->model_name, &origin->model_name) && copy_text(ctx, p->hook_name, &origin->hook_name) &&
        copy_text(ctx, p->hook_name_out, &origin->hook_name_out))
        return ATMSAE_OK;
    atmsae_model_destroy(*out);
    *out = NULL;
    return ams_nomem(ctx, "names");
}

/* The file's k, if it has one, must be the configuration's, if that has one: packages that write it in both places
 * refuse to load others. */
static atmsae_status take_k(atmsae_context *ctx, const atmsae_tensors *file, ams_sae_parts *p)
{
    for (const ams_sae_tensor *tensor = p->tensors; tensor->name && by_k(p); tensor++) {
        uint64_t index = tensor->parameter == AMS_TENSOR_K ? ams_tensors_index(file, tensor->name) : UINT64_MAX;
        int64_t k;
        if (index == UINT64_MAX) continue;
        AMS_TRY(atmsae_tensors_read_i64(file, index, &k, 1));
        if (!isnan(p->k) && p->k != (double)k)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "k = %lld, but %s has k = %g: correct the wrong one", (long long)k, p->config_path, p->k);
        p->k = (double)k;
    }
    return ATMSAE_OK;
}

static atmsae_status check_sizes(atmsae_context *ctx, const ams_sae_parts *p)
{
    const struct {
        const char *name;
        uint64_t value, max;
    } sizes[] = {{"d_in", p->d_in, MAX_D}, {"d_out", p->d_out, MAX_D}, {"d_sae", p->d_sae, INT32_MAX}};
    for (int i = 0; i < 3; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].max)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "%s = %llu, allowed: 1 to %llu", sizes[i].name, (unsigned long long)sizes[i].value,
                            (unsigned long long)sizes[i].max);
    if (!by_k(p)) return ATMSAE_OK;
    bool topk = p->activation == ATMSAE_TOPK;
    if (isnan(p->k))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "\"k\" is missing: it decides how many latents of a row are on, and is not guessed; add the one "
                        "that the SAE was trained with");
    if (!(p->k > 0 && p->k <= (double)p->d_sae && (!topk || p->k == floor(p->k))))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "k = %g, allowed: %s to d_sae = %llu", p->k, topk ? "whole numbers from 1" : "above 0",
                        (unsigned long long)p->d_sae);
    return ATMSAE_OK;
}

static atmsae_status build(atmsae_context *ctx, const ams_sae_parts *p, const atmsae_tensors *file, atmsae_model **out)
{
    uint64_t index[MAX_TENSORS];
    atmsae_model *model;
    AMS_TRY(check_tensors(ctx, p, file, index));
    AMS_TRY(ams_tensors_check_spans(file));
    AMS_TRY(create(ctx, p, &model));
    atmsae_status status = read_weights(ctx, p, file, index, model);
    if (status < 0) {
        atmsae_model_destroy(model);
        return status;
    }
    *out = model;
    return ATMSAE_OK;
}

atmsae_status ams_sae_build(atmsae_context *ctx, const ams_sae_parts *parts, const char *path, const atmsae_tensors *file,
                            atmsae_model **out)
{
    ams_sae_parts own = *parts;
    atmsae_status status = take_k(ctx, file, &own);
    if (status < 0) return ams_fail_in(ctx, status, path);
    status = check_sizes(ctx, &own);
    if (status < 0) return ams_fail_in(ctx, status, parts->config_path);
    status = build(ctx, &own, file, out);
    return status < 0 ? ams_fail_in(ctx, status, path) : ATMSAE_OK;
}

atmsae_status ams_sae_shape(atmsae_context *ctx, const atmsae_tensors *file, const char *name, uint64_t rank, uint64_t shape[8])
{
    uint64_t index = ams_tensors_index(file, name);
    if (index == UINT64_MAX) return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" is missing", name);
    atmsae_tensor_info info = {.size = sizeof info};
    AMS_TRY(atmsae_tensors_info(file, index, &info));
    if (info.rank != rank)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%s\" has %llu dimensions, not %llu", name, (unsigned long long)info.rank,
                        (unsigned long long)rank);
    memcpy(shape, info.shape, sizeof info.shape);
    return ATMSAE_OK;
}
