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

static const char *const side_names[AMS_SIDES] = {"rows", "targets"};
static const char *const in_memory[AMS_SIDES] = {"rows in memory", "targets in memory"};

static const char *name_of(const ams_side *side, int s) { return side->path ? side->path : in_memory[s]; }

static atmsae_status check_width(const atmsae_source *source, int s, const char *what, uint64_t d)
{
    if (d < 1 || d > MAX_D)
        return ams_fail(source->ctx, ATMSAE_E_ARG, "%s: %s of d = %llu elements, allowed 1 .. 2^24", what, side_names[s],
                        (unsigned long long)d);
    if (source->width[s] > 0 && d != source->width[s])
        return ams_fail(source->ctx, ATMSAE_E_ARG, "%s: %s of d = %llu elements, but those of the inputs before it have %llu",
                        what, side_names[s], (unsigned long long)d, (unsigned long long)source->width[s]);
    return ATMSAE_OK;
}

/* Can rows, or targets of the input that was added last, be added now? */
static atmsae_status check_open(const atmsae_source *source, int s)
{
    if (source->begun)
        return ams_fail(source->ctx, ATMSAE_E_STATE, "source: no input can be added after the first row was taken; rewind first");
    if (s == AMS_ROWS) return ATMSAE_OK;
    if (source->n_inputs == 0)
        return ams_fail(source->ctx, ATMSAE_E_STATE, "source: targets belong to the input that was added last, and there is none yet");
    const ams_input *last = &source->inputs[source->n_inputs - 1];
    if (last->read)
        return ams_fail(source->ctx, ATMSAE_E_UNSUPPORTED, "source: a callback's input takes no targets; it may give rows that are an input "
                        "and its targets side by side");
    if (last->side[AMS_TARGETS].type)
        return ams_fail(source->ctx, ATMSAE_E_STATE, "source: %s has its targets already", name_of(&last->side[AMS_ROWS], AMS_ROWS));
    return ATMSAE_OK;
}

atmsae_status ams_source_check_targets(const atmsae_source *source)
{
    for (uint64_t i = 0; source->width[AMS_TARGETS] && i < source->n_inputs; i++)
        if (!source->inputs[i].side[AMS_TARGETS].type)
            return ams_fail(source->ctx, ATMSAE_E_STATE, "source: input %llu (%s) has no targets, but others have: add them right after it",
                            (unsigned long long)i, source->inputs[i].read ? "callback" : name_of(&source->inputs[i].side[AMS_ROWS], AMS_ROWS));
    return ATMSAE_OK;
}

static void set_width(atmsae_source *source, int s, uint64_t d)
{
    source->width[s] = d;
    source->d = source->width[AMS_ROWS] + source->width[AMS_TARGETS];
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
    set_width(source, AMS_ROWS, d);
    return ATMSAE_OK;
}

/* A new input, or one side more of the last one. */
static atmsae_status append_side(atmsae_source *source, int s, uint64_t d, const ams_side *side, uint64_t n_rows)
{
    if (s == AMS_ROWS) {
        ams_input input = {.n_rows = n_rows, .side = {*side}};
        return append(source, d, &input);
    }
    ams_input *last = &source->inputs[source->n_inputs - 1];
    if (n_rows != last->n_rows)
        return ams_fail(source->ctx, ATMSAE_E_ARG, "%s has %llu targets, but %s has %llu rows: they belong together by their numbers, so there "
                        "must be as many", name_of(side, s), (unsigned long long)n_rows, name_of(&last->side[AMS_ROWS], AMS_ROWS),
                        (unsigned long long)last->n_rows);
    last->side[s] = *side;
    set_width(source, s, d);
    return ATMSAE_OK;
}

