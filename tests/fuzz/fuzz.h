/* SPDX-License-Identifier: MIT
 *
 * Fuzz targets: one file each, with libFuzzer's entry point. replay.c gives them a plain main for
 * the committed corpus; tests/fuzz/run builds them with libFuzzer and sanitizers.
 */
#ifndef AMS_FUZZ_H
#define AMS_FUZZ_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define FZ_CHECK(condition)                                                                  \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

/* One context for the whole process, one thread, whose allocator counts. */
atmsae_context *fz_context(void);
/* At the end of an input: all memory was given back, at no time was more than `limit` bytes taken
 * (larger requests fail: the caller sees E_NOMEM), and `status` is one of the public codes, with a
 * text if it is a failure. */
void fz_done(atmsae_status status);
/* Refuses requests that bring the total above this; fz_done checks that none came. 0: 64 MiB. */
void fz_limit(size_t bytes);

/* A file in memory with these bytes, which stay the caller's; its path is the same for every call. */
const char *fz_file(const void *data, size_t size);
/* A file as it is now may be read from memory from now on. */
void fz_serve_file(const char *path);
/* calls.c, where it is linked in: a path that opens as these bytes, which stay the caller's. */
__attribute__((weak)) void fz_serve(const char *path, const void *data, size_t size);
/* A folder in memory if there is one, made at the first call, removed at exit with all in it. */
const char *fz_folder(void);
const char *fz_path(const char *name); /* of a file in it; lent until the next call but three */
size_t fz_read(const char *path, void *out, size_t room);

/* ---- values from the input; zeros once it is used up --------------------------------------------- */

typedef struct fz_bytes {
    const uint8_t *at;
    size_t left;
} fz_bytes;
void fz_take(fz_bytes *in, void *out, size_t n);
uint8_t fz_u8(fz_bytes *in);
uint64_t fz_range(fz_bytes *in, uint64_t low, uint64_t high); /* range below 2^16: two bytes at most */
/* Mostly numbers of ordinary size; one in four comes from a list of extreme ones, or is any double. */
double fz_double(fz_bytes *in);
float fz_float(fz_bytes *in);
uint64_t fz_u64(fz_bytes *in); /* the same for counters */

#endif
