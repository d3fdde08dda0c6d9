/* SPDX-License-Identifier: MIT
 *
 * Runs on rows of known features.
 *
 * synthetic: 12 parents with 8 exclusive children each and 60 features alone, in 96 dimensions. The seed of a run is the
 * world's too, so that seeds differ in their directions and rows.
 * synth16k: SynthSAEBench-16k, one world of 16384 features in 768 dimensions; the seed says which of its rows are trained on.
 */
#include "study.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

enum { CALIBRATION = 32768, SAMPLE = 4096 };
/* Row numbers: those of training begin at 0, or at a multiple of FIRST_OF_SEED. */
#define FIRST_CALIBRATION (UINT64_C(1) << 33)
#define FIRST_VALID (UINT64_C(1) << 32)
#define FIRST_OF_SEED (UINT64_C(1) << 40)
#define TUNING_WORLDS 1000 /* the study's seeds are below */
#define PUBLISHED_WORLD 42

typedef struct world {
    const atmsae_context *context;
    atmsae_synth *synth;
    uint64_t d, first; /* row of training */
} world;

static void next(void *opaque, uint64_t step, uint64_t n, float *rows)
{
    const world *w = opaque;
    study_check(w->context, atmsae_synth_rows(w->synth, w->first + step * n, n, rows, NULL));
}

static float *make_rows(const world *w, uint64_t first, uint64_t n)
{
    float *rows = program_alloc(n * w->d, sizeof *rows);
    study_check(w->context, atmsae_synth_rows(w->synth, first, n, rows, NULL));
    return rows;
}

/* Trains, and writes what any SAE is measured by; the caller frees the result. */
static study_trained run(atmsae_context *context, const study_method *method, const settings *s, world *w, const study_rows *kind,
                         uint64_t n_valid, FILE *out)
{
    study_rows rows = *kind;
    float *sample = make_rows(w, w->first, SAMPLE), *calibration = make_rows(w, FIRST_CALIBRATION, CALIBRATION);
    float *valid = make_rows(w, FIRST_VALID, n_valid);
    rows.d = w->d;
    rows.next = next;
    rows.opaque = w;
    rows.sample = sample;
    rows.n_sample = SAMPLE;
    rows.calibration = calibration;
    rows.n_calibration = CALIBRATION;
    const study_trained trained = study_train(context, method, s, &rows);
    atmsae_metrics_result r, held;
    study_reconstruction(context, trained.model, valid, n_valid, w->d, &r);
    study_reconstruction(context, trained.model, calibration, CALIBRATION, w->d, &held);
    fprintf(out, ", \"l0\": %.4f, \"fvu\": %.5f, \"l0_held\": %.4f, \"l0_train\": %.4f, \"mean_p\": %.4f, \"dead\": %d", r.l0, r.fvu,
            held.l0, trained.l0_train, trained.mean_p, (int)r.dead);
    free(sample);
    free(calibration);
    free(valid);
    return trained;
}

void synthetic_run(atmsae_context *context, const study_method *method, const settings *s, FILE *out)
{
    enum { VALID = 20000 };
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    config.seed = (uint64_t)s->seed + (s->tune != 0 ? TUNING_WORLDS : 0);
    world w = {.context = context, .d = config.d};
    study_check(context, atmsae_synth_create(context, &config, &w.synth));
    /* Rare children fire once in hundreds of rows: a latent that was off for ten batches is dead. */
    const study_rows kind = {.input_norm = ATMSAE_INPUT_RAW, .b_dec_init = ATMSAE_B_DEC_ZERO, .dead_window = 10 * (uint64_t)s->batch};
    study_trained trained = run(context, method, s, &w, &kind, VALID, out);
    atmsae_synth_result truth = {.size = sizeof truth};
    study_check(context, atmsae_synth_score(w.synth, trained.model, FIRST_VALID, VALID, &truth));
    fprintf(out, ", \"parent_miss\": %.5f, \"miss_child_on\": %.5f, \"miss_child_off\": %.5f, \"parent_f1\": %.4f, "
                 "\"mcc\": %.4f", truth.missed, truth.missed_child_on, truth.missed_child_off, truth.parent_f1, truth.mcc);
    study_free(&trained);
    atmsae_synth_destroy(w.synth);
}

void synth16k_run(atmsae_context *context, const study_method *method, const settings *s, FILE *out)
{
    enum { VALID = 50000, TRUTH = 500000 };
    static atmsae_synth *synth; /* takes minutes to make, so it stays until the program ends */
    if (!synth) study_check(context, atmsae_synth_create_preset(context, ATMSAE_SYNTH_BENCH_16K, PUBLISHED_WORLD, &synth));
    world w = {.context = context, .synth = synth, .d = 768, .first = (uint64_t)s->seed * FIRST_OF_SEED};
    const study_rows kind = {.input_norm = ATMSAE_INPUT_SQRT_D, .b_dec_init = ATMSAE_B_DEC_MEAN, .dead_window = (uint64_t)(s->steps * s->batch / 10)};
    study_trained trained = run(context, method, s, &w, &kind, VALID, out);
    atmsae_truth_result t = {.size = sizeof t};
    study_check(context, atmsae_synth_truth(synth, trained.model, FIRST_VALID, s->steps > 1000 ? TRUTH : VALID, &t));
    fprintf(out, ", \"true_l0\": %.3f, \"f1\": %.4f, \"precision\": %.4f, \"recall\": %.4f, \"mcc\": %.4f, \"uniqueness\": %.4f, "
                 "\"parent_miss\": %.5f, \"miss_child_on\": %.5f, \"miss_child_off\": %.5f, \"leak\": %.4f",
            t.true_l0, t.f1, t.precision, t.recall, t.mcc, t.uniqueness, 1 - (t.parent_recall_child_on + t.parent_recall_child_off) / 2,
            1 - t.parent_recall_child_on, 1 - t.parent_recall_child_off, t.decoder_leak);
    study_free(&trained);
}
