/* SPDX-License-Identifier: MIT
 *
 * The ready training step: the loop of section 6 of the header, put together.
 */
#include "train/train.h"

#include <math.h>
#include <string.h>

void atmsae_trainer_config_init(atmsae_trainer_config *config, size_t size)
{
    const atmsae_trainer_config defaults = {.batch_rows = 4096, .sparsity_warmup = NAN};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static uint64_t steps_of(uint64_t total_rows, uint64_t batch_rows)
{
    return total_rows == 0 ? 0 : ams_max(1, total_rows / batch_rows);
}

static atmsae_status build_parts(atmsae_trainer *t, const atmsae_trainer_config *c, bool blank)
{
    atmsae_context *ctx = t->ctx;
    AMS_TRY(blank ? ams_model_create_blank(ctx, c->model, &t->model) : atmsae_model_create(ctx, c->model, &t->model));

    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    if (c->optimizer)
        AMS_TRY(ams_struct_in(ctx, atmsae_optimizer_config, &optimizer, c->optimizer));
    optimizer.total_steps = t->total_steps;
    AMS_TRY(atmsae_optimizer_create(t->model, &optimizer, &t->optimizer));

    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    if (c->tracker) AMS_TRY(ams_struct_in(ctx, atmsae_tracker_config, &tracker, c->tracker));
    tracker.d_sae = t->model->d_sae;
    if (tracker.dead_window == UINT64_MAX && t->total_rows > 0)
        tracker.dead_window = ams_min(AMS_DEAD_WINDOW, ams_max(1, t->total_rows / 10));
    AMS_TRY(atmsae_tracker_create(ctx, &tracker, &t->tracker));

    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    if (c->masker) AMS_TRY(ams_struct_in(ctx, atmsae_masker_config, &masker, c->masker));
    masker.d_sae = t->model->d_sae;
    if (masker.seed == 0) masker.seed = t->model->config.seed;
    masker.total_steps = t->total_steps;
    AMS_TRY(atmsae_masker_create(ctx, &masker, &t->masker));

    AMS_TRY(atmsae_codes_create(ctx, &t->codes));
    return atmsae_gradients_create(t->model, &t->gradients);
}

static void show_schedules(atmsae_trainer *t)
{
    t->shown_optimizer = ams_optimizer_resolved(t->optimizer);
    t->shown_masker = ams_masker_resolved(t->masker);
}

atmsae_status ams_trainer_build(atmsae_context *ctx, const atmsae_trainer_config *caller, bool blank, atmsae_trainer **out)
{
    atmsae_trainer_config c;
    atmsae_trainer_config_init(&c, sizeof c);
    AMS_TRY(ams_struct_in(ctx, atmsae_trainer_config, &c, caller));
    if (!c.model) return ams_fail(ctx, ATMSAE_E_ARG, "trainer_create: config.model is NULL");
    if (c.batch_rows < 1 || c.batch_rows > INT32_MAX)
        return ams_fail(ctx, ATMSAE_E_ARG, "batch_rows = %llu, allowed: 1 to 2^31 - 1", (unsigned long long)c.batch_rows);
    if (!isnan(c.sparsity_warmup) && !(c.sparsity_warmup >= 0 && c.sparsity_warmup <= 1))
        return ams_fail(ctx, ATMSAE_E_ARG, "sparsity_warmup = %g, allowed: 0 to 1", c.sparsity_warmup);
    if (c.max_norm != 0 && !(c.max_norm >= 1 && c.max_norm <= 1e9))
        return ams_fail(ctx, ATMSAE_E_ARG, "max_norm = %g, allowed: 0 (off), 1 to 1e9", c.max_norm);
    atmsae_trainer *t = ams_calloc(ctx, 1, sizeof *t);
    if (!t) return ams_nomem(ctx, "the trainer");
    t->ctx = ams_context_ref(ctx);
    t->total_rows = c.total_rows;
    t->batch_rows = c.batch_rows;
    t->total_steps = steps_of(c.total_rows, c.batch_rows);
    t->skip_bad_rows = c.skip_bad_rows;
    t->max_norm = c.max_norm;
    atmsae_status status = build_parts(t, &c, blank);
    if (status < 0) {
        atmsae_trainer_destroy(t);
        return status;
    }
    t->sparsity_warmup = c.sparsity_warmup;
    if (isnan(t->sparsity_warmup))
        t->sparsity_warmup = t->model->config.target_l0 > 0 ? 0 : t->model->config.activation == ATMSAE_JUMPRELU_TANH ? 1 : 0.05;
    show_schedules(t);
    if (!blank) ams_advise_schedules(t);
    *out = t;
    return ATMSAE_OK;
}

static atmsae_status create(atmsae_context *ctx, const atmsae_trainer_config *config, atmsae_trainer **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "trainer_create: out is NULL");
    return ams_trainer_build(ctx, config, false, out);
}

