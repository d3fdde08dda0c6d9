/* SPDX-License-Identifier: MIT
 *
 * Labelled words for the measure of absorption: rows, classes, and which a probe may be fitted on.
 */
#ifndef WORDS_H
#define WORDS_H

#include <atmsae/atmsae.h>
#include <stdbool.h>

typedef struct words {
    uint64_t n, d;
    float *rows;       /* [n, d] */
    int32_t *labels;   /* [n], 0 .. n_classes - 1 */
    uint8_t *is_train; /* [n] */
    uint64_t n_classes;
} words;

/* Reads tensor `tensor` [n, d], `letter` and `is_train` of a .safetensors file into *w, which must
 * be all zero. False after a message on stderr; words_free in any case. */
bool words_read(atmsae_context *context, const char *path, const char *tensor, words *w);
void words_free(words *w);

#endif
