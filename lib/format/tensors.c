/* SPDX-License-Identifier: MIT
 *
 * Tensor files: the public handle over .npy and .safetensors. The header is read and checked at
 * open, elements are read from the file when asked for.
 */
#include "format/tensors.h"
#include "kernels/kernels.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "both file formats are little-endian and read without swapping"
#endif

enum { BLOCK = 1 << 16 };

/* In the order of the safetensors package, which its writer sorts by. */
static const ams_dtype dtypes[] = {
    {"BOOL", 8, 'b'},  {"F4", 4, 0},          {"F6_E2M3", 6, 0},     {"F6_E3M2", 6, 0}, {"U8", 8, 'u'},
    {"I8", 8, 'i'},    {"F8_E5M2", 8, 0},     {"F8_E4M3", 8, 0},     {"F8_E8M0", 8, 0}, {"F8_E4M3FNUZ", 8, 0},
    {"F8_E5M2FNUZ", 8, 0}, {"I16", 16, 'i'},  {"U16", 16, 'u'},      {"F16", 16, 'f'},  {"BF16", 16, 'f'},
    {"I32", 32, 'i'},  {"U32", 32, 'u'},      {"F32", 32, 'f'},      {"C64", 64, 0},    {"F64", 64, 'f'},
    {"I64", 64, 'i'},  {"U64", 64, 'u'},
};

const ams_dtype *ams_dtype_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strlen(dtypes[i].name) == length && memcmp(dtypes[i].name, name, length) == 0) return &dtypes[i];
    return NULL;
}

uint64_t ams_dtype_rank(const ams_dtype *dtype) { return (uint64_t)(dtype - dtypes); }

size_t ams_dtype_size(const char *dtype)
{
    const ams_dtype *found = ams_dtype_find(dtype, strlen(dtype));
    return found ? found->bits / 8 : 0;
}

atmsae_status ams_tensor_size(atmsae_context *ctx, ams_tensor *tensor)
{
    uint64_t product = 1, bits; /* of the dimensions that are not 0: a 0 must not hide an overflow */
    bool empty = false, fits = true;
    for (uint64_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] == 0) empty = true;
        else fits = fits && ams_mul(product, tensor->shape[i], &product);
    }
    if (!fits || !ams_mul(product, tensor->dtype->bits, &bits))
        return ams_fail(ctx, ATMSAE_E_LIMIT, "tensor \"%.200s\": the product of its dimensions overflows", tensor->name);
    tensor->count = empty ? 0 : product;
    bits = empty ? 0 : bits;
    if (bits % 8 != 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor \"%.200s\": %llu elements of %s do not fill whole bytes", tensor->name,
                        (unsigned long long)tensor->count, tensor->dtype->name);
    tensor->bytes = bits / 8;
    return ATMSAE_OK;
}

static atmsae_status open_tensors(atmsae_context *ctx, const char *path, atmsae_tensors **out)
{
    if (!path || !out) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_tensors_open: NULL argument");
    size_t length = strlen(path);
    atmsae_tensors *t = ams_calloc(ctx, 1, sizeof *t);
    if (!t) return ams_nomem(ctx, path);
    t->ctx = ams_context_ref(ctx);
    t->fd = -1;
    t->path = ams_alloc(ctx, length + 1, 1);
    atmsae_status status = t->path ? ATMSAE_OK : ams_nomem(ctx, path);
    if (status < 0) goto fail;
    memcpy(t->path, path, length + 1);
    status = ams_open_read(ctx, path, &t->fd, &t->size);
    if (status < 0) goto fail;

    char magic[6] = "";
    if (t->size >= sizeof magic) status = ams_pread(ctx, path, t->fd, magic, sizeof magic, 0);
    if (status < 0) goto fail;
    bool npy = memcmp(magic, "\x93NUMPY", 6) == 0 || (length >= 4 && strcmp(path + length - 4, ".npy") == 0);
    status = npy ? ams_npy_header(t) : ams_safetensors_header(t);
    if (status < 0) goto fail;
    *out = t;
    return ATMSAE_OK;
fail:
    atmsae_tensors_close(t);
    return status;
}