atmsae_status atmsae_trainer_create(atmsae_context *ctx, const atmsae_trainer_config *config, atmsae_trainer **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, config, out));
}

void atmsae_trainer_destroy(atmsae_trainer *t)
{
    if (!t) return;
    atmsae_context *ctx = t->ctx;
    atmsae_gradients_destroy(t->gradients);
    atmsae_codes_destroy(t->codes);
    atmsae_masker_destroy(t->masker);
    atmsae_tracker_destroy(t->tracker);
    atmsae_optimizer_destroy(t->optimizer);
    atmsae_model_destroy(t->model);
    ams_free(ctx, t->weights);
    ams_free(ctx, t);
    atmsae_context_destroy(ctx);
}

static atmsae_status use_to_prepare(atmsae_trainer *t, const atmsae_batch *batch, void *unused)
{
    (void)unused;
    return ams_model_prepare(t->model, batch);
}

static atmsae_status prepare(atmsae_trainer *t, const atmsae_batch *batch)
{
    if (t->steps > 0)
        return ams_fail(t->ctx, ATMSAE_E_STATE, "trainer_prepare: %llu steps were already done; prepare comes first",
                        (unsigned long long)t->steps);
    double limits[2];
    ams_left_out left_out;
    const double was[2] = {t->norm_limit[0], t->norm_limit[1]};
    AMS_TRY(ams_find_norm_limits(t, batch, limits));
    memcpy(t->norm_limit, limits, sizeof limits);
    const atmsae_status status = ams_use_batch(t, batch, true, t->skip_bad_rows, use_to_prepare, NULL, &left_out);
    if (status < 0) memcpy(t->norm_limit, was, sizeof was);
    return status;
}

atmsae_status atmsae_trainer_prepare(atmsae_trainer *t, const atmsae_batch *batch)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, prepare(t, batch), AMS_TRAINER(AMS_CHANGES, t));
}

static double sparsity_scale(const atmsae_trainer *t)
{
    double warmup = t->sparsity_warmup * (double)t->total_steps;
    return ams_target_coef(t) * (warmup > 0 ? fmin(1, ((double)t->steps + 1) / warmup) : 1);
}

static void masked_job(void *mask, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    for (uint64_t i = first; i < last; i++)
        sums[0] += ((const atmsae_mask *)mask)->masked[i];
}

static uint64_t count_masked(atmsae_context *ctx, const atmsae_mask *drawn)
{
    atmsae_mask mask = *drawn;
    double sums[AMS_PIECE_SUMS] = {0};
    if (mask.masked) ams_pieces(ctx, mask.d_sae, masked_job, &mask, sums);
    return (uint64_t)sums[0];
}

typedef struct forward {
    atmsae_forward_options options;
    atmsae_loss loss;
} forward;

static atmsae_status use_to_train(atmsae_trainer *t, const atmsae_batch *batch, void *arg)
{
    forward *f = arg;
    return ams_forward(t->model, batch, &f->options, t->codes, &f->loss);
}