static atmsae_status add_memory(atmsae_source *source, int s, const void *rows, uint64_t n_rows, uint64_t d, uint64_t ld,
                                int32_t type)
{
    AMS_TRY(check_open(source, s));
    atmsae_context *ctx = source->ctx;
    AMS_TRY(check_width(source, s, in_memory[s], d));
    if (ld == 0) ld = d;
    size_t size = ams_type_size(type);
    if (size == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: type = %d, expected ATMSAE_F32, F16 or BF16", in_memory[s], (int)type);
    if (ld < d)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: ld = %llu, expected at least d = %llu", in_memory[s], (unsigned long long)ld,
                        (unsigned long long)d);
    if (!rows && n_rows > 0) return ams_fail(ctx, ATMSAE_E_ARG, "%s: NULL", in_memory[s]);
    if ((uintptr_t)rows % size != 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: the address is not a multiple of the element size, %zu", in_memory[s], size);
    uint64_t bytes;
    if (!ams_mul(ld, size, &bytes) || !ams_mul(bytes, n_rows, &bytes) || bytes > PTRDIFF_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "%s: %llu rows, ld = %llu: more than memory can hold", in_memory[s],
                        (unsigned long long)n_rows, (unsigned long long)ld);

    ams_side side = {.type = type, .memory = rows, .ld = ld};
    AMS_TRY(ams_sample_rows(ctx, &side, n_rows, NULL, d, &side.sample));
    return append_side(source, s, d, &side, n_rows);
}

atmsae_status atmsae_source_add_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d,
                                       uint64_t ld, int32_t type)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_memory(source, AMS_ROWS, rows, n_rows, d, ld, type), AMS_CHANGES("source", source));
}

atmsae_status atmsae_source_add_target_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d,
                                              uint64_t ld, int32_t type)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_memory(source, AMS_TARGETS, rows, n_rows, d, ld, type), AMS_CHANGES("source", source));
}

static atmsae_status add_callback(atmsae_source *source, uint64_t d, int64_t (*read)(void *opaque, float *out,
                                  uint64_t max_rows), void *opaque)
{
    AMS_TRY(check_open(source, AMS_ROWS));
    AMS_TRY(check_width(source, AMS_ROWS, "callback", d));
    if (!read) return ams_fail(source->ctx, ATMSAE_E_ARG, "callback: read is NULL");
    ams_input input = {.side = {{.type = ATMSAE_F32}}, .read = read, .opaque = opaque};
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

/* Fills in what the file says: type, place, width and number of rows. */
static atmsae_status describe(atmsae_context *ctx, const atmsae_tensors *tensors, const char *path,
                              ams_side *side, uint64_t *d, uint64_t *n_rows)
{
    if (side->tensor >= tensors->count)
        return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added", path);
    const ams_tensor *t = &tensors->items[side->tensor];
    bool npy = t->name[0] == '\0', words = npy && strcmp(t->dtype->name, "U16") == 0;
    char name[216];
    ams_format(name, sizeof name, npy ? "the array%s" : "tensor \"%.200s\"", t->name);
    side->type = row_type(t->dtype->name, npy && side->as_bf16);
    if (!side->type)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "%s: %s holds %s; rows are of F32, F16, BF16 or F64%s", path, name, t->dtype->name,
                        words ? ". If it is bfloat16, for which NumPy has no type, say so: as_bf16" : "");
    if (t->rank < 2)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: %s has %llu dimension%s; rows have 2 or more, such as [rows, d] or [sequences, tokens, d]",
                        path, name, (unsigned long long)t->rank, t->rank == 1 ? "" : "s");
    *d = t->shape[t->rank - 1];
    *n_rows = *d ? t->count / *d : 0;
    side->at = t->at;
    side->row_bytes = *d * (t->dtype->bits / 8u);
    side->by_columns = t->column_major;
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

static atmsae_status add_file(atmsae_source *source, int s, const char *path, const char *tensor, int32_t as_bf16)
{
    AMS_TRY(check_open(source, s));
    atmsae_context *ctx = source->ctx;
    if (!path) return ams_fail(ctx, ATMSAE_E_ARG, "path: NULL");
    if (as_bf16 != 0 && as_bf16 != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "%s: as_bf16 = %d, expected 0 or 1", path, (int)as_bf16);
    ams_side side = {.as_bf16 = as_bf16};
    uint64_t d, n_rows;
    atmsae_tensors *tensors;
    AMS_TRY(atmsae_tensors_open(ctx, path, &tensors));
    atmsae_status status;
    if ((status = find_tensor(ctx, tensors, path, tensor, &side.tensor)) < 0) goto done;
    if ((status = describe(ctx, tensors, path, &side, &d, &n_rows)) < 0) goto done;
    if ((status = check_width(source, s, path, d)) < 0) goto done;
    if ((status = ams_identify(ctx, path, tensors->fd, &side.identity)) < 0) goto done;
    if ((status = ams_sample_rows(ctx, &side, n_rows, tensors, d, &side.sample)) < 0) goto done;
    side.path = resolve(ctx, path);
    status = side.path ? append_side(source, s, d, &side, n_rows) : ams_nomem(ctx, "a path");
    if (status < 0) ams_free(ctx, side.path);
done:
    atmsae_tensors_close(tensors);
    return status;
}

