/* SPDX-License-Identifier: MIT
 *
 * Inputs of a source: adding them, and rows of those that can be read at any place. Only one file
 * is open at a time, because activations come in more shards than a process may open files.
 */
#include "data/source.h"

#include "format/tensors.h"
#include "kernels/kernels.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_D = 1 << 24 };
/* How far the kernel is asked to read ahead of what is read, at most: more than most batches. Some
 * kernels and file systems take no more than 128 KiB, the usual read-ahead window, at once. */
enum { AHEAD_BYTES = 1 << 26, AHEAD_FILES = 8, ADVICE_BYTES = 1 << 17 };
/* Blocks read at once where rows lie column by column, so that the pieces of a column are not too short. */
enum { COLUMN_BLOCKS = 16 };

uint64_t ams_block_rows(uint64_t row_bytes) { return ams_max(1, AMS_BLOCK_BYTES / row_bytes); }

/* ---- adding ---------------------------------------------------------------------------------- */

static atmsae_status check_width(const atmsae_source *source, const char *what, uint64_t d)
{
    if (d < 1 || d > MAX_D)
        return ams_fail(source->ctx, ATMSAE_E_ARG, "%s: rows of d = %llu elements, allowed 1 .. 2^24", what,
                        (unsigned long long)d);
    if (source->n_inputs > 0 && d != source->d)
        return ams_fail(source->ctx, ATMSAE_E_ARG, "%s: rows of d = %llu elements, but those of the inputs before it have %llu",
                        what, (unsigned long long)d, (unsigned long long)source->d);
    return ATMSAE_OK;
}

static atmsae_status check_open(atmsae_source *source)
{
    if (!source->begun) return ATMSAE_OK;
    return ams_fail(source->ctx, ATMSAE_E_STATE, "source: no input can be added after the first row was taken; rewind first");
}

static atmsae_status append(atmsae_source *source, uint64_t d, ams_input *input)
{
    ams_plan plan;
    ams_source_plan(source, &plan);
    input->first_id = plan.rows;
    if (input->n_rows > UINT64_MAX - plan.rows)
        return ams_fail(source->ctx, ATMSAE_E_LIMIT, "source: more than 2^64 - 1 rows in one pass");
    AMS_TRY(ams_grow(source->ctx, &source->inputs, &source->inputs_capacity, source->n_inputs + 1,
                     source->n_inputs, sizeof *source->inputs));
    source->inputs[source->n_inputs++] = *input;
    source->d = d;
    return ATMSAE_OK;
}

static atmsae_status add_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d, uint64_t ld,
                                int32_t type)
{
    AMS_TRY(check_open(source));
    atmsae_context *ctx = source->ctx;
    AMS_TRY(check_width(source, "rows in memory", d));
    if (ld == 0) ld = d;
    size_t size = ams_type_size(type);
    if (size == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "rows in memory: type = %d, expected ATMSAE_F32, F16 or BF16", (int)type);
    if (ld < d)
        return ams_fail(ctx, ATMSAE_E_ARG, "rows in memory: ld = %llu, expected at least d = %llu", (unsigned long long)ld,
                        (unsigned long long)d);
    if (!rows && n_rows > 0) return ams_fail(ctx, ATMSAE_E_ARG, "rows in memory: NULL");
    if ((uintptr_t)rows % size != 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "rows in memory: the address is not a multiple of the element size, %zu", size);
    uint64_t bytes;
    if (!ams_mul(ld, size, &bytes) || !ams_mul(bytes, n_rows, &bytes) || bytes > PTRDIFF_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "rows in memory: %llu rows, ld = %llu: more than memory can hold",
                        (unsigned long long)n_rows, (unsigned long long)ld);

    ams_input input = {.type = type, .n_rows = n_rows, .memory = rows, .ld = ld};
    AMS_TRY(ams_sample_input(ctx, &input, NULL, d, &input.sample));
    return append(source, d, &input);
}

atmsae_status atmsae_source_add_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d,
                                       uint64_t ld, int32_t type)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_memory(source, rows, n_rows, d, ld, type), AMS_CHANGES("source", source));
}

