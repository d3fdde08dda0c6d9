/* SPDX-License-Identifier: MIT
 *
 * What atmsae train left beside an SAE: the settings of the run (run.json), and the importances of the latents and
 * the masking over time (importance.safetensors). All of it may be missing, and
 * it counts only where run.json is of this SAE.
 */
#include "importance.h"
#include "program.h"
#include "report.h"
#include "run_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A key of run.json under the name that it has among results. */
static void take(report_sae *sae, const char *json, const char *key, const char *name)
{
    char *value = json_value(json, key), *stop;
    const double number = value ? strtod(value, &stop) : 0;
    if (value && stop != value && *stop == 0) fields_real(&sae->fields, name, number);
    else if (value) fields_text(&sae->fields, name, value);
    free(value);
}

static void settings_read(const char *json, const atmsae_model_config *config, report_sae *sae)
{
    fields model = {0};
    model_fields(&model, config);
    if (json) {
        take(sae, json, "arch", "arch");
        take(sae, json, "mask", "mask");
        take(sae, json, "r", "mask_r");
        take(sae, json, "c", "mask_c");
        take(sae, json, "mask-effect", "mask_effect");
        take(sae, json, "alpha", "mask_alpha");
        take(sae, json, "k", "k");
        take(sae, json, "target-l0", "target_l0");
        take(sae, json, "sparsity", "sparsity");
        take(sae, json, "norm-limit", "training_norm_limit");
        take(sae, json, "target-norm-limit", "training_target_norm_limit");
        take(sae, json, "seed", "seed");
    } else {
        fields_text(&sae->fields, "arch", fields_find(&model, "arch"));
        if (config->activation == ATMSAE_TOPK) fields_real(&sae->fields, "k", config->k);
    }
    fields_count(&sae->fields, "d_in", config->d_in);
    if (config->transcoder) fields_count(&sae->fields, "d_out", config->d_out);
    fields_count(&sae->fields, "d_sae", config->d_sae);
    fields_free(&model);
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static history *history_of(const importance *from)
{
    static const double quantile[] = {0.10, 0.25, 0.50, 0.75, 0.90};
    history *to = history_create(from->d_sae);
    const size_t f = from->d_sae;
    for (size_t i = 0; i < from->n && to->n < HISTORY_POINTS; i++) {
        float *value = from->value + i * f;
        double sum = 0;
        for (size_t j = 0; j < f; j++) sum += value[j];
        qsort(value, f, sizeof *value, ascending);
        const size_t n = to->n++;
        to->column[HISTORY_STEP][n] = (double)from->step[i];
        for (size_t q = 0; q < sizeof quantile / sizeof *quantile; q++)
            to->column[HISTORY_Q10 + q][n] = value[(size_t)(quantile[q] * (double)(f - 1))];
        to->column[HISTORY_MU][n] = sum / (double)f;
        to->column[HISTORY_THETA][n] = from->theta[i];
        to->column[HISTORY_MEAN_P][n] = from->mean_p[i];
        to->column[HISTORY_MAX_P][n] = 1 - exp(-(double)from->rate[i]);
        to->column[HISTORY_R][n] = from->rate[i];
        to->column[HISTORY_FVU][n] = NAN;
    }
    return to;
}

void run_read(const report *self, const atmsae_model_config *config, report_sae *sae)
{
    char *json = run_file_read(sae->path);
    settings_read(json, config, sae);
    char *path = program_path(sae->path, IMPORTANCE_FILE);
    importance *over_time = importance_create(config->d_sae);
    if (json && access(path, R_OK) == 0 && importance_load(over_time, self->context, path)) sae->history = history_of(over_time);
    importance_destroy(over_time);
    free(path);
    free(json);
}