atmsae_status atmsae_tensors_open(atmsae_context *ctx, const char *path, atmsae_tensors **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, open_tensors(ctx, path, out));
}

void atmsae_tensors_close(atmsae_tensors *t)
{
    if (!t) return;
    atmsae_context *ctx = t->ctx;
    if (t->fd >= 0) close(t->fd);
    ams_free(ctx, t->path);
    ams_free(ctx, t->header);
    ams_free(ctx, t->items);
    ams_free(ctx, t->metadata);
    ams_free(ctx, t);
    atmsae_context_destroy(ctx);
}

uint64_t atmsae_tensors_count(const atmsae_tensors *t) { return t ? t->count : 0; }

static atmsae_status check_index(const atmsae_tensors *t, uint64_t index)
{
    if (!t) return ATMSAE_E_ARG;
    if (index < t->count) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_ARG, "%s: tensor index %llu, the file has %llu", t->path, (unsigned long long)index,
                    (unsigned long long)t->count);
}

atmsae_status atmsae_tensors_info(const atmsae_tensors *t, uint64_t index, atmsae_tensor_info *out)
{
    AMS_TRY(check_index(t, index));
    const ams_tensor *tensor = &t->items[index];
    atmsae_tensor_info info = {.name = tensor->name, .dtype = tensor->dtype->name, .rank = tensor->rank};
    memcpy(info.shape, tensor->shape, sizeof info.shape);
    return ams_struct_out(t->ctx, "atmsae_tensor_info", out, &info, sizeof info, sizeof info);
}

atmsae_status atmsae_tensors_find(const atmsae_tensors *t, const char *name, uint64_t *index)
{
    if (!t) return ATMSAE_E_ARG;
    if (!name || !index) return ams_fail(t->ctx, ATMSAE_E_ARG, "atmsae_tensors_find: NULL argument");
    size_t length = strlen(name);
    for (uint64_t i = 0; i < t->count; i++)
        if (t->items[i].name_length == length && memcmp(t->items[i].name, name, length) == 0) {
            *index = i;
            return ATMSAE_OK;
        }
    return ams_fail(t->ctx, ATMSAE_E_ARG, "%s: no tensor \"%.200s\"", t->path, name);
}

const char *ams_tensors_metadata(const atmsae_tensors *t, const char *key)
{
    for (uint64_t i = 0; i < t->n_metadata; i++)
        if (strcmp(t->metadata[i].key, key) == 0) return t->metadata[i].value;
    return NULL;
}

/* ---- elements ----------------------------------------------------------------------------------- */

static atmsae_status check_part(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t count, const void *out)
{
    AMS_TRY(check_index(t, index));
    const ams_tensor *tensor = &t->items[index];
    if (first <= tensor->count && count <= tensor->count - first && (out || count == 0)) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_ARG, "%s: tensor \"%.200s\" has %llu elements; asked for %llu from %llu%s", t->path,
                    tensor->name, (unsigned long long)tensor->count, (unsigned long long)count, (unsigned long long)first,
                    out ? "" : " into NULL");
}

static atmsae_status check_all(const atmsae_tensors *t, uint64_t index, uint64_t count, const void *out)
{
    AMS_TRY(check_part(t, index, 0, count, out));
    if (count == t->items[index].count) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_ARG, "%s: tensor \"%.200s\" has %llu elements, not %llu", t->path, t->items[index].name,
                    (unsigned long long)t->items[index].count, (unsigned long long)count);
}

static atmsae_status wrong_dtype(const atmsae_tensors *t, uint64_t index, const char *wanted)
{
    return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "%s: tensor \"%.200s\" is %s, which cannot be read as %s", t->path,
                    t->items[index].name, t->items[index].dtype->name, wanted);
}

atmsae_status ams_tensors_read_raw(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t count, void *out)
{
    AMS_TRY(check_part(t, index, first, count, out));
    const ams_tensor *tensor = &t->items[index];
    unsigned size = tensor->dtype->bits / 8u;
    if (size * 8 != tensor->dtype->bits) return wrong_dtype(t, index, "bytes");
    return ams_pread(t->ctx, t->path, t->fd, out, count * size, tensor->at + first * size);
}

