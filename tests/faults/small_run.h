/* SPDX-License-Identifier: MIT
 *
 * Small training runs for the tests of files: every activation, with everything that has state on.
 * The same rows in every process, so that runs in several processes can be compared.
 */
#ifndef SMALL_RUN_H
#define SMALL_RUN_H

#include <atmsae/atmsae.h>
#include <stdbool.h>

enum { SMALL_D = 12, SMALL_F = 40, SMALL_N = 16, SMALL_STEPS = 16 };

typedef struct small_setup {
    const char *name;
    int32_t activation, mask_kind, per_row;
    uint64_t d_out;  /* 0: autoencoder; else the source's rows are x and y side by side */
    int prefixes;
    bool callback;   /* rows come from a callback, which can be read once only */
    bool stream;     /* of unknown length: the cool-down is asked for after step 7 */
    bool second;     /* loss: what the mask does */
    bool bad_rows;   /* every 19th row has a NaN, in x or y, and is skipped */
    bool outliers;   /* every 11th row is 200 times as long, in x or y, and is left out */
} small_setup;

enum { SMALL_SETUPS = 17 };
extern const small_setup small_setups[SMALL_SETUPS];

typedef struct small_run {
    const small_setup *setup;
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    atmsae_source *source;
    uint64_t given;          /* rows that the callback gave */
    bool aux, masked, dead, skipped, left_out; /* have been seen at work */
    double loss;             /* of the last step */
} small_run;

/* Functions that fail print why and abort: a test process sees that as its failure. */
atmsae_context *small_context(uint32_t threads);
void small_begin(small_run *run, const small_setup *setup, atmsae_context *ctx);
/* `given`: the callback goes on there. */
atmsae_status small_load(small_run *run, const small_setup *setup, atmsae_context *ctx, const char *path, uint64_t given);
void small_step(small_run *run);
void small_until(small_run *run, uint64_t steps);
/* Leaves the context. */
void small_end(small_run *run);
/* n fixed rows, [n, SMALL_D]. */
void small_rows(float *out, uint64_t n);

/* Whole files, malloc'ed; NULL if there is none. */
char *small_read(const char *path, size_t *bytes);
void small_write(const char *path, const void *data, size_t bytes);
/* A fresh folder under /dev/shm or /tmp, in static memory; and the removal of one. */
const char *small_folder(void);
void small_remove(const char *folder);
/* Entries of a folder but . and .. */
unsigned small_entries(const char *folder);
/* ATMSAE_SCALE, 1 by default. */
uint64_t small_scale(void);

#endif
