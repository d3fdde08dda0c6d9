/* SPDX-License-Identifier: MIT
 *
 * train --metrics: one line a step, as CSV or as JSON lines.
 */
#include "files.h"
#include "program.h"
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct column {
    const char *name;
    size_t offset;
    bool whole;
} column;

#define WHOLE(field) {#field, offsetof(atmsae_step_stats, field), true}
#define REAL(field) {#field, offsetof(atmsae_step_stats, field), false}
static const column columns[] = {
    WHOLE(step), WHOLE(rows), REAL(loss), REAL(mse), REAL(sparsity), REAL(aux), REAL(fvu), REAL(l0), WHOLE(dead),
    WHOLE(masked), REAL(mean_p), REAL(r), REAL(lr), REAL(grad_norm), WHOLE(bad_rows), REAL(sparsity_coef),
    REAL(masked_loss), WHOLE(outlier_rows),
};
#define N_COLUMNS (sizeof columns / sizeof *columns)

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

/* The lines of a regular file; NULL with errno ENOENT if there is none, which is no error for a pipe or a terminal. */
static FILE *open_lines(const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) errno = ENOENT;
    else return fopen(path, "r");
    return NULL;
}

bool metrics_file_goes_on(const char *path)
{
    static const char csv[] = "step,", json[] = "{\"step\": ";
    char start[sizeof json] = "";
    FILE *file = open_lines(path);
    if (!file && errno == ENOENT) return true;
    const size_t n = file ? fread(start, 1, sizeof start - 1, file) : 0;
    const bool readable = file && !ferror(file);
    if (!readable) program_error("%s: %s", path, strerror(errno));
    if (file) fclose(file);
    if (!readable) return false;
    if (n == 0 || strcmp(start, json) == 0 || strncmp(start, csv, strlen(csv)) == 0) return true;
    program_error("%s: is there already and holds no metrics of a run", path);
    return false;
}

/* The file as the run finds it takes its place at once, and grows line by line: it can be followed, and a kill loses
 * nothing. */
static bool go_on(metrics_file *self, const char *path)
{
    const bool staged = self->writer.target != NULL;
    if (staged) {
        if (!file_end(&self->writer, true)) return false;
        self->writer = (file_writer){.path = path, .folder = -1, .file = fopen(path, "a")};
    }
    if (self->writer.file && setvbuf(self->writer.file, NULL, _IOLBF, BUFSIZ) == 0) return true;
    program_error("%s: %s", path, strerror(errno));
    return false;
}

bool metrics_file_open(metrics_file *self, const char *path, bool resume, bool replace, uint64_t first_step)
{
    *self = (metrics_file){0};
    if (!path) return true;
    const char *dot = strrchr(path, '.');
    self->json = dot && strcmp(dot, ".jsonl") == 0;
    FILE *old = resume ? open_lines(path) : NULL;
    if (resume && !old && errno != ENOENT) {
        program_error("%s: %s", path, strerror(errno));
        return false;
    }
    bool good = file_begin(&self->writer, path, resume || replace);
    FILE *to = self->writer.file;
    if (good && old && !keep_steps_below(old, to, first_step, !self->json)) {
        program_error("%s: %s", path, strerror(errno));
        good = file_end(&self->writer, false);
    }
    if (old) fclose(old);
    if (!good) return false;
    const bool header = !self->json && ftell(to) <= 0; /* a pipe has no place */
    for (size_t c = 0; header && c < N_COLUMNS; c++)
        fprintf(to, "%s%s", columns[c].name, c + 1 < N_COLUMNS ? "," : "\n");
    return go_on(self, path);
}

void metrics_file_add(metrics_file *self, const atmsae_step_stats *stats)
{
    if (!self->writer.file) return;
    for (size_t c = 0; c < N_COLUMNS; c++) {
        const void *at = (const char *)stats + columns[c].offset;
        if (self->json) fprintf(self->writer.file, "%s\"%s\": ", c ? ", " : "{", columns[c].name);
        else if (c) fputc(',', self->writer.file);
        if (columns[c].whole) fprintf(self->writer.file, "%llu", (unsigned long long)*(const uint64_t *)at);
        else if (isfinite(*(const double *)at)) fprintf(self->writer.file, "%.9g", *(const double *)at);
        else if (self->json) fputs("null", self->writer.file);
    }
    fputs(self->json ? "}\n" : "\n", self->writer.file);
}

bool metrics_file_close(metrics_file *self)
{
    return !self->writer.file || file_end(&self->writer, true);
}