atmsae_status atmsae_source_add_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_file(source, AMS_ROWS, path, tensor, as_bf16), AMS_CHANGES("source", source));
}

atmsae_status atmsae_source_add_target_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, add_file(source, AMS_TARGETS, path, tensor, as_bf16), AMS_CHANGES("source", source));
}

/* ---- reading ----------------------------------------------------------------------------------- */

/* Does the open file hold the rows of the one that was added? One that nobody touched does; of any other
 * the rows decide, since a copy or a new date changes nothing. */
static atmsae_status check_unchanged(const atmsae_source *source, int s, const atmsae_tensors *tensors, ams_input *input)
{
    atmsae_context *ctx = source->ctx;
    ams_side *side = &input->side[s], now = *side;
    uint64_t d = 0, n_rows = 0;
    AMS_TRY(describe(ctx, tensors, side->path, &now, &d, &n_rows));
    if (n_rows != input->n_rows || now.type != side->type || d != source->width[s])
        return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added: [%llu, %llu], it was [%llu, %llu]",
                        side->path, (unsigned long long)n_rows, (unsigned long long)d,
                        (unsigned long long)input->n_rows, (unsigned long long)source->width[s]);
    AMS_TRY(ams_identify(ctx, side->path, tensors->fd, &now.identity));
    if (!ams_is_same_file(&now.identity, &side->identity)) {
        AMS_TRY(ams_sample_rows(ctx, &now, n_rows, tensors, d, &now.sample));
        if (now.sample.rows != side->sample.rows)
            return ams_fail(ctx, ATMSAE_E_STATE, "%s: the file has changed since it was added: other rows in the same "
                            "shape; put it back as it was, or start a new run", side->path);
    }
    *side = now; /* the same rows, perhaps in another form of file */
    return ATMSAE_OK;
}

/* The file is open, and nobody wrote to it since it was checked. */
static bool is_open(const atmsae_source *source, int s, uint64_t index)
{
    const ams_reader *reader = &source->reader[s];
    const ams_side *side = &source->inputs[index].side[s];
    ams_identity now;
    return reader->open && reader->open_input == index &&
           ams_identify(source->ctx, side->path, reader->open->fd, &now) == ATMSAE_OK &&
           ams_is_same_file(&now, &side->identity);
}

static atmsae_status open_file(atmsae_source *source, int s, uint64_t index)
{
    if (is_open(source, s, index)) return ATMSAE_OK;
    ams_reader *reader = &source->reader[s];
    ams_input *input = &source->inputs[index];
    atmsae_tensors_close(reader->open);
    reader->open = NULL;
    atmsae_tensors *tensors;
    AMS_TRY(atmsae_tensors_open(source->ctx, input->side[s].path, &tensors));
    atmsae_status status = check_unchanged(source, s, tensors, input);
    if (status < 0) {
        atmsae_tensors_close(tensors);
        return status;
    }
    reader->open = tensors;
    reader->open_input = index;
    return ATMSAE_OK;
}

/* Asks the kernel to read rows in the background, while a file is open. It is no more than a hint: a
 * file that cannot be had now gives its error when it is read. */
