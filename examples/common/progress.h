/* SPDX-License-Identifier: MIT
 *
 * The progress line of a long run, on stderr: rewritten in place on a terminal; elsewhere (a pipe, a log)
 * a line after a few seconds and then ever more rarely, so that a run of days stays readable.
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
/* rows: seen in all, those before first_row included. Cheap when it is not yet time for a line. stats NULL: rows
 * and time only. */
void progress_show(progress *self, uint64_t rows, const atmsae_step_stats *stats);
/* A last line, with the time taken. */
void progress_end(progress *self, uint64_t rows, const atmsae_step_stats *stats);
/* Call before any other line on stderr: takes a line that is being rewritten away. */
void progress_break(void);

#endif
