/* SPDX-License-Identifier: MIT
 *
 * What a run did over time, for its picture: importances, threshold, masking, error.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include <atmsae/atmsae.h>
#include <stdbool.h>
#include <stdio.h>

#define HISTORY_POINTS 512

enum {
    HISTORY_STEP, HISTORY_Q10, HISTORY_Q25, HISTORY_Q50, HISTORY_Q75, HISTORY_Q90, HISTORY_MU,
    HISTORY_THETA, HISTORY_MEAN_P, HISTORY_MAX_P, HISTORY_R, HISTORY_FVU, HISTORY_COLUMNS
};

typedef struct history {
    uint64_t stride; /* steps between two points */
    size_t n;
    uint64_t d_sae;
    double *sorted;  /* [d_sae], working memory */
    double column[HISTORY_COLUMNS][HISTORY_POINTS];
} history;

history *history_create(uint64_t d_sae);
void history_destroy(history *self);
/* After each step. Takes a point every `stride` steps; when the points are full, drops every other
 * one and doubles the stride. */
void history_record(history *self, atmsae_trainer *trainer, const atmsae_step_stats *stats);
/* False after a message if the file cannot be written. */
bool history_plot(const history *self, const char *title, const char *path, bool replace);
/* The same without a title, as a part of a page of html.h; without the error where it is not known. */
void history_svg(FILE *page, const history *self);

#endif
