/* SPDX-License-Identifier: MIT
 *
 * usage: direct_loop FOLDER
 * Trains on the rows of examples/engine_stand_in.c without an engine: batches cut straight from the stream.
 * What 04_stream_from_engine saves must be the same, byte for byte.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>

enum { D = 96, BATCH = 512, ROWS = 200000 };

int main(int argc, char **argv)
{
    atmsae_context *ctx = NULL;
    atmsae_synth *synth = NULL;
    atmsae_trainer *trainer = NULL;
    static float rows[BATCH * D];
    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D;
    model.d_sae = 2 * D;
    model.k = 3;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 1e-3;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.batch_rows = BATCH;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = BATCH;
    batch.x = rows;
    int ok = argc == 2 && atmsae_context_create(NULL, &ctx) >= 0 && atmsae_synth_create(ctx, &synth_config, &synth) >= 0 &&
             atmsae_trainer_create(ctx, &config, &trainer) >= 0;
    for (uint64_t row = 0; ok && row + BATCH <= ROWS; row += BATCH)
        ok = atmsae_synth_rows(synth, row, BATCH, rows, NULL) >= 0 &&
             (row > 0 || atmsae_trainer_prepare(trainer, &batch) >= 0) && atmsae_trainer_step(trainer, &batch, NULL) >= 0;
    ok = ok && atmsae_model_save(atmsae_trainer_model(trainer), argv[1], NULL) >= 0;
    if (!ok) fprintf(stderr, "direct_loop: %s\n", ctx ? atmsae_last_error(ctx) : "no context");
    atmsae_trainer_destroy(trainer);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    return !ok;
}