static atmsae_status add_callback(atmsae_source *source, uint64_t d, int64_t (*read)(void *opaque, float *out,
                                  uint64_t max_rows), void *opaque)
{
    AMS_TRY(check_open(source));
    AMS_TRY(check_width(source, "callback", d));
    if (!read) return ams_fail(source->ctx, ATMSAE_E_ARG, "callback: read is NULL");
    ams_input input = {.type = ATMSAE_F32, .read = read, .opaque = opaque};
    return append(source, d, &input);
}

atmsae_status atmsae_source_add_callback(atmsae_source *source, uint64_t d, int64_t (*read)(void *opaque, float *out,
                                         uint64_t max_rows), void *opaque)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_callback(source, d, read, opaque), AMS_CHANGES("source", source));
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Row type of a dtype, 0 if rows cannot have it. (bf16 in a .npy file, u2 or V2, reads as U16.) */
static int32_t row_type(const char *dtype, bool as_bf16)
{
    static const struct {
        char dtype[5];
        int32_t type;
    } types[] = {{"F32", ATMSAE_F32}, {"F16", ATMSAE_F16}, {"BF16", ATMSAE_BF16}, {"F64", ATMSAE_F32}, {"U16", ATMSAE_BF16}};
    enum { TYPES = sizeof types / sizeof *types };
    for (int i = 0; i < (as_bf16 ? TYPES : TYPES - 1); i++)
        if (strcmp(types[i].dtype, dtype) == 0) return types[i].type;
    return 0;
}

/* What is taken for rows where no name is given: "activations", whatever it holds, else the only 2-D tensor of a type
 * that is read as it is, else the only one that can be read at all. */
static atmsae_status find_tensor(atmsae_context *ctx, const atmsae_tensors *tensors, const char *path,
                                 const char *name, uint64_t *index)
{
    *index = ams_tensors_index(tensors, name ? name : "activations");
    if (*index < UINT64_MAX) return ATMSAE_OK;
    if (name) return ams_fail(ctx, ATMSAE_E_ARG, "%s: there is no tensor named \"%s\"", path, name);
    uint64_t candidates = 0;
    for (int wide = 0; wide < 2 && candidates == 0; wide++)
        for (uint64_t i = 0; i < tensors->count; i++) {
            const ams_tensor *t = &tensors->items[i];
            bool npy = t->name_length == 0 && tensors->count == 1; /* describe says what it has to be */
            if (!npy && (!row_type(t->dtype->name, false) || t->rank < 2)) continue;
            if (!npy && !wide && (t->rank > 2 || t->dtype->bits == 64)) continue;
            *index = i;
            candidates++;
        }
    if (candidates == 1) return ATMSAE_OK;
    if (candidates == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: none of its %llu tensors can be rows, which have 2 dimensions or more, of F32, F16, BF16 or F64",
                        path, (unsigned long long)tensors->count);
    return ams_fail(ctx, ATMSAE_E_ARG, "%s: %llu of its tensors can be rows, and none is named \"activations\"; name the one to read", path,
                    (unsigned long long)candidates);
}

/* Fills in what the file says: rows, width, type. */
static atmsae_status describe(atmsae_context *ctx, const atmsae_tensors *tensors, const char *path,
                              ams_input *input, uint64_t *d)
{
    if (input->tensor >= tensors->count)
        return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added", path);
    const ams_tensor *t = &tensors->items[input->tensor];
    bool npy = t->name[0] == '\0', words = npy && strcmp(t->dtype->name, "U16") == 0;
    char name[216];
    ams_format(name, sizeof name, npy ? "the array%s" : "tensor \"%.200s\"", t->name);
    input->type = row_type(t->dtype->name, npy && input->as_bf16);
    if (!input->type)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "%s: %s holds %s; rows are of F32, F16, BF16 or F64%s", path, name, t->dtype->name,
                        words ? ". If it is bfloat16, for which NumPy has no type, say so: as_bf16" : "");
    if (t->rank < 2)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: %s has %llu dimension%s; rows have 2 or more, such as [rows, d] or [sequences, tokens, d]",
                        path, name, (unsigned long long)t->rank, t->rank == 1 ? "" : "s");
    *d = t->shape[t->rank - 1];
    input->n_rows = *d ? t->count / *d : 0;
    input->at = t->at;
    input->row_bytes = *d * (t->dtype->bits / 8u);
    input->by_columns = t->column_major;
    return ATMSAE_OK;
}

