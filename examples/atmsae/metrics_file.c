/* SPDX-License-Identifier: MIT
 *
 * train --metrics: one line a step, as CSV or as JSON lines.
 */
#include "program.h"
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct column {
    const char *name;
    size_t offset;
    bool whole;
} column;

#define WHOLE(field) {#field, offsetof(atmsae_step_stats, field), true}
#define REAL(field) {#field, offsetof(atmsae_step_stats, field), false}
static const column columns[] = {
    WHOLE(step), WHOLE(rows), REAL(loss), REAL(mse), REAL(sparsity), REAL(aux), REAL(fvu), REAL(l0), WHOLE(dead),
    WHOLE(masked), REAL(mean_p), REAL(r), REAL(lr), REAL(grad_norm),
};
#define N_COLUMNS (sizeof columns / sizeof *columns)

static bool failed(const char *path)
{
    fprintf(stderr, "atmsae: %s: %s\n", path, strerror(errno));
    return false;
}

/* The step of a line: its first number. */
static uint64_t line_step(const char *line)
{
    return strtoull(line + strcspn(line, "0123456789"), NULL, 10);
}

/* A run that was killed may have written steps after its checkpoint: they come again. */
static bool keep_steps_below(FILE *from, FILE *to, uint64_t first_step, bool header)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, from)) > 0) {
        const bool whole = line[length - 1] == '\n';
        if (whole && (header || line_step(line) < first_step)) fputs(line, to);
        header = false;
    }
    free(line);
    return feof(from) && !ferror(to); /* getline also ends where memory does */
}

/* Line by line: the file can be followed, and a kill loses nothing. */
static bool start(metrics_file *self, const char *path)
{
    self->file = fopen(path, "w");
    return self->file ? setvbuf(self->file, NULL, _IOLBF, BUFSIZ) == 0 : failed(path);
}

static bool reopen(metrics_file *self, const char *path, uint64_t first_step)
{
    FILE *old = fopen(path, "r");
    if (!old) return errno == ENOENT || failed(path);
    const size_t size = strlen(path) + 5;
    char *temporary = program_alloc(size, 1);
    snprintf(temporary, size, "%s.tmp", path);
    bool good = start(self, temporary) && keep_steps_below(old, self->file, first_step, !self->json) && fflush(self->file) == 0 &&
                rename(temporary, path) == 0;
    if (!good) {
        failed(temporary);
        if (self->file) fclose(self->file);
        self->file = NULL;
        remove(temporary);
    }
    fclose(old);
    free(temporary);
    return good;
}

bool metrics_file_open(metrics_file *self, const char *path, bool resume, uint64_t first_step)
{
    *self = (metrics_file){0};
    if (!path) return true;
    const char *dot = strrchr(path, '.');
    self->json = dot && strcmp(dot, ".jsonl") == 0;
    if (!self->json && !(dot && strcmp(dot, ".csv") == 0)) {
        fprintf(stderr, "atmsae: --metrics %s: the name must end in .csv or .jsonl\n", path);
        return false;
    }
    if (resume && !reopen(self, path, first_step)) return false;
    if (self->file) return true;
    if (!start(self, path)) return false;
    for (size_t c = 0; c < N_COLUMNS && !self->json; c++)
        fprintf(self->file, "%s%s", columns[c].name, c + 1 < N_COLUMNS ? "," : "\n");
    return true;
}

void metrics_file_add(metrics_file *self, const atmsae_step_stats *stats)
{
    if (!self->file) return;
    for (size_t c = 0; c < N_COLUMNS; c++) {
        const void *at = (const char *)stats + columns[c].offset;
        if (self->json) fprintf(self->file, "%s\"%s\": ", c ? ", " : "{", columns[c].name);
        else if (c) fputc(',', self->file);
        if (columns[c].whole) fprintf(self->file, "%llu", (unsigned long long)*(const uint64_t *)at);
        else if (isfinite(*(const double *)at)) fprintf(self->file, "%.9g", *(const double *)at);
        else if (self->json) fputs("null", self->file);
    }
    fputs(self->json ? "}\n" : "\n", self->file);
}

bool metrics_file_close(metrics_file *self, const char *path)
{
    if (!self->file) return true;
    const bool bad = ferror(self->file) != 0;
    const bool closed = fclose(self->file) == 0;
    self->file = NULL;
    return (!bad && closed) || failed(path);
}
