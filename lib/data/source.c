/* SPDX-License-Identifier: MIT
 *
 * Sources: life, and the shuffle buffer. The n-th row handed out comes from a slot that only the
 * seed, n and the number of filled slots decide; the next row of the stream takes its place.
 */
#include "data/source.h"

#include "kernels/kernels.h"

#include <string.h>

void atmsae_source_config_init(atmsae_source_config *config, size_t size)
{
    static const atmsae_source_config defaults = {.shuffle_rows = 65536};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status create(atmsae_context *ctx, const atmsae_source_config *caller, atmsae_source **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_source_create: out is NULL");
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    AMS_TRY(ams_struct_in(ctx, atmsae_source_config, &config, caller));
    atmsae_source *source = ams_calloc(ctx, 1, sizeof *source);
    if (!source) return ams_nomem(ctx, "a source");
    source->ctx = ams_context_ref(ctx);
    source->config = config;
    *out = source;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_create(atmsae_context *ctx, const atmsae_source_config *caller, atmsae_source **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, caller, out));
}

void atmsae_source_destroy(atmsae_source *source)
{
    if (!source) return;
    atmsae_context *ctx = source->ctx;
    for (int s = 0; s < AMS_SIDES; s++) {
        for (uint64_t i = 0; i < source->n_inputs; i++)
            ams_free(ctx, source->inputs[i].side[s].path);
        atmsae_tensors_close(source->reader[s].open);
        ams_free(ctx, source->reader[s].block);
    }
    ams_free(ctx, source->inputs);
    ams_buffer_free(source, &source->buffer);
    ams_free(ctx, source->held);
    ams_free(ctx, source->last);
    ams_free(ctx, source);
    atmsae_context_destroy(ctx);
}

uint64_t atmsae_source_d(const atmsae_source *source) { return source ? source->width[AMS_ROWS] : 0; }
uint64_t atmsae_source_d_target(const atmsae_source *source) { return source ? source->width[AMS_TARGETS] : 0; }

uint64_t atmsae_source_rows(const atmsae_source *source)
{
    if (!source) return 0;
    ams_plan plan;
    ams_source_plan(source, &plan);
    return plan.streamed ? 0 : plan.rows;
}

atmsae_status ams_buffer_create(const atmsae_source *source, const ams_plan *plan, ams_buffer *buffer)
{
    size_t row_bytes = (size_t)source->d * ams_type_size(plan->type);
    if ((buffer->slots = ams_alloc(source->ctx, plan->capacity, row_bytes)) != NULL &&
        (buffer->ids = ams_alloc(source->ctx, plan->capacity, sizeof *buffer->ids)) != NULL &&
        (buffer->row = ams_alloc(source->ctx, 1, row_bytes)) != NULL)
        return ATMSAE_OK;
    ams_buffer_free(source, buffer);
    return ams_fail(source->ctx, ATMSAE_E_NOMEM, "out of memory for a shuffle buffer of %llu rows of %zu bytes",
                    (unsigned long long)plan->capacity, row_bytes);
}

void ams_buffer_free(const atmsae_source *source, ams_buffer *buffer)
{
    ams_free(source->ctx, buffer->slots);
    ams_free(source->ctx, buffer->ids);
    ams_free(source->ctx, buffer->row);
    *buffer = (ams_buffer){0};
}

/* Number within a pass of the row at a position. A callback before it has ended: its rows are counted. */
static uint64_t id_at(const atmsae_source *source, const ams_position *at)
{
    uint64_t id = at->row;
    for (uint64_t i = 0; i < at->input; i++)
        id += source->inputs[i].n_rows;
    return id;
}

/* Of the k-th row from there; a streamed source makes one pass only. */
static uint64_t id_after(const atmsae_source *source, uint64_t id, uint64_t k)
{
    return source->plan.streamed ? id + k : (id + k) % source->plan.rows;
}

static atmsae_status begin(atmsae_source *source)
{
    if (source->begun) return ATMSAE_OK;
    AMS_TRY(ams_source_check_targets(source));
    ams_source_plan(source, &source->plan);
    AMS_TRY(ams_buffer_create(source, &source->plan, &source->buffer));
    source->begun = true;
    return ATMSAE_OK;
}

