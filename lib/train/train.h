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
    uint64_t skip_bad_rows, bad_rows; /* allowed in all; met so far */
    atmsae_optimizer_config shown_optimizer; /* resolved, for get_config */
    atmsae_masker_config shown_masker;
    ams_advice advice;
};
void ams_advise_step(atmsae_trainer *trainer, const atmsae_step_stats *stats);

/* bad_rows.c: runs `use` on a batch, and where that fails for rows with a NaN or infinite value, of which
 * `allowed` may be there, again with weight 0 for these; *skipped: their number. targets: y is used too. */
typedef atmsae_status ams_batch_use(atmsae_trainer *trainer, const atmsae_batch *batch, void *arg);
atmsae_status ams_use_batch(atmsae_trainer *trainer, const atmsae_batch *batch, bool targets, uint64_t allowed,
                            ams_batch_use *use, void *arg, uint64_t *skipped);

/* A trainer is claimed together with the parts that it lends. */
#define AMS_TRAINER(claim, t)                                                              \
    claim("trainer", t), claim("trainer's model", (t)->model), claim("trainer's optimizer", (t)->optimizer), \
        claim("trainer's tracker", (t)->tracker), claim("trainer's masker", (t)->masker)

/* The parts put together from resolved or partial settings. */
atmsae_status ams_trainer_build(atmsae_context *ctx, const atmsae_trainer_config *config, bool blank,
                                atmsae_trainer **out);

#endif
