/* SPDX-License-Identifier: MIT
 *
 * .safetensors: 8 bytes N, N bytes of JSON header, data without holes. Reading is as strict as the
 * format's text, which is stricter than its first implementation: no duplicate keys, no overlap, no
 * dimension product that overflows before a 0. Writing can add a checksum.
 */
#include "format/json.h"
#include "format/tensors.h"

#include <string.h>

enum { MAX_HEADER = 100000000, MAX_DEPTH = 8, MAX_NAME = 1 << 16, MAX_RANK = 8 };
static const char checksum_name[] = "checksum";

/* ---- reading ------------------------------------------------------------------------------------ */

/* An array of whole numbers, at most `room`. */
static atmsae_status numbers(ams_json *json, const char *what, uint64_t *out, uint64_t room, uint64_t *count)
{
    ams_json_token token;
    AMS_TRY(ams_json_expect(json, AMS_JSON_ARRAY, what, &token));
    for (*count = 0;; ++*count) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_ARRAY_END) return ATMSAE_OK;
        uint64_t value;
        AMS_TRY(ams_json_u64(json, &token, what, &value));
        if (*count == room)
            return ams_json_fail(json, ATMSAE_E_LIMIT, token.at, "%s: more than %llu numbers", what,
                                 (unsigned long long)room);
        out[*count] = value;
    }
}

/* {"dtype": .., "shape": [..], "data_offsets": [a, b]}; other keys are passed over. */
static atmsae_status entry(ams_json *json, ams_tensor *tensor, size_t at)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    uint64_t offsets[3] = {0}, n_offsets = 0; /* a third only to be told from two */
    ams_json_token token;
    AMS_TRY(ams_json_expect(json, AMS_JSON_OBJECT, "an object that describes a tensor", &token));
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) break;
        if (ams_json_is(&token, "dtype")) {
            AMS_TRY(ams_json_expect(json, AMS_JSON_STRING, "a dtype in quotes", &token));
            tensor->dtype = ams_dtype_find(token.text, token.length);
            if (!tensor->dtype)
                return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "unknown dtype \"%.40s\"", token.text);
            seen |= DTYPE;
        } else if (ams_json_is(&token, "shape")) {
            AMS_TRY(numbers(json, "shape", tensor->shape, MAX_RANK, &tensor->rank));
            seen |= SHAPE;
        } else if (ams_json_is(&token, "data_offsets")) {
            size_t offsets_at = token.at;
            atmsae_status status = numbers(json, "data_offsets", offsets, 3, &n_offsets);
            if (status == ATMSAE_E_LIMIT || (status == ATMSAE_OK && n_offsets != 2))
                return ams_json_fail(json, ATMSAE_E_FORMAT, offsets_at, "data_offsets must be two numbers");
            AMS_TRY(status);
            seen |= OFFSETS;
        } else {
            AMS_TRY(ams_json_next(json, &token));
            AMS_TRY(ams_json_skip(json, &token));
        }
    }
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return ams_json_fail(json, ATMSAE_E_FORMAT, at, "tensor \"%.200s\" has no %s", tensor->name,
                             !(seen & DTYPE) ? "dtype" : !(seen & SHAPE) ? "shape" : "data_offsets");
    AMS_TRY(ams_tensor_size(json->ctx, tensor));
    if (offsets[1] < offsets[0] || offsets[1] - offsets[0] != tensor->bytes)
        return ams_json_fail(json, ATMSAE_E_FORMAT, at,
                             "tensor \"%.200s\" needs %llu bytes, its data_offsets are [%llu, %llu]",
                             tensor->name, (unsigned long long)tensor->bytes, (unsigned long long)offsets[0],
                             (unsigned long long)offsets[1]);
    tensor->at = offsets[0];
    return ATMSAE_OK;
}

/* {"key": "value", ..}, or null for none. */
static atmsae_status metadata(ams_json *json, atmsae_tensors *t)
{
    ams_json_token token;
    AMS_TRY(ams_json_next(json, &token));
    if (token.kind == AMS_JSON_NULL) return ATMSAE_OK;
    if (token.kind != AMS_JSON_OBJECT)
        return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "__metadata__ must be an object");
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) return ATMSAE_OK;
        AMS_TRY(ams_grow(t->ctx, &t->metadata, &t->metadata_capacity, t->n_metadata + 1, t->n_metadata,
                         sizeof *t->metadata));
        t->metadata[t->n_metadata].key = token.text;
        AMS_TRY(ams_json_expect(json, AMS_JSON_STRING, "a string: __metadata__ holds nothing else", &token));
        t->metadata[t->n_metadata++].value = token.text;
    }
}

