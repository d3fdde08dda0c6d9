/* SPDX-License-Identifier: MIT
 *
 * What every part of the library stands on: errors, memory, structs of the ABI, worker threads.
 * Internal names start with ams_ (functions, types) or AMS_ (macros).
 */
#ifndef AMS_BASE_H
#define AMS_BASE_H

#include "base/abi.h"

#include <fenv.h>
#include <stdatomic.h>
#include <stdbool.h>

/* ---- errors: one path ---------------------------------------------------------------------- */

/* Stores the text in the context and returns `status`. Formatted in the C locale. */
__attribute__((format(printf, 3, 4))) atmsae_status
ams_fail(atmsae_context *ctx, atmsae_status status, const char *format, ...);
/* Puts "prefix: " before the current text, e.g. a file name before a parser's complaint. */
atmsae_status ams_fail_in(atmsae_context *ctx, atmsae_status status, const char *prefix);
/* Text of errno-like code `error`: "path: what: reason". */
atmsae_status ams_fail_errno(atmsae_context *ctx, const char *path, const char *what, int error);
__attribute__((format(printf, 3, 4))) void
ams_log(atmsae_context *ctx, int32_t level, const char *format, ...);
/* Would a message of this level be heard? */
bool ams_logs(const atmsae_context *ctx, int32_t level);
/* snprintf in the C locale, whatever the caller's. Returns the full length. */
__attribute__((format(printf, 3, 4))) int
ams_format(char *out, size_t capacity, const char *format, ...);
/* strtod in the C locale. */
double ams_strtod(const char *text, char **end);

#define AMS_TRY(call)                    \
    do {                                 \
        atmsae_status try_ = (call);     \
        if (try_ < 0) return try_;       \
    } while (0)

/* ---- public calls --------------------------------------------------------------------------- */

/* In every handle that can change: who uses it now. */
typedef struct ams_use {
    atomic_int users;
} ams_use;
typedef struct ams_claim {
    const char *name; /* of the handle, for the error text */
    ams_use *use;     /* NULL ends a list */
    bool changes;
} ams_claim;
/* Calls that read a handle may overlap; one that changes it excludes all others. */
#define AMS_READS(name, handle) {name, (ams_use *)(uintptr_t)&(handle)->use, false}
#define AMS_CHANGES(name, handle) {name, &(handle)->use, true}

/* The body of a public function: checks that the context is of this process, claims the handles
 * listed (E_STATE if one is in use), runs `work` in the default floating-point environment, and
 * gives both back, also where a callback of a C++ program leaves `work` by an exception (the library is
 * compiled with -fexceptions for that). What the library calls on handles that the same call has claimed
 * to change is the ams_ function behind the public one.
 *
 *     AMS_CALL(ctx, ams_encode(model, batch, codes), AMS_READS("model", model), AMS_CHANGES("codes", codes)); */