static void advise(const atmsae_source *source, int s, uint64_t index, uint64_t first, uint64_t count)
{
    const ams_reader *reader = &source->reader[s];
    const ams_side *side = &source->inputs[index].side[s];
    if (!side->path || side->by_columns) return;
    bool opened = reader->open_input == index;
    int fd = opened ? reader->open->fd : open(side->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return;
    uint64_t end = side->at + (first + count) * side->row_bytes;
    for (uint64_t at = side->at + first * side->row_bytes; at < end; at += ADVICE_BYTES)
        posix_fadvise(fd, (off_t)at, (off_t)ams_min(ADVICE_BYTES, end - at), POSIX_FADV_WILLNEED);
    if (!opened) close(fd);
}

/* Has the stream behind the block read while the caller computes. Each row is asked for once (`ahead` is
 * where the last call ended), and for each block two: so the next batch is there when the caller comes
 * for it, and a disk's queue is not filled with what may not be wanted. */
static void read_ahead(atmsae_source *source, int s)
{
    ams_reader *reader = &source->reader[s];
    uint64_t index = reader->block_input, row = reader->block_first + reader->block_rows;
    uint64_t row_bytes = source->width[s] * ams_type_size(source->inputs[index].side[s].type);
    uint64_t first = source->inputs[index].first_id + row, end = first + AHEAD_BYTES / row_bytes;
    if (reader->ahead >= first && reader->ahead <= end) first = reader->ahead;
    end = ams_min(end, first + 2 * ams_block_rows(row_bytes));
    for (int files = 0; files < AHEAD_FILES && index < source->n_inputs && !source->inputs[index].read; files++, index++) {
        const ams_input *input = &source->inputs[index];
        uint64_t last = ams_min(end, input->first_id + input->n_rows);
        if (first >= last) continue;
        advise(source, s, index, first - input->first_id, last - first);
        first = last;
    }
    reader->ahead = first;
}

static atmsae_status load_block(atmsae_source *source, int s, uint64_t index, uint64_t row)
{
    ams_reader *reader = &source->reader[s];
    if (reader->block_rows > 0 && reader->block_input == index && row >= reader->block_first &&
        row - reader->block_first < reader->block_rows)
        return ATMSAE_OK;
    const ams_input *input = &source->inputs[index];
    const ams_side *side = &input->side[s];
    uint64_t row_bytes = source->width[s] * ams_type_size(side->type);
    uint64_t count = ams_min(ams_block_rows(row_bytes) * (side->by_columns ? COLUMN_BLOCKS : 1), input->n_rows - row);
    AMS_TRY(open_file(source, s, index));
    AMS_TRY(ams_grow(source->ctx, &reader->block, &reader->block_bytes, count * row_bytes, 0, 1));
    reader->block_rows = 0;
    atmsae_status status = ams_tensors_read_rows(reader->open, side->tensor, row, count, reader->block);
    if (status < 0) { /* open it anew when the call is repeated */
        atmsae_tensors_close(reader->open);
        reader->open = NULL;
        return status;
    }
    reader->block_input = index;
    reader->block_first = row;
    reader->block_rows = count;
    read_ahead(source, s);
    return ATMSAE_OK;
}

/* *count > 0 rows of one side, *stride bytes apart; lent until the next call for that side. */
static atmsae_status lend(atmsae_source *source, int s, uint64_t index, uint64_t row, const char **rows, uint64_t *count,
                          size_t *stride)
{
    const ams_input *input = &source->inputs[index];
    const ams_side *side = &input->side[s];
    const ams_reader *reader = &source->reader[s];
    size_t size = ams_type_size(side->type);
    if (!side->path) {
        *stride = (size_t)side->ld * size;
        *rows = side->memory + row * *stride;
        *count = input->n_rows - row;
        return ATMSAE_OK;
    }
    AMS_TRY(load_block(source, s, index, row));
    *stride = (size_t)source->width[s] * size;
    *rows = reader->block + (row - reader->block_first) * *stride;
    *count = reader->block_first + reader->block_rows - row;
    return ATMSAE_OK;
}

atmsae_status ams_input_copy(atmsae_source *source, uint64_t index, uint64_t row, uint64_t want, int32_t type, char *out,
                             size_t stride, uint64_t *count)
{
    const int sides = source->width[AMS_TARGETS] ? AMS_SIDES : 1;
    const char *rows[AMS_SIDES] = {0};
    size_t strides[AMS_SIDES] = {0};
    *count = want;
    for (int s = 0; s < sides; s++) {
        uint64_t here;
        AMS_TRY(lend(source, s, index, row, &rows[s], &here, &strides[s]));
        *count = ams_min(*count, here);
    }
    for (uint64_t i = 0; i < *count; i++)
        for (int s = 0; s < sides; s++)
            ams_copy_row(out + i * stride + (s == AMS_ROWS ? 0 : source->width[AMS_ROWS] * ams_type_size(type)), type,
                         rows[s] + i * strides[s], source->inputs[index].side[s].type, source->width[s]);
    return ATMSAE_OK;
}