static atmsae_status root(ams_json *json, atmsae_tensors *t)
{
    ams_json_token token;
    AMS_TRY(ams_json_expect(json, AMS_JSON_OBJECT, "an object", &token));
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) break;
        if (ams_json_is(&token, "__metadata__")) {
            AMS_TRY(metadata(json, t));
            continue;
        }
        if (token.length > MAX_NAME)
            return ams_json_fail(json, ATMSAE_E_LIMIT, token.at, "a name of %zu bytes, at most %d are read",
                                 token.length, MAX_NAME);
        AMS_TRY(ams_grow(t->ctx, &t->items, &t->capacity, t->count + 1, t->count, sizeof *t->items));
        ams_tensor *tensor = &t->items[t->count++];
        *tensor = (ams_tensor){.name = token.text, .name_length = token.length};
        AMS_TRY(entry(json, tensor, token.at));
    }
    return ams_json_expect(json, AMS_JSON_END, "the end", &token);
}

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

static int compare_spans(const void *pa, const void *pb)
{
    const span *a = pa, *b = pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

/* The tensors fill the data section, each byte once. */
static atmsae_status check_spans(const atmsae_tensors *t, uint64_t data_bytes)
{
    span *spans = ams_alloc(t->ctx, t->count, sizeof *spans);
    if (!spans) return ams_nomem(t->ctx, t->path);
    bool sorted = true;
    for (uint64_t i = 0; i < t->count; i++) {
        spans[i] = (span){t->items[i].at, t->items[i].at + t->items[i].bytes, t->items[i].name};
        sorted = sorted && (i == 0 || compare_spans(&spans[i - 1], &spans[i]) <= 0);
    }
    if (!sorted) ams_sort(spans, t->count, sizeof *spans, compare_spans);
    atmsae_status status = ATMSAE_OK;
    uint64_t end = 0;
    for (uint64_t i = 0; i < t->count && status == ATMSAE_OK; i++) {
        if (spans[i].begin != end)
            status = ams_fail(t->ctx, ATMSAE_E_FORMAT,
                              "tensor \"%.200s\" begins at data byte %llu, where %llu was expected: %s",
                              spans[i].name, (unsigned long long)spans[i].begin, (unsigned long long)end,
                              spans[i].begin < end ? "it overlaps another" : "there is a hole");
        end = spans[i].end;
    }
    ams_free(t->ctx, spans);
    AMS_TRY(status);
    if (end > data_bytes)
        return ams_fail(t->ctx, ATMSAE_E_TRUNCATED, "the file has %llu bytes of data, its header describes %llu",
                        (unsigned long long)data_bytes, (unsigned long long)end);
    if (end < data_bytes)
        return ams_fail(t->ctx, ATMSAE_E_FORMAT, "%llu bytes follow the last tensor",
                        (unsigned long long)(data_bytes - end));
    return ATMSAE_OK;
}

static atmsae_status read_header(atmsae_tensors *t)
{
    uint64_t n;
    if (t->size < sizeof n)
        return ams_fail(t->ctx, ATMSAE_E_TRUNCATED, "%llu bytes: too few for a tensor file",
                        (unsigned long long)t->size);
    AMS_TRY(ams_pread(t->ctx, t->path, t->fd, &n, sizeof n, 0));
    if (n > MAX_HEADER)
        return ams_fail(t->ctx, ATMSAE_E_LIMIT,
                        "a header of %llu bytes, at most %d are read (is it a .safetensors file?)",
                        (unsigned long long)n, MAX_HEADER);
    if (n > t->size - sizeof n)
        return ams_fail(t->ctx, ATMSAE_E_TRUNCATED, "a header of %llu bytes in a file of %llu", (unsigned long long)n,
                        (unsigned long long)t->size);
    t->header = ams_alloc(t->ctx, n + 1, 1);
    if (!t->header) return ams_nomem(t->ctx, t->path);
    AMS_TRY(ams_pread(t->ctx, t->path, t->fd, t->header, n, sizeof n));
    t->header[n] = '\0';
    if (t->header[0] != '{') return ams_fail(t->ctx, ATMSAE_E_FORMAT, "the header does not begin with '{'");

    ams_json json;
    ams_json_open(&json, t->ctx, t->header, (size_t)n, MAX_DEPTH);
    atmsae_status status = root(&json, t);
    ams_json_close(&json);
    AMS_TRY(status);
    AMS_TRY(check_spans(t, t->size - sizeof n - n));
    for (uint64_t i = 0; i < t->count; i++)
        t->items[i].at += sizeof n + n;
    return ATMSAE_OK;
}

atmsae_status ams_safetensors_header(atmsae_tensors *t)
{
    atmsae_status status = read_header(t);
    return status == ATMSAE_OK || status == ATMSAE_E_IO ? status : ams_fail_in(t->ctx, status, t->path);
}

atmsae_status ams_tensors_crc(const atmsae_tensors *t, uint64_t *crc) { return ams_file_crc(t->ctx, t->path, t->fd, t->size, crc); }

atmsae_status ams_tensors_verify(const atmsae_tensors *t)
{
    uint64_t index, stored, crc;
    if (atmsae_tensors_find(t, checksum_name, &index) < 0)
        return ams_fail(t->ctx, ATMSAE_E_FORMAT, "%s: it has no checksum", t->path);
    const ams_tensor *sum = &t->items[index];
    if (strcmp(sum->dtype->name, "U64") != 0 || sum->count != 1 || sum->at + sizeof stored != t->size)
        return ams_fail(t->ctx, ATMSAE_E_FORMAT, "%s: its checksum is not one U64 at the end", t->path);
    AMS_TRY(ams_file_crc(t->ctx, t->path, t->fd, sum->at, &crc));
    AMS_TRY(ams_tensors_read_raw(t, index, 0, 1, &stored));
    if (crc == stored) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_FORMAT, "%s: wrong checksum: the file was damaged after it was written", t->path);
}

