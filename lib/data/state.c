/* SPDX-License-Identifier: MIT
 *
 * Saving and restoring a source. Everything that follows from the inputs is compared, not trusted:
 * a run that goes on with other data should stop with a reason, not train on.
 */
#include "data/data.h"
#include "data/source.h"

#include "format/format.h"
#include "kernels/kernels.h"

#include <string.h>

/* Words of `position`; some for each input follow: type (0: callback), rows, and the CRC of a sample of
 * the rows (callback: 1 once it has ended). In layout 1, of version 0.1.0, the CRC is of the first and last
 * row only, and a source with a callback has no ids. Layout 3 is of sources with targets: type and CRC of those
 * follow. */
enum { LAYOUT, D, SEED, CAPACITY, N_INPUTS, PASS, INPUT, ROW, DRAWS, FILLED, HELD, HEAD };
enum { LAYOUT_1 = 1, LAYOUT_2, LAYOUT_3 };
enum { MOST_WORDS = 5 };

static uint64_t input_words(uint64_t layout) { return layout == LAYOUT_3 ? 5 : 3; }

static void fill_words(const ams_input *input, uint64_t layout, uint64_t words[MOST_WORDS])
{
    const ams_side *rows = &input->side[AMS_ROWS], *targets = &input->side[AMS_TARGETS];
    words[0] = input->read ? 0 : (uint64_t)rows->type;
    words[1] = input->n_rows;
    words[2] = input->read ? input->ended : layout == LAYOUT_1 ? rows->sample.ends : rows->sample.rows;
    if (layout != LAYOUT_3) return;
    words[3] = (uint64_t)targets->type;
    words[4] = targets->sample.rows;
}

ams_use *ams_source_use(const atmsae_source *source) { return (ams_use *)(uintptr_t)&source->use; }

atmsae_status ams_source_state_save(const atmsae_source *source, ams_source_state *state)
{
    *state = (ams_source_state){0};
    ams_plan plan;
    ams_source_plan(source, &plan);
    const uint64_t layout = source->width[AMS_TARGETS] ? LAYOUT_3 : LAYOUT_2, each = input_words(layout);
    uint64_t *words = ams_alloc(source->ctx, HEAD + each * source->n_inputs, sizeof *words);
    if (!words) return ams_nomem(source->ctx, "a source's position");
    const ams_position *at = &source->position;
    const uint64_t head[HEAD] = {
        [LAYOUT] = layout,    [D] = source->d,   [SEED] = source->config.seed, [CAPACITY] = plan.capacity,
        [PASS] = at->pass,    [INPUT] = at->input, [ROW] = at->row,            [N_INPUTS] = source->n_inputs,
        [DRAWS] = source->draws, [FILLED] = source->filled, [HELD] = source->n_held};
    memcpy(words, head, sizeof head);
    for (uint64_t i = 0; i < source->n_inputs; i++)
        fill_words(&source->inputs[i], layout, words + HEAD + each * i);
    state->position = words;
    state->n_position = HEAD + each * source->n_inputs;
    state->ids = source->buffer.ids;
    state->n_ids = source->filled;
    if (plan.streamed) {
        state->rows = (const float *)source->buffer.slots;
        state->n_rows = source->filled;
        state->held = source->held;
        state->n_held = source->n_held;
    }
    return ATMSAE_OK;
}

void ams_source_state_free(const atmsae_source *source, ams_source_state *state)
{
    ams_free(source->ctx, state->position);
    *state = (ams_source_state){0};
}

/* ---- is it the same source? ---------------------------------------------------------------------- */

static atmsae_status differs(const atmsae_source *source, const char *what, uint64_t now, uint64_t then)
{
    return ams_fail(source->ctx, ATMSAE_E_STATE, "source: %s = %llu, the state was saved with %llu", what,
                    (unsigned long long)now, (unsigned long long)then);
}

