/* SPDX-License-Identifier: MIT
 *
 * The quickstart's program: trains TopK, JumpReLU, BatchTopK and ATM at the same sparsity on rows
 * with known features and on real activations, and prints what each one missed.
 *
 *     quickstart_run DATA OUT       (examples/quickstart calls it)
 */
#include "quickstart.h"
#include "program.h"
#include "progress.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const quick_method quick_methods[QUICK_METHODS] = {
    {"TopK", ATMSAE_TOPK, ATMSAE_MASK_NONE},
    {"JumpReLU", ATMSAE_JUMPRELU, ATMSAE_MASK_NONE},
    {"BatchTopK", ATMSAE_BATCHTOPK, ATMSAE_MASK_NONE},
    {"ATM", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM}, /* BatchTopK with the mask, nothing else changed */
};

void quick_check(const atmsae_context *context, atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "quickstart: %s\n", atmsae_last_error(context));
    exit(1);
}

static atmsae_trainer *make_trainer(atmsae_context *context, const quick_task *task, const quick_method *method)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = task->d_in;
    model.d_sae = task->d_sae;
    model.activation = method->activation;
    model.input_norm = task->input_norm;
    model.b_dec_init = task->b_dec_init;
    model.seed = task->seed;
    if (method->activation == ATMSAE_JUMPRELU)
        model.target_l0 = task->k;
    else
        model.k = method->activation == ATMSAE_TOPK ? floor(task->k) : task->k; /* TopK takes whole numbers */
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 1e-3;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = method->mask;
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.dead_window = task->dead_window;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.tracker = &tracker;
    config.masker = &masker;
    config.batch_rows = task->batch_rows;
    config.total_rows = task->batch_rows * task->steps;
    atmsae_trainer *trainer;
    quick_check(context, atmsae_trainer_create(context, &config, &trainer));
    return trainer;
}

atmsae_trainer *quick_train(atmsae_context *context, const quick_task *task, const quick_method *method,
                            history *record)
{
    char name[64];
    snprintf(name, sizeof name, "%s, %-9s", task->name, method->name);
    atmsae_trainer *trainer = make_trainer(context, task, method);
    atmsae_batch sample, batch;
    atmsae_batch_init(&sample, sizeof sample);
    sample.n_rows = task->n_sample;
    sample.x = task->sample;
    quick_check(context, atmsae_trainer_prepare(trainer, &sample));

    float *rows = program_alloc(task->batch_rows * task->d_in, sizeof *rows);
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = task->batch_rows;
    batch.x = rows;
    atmsae_step_stats stats = {.size = sizeof stats};
    progress line;
    progress_start(&line, name, false, 0, task->steps * task->batch_rows);
    for (uint64_t step = 0; step < task->steps; step++) {
        task->next(task->opaque, step, rows);
        quick_check(context, atmsae_trainer_step(trainer, &batch, &stats));
        if (record) history_record(record, trainer, &stats);
        progress_show(&line, (step + 1) * task->batch_rows, &stats);
    }
    sample.n_rows = task->n_calibration;
    sample.x = task->calibration;
    quick_check(context, atmsae_trainer_calibrate(trainer, &sample));
    progress_end(&line, task->steps * task->batch_rows, &stats);
    free(rows);
    return trainer;
}

void quick_measure(atmsae_context *context, const atmsae_model *model, const float *rows, uint64_t n, uint64_t d,
                   double share, quick_result *result)
{
    atmsae_metrics *metrics;
    quick_check(context, atmsae_metrics_create(model, &metrics));
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    for (uint64_t first = 0; first < n; first += batch.n_rows) {
        batch.n_rows = n - first < 4096 ? n - first : 4096;
        batch.x = rows + first * d;
        quick_check(context, atmsae_metrics_add(metrics, &batch));
    }
    atmsae_metrics_result r = {.size = sizeof r};
    quick_check(context, atmsae_metrics_get(metrics, &r));
    atmsae_metrics_destroy(metrics);
    result->l0 += share * r.l0;
    result->fvu += share * r.fvu;
    result->cosine += share * r.cosine;
    result->dead += share * (double)r.dead;
}

const char *quick_matched(const quick_result *result, double k)
{
    return fabs(result->l0 / k - 1) <= 0.05 ? "" : "not matched";
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s DATA OUT    (DATA: the folder examples/data; OUT: for the results)\n", argv[0]);
        return 2;
    }
    program_choose_blis_kernels();
    if (!program_make_folder(argv[2])) {
        fprintf(stderr, "quickstart: %s: %s\n", argv[2], strerror(errno));
        return 1;
    }
    atmsae_context *context;
    if (atmsae_context_create(NULL, &context) < 0) return 1;
    fprintf(stderr, "%u threads, %s\n", atmsae_context_threads(context), atmsae_context_cpu(context));
    const double start = program_seconds();
    quick_result synthetic[QUICK_METHODS] = {{0}}, real[QUICK_METHODS] = {{0}};
    quick_synthetic(context, synthetic);
    quick_real(context, argv[1], argv[2], real);
    quick_print_synthetic(synthetic);
    quick_print_real(real);
    char time[32];
    program_duration(program_seconds() - start, time, sizeof time);
    printf("\nAll numbers are of rows that were not trained on. The method ATM is BatchTopK plus the mask, with its\n"
           "default settings. Training and measuring took %s (minutes:seconds).\n\n"
           "%s/atm       the SAE of ATM on real activations (SAELens v6 folder)\n"
           "%s/atm.svg   how importance, threshold and masking went over its training\n", time, argv[2], argv[2]);
    atmsae_context_destroy(context);
    return 0;
}
