/* SPDX-License-Identifier: MIT
 *
 * See output.h. No program here calls setlocale, so printf's decimal point is a point.
 */
#include "output.h"
#include "html.h"
#include "program.h"
#include "text.h"

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

void exact_real(double value, char text[40])
{
    int digits = 1;
    do snprintf(text, 40, "%.*g", digits, value);
    while (isfinite(value) && digits++ < 17 && strtod(text, NULL) != value);
}

void fields_real(fields *self, const char *name, double value)
{
    char text[40];
    exact_real(value, text);
    field *f = add(self, name, copy(isfinite(value) ? text : "null"));
    snprintf(text, sizeof text, "%.7g", value);
    f->brief = copy(isfinite(value) ? text : "null");
}

void fields_flag(fields *self, const char *name, bool value)
{
    add(self, name, copy(value ? "true" : "false"));
}

void fields_json(fields *self, const char *name, char *json)
{
    add(self, name, json)->json_only = true;
}

const field *fields_get(const fields *self, const char *name)
{
    for (size_t i = 0; i < self->n; i++)
        if (strcmp(self->all[i].name, name) == 0) return &self->all[i];
    return NULL;
}

const char *fields_find(const fields *self, const char *name)
{
    const field *f = fields_get(self, name);
    return f ? f->value : NULL;
}

void fields_copy(fields *self, const field *f)
{
    field *to = add(self, f->name, copy(f->value));
    to->brief = f->brief ? copy(f->brief) : NULL;
    to->quoted = f->quoted;
    to->json_only = f->json_only;
}

void fields_free(fields *self)
{
    for (size_t i = 0; i < self->n; i++) {
        free(self->all[i].name);
        free(self->all[i].value);
        free(self->all[i].brief);
    }
    free(self->all);
    *self = (fields){0};
}

void fields_print(const fields *self, FILE *out)
{
    size_t width = 0;
    for (const field *f = self->all; f < self->all + self->n; f++) {
        const size_t length = f->json_only ? 0 : text_escape(f->name, NULL, 0);
        if (length > width) width = length;
    }
    for (const field *f = self->all; f < self->all + self->n; f++) {
        if (f->json_only) continue;
        char *name = text_shown(f->name), *value = text_shown(f->brief ? f->brief : f->value);
        fprintf(out, "  %-*s  %s\n", (int)width, name, value);
        free(name);
        free(value);
    }
}

static void print_object(const fields *self, FILE *out, const char *indent)
{
    fputs("{\n", out);
    for (size_t i = 0; i < self->n; i++) {
        fprintf(out, "%s  ", indent);
        json_string(out, self->all[i].name);
        fputs(": ", out);
        if (self->all[i].quoted) json_string(out, self->all[i].value);
        else fputs(self->all[i].value, out);
        fputs(i + 1 < self->n ? ",\n" : "\n", out);
    }
    fprintf(out, "%s}", indent);
}

void fields_print_json(const fields *self, FILE *out)
{
    print_object(self, out, "");
    fputc('\n', out);
}

char *fields_json_text(const fields *self)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    print_object(self, out, "  ");
    return program_text_close(out, &json);
}