/* ---- writing ------------------------------------------------------------------------------------ */

typedef struct output {
    const ams_tensor_out *tensor;
    ams_tensor info;
} output;

/* The package's order: dtypes from wide to narrow, then names. */
static bool goes_after(const output *a, const output *b)
{
    uint64_t ra = ams_dtype_rank(a->info.dtype), rb = ams_dtype_rank(b->info.dtype);
    return ra != rb ? ra < rb : strcmp(a->tensor->name, b->tensor->name) > 0;
}

static atmsae_status plan(atmsae_context *ctx, output *outputs, const ams_tensor_out *tensors, uint64_t n, bool sort,
                          uint64_t *bytes)
{
    *bytes = 0;
    for (uint64_t i = 0; i < n; i++) {
        output item = {.tensor = &tensors[i]};
        item.info = (ams_tensor){.name = tensors[i].name, .rank = tensors[i].rank};
        item.info.dtype = ams_dtype_find(tensors[i].dtype, strlen(tensors[i].dtype));
        if (!item.info.dtype || tensors[i].rank > 4)
            return ams_fail(ctx, ATMSAE_E_ARG, "tensor \"%s\": dtype %s, rank %llu", tensors[i].name, tensors[i].dtype,
                            (unsigned long long)tensors[i].rank);
        memcpy(item.info.shape, tensors[i].shape, sizeof tensors[i].shape);
        AMS_TRY(ams_tensor_size(ctx, &item.info));
        if (item.info.bytes > 0 && !tensors[i].data && !tensors[i].fill)
            return ams_fail(ctx, ATMSAE_E_ARG, "tensor \"%s\": no data", tensors[i].name);
        *bytes += item.info.bytes; /* no wrap: below 2^63, and a tensor's bits fit 64 */
        if (*bytes > INT64_MAX - MAX_HEADER)
            return ams_fail(ctx, ATMSAE_E_LIMIT, "more bytes than a file can hold");
        uint64_t place = i;
        for (; sort && place > 0 && goes_after(&outputs[place - 1], &item); place--)
            outputs[place] = outputs[place - 1];
        outputs[place] = item;
    }
    return ATMSAE_OK;
}

static void add_entry(ams_text *text, const ams_tensor *info, uint64_t at)
{
    ams_text_add(text, text->data[text->length - 1] == '{' ? "" : ",");
    ams_text_string(text, info->name);
    ams_text_add(text, ":{\"dtype\":\"");
    ams_text_add(text, info->dtype->name);
    ams_text_add(text, "\",\"shape\":[");
    for (uint64_t i = 0; i < info->rank; i++) {
        ams_text_add(text, i ? "," : "");
        ams_text_u64(text, info->shape[i]);
    }
    ams_text_add(text, "],\"data_offsets\":[");
    ams_text_u64(text, at);
    ams_text_add(text, ",");
    ams_text_u64(text, at + info->bytes);
    ams_text_add(text, "]}");
}

