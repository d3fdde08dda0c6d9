/* SPDX-License-Identifier: MIT
 *
 * Rows of very large norm, among those that a command measures on: is a result about them, and --max-norm and
 * --norm-limit, which leave them out.
 */
#include "command.h"
#include "program.h"

#include <stdlib.h>

#define FIRST_ROWS 32768
#define MOST_SHARE 0.5 /* of the variance, in the longest rows; the library warns above it too */

const option_choice max_norm_choices[] = {{"auto", 10}, {0}};

/* Measures the rows that take part. */
static bool measure(atmsae_context *context, atmsae_batch *batch, uint64_t d, float *weights, norm_limit *limit)
{
    limit->norms = (atmsae_row_norms){.size = sizeof limit->norms};
    if (limit->limit > 0) {
        if (atmsae_batch_limit(context, batch, d, limit->limit, weights, NULL) < 0) return false;
        batch->row_weights = weights;
    }
    return atmsae_batch_norms(context, batch, d, &limit->norms) >= 0;
}

static bool find(atmsae_context *context, atmsae_batch *batch, uint64_t d, norm_limit *limit)
{
    float *weights = program_alloc(batch->n_rows, sizeof *weights);
    bool good = measure(context, batch, d, weights, limit);
    const double median = limit->norms.median;
    if (good && limit->factor > 0 && median > 0) {
        limit->limit = limit->factor * median;
        good = measure(context, batch, d, weights, limit);
    }
    free(weights);
    if (!good) command_failed(context);
    if (!good || limit->factor == 0 || median > 0) return good;
    program_error("--max-norm: the median norm of the first %llu rows is 0, of which no number of times is a limit: give --norm-limit",
                  (unsigned long long)batch->n_rows);
    return false;
}

bool norms_find(atmsae_context *context, atmsae_source *source, norm_limit *limit)
{
    limit->left_out = 0;
    if (limit->found) return true;
    const uint64_t d = atmsae_source_d(source), all = atmsae_source_rows(source), n = all < FIRST_ROWS ? all : FIRST_ROWS;
    float *rows = program_alloc(n * d, sizeof *rows);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.x = rows;
    const bool read = atmsae_source_next(source, n, rows, &batch.n_rows) >= 0 && atmsae_source_rewind(source) >= 0;
    if (!read) command_failed(context);
    limit->found = read && find(context, &batch, d, limit);
    free(rows);
    return limit->found;
}

void norms_fields(fields *out, const norm_limit *limit)
{
    if (limit->limit == 0) return;
    fields_count(out, "rows_left_out", limit->left_out);
    fields_real(out, "norm_limit", limit->limit);
}

char *norms_note(const norm_limit *limit, const char *trained)
{
    const atmsae_row_norms *n = &limit->norms;
    if (!(n->top_share > MOST_SHARE && n->median > 0)) return NULL;
    char *note = NULL;
    size_t size;
    FILE *out = program_text_open(&note, &size);
    fprintf(out, "a few rows hold %.1f %% of the variance: %.2g %% of them, with norms of up to %.3g times the median, so FVU is about "
                 "them, not about the others: ", 100 * n->top_share, 100 * (double)n->top_rows / (double)n->rows, n->largest / n->median);
    if (trained) fprintf(out, "--norm-limit %s leaves them out, as the training did", trained);
    else fputs("--max-norm auto, or less than 10, leaves them out", out);
    return program_text_close(out, &note);
}