/* Fills empty slots as long as there are rows. What a failure interrupts, the next call goes on with. */
static atmsae_status fill(atmsae_source *source, size_t row_bytes)
{
    while (source->filled < source->plan.capacity) {
        const uint64_t id = id_at(source, &source->position);
        uint64_t want = ams_min(source->plan.capacity - source->filled, ams_block_rows(row_bytes)), got;
        AMS_TRY(ams_stream_take(source, want, source->buffer.slots + source->filled * row_bytes, row_bytes, &got));
        for (uint64_t i = 0; i < got; i++)
            source->buffer.ids[source->filled + i] = id_after(source, id, i);
        source->filled += got;
        if (got < want) break;
    }
    return ATMSAE_OK;
}

/* A slot below `filled` < 2^32: 64 random bits times filled, divided by 2^64. */
static uint64_t draw(atmsae_source *source)
{
    uint32_t words[4];
    ams_philox(source->config.seed, AMS_DRAW_SHUFFLE, 0, source->draws++, words);
    return (words[0] * source->filled + (words[1] * source->filled >> 32)) >> 32;
}

static atmsae_status next(atmsae_source *source, uint64_t n_rows, float *out, uint64_t *got)
{
    atmsae_context *ctx = source->ctx;
    if (!got) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_source_next: got is NULL");
    if (source->n_inputs == 0) return ams_fail(ctx, ATMSAE_E_STATE, "source: it has no input yet");
    if (n_rows == 0) {
        source->n_last = source->n_back = 0;
        return ATMSAE_OK;
    }
    AMS_CHECK_ARRAY(ctx, "atmsae_source_next: out", out);
    uint64_t bytes;
    if (!ams_mul(n_rows, source->d * sizeof(float), &bytes) || bytes > PTRDIFF_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "atmsae_source_next: %llu rows of %llu floats: more than memory can hold",
                        (unsigned long long)n_rows, (unsigned long long)source->d);

    source->n_back = 0;
    AMS_TRY(begin(source));
    const ams_buffer *buffer = &source->buffer;
    const ams_plan *plan = &source->plan;
    size_t row_bytes = (size_t)source->d * ams_type_size(plan->type);
    AMS_TRY(fill(source, row_bytes));
    AMS_TRY(ams_grow(ctx, &source->last, &source->last_capacity, n_rows, source->n_last, sizeof *source->last));

    /* First everything that can fail: the rows that will take the places of those handed out, in
     * their own type, where the caller's rows will be. Then each changes places with a slot's. */
    const uint64_t first = id_at(source, &source->position);
    const ams_position start = source->position;
    uint64_t fresh, done = 0;
    AMS_TRY(ams_stream_take(source, n_rows, (char *)out, (size_t)source->d * sizeof(float), &fresh));
    for (; done < fresh; done++) {
        char *row = (char *)(out + done * source->d), *slot = row;
        uint64_t *last = &source->last[done];
        *last = id_after(source, first, done);
        if (plan->capacity > 0) {
            uint64_t i = draw(source), id = buffer->ids[i];
            slot = buffer->slots + i * row_bytes;
            buffer->ids[i] = *last;
            *last = id;
        }
        memcpy(buffer->row, slot, row_bytes);
        if (slot != row) memcpy(slot, row, row_bytes);
        ams_to_f32((float *)row, buffer->row, plan->type, source->d);
    }
    /* The stream has ended: the buffer drains, its last slot closing each gap. */
    for (; done < n_rows && source->filled > 0; done++) {
        uint64_t slot = draw(source), last = --source->filled;
        ams_to_f32(out + done * source->d, buffer->slots + slot * row_bytes, plan->type, source->d);
        source->last[done] = buffer->ids[slot];
        if (slot == last) continue;
        memcpy(buffer->slots + slot * row_bytes, buffer->slots + last * row_bytes, row_bytes);
        buffer->ids[slot] = buffer->ids[last];
    }
    *got = source->n_last = source->n_back = done;
    source->n_fresh = fresh;
    source->start = start;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_next(atmsae_source *source, uint64_t n_rows, float *out, uint64_t *got)
{
    if (got) *got = 0;
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, next(source, n_rows, out, got), AMS_CHANGES("source", source));
}

