/* SPDX-License-Identifier: MIT
 *
 * Between the parts of the study: a run is one line of settings; it trains one SAE on one kind of data
 * and prints one line of JSON.
 */
#ifndef STUDY_H
#define STUDY_H

#include <atmsae/atmsae.h>
#include <atmsae/eval.h>
#include <stdbool.h>
#include <stdio.h>

/* Numbers a run may set, in the order of setting_names (study.c); NaN or 0 where the library's default is
 * meant, as its own structs have it. */
typedef struct settings {
    double k, seed, F, batch, steps, lr;
    double lambda, bandwidth;                 /* ReLU: penalty; JumpReLU: kernel */
    double widths;                            /* Matryoshka: 0, 1 or 2, see train.c */
    double r, c, decay, magnitude, frequency, contribution, geometric, per_row, freeze;
    double effect, alpha;              /* of masks: ATMSAE_EFFECT_.., weight of the second loss */
    double warm, cool_start, cool_end; /* of r: steps, shares of all steps */
    double tune;                       /* 1: on rows that the study does not use */
    double probing;                    /* 1: also score probes on texts */
} settings;

/* One row of the table of methods (train.c). */
typedef struct study_method {
    const char *name;
    int32_t activation, mask;
    int32_t nested; /* Matryoshka */
} study_method;
extern const study_method study_methods[];
const study_method *study_find(const char *name); /* NULL: no such method */

/* Rows to train on, from whatever data. */
typedef struct study_rows {
    uint64_t d;
    int32_t input_norm, b_dec_init;
    void (*next)(void *opaque, uint64_t step, uint64_t n, float *rows);
    void *opaque;
    const float *sample; /* [n_sample, d] training rows, for scale and mean */
    uint64_t n_sample;
    const float *calibration; /* [n_calibration, d] rows not trained on, for thresholds */
    uint64_t n_calibration;
    uint64_t dead_window;
} study_rows;

typedef struct study_trained {
    atmsae_trainer *trainer; /* owns the model; NULL: the model was loaded */
    atmsae_model *model;
    double l0_train, mean_p; /* of the last tenth of the steps; mean over all steps */
    double seconds;          /* of a processor */
} study_trained;

/* Ends the program with the context's last error if status is a failure. */
void study_check(const atmsae_context *context, atmsae_status status);
study_trained study_train(atmsae_context *context, const study_method *method, const settings *s, const study_rows *rows);
void study_free(study_trained *t);
/* keep.c: trained SAEs in a folder of folders. `line`: the run's settings. */
char *keep_folder(const char *models, const char *line);
bool keep_load(atmsae_context *context, const char *folder, study_trained *t); /* false: not there */
void keep_save(atmsae_context *context, const char *folder, const study_trained *t);
/* Of rows [n, d]. */
void study_reconstruction(atmsae_context *context, const atmsae_model *model, const float *rows, uint64_t n, uint64_t d,
                          atmsae_metrics_result *result);

/* A kind of data: open it once, then any number of runs. */
void synthetic_run(atmsae_context *context, const study_method *method, const settings *s, FILE *out);
void synth16k_run(atmsae_context *context, const study_method *method, const settings *s, FILE *out);
typedef struct real_data real_data;
real_data *real_open(atmsae_context *context, const char *folder); /* of one layer */
void real_run(real_data *data, const study_method *method, const settings *s, const char *kept, FILE *out); /* kept: folder or NULL */
void real_close(real_data *data);

#endif
