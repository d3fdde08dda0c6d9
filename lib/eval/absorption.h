/* SPDX-License-Identifier: MIT
 *
 * The inside of the absorption measure: its handle, and the rule that decides whether one row is
 * absorbed, apart from how the rule's inputs are found.
 */
#ifndef AMS_EVAL_ABSORPTION_H
#define AMS_EVAL_ABSORPTION_H

#include "base/base.h"

#include <atmsae/eval.h>

#include <math.h>

enum { AMS_MAX_SPLIT = 64 };

struct atmsae_absorption {
    atmsae_context *ctx;
    atmsae_absorption_config config;
    uint64_t d, n_train, n_test;
    float *x;        /* [n_train + n_test, d], training rows first */
    int32_t *label;  /* [n_train + n_test] */
    uint64_t n_given, *given; /* rows given to create; [n_test] which of them a test row is */
    double unit;     /* root mean square deviation of a training row's entry from its mean */
    double *probe;   /* [n_classes, d + 1], intercepts last */
    double *probe_f1; /* [n_classes] on test rows */
    uint64_t *hits;  /* [n_classes] test rows of the class that its probe recognises */
    double *projection; /* [n_test] z / |w|, of the probe w of the row's own class */
    uint8_t *is_hit; /* [n_test] is the row one of hits? */
};

/* 2 tp / (2 tp + fp + fn); 0 where that is undefined */
/* A mean that is undefined, NaN, where there is nothing to take it over. */
static inline double ams_mean_or_nan(double sum, double n) { return n > 0 ? sum / n : (double)NAN; }
double ams_f1(uint64_t true_positives, uint64_t false_positives, uint64_t false_negatives);

/* One row: its active latents, in units in which decoder rows have norm 1; cos of each latent's decoder
 * row with the probe, [F]; the class's split latents; A = z / |w|. */
typedef struct ams_absorption_row {
    uint64_t count;
    const uint32_t *latent;
    const float *value;
    const double *cosine;
    const uint32_t *split;
    uint64_t n_split;
    double projection;
} ams_absorption_row;

/* True if any latent of `split` fires in the row. */
bool ams_split_fires(const ams_absorption_row *row);
/* "Full" absorption: no split latent fires, and the latent that adds most to the probe's direction,
 * P_j = a_j cos_j, points with it and supplies enough of A. */
bool ams_absorbed_fully(const ams_absorption_row *row);
/* The share of the probe's direction that latents outside the split set have taken over: in SAEBench
 * 0.6.0 the three strongest absorbers against the split latents, in 0.3.2 all latents. */
double ams_absorbed_fraction_v060(const ams_absorption_row *row);
double ams_absorbed_fraction_v032(const ams_absorption_row *row);

#endif
