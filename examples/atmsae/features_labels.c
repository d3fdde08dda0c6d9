/* SPDX-License-Identifier: MIT
 *
 * atmsae features: files that say what each row is.
 */
#include "features_more.h"
#include "files.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>

void labels_free(labels *self)
{
    free(self->memory);
    free(self->line);
    free(self->begins);
    *self = (labels){0};
}

bool labels_read(labels *self, const char *path, bool tokens)
{
    size_t size = 0, lines = 1;
    *self = (labels){.tokens = tokens};
    self->memory = file_read(path, MOST_LIST_BYTES, &size);
    if (!self->memory) return false;
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
