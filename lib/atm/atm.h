/* SPDX-License-Identifier: MIT
 *
 * State of the tracker and the masker, for checkpoints (lib/train). Neither knows of the model.
 */
#ifndef AMS_ATM_H
#define AMS_ATM_H

#include "base/base.h"

enum { AMS_DEAD_WINDOW = 10000000 }; /* rows; the usual 10 M tokens (Gao 2024) */

struct atmsae_tracker {
    atmsae_context *ctx;
    ams_use use;
    atmsae_tracker_config config;
    double *average[3];  /* [F] moving averages: magnitude, frequency, contribution */
    double *clock;       /* [F] rows seen unmasked since the last firing */
    uint8_t *observed;   /* [F] */
    double *importance;  /* [F] derived */
    uint32_t *dead;      /* derived */
    uint64_t n_dead;
};
/* What stands behind public functions of these names, see AMS_CALL. */
atmsae_status ams_tracker_observe(atmsae_tracker *tracker, const atmsae_latent_sums *sums);
/* Would observe take these sums? */
atmsae_status ams_tracker_check(const atmsae_tracker *tracker, const atmsae_latent_sums *sums);
atmsae_status ams_masker_update(atmsae_masker *masker, const double *importance, uint64_t d_sae);
atmsae_status ams_masker_draw(atmsae_masker *masker, uint64_t step);
atmsae_status ams_masker_begin_cooldown(atmsae_masker *masker, uint64_t first_step, uint64_t steps);

/* The draw of one latent (index), or of one latent in one row (row << 32 | latent). */
bool ams_mask_drawn(uint64_t seed, uint32_t purpose, uint64_t step, uint64_t index, double p);
/* Importances and the dead list from averages and clocks. */
void ams_tracker_derive(atmsae_tracker *tracker);

struct atmsae_masker {
    atmsae_context *ctx;
    ams_use use;
    atmsae_masker_config config; /* but for defaults that follow the run's length */
    double *importance;   /* [F] of the last update */
    uint32_t *permutation; /* [F], MASK_PERMUTED only */
    double mu, sigma, theta;
    double rate, mean_p;  /* of the last draw */
    double *p;            /* [F] of the last draw */
    uint8_t *masked;      /* [F] of the last draw */
    atmsae_mask mask;
    bool drawn;
    uint64_t cooldown_from, cooldown_steps; /* 0 steps: none asked for */
};
/* The settings, with steps in place of defaults that follow the run's length. */
atmsae_masker_config ams_masker_resolved(const atmsae_masker *masker);

#endif
