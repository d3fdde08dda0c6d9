/* SPDX-License-Identifier: MIT
 *
 * The training loop by hand, from the parts that a trainer step is made of: put your own losses,
 * schedules or logging between them.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>

enum { D_IN = 96, D_SAE = 168, BATCH = 512, STEPS = 1000, WARMUP = 50 };

static atmsae_context *ctx;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

static atmsae_model *make_model(void)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_sae = D_SAE;
    config.k = 3;
    atmsae_model *model;
    or_die(atmsae_model_create(ctx, &config, &model));
    return model;
}

static atmsae_optimizer *make_optimizer(const atmsae_model *model)
{
    atmsae_optimizer_config config;
    atmsae_optimizer_config_init(&config, sizeof config);
    config.lr = 1e-3;
    config.total_steps = STEPS;
    atmsae_optimizer *optimizer;
    or_die(atmsae_optimizer_create(model, &config, &optimizer));
    return optimizer;
}

static atmsae_tracker *make_tracker(void)
{
    atmsae_tracker_config config;
    atmsae_tracker_config_init(&config, sizeof config);
    config.d_sae = D_SAE;
    config.dead_window = STEPS * BATCH / 10;
    atmsae_tracker *tracker;
    or_die(atmsae_tracker_create(ctx, &config, &tracker));
    return tracker;
}

static atmsae_masker *make_masker(void)
{
    atmsae_masker_config config;
    atmsae_masker_config_init(&config, sizeof config);
    config.d_sae = D_SAE;
    config.total_steps = STEPS;
    config.warmup_steps = WARMUP;
    atmsae_masker *masker;
    or_die(atmsae_masker_create(ctx, &config, &masker));
    return masker;
}

int main(void)
{
    or_die(atmsae_context_create(NULL, &ctx));
    atmsae_synth *synth;
    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    or_die(atmsae_synth_create(ctx, &synth_config, &synth));
    float *rows = malloc(sizeof *rows * BATCH * D_IN);
    if (!rows) return 1;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = BATCH;
    batch.x = rows;

    atmsae_model *model = make_model();
    atmsae_optimizer *optimizer = make_optimizer(model);
    atmsae_tracker *tracker = make_tracker();
    atmsae_masker *masker = make_masker();
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    or_die(atmsae_codes_create(ctx, &codes));
    or_die(atmsae_gradients_create(model, &gradients));
    atmsae_latent_sums sums = {.size = sizeof sums};
    atmsae_loss loss = {.size = sizeof loss};
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);

    for (uint64_t step = 0; step < STEPS; step++) {
        or_die(atmsae_synth_rows(synth, step * BATCH, BATCH, rows, NULL));
        if (step == 0) or_die(atmsae_model_prepare(model, &batch));

        or_die(atmsae_masker_draw(masker, step));
        options.mask = atmsae_masker_mask(masker);
        options.dead = atmsae_tracker_dead(tracker, &options.n_dead);
        or_die(atmsae_forward(model, &batch, &options, codes, &loss));
        or_die(atmsae_backward(model, codes, gradients));
        or_die(atmsae_optimizer_step(optimizer, model, gradients, NULL));
        or_die(atmsae_gradients_sums(gradients, &sums));
        or_die(atmsae_tracker_observe(tracker, &sums));
        or_die(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), D_SAE));

        if ((step + 1) % 200 == 0)
            printf("step %4d  loss %.4f  FVU %.4f  L0 %.2f  theta %.3f  mean p %.3f\n", (int)step + 1, loss.total,
                   loss.fvu, loss.l0, atmsae_masker_theta(masker), atmsae_masker_mean_p(masker));
    }
    or_die(atmsae_model_calibrate(model, &batch));

    atmsae_gradients_destroy(gradients);
    atmsae_codes_destroy(codes);
    atmsae_masker_destroy(masker);
    atmsae_tracker_destroy(tracker);
    atmsae_optimizer_destroy(optimizer);
    atmsae_model_destroy(model);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    free(rows);
    return 0;
}
