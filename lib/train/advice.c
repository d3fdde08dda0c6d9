/* SPDX-License-Identifier: MIT
 *
 * Warnings in the log about a run that goes the wrong way. A few looks a run; a resumed run starts looking anew. What is
 * said names one cause and one remedy, and no remedy is named twice: what follows from a cause that was told is not told
 * as another.
 */
#include "train/train.h"

#include <math.h>

#define LOOKS 20
#define STEPS_LEAST 200     /* shorter runs show nothing but that they diverge */
#define STEPS_UNKNOWN 500   /* between looks, where the length is not known */
#define STEPS_TO_TARGET 1000
#define DEAD_SHARE 0.1
#define MASKED_SHARE 0.5
#define UNEXPLAINED 0.5
#define NEAR_END 0.95       /* of the run, when masks are over */
#define FALLING 0.8         /* FVU near the end over that at half of the run: it still falls */
#define NO_BETTER 1.05      /* FVU of a run that has lost what it had: the mean row does better, */
#define GROWN 1.1           /* and so did the run itself */
#define FVU_DECAY 0.9
#define L0_DECAY 0.98
#define L0_MISS 0.05        /* what is less is noise of batches, and calibrate takes it away */
#define LR_HIGH 5.0         /* times the usual one: may be the cause of what goes wrong */
#define LR_LOW 0.2

/* What can be done about it, as a bit of ams_advice.said. */
enum { LOWER_LR = 1, RAISE_LR = 2, TRAIN_LONGER = 4, RAISE_K = 8, RAISE_D_SAE = 16, LOWER_D_SAE = 32, LESS_SPARSE = 64, SPARSER = 128,
       LOWER_THRESHOLD = 256, AUXK = 512, LOWER_R = 1024 };

typedef struct cause {
    bool fits;
    uint32_t remedy;
    const char *text;
} cause;

/* The first that fits; the last one of a list always does. */
static const cause *first_cause(const cause *c)
{
    while (!c->fits)
        c++;
    return c;
}

static bool is_top(const atmsae_trainer *t) { return ams_takes_k(t->model->config.activation); }

/* The learning rate over the usual one. */
static double speed(const atmsae_trainer *t) { return t->optimizer->config.lr / ams_optimizer_usual_lr(t->model->d_sae); }

/* Whether a remedy has not been named yet; it is now. */
static bool first_time(atmsae_trainer *t, uint32_t remedy)
{
    const bool first = !(t->advice.said & remedy);
    t->advice.said |= remedy;
    return first;
}

/* Whether what goes wrong is the work of a penalty that outweighs the error. */
static bool penalty_won(const atmsae_trainer *t) { return !is_top(t) && (t->advice.l0_now < 1 || t->advice.penalty > 1) && speed(t) < LR_HIGH; }

static void look_at_divergence(atmsae_trainer *t)
{
    ams_advice *a = &t->advice;
    /* FVU measures from the mean of the batch itself, from which its n rows are nearer than from the mean of all rows: that
     * one, given for every row, has an FVU of n / (n - 1). */
    const double n = (double)t->batch_rows, mean_row = n > 1 ? n / (n - 1) : INFINITY;
    if (!(a->fvu > NO_BETTER * mean_row && a->fvu > GROWN * a->lowest) || penalty_won(t)) return;
    if ((t->model->rows_warned && speed(t) < LR_HIGH) || !first_time(t, LOWER_LR)) return;
    a->diverged = t->model->target_told = true;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "diverged: at step %llu FVU is %.3g and was %.3g: lower lr (it is %g; %.2g is usual for %llu latents)",
            (unsigned long long)t->steps, a->fvu, a->lowest, t->optimizer->config.lr, ams_optimizer_usual_lr(t->model->d_sae),
            (unsigned long long)t->model->d_sae);
}