#define AMS_CALL(ctx, work, ...)                                                          \
    do {                                                                                  \
        const ams_claim claims_[] = {{0}, ##__VA_ARGS__, {0}}; /* {0}: the list may be empty */ \
        __attribute__((cleanup(ams_call_end))) ams_call call_ = {.claims = claims_ + 1};  \
        AMS_TRY(ams_call_begin(&call_, ctx, __func__));                                   \
        return work;                                                                      \
    } while (0)

/* Ahead of AMS_CALL, in a call that needs two handles: where one is NULL, the context of the other has the text. */
#define AMS_NEED_BOTH(name_a, a, name_b, b)                                                               \
    do {                                                                                                  \
        if (!(a) || !(b))                                                                                 \
            return ams_fail((a) ? (a)->ctx : (b) ? (b)->ctx : NULL, ATMSAE_E_ARG, "%s: %s is NULL", __func__, \
                            (a) ? (name_b) : (name_a));                                                   \
    } while (0)

/* For an array of the caller's that the call fills: it must be there, at an address that its elements can have. */
#define AMS_CHECK_ARRAY(ctx, name, array) AMS_TRY(ams_check_array(ctx, name, array, sizeof *(array)))
atmsae_status ams_check_array(atmsae_context *ctx, const char *name, const void *array, size_t element);

typedef struct ams_call {
    const ams_claim *claims;
    size_t n;           /* of them that this call holds */
    bool begun;
    fenv_t environment; /* the caller's */
} ams_call;
atmsae_status ams_call_begin(ams_call *call, atmsae_context *ctx, const char *function);
void ams_call_end(ams_call *call);
/* The default floating-point environment for functions that only compute, and for new threads. */
void ams_float_begin(fenv_t *caller);
void ams_float_end(const fenv_t *caller);
/* Is this process a child of the one that made the context? Its threads are not here then. */
bool ams_forked(const atmsae_context *ctx);
/* How this context's products that propose latents are made (kernels/panels.h); NULL: by BLIS. */
const struct ams_product *ams_product_of(const atmsae_context *ctx);

/* ---- memory -------------------------------------------------------------------------------- */

/* count * size bytes, 64-byte aligned; NULL when they overflow or cannot be had (and for no other
 * reason: a zero size gives a valid pointer). */
void *ams_alloc(atmsae_context *ctx, uint64_t count, size_t size);
void *ams_calloc(atmsae_context *ctx, uint64_t count, size_t size);
void ams_free(atmsae_context *ctx, void *memory);
/* Makes *array hold at least `need` elements: new memory of at least twice *capacity, the first
 * `keep` elements copied. On failure nothing changes. */
atmsae_status ams_grow(atmsae_context *ctx, void *array, uint64_t *capacity, uint64_t need,
                       uint64_t keep, size_t size);
atmsae_status ams_nomem(atmsae_context *ctx, const char *what);
static inline bool ams_mul(uint64_t a, uint64_t b, uint64_t *out) /* true: no overflow */
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline uint64_t ams_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t ams_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Contexts are counted: each handle holds one reference. */
atmsae_context *ams_context_ref(atmsae_context *ctx);
/* The file writer's system calls (format.h), for tests; NULL, as it begins: the system's own. */
struct ams_io;
void ams_context_set_io(atmsae_context *ctx, const struct ams_io *io);
const struct ams_io *ams_context_io(const atmsae_context *ctx);

/* ---- worker threads ------------------------------------------------------------------------ */

/* Runs job(arg, i, worker) for i = 0 .. jobs-1 on the context's threads; worker < ams_workers().
 * Which worker gets which job is open, so jobs must not depend on it: results belong to i. */
typedef void ams_job(void *arg, uint64_t i, unsigned worker);
void ams_parallel(atmsae_context *ctx, uint64_t jobs, ams_job *job, void *arg);
unsigned ams_workers(const atmsae_context *ctx);
/* For measurements: from now on the wall time of parallel sections (ams_parallel with more than one job and
 * thread) is added to *seconds. NULL, as it begins: nothing is timed. One thread at a time calls then. */
void ams_context_time_parallel(atmsae_context *ctx, double *seconds);

/* ---- work in 64 ordered pieces (pieces.c) ----------------------------------------------------
 *
 * A sum of floats has other last bits in another order, so sums over latents, and over a batch's rows, have an
 * order that any number of owners can keep: n items are cut into 64 pieces of nearly equal size (empty ones where
 * n is below 64); one owner sums a piece in ascending order; the 64 sums are added in ascending order. Owners are
 * threads here. Where latents are shared out over processes, each takes whole pieces, and the same bits come
 * out of 1 to 64 of them; so the number of pieces is part of what the library computes, and stays 64. */

enum { AMS_PIECES = 64, AMS_PIECE_SUMS = 8 };
/* The first item of a part where n items are cut into `parts` of nearly equal size: floor(n part / parts); of the
 * part after the last: n. No product overflows while there are fewer than 2^32 parts. */
static inline uint64_t ams_part_first(uint64_t n, uint64_t parts, uint64_t part)
{
    return n / parts * part + n % parts * part / parts;
}
static inline uint64_t ams_piece_first(uint64_t n, uint64_t piece) { return ams_part_first(n, AMS_PIECES, piece); }
/* Adds items first .. last - 1 to `sums`, which are 0 at first, and does whatever else there is to do for them. */
typedef void ams_piece_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums);
/* Runs a job for all pieces, on all threads where n is large enough. `sums` may be NULL. */
void ams_pieces(atmsae_context *ctx, uint64_t n, ams_piece_job *job, void *arg, double sums[AMS_PIECE_SUMS]);

typedef bool ams_chosen(void *arg, uint64_t i);
/* The first i < n that is chosen; n: none. */
uint64_t ams_find(atmsae_context *ctx, uint64_t n, ams_chosen *chosen, void *arg);
/* Numbers those that are chosen 0, 1, .. in ascending order; returns how many there are. `chosen` is asked twice,
 * the second time just before the item is taken. */
typedef void ams_take(void *arg, uint64_t i, uint64_t number);
uint64_t ams_number(atmsae_context *ctx, uint64_t n, ams_chosen *chosen, ams_take *take, void *arg);

/* ---- random numbers: Philox4x32-10 (Salmon et al. 2011) -------------------------------------- */

/* What a stream of draws is for; part of the counter, so that streams never meet. Values are pinned
 * by checkpoints. */
enum {
    AMS_DRAW_INIT = 1,
    AMS_DRAW_MASK = 2,
    AMS_DRAW_ROW_MASK = 3,
    AMS_DRAW_PERMUTE = 4,
    AMS_DRAW_SHUFFLE = 5,
    AMS_DRAW_SYNTH = 6,
    AMS_DRAW_EVAL = 7,
    AMS_DRAW_SAMPLE = 8
};
/* Four words of the stream (seed, purpose) at position (a, b); a < 2^56, b < 2^64. */
void ams_philox(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t out[4]);
/* Uniform in [0, 1) with 53 bits, from two words. */
static inline double ams_uniform(uint32_t high, uint32_t low)
{
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}
/* Two independent N(0, 1) (Box-Muller) from four words. */
void ams_normal2(const uint32_t words[4], double out[2]);

/* ---- CRC-64/XZ and CRC-32 ---------------------------------------------------------------------- */

/* Start with 0; feed pieces in order. */
uint64_t ams_crc64(uint64_t crc, const void *data, size_t bytes);
uint32_t ams_crc32(uint32_t crc, const void *data, size_t bytes);

#ifdef __clang_analyzer__
/* The analyzer sees one file at a time, and would follow paths on which a failure is not negative. */
#define ams_fail(ctx, status, ...) ((void)(ams_fail)(ctx, status, __VA_ARGS__), (atmsae_status)(status))
#define ams_fail_in(ctx, status, prefix) ((void)(ams_fail_in)(ctx, status, prefix), (atmsae_status)(status))
#define ams_fail_errno(ctx, path, what, error) ((void)(ams_fail_errno)(ctx, path, what, error), ATMSAE_E_IO)
#define ams_nomem(ctx, what) ((void)(ams_nomem)(ctx, what), ATMSAE_E_NOMEM)
#endif

#endif
