/* SPDX-License-Identifier: MIT
 *
 * Keeps L0, the mean number of active latents a row, at target_l0 (doc/method.md, section 2). After each step two things
 * move. All cuts, thresholds or biases, shift a little by the same amount, which holds L0 within some tens of steps.
 * The penalty's coefficient moves, more slowly, until the gradients hold L0 by themselves and cuts need no shift.
 */
#include "base/elementary.h"
#include "train/train.h"

#include <math.h>

#define ERROR_MOST 0.7      /* of ln(L0 / target): what lies beyond says no more than "far off" */
#define SHIFT_GAIN 0.2      /* share of the error that a step's shift takes away */
#define SHIFT_GAIN_LEAST 0.2 /* of SHIFT_GAIN, when the learning rate has fallen: averages out the noise of batches */
#define COEF_SPEED 2.0      /* most that ln(coefficient) moves in a window of steps, */
#define COEF_ERROR 0.2      /* reached at this error */
#define WINDOW_SHARE 0.05   /* the window: a share of the run, */
#define WINDOW_LEAST 40     /* or this many steps, since Adam answers after some ten, */
#define WINDOW_UNKNOWN 500  /* or this many where the run's length is not known */
#define COEF_RANGE 15.0     /* of ln(coefficient / sparsity_coef), either way */

static double clamp(double value, double most) { return fmax(-most, fmin(most, value)); }

typedef struct observation {
    const atmsae_tracker *tracker;
    const atmsae_latent_sums *sums;
} observation;

/* A masked latent fires as often as it did on average while it was not. */
static void l0_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const observation *a = arg;
    for (uint64_t i = first; i < last; i++)
        sums[0] += a->sums->rows[i] > 0 ? a->sums->frequency[i] / a->sums->rows[i] : a->tracker->average[1][i];
}

/* 1 until the learning rate begins to fall, then its share of what it was. */
static double settling(const atmsae_trainer *t, double lr)
{
    const bool warming = t->optimizer->steps <= ams_optimizer_resolved(t->optimizer).warmup_steps;
    return warming || lr >= t->optimizer->config.lr ? 1 : lr / t->optimizer->config.lr;
}

ams_target_move ams_target_moves(double l0, double target, double share, uint64_t total_steps)
{
    const double error = clamp(l0 > 0 ? ams_ln(l0 / target) : -ERROR_MOST, ERROR_MOST);
    const double window = total_steps ? fmax(WINDOW_LEAST, WINDOW_SHARE * (double)total_steps) : WINDOW_UNKNOWN;
    return (ams_target_move){.shift = SHIFT_GAIN * fmax(SHIFT_GAIN_LEAST, share) * error,
                             .log_coef = COEF_SPEED / window * share * clamp(error / COEF_ERROR, 1)};
}

double ams_target_update(atmsae_trainer *t, const atmsae_latent_sums *latents, double margin, double lr)
{
    observation a = {t->tracker, latents};
    double sums[AMS_PIECE_SUMS];
    ams_pieces(t->ctx, latents->d_sae, l0_job, &a, sums);
    const ams_target_move move = ams_target_moves(sums[0], t->model->config.target_l0, settling(t, lr), t->total_steps);
    ams_cuts_shift(t->model, move.shift * margin);
    t->log_coef = clamp(t->log_coef + move.log_coef, COEF_RANGE);
    return sums[0];
}

double ams_target_coef(const atmsae_trainer *t) { return ams_exp(t->log_coef); }

bool ams_target_allows(double log_coef) { return log_coef >= -COEF_RANGE && log_coef <= COEF_RANGE; }