void ams_advise_schedules(const atmsae_trainer *t)
{
    const uint64_t warmup = t->shown_optimizer.warmup_steps, window = t->tracker->config.dead_window;
    if (t->total_steps == 0) return;
    if (warmup >= t->total_steps)
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "warmup_steps is %llu, and the run has %llu steps, so lr is never reached: lower warmup_steps",
                (unsigned long long)warmup, (unsigned long long)t->total_steps);
    if (window >= t->total_rows && window < UINT64_MAX && t->model->config.aux_coef > 0)
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "dead_window is %llu rows, and the run has %llu, so no latent counts as dead and AuxK does nothing: "
                "lower dead_window", (unsigned long long)window, (unsigned long long)t->total_rows);
}

void ams_advise_start(const atmsae_trainer *t, uint64_t rows)
{
    const atmsae_model *m = t->model;
    if (m->config.input_norm == ATMSAE_INPUT_SQRT_D && m->input_scale == 1 && !m->rows_warned)
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "prepare was not called, so rows are neither scaled nor centred, and the usual lr and thresholds do not "
                "suit them: call atmsae_trainer_prepare before the first step");
    if (t->total_steps > 0 && rows != t->batch_rows)
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "batch_rows is %llu, and the first step has %llu rows, so the schedules of lr and masks end too %s: "
                "set batch_rows to the rows of a step", (unsigned long long)t->batch_rows, (unsigned long long)rows,
                rows < t->batch_rows ? "early" : "late");
}

/* ---- dead latents and masks ----------------------------------------------------------------------------------- */

static void look_at_dead(atmsae_trainer *t, uint64_t dead)
{
    ams_advice *a = &t->advice;
    const bool rising = dead > a->dead[1] && a->dead[1] > a->dead[0]; /* AuxK takes back what dies all at once */
    a->dead[0] = a->dead[1];
    a->dead[1] = dead;
    if (!rising || (double)dead <= DEAD_SHARE * (double)t->model->d_sae) return;
    const bool sparse = penalty_won(t), target = t->model->config.target_l0 > 0;
    const cause causes[] = {
        {!(t->model->config.aux_coef > 0), AUXK, "turn AuxK on: aux_coef 1/32"},
        {speed(t) > LR_HIGH, LOWER_LR, "lower lr"},
        {sparse && target, LESS_SPARSE, "raise target_l0"},
        {sparse, LESS_SPARSE, "lower sparsity_coef"},
        {true, LOWER_D_SAE, "lower d_sae"},
    };
    const cause *c = first_cause(causes);
    if (first_time(t, c->remedy))
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "dead latents are rising: %llu of %llu at step %llu: %s", (unsigned long long)dead,
                (unsigned long long)t->model->d_sae, (unsigned long long)t->steps, c->text);
}

static void look_at_masks(atmsae_trainer *t, double mean_p)
{
    const bool hard = t->masker->config.effect == ATMSAE_EFFECT_HARD; /* latents miss nothing under a second loss */
    if (hard && mean_p > MASKED_SHARE && first_time(t, LOWER_R))
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "masks starve latents: on average a latent is left out of %.0f %% of the steps: lower r "
                "(it is %g; 0.25 is usual)", 100 * mean_p, t->masker->config.r);
}

/* ---- the end of the run ------------------------------------------------------------------------------------------ */

