/* SPDX-License-Identifier: MIT
 *
 * The inside of the absorption measure: its handle, and the rule that decides whether one row is
 * absorbed, apart from how the rule's inputs are found.
 */
#ifndef AMS_EVAL_ABSORPTION_H
#define AMS_EVAL_ABSORPTION_H

#include "base/base.h"

enum { AMS_MAX_SPLIT = 64 };

struct atmsae_absorption {
    atmsae_context *ctx;
    atmsae_absorption_config config;
    uint64_t d, n_train, n_test;
    float *x;        /* [n_train + n_test, d], training rows first */
    int32_t *label;  /* [n_train + n_test] */
    double unit;     /* root mean square deviation of a training row's entry from its mean */
    double *probe;   /* [n_classes, d + 1], intercepts last */
    double *probe_f1; /* [n_classes] on test rows */
    uint64_t *hits;  /* [n_classes] test rows of the class that its probe recognises */
    double *projection; /* [n_test] x.u, u the unit direction of the row's own class's probe */
    uint8_t *is_hit; /* [n_test] is the row one of hits? */
};

/* 2 tp / (2 tp + fp + fn); 0 where that is undefined */
double ams_f1(uint64_t true_positives, uint64_t false_positives, uint64_t false_negatives);

#define AMS_SILENT 1e-8       /* a split latent below this does not fire */
#define AMS_MIN_COSINE 0.025  /* of the absorbing latent with the probe */
#define AMS_MIN_SHARE 0.4     /* of the row's projection on the probe that it must supply */

/* "Full" absorption of a row (SAEBench): no split latent fires, and the latent that adds most to
 * the probe's direction, a_j cos_j, points with it and supplies enough of A = x.u. Latents that are
 * not listed have a = 0. Values are in the units of x, for unit decoder rows. Never when A <= 0
 * (the original divides by A = 0). */
bool ams_absorbed_fully(uint64_t count, const uint32_t *latent, const float *value, const double *cosine,
                        const uint32_t *split, uint64_t n_split, double projection);
/* True if any latent of `split` fires in the row. */
bool ams_split_fires(uint64_t count, const uint32_t *latent, const float *value, const uint32_t *split,
                     uint64_t n_split);

#endif