/* The file's resolved name, so that a later chdir does no harm; as it is where it has none. */
static char *resolve(atmsae_context *ctx, const char *path)
{
    const size_t bytes = strlen(path) + 1;
    char *resolved = ams_alloc(ctx, ams_max(PATH_MAX, bytes), 1);
    if (resolved && !realpath(path, resolved)) memcpy(resolved, path, bytes);
    return resolved;
}

static atmsae_status add_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16)
{
    AMS_TRY(check_open(source));
    atmsae_context *ctx = source->ctx;
    if (!path) return ams_fail(ctx, ATMSAE_E_ARG, "path: NULL");
    if (as_bf16 != 0 && as_bf16 != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: as_bf16 = %d, expected 0 or 1", path, (int)as_bf16);
    ams_input input = {.as_bf16 = as_bf16};
    uint64_t d;
    atmsae_tensors *tensors;
    AMS_TRY(atmsae_tensors_open(ctx, path, &tensors));
    atmsae_status status;
    if ((status = find_tensor(ctx, tensors, path, tensor, &input.tensor)) < 0) goto done;
    if ((status = describe(ctx, tensors, path, &input, &d)) < 0) goto done;
    if ((status = check_width(source, path, d)) < 0) goto done;
    if ((status = ams_identify(ctx, path, tensors->fd, &input.identity)) < 0) goto done;
    if ((status = ams_sample_input(ctx, &input, tensors, d, &input.sample)) < 0) goto done;
    input.path = resolve(ctx, path);
    status = input.path ? append(source, d, &input) : ams_nomem(ctx, "a path");
    if (status < 0) ams_free(ctx, input.path);
done:
    atmsae_tensors_close(tensors);
    return status;
}

atmsae_status atmsae_source_add_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_file(source, path, tensor, as_bf16), AMS_CHANGES("source", source));
}

/* Does the open file hold the rows of the one that was added? One that nobody touched does; of any other
 * the rows decide, since a copy or a new date changes nothing. */
static atmsae_status check_unchanged(const atmsae_source *source, const atmsae_tensors *tensors, ams_input *input)
{
    atmsae_context *ctx = source->ctx;
    ams_input now = *input;
    uint64_t d = 0;
    AMS_TRY(describe(ctx, tensors, input->path, &now, &d));
    if (now.n_rows != input->n_rows || now.type != input->type || d != source->d)
        return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added: [%llu, %llu], it was [%llu, %llu]",
                        input->path, (unsigned long long)now.n_rows, (unsigned long long)d,
                        (unsigned long long)input->n_rows, (unsigned long long)source->d);
    AMS_TRY(ams_identify(ctx, input->path, tensors->fd, &now.identity));
    if (!ams_is_same_file(&now.identity, &input->identity)) {
        AMS_TRY(ams_sample_input(ctx, &now, tensors, d, &now.sample));
        if (now.sample.rows != input->sample.rows)
            return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added: other rows in the same "
                            "shape; put it back as it was, or start a new run", input->path);
    }
    *input = now; /* the same rows, perhaps in another form of file */
    return ATMSAE_OK;
}

/* The file is open, and nobody wrote to it since it was checked. */
static bool is_open(const atmsae_source *source, uint64_t index)
{
    const ams_input *input = &source->inputs[index];
    ams_identity now;
    return source->open && source->open_input == index &&
           ams_identify(source->ctx, input->path, source->open->fd, &now) == ATMSAE_OK &&
           ams_is_same_file(&now, &input->identity);
}

