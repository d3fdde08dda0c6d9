/* SPDX-License-Identifier: MIT
 *
 * atmsae bench: how long a step takes on this machine, and so how long a run will. The full benchmark is
 * bench/run in the sources.
 */
#include "command.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

#define STEPS_LEAST 3
#define STEPS_MOST 1000

enum { B_D_IN, B_D_SAE, B_K, B_BATCH, B_MASK, B_ROWS, B_SECONDS, B_JSON, B_THREADS, B_PRECISION, B_OPTIONS };

static const option_choice mask_choices[] = {{"atm", ATMSAE_MASK_ATM}, {"none", ATMSAE_MASK_NONE}, {0}};
static const option_choice precision_choices[] = {{"fp32", ATMSAE_PRECISION_F32}, {"bf16", ATMSAE_PRECISION_BF16}, {0}};

static const option bench_options[B_OPTIONS] = {
    [B_D_IN] = {.group = "run", .name = "d-in", .kind = OPTION_COUNT, .min = 1, .max = 65536, .value = "D", .preset = "768",
                .help = "width of a row"},
    [B_D_SAE] = {.name = "d-sae", .kind = OPTION_COUNT, .min = 1, .max = 16777216, .value = "F", .preset = "8 d_in", .help = "latents"},
    [B_K] = {.name = "k", .kind = OPTION_REAL, .above_min = true, .value = "K", .preset = "32, at most d_in / 8", .help = "active latents a row"},
    [B_BATCH] = {.name = "batch", .kind = OPTION_COUNT, .min = 1, .max = 1048576, .value = "N", .preset = "4096", .help = "rows a step"},
    [B_MASK] = {.name = "mask", .kind = OPTION_CHOICE, .value = "NAME", .choices = mask_choices, .preset = "atm", .help = "masking"},
    [B_ROWS] = {.name = "rows", .kind = OPTION_COUNT, .min = 1, .value = "N", .preset = "100M", .help = "length of the run to foretell"},
    [B_SECONDS] = {.group = "measurement", .name = "seconds", .kind = OPTION_REAL, .max = 3600, .value = "S", .preset = "5",
                   .help = "time to measure for; three steps at the least"},
    [B_JSON] = {.name = "json", .kind = OPTION_FLAG, .help = "one JSON object on stdout"},
    [B_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096, .help = "threads that compute",
                   .preset = "one for each CPU that it may use"},
    [B_PRECISION] = {.name = "precision", .kind = OPTION_CHOICE, .value = "NAME", .choices = precision_choices, .preset = "fp32",
                     .help = "of the product that proposes latents"},
};

static const char bench_help[] =
    "usage: atmsae bench [--d-in D] [--d-sae F] [--k K] [--mask NAME] [OPTIONS]\n\n"
    "Times training steps (BatchTopK) of the given size on generated rows, and says how many rows a second\n"
    "that is and how long a run would take. `products` is the time of a step in units of the one dense\n"
    "product it needs, rows times W_enc, taken as an encoding in which nothing fires.\n\n"
    "examples\n"
    "  atmsae bench\n"
    "  atmsae bench --d-in 2304 --d-sae 16384 --k 64 --rows 500M\n";

typedef struct job {
    atmsae_context *context;
    atmsae_trainer *trainer;
    atmsae_codes *codes;
    atmsae_batch batch;
    atmsae_model_config model;
    atmsae_masker_config masker;
    atmsae_trainer_config trainer_config;
    float *rows;
} job;

static bool make_rows(job *j)
{
    atmsae_synth_config config;
    atmsae_synth *synth;
    atmsae_synth_config_init(&config, sizeof config);
    config.d = j->model.d_in;
    j->rows = program_alloc(j->trainer_config.batch_rows * config.d, sizeof *j->rows);
    const bool good = atmsae_synth_create(j->context, &config, &synth) >= 0 &&
                      atmsae_synth_rows(synth, 0, j->trainer_config.batch_rows, j->rows, NULL) >= 0;
    atmsae_synth_destroy(synth);
    atmsae_batch_init(&j->batch, sizeof j->batch);
    j->batch.n_rows = j->trainer_config.batch_rows;
    j->batch.x = j->rows;
    return good;
}