static void look_at_error(atmsae_trainer *t)
{
    const ams_advice *a = &t->advice;
    const atmsae_model_config *m = &t->model->config;
    if (!(a->fvu > UNEXPLAINED)) return;
    const bool top = is_top(t), falls = a->fvu < FALLING * a->middle;
    const bool silent = t->model->log_threshold && !(a->l0_most > 0);
    const bool dense = !top && a->l0 > (double)m->d_in / 2;
    const cause causes[] = {
        {speed(t) > LR_HIGH, LOWER_LR, "lr is too high: lower it"},
        {speed(t) < LR_LOW && (falls || dense || top), RAISE_LR, "lr is too low: raise it"},
        {silent, LOWER_THRESHOLD, "no latent ever fires: lower init_threshold"},
        {falls || dense, TRAIN_LONGER, "the error still falls: raise total_rows"},
        {top && m->d_sae < m->d_in && 8 * m->k >= (double)m->d_sae, RAISE_D_SAE, "d_sae is too small: raise it"},
        {top, RAISE_K, "k is too small: raise it"},
        {m->target_l0 > 0, LESS_SPARSE, "too sparse: raise target_l0"},
        {true, LESS_SPARSE, "too sparse: lower sparsity_coef"},
    };
    const cause *c = first_cause(causes);
    if (!first_time(t, c->remedy)) return;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "%.0f %% of the variance stays unexplained near the end of the run, with %.3g latents a row: %s",
            100 * a->fvu, a->l0, c->text);
}

static void look_at_density(atmsae_trainer *t)
{
    const atmsae_model_config *m = &t->model->config;
    if (is_top(t) || m->target_l0 > 0 || t->advice.l0 <= (double)m->d_in / 2 || t->advice.fvu > UNEXPLAINED || !first_time(t, SPARSER)) return;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "not sparse: %.0f latents a row near the end of the run, for rows of %llu numbers: raise sparsity_coef, or "
            "set target_l0", t->advice.l0, (unsigned long long)m->d_in);
}

static void look_at_target(atmsae_trainer *t)
{
    const double target = t->model->config.target_l0, l0 = t->advice.l0;
    if (!(target > 0) || t->steps != t->total_steps || fabs(l0 / target - 1) <= L0_MISS || (t->advice.said & (LESS_SPARSE | LOWER_LR))) return;
    t->model->target_told = true;
    const bool much = 2 * target > (double)t->model->d_sae, quick = t->total_steps < STEPS_TO_TARGET;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "target_l0 is missed: L0 is %.3g at the end of the run of %llu steps, the target %g: %s", l0,
            (unsigned long long)t->total_steps, target,
            much    ? "more than about half of d_sae cannot fire"
            : quick ? "raise total_rows until it has 1000 steps"
                    : "raise total_rows");
}

static uint64_t looks_every(const atmsae_trainer *t) { return t->total_steps ? ams_max(1, t->total_steps / LOOKS) : STEPS_UNKNOWN; }

bool ams_advise_now(const atmsae_trainer *t)
{
    return (t->total_steps == 0 || t->total_steps >= STEPS_LEAST) && t->steps % looks_every(t) == 0;
}

void ams_advise_step(atmsae_trainer *t, const atmsae_step_stats *stats, double l0)
{
    ams_advice *a = &t->advice;
    a->l0 = a->l0 > 0 ? L0_DECAY * a->l0 + (1 - L0_DECAY) * l0 : l0;
    a->l0_most = fmax(a->l0_most, l0);
    a->l0_now = stats->l0;
    a->penalty = stats->mse > 0 ? stats->sparsity / stats->mse : 0;
    if (isfinite(stats->fvu)) {
        a->fvu = a->fvu > 0 ? FVU_DECAY * a->fvu + (1 - FVU_DECAY) * stats->fvu : stats->fvu;
        a->lowest = a->lowest > 0 ? fmin(a->lowest, a->fvu) : a->fvu;
    }
    if (2 * t->steps == t->total_steps || 2 * t->steps == t->total_steps + 1) a->middle = a->fvu;
    if (t->steps % looks_every(t) == 0 || t->steps == t->total_steps) look_at_divergence(t);
    if (a->diverged || t->model->rows_warned) return; /* the cause of all that follows was told */
    if (ams_advise_now(t)) {
        look_at_dead(t, stats->dead);
        look_at_masks(t, stats->mean_p);
        if (t->total_steps && (double)t->steps >= NEAR_END * (double)t->total_steps) {
            look_at_error(t);
            look_at_density(t);
        }
    }
    look_at_target(t);
}