static atmsae_status step(atmsae_trainer *t, const atmsae_batch *batch, atmsae_step_stats *stats)
{
    if (atmsae_stop_requested(t->ctx))
        return ams_fail(t->ctx, ATMSAE_E_STOPPED, "trainer_step: a stop was requested after %llu steps",
                        (unsigned long long)t->steps);
    AMS_TRY(ams_masker_draw(t->masker, t->steps));

    forward f = {.loss = {.size = sizeof f.loss}};
    atmsae_forward_options_init(&f.options, sizeof f.options);
    f.options.mask = atmsae_masker_mask(t->masker);
    f.options.dead = atmsae_tracker_dead(t->tracker, &f.options.n_dead);
    f.options.sparsity_scale = sparsity_scale(t);
    atmsae_step_stats s = {.size = sizeof s, .step = t->steps, .dead = f.options.n_dead, .r = t->masker->rate,
                           .mean_p = t->masker->mean_p, .masked = count_masked(t->ctx, f.options.mask),
                           .lr = ams_optimizer_lr(t->optimizer)};
    if (stats) AMS_TRY(ams_struct_check(t->ctx, atmsae_step_stats, stats));

    const uint64_t allowed = t->skip_bad_rows - ams_min(t->bad_rows, t->skip_bad_rows);
    ams_left_out left_out;
    AMS_TRY(ams_use_batch(t, batch, true, allowed, use_to_train, &f, &left_out));
    if (t->steps == 0) ams_advise_start(t, t->codes->n);
    s.bad_rows = left_out.bad;
    s.outlier_rows = left_out.outliers;
    AMS_TRY(ams_backward(t->model, t->codes, t->gradients));
    atmsae_latent_sums sums = {.size = sizeof sums};
    AMS_TRY(atmsae_gradients_sums(t->gradients, &sums));
    AMS_TRY(ams_tracker_check(t->tracker, &sums)); /* nothing after this can fail half-way */
    const bool has_target = t->model->config.target_l0 > 0;
    const double margin = has_target ? ams_cuts_margin(t->model, t->codes) : 0;
    AMS_TRY(ams_optimizer_step(t->optimizer, t->model, t->gradients, &s.grad_norm));
    const double l0 = has_target ? ams_target_update(t, &sums, margin, s.lr) : f.loss.l0;
    AMS_TRY(ams_tracker_observe(t->tracker, &sums));
    AMS_TRY(ams_masker_update(t->masker, atmsae_tracker_importance(t->tracker), t->model->d_sae));
    t->steps++;
    t->bad_rows += s.bad_rows;
    t->outlier_rows += s.outlier_rows;

    s.rows = f.loss.rows;
    s.loss = f.loss.total;
    s.mse = f.loss.mse;
    s.sparsity = f.loss.sparsity;
    s.aux = f.loss.aux;
    s.fvu = f.loss.fvu;
    s.l0 = f.loss.l0;
    s.sparsity_coef = t->codes->lambda;
    s.masked_loss = f.loss.masked;
    if (ams_advise_now(t)) ams_advise_batch(t, batch, s.outlier_rows > 0);
    ams_advise_step(t, &s, l0);
    return stats ? ams_struct_out(t->ctx, atmsae_step_stats, stats, &s) : ATMSAE_OK;
}

atmsae_status atmsae_trainer_step(atmsae_trainer *t, const atmsae_batch *batch, atmsae_step_stats *stats)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, step(t, batch, stats), AMS_TRAINER(AMS_CHANGES, t));
}

static atmsae_status use_to_calibrate(atmsae_trainer *t, const atmsae_batch *batch, void *unused)
{
    (void)unused;
    return ams_model_calibrate(t->model, batch);
}

static atmsae_status calibrate(atmsae_trainer *t, const atmsae_batch *batch)
{
    ams_left_out left_out;
    if (!ams_calibrates(t->model)) return ATMSAE_OK;
    return ams_use_batch(t, batch, false, t->skip_bad_rows, use_to_calibrate, NULL, &left_out);
}

