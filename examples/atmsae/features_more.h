/* SPDX-License-Identifier: MIT
 *
 * Between the parts of atmsae features.
 */
#ifndef FEATURES_MORE_H
#define FEATURES_MORE_H

#include "command.h"
#include "importance.h"

#include <atmsae/eval.h>

/* What rows are, a line a row: words, or the tokens of running text. */
typedef struct labels {
    char *memory;
    const char **line; /* [n] */
    uint8_t *begins;   /* [n] 1: the first token of a document */
    uint64_t n;
    bool tokens;       /* lines stand in the order of the text, so that neighbours are context */
} labels;

/* False after a message. tokens: an empty line is no row, it ends a document. */
bool labels_read(labels *self, const char *path, bool tokens);
void labels_free(labels *self);

typedef struct features {
    const char *sae, *title;
    const setting *files;     /* of rows */
    const char *arch;
    atmsae_model_config model;
    uint64_t rows, entries;   /* rows read, and firings of all latents on them */
    uint64_t *fired;          /* [d_sae] rows on which it fired */
    double *sum;              /* [d_sae] of its activations */
    atmsae_top_rows *top;
    uint64_t n_top;
    labels labels;            /* n 0: none */
    uint32_t *neighbour;      /* [d_sae, n_neighbours] */
    float *cosine;
    uint64_t n_neighbours;
    importance *importance;   /* NULL: not known */
    uint32_t *shown;          /* [n_shown] which latents to write, in this order */
    uint64_t n_shown;
} features;

/* One JSON object (doc/features.md), numbers with so many digits. Ends with the last latent that fits into `most`
 * bytes (0: all); returns how many latents were written. Errors stay in the FILE. */
uint64_t features_json(FILE *out, const features *self, int digits, uint64_t most);
/* The page around it. */
uint64_t features_page(FILE *out, const features *self, uint64_t most);

extern const char features_style[], features_body[], features_script[];

#endif
