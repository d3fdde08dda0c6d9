/* SPDX-License-Identifier: MIT
 *
 * Inside of a source, for lib/data only. A source is three layers: inputs (input.c), the stream of
 * their rows in order (stream.c), and the shuffle buffer over it (source.c).
 */
#ifndef AMS_SOURCE_H
#define AMS_SOURCE_H

#include "base/base.h"

/* What the system says of a file. While all of this stays, its bytes are taken to be the same. */
typedef struct ams_identity {
    uint64_t device, inode, bytes, seconds, nanoseconds; /* the last two: when it was changed */
} ams_identity;

/* CRC-64 of rows, which tell whether an input is still the one that it was. */
typedef struct ams_sample {
    uint64_t rows; /* of the first row, the last, and some between, see sample.c */
    uint64_t ends; /* of the first and the last: all that checkpoints of 0.1.0 have */
} ams_sample;

/* The two sides of an input: its rows, and the targets of a transcoder, row by row. A row of a source with targets is
 * one of either, side by side. */
enum { AMS_ROWS, AMS_TARGETS, AMS_SIDES };

typedef struct ams_side {
    int32_t type;       /* of its elements, as they are lent; 0: no targets */
    int32_t as_bf16;
    ams_sample sample;  /* callback: 0 */
    const char *memory; /* memory: rows, ld elements apart */
    uint64_t ld;
    char *path;         /* file: resolved when added */
    ams_identity identity; /* of the file when its rows were last found to be those of `sample` */
    uint64_t tensor;    /* its number in the file */
    uint64_t at, row_bytes; /* its place there, and what a row takes */
    bool by_columns;    /* no row is in one piece */
} ams_side;

typedef struct ams_input {
    uint64_t n_rows;    /* callback: rows read so far */
    uint64_t first_id;  /* rows of the seekable inputs before it */
    ams_side side[AMS_SIDES];
    int64_t (*read)(void *opaque, float *out, uint64_t max_rows); /* callback, which has no targets */
    void *opaque;
    bool ended;         /* the callback returned 0 */
} ams_input;

/* Reads the files of one side. */
typedef struct ams_reader {
    atmsae_tensors *open; /* the one file that is open, of input `open_input` */
    uint64_t open_input;
    char *block;   /* its rows block_first .. block_first + block_rows - 1 */
    uint64_t block_bytes, block_input, block_first, block_rows;
    uint64_t ahead; /* row of the pass up to which the kernel was asked to read */
} ams_reader;

/* What follows from the configuration and the inputs. */
typedef struct ams_plan {
    uint64_t passes;   /* UINT64_MAX: for ever */
    uint64_t rows;     /* of the seekable inputs in one pass */
    uint64_t capacity; /* slots of the shuffle buffer */
    int32_t type;      /* of the slots: the inputs' if they agree, else f32 (which holds them exactly) */
    bool streamed;     /* there is a callback */
} ams_plan;

/* The next row of the stream: row `row` of input `input` in pass `pass`. */
typedef struct ams_position {
    uint64_t pass, input, row;
} ams_position;

/* Rows of a pass are numbered through all inputs; of a callback's those that it gave count. */
#define AMS_NO_ID UINT64_MAX /* of a streamed row in a checkpoint of 0.1.0, which does not hold it */

typedef struct ams_buffer {
    char *slots;   /* [capacity, d] of plan.type */
    uint64_t *ids; /* [capacity]: row number within a pass, AMS_NO_ID if not known */
    char *row;     /* one row on its way from a slot to the caller */
} ams_buffer;

struct atmsae_source {
    atmsae_context *ctx;
    ams_use use;
    atmsae_source_config config;
    uint64_t d;                /* of a row: of all its sides */
    uint64_t width[AMS_SIDES]; /* 0: not known yet, or no targets */
    ams_input *inputs;
    uint64_t n_inputs, inputs_capacity;

    bool begun; /* rows were asked for: the plan stands, and what follows exists */
    ams_plan plan;
    ams_position position;
    ams_buffer buffer;
    uint64_t filled, draws; /* slots in use; rows drawn so far */
    uint64_t *last;         /* [n_last] ids of the rows handed out last */
    uint64_t n_last, last_capacity;
    uint64_t n_back;  /* how many of them can be put back: all, or 0 once they are */
    uint64_t n_fresh; /* how many of them, the first ones, left a slot that another row of the stream filled; the rest
                         drained the buffer */
    ams_position start;       /* of the stream before them */

    ams_reader reader[AMS_SIDES];

    /* The call that goes on: how far it has come, and how many of the held rows it has used. Until it succeeds
     * `position` and the held rows stay, so one that fails, or that a callback leaves by an exception, loses none. */
    ams_position at;
    uint64_t taken;
    float *held; /* rows got from callbacks that no call has handed out yet */
    uint64_t n_held, held_capacity;
};

/* Bytes read from a file at once, and rows of at most that size asked of a callback. */
enum { AMS_BLOCK_BYTES = 1 << 21 };
uint64_t ams_block_rows(uint64_t row_bytes);

/* input.c: writes up to `want` rows from `row` on of a memory or file input, each as d elements of `type`, `stride` bytes
 * apart. *count > 0: how many. */
atmsae_status ams_input_copy(atmsae_source *source, uint64_t input, uint64_t row, uint64_t want, int32_t type, char *out,
                             size_t stride, uint64_t *count);

/* sample.c */
atmsae_status ams_identify(atmsae_context *ctx, const char *path, int fd, ams_identity *out);
bool ams_is_same_file(const ams_identity *a, const ams_identity *b);
/* Of n_rows rows of d elements; tensors: the open file, NULL for rows in memory. */
atmsae_status ams_sample_rows(atmsae_context *ctx, const ams_side *side, uint64_t n_rows, const atmsae_tensors *tensors,
                              uint64_t d, ams_sample *out);

/* stream.c */
void ams_source_plan(const atmsae_source *source, ams_plan *plan);
/* E_STATE unless all inputs have targets, or none has. */
atmsae_status ams_source_check_targets(const atmsae_source *source);
/* Takes up to `want` rows off the stream, each as d elements of plan.type, `stride` bytes apart.
 * *got < want only at the end of the stream. On failure nothing was taken. */
atmsae_status ams_stream_take(atmsae_source *source, uint64_t want, char *out, size_t stride, uint64_t *got);
/* Writes d elements of `from` as `to`: the same type, or f32. */
void ams_copy_row(void *out, int32_t to, const void *in, int32_t from, uint64_t d);

/* state.c: reads n rows again by their numbers, of inputs that are all seekable, as elements of plan.type. */
atmsae_status ams_source_read(atmsae_source *source, const ams_plan *plan, const uint64_t *ids, uint64_t n, char *out);

/* source.c */
atmsae_status ams_buffer_create(const atmsae_source *source, const ams_plan *plan, ams_buffer *buffer);
void ams_buffer_free(const atmsae_source *source, ams_buffer *buffer);

#endif
