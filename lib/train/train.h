/* SPDX-License-Identifier: MIT
 *
 * The trainer's inside, for trainer.c and checkpoint.c.
 */
#ifndef AMS_TRAIN_H
#define AMS_TRAIN_H

#include "atm/atm.h"
#include "sae/sae.h"

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
    atmsae_optimizer_config shown_optimizer; /* resolved, for get_config */
    atmsae_masker_config shown_masker;
};

/* A trainer is claimed together with the parts that it lends. */
#define AMS_TRAINER(claim, t)                                                              \
    claim("trainer", t), claim("trainer's model", (t)->model), claim("trainer's optimizer", (t)->optimizer), \
        claim("trainer's tracker", (t)->tracker), claim("trainer's masker", (t)->masker)

/* The parts put together from resolved or partial settings. */
atmsae_status ams_trainer_build(atmsae_context *ctx, const atmsae_trainer_config *config, bool blank,
                                atmsae_trainer **out);

#endif
