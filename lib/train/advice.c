/* SPDX-License-Identifier: MIT
 *
 * Warnings in the log about a run that goes the wrong way: latents that die, masks that leave out too many, a k
 * that is too small, a target that is missed. A few looks a run; a resumed run starts looking anew.
 */
#include "train/train.h"

#include <math.h>

#define LOOKS 20
#define STEPS_LEAST 200       /* shorter runs show nothing */
#define STEPS_UNKNOWN 500     /* between looks, where the length is not known */
#define DEAD_SHARE 0.1        /* the first warning; the next at twice the number */
#define MASKED_SHARE 0.5
#define UNEXPLAINED 0.5
#define UNEXPLAINED_FROM 0.95 /* of the run, when masks are over */
#define FVU_DECAY 0.9
#define L0_DECAY 0.98
#define L0_MISS 0.02

static void look_at_dead(atmsae_trainer *t, uint64_t dead)
{
    ams_advice *a = &t->advice;
    const double least = fmax(DEAD_SHARE * (double)t->model->d_sae, 2 * (double)a->dead_warned);
    const bool rising = dead > a->dead[1] && a->dead[1] > a->dead[0]; /* AuxK takes back what dies all at once */
    a->dead[0] = a->dead[1];
    a->dead[1] = dead;
    if (!rising || (double)dead <= least) return;
    a->dead_warned = dead;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "dead latents are rising: %llu of %llu at step %llu: %s", (unsigned long long)dead,
            (unsigned long long)t->model->d_sae, (unsigned long long)t->steps,
            t->model->config.aux_coef > 0 ? "lower the learning rate or d_sae, or train on more rows"
                                          : "turn AuxK on (aux_coef 1/32)");
}

static void look_at_masks(atmsae_trainer *t, double mean_p)
{
    const bool hard = t->masker->config.effect == ATMSAE_EFFECT_HARD; /* latents miss nothing under a second loss */
    if (!hard || t->advice.masks_warned || mean_p <= MASKED_SHARE) return;
    t->advice.masks_warned = true;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "masks starve latents: on average a latent is left out of %.0f %% of the steps: lower r "
            "(it is %g; 0.25 is usual) or c (%g; 1)", 100 * mean_p, t->masker->config.r, t->masker->config.c);
}

static void look_at_error(atmsae_trainer *t)
{
    ams_advice *a = &t->advice;
    const bool top = t->model->config.activation == ATMSAE_TOPK || t->model->config.activation == ATMSAE_BATCHTOPK;
    if (a->error_warned || !(a->fvu > UNEXPLAINED) || (double)t->steps < UNEXPLAINED_FROM * (double)t->total_steps) return;
    a->error_warned = true;
    if (top)
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "k is too small: with %g latents a row %.0f %% of the variance stays unexplained near "
                "the end of the run, and latents mix what they should keep apart: raise k", t->model->config.k, 100 * a->fvu);
    else
        ams_log(t->ctx, ATMSAE_LOG_WARNING, "too sparse: %.0f %% of the variance stays unexplained near the end of the run: "
                "%s", 100 * a->fvu, t->model->config.target_l0 > 0 ? "raise target_l0" : "lower sparsity_coef");
}

static void look_at_target(atmsae_trainer *t, double l0)
{
    const double target = t->model->config.target_l0, seen = t->advice.l0;
    t->advice.l0 = seen > 0 ? L0_DECAY * seen + (1 - L0_DECAY) * l0 : l0;
    if (!(target > 0) || t->steps != t->total_steps || fabs(t->advice.l0 / target - 1) <= L0_MISS) return;
    ams_log(t->ctx, ATMSAE_LOG_WARNING, "target_l0 is missed: L0 is %.1f at the end of the run, the target %g: train for 1000 steps "
            "at least (this run has %llu), and keep target_l0 well below half of d_sae (%llu)", t->advice.l0, target,
            (unsigned long long)t->total_steps, (unsigned long long)t->model->d_sae);
}

bool ams_advise_now(const atmsae_trainer *t)
{
    const uint64_t every = t->total_steps ? t->total_steps / LOOKS : STEPS_UNKNOWN;
    return (t->total_steps == 0 || t->total_steps >= STEPS_LEAST) && t->steps % every == 0;
}

void ams_advise_step(atmsae_trainer *t, const atmsae_step_stats *stats, double l0)
{
    ams_advice *a = &t->advice;
    look_at_target(t, l0);
    if (isfinite(stats->fvu)) a->fvu = a->fvu > 0 ? FVU_DECAY * a->fvu + (1 - FVU_DECAY) * stats->fvu : stats->fvu;
    if (!ams_advise_now(t) || t->model->rows_warned) return; /* the cause of all that follows was told */
    look_at_dead(t, stats->dead);
    look_at_masks(t, stats->mean_p);
    if (t->total_steps) look_at_error(t);
}
