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
static bool add_batch(atmsae_context *context, const atmsae_source *source, atmsae_batch *batch, float *weights, norm_limit *limit,
                      atmsae_metrics *metrics)
{
    uint64_t n;
    if (!norms_apply(context, source, limit, batch, weights, &n)) return false;
    limit->left_out += n;
    return atmsae_metrics_add(metrics, batch) >= 0;
}

static void say_none_left(const norm_limit *limit)
{
    const unsigned long long n = limit->left_out;
    const double x = limit->limit[0], y = limit->limit[1];
    if (x > 0 && y > 0) program_error("all %llu rows are above the norm limit %g, or their targets above %g: there are none to measure", n, x, y);
    else program_error("all %llu %s are above the norm limit %g: there are none to measure", n, y > 0 ? "targets" : "rows", y > 0 ? y : x);
}

/* False after a message. */
static bool add_rows(atmsae_context *context, atmsae_source *source, norm_limit *limit, atmsae_metrics *metrics)
{
    float *rows = program_alloc(ROWS_AT_ONCE * row_width(source), sizeof *rows), *weights = program_alloc(ROWS_AT_ONCE, sizeof *weights);
    atmsae_batch batch;
    batch_on(&batch, source, rows);
    bool done = false, failed = false;
    while (!done && !failed) {
        failed = atmsae_source_next(source, ROWS_AT_ONCE, rows, &batch.n_rows) < 0 ||
                 (batch.n_rows > 0 && !add_batch(context, source, &batch, weights, limit, metrics));
        done = batch.n_rows < ROWS_AT_ONCE;
    }
    if (failed && !explain_bad_row(source, &batch)) command_failed(context);
    if (!failed && limit->left_out == atmsae_source_rows(source)) {
        say_none_left(limit);
        failed = true;
    }
    free(rows);
    free(weights);
    return !failed;
}

static bool has_targets(const row_files *files) { return files->targets && files->targets->given; }

bool add_files(atmsae_context *context, atmsae_source *source, const row_files *files)
{
    const setting *rows = files->rows, *targets = files->targets;
    if (has_targets(files) && targets->n != rows->n) {
        program_error("%zu file%s of rows, but %zu of targets: give one for each, in the same order", rows->n, rows->n == 1 ? "" : "s", targets->n);
        return false;
    }
    for (size_t i = 0; i < rows->n; i++)
        if (atmsae_source_add_file(source, rows->texts[i], files->tensor, files->as_bf16) < 0 ||
            (has_targets(files) && atmsae_source_add_target_file(source, targets->texts[i], files->target_tensor, files->as_bf16) < 0)) {
            command_failed(context);
            return false;
        }
    if (atmsae_source_rows(source) > 0) return true;
    program_error("%s: no rows%s", rows->texts[0], rows->n > 1 ? ", and none in the files after it" : "");
    return false;
}

atmsae_source *open_files(atmsae_context *context, const row_files *files)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 0;
    config.epochs = 1;
    atmsae_source *source;
    if (atmsae_source_create(context, &config, &source) < 0) command_failed(context);
    else if (add_files(context, source, files)) return source;
    atmsae_source_destroy(source);
    return NULL;
}

/* Does the model take the rows of the source, and have they targets if and only if it has? */
static bool fit(const atmsae_model_config *model, const atmsae_model_origin *origin, const row_files *files, const char *asks,
                const atmsae_source *source)
{
    const unsigned long long d = atmsae_source_d(source), d_target = atmsae_source_d_target(source), d_in = model->d_in, d_out = model->d_out;
    const char *path = files->rows->texts[0];
    if (d != d_in) program_error("%s: rows of %llu numbers, but the SAE takes %llu", path, d, d_in);
    else if (asks && model->transcoder && !d_target)
        program_error("this is a transcoder: it does not reconstruct its input, but gives another tensor from it, and without that there is "
                      "nothing to measure it against: --%s FILE, row by row for %s%s", asks, path, files->rows->n > 1 ? " and the others" : "");
    else if (d_target && !origin->may_transcode)
        program_error("--%s goes with transcoders, and this SAE is none: it is measured against its input, so leave --%s out", asks, asks);
    else if (d_target && d_target != d_out)
        program_error("%s: targets of %llu numbers, but the transcoder gives %llu", files->targets->texts[0], d_target, d_out);
    else return true;
    return false;
}

bool open_rows(atmsae_context *context, const atmsae_model *model, const row_files *files, const char *asks, atmsae_source **source)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    atmsae_model_origin origin = {.size = sizeof origin};
    *source = open_files(context, files);
    if (!*source) return false;
    if (atmsae_model_get_config(model, &config) < 0 || atmsae_model_get_origin(model, &origin) < 0) command_failed(context);
    else if (fit(&config, &origin, files, asks, *source)) return true;
    atmsae_source_destroy(*source);
    *source = NULL;
    return false;
}

bool evaluate_files(atmsae_context *context, const atmsae_model *model, const row_files *files, const char *asks, norm_limit *limit,
                    atmsae_metrics **metrics)
{
    atmsae_source *source;
    *metrics = NULL;
    if (!open_rows(context, model, files, asks, &source)) return false;
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
    if (asked >= 1 && (l0 > 1.5 * asked || 1.5 * l0 < asked))
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