/* Masking from the first step on, as in the main part of a run. */
static bool make_trainer(job *j, const setting *s)
{
    atmsae_masker_config_init(&j->masker, sizeof j->masker);
    setting_choice(&s[B_MASK], &j->masker.kind);
    j->masker.warmup_steps = 0;
    j->trainer_config.model = &j->model;
    j->trainer_config.masker = &j->masker;
    return atmsae_trainer_create(j->context, &j->trainer_config, &j->trainer) >= 0 &&
           atmsae_trainer_prepare(j->trainer, &j->batch) >= 0 && atmsae_codes_create(j->context, &j->codes) >= 0;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median time of steps, the first one (which allocates) left out; negative after a failure. */
static double time_steps(job *j, double seconds)
{
    double times[STEPS_MOST];
    size_t n = 0;
    const double start = program_seconds();
    if (atmsae_trainer_step(j->trainer, &j->batch, NULL) < 0) return -1;
    while (n < STEPS_LEAST || (n < STEPS_MOST && program_seconds() - start < seconds)) {
        const double before = program_seconds();
        if (atmsae_trainer_step(j->trainer, &j->batch, NULL) < 0) return -1;
        times[n++] = program_seconds() - before;
    }
    qsort(times, n, sizeof *times, compare);
    return times[n / 2];
}

/* The best of three encodings under a threshold that nothing reaches. */
static double time_product(job *j)
{
    const float never = 1e30f;
    double best = INFINITY;
    atmsae_model *model = atmsae_trainer_model(j->trainer);
    if (atmsae_model_set(model, ATMSAE_BATCH_THRESHOLD, &never, 1) < 0) return -1;
    for (int i = 0; i < 3; i++) {
        const double before = program_seconds();
        if (atmsae_encode(model, &j->batch, j->codes) < 0) return -1;
        best = fmin(best, program_seconds() - before);
    }
    return best;
}

static void print_result(const job *j, const setting *s, double step, double product)
{
    const double rate = (double)j->batch.n_rows / step, rows = s[B_ROWS].given ? (double)s[B_ROWS].count : 1e8;
    char duration[32];
    program_duration(rows / rate, duration, sizeof duration);
    fields out = {0};
    fields_count(&out, "d-in", j->model.d_in);
    fields_count(&out, "d-sae", j->model.d_sae);
    fields_real(&out, "k", j->model.k);
    fields_count(&out, "batch", j->batch.n_rows);
    fields_count(&out, "threads", atmsae_context_threads(j->context));
    fields_text(&out, "cpu", atmsae_context_cpu(j->context));
    fields_real(&out, "step_seconds", step);
    fields_real(&out, "product_seconds", product);
    fields_real(&out, "products", step / product);
    fields_real(&out, "rows_per_second", rate);
    fields_real(&out, "rows", rows);
    fields_text(&out, "time_for_rows", duration);
    if (s[B_JSON].given) fields_print_json(&out, stdout);
    else fields_print(&out, stdout);
    fields_free(&out);
}

static int run_bench(const setting *s)
{
    job j = {.context = command_context(&s[B_THREADS], &s[B_PRECISION], s[B_JSON].given)};
    if (!j.context) return EXIT_FAILED;
    atmsae_model_config_init(&j.model, sizeof j.model);
    atmsae_trainer_config_init(&j.trainer_config, sizeof j.trainer_config);
    j.model.d_in = s[B_D_IN].given ? s[B_D_IN].count : 768;
    train_default_sizes(&j.model, UINT64_MAX);
    setting_count(&s[B_D_SAE], &j.model.d_sae);
    setting_real(&s[B_K], &j.model.k);
    setting_count(&s[B_BATCH], &j.trainer_config.batch_rows);
    double step = -1, product = -1;
    if (make_rows(&j) && make_trainer(&j, s)) step = time_steps(&j, s[B_SECONDS].given ? s[B_SECONDS].real : 5);
    if (step >= 0) product = time_product(&j);
    const int code = product >= 0 ? EXIT_OK : command_failed(j.context);
    if (code == EXIT_OK) print_result(&j, s, step, product);
    atmsae_codes_destroy(j.codes);
    atmsae_trainer_destroy(j.trainer);
    atmsae_context_destroy(j.context);
    free(j.rows);
    return code;
}

const command command_bench = {.name = "bench", .summary = "time training steps on this machine: how long will my run take",
                               .help = bench_help, .options = bench_options, .n_options = B_OPTIONS, .run = run_bench};
