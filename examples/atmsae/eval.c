/* SPDX-License-Identifier: MIT
 *
 * atmsae eval: reconstruction, sparsity, densities and absorption of a saved SAE.
 */
#include "command.h"
#include "program.h"
#include "words.h"

#include <math.h>
#include <stdlib.h>

enum { E_SAE, E_INPUT, E_TENSOR, E_BF16, E_WORDS, E_WORDS_TENSOR, E_JSON, E_THREADS, E_OPTIONS };

static const option eval_options[E_OPTIONS] = {
    [E_SAE] = {.group = "what", .name = "sae", .kind = OPTION_TEXT, .required = true, .value = "DIR",
               .help = "the SAE: a SAELens v6 folder, as train writes it"},
    [E_INPUT] = {.name = "input", .kind = OPTION_TEXTS, .required = true, .value = "FILE",
                 .help = "rows to measure on, .npy or .safetensors; take rows that were not trained on"},
    [E_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME",
                  .help = "tensor to read from --input .safetensors files",
                  .preset = "the only 2-D float tensor, or \"activations\""},
    [E_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "16-bit integers in --input .npy files hold bf16"},
    [E_WORDS] = {.group = "absorption", .name = "words", .kind = OPTION_TEXT, .value = "FILE",
                 .help = ".safetensors with rows [n, d_in], `letter` (classes from 0) and `is_train` (1: the "
                         "probe may be fitted on it); turns the measure on"},
    [E_WORDS_TENSOR] = {.name = "words-tensor", .kind = OPTION_TEXT, .value = "NAME", .preset = "prompted",
                        .help = "tensor with the rows of the words"},
    [E_JSON] = {.group = "output", .name = "json", .kind = OPTION_FLAG, .help = "one JSON object on stdout"},
    [E_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096,
                   .help = "threads that compute", .preset = "one a CPU"},
};

static const char eval_help[] =
    "usage: atmsae eval --sae DIR --input FILE... [--words FILE] [--json]\n\n"
    "Encodes and decodes rows with a saved SAE and prints the fraction of variance unexplained (FVU),\n"
    "mean squared error, mean cosine, the mean number of active latents (L0), latents that never fired\n"
    "(dead) or fired on more than 10 % of the rows (dense), and how often latents fire.\n"
    "With --words it also measures absorption: how often a latent that should fire on every word of a\n"
    "class (say, its first letter) is silent while a more special latent fires in its place.\n\n"
    "examples\n"
    "  atmsae eval --sae out/atm --input valid.npy\n"
    "  atmsae eval --sae out/atm --input valid.safetensors --words words.safetensors --json\n";

/* ---- densities -------------------------------------------------------------------------------------- */

#define N_BINS 8
static const char *const bin_names[N_BINS] = {"never",         "under 1e-5", "1e-5 .. 1e-4", "1e-4 .. 1e-3",
                                              "1e-3 .. 1e-2", "1e-2 .. 0.1", "0.1 .. 0.5", "0.5 and more"};

static size_t bin_of(uint64_t count, uint64_t rows)
{
    static const double limits[N_BINS - 2] = {1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5};
    if (count == 0) return 0;
    size_t bin = 1;
    while (bin < N_BINS - 1 && (double)count / (double)rows >= limits[bin - 1]) bin++;
    return bin;
}

static void print_histogram(const uint64_t *bins, uint64_t d_sae)
{
    printf("\nshare of rows on which a latent fires\n");
    for (size_t b = 0; b < N_BINS; b++) {
        const int length = (int)ceil(40.0 * (double)bins[b] / (double)d_sae);
        printf("  %-14s %8llu  %.*s\n", bin_names[b], (unsigned long long)bins[b], length,
               "########################################");
    }
}

static char *histogram_json(const uint64_t *bins)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (size_t b = 0; b < N_BINS; b++)
        fprintf(out, "%s\"%s\": %llu", b ? ", " : "{", bin_names[b], (unsigned long long)bins[b]);
    fputc('}', out);
    return program_text_close(out, &json);
}

/* ---- absorption ---------------------------------------------------------------------------------- */

