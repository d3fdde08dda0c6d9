/* SPDX-License-Identifier: MIT
 *
 * What the programs here share and a library must not do: environment, exit, output to stderr.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Call before anything of the library. */
void program_choose_blis_kernels(void);

/* A line on stderr, "atmsae: ..." or as it is; without a line feed at its end. Controls in it, which may come from names
 * of files and from what they hold, are shown as \xNN (text.h). Takes a progress line away first. */
__attribute__((format(printf, 1, 2))) void program_error(const char *format, ...);
__attribute__((format(printf, 1, 2))) void program_note(const char *format, ...);

/* Memory or the end of the program. */
void *program_alloc(size_t count, size_t size);
/* A file that becomes a string, to be freed: close returns it. Likewise. */
FILE *program_text_open(char **text, size_t *size);
char *program_text_close(FILE *file, char **text);

double program_seconds(void); /* of a clock that only goes forward */

/* "1:02:03" or "2:03". */
void program_duration(double seconds, char *text, size_t size);

/* Makes a folder and its parents; false with errno set. */
bool program_make_folder(const char *path);

/* Puts folder, "/" and name together. */
char *program_path(const char *folder, const char *name);
/* Whether a path ends so, as in ".csv", and is more than that. */
bool program_ends_with(const char *path, const char *ending);

#endif
