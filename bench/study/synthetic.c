/* SPDX-License-Identifier: MIT
 *
 * Runs on rows of known features: 12 parents with 8 exclusive children each and 60 features alone, in
 * 96 dimensions. The seed of a run is the world's too, so that seeds differ in their directions and rows.
 */
#include "study.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

enum { CALIBRATION = 32768, VALID = 20000, SAMPLE = 4096 };
#define FIRST_CALIBRATION (UINT64_C(1) << 33)
#define FIRST_VALID (UINT64_C(1) << 32)
#define TUNING_WORLDS 1000 /* the study's seeds are below */

typedef struct world {
    const atmsae_context *context;
    atmsae_synth *synth;
} world;

static void next(void *opaque, uint64_t step, uint64_t n, float *rows)
{
    const world *w = opaque;
    study_check(w->context, atmsae_synth_rows(w->synth, step * n, n, rows, NULL));
}

void synthetic_run(atmsae_context *context, const study_method *method, const settings *s, FILE *out)
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    config.seed = (uint64_t)s->seed + (s->tune != 0 ? TUNING_WORLDS : 0);
    world w = {.context = context};
    study_check(context, atmsae_synth_create(context, &config, &w.synth));
    const uint64_t d = config.d;
    float *sample = program_alloc(SAMPLE * d, sizeof *sample), *calibration = program_alloc(CALIBRATION * d, sizeof *calibration);
    float *valid = program_alloc(VALID * d, sizeof *valid);
    study_check(context, atmsae_synth_rows(w.synth, 0, SAMPLE, sample, NULL));
    study_check(context, atmsae_synth_rows(w.synth, FIRST_CALIBRATION, CALIBRATION, calibration, NULL));
    study_check(context, atmsae_synth_rows(w.synth, FIRST_VALID, VALID, valid, NULL));
    /* Rare children fire once in hundreds of rows: a latent that was off for ten batches is dead. */
    const study_rows rows = {.d = d, .input_norm = ATMSAE_INPUT_RAW, .b_dec_init = ATMSAE_B_DEC_ZERO, .next = next, .opaque = &w,
                             .sample = sample, .n_sample = SAMPLE, .calibration = calibration, .n_calibration = CALIBRATION,
                             .dead_window = 10 * (uint64_t)s->batch};
    study_trained trained = study_train(context, method, s, &rows);
    atmsae_metrics_result r, held;
    atmsae_synth_result truth = {.size = sizeof truth};
    study_reconstruction(context, trained.model, valid, VALID, d, &r);
    study_reconstruction(context, trained.model, calibration, CALIBRATION, d, &held);
    study_check(context, atmsae_synth_score(w.synth, trained.model, FIRST_VALID, VALID, &truth));
    fprintf(out, ", \"l0\": %.4f, \"fvu\": %.5f, \"l0_held\": %.4f, \"l0_train\": %.4f, \"mean_p\": %.4f, \"dead\": %d", r.l0, r.fvu,
            held.l0, trained.l0_train, trained.mean_p, (int)r.dead);
    fprintf(out, ", \"parent_miss\": %.5f, \"miss_child_on\": %.5f, \"miss_child_off\": %.5f, \"parent_f1\": %.4f, "
                 "\"mcc\": %.4f", truth.missed, truth.missed_child_on, truth.missed_child_off, truth.parent_f1, truth.mcc);
    study_free(&trained);
    atmsae_synth_destroy(w.synth);
    free(sample);
    free(calibration);
    free(valid);
}
