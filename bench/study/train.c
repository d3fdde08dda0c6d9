/* SPDX-License-Identifier: MIT
 *
 * The methods of the study, and the one training loop that all of them go through: the loop of section 6 of
 * atmsae.h, so that masks can be changed on their way from the masker to the forward pass.
 */
#include "study.h"
#include "program.h"

#include <math.h>
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

static atmsae_model *make_model(atmsae_context *context, const study_method *method, const settings *s,
                                const study_rows *rows)
{
    /* Shares of F: the usual doubling widths, fewer, more even. */
    static const double shares[3][4] = {{1. / 32, 3. / 32, 7. / 32, 15. / 32}, {1. / 16, 1. / 4, 0, 0}, {.2, .4, .6, .8}};
    uint64_t prefixes[4];
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    c.d_in = rows->d;
    c.d_sae = (uint64_t)s->F;
    c.seed = (uint64_t)s->seed;
    c.activation = method->activation;
    c.input_norm = rows->input_norm;
    c.b_dec_init = rows->b_dec_init;
    c.bandwidth = s->bandwidth;
    if (method->activation == ATMSAE_JUMPRELU) {
        c.target_l0 = s->target > 0 ? s->target : s->k;
        c.sparsity_coef = s->lambda;
        c.init_threshold = s->theta0;
    } else if (method->activation == ATMSAE_RELU) {
        c.sparsity_coef = s->lambda;
    } else {
        c.k = s->k;
    }
    for (int i = 0; method->nested && i < 4 && shares[(int)s->widths][i] > 0; i++)
        prefixes[c.n_prefixes++] = (uint64_t)(shares[(int)s->widths][i] * s->F);
    c.prefixes = prefixes;
    atmsae_model *model;
    study_check(context, atmsae_model_create(context, &c, &model));
    const atmsae_batch sample = {.size = sizeof sample, .n_rows = rows->n_sample, .x = rows->sample, .x_type = ATMSAE_F32};
    study_check(context, atmsae_model_prepare(model, &sample));
    return model;
}

typedef struct parts {
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
} parts;

static parts make_parts(atmsae_context *context, const study_method *method, const settings *s, const study_rows *rows,
                        const atmsae_model *model)
{
    parts p;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = s->lr;
    optimizer.total_steps = (uint64_t)s->steps;
    optimizer.freeze_masked = s->freeze != 0;
    study_check(context, atmsae_optimizer_create(model, &optimizer, &p.optimizer));
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.d_sae = (uint64_t)s->F;
    tracker.decay = s->decay;
    tracker.weight_magnitude = s->magnitude;
    tracker.weight_frequency = s->frequency;
    tracker.weight_contribution = s->contribution;
    tracker.combine = s->geometric != 0 ? ATMSAE_MEAN_GEOMETRIC : ATMSAE_MEAN_ARITHMETIC;
    tracker.dead_window = rows->dead_window;
    study_check(context, atmsae_tracker_create(context, &tracker, &p.tracker));
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.d_sae = (uint64_t)s->F;
    masker.seed = (uint64_t)s->seed;
    masker.kind = method->mask;
    masker.per_row = s->per_row != 0;
    masker.c = s->c;
    masker.r = s->r;
    masker.total_steps = (uint64_t)s->steps;
    masker.warmup_steps = (uint64_t)s->warm;
    masker.cooldown_start = s->cool_start;
    masker.cooldown_end = s->cool_end;
    study_check(context, atmsae_masker_create(context, &masker, &p.masker));
    study_check(context, atmsae_codes_create(context, &p.codes));
    study_check(context, atmsae_gradients_create(model, &p.gradients));
    return p;
}

static void free_parts(parts *p)
{
    atmsae_gradients_destroy(p->gradients);
    atmsae_codes_destroy(p->codes);
    atmsae_masker_destroy(p->masker);
    atmsae_tracker_destroy(p->tracker);
    atmsae_optimizer_destroy(p->optimizer);
}

study_trained study_train(atmsae_context *context, const study_method *method, const settings *s, const study_rows *rows)
{
    const clock_t start = clock();
    const uint64_t n = (uint64_t)s->batch, steps = (uint64_t)s->steps, warmup = steps / 20, last = steps / 10;
    study_trained result = {.model = make_model(context, method, s, rows)};
    atmsae_model *model = result.model;
    parts p = make_parts(context, method, s, rows, model);
    float *x = program_alloc(n * rows->d, sizeof *x);
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = n, .x = x, .x_type = ATMSAE_F32};
    atmsae_latent_sums sums = {.size = sizeof sums};
    atmsae_loss loss = {.size = sizeof loss};
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    for (uint64_t step = 0; step < steps; step++) {
        rows->next(rows->opaque, step, n, x);
        study_check(context, atmsae_masker_draw(p.masker, step));
        options.mask = atmsae_masker_mask(p.masker);
        options.dead = atmsae_tracker_dead(p.tracker, &options.n_dead);
        options.sparsity_scale = warmup > 0 ? fmin(1, (double)(step + 1) / (double)warmup) : 1;
        study_check(context, atmsae_forward(model, &batch, &options, p.codes, &loss));
        study_check(context, atmsae_backward(model, p.codes, p.gradients));
        study_check(context, atmsae_optimizer_step(p.optimizer, model, p.gradients, NULL));
        study_check(context, atmsae_gradients_sums(p.gradients, &sums));
        study_check(context, atmsae_tracker_observe(p.tracker, &sums));
        study_check(context, atmsae_masker_update(p.masker, atmsae_tracker_importance(p.tracker), (uint64_t)s->F));
        result.mean_p += atmsae_masker_mean_p(p.masker) / (double)steps;
        if (step >= steps - last) result.l0_train += loss.l0 / (double)last;
    }
    const atmsae_batch calibration = {.size = sizeof calibration, .n_rows = rows->n_calibration, .x = rows->calibration, .x_type = ATMSAE_F32};
    study_check(context, atmsae_model_calibrate(model, &calibration));
    free_parts(&p);
    free(x);
    result.seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    return result;
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
