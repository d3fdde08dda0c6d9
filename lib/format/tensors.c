/* SPDX-License-Identifier: MIT
 *
 * Tensor files: the public handle over .safetensors, .npy, .npz and .pt. The header is read and
 * checked at open, elements are read from the file when asked for.
 */
#include "format/tensors.h"
#include "kernels/kernels.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "all file formats are little-endian and read without swapping"
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

/* Is the first entry of this ZIP an array of numpy's? */
static bool holds_npy(const unsigned char *start, uint64_t bytes)
{
    enum { LOCAL_SIZE = 30 };
    if (bytes < LOCAL_SIZE) return false;
    uint64_t length = (uint64_t)start[26] | (uint64_t)start[27] << 8;
    return length >= 4 && length <= bytes - LOCAL_SIZE && memcmp(start + LOCAL_SIZE + length - 4, ".npy", 4) == 0;
}

/* By the first bytes; by the name where they say nothing. */
static atmsae_status read_header(atmsae_tensors *t)
{
    unsigned char start[256] = {0};
    uint64_t bytes = ams_min(t->size, sizeof start);
    AMS_TRY(ams_pread(t->ctx, t->path, t->fd, start, bytes, 0));
    AMS_TRY(ams_foreign_file(t, start, bytes));
    if (memcmp(start, "\x93NUMPY", 6) == 0 || ams_ends_with(t->path, ".npy")) return ams_npy_header(t);
    bool zip = memcmp(start, "PK\3\4", 4) == 0;
    if (ams_ends_with(t->path, ".npz") || (zip && holds_npy(start, bytes))) return ams_npz_header(t);
    if (zip || ams_ends_with(t->path, ".pt") || ams_ends_with(t->path, ".pth")) {
#ifdef AMS_NO_TORCH
        return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "%s: this library was built without the reader of PyTorch's files", t->path);
#else
        return ams_torch_header(t);
#endif
    }
    return ams_safetensors_header(t);
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

    status = read_header(t);
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
    ams_free(ctx, t->spans);
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
    return ams_struct_out(t->ctx, atmsae_tensor_info, out, &info);
}

uint64_t ams_tensors_index(const atmsae_tensors *t, const char *name)
{
    size_t length = strlen(name);
    for (uint64_t i = 0; i < t->count; i++)
        if (t->items[i].name_length == length && memcmp(t->items[i].name, name, length) == 0) return i;
    return UINT64_MAX;
}

