/* SPDX-License-Identifier: MIT
 *
 * JSON, as the command writes it and as it reads strings of it. Any name of a file goes there and back: bytes that are
 * no UTF-8 stand as lone surrogates \udc80 .. \udcff, which is how Python's surrogateescape writes and reads them.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A string with its quotes; the inside of one. All that a terminal or <script> would act on is escaped. */
void json_string(FILE *out, const char *text);
void json_inside(FILE *out, const char *text);
/* A number with so many digits; NaN and infinities are null. */
void json_real(FILE *out, double value, int digits);
/* A list of strings in new memory. */
char *json_strings(const char *const *texts, size_t n);

/* Reads what stands behind a backslash at *in, which is moved behind it, and puts it at *out, which is moved likewise
 * and never further. False: no escape of JSON, or half a character, or the character 0. */
bool json_unescape(const char **in, char **out);

#endif