/* The draws are taken back, the newest first: the slot gets the row that it gave. What it has had since goes to where
 * it came from, the stream or, once that has ended, the end of the buffer. */
static atmsae_status unread(atmsae_source *source)
{
    atmsae_context *ctx = source->ctx;
    const ams_plan *plan = &source->plan;
    const ams_buffer *buffer = &source->buffer;
    const uint64_t n = source->n_back;
    if (n == 0)
        return ams_fail(ctx, ATMSAE_E_STATE, "source_unread: no rows to put back: none were handed out since the source was made, "
                        "rewound or restored, or they are back already");
    if (plan->streamed) return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "source_unread: a callback's rows cannot be put back");
    const size_t row_bytes = (size_t)source->d * ams_type_size(plan->type);
    char *rows = ams_alloc(ctx, n, row_bytes);
    if (!rows) return ams_nomem(ctx, "rows to put back");
    const atmsae_status status = ams_source_read(source, plan, source->last, n, rows);
    for (uint64_t k = n; status == ATMSAE_OK && plan->capacity > 0 && k-- > 0;) {
        const bool drained = k >= source->n_fresh;
        source->filled += drained;
        source->draws--;
        const uint64_t slot = draw(source), end = source->filled - 1;
        source->draws--;
        if (drained && slot != end) {
            memcpy(buffer->slots + end * row_bytes, buffer->slots + slot * row_bytes, row_bytes);
            buffer->ids[end] = buffer->ids[slot];
        }
        memcpy(buffer->slots + slot * row_bytes, rows + k * row_bytes, row_bytes);
        buffer->ids[slot] = source->last[k];
    }
    ams_free(ctx, rows);
    if (status < 0) return status;
    source->position = source->start;
    source->n_back = 0;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_unread(atmsae_source *source)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, unread(source), AMS_CHANGES("source", source));
}

static atmsae_status locate(const atmsae_source *source, uint64_t row, atmsae_row_origin *out)
{
    atmsae_context *ctx = source->ctx;
    AMS_TRY(ams_struct_check(ctx, atmsae_row_origin, out));
    if (row >= source->n_last)
        return ams_fail(ctx, ATMSAE_E_ARG, "source_locate: row %llu, but the last call of source_next gave %llu rows",
                        (unsigned long long)row, (unsigned long long)source->n_last);
    if (source->last[row] == AMS_NO_ID)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "source_locate: row %llu came from a checkpoint of version 0.1.0, which "
                        "does not say where a callback's rows come from", (unsigned long long)row);
    atmsae_row_origin local = {.size = sizeof local, .row = source->last[row]};
    while (local.row >= source->inputs[local.input].n_rows)
        local.row -= source->inputs[local.input++].n_rows;
    local.path = source->inputs[local.input].side[AMS_ROWS].path;
    local.target_path = source->inputs[local.input].side[AMS_TARGETS].path;
    return ams_struct_out(ctx, atmsae_row_origin, out, &local);
}

atmsae_status atmsae_source_locate(const atmsae_source *source, uint64_t row, atmsae_row_origin *origin)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, locate(source, row, origin), AMS_READS("source", source));
}

static atmsae_status rewind_to_start(atmsae_source *source)
{
    for (uint64_t i = 0; i < source->n_inputs; i++)
        if (source->inputs[i].read && (source->inputs[i].n_rows > 0 || source->inputs[i].ended))
            return ams_fail(source->ctx, ATMSAE_E_UNSUPPORTED, "source: input %llu is a callback that was read; it cannot be read again",
                            (unsigned long long)i);
    ams_buffer_free(source, &source->buffer);
    source->begun = false;
    source->position = (ams_position){0};
    source->filled = source->draws = source->n_back = 0;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_rewind(atmsae_source *source)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, rewind_to_start(source), AMS_CHANGES("source", source));
}