atmsae_status atmsae_tensors_find(const atmsae_tensors *t, const char *name, uint64_t *index)
{
    if (!t) return ATMSAE_E_ARG;
    if (!name || !index) return ams_fail(t->ctx, ATMSAE_E_ARG, "atmsae_tensors_find: NULL argument");
    uint64_t found = ams_tensors_index(t, name);
    if (found < UINT64_MAX) {
        *index = found;
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

static atmsae_status read_as_row(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t count, void *out)
{
    const ams_dtype *dtype = t->items[index].dtype;
    return dtype->kind == 'f' && dtype->bits == 64 ? ams_tensors_read_part(t, index, first, count, out)
                                                   : ams_tensors_read_raw(t, index, first, count, out);
}

/* Columns are read some at a time, so that a cache line of the rows is written at once. */
static atmsae_status gather(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t rows, char *out)
{
    enum { TILE = 16 };
    const ams_tensor *tensor = &t->items[index];
    const uint64_t cols = tensor->shape[1];
    const size_t size = ams_min(tensor->dtype->bits / 8u, sizeof(float));
    char *columns = ams_alloc(t->ctx, ams_min(TILE, cols) * rows, size);
    if (!columns) return ams_nomem(t->ctx, t->path);
    atmsae_status status = ATMSAE_OK;
    for (uint64_t at = 0; at < cols && status == ATMSAE_OK; at += TILE) {
        uint64_t n = ams_min(TILE, cols - at);
        for (uint64_t j = 0; j < n && status == ATMSAE_OK; j++)
            status = read_as_row(t, index, (at + j) * tensor->shape[0] + first, rows, columns + j * rows * size);
        for (uint64_t i = 0; i < rows && status == ATMSAE_OK; i++)
            for (uint64_t j = 0; j < n; j++)
                memcpy(out + (i * cols + at + j) * size, columns + (j * rows + i) * size, size);
    }
    ams_free(t->ctx, columns);
    return status;
}

atmsae_status ams_tensors_read_rows(const atmsae_tensors *t, uint64_t index, uint64_t first, uint64_t rows, void *out)
{
    AMS_TRY(check_index(t, index));
    const ams_tensor *tensor = &t->items[index];
    if (tensor->column_major) return gather(t, index, first, rows, out);
    const uint64_t cols = tensor->shape[tensor->rank - 1];
    return read_as_row(t, index, first * cols, rows * cols, out);
}

bool ams_tensors_column_major(const atmsae_tensors *t, uint64_t index) { return t->items[index].column_major; }

atmsae_status ams_tensors_check_spans(const atmsae_tensors *t)
{
    enum { SPAN_BLOCK = 1 << 18 };
    char *block = ams_alloc(t->ctx, t->n_spans ? ams_min(SPAN_BLOCK, t->size) : 1, 1);
    if (!block) return ams_nomem(t->ctx, t->path);
    atmsae_status status = ATMSAE_OK;
    for (uint64_t i = 0; i < t->n_spans && status == ATMSAE_OK; i++) {
        uint32_t crc = 0;
        for (uint64_t at = 0; at < t->spans[i].bytes && status == ATMSAE_OK; at += SPAN_BLOCK) {
            uint64_t n = ams_min(SPAN_BLOCK, t->spans[i].bytes - at);
            status = ams_pread(t->ctx, t->path, t->fd, block, n, t->spans[i].at + at);
            if (status == ATMSAE_OK) crc = ams_crc32(crc, block, (size_t)n);
        }
        if (status == ATMSAE_OK && crc != t->spans[i].crc)
            status = ams_fail(t->ctx, ATMSAE_E_FORMAT, "the %llu bytes at %llu were damaged: their CRC-32 is %08x, the archive's %08x",
                              (unsigned long long)t->spans[i].bytes, (unsigned long long)t->spans[i].at, (unsigned)crc,
                              (unsigned)t->spans[i].crc);
    }
    ams_free(t->ctx, block);
    return status;
}

/* From column by column to row by row. */
static void transpose(const atmsae_tensors *t, uint64_t index, const void *columns, void *out, unsigned size)
{
    uint64_t rows = t->items[index].shape[0], cols = t->items[index].shape[1];
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++)
            memcpy((char *)out + (i * cols + j) * size, (const char *)columns + (j * rows + i) * size, size);
}

static atmsae_status read_f32(const atmsae_tensors *t, uint64_t index, float *out, uint64_t count)
{
    AMS_TRY(check_all(t, index, count, out));
    if (count > 0) AMS_CHECK_ARRAY(t->ctx, "tensors_read: out", out);
    if (!t->items[index].column_major) return ams_tensors_read_part(t, index, 0, count, out);
    float *columns = ams_alloc(t->ctx, count, sizeof *columns);
    if (!columns) return ams_nomem(t->ctx, t->path);
    atmsae_status status = ams_tensors_read_part(t, index, 0, count, columns);
    if (status == ATMSAE_OK) transpose(t, index, columns, out, sizeof *out);
    ams_free(t->ctx, columns);
    return status;
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
    if (count > 0) AMS_CHECK_ARRAY(t->ctx, "tensors_read: out", out);
    const ams_dtype *dtype = t->items[index].dtype;
    if (dtype->kind == 0 || dtype->kind == 'f') return wrong_dtype(t, index, "integers");
    if (t->items[index].column_major)
        return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "%s: tensor \"%.200s\": integers stored column by column; save a contiguous copy",
                        t->path, t->items[index].name);
    if (dtype->bits < 64) return read_converted(t, index, 0, count, out, sizeof *out, to_i64);
    AMS_TRY(ams_tensors_read_raw(t, index, 0, count, out));
    return dtype->kind == 'u' ? check_u64_range(t, index, out, count) : ATMSAE_OK;
}

atmsae_status atmsae_tensors_read_i64(const atmsae_tensors *t, uint64_t index, int64_t *out, uint64_t count)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, read_i64(t, index, out, count));
}
