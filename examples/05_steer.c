/* SPDX-License-Identifier: MIT
 *
 * A trained latent as a steering vector: alpha * W_dec[latent] is added to hidden states, and the steered
 * states are encoded again. Within the range where it is on, the latent's own activation must rise by
 * alpha * (W_enc[latent] . W_dec[latent]); what happens to the others is the side effect.
 */
#include <atmsae/atmsae.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { D = 96, F = 168, BATCH = 512, STEPS = 1000 };

static atmsae_context *ctx;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

static atmsae_trainer *train(const atmsae_synth *synth, float *rows, const atmsae_batch *batch)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D;
    model.d_sae = F;
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
    for (uint64_t step = 0; step < STEPS; step++) {
        or_die(atmsae_synth_rows(synth, step * BATCH, BATCH, rows, NULL));
        if (step == 0) or_die(atmsae_trainer_prepare(trainer, batch));
        or_die(atmsae_trainer_step(trainer, batch, NULL));
    }
    or_die(atmsae_trainer_calibrate(trainer, batch));
    return trainer;
}

/* Dense latents of all rows, [BATCH, F]. */
static void encode(const atmsae_model *model, const atmsae_batch *batch, atmsae_codes *codes, float *f)
{
    atmsae_codes_view view = {.size = sizeof view};
    or_die(atmsae_encode(model, batch, codes));
    or_die(atmsae_codes_get(codes, &view));
    for (size_t i = 0; i < (size_t)BATCH * F; i++) f[i] = 0;
    for (uint64_t r = 0; r < view.n_rows; r++)
        for (uint64_t i = view.row_start[r]; i < view.row_start[r + 1]; i++) f[r * F + view.latent[i]] = view.value[i];
}

int main(void)
{
    or_die(atmsae_context_create(NULL, &ctx));
    atmsae_synth *synth;
    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    or_die(atmsae_synth_create(ctx, &synth_config, &synth));
    float *rows = malloc(sizeof *rows * BATCH * D), *before = malloc(sizeof *before * BATCH * F),
          *after = malloc(sizeof *after * BATCH * F);
    if (!rows || !before || !after) abort();
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = BATCH;
    batch.x = rows;
    atmsae_trainer *trainer = train(synth, rows, &batch);
    const atmsae_model *model = atmsae_trainer_model(trainer);
    atmsae_codes *codes;
    or_die(atmsae_codes_create(ctx, &codes));

    /* The latent that is on most often. */
    encode(model, &batch, codes, before);
    size_t latent = 0, most = 0;
    for (size_t i = 0; i < F; i++) {
        size_t on = 0;
        for (size_t r = 0; r < BATCH; r++) on += before[r * F + i] > 0;
        if (on > most) most = on, latent = i;
    }

    uint64_t n;
    const float *enc = atmsae_model_view(model, ATMSAE_W_ENC, &n) + latent * D;
    const float *dec = atmsae_model_view(model, ATMSAE_W_DEC, &n) + latent * D;
    /* W_dec is in scaled units; rows are not. (A saved model has both scales folded in, and 1 here.) */
    const double scale = (double)atmsae_model_view(model, ATMSAE_INPUT_SCALE, &n)[0];
    double gain = 0;
    for (size_t j = 0; j < D; j++) gain += (double)enc[j] * (double)dec[j];
    printf("latent %zu, on in %zu of %d rows; W_enc . W_dec = %.3f\n", latent, most, BATCH, gain);
    printf("alpha  rows where it is on  mean rise  expected  other latents switched a row\n");

    int wrong = 0;
    for (int power = 0; power <= 4; power++) {
        const double alpha = 1 << power;
        or_die(atmsae_synth_rows(synth, (uint64_t)(STEPS - 1) * BATCH, BATCH, rows, NULL));
        for (size_t r = 0; r < BATCH; r++)
            for (size_t j = 0; j < D; j++) rows[r * D + j] += (float)(alpha / scale * (double)dec[j]);
        encode(model, &batch, codes, after);
        double rise = 0;
        size_t on = 0, both = 0, switched = 0;
        for (size_t r = 0; r < BATCH; r++)
            for (size_t i = 0; i < F; i++) {
                const double b = (double)before[r * F + i], a = (double)after[r * F + i];
                if (i != latent) switched += (a > 0) != (b > 0);
                else if (a > 0) on++, both += b > 0, rise += b > 0 ? a - b : 0;
            }
        rise /= (double)both;
        printf("%5g  %19zu  %9.3f  %8.3f  %29.2f\n", alpha, on, rise, alpha * gain, (double)switched / BATCH);
        wrong |= both != most || !(fabs(rise - alpha * gain) < 1e-3 * alpha);
    }
    if (wrong) fprintf(stderr, "the latent did not rise as its weights say\n");

    atmsae_codes_destroy(codes);
    atmsae_trainer_destroy(trainer);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(rows);
    free(before);
    free(after);
    return wrong;
}
