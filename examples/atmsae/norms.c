/* SPDX-License-Identifier: MIT
 *
 * Rows of very large norm, among those that a command measures on, and their targets: is a result about them, and --max-norm and
 * --norm-limit, which leave them out.
 */
#include "command.h"
#include "program.h"
#include "rows.h"

#include <stdlib.h>

#define FIRST_ROWS 32768
#define MOST_SHARE 0.5 /* of the variance, in the longest rows; the library warns above it too */

const option_choice max_norm_choices[] = {{"auto", 10}, {0}};

/* Rows of the batch (side 0) or their targets (1) as the x of a batch of their own. */
static atmsae_batch batch_of(const atmsae_batch *batch, int side)
{
    atmsae_batch one = *batch;
    if (side) one.x = batch->y;
    one.y = NULL;
    return one;
}

static uint64_t width_of(const atmsae_source *source, int side)
{
    return side ? atmsae_source_d_target(source) : atmsae_source_d(source);
}

bool norms_apply(atmsae_context *context, const atmsae_source *source, const norm_limit *limit, atmsae_batch *batch, float *weights,
                 uint64_t *left_out)
{
    *left_out = 0;
    batch->row_weights = NULL;
    for (int side = 0; side < 2; side++) {
        uint64_t n;
        const atmsae_batch one = batch_of(batch, side);
        if (limit->limit[side] == 0) continue;
        if (atmsae_batch_limit(context, &one, width_of(source, side), limit->limit[side], weights, &n) < 0) return false;
        batch->row_weights = weights;
        *left_out += n;
    }
    return true;
}

/* Measures the rows that take part, and their targets. */
static bool measure(atmsae_context *context, const atmsae_source *source, atmsae_batch *batch, float *weights, norm_limit *limit)
{
    uint64_t n;
    if (!norms_apply(context, source, limit, batch, weights, &n)) return false;
    for (int side = 0; side < 2; side++) {
        const atmsae_batch one = batch_of(batch, side);
        limit->norms[side] = (atmsae_row_norms){.size = sizeof limit->norms[side]};
        if (width_of(source, side) && atmsae_batch_norms(context, &one, width_of(source, side), &limit->norms[side]) < 0) return false;
    }
    return true;
}

/* The limits that the factor makes. False after a message. */
static bool set_limits(const atmsae_source *source, norm_limit *limit)
{
    for (int side = 0; side < 2; side++) {
        const atmsae_row_norms *norms = &limit->norms[side];
        limit->limit[side] = limit->factor * norms->median;
        if (norms->median > 0 || width_of(source, side) == 0) continue;
        program_error("--max-norm: the median norm of the first %llu %s is 0, of which no number of times is a limit: give --%snorm-limit",
                      (unsigned long long)norms->rows, side ? "targets" : "rows", side ? "target-" : "");
        return false;
    }
    return true;
}

static bool find(atmsae_context *context, const atmsae_source *source, atmsae_batch *batch, norm_limit *limit)
{
    float *weights = program_alloc(batch->n_rows, sizeof *weights);
    bool measured = measure(context, source, batch, weights, limit);
    const bool set = measured && (limit->factor == 0 || set_limits(source, limit));
    if (set && limit->factor > 0) measured = measure(context, source, batch, weights, limit);
    free(weights);
    if (!measured) command_failed(context);
    return measured && set;
}

bool norms_find(atmsae_context *context, atmsae_source *source, norm_limit *limit)
{
    limit->left_out = 0;
    if (limit->found) return true;
    const uint64_t all = atmsae_source_rows(source), n = all < FIRST_ROWS ? all : FIRST_ROWS;
    float *rows = program_alloc(n * row_width(source), sizeof *rows);
    atmsae_batch batch;
    batch_on(&batch, source, rows);
    const bool read = atmsae_source_next(source, n, rows, &batch.n_rows) >= 0 && atmsae_source_rewind(source) >= 0;
    if (!read) command_failed(context);
    limit->found = read && find(context, source, &batch, limit);
    free(rows);
    return limit->found;
}

void norms_fields(fields *out, const norm_limit *limit)
{
    const double *of = limit->limit;
    if (of[0] > 0 || of[1] > 0) fields_count(out, "rows_left_out", limit->left_out);
    if (of[0] > 0) fields_real(out, "norm_limit", of[0]);
    if (of[1] > 0) fields_real(out, "target_norm_limit", of[1]);
}

static bool few_decide(const atmsae_row_norms *n) { return n->top_share > MOST_SHARE && n->median > 0; }

/* FVU is the error as a share of the variance of the targets, which of an SAE are its rows. Long rows of a transcoder change the
 * error only, by what it makes of them. */
char *norms_note(const norm_limit *limit, const fields *sae)
{
    const bool transcoder = limit->norms[1].rows > 0, targets = few_decide(&limit->norms[1]);
    const atmsae_row_norms *n = &limit->norms[targets];
    const char *trained = sae ? fields_find(sae, "training_norm_limit") : NULL, *too = sae ? fields_find(sae, "training_target_norm_limit") : NULL;
    if (!few_decide(n)) return NULL;
    char *note = NULL;
    size_t size;
    FILE *out = program_text_open(&note, &size);
    fprintf(out, "the longest %.2g %% of the %s hold %.1f %% of the variance, with norms of up to %.3g times the median, so FVU %s about "
                 "them, not about the others: ", 100 * (double)n->top_rows / (double)n->rows, targets ? "targets" : "rows", 100 * n->top_share,
            n->largest / n->median, transcoder && !targets ? "may be" : "is");
    if (trained) fprintf(out, "--norm-limit %s%s%s leaves them out, as the training did", trained, too ? " --target-norm-limit " : "", too ? too : "");
    else fputs("--max-norm auto leaves out those above 10 times the median, --max-norm X others", out);
    return program_text_close(out, &note);
}
