/* SPDX-License-Identifier: MIT
 *
 * Results and settings as named fields, printed as aligned text or as one JSON object.
 */
#ifndef OUTPUT_H
#define OUTPUT_H

#include "json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct field {
    char *name, *value;
    char *brief;    /* in the text form; NULL: value */
    bool quoted;    /* a string in JSON */
    bool json_only; /* a JSON text of its own (array, object); not part of the text form */
} field;

typedef struct fields {
    size_t n;
    field *all;
} fields;

void fields_text(fields *self, const char *name, const char *value);
void fields_count(fields *self, const char *name, uint64_t value);
/* NaN and infinities: null in JSON, which gets all digits that matter; the text form gets seven. */
void fields_real(fields *self, const char *name, double value);
/* The shortest decimal that is read back as the same number. */
void exact_real(double value, char text[40]);
void fields_flag(fields *self, const char *name, bool value);
/* json: taken over and freed. */
void fields_json(fields *self, const char *name, char *json);
const field *fields_get(const fields *self, const char *name); /* NULL if there is none */
const char *fields_find(const fields *self, const char *name); /* its value */
void fields_copy(fields *self, const field *f);
void fields_free(fields *self);

/* For people: what a terminal would act on is shown as \xNN (text.h). */
void fields_print(const fields *self, FILE *out);
void fields_print_json(const fields *self, FILE *out);
char *fields_json_text(const fields *self); /* to be a value in another object; new memory */

#endif
