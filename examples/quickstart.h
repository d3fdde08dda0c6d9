/* SPDX-License-Identifier: MIT
 *
 * Between the parts of the quickstart: one task is a stream of rows and a size, one method is an
 * activation function and a mask; every method is trained on every task in the same way.
 */
#ifndef QUICKSTART_H
#define QUICKSTART_H

#include "history.h"

#include <atmsae/atmsae.h>
#include <stdbool.h>

typedef struct quick_method {
    const char *name;
    int32_t activation, mask;
} quick_method;

#define QUICK_METHODS 4
#define QUICK_ATM 3 /* of the methods */
extern const quick_method quick_methods[QUICK_METHODS];

typedef struct quick_task {
    const char *name;
    uint64_t d_in, d_sae, batch_rows, steps;
    uint64_t seed;        /* of weights and masks */
    uint64_t dead_window; /* rows without firing after which AuxK takes care of a latent */
    double k; /* L0 of all methods */
    int32_t input_norm, b_dec_init;
    void (*next)(const void *opaque, uint64_t step, float *rows); /* batch_rows rows of a step */
    const void *opaque;
    const float *sample; /* training rows, for scale and mean */
    uint64_t n_sample;
    const float *calibration; /* rows for the threshold; neither validation nor measured on */
    uint64_t n_calibration;
} quick_task;

typedef struct quick_result {
    double l0, fvu, cosine, dead;
    double absorbed, recall, mcc;
} quick_result;

/* Ends the program with the context's last error if status is a failure. */
void quick_check(const atmsae_context *context, atmsae_status status);
/* A trained and calibrated SAE. record may be NULL. */
atmsae_trainer *quick_train(atmsae_context *context, const quick_task *task, const quick_method *method,
                            history *record);
/* On rows [n, d_in]; adds L0, FVU, cosine and dead latents, times `share`, to the result. */
void quick_measure(atmsae_context *context, const atmsae_model *model, const float *rows, uint64_t n, uint64_t d,
                   double share, quick_result *result);
/* "" if L0 is within 5 % of k, else "not matched". */
const char *quick_matched(const quick_result *result, double k);

void quick_synthetic(atmsae_context *context, quick_result results[QUICK_METHODS]);
/* Also writes the picture and the SAE of the method ATM. */
void quick_real(atmsae_context *context, const char *data, const char *out, quick_result results[QUICK_METHODS]);
void quick_print_synthetic(const quick_result results[QUICK_METHODS]);
void quick_print_real(const quick_result results[QUICK_METHODS]);

#endif