typedef void convert(void *out, const void *raw, const ams_dtype *dtype, uint64_t n);

static void to_f32(void *out, const void *raw, const ams_dtype *dtype, uint64_t n)
{
    if (dtype->bits == 16) {
        ams_to_f32(out, raw, dtype->name[0] == 'B' ? ATMSAE_BF16 : ATMSAE_F16, n);
        return;
    }
    const double *in = raw;
    float *f = out;
    for (uint64_t i = 0; i < n; i++)
        f[i] = (float)in[i];
}

static void to_i64(void *out, const void *raw, const ams_dtype *dtype, uint64_t n)
{
    int64_t *v = out;
    unsigned size = dtype->bits / 8, shift = 64u - dtype->bits;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t word = 0;
        memcpy(&word, (const char *)raw + i * size, size);
        if (dtype->kind == 'b') word = word != 0;
        v[i] = dtype->kind == 'i' ? (int64_t)(word << shift) >> shift : (int64_t)word;
    }
}

/* Reads in blocks through a buffer. */
static atmsae_status read_converted(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t count, void *out,
                                    unsigned out_size, convert *function)
{
    const ams_dtype *dtype = t->items[index].dtype;
    unsigned size = dtype->bits / 8u;
    uint64_t block = BLOCK / size;
    void *raw = ams_alloc(t->ctx, ams_min(block, count), size);
    if (!raw) return ams_nomem(t->ctx, t->path);
    atmsae_status status = ATMSAE_OK;
    while (count > 0 && status == ATMSAE_OK) {
        uint64_t n = ams_min(block, count);
        status = ams_tensors_read_raw(t, index, first, n, raw);
        if (status == ATMSAE_OK) function(out, raw, dtype, n);
        out = (char *)out + n * out_size;
        first += n;
        count -= n;
    }
    ams_free(t->ctx, raw);
    return status;
}

atmsae_status ams_tensors_read_part(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t count, float *out)
{
    AMS_TRY(check_part(t, index, first, count, out));
    const ams_dtype *dtype = t->items[index].dtype;
    if (dtype->kind != 'f') return wrong_dtype(t, index, "floats");
    if (dtype->bits == 32) return ams_tensors_read_raw(t, index, first, count, out);
    return read_converted(t, index, first, count, out, sizeof *out, to_f32);
}

static atmsae_status read_f32(const atmsae_tensors *t, uint64_t index, float *out, uint64_t count)
{
    AMS_TRY(check_all(t, index, count, out));
    return ams_tensors_read_part(t, index, 0, count, out);
}

atmsae_status atmsae_tensors_read_f32(const atmsae_tensors *t, uint64_t index, float *out, uint64_t count)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, read_f32(t, index, out, count));
}

static atmsae_status check_u64_range(const atmsae_tensors *t, uint64_t index, const int64_t *v, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (v[i] < 0)
            return ams_fail(t->ctx, ATMSAE_E_LIMIT, "%s: tensor \"%.200s\": element %llu = %llu is above 2^63 - 1", t->path,
                            t->items[index].name, (unsigned long long)i, (unsigned long long)v[i]);
    return ATMSAE_OK;
}

static atmsae_status read_i64(const atmsae_tensors *t, uint64_t index, int64_t *out, uint64_t count)
{
    AMS_TRY(check_all(t, index, count, out));
    const ams_dtype *dtype = t->items[index].dtype;
    if (dtype->kind == 0 || dtype->kind == 'f') return wrong_dtype(t, index, "integers");
    if (dtype->bits < 64) return read_converted(t, index, 0, count, out, sizeof *out, to_i64);
    AMS_TRY(ams_tensors_read_raw(t, index, 0, count, out));
    return dtype->kind == 'u' ? check_u64_range(t, index, out, count) : ATMSAE_OK;
}

atmsae_status atmsae_tensors_read_i64(const atmsae_tensors *t, uint64_t index, int64_t *out, uint64_t count)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, read_i64(t, index, out, count));
}
