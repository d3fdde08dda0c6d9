/* SPDX-License-Identifier: MIT
 *
 * Options from one table, which drives the command line, --config files, range checks, --help, man
 * pages and shell completion alike.
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

/* What a text or texts name. */
enum {
    OPTION_PLAIN,
    OPTION_READ,   /* files or folders that the command reads */
    OPTION_WRITTEN /* a file that it writes: paths_allowed in command.h */
};

typedef struct option_choice {
    const char *name;
    int32_t value;
} option_choice;

typedef struct option {
    const char *group;  /* heading printed above it; NULL: as the one before */
    const char *name;   /* without the dashes; NULL: takes the arguments that belong to no option */
    int kind;
    int file;
    bool required;
    bool above_min;     /* the minimum itself is not allowed */
    bool anew;          /* not listed for a run that goes on: it has its value already */
    const char *value;  /* what stands for the value in --help */
    const char *preset; /* the default, in words; NULL: none worth a word */
    double min, max;    /* max 0: none */
    const option_choice *choices; /* ends with name NULL; of OPTION_REAL: one word that stands for a number, or NULL */
    const char *help;
} option;

typedef struct setting {
    bool given;
    bool from_file;   /* of --config */
    const char *text; /* as typed; for OPTION_TEXTS the first */
    double real;
    uint64_t count;
    int32_t choice;
    size_t n;           /* of texts or counts */
    const char **texts;
    uint64_t *counts;
    char *owned;        /* memory that texts lie in, if not in argv */
} setting;

/* The option that every command has, --config; its setting follows those of the table. */
extern const option option_config;

/* All of these: false after a message on stderr, a usage error. */
/* Fills settings[i] from options[i], i < n, and settings[n] from option_config. */
bool options_parse(const option *options, size_t n, int argc, char **argv, setting *settings);
/* Fills what the command line left open from a JSON object whose keys are names of options. The key
 * "facts" is left out. */
bool options_load(const option *options, size_t n, const char *path, setting *settings);
bool options_required(const option *options, size_t n, const setting *settings);
void options_free(setting *settings, size_t n);

/* One value, as text; where: what messages put before the name, "--" or "FILE: ". */
bool option_take(const option *o, const char *text, const char *where, setting *s);
bool option_unknown(const option *options, size_t n, const char *name, const char *where);
const option *option_find(const option *options, size_t n, const char *name); /* NULL: the nameless one */

/* listed: which are; NULL: all. */
void options_help(FILE *out, const option *options, size_t n, bool (*listed)(const option *));
/* "--k K", "FILE..."; and what follows the help text: choices, range, default. */
void option_usage(const option *o, char *text, size_t size);
void option_facts(const option *o, char *text, size_t size);

/* Leave *target alone unless the option was given. */
void setting_real(const setting *from, double *target);
void setting_count(const setting *from, uint64_t *target);
void setting_choice(const setting *from, int32_t *target);

/* Nearest of the names (their number is n) to a mistyped word, or NULL if none is near. */
const char *nearest_name(const char *word, const char *(*name)(const void *table, size_t i),
                         const void *table, size_t n);

#endif