static char *classes_json(const atmsae_absorption_class *classes, uint64_t n)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (uint64_t i = 0; i < n; i++) {
        const atmsae_absorption_class *c = &classes[i];
        fprintf(out, "%s{\"class\": %llu, \"used\": %s", i ? ",\n    " : "[\n    ", (unsigned long long)i,
                c->used ? "true" : "false");
        if (c->used)
            fprintf(out, ", \"full_rate\": %.7g, \"recall\": %.7g, \"sparse_f1\": %.7g, \"probe_f1\": %.7g, "
                    "\"true_positives\": %llu, \"absorbed\": %llu, \"n_split\": %llu, \"main_latent\": %llu",
                    c->full_rate, c->recall, c->sparse_f1, c->probe_f1, (unsigned long long)c->true_positives,
                    (unsigned long long)c->absorbed, (unsigned long long)c->n_split,
                    (unsigned long long)c->main_latent);
        fputc('}', out);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
}

static bool measure_absorption(atmsae_context *context, const atmsae_model *model, const words *w, fields *out)
{
    atmsae_absorption_config config;
    atmsae_absorption_config_init(&config, sizeof config);
    config.n_classes = w->n_classes;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = w->n;
    batch.x = w->rows;
    atmsae_absorption *absorption;
    atmsae_absorption_result result = {.size = sizeof result};
    atmsae_absorption_class *classes = program_alloc(w->n_classes, sizeof *classes);
    const bool good = atmsae_absorption_create(context, &config, &batch, w->d, w->labels, w->is_train, &absorption) >= 0 &&
                      atmsae_absorption_score(absorption, model, &result, classes) >= 0;
    if (!good) {
        command_failed(context);
    } else {
        fields_real(out, "absorption", result.full_rate);
        fields_count(out, "absorption_classes", result.classes);
        fields_count(out, "absorption_true_positives", result.true_positives);
        fields_real(out, "recall", result.recall);
        fields_real(out, "sparse_f1", result.sparse_f1);
        fields_real(out, "probe_f1", result.probe_f1);
        fields_real(out, "mean_split", result.mean_split);
        fields_json(out, "classes", classes_json(classes, w->n_classes));
    }
    atmsae_absorption_destroy(absorption);
    free(classes);
    return good;
}

/* ---- the command --------------------------------------------------------------------------------------- */

static bool measure_words(atmsae_context *context, const atmsae_model *model, const setting *s, fields *out)
{
    words w = {0};
    const char *tensor = s[E_WORDS_TENSOR].given ? s[E_WORDS_TENSOR].text : "prompted";
    const bool good = words_read(context, s[E_WORDS].text, tensor, &w) && measure_absorption(context, model, &w, out);
    words_free(&w);
    return good;
}

static bool evaluate(atmsae_context *context, const atmsae_model *model, const setting *s)
{
    fields out = {0};
    atmsae_metrics *metrics;
    if (!evaluate_files(context, model, &s[E_INPUT], s[E_TENSOR].text, s[E_BF16].given, &metrics)) return false;
    atmsae_metrics_result result = {.size = sizeof result};
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    bool good = atmsae_metrics_get(metrics, &result) >= 0 && atmsae_model_get_config(model, &config) >= 0;
    if (!good) command_failed(context);
    uint64_t bins[N_BINS] = {0};
    if (good) {
        const uint64_t *counts = atmsae_metrics_counts(metrics);
        for (uint64_t i = 0; i < config.d_sae; i++) bins[bin_of(counts[i], result.rows)]++;
        fields_text(&out, "sae", s[E_SAE].text);
        metrics_fields(&out, &result);
        fields_json(&out, "densities", histogram_json(bins));
        if (s[E_WORDS].given) good = measure_words(context, model, s, &out);
    }
    if (good && s[E_JSON].given) {
        fields_print_json(&out, stdout);
    } else if (good) {
        fields_print(&out, stdout);
        print_histogram(bins, config.d_sae);
    }
    fields_free(&out);
    atmsae_metrics_destroy(metrics);
    return good;
}

static int run_eval(const setting *s)
{
    atmsae_context *context = command_context(&s[E_THREADS], s[E_JSON].given);
    if (!context) return EXIT_FAILED;
    atmsae_model *model;
    int code = EXIT_FAILED;
    if (atmsae_model_load(context, s[E_SAE].text, &model) < 0) command_failed(context);
    else if (evaluate(context, model, s)) code = EXIT_OK;
    atmsae_model_destroy(model);
    atmsae_context_destroy(context);
    return code;
}

const command command_eval = {.name = "eval", .summary = "measure a saved SAE on rows, and its absorption on words",
                              .help = eval_help, .options = eval_options, .n_options = E_OPTIONS, .run = run_eval};
