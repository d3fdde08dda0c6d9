/* SPDX-License-Identifier: MIT
 *
 * The smallest program: train an SAE on rows in memory, encode one row, print its active latents.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>

enum { D_IN = 96, BATCH = 512, STEPS = 1000 };

static atmsae_context *ctx;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

int main(void)
{
    or_die(atmsae_context_create(NULL, &ctx));

    /* Rows to train on: yours come from a network. These are sums of a few of 168 known features. */
    atmsae_synth *synth;
    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    or_die(atmsae_synth_create(ctx, &synth_config, &synth));
    float *rows = malloc(sizeof *rows * BATCH * D_IN);
    if (!rows) return 1;

    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D_IN;
    model.d_sae = 168;
    model.k = 3;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 1e-3;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.batch_rows = BATCH;
    config.total_rows = (uint64_t)STEPS * BATCH;
    atmsae_trainer *trainer;
    or_die(atmsae_trainer_create(ctx, &config, &trainer));

    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = BATCH;
    batch.x = rows;
    atmsae_step_stats stats = {.size = sizeof stats};
    for (uint64_t step = 0; step < STEPS; step++) {
        or_die(atmsae_synth_rows(synth, step * BATCH, BATCH, rows, NULL));
        if (step == 0) or_die(atmsae_trainer_prepare(trainer, &batch));
        or_die(atmsae_trainer_step(trainer, &batch, &stats));
    }
    or_die(atmsae_trainer_calibrate(trainer, &batch));
    printf("after %d steps: FVU %.3f at %.2f latents a row\n", STEPS, stats.fvu, stats.l0);

    atmsae_codes *codes;
    atmsae_codes_view view = {.size = sizeof view};
    or_die(atmsae_codes_create(ctx, &codes));
    batch.n_rows = 1;
    or_die(atmsae_encode(atmsae_trainer_model(trainer), &batch, codes));
    or_die(atmsae_codes_get(codes, &view));
    printf("the first row's active latents:");
    for (uint64_t i = view.row_start[0]; i < view.row_start[1]; i++)
        printf(" %u (%.2f)", view.latent[i], (double)view.value[i]);
    printf("\n");

    atmsae_codes_destroy(codes);
    atmsae_trainer_destroy(trainer);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(rows);
    return 0;
}
