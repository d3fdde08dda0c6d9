/* SPDX-License-Identifier: MIT
 *
 * The library's first-letter absorption, in five folds so that each word is a test word once.
 */
#ifndef LETTERS_H
#define LETTERS_H

#include <atmsae/atmsae.h>
#include <stdio.h>

typedef struct letters letters;
/* rows [n, d] (kept until close, not copied), label [n] 0 .. 25. Fits the probes of all folds. */
letters *letters_open(atmsae_context *context, const float *rows, uint64_t n, uint64_t d, const int32_t *label);
void letters_close(letters *l);
/* Adds the scores of `model` as JSON members named after the form of the words. */
void letters_score(const letters *l, const atmsae_model *model, const char *form, FILE *out);

#endif
