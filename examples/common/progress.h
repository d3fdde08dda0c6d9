/* SPDX-License-Identifier: MIT
 *
 * The progress line of a training run, on stderr: rewritten in place on a terminal, a line every
 * few seconds elsewhere.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <atmsae/atmsae.h>
#include <stdbool.h>

typedef struct progress {
    const char *name; /* put before the line; may be "" */
    bool quiet, terminal;
    uint64_t first_row, total_rows;
    double started, shown;
} progress;

void progress_start(progress *self, const char *name, bool quiet, uint64_t first_row, uint64_t total_rows);
/* rows: seen in all, those before first_row included. Cheap when it is not yet time for a line. */
void progress_show(progress *self, uint64_t rows, const atmsae_step_stats *stats);
/* A last line, with the time taken. */
void progress_end(progress *self, uint64_t rows, const atmsae_step_stats *stats);

#endif
