/* SPDX-License-Identifier: MIT
 *
 * atmsae features: files that say what each row is.
 */
#include "features_more.h"
#include "program.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void labels_free(labels *self)
{
    free(self->memory);
    free(self->line);
    free(self->begins);
    *self = (labels){0};
}

static bool read_text(const char *path, char **text, size_t *size)
{
    FILE *file = fopen(path, "rb"), *copy = program_text_open(text, size);
    char block[4096];
    size_t got = 0;
    while (file && (got = fread(block, 1, sizeof block, file)) > 0) fwrite(block, 1, got, copy);
    bool good = file && !ferror(file);
    if (!good) fprintf(stderr, "atmsae: %s: %s\n", path, strerror(errno));
    if (file) fclose(file);
    program_text_close(copy, text);
    if (good && memchr(*text, 0, *size)) {
        fprintf(stderr, "atmsae: %s: has bytes of value 0; expected a text with one line a row\n", path);
        good = false;
    }
    return good;
}

bool labels_read(labels *self, const char *path, bool tokens)
{
    size_t size = 0, lines = 1;
    *self = (labels){.tokens = tokens};
    if (!read_text(path, &self->memory, &size)) return false;
    for (const char *c = self->memory; *c; c++) lines += *c == '\n';
    self->line = program_alloc(lines, sizeof *self->line);
    self->begins = program_alloc(lines, 1);
    bool begins = true;
    for (char *at = self->memory, *end = at + size; at < end;) {
        char *stop = at + strcspn(at, "\n"), *next = stop + 1;
        *stop = 0;
        if (stop > at && stop[-1] == '\r') *--stop = 0;
        if (tokens && stop == at) begins = true;
        else {
            self->begins[self->n] = begins;
            self->line[self->n++] = at;
            begins = false;
        }
        at = next;
    }
    return true;
}
