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

#endif