static atmsae_status open_file(atmsae_source *source, uint64_t index)
{
    if (is_open(source, index)) return ATMSAE_OK;
    ams_input *input = &source->inputs[index];
    atmsae_tensors_close(source->open);
    source->open = NULL;
    atmsae_tensors *tensors;
    AMS_TRY(atmsae_tensors_open(source->ctx, input->path, &tensors));
    atmsae_status status = check_unchanged(source, tensors, input);
    if (status < 0) {
        atmsae_tensors_close(tensors);
        return status;
    }
    source->open = tensors;
    source->open_input = index;
    return ATMSAE_OK;
}

/* Asks the kernel to read rows in the background, while a file is open. It is no more than a hint: a
 * file that cannot be had now gives its error when it is read. */
static void advise(const atmsae_source *source, uint64_t index, uint64_t first, uint64_t count)
{
    const ams_input *input = &source->inputs[index];
    if (!input->path || input->by_columns) return;
    bool opened = source->open_input == index;
    int fd = opened ? source->open->fd : open(input->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return;
    uint64_t end = input->at + (first + count) * input->row_bytes;
    for (uint64_t at = input->at + first * input->row_bytes; at < end; at += ADVICE_BYTES)
        posix_fadvise(fd, (off_t)at, (off_t)ams_min(ADVICE_BYTES, end - at), POSIX_FADV_WILLNEED);
    if (!opened) close(fd);
}

/* Has the stream behind the block read while the caller computes. Each row is asked for once (`ahead` is
 * where the last call ended), and for each block two: so the next batch is there when the caller comes
 * for it, and a disk's queue is not filled with what may not be wanted. */
static void read_ahead(atmsae_source *source)
{
    uint64_t index = source->block_input, row = source->block_first + source->block_rows;
    uint64_t row_bytes = source->d * ams_type_size(source->inputs[index].type);
    uint64_t first = source->inputs[index].first_id + row, end = first + AHEAD_BYTES / row_bytes;
    if (source->ahead >= first && source->ahead <= end) first = source->ahead;
    end = ams_min(end, first + 2 * ams_block_rows(row_bytes));
    for (int files = 0; files < AHEAD_FILES && index < source->n_inputs && !source->inputs[index].read; files++, index++) {
        const ams_input *input = &source->inputs[index];
        uint64_t last = ams_min(end, input->first_id + input->n_rows);
        if (first >= last) continue;
        advise(source, index, first - input->first_id, last - first);
        first = last;
    }
    source->ahead = first;
}

static atmsae_status load_block(atmsae_source *source, uint64_t index, uint64_t row)
{
    if (source->block_rows > 0 && source->block_input == index && row >= source->block_first &&
        row - source->block_first < source->block_rows)
        return ATMSAE_OK;
    const ams_input *input = &source->inputs[index];
    uint64_t row_bytes = source->d * ams_type_size(input->type);
    uint64_t count = ams_min(ams_block_rows(row_bytes) * (input->by_columns ? COLUMN_BLOCKS : 1), input->n_rows - row);
    AMS_TRY(open_file(source, index));
    AMS_TRY(ams_grow(source->ctx, &source->block, &source->block_bytes, count * row_bytes, 0, 1));
    source->block_rows = 0;
    atmsae_status status = ams_tensors_read_rows(source->open, input->tensor, row, count, source->block);
    if (status < 0) { /* open it anew when the call is repeated */
        atmsae_tensors_close(source->open);
        source->open = NULL;
        return status;
    }
    source->block_input = index;
    source->block_first = row;
    source->block_rows = count;
    read_ahead(source);
    return ATMSAE_OK;
}

atmsae_status ams_input_lend(atmsae_source *source, uint64_t index, uint64_t row, const char **rows,
                             uint64_t *count, size_t *stride)
{
    const ams_input *input = &source->inputs[index];
    size_t size = ams_type_size(input->type);
    if (!input->path) {
        *stride = (size_t)input->ld * size;
        *rows = input->memory + row * *stride;
        *count = input->n_rows - row;
        return ATMSAE_OK;
    }
    AMS_TRY(load_block(source, index, row));
    *stride = (size_t)source->d * size;
    *rows = source->block + (row - source->block_first) * *stride;
    *count = source->block_first + source->block_rows - row;
    return ATMSAE_OK;
}
