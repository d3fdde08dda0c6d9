/* SPDX-License-Identifier: MIT
 *
 * First-letter absorption of all words in five folds, and 1-sparse probing of texts, with direct solvers: the
 * library's measures solve many convex problems to their optimum, which for hundreds of SAEs takes days.
 */
#ifndef LETTERS_H
#define LETTERS_H

#include <atmsae/atmsae.h>
#include <stdio.h>

typedef struct letters letters;
/* rows [n, d] (kept until close, not copied), label [n] 0 .. 25. */
letters *letters_open(const float *rows, uint64_t n, uint64_t d, const int32_t *label);
void letters_close(letters *l);
/* Adds the scores of `model` as JSON members named after the form of the words. */
void letters_score(const letters *l, atmsae_context *context, const atmsae_model *model, const char *form, FILE *out);

typedef struct texts {
    uint64_t n, d, n_tasks;
    float *rows;     /* [n, d] */
    int8_t *label;   /* [n, n_tasks] 1, 0 or -1 */
    uint8_t *is_train;
} texts;
/* Mean test accuracy over tasks of a logistic regression on the one latent that is ranked first. */
double texts_top1(const texts *t, atmsae_context *context, const atmsae_model *model);

#endif
