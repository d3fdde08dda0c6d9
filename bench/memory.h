/* SPDX-License-Identifier: MIT
 *
 * How fast this machine's memory is: the roof that phases without a matrix product are held against.
 */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include <stddef.h>

enum { BENCH_READ, BENCH_COPY, BENCH_TRIAD, BENCH_STREAMS };

/* Seconds for one pass over count floats of a (read), b = a, or c = a + 3 b, in equal slices on
 * `threads` threads. Arrays that a kind does not use may be NULL. */
double bench_stream(int kind, float *a, float *b, float *c, size_t count, unsigned threads);
/* Bytes that a pass moves, each array counted once. */
size_t bench_stream_bytes(int kind, size_t count);

#endif