static atmsae_status check_input(const atmsae_source *source, uint64_t index, uint64_t layout, const uint64_t *then)
{
    static const struct {
        const char *what;
        int side;
    } word[MOST_WORDS] = {{"type", AMS_ROWS}, {"number of rows", AMS_ROWS}, {"checksum of its rows", AMS_ROWS},
                          {"targets' type", AMS_TARGETS}, {"targets' checksum", AMS_TARGETS}};
    const ams_input *input = &source->inputs[index];
    uint64_t now[MOST_WORDS];
    fill_words(input, layout, now);
    for (uint64_t i = 0; i < (input->read ? 1 : input_words(layout)); i++) { /* how far a callback had come is state */
        const char *path = input->side[word[i].side].path;
        if (now[i] != then[i])
            return ams_fail(source->ctx, ATMSAE_E_STATE, "source: input %llu (%s) is not what it was: its %s is %llu, the state "
                            "was saved with %llu; put it back as it was, or start a new run",
                            (unsigned long long)index, path ? path : input->read ? "callback" : "memory", word[i].what,
                            (unsigned long long)now[i], (unsigned long long)then[i]);
    }
    return ATMSAE_OK;
}

static atmsae_status check_same(const atmsae_source *source, const ams_plan *plan, const ams_source_state *state)
{
    const uint64_t *words = state->position;
    if (!words || state->n_position < HEAD)
        return ams_fail(source->ctx, ATMSAE_E_FORMAT, "source state: %llu words, expected at least %d",
                        (unsigned long long)state->n_position, HEAD);
    if (words[LAYOUT] < LAYOUT_1 || words[LAYOUT] > LAYOUT_3)
        return ams_fail(source->ctx, ATMSAE_E_VERSION, "source state: layout %llu, this version knows %d to %d",
                        (unsigned long long)words[LAYOUT], LAYOUT_1, LAYOUT_3);
    const bool targets = source->width[AMS_TARGETS] > 0;
    if ((words[LAYOUT] == LAYOUT_3) != targets)
        return ams_fail(source->ctx, ATMSAE_E_STATE, "source: it has %stargets, but the state was saved %s them", targets ? "" : "no ",
                        targets ? "without" : "with");
    const uint64_t each = input_words(words[LAYOUT]);
    if (words[N_INPUTS] != source->n_inputs)
        return differs(source, "number of inputs", source->n_inputs, words[N_INPUTS]);
    if (state->n_position != HEAD + each * source->n_inputs)
        return ams_fail(source->ctx, ATMSAE_E_FORMAT, "source state: %llu words for %llu inputs",
                        (unsigned long long)state->n_position, (unsigned long long)source->n_inputs);
    if (words[D] != source->d) return differs(source, "d", source->d, words[D]);
    for (uint64_t i = 0; i < source->n_inputs; i++)
        AMS_TRY(check_input(source, i, words[LAYOUT], words + HEAD + each * i));
    if (words[SEED] != source->config.seed) return differs(source, "seed", source->config.seed, words[SEED]);
    if (words[CAPACITY] != plan->capacity)
        return differs(source, "rows in the shuffle buffer", plan->capacity, words[CAPACITY]);
    return ATMSAE_OK;
}

/* Rows that an input had; a callback's last word. */
static uint64_t rows_then(const uint64_t *words, uint64_t input) { return words[HEAD + input_words(words[LAYOUT]) * input + 1]; }
static uint64_t ended_then(const uint64_t *words, uint64_t input) { return words[HEAD + input_words(words[LAYOUT]) * input + 2]; }

static bool without_ids(const ams_plan *plan, const ams_source_state *state)
{
    return plan->streamed && state->position[LAYOUT] == LAYOUT_1;
}

/* Each slot has the id of a row. */
static bool has_ids(const atmsae_source *source, const ams_plan *plan, const ams_source_state *state)
{
    const uint64_t *words = state->position;
    uint64_t rows = 0;
    for (uint64_t i = 0; i < source->n_inputs; i++)
        rows += rows_then(words, i);
    if (state->n_ids != words[FILLED] || (!state->ids && state->n_ids > 0)) return false;
    for (uint64_t i = 0; i < state->n_ids; i++)
        if (state->ids[i] >= rows && !(plan->streamed && state->ids[i] == AMS_NO_ID)) return false;
    return true;
}

