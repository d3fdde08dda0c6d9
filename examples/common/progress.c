/* SPDX-License-Identifier: MIT
 *
 * See progress.h.
 */
#include "progress.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TERMINAL_SECONDS 0.2
#define FILE_SECONDS 5.0
#define FILE_SHARE 0.05         /* of the time so far */
#define FILE_SECONDS_MOST 600.0

static bool open_line; /* on the terminal: the cursor stands behind it */

static bool rewrites(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && term && *term && strcmp(term, "dumb") != 0;
}

void progress_break(void)
{
    if (open_line) fputs("\r\033[K", stderr);
    open_line = false;
}

void progress_start(progress *self, const char *name, bool quiet, uint64_t first_row, uint64_t total_rows)
{
    *self = (progress){.name = name, .quiet = quiet, .terminal = rewrites(),
                       .first_row = first_row, .total_rows = total_rows, .started = program_seconds()};
    self->shown = self->started;
}

/* On a terminal the line must not wrap, or it could not be rewritten. */
static int width(const progress *self)
{
    struct winsize size;
    if (!self->terminal || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 1000;
    return size.ws_col - 1;
}

static void line(const progress *self, uint64_t rows, const atmsae_step_stats *stats, double now, bool last)
{
    const double seconds = now - self->started;
    const double rate = seconds > 0 ? (double)(rows - self->first_row) / seconds : 0;
    const double total = (double)(self->total_rows ? self->total_rows : 1);
    char time[32], text[256];
    program_duration(last ? seconds : rate > 0 ? (double)(self->total_rows - rows) / rate : 0, time, sizeof time);
    int used = snprintf(text, sizeof text, "%s%s%5.1f%%  %llu rows  %.0f/s  %s %s", self->name, *self->name ? "  " : "",
                        100.0 * (double)rows / total, (unsigned long long)rows, rate, last ? "took" : "ETA", time);
    if (stats && used > 0 && (size_t)used < sizeof text)
        snprintf(text + used, sizeof text - (size_t)used, "  loss %.5g  L0 %.1f  FVU %.4f  dead %llu  p %.3f", stats->loss,
                 stats->l0, stats->fvu, (unsigned long long)stats->dead, stats->mean_p);
    progress_break();
    fprintf(stderr, "%.*s%s", width(self), text, self->terminal && !last ? "" : "\n");
    open_line = self->terminal && !last;
    fflush(stderr);
}

static double pause_between(const progress *self, double now)
{
    const double share = FILE_SHARE * (now - self->started);
    if (self->terminal) return TERMINAL_SECONDS;
    return share < FILE_SECONDS ? FILE_SECONDS : share < FILE_SECONDS_MOST ? share : FILE_SECONDS_MOST;
}

void progress_show(progress *self, uint64_t rows, const atmsae_step_stats *stats)
{
    if (self->quiet) return;
    const double now = program_seconds();
    if (now - self->shown < pause_between(self, now)) return;
    self->shown = now;
    line(self, rows, stats, now, false);
}

void progress_end(progress *self, uint64_t rows, const atmsae_step_stats *stats)
{
    if (!self->quiet) line(self, rows, stats, program_seconds(), true);
}
