/* SPDX-License-Identifier: MIT
 *
 * atmsae eval: reconstruction, sparsity and densities of a saved SAE; the rest in eval_*.c.
 */
#include "eval_more.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

enum { E_SAE, E_INPUT, E_TENSOR, E_BF16, E_WORDS, E_WORDS_TENSOR, E_MIN_PROBE_F1, E_MIN_F1_GAIN, E_MAX_SPLIT,
       E_PROBING, E_PAIR, E_JSON, E_THREADS, E_OPTIONS };

static const option eval_options[E_OPTIONS] = {
    [E_SAE] = {.group = "what", .name = "sae", .kind = OPTION_TEXT, .required = true, .value = "DIR",
               .help = "the SAE: a folder as train writes it, or any that convert reads"},
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
    [E_MIN_PROBE_F1] = {.name = "absorption-min-f1", .kind = OPTION_REAL, .value = "F1", .max = 0.999, .preset = "0.6",
                        .help = "count only classes whose probe scores more than this on test words"},
    [E_MIN_F1_GAIN] = {.name = "absorption-f1-gain", .kind = OPTION_REAL, .value = "F1", .max = 1, .preset = "0.03",
                       .help = "another latent joins those of a class for more F1 than this"},
    [E_MAX_SPLIT] = {.name = "absorption-max-split", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 64, .preset = "10",
                     .help = "most latents of a class"},
    [E_PROBING] = {.group = "probing", .name = "probing", .kind = OPTION_TEXT, .value = "NAME.tasks.json",
                   .help = "a JSON list of task names, beside NAME.safetensors with `activations` [n, d_in], `labels` "
                           "[n, tasks] (1, 0, -1: not part of the task) and `is_train` [n]"},
    [E_PAIR] = {.group = "stability", .name = "pair", .kind = OPTION_TEXT, .value = "DIR",
                .help = "another SAE, of another seed say, to match latents with one by one"},
    [E_JSON] = {.group = "output", .name = "json", .kind = OPTION_FLAG, .help = "one JSON object on stdout"},
    [E_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096,
                   .help = "threads that compute", .preset = "one a CPU"},
};

static const char eval_help[] =
    "usage: atmsae eval --sae DIR --input FILE... [--words FILE] [--probing FILE]\n"
    "                   [--pair DIR] [--json]\n\n"
    "Encodes and decodes rows with a saved SAE and prints the fraction of variance unexplained (FVU),\n"
    "mean squared error, mean cosine, the mean number of active latents (L0), latents that never fired\n"
    "(dead) or fired on more than 10 % of the rows (dense), and how often latents fire.\n"
    "With --words it also measures absorption: how often a latent that should fire on every word of a\n"
    "class (say, its first letter) is silent while a more special latent fires in its place.\n"
    "With --probing it reads labels of texts from the best 1, 2 and 5 latents, from all, and from the\n"
    "rows themselves; with --pair it tells how many latents a second SAE shares.\n\n"
    "examples\n"
    "  atmsae eval --sae out/atm --input valid.npy\n"
    "  atmsae eval --sae out/atm --input valid.safetensors --words words.safetensors --json\n"
    "  atmsae eval --sae out/seed0 --input valid.npy --pair out/seed1 --probing texts.tasks.json\n";

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

/* ---- the command --------------------------------------------------------------------------------------- */

static bool measure_more(atmsae_context *context, const atmsae_model *model, const setting *s, fields *out)
{
    atmsae_absorption_config config;
    atmsae_absorption_config_init(&config, sizeof config);
    setting_real(&s[E_MIN_PROBE_F1], &config.min_probe_f1);
    setting_real(&s[E_MIN_F1_GAIN], &config.min_f1_gain);
    setting_count(&s[E_MAX_SPLIT], &config.max_split);
    const char *tensor = s[E_WORDS_TENSOR].given ? s[E_WORDS_TENSOR].text : "prompted";
    return (!s[E_WORDS].given || eval_absorption(context, model, s[E_WORDS].text, tensor, &config, out)) &&
           (!s[E_PROBING].given || eval_probing(context, model, s[E_PROBING].text, out)) &&
           (!s[E_PAIR].given || eval_pair(context, model, s[E_PAIR].text, out));
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
        good = eval_details(context, model, metrics, &out) && measure_more(context, model, s, &out);
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
    atmsae_context *context = command_context(&s[E_THREADS], NULL, s[E_JSON].given);
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
