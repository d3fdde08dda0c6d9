/* SPDX-License-Identifier: MIT
 *
 * Rows of files and their reconstruction, for the commands that measure.
 */
#include "command.h"
#include "program.h"
#include "rows.h"

#include <stdlib.h>

#define ROWS_AT_ONCE 4096

/* The rows that the limit leaves; weights: room for theirs. */
static bool add_batch(atmsae_context *context, atmsae_batch *batch, uint64_t d, float *weights, norm_limit *limit, atmsae_metrics *metrics)
{
    uint64_t n = 0;
    batch->row_weights = NULL;
    if (limit->limit > 0) {
        if (atmsae_batch_limit(context, batch, d, limit->limit, weights, &n) < 0) return false;
        batch->row_weights = weights;
        limit->left_out += n;
    }
    return atmsae_metrics_add(metrics, batch) >= 0;
}

/* False after a message. */
static bool add_rows(atmsae_context *context, atmsae_source *source, norm_limit *limit, atmsae_metrics *metrics)
{
    const uint64_t d = atmsae_source_d(source);
    float *rows = program_alloc(ROWS_AT_ONCE * d, sizeof *rows), *weights = program_alloc(ROWS_AT_ONCE, sizeof *weights);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.x = rows;
    bool done = false, failed = false;
    while (!done && !failed) {
        failed = atmsae_source_next(source, ROWS_AT_ONCE, rows, &batch.n_rows) < 0 ||
                 (batch.n_rows > 0 && !add_batch(context, &batch, d, weights, limit, metrics));
        done = batch.n_rows < ROWS_AT_ONCE;
    }
    if (failed && !explain_bad_row(source, &batch)) command_failed(context);
    if (!failed && limit->left_out == atmsae_source_rows(source)) {
        program_error("all %llu rows are above the norm limit %g: there are none to measure", (unsigned long long)limit->left_out, limit->limit);
        failed = true;
    }
    free(rows);
    free(weights);
    return !failed;
}

bool add_files(atmsae_context *context, atmsae_source *source, const setting *files, const char *tensor, bool as_bf16)
{
    for (size_t i = 0; i < files->n; i++)
        if (atmsae_source_add_file(source, files->texts[i], tensor, as_bf16) < 0) {
            command_failed(context);
            return false;
        }
    if (atmsae_source_rows(source) > 0) return true;
    program_error("%s: no rows%s", files->texts[0], files->n > 1 ? ", and none in the files after it" : "");
    return false;
}

atmsae_source *open_files(atmsae_context *context, const setting *files, const char *tensor, bool as_bf16)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 0;
    config.epochs = 1;
    atmsae_source *source;
    if (atmsae_source_create(context, &config, &source) < 0) command_failed(context);
    else if (add_files(context, source, files, tensor, as_bf16)) return source;
    atmsae_source_destroy(source);
    return NULL;
}

bool open_rows(atmsae_context *context, const atmsae_model *model, const setting *files, const char *tensor,
               bool as_bf16, atmsae_source **source)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    *source = open_files(context, files, tensor, as_bf16);
    if (!*source) return false;
    if (atmsae_model_get_config(model, &config) < 0) command_failed(context);
    else if (config.d_in == atmsae_source_d(*source)) return true;
    else program_error("%s: rows of %llu numbers, but the SAE takes %llu", files->texts[0],
                 (unsigned long long)atmsae_source_d(*source), (unsigned long long)config.d_in);
    atmsae_source_destroy(*source);
    *source = NULL;
    return false;
}

bool evaluate_files(atmsae_context *context, const atmsae_model *model, const setting *files,
                    const char *tensor, bool as_bf16, norm_limit *limit, atmsae_metrics **metrics)
{
    atmsae_source *source;
    *metrics = NULL;
    if (!open_rows(context, model, files, tensor, as_bf16, &source)) return false;
    const bool made = atmsae_metrics_create(model, metrics) >= 0;
    if (!made) command_failed(context);
    const bool good = made && norms_find(context, source, limit) && add_rows(context, source, limit, *metrics);
    atmsae_source_destroy(source);
    if (good) return true;
    atmsae_metrics_destroy(*metrics);
    *metrics = NULL;
    return false;
}

const char *rows_hint(double fvu, double l0, double asked)
{
    if (fvu > 1.1) return "FVU is above 1, which the mean row alone would have: these rows are of another layer, model or scale than those the "
                                  "SAE was trained on, or its training diverged";
    if (asked >= 1 && fvu <= 1.1 && (l0 > 1.5 * asked || 1.5 * l0 < asked))
        return "L0 is far from what the SAE was trained for: these rows are of another scale, layer or model than those of its training";
    return NULL;
}

void metrics_fields(fields *out, const atmsae_metrics_result *result)
{
    fields_count(out, "rows", result->rows);
    fields_real(out, "fvu", result->fvu);
    fields_real(out, "mse", result->mse);
    fields_real(out, "cosine", result->cosine);
    fields_real(out, "l0", result->l0);
    fields_real(out, "l1", result->l1);
    fields_count(out, "dead", result->dead);
    fields_count(out, "dense", result->dense);
    fields_real(out, "bias", result->bias);
}