/* The 8 bytes N and the header, padded so that the data begin at a multiple of 8. */
static void compose(ams_text *text, const output *outputs, uint64_t n, const ams_metadata_out *metadata,
                    uint64_t n_metadata, bool checksum)
{
    uint64_t at = 0;
    ams_text_add(text, "        {");
    if (text->status < 0) return;
    for (uint64_t i = 0; i < n_metadata; i++) {
        ams_text_add(text, i ? "," : "\"__metadata__\":{");
        ams_text_string(text, metadata[i].key);
        ams_text_add(text, ":");
        ams_text_string(text, metadata[i].value);
    }
    ams_text_add(text, n_metadata ? "}" : "");
    for (uint64_t i = 0; i < n; i++) {
        add_entry(text, &outputs[i].info, at);
        at += outputs[i].info.bytes;
    }
    if (checksum) {
        ams_tensor sum = {.name = checksum_name, .dtype = ams_dtype_find("U64", 3), .rank = 1, .shape = {1},
                          .bytes = 8};
        add_entry(text, &sum, at);
    }
    ams_text_add(text, "}");
    while (text->status == ATMSAE_OK && text->length % 8 != 0)
        ams_text_add(text, " ");
    uint64_t size = text->length - 8;
    if (text->status == ATMSAE_OK && size > MAX_HEADER)
        text->status = ams_fail(text->ctx, ATMSAE_E_LIMIT, "a header of %llu bytes", (unsigned long long)size);
    if (text->status == ATMSAE_OK) memcpy(text->data, &size, sizeof size);
}

/* Appends a tensor whose rows are made on the way. */
static void append_filled(ams_writer *writer, const output *item, void *buffer, uint64_t rows, uint64_t row_bytes,
                          uint64_t block_rows)
{
    for (uint64_t first = 0; first < rows && writer->status == ATMSAE_OK; first += block_rows) {
        uint64_t n = ams_min(block_rows, rows - first);
        item->tensor->fill(item->tensor->arg, first, n, buffer);
        ams_writer_append(writer, buffer, n * row_bytes);
    }
}

static void append_tensor(ams_writer *writer, const output *item)
{
    if (item->tensor->data || item->info.bytes == 0) {
        ams_writer_append(writer, item->tensor->data, item->info.bytes);
        return;
    }
    /* 16 rows at least: a transposing fill then uses whole cache lines of its source. */
    uint64_t rows = item->info.rank ? item->info.shape[0] : 1;
    uint64_t row_bytes = item->info.bytes / rows;
    uint64_t block_rows = ams_min(rows, ams_max(16, (1 << 20) / row_bytes));
    void *buffer = ams_alloc(writer->ctx, block_rows, row_bytes);
    if (!buffer) {
        writer->status = ams_nomem(writer->ctx, writer->path);
        return;
    }
    append_filled(writer, item, buffer, rows, row_bytes, block_rows);
    ams_free(writer->ctx, buffer);
}

atmsae_status ams_safetensors_append(ams_writer *writer, const ams_tensor_out *tensors, uint64_t n_tensors,
                                     const ams_metadata_out *metadata, uint64_t n_metadata, bool checksum)
{
    atmsae_context *ctx = writer->ctx;
    uint64_t bytes = 0;
    ams_text header = {.ctx = ctx};
    output *outputs = ams_alloc(ctx, n_tensors, sizeof *outputs);
    atmsae_status status = outputs ? plan(ctx, outputs, tensors, n_tensors, !checksum, &bytes) : ams_nomem(ctx, writer->path);
    if (status == ATMSAE_OK) {
        compose(&header, outputs, n_tensors, metadata, n_metadata, checksum);
        status = header.status;
    }
    if (status == ATMSAE_OK) {
        ams_writer_reserve(writer, header.length + bytes + (checksum ? 8 : 0));
        ams_writer_append(writer, header.data, header.length);
        for (uint64_t i = 0; i < n_tensors; i++)
            append_tensor(writer, &outputs[i]);
        const uint64_t crc = writer->crc;
        if (checksum) ams_writer_append(writer, &crc, sizeof crc);
        status = writer->status;
    }
    ams_free(ctx, header.data);
    ams_free(ctx, outputs);
    return writer->status = status;
}

atmsae_status ams_safetensors_write(atmsae_context *ctx, const char *path, const ams_tensor_out *tensors,
                                    uint64_t n_tensors, const ams_metadata_out *metadata, uint64_t n_metadata,
                                    bool checksum)
{
    ams_writer writer;
    AMS_TRY(ams_writer_begin(&writer, ctx, path, checksum));
    ams_safetensors_append(&writer, tensors, n_tensors, metadata, n_metadata, checksum);
    return ams_writer_commit(&writer);
}
