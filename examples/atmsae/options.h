/* SPDX-License-Identifier: MIT
 *
 * Command-line options from one table, which drives parsing, range checks and --help alike.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_TEXTS,  /* one or more, also by repeating the option */
    OPTION_COUNT,  /* a whole number; 10k, 2.5M, 1G and 1e6 are understood */
    OPTION_REAL,
    OPTION_CHOICE, /* one of `choices` */
    OPTION_COUNTS  /* whole numbers, separated by commas */
};

typedef struct option_choice {
    const char *name;
    int32_t value;
} option_choice;

typedef struct option {
    const char *group;  /* heading printed above it; NULL: as the one before */
    const char *name;   /* without the dashes; NULL: takes the arguments that belong to no option */
    int kind;
    bool required;
    bool above_min;     /* the minimum itself is not allowed */
    const char *value;  /* what stands for the value in --help */
    const char *preset; /* the default, in words; NULL: none worth a word */
    double min, max;    /* max 0: none */
    const option_choice *choices; /* ends with name NULL */
    const char *help;
} option;

typedef struct setting {
    bool given;
    const char *text; /* as typed; for OPTION_TEXTS the first */
    double real;
    uint64_t count;
    int32_t choice;
    size_t n;           /* of texts or counts */
    const char **texts;
    uint64_t *counts;
} setting;

/* Fills settings[i] from options[i]. False after a message on stderr: a usage error. */
bool options_parse(const option *options, size_t n, int argc, char **argv, setting *settings);
void options_free(setting *settings, size_t n);
void options_help(FILE *out, const option *options, size_t n);

/* Leave *target alone unless the option was given. */
void setting_real(const setting *from, double *target);
void setting_count(const setting *from, uint64_t *target);
void setting_choice(const setting *from, int32_t *target);

/* Nearest of the names (their number is n) to a mistyped word, or NULL if none is near. */
const char *nearest_name(const char *word, const char *(*name)(const void *table, size_t i),
                         const void *table, size_t n);

#endif
