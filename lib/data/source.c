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
    for (uint64_t i = 0; i < source->n_inputs; i++)
        ams_free(ctx, source->inputs[i].path);
    ams_free(ctx, source->inputs);
    ams_buffer_free(source, &source->buffer);
    atmsae_tensors_close(source->open);
    ams_free(ctx, source->block);
    ams_free(ctx, source->held);
    ams_free(ctx, source);
    atmsae_context_destroy(ctx);
}

uint64_t atmsae_source_d(const atmsae_source *source) { return source ? source->d : 0; }

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
    buffer->slots = ams_alloc(source->ctx, plan->capacity, row_bytes);
    buffer->ids = plan->streamed ? NULL : ams_alloc(source->ctx, plan->capacity, sizeof *buffer->ids);
    buffer->row = ams_alloc(source->ctx, 1, row_bytes);
    if (buffer->slots && buffer->row && (plan->streamed || buffer->ids)) return ATMSAE_OK;
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

/* Number within a pass of the k-th row from a position, of a source that is not streamed and has rows. */
static uint64_t row_id(const atmsae_source *source, const ams_position *at, uint64_t k)
{
    uint64_t first = at->input < source->n_inputs ? source->inputs[at->input].first_id + at->row : 0;
    return (first % source->plan.rows + k % source->plan.rows) % source->plan.rows;
}

static atmsae_status begin(atmsae_source *source)
{
    if (source->begun) return ATMSAE_OK;
    ams_source_plan(source, &source->plan);
    AMS_TRY(ams_buffer_create(source, &source->plan, &source->buffer));
    source->begun = true;
    return ATMSAE_OK;
}

/* Fills empty slots as long as there are rows. What a failure interrupts, the next call goes on with. */
static atmsae_status fill(atmsae_source *source, size_t row_bytes)
{
    while (source->filled < source->plan.capacity) {
        ams_position start = source->position;
        uint64_t want = ams_min(source->plan.capacity - source->filled, ams_block_rows(row_bytes)), got;
        AMS_TRY(ams_stream_take(source, want, source->buffer.slots + source->filled * row_bytes, row_bytes, &got));
        if (source->buffer.ids)
            for (uint64_t i = 0; i < got; i++)
                source->buffer.ids[source->filled + i] = row_id(source, &start, i);
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
    if (n_rows == 0) return ATMSAE_OK;
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "atmsae_source_next: out is NULL");
    uint64_t bytes;
    if (!ams_mul(n_rows, source->d * sizeof(float), &bytes) || bytes > PTRDIFF_MAX)
        return ams_fail(ctx, ATMSAE_E_LIMIT, "atmsae_source_next: %llu rows of %llu floats: more than memory can hold",
                        (unsigned long long)n_rows, (unsigned long long)source->d);

    AMS_TRY(begin(source));
    const ams_buffer *buffer = &source->buffer;
    const ams_plan *plan = &source->plan;
    size_t row_bytes = (size_t)source->d * ams_type_size(plan->type);
    AMS_TRY(fill(source, row_bytes));

    /* First everything that can fail: the rows that will take the places of those handed out, in
     * their own type, where the caller's rows will be. Then each changes places with a slot's. */
    ams_position start = source->position;
    uint64_t fresh, done = 0;
    AMS_TRY(ams_stream_take(source, n_rows, (char *)out, (size_t)source->d * sizeof(float), &fresh));
    for (; done < fresh; done++) {
        char *row = (char *)(out + done * source->d), *slot = row;
        if (plan->capacity > 0) {
            uint64_t i = draw(source);
            slot = buffer->slots + i * row_bytes;
            if (buffer->ids) buffer->ids[i] = row_id(source, &start, done);
        }
        memcpy(buffer->row, slot, row_bytes);
        if (slot != row) memcpy(slot, row, row_bytes);
        ams_to_f32((float *)row, buffer->row, plan->type, source->d);
    }
    /* The stream has ended: the buffer drains, its last slot closing each gap. */
    for (; done < n_rows && source->filled > 0; done++) {
        uint64_t slot = draw(source), last = --source->filled;
        ams_to_f32(out + done * source->d, buffer->slots + slot * row_bytes, plan->type, source->d);
        if (slot == last) continue;
        memcpy(buffer->slots + slot * row_bytes, buffer->slots + last * row_bytes, row_bytes);
        if (buffer->ids) buffer->ids[slot] = buffer->ids[last];
    }
    *got = done;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_next(atmsae_source *source, uint64_t n_rows, float *out, uint64_t *got)
{
    if (got) *got = 0;
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, next(source, n_rows, out, got), AMS_CHANGES("source", source));
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
    source->filled = source->draws = 0;
    return ATMSAE_OK;
}

atmsae_status atmsae_source_rewind(atmsae_source *source)
{
    if (!source) return ATMSAE_E_ARG;
    AMS_CALL(source->ctx, rewind_to_start(source), AMS_CHANGES("source", source));
}