/* Could save have written this? Later reads rely on it. */
static atmsae_status check_sane(const atmsae_source *source, const ams_plan *plan, const ams_source_state *state)
{
    const uint64_t *words = state->position;
    bool sane = words[FILLED] <= plan->capacity && words[INPUT] <= source->n_inputs &&
                words[HELD] == state->n_held && (state->n_held == 0 || state->held);
    if (sane && words[INPUT] < source->n_inputs)
        sane = words[ROW] <= rows_then(words, words[INPUT]);
    else
        sane = sane && words[ROW] == 0;
    uint64_t held = words[HELD]; /* rows that callbacks gave and that lie ahead */
    if (words[PASS] < plan->passes)
        for (uint64_t i = words[INPUT]; sane && i < source->n_inputs; i++) {
            uint64_t ahead = rows_then(words, i) - (i == words[INPUT] ? words[ROW] : 0);
            if (!source->inputs[i].read) continue;
            sane = ahead <= held;
            held -= ahead;
        }
    if (plan->streamed && sane && words[FILLED] > 0 && !state->rows)
        return ams_fail(source->ctx, ATMSAE_E_UNSUPPORTED,
                        "source: it has a callback, and the state does not hold the buffered rows");
    sane = sane && held == 0 && (!plan->streamed || state->n_rows == words[FILLED]);
    sane = sane && (without_ids(plan, state) || has_ids(source, plan, state));
    return sane ? ATMSAE_OK : ams_fail(source->ctx, ATMSAE_E_FORMAT, "source state: the position is impossible");
}

/* ---- restoring ------------------------------------------------------------------------------------- */

typedef struct wanted {
    uint64_t id, slot;
} wanted;

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const wanted *)a)->id, y = ((const wanted *)b)->id;
    return (x > y) - (x < y);
}

/* In the order of the files. */
atmsae_status ams_source_read(atmsae_source *source, const ams_plan *plan, const uint64_t *ids, uint64_t n, char *out)
{
    wanted *list = ams_alloc(source->ctx, n, sizeof *list);
    if (!list) return ams_nomem(source->ctx, "reading the shuffle buffer");
    for (uint64_t i = 0; i < n; i++)
        list[i] = (wanted){ids[i], i};
    ams_sort(list, n, sizeof *list, by_id);

    atmsae_status status = ATMSAE_OK;
    size_t row_bytes = (size_t)source->d * ams_type_size(plan->type);
    uint64_t input = 0;
    for (uint64_t i = 0; i < n && status == ATMSAE_OK; i++) {
        while (list[i].id - source->inputs[input].first_id >= source->inputs[input].n_rows)
            input++;
        uint64_t count;
        status = ams_input_copy(source, input, list[i].id - source->inputs[input].first_id, 1, plan->type,
                                out + list[i].slot * row_bytes, row_bytes, &count);
    }
    ams_free(source->ctx, list);
    return status;
}

atmsae_status ams_source_state_restore(atmsae_source *source, const ams_source_state *state)
{
    atmsae_context *ctx = source->ctx;
    const uint64_t *words = state->position;
    ams_plan plan;
    AMS_TRY(ams_source_check_targets(source));
    ams_source_plan(source, &plan);
    AMS_TRY(check_same(source, &plan, state));
    AMS_TRY(check_sane(source, &plan, state));

    size_t row_bytes = (size_t)source->d * ams_type_size(plan.type);
    ams_buffer buffer = {0};
    float *held = NULL;
    atmsae_status status = ams_buffer_create(source, &plan, &buffer);
    if (status < 0) goto fail;
    for (uint64_t i = 0; i < words[FILLED]; i++)
        buffer.ids[i] = without_ids(&plan, state) ? AMS_NO_ID : state->ids[i];
    if (plan.streamed) {
        status = ams_nomem(ctx, "rows of a callback");
        held = ams_alloc(ctx, state->n_held, row_bytes);
        if (!held) goto fail;
        if (state->n_held) memcpy(held, state->held, (size_t)state->n_held * row_bytes);
        if (state->n_rows) memcpy(buffer.slots, state->rows, (size_t)state->n_rows * row_bytes);
    } else {
        status = ams_source_read(source, &plan, state->ids, state->n_ids, buffer.slots);
        if (status < 0) goto fail;
    }

    for (uint64_t i = 0; i < source->n_inputs; i++)
        if (source->inputs[i].read) {
            source->inputs[i].n_rows = rows_then(words, i);
            source->inputs[i].ended = ended_then(words, i) != 0;
        }
    ams_buffer_free(source, &source->buffer);
    ams_free(ctx, source->held);
    source->buffer = buffer;
    source->held = held;
    source->n_held = source->held_capacity = state->n_held;
    source->plan = plan;
    source->position = (ams_position){words[PASS], words[INPUT], words[ROW]};
    source->draws = words[DRAWS];
    source->filled = words[FILLED];
    source->n_last = source->n_back = 0; /* they were another stream's */
    source->begun = true;
    return ATMSAE_OK;

fail:
    ams_buffer_free(source, &buffer);
    ams_free(ctx, held);
    return status;
}
