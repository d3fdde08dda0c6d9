/* SPDX-License-Identifier: MIT
 *
 * Inside of the generator of rows with known features, which lib/eval scores models against.
 */
#ifndef AMS_SYNTH_H
#define AMS_SYNTH_H

#include "base/base.h"

struct atmsae_synth {
    atmsae_context *ctx;
    atmsae_synth_config config;
    uint64_t features;
    float *directions;     /* [features, d], unit; parents, children (parent-major), independents */
    double *p_independent; /* [n_independent] */
    double *child_sums;    /* [n_children]: sum of the probabilities of children 0 .. j, of a parent
                              that is on; the last is p_child */
};

#endif
