/* SPDX-License-Identifier: MIT
 *
 * What the scores against known features share: rows of a generator, and a model's codes for them.
 */
#ifndef AMS_EVAL_SYNTH_CODES_H
#define AMS_EVAL_SYNTH_CODES_H

#include "data/synth.h"
#include "sae/sae.h"

/* E_ARG, with `what` before the text, unless the model fits the rows and there are rows. */
atmsae_status ams_synth_check(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                              const char *what);
/* n rows from `first` on: x [n, d], truth [n, features], and the model's codes, which view lends. */
atmsae_status ams_synth_encode(const atmsae_synth *synth, const atmsae_model *model, uint64_t first, uint64_t n, float *x,
                               uint8_t *truth, atmsae_codes *codes, atmsae_codes_view *view);

#endif
