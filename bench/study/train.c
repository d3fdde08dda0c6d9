/* SPDX-License-Identifier: MIT
 *
 * The methods of the study, and how one SAE is trained: by the library's trainer, as its users would.
 */
#include "study.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

const study_method study_methods[] = {
    {"topk", ATMSAE_TOPK, ATMSAE_MASK_NONE, 0},
    {"batchtopk", ATMSAE_BATCHTOPK, ATMSAE_MASK_NONE, 0},
    {"jumprelu", ATMSAE_JUMPRELU, ATMSAE_MASK_NONE, 0},
    {"matryoshka", ATMSAE_BATCHTOPK, ATMSAE_MASK_NONE, 1},
    {"uniform", ATMSAE_BATCHTOPK, ATMSAE_MASK_UNIFORM, 0},   /* every latent at the mean of ATM's p */
    {"permuted", ATMSAE_BATCHTOPK, ATMSAE_MASK_PERMUTED, 0}, /* ATM's p dealt to the wrong latents */
    {"atm", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0},
    {"atm_jumprelu", ATMSAE_JUMPRELU, ATMSAE_MASK_ATM, 0},
    {"atm_matryoshka", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 1},
    {"relu", ATMSAE_RELU, ATMSAE_MASK_NONE, 0},
    {"paper", ATMSAE_RELU, ATMSAE_MASK_PAPER, 0}, /* ReLU + L1, constant r */
    {NULL, 0, 0, 0},
};

const study_method *study_find(const char *name)
{
    const study_method *m = study_methods;
    while (m->name && strcmp(m->name, name) != 0)
        m++;
    return m->name ? m : NULL;
}

/* Shares of F: the usual doubling widths, fewer, more even, and SynthSAEBench's 128, 512, 2048 of 4096. */
static const double shares[4][4] = {{1. / 32, 3. / 32, 7. / 32, 15. / 32}, {1. / 16, 1. / 4, 0, 0}, {.2, .4, .6, .8}, {1. / 32, 1. / 8, 1. / 2, 0}};

static atmsae_trainer *make_trainer(atmsae_context *context, const study_method *method, const settings *s, const study_rows *rows)
{
    uint64_t prefixes[4];
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = rows->d;
    model.d_sae = (uint64_t)s->F;
    model.seed = (uint64_t)s->seed;
    model.activation = method->activation;
    model.input_norm = rows->input_norm;
    model.b_dec_init = rows->b_dec_init;
    model.bandwidth = s->bandwidth;
    if (method->activation == ATMSAE_RELU) model.sparsity_coef = s->lambda;
    else if (method->activation == ATMSAE_JUMPRELU) model.target_l0 = s->k;
    else model.k = s->k;
    for (int i = 0; method->nested && i < 4 && shares[(int)s->widths][i] > 0; i++)
        prefixes[model.n_prefixes++] = (uint64_t)(shares[(int)s->widths][i] * s->F);
    model.prefixes = prefixes;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = s->lr;
    optimizer.freeze_masked = s->freeze != 0;
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.decay = s->decay;
    tracker.weight_magnitude = s->magnitude;
    tracker.weight_frequency = s->frequency;
    tracker.weight_contribution = s->contribution;
    tracker.combine = s->geometric != 0 ? ATMSAE_MEAN_GEOMETRIC : ATMSAE_MEAN_ARITHMETIC;
    tracker.dead_window = rows->dead_window;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = method->mask;
    masker.effect = (int32_t)s->effect;
    masker.alpha = s->alpha;
    masker.per_row = s->per_row != 0;
    masker.c = s->c;
    masker.r = s->r;
    masker.warmup_steps = (uint64_t)s->warm;
    masker.cooldown_start = s->cool_start;
    masker.cooldown_end = s->cool_end;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.tracker = &tracker;
    config.masker = &masker;
    config.batch_rows = (uint64_t)s->batch;
    config.total_rows = (uint64_t)(s->batch * s->steps);
    atmsae_trainer *trainer;
    study_check(context, atmsae_trainer_create(context, &config, &trainer));
    const atmsae_batch sample = {.size = sizeof sample, .n_rows = rows->n_sample, .x = rows->sample, .x_type = ATMSAE_F32};
    study_check(context, atmsae_trainer_prepare(trainer, &sample));
    return trainer;
}

study_trained study_train(atmsae_context *context, const study_method *method, const settings *s, const study_rows *rows)
{
    const clock_t start = clock();
    const uint64_t n = (uint64_t)s->batch, steps = (uint64_t)s->steps, last = (steps + 9) / 10;
    study_trained result = {.trainer = make_trainer(context, method, s, rows)};
    result.model = atmsae_trainer_model(result.trainer);
    float *x = program_alloc(n * rows->d, sizeof *x);
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = n, .x = x, .x_type = ATMSAE_F32};
    atmsae_step_stats stats = {.size = sizeof stats};
    for (uint64_t step = 0; step < steps; step++) {
        rows->next(rows->opaque, step, n, x);
        study_check(context, atmsae_trainer_step(result.trainer, &batch, &stats));
        result.mean_p += stats.mean_p / (double)steps;
        if (step >= steps - last) result.l0_train += stats.l0 / (double)last;
    }
    const atmsae_batch calibration = {.size = sizeof calibration, .n_rows = rows->n_calibration, .x = rows->calibration, .x_type = ATMSAE_F32};
    study_check(context, atmsae_trainer_calibrate(result.trainer, &calibration));
    free(x);
    result.seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    return result;
}

void study_free(study_trained *t)
{
    if (t->trainer) atmsae_trainer_destroy(t->trainer);
    else atmsae_model_destroy(t->model);
}

void study_reconstruction(atmsae_context *context, const atmsae_model *model, const float *rows, uint64_t n, uint64_t d,
                          atmsae_metrics_result *result)
{
    atmsae_metrics *metrics;
    study_check(context, atmsae_metrics_create(model, &metrics));
    atmsae_batch batch = {.size = sizeof batch, .x_type = ATMSAE_F32};
    for (uint64_t first = 0; first < n; first += batch.n_rows) {
        batch.n_rows = n - first < 2048 ? n - first : 2048;
        batch.x = rows + first * d;
        study_check(context, atmsae_metrics_add(metrics, &batch));
    }
    *result = (atmsae_metrics_result){.size = sizeof *result};
    study_check(context, atmsae_metrics_get(metrics, result));
    atmsae_metrics_destroy(metrics);
}
