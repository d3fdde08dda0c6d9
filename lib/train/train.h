/* SPDX-License-Identifier: MIT
 *
 * The trainer's inside, for the files of this folder.
 */
#ifndef AMS_TRAIN_H
#define AMS_TRAIN_H

#include "atm/atm.h"
#include "sae/sae.h"

/* Of advice.c. */
typedef struct ams_advice {
    uint64_t dead[2], dead_warned; /* at the last two looks; at the last warning */
    double fvu;                    /* moving average */
    double l0;                     /* moving average of the unmasked L0, where there is a target */
    bool masks_warned, error_warned;
} ams_advice;

struct atmsae_trainer {
    atmsae_context *ctx;
    ams_use use;
    atmsae_model *model;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_optimizer *optimizer;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    uint64_t total_rows, batch_rows, total_steps, steps;
    double sparsity_warmup;
    double log_coef; /* ln(present coefficient / sparsity_coef), where there is a target_l0; else 0 */
    uint64_t skip_bad_rows, bad_rows; /* allowed in all; met so far */
    double max_norm, norm_limit[2];   /* 0: none; of x and of y, in the units of the rows */
    uint64_t outlier_rows;            /* left out so far */
    float *weights;                   /* of a batch with outliers, and room for rows */
    uint64_t weights_capacity;
    atmsae_optimizer_config shown_optimizer; /* resolved, for get_config */
    atmsae_masker_config shown_masker;
    ams_advice advice;
};
/* Whether the step that is done is one to look at what goes wrong. */
bool ams_advise_now(const atmsae_trainer *trainer);
/* l0: of this batch as it would be without masks. */
void ams_advise_step(atmsae_trainer *trainer, const atmsae_step_stats *stats, double l0);

/* target.c. What a step moves: cuts, in units of their margin, and the logarithm of the coefficient. share: of the learning
 * rate, once it falls; total_steps: 0 if unknown. */
typedef struct ams_target_move {
    double shift, log_coef;
} ams_target_move;
ams_target_move ams_target_moves(double l0, double target, double share, uint64_t total_steps);
/* The same on a trainer whose optimiser has made its step; margin: of the cuts before it. Returns the batch's L0 as it
 * would be without masks. */
double ams_target_update(atmsae_trainer *trainer, const atmsae_latent_sums *sums, double margin, double lr);
double ams_target_coef(const atmsae_trainer *trainer); /* present coefficient / sparsity_coef */
bool ams_target_allows(double log_coef);

/* bad_rows.c: runs `use` on a batch, with weight 0 for rows above the norm limit, and where that fails for rows with a
 * NaN or infinite value, of which `allowed` may be there, again with weight 0 for these too. targets: y is used too. */
typedef atmsae_status ams_batch_use(atmsae_trainer *trainer, const atmsae_batch *batch, void *arg);
typedef struct ams_left_out {
    uint64_t bad, outliers; /* rows that got weight 0 */
} ams_left_out;
atmsae_status ams_use_batch(atmsae_trainer *trainer, const atmsae_batch *batch, bool targets, uint64_t allowed,
                            ams_batch_use *use, void *arg, ams_left_out *left_out);
/* Looks at the rows of a batch, as prepare does of its own: those that decide a run may come later. limited: some of them
 * were above the norm limit. */
void ams_advise_batch(atmsae_trainer *trainer, const atmsae_batch *batch, bool limited);
/* The norm limits that follow from the rows given to prepare; 0: none. */
atmsae_status ams_find_norm_limits(const atmsae_trainer *trainer, const atmsae_batch *batch, double limits[2]);

/* A trainer is claimed together with the parts that it lends. */
#define AMS_TRAINER(claim, t)                                                              \
    claim("trainer", t), claim("trainer's model", (t)->model), claim("trainer's optimizer", (t)->optimizer), \
        claim("trainer's tracker", (t)->tracker), claim("trainer's masker", (t)->masker)

/* The parts put together from resolved or partial settings. */
atmsae_status ams_trainer_build(atmsae_context *ctx, const atmsae_trainer_config *config, bool blank,
                                atmsae_trainer **out);

#endif
