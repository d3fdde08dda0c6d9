/* SPDX-License-Identifier: MIT
 *
 * usage: reference FILE
 * What every binding must reproduce to the bit: a trained SAE, the latents and the reconstruction of its
 * last batch, and the masks, probabilities and importances of a loop that makes up its sums. The other
 * reference programs of this folder write the same file.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>

enum { D_IN = 96, D_SAE = 168, BATCH = 512, STEPS = 60, F = 8, MASK_STEPS = 300 };

static atmsae_context *ctx;
static FILE *out;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

static void put(const void *data, size_t size, uint64_t n)
{
    if (fwrite(data, size, n, out) == n) return;
    perror("reference");
    exit(1);
}

static void train_and_encode(void)
{
    atmsae_synth *synth;
    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    or_die(atmsae_synth_create(ctx, &synth_config, &synth));
    static float rows[BATCH * D_IN];
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D_IN;
    model.d_sae = D_SAE;
    model.k = 3;
    model.seed = 7;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 1e-3;
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.r = 0.5;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.masker = &masker;
    config.batch_rows = BATCH;
    config.total_rows = (uint64_t)STEPS * BATCH;
    atmsae_trainer *trainer;
    or_die(atmsae_trainer_create(ctx, &config, &trainer));
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = BATCH;
    batch.x = rows;
    for (uint64_t step = 0; step < STEPS; step++) {
        or_die(atmsae_synth_rows(synth, step * BATCH, BATCH, rows, NULL));
        if (step == 0) or_die(atmsae_trainer_prepare(trainer, &batch));
        or_die(atmsae_trainer_step(trainer, &batch, NULL));
    }
    or_die(atmsae_trainer_calibrate(trainer, &batch));

    static const int32_t parameters[] = {ATMSAE_W_ENC, ATMSAE_B_ENC, ATMSAE_W_DEC, ATMSAE_B_DEC, ATMSAE_BATCH_THRESHOLD};
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        uint64_t n;
        const float *values = atmsae_model_view(atmsae_trainer_model(trainer), parameters[i], &n);
        put(values, sizeof *values, n);
    }
    atmsae_codes *codes;
    atmsae_codes_view view = {.size = sizeof view};
    or_die(atmsae_codes_create(ctx, &codes));
    or_die(atmsae_encode(atmsae_trainer_model(trainer), &batch, codes));
    or_die(atmsae_codes_get(codes, &view));
    put(view.row_start, sizeof *view.row_start, BATCH + 1);
    put(view.latent, sizeof *view.latent, view.row_start[BATCH]);
    put(view.value, sizeof *view.value, view.row_start[BATCH]);
    or_die(atmsae_decode(atmsae_trainer_model(trainer), codes, rows, 0));
    put(rows, sizeof *rows, (uint64_t)BATCH * D_IN);
    atmsae_codes_destroy(codes);
    atmsae_trainer_destroy(trainer);
    atmsae_synth_destroy(synth);
}

/* Latent i fires in a share 1 / (i + 2) of the rows in which it is not masked. */
static void mask_loop(void)
{
    atmsae_tracker_config tracker_config;
    atmsae_tracker_config_init(&tracker_config, sizeof tracker_config);
    tracker_config.d_sae = F;
    atmsae_tracker *tracker;
    or_die(atmsae_tracker_create(ctx, &tracker_config, &tracker));
    atmsae_masker_config masker_config;
    atmsae_masker_config_init(&masker_config, sizeof masker_config);
    masker_config.d_sae = F;
    masker_config.seed = 11;
    masker_config.c = 0.5;
    masker_config.effect = ATMSAE_EFFECT_HARD;
    atmsae_masker *masker;
    or_die(atmsae_masker_create(ctx, &masker_config, &masker));
    for (uint64_t step = 0; step < MASK_STEPS; step++) {
        or_die(atmsae_masker_draw(masker, step));
        const uint8_t *masked = atmsae_masker_mask(masker)->masked;
        uint8_t mask[F] = {0};
        double rows[F], magnitude[F], frequency[F], contribution[F];
        for (int i = 0; i < F; i++) {
            mask[i] = masked && masked[i];
            rows[i] = mask[i] ? 0 : 1000;
            frequency[i] = rows[i] / (i + 2);
            magnitude[i] = 1.5 * frequency[i];
            contribution[i] = 2 * frequency[i];
        }
        put(mask, 1, F);
        or_die(atmsae_tracker_observe(tracker, &(atmsae_latent_sums){
            .size = sizeof(atmsae_latent_sums), .d_sae = F, .rows = rows, .magnitude = magnitude,
            .frequency = frequency, .contribution = contribution}));
        or_die(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), F));
    }
    put(atmsae_masker_p(masker), sizeof(double), F);
    put(atmsae_tracker_importance(tracker), sizeof(double), F);
    atmsae_masker_destroy(masker);
    atmsae_tracker_destroy(tracker);
}

int main(int argc, char **argv)
{
    if (argc != 2 || !(out = fopen(argv[1], "wb"))) return 2;
    or_die(atmsae_context_create(NULL, &ctx));
    train_and_encode();
    mask_loop();
    atmsae_context_destroy(ctx);
    return fclose(out) != 0;
}
