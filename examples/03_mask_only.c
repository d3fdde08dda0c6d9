/* SPDX-License-Identifier: MIT
 *
 * Tracker and masker alone, for a model that lives elsewhere (say, in PyTorch): each step, take the
 * mask, run your own forward and backward with the masked latents left out, and hand back four sums
 * a latent. Here the other side is a stand-in that makes up the sums.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>

enum { F = 8, BATCH = 1000, STEPS = 300 };

static atmsae_context *ctx;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

/* Latent i fires on a share 1 / (i + 2) of the rows in which it is not masked. */
static void train_elsewhere(const uint8_t *masked, double *rows, double *magnitude, double *frequency,
                            double *contribution)
{
    for (int i = 0; i < F; i++) {
        rows[i] = masked && masked[i] ? 0 : BATCH;      /* rows in which it could have fired */
        frequency[i] = rows[i] / (i + 2);               /* ... in which it did */
        magnitude[i] = 1.5 * frequency[i];              /* sum of f |d| */
        contribution[i] = 2.0 * frequency[i];           /* sum of f (2 e.d + f |d|^2) */
    }
}

int main(void)
{
    or_die(atmsae_context_create(NULL, &ctx));
    atmsae_tracker_config tracker_config;
    atmsae_tracker_config_init(&tracker_config, sizeof tracker_config);
    tracker_config.d_sae = F;
    atmsae_tracker *tracker;
    or_die(atmsae_tracker_create(ctx, &tracker_config, &tracker));
    atmsae_masker_config masker_config;
    atmsae_masker_config_init(&masker_config, sizeof masker_config);
    masker_config.d_sae = F;
    masker_config.effect = ATMSAE_EFFECT_HARD; /* masked latents are left out; by default they stay, and a second reconstruction is made without them */
    atmsae_masker *masker;
    or_die(atmsae_masker_create(ctx, &masker_config, &masker));

    double rows[F], magnitude[F], frequency[F], contribution[F];
    const atmsae_latent_sums sums = {.size = sizeof sums, .d_sae = F, .rows = rows, .magnitude = magnitude,
                                     .frequency = frequency, .contribution = contribution};
    int times_masked[F] = {0};
    for (uint64_t step = 0; step < STEPS; step++) {
        or_die(atmsae_masker_draw(masker, step));
        const uint8_t *masked = atmsae_masker_mask(masker)->masked;
        train_elsewhere(masked, rows, magnitude, frequency, contribution);
        for (int i = 0; i < F; i++) times_masked[i] += masked && masked[i];
        or_die(atmsae_tracker_observe(tracker, &sums));
        or_die(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), F));
    }

    printf("threshold %.3f\n latent  importance      p  masked\n", atmsae_masker_theta(masker));
    for (int i = 0; i < F; i++)
        printf("%7d  %10.3f  %5.3f  %d of %d steps\n", i, atmsae_tracker_importance(tracker)[i],
               atmsae_masker_p(masker)[i], times_masked[i], STEPS);

    atmsae_masker_destroy(masker);
    atmsae_tracker_destroy(tracker);
    atmsae_context_destroy(ctx);
    return 0;
}