atmsae_status atmsae_trainer_calibrate(atmsae_trainer *t, const atmsae_batch *batch)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, calibrate(t, batch), AMS_TRAINER(AMS_CHANGES, t));
}

static atmsae_status begin_cooldown(atmsae_trainer *t, uint64_t steps)
{
    AMS_TRY(ams_masker_begin_cooldown(t->masker, t->steps, steps));
    t->optimizer->cooldown_from = t->optimizer->steps;
    t->optimizer->cooldown_steps = steps;
    return ATMSAE_OK;
}

atmsae_status atmsae_trainer_begin_cooldown(atmsae_trainer *t, uint64_t steps)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, begin_cooldown(t, steps), AMS_TRAINER(AMS_CHANGES, t));
}

static atmsae_status set_total_rows(atmsae_trainer *t, uint64_t total_rows)
{
    uint64_t steps = steps_of(total_rows, t->batch_rows);
    if (steps != t->total_steps)
        ams_log(t->ctx, ATMSAE_LOG_WARNING,
                "the run's length changes from %llu to %llu steps at step %llu: warm-ups, learning-rate decay and the "
                "masks' cool-down move with it; the dead window stays %llu rows",
                (unsigned long long)t->total_steps, (unsigned long long)steps, (unsigned long long)t->steps,
                (unsigned long long)t->tracker->config.dead_window);
    t->total_rows = total_rows;
    t->total_steps = steps;
    t->optimizer->config.total_steps = steps;
    t->masker->config.total_steps = steps;
    show_schedules(t);
    return ATMSAE_OK;
}

atmsae_status atmsae_trainer_set_total_rows(atmsae_trainer *t, uint64_t total_rows)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, set_total_rows(t, total_rows), AMS_TRAINER(AMS_CHANGES, t));
}

static atmsae_status get_config(const atmsae_trainer *t, atmsae_trainer_config *config)
{
    const atmsae_trainer_config local = {sizeof local, &t->model->config, &t->shown_optimizer, &t->tracker->config,
                                         &t->shown_masker, t->total_rows, t->batch_rows, t->sparsity_warmup,
                                         t->skip_bad_rows, t->max_norm};
    return ams_struct_out(t->ctx, atmsae_trainer_config, config, &local);
}

atmsae_status atmsae_trainer_get_config(const atmsae_trainer *t, atmsae_trainer_config *config)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, get_config(t, config), AMS_TRAINER(AMS_READS, t));
}

static atmsae_status set_skip_bad_rows(atmsae_trainer *t, uint64_t rows)
{
    t->skip_bad_rows = rows;
    return ATMSAE_OK;
}

atmsae_status atmsae_trainer_set_skip_bad_rows(atmsae_trainer *t, uint64_t rows)
{
    if (!t) return ATMSAE_E_ARG;
    AMS_CALL(t->ctx, set_skip_bad_rows(t, rows), AMS_TRAINER(AMS_CHANGES, t));
}

uint64_t atmsae_trainer_bad_rows(const atmsae_trainer *t) { return t ? t->bad_rows : 0; }
uint64_t atmsae_trainer_outlier_rows(const atmsae_trainer *t) { return t ? t->outlier_rows : 0; }
double atmsae_trainer_norm_limit(const atmsae_trainer *t, int32_t targets)
{
    if (!t) return NAN;
    return targets == 0 || targets == 1 ? t->norm_limit[targets] : 0;
}
uint64_t atmsae_trainer_steps_done(const atmsae_trainer *t) { return t ? t->steps : 0; }
atmsae_model *atmsae_trainer_model(atmsae_trainer *t) { return t ? t->model : NULL; }
atmsae_tracker *atmsae_trainer_tracker(atmsae_trainer *t) { return t ? t->tracker : NULL; }
atmsae_masker *atmsae_trainer_masker(atmsae_trainer *t) { return t ? t->masker : NULL; }
atmsae_optimizer *atmsae_trainer_optimizer(atmsae_trainer *t) { return t ? t->optimizer : NULL; }
