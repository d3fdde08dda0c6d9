/* SPDX-License-Identifier: MIT
 *
 * What the programs of the benchmark share. Each measures one thing in a process of its own, so that
 * its peak memory is its own, and bench_drive takes turns between them. As a worker (--serve) a
 * program prints "ready" when it is set up, answers every line of input with one repetition, and
 * prints "end" when input ends; what it has to say stands behind, as words key=value.
 */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include <atmsae/atmsae.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct bench_options {
    size_t d, F, n, k, threads, steps; /* threads 0: one a CPU; steps: repetitions without --serve */
    size_t warm;                       /* steps of 1024 rows before anything is timed */
    size_t l0;                         /* standard, jumprelu: shift all limits until L0 is about this; 0: leave them */
    size_t dead;                       /* percent of latents in a second step's AuxK; 0: no such step */
    const char *arch, *mask, *precision; /* precision: of the encoder product, fp32 or bf16 */
    bool phases, serve;
} bench_options;

/* Exits with a message on an unknown option. */
bench_options bench_parse(int argc, char **argv);

double bench_now(void); /* seconds */
/* Sorts x. */
double bench_median(double *x, size_t n);
/* Exits with the context's message if status is a failure. */
void bench_must(atmsae_status status, const atmsae_context *ctx);
void *bench_alloc(size_t count, size_t size);
atmsae_context *bench_context(bench_options *o); /* resolves o->threads */

/* MB: "VmRSS" now, or "VmHWM", the peak since the last bench_forget_peak. */
double bench_memory(const char *key);
void bench_forget_peak(void);

/* Waits for a line; false when input ends. */
bool bench_next(void);
/* Seconds that a turn goes on with short repetitions, and how many at most; their median counts: the first one
 * after others' turns finds nothing in caches. */
#define BENCH_TURN 0.15
enum { BENCH_MOST = 64 };

/* At least n rows [count, d] of the sample of real activations in examples/data, turned into d
 * dimensions: zero-padded and rotated, which changes no angle or distance; below 576 dimensions
 * rotated and cut. Where there are not enough they repeat. */
float *bench_rows(atmsae_context *ctx, size_t n, size_t d, size_t *count);

#endif
