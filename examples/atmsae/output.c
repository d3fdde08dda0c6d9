/* SPDX-License-Identifier: MIT
 *
 * See output.h. No program here calls setlocale, so printf's decimal point is a point.
 */
#include "output.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *copy(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    return memcpy(program_alloc(bytes, 1), text, bytes);
}

static field *add(fields *self, const char *name, char *value)
{
    field *longer = program_alloc(self->n + 1, sizeof *longer);
    if (self->n) memcpy(longer, self->all, self->n * sizeof *longer);
    free(self->all);
    self->all = longer;
    field *f = &longer[self->n++];
    *f = (field){.name = copy(name), .value = value};
    return f;
}

void fields_text(fields *self, const char *name, const char *value)
{
    add(self, name, copy(value))->quoted = true;
}

void fields_count(fields *self, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    add(self, name, copy(text));
}

void fields_real(fields *self, const char *name, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.7g", value);
    add(self, name, copy(isfinite(value) ? text : "null"));
}

void fields_flag(fields *self, const char *name, bool value)
{
    add(self, name, copy(value ? "true" : "false"));
}

void fields_json(fields *self, const char *name, char *json)
{
    add(self, name, json)->json_only = true;
}

const char *fields_find(const fields *self, const char *name)
{
    for (size_t i = 0; i < self->n; i++)
        if (strcmp(self->all[i].name, name) == 0) return self->all[i].value;
    return NULL;
}

void fields_free(fields *self)
{
    for (size_t i = 0; i < self->n; i++) {
        free(self->all[i].name);
        free(self->all[i].value);
    }
    free(self->all);
    *self = (fields){0};
}

void fields_print(const fields *self, FILE *out)
{
    size_t width = 0;
    for (size_t i = 0; i < self->n; i++)
        if (!self->all[i].json_only && strlen(self->all[i].name) > width) width = strlen(self->all[i].name);
    for (size_t i = 0; i < self->n; i++)
        if (!self->all[i].json_only)
            fprintf(out, "  %-*s  %s\n", (int)width, self->all[i].name, self->all[i].value);
}

void fields_print_json(const fields *self, FILE *out)
{
    fputs("{\n", out);
    for (size_t i = 0; i < self->n; i++) {
        fputs("  ", out);
        json_string(out, self->all[i].name);
        fputs(": ", out);
        if (self->all[i].quoted) json_string(out, self->all[i].value);
        else fputs(self->all[i].value, out);
        fputs(i + 1 < self->n ? ",\n" : "\n", out);
    }
    fputs("}\n", out);
}

void json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
        else if (c < 0x20) fprintf(out, "\\u%04x", c);
        else fputc(c, out);
    }
    fputc('"', out);
}

char *json_strings(const char *const *texts, size_t n)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        json_string(out, texts[i]);
    }
    fputc(']', out);
    return program_text_close(out, &json);
}
