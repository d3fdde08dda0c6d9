/* SPDX-License-Identifier: MIT
 *
 * Quickstart, first half: rows made of known features, so that a parent feature whose latent is
 * silent (absorbed by a child's latent) can be counted exactly.
 */
#include "quickstart.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>

enum { D_SAE = 168, BATCH = 512, STEPS = 4000, SAMPLE = 65536, VALID = 20000, SEEDS = 3 };
#define K 3.5 /* a little over the mean number of active features, 3.36: below it every method has to miss some */
/* Training uses rows 0 .. 2 047 999. */
#define FIRST_VALID (UINT64_C(1) << 32)

typedef struct stream {
    const atmsae_context *context;
    const atmsae_synth *synth;
} stream;

static void next_rows(const void *opaque, uint64_t step, float *rows)
{
    const stream *s = opaque;
    quick_check(s->context, atmsae_synth_rows(s->synth, step * BATCH, BATCH, rows, NULL));
}

void quick_synthetic(atmsae_context *context, quick_result results[QUICK_METHODS])
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    atmsae_synth *synth;
    quick_check(context, atmsae_synth_create(context, &config, &synth));
    const stream rows = {context, synth};
    float *sample = program_alloc(SAMPLE * config.d, sizeof *sample);
    float *valid = program_alloc(VALID * config.d, sizeof *valid);
    quick_check(context, atmsae_synth_rows(synth, 0, SAMPLE, sample, NULL));
    quick_check(context, atmsae_synth_rows(synth, FIRST_VALID, VALID, valid, NULL));
    quick_task task = {
        .name = "known features", .d_in = config.d, .d_sae = D_SAE, .batch_rows = BATCH, .steps = STEPS, .k = K,
        /* Rare children fire once in hundreds of rows: a latent that was off for ten batches is dead. */
        .dead_window = (uint64_t)10 * BATCH, .input_norm = ATMSAE_INPUT_RAW, .b_dec_init = ATMSAE_B_DEC_ZERO,
        .next = next_rows, .opaque = &rows, .sample = sample, .n_sample = SAMPLE,
        .calibration = sample, .n_calibration = SAMPLE,
    };
    for (int run = 0; run < QUICK_METHODS * SEEDS; run++) {
        const quick_method *method = &quick_methods[run / SEEDS];
        quick_result *result = &results[run / SEEDS];
        task.seed = (uint64_t)(run % SEEDS);
        atmsae_trainer *trainer = quick_train(context, &task, method, NULL);
        const atmsae_model *model = atmsae_trainer_model(trainer);
        atmsae_synth_result truth = {.size = sizeof truth};
        quick_measure(context, model, valid, VALID, config.d, 1.0 / SEEDS, result);
        quick_check(context, atmsae_synth_score(synth, model, FIRST_VALID, VALID, &truth));
        result->absorbed += truth.missed / SEEDS;
        result->recall += truth.parent_recall / SEEDS;
        result->mcc += truth.mcc / SEEDS;
        atmsae_trainer_destroy(trainer);
    }
    free(sample);
    free(valid);
    atmsae_synth_destroy(synth);
}

void quick_print_synthetic(const quick_result results[QUICK_METHODS])
{
    printf("\nKnown features: 12 parents with 8 children each and 60 independent ones, 168 latents, k = %g,\n"
           "means over %d seeds of weights and masks\n"
           "  %-10s %6s %7s %7s %5s %8s %7s %6s\n", K, SEEDS, "method", "L0", "FVU", "cosine", "dead", "missed", "recall", "MCC");
    for (int m = 0; m < QUICK_METHODS; m++) {
        const quick_result *r = &results[m];
        printf("  %-10s %6.2f %7.4f %7.4f %5.0f %8.4f %7.4f %6.3f  %s\n", quick_methods[m].name, r->l0, r->fvu, r->cosine, r->dead,
               r->absorbed, r->recall, r->mcc, quick_matched(r, K));
    }
    printf("  missed: share of rows with a parent on in which the parent's latent is off (exact)\n"
           "  recall: the same from the other side, as a mean over parents; MCC: match of latents and features\n"
           "  not matched: L0 is more than 5 %% away from k, so the row cannot be compared with the others\n");
}
