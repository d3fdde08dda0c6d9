/* SPDX-License-Identifier: MIT
 *
 * The stream: the rows of all inputs in order, pass after pass. Taking rows either succeeds or
 * leaves the stream where it was, so that a failed call can be repeated.
 */
#include "data/source.h"

#include "kernels/kernels.h"

#include <string.h>

void ams_source_plan(const atmsae_source *source, ams_plan *plan)
{
    *plan = (ams_plan){0};
    for (uint64_t i = 0; i < source->n_inputs; i++) {
        const ams_input *input = &source->inputs[i];
        if (input->read)
            plan->streamed = true;
        else
            plan->rows += input->n_rows;
        for (int s = 0; s < AMS_SIDES; s++)
            if (input->side[s].type)
                plan->type = plan->type == 0 || plan->type == input->side[s].type ? input->side[s].type : ATMSAE_F32;
    }
    if (plan->streamed)
        plan->passes = 1;
    else if (plan->rows > 0)
        plan->passes = source->config.epochs == 0 ? UINT64_MAX : source->config.epochs;
    /* More slots than rows are of no use; 2^32 - 1 is what one draw can choose from. */
    plan->capacity = ams_min(source->config.shuffle_rows, UINT32_MAX);
    if (!plan->streamed) plan->capacity = ams_min(plan->capacity, plan->rows);
}

void ams_copy_row(void *out, int32_t to, const void *in, int32_t from, uint64_t d)
{
    if (to == from)
        memcpy(out, in, (size_t)d * ams_type_size(to));
    else
        ams_to_f32(out, in, from, d);
}

/* Asks a callback for more rows and puts them behind those already held. */
static atmsae_status read_callback(atmsae_source *source, ams_input *input, uint64_t want)
{
    atmsae_context *ctx = source->ctx;
    size_t row_bytes = (size_t)source->d * sizeof(float);
    want = ams_min(want, ams_block_rows(row_bytes));
    AMS_TRY(ams_grow(ctx, &source->held, &source->held_capacity, source->n_held + want, source->n_held, row_bytes));
    int64_t got = input->read(input->opaque, source->held + source->n_held * source->d, want);
    if (got < 0)
        return ams_fail(ctx, ATMSAE_E_CALLBACK, "callback: failed with %lld after %llu rows", (long long)got,
                        (unsigned long long)input->n_rows);
    if ((uint64_t)got > want)
        return ams_fail(ctx, ATMSAE_E_CALLBACK, "callback: returned %lld rows, at most %llu were asked for", (long long)got,
                        (unsigned long long)want);
    input->ended = got == 0;
    input->n_rows += (uint64_t)got;
    source->n_held += (uint64_t)got;
    return ATMSAE_OK;
}

/* Rows at the current position; *count = 0: the input has no more. */
static atmsae_status copy_rows(atmsae_source *source, uint64_t want, char *out, size_t stride, uint64_t *count)
{
    const ams_position *at = &source->at;
    ams_input *input = &source->inputs[at->input];
    *count = 0;
    if (!input->read)
        return at->row == input->n_rows ? ATMSAE_OK
                                        : ams_input_copy(source, at->input, at->row, want, source->plan.type, out, stride, count);
    if (at->row == input->n_rows && !input->ended) AMS_TRY(read_callback(source, input, want));
    *count = ams_min(want, input->n_rows - at->row);
    for (uint64_t i = 0; i < *count; i++)
        ams_copy_row(out + i * stride, source->plan.type, source->held + (source->taken + i) * source->d, ATMSAE_F32, source->d);
    source->taken += *count;
    return ATMSAE_OK;
}

static atmsae_status take(atmsae_source *source, uint64_t want, char *out, size_t out_stride, uint64_t *got)
{
    ams_position *at = &source->at;
    uint64_t done = 0;
    while (done < want && at->pass < source->plan.passes) {
        if (at->input == source->n_inputs) {
            *at = (ams_position){.pass = at->pass + 1};
            continue;
        }
        uint64_t count;
        AMS_TRY(copy_rows(source, want - done, out + done * out_stride, out_stride, &count));
        if (count == 0) {
            *at = (ams_position){.pass = at->pass, .input = at->input + 1};
            continue;
        }
        done += count;
        at->row += count;
    }
    *got = done;
    return ATMSAE_OK;
}

atmsae_status ams_stream_take(atmsae_source *source, uint64_t want, char *out, size_t stride, uint64_t *got)
{
    source->at = source->position;
    source->taken = 0;
    AMS_TRY(take(source, want, out, stride, got));
    source->position = source->at;
    source->n_held -= source->taken;
    if (source->n_held > 0)
        memmove(source->held, source->held + source->taken * source->d, (size_t)(source->n_held * source->d) * sizeof(float));
    return ATMSAE_OK;
}
