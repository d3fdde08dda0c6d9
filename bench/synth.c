/* SPDX-License-Identifier: MIT
 *
 * How fast rows of SynthSAEBench-16k are made.
 *
 *     bench_synth [--rows N] [--threads N]
 *
 * One line: rows a second of the wall clock; CPU time of a row in microseconds, all threads together; and rows that
 * one CPU makes in a second of its time, which other programs on the machine change little.
 */
#include "synth16k.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { D = 768, ROWS_A_CALL = 4096 };
static const size_t bytes = sizeof(float) * ROWS_A_CALL * D;

static void must(int good, const char *what)
{
    if (good) return;
    fprintf(stderr, "bench_synth: %s\n", what);
    exit(1);
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    uint64_t rows = 100000, threads = 0;
    for (int i = 1; i < argc; i += 2) {
        must(i + 1 < argc && (!strcmp(argv[i], "--rows") || !strcmp(argv[i], "--threads")), argv[i]);
        *(strcmp(argv[i], "--rows") ? &threads : &rows) = strtoull(argv[i + 1], NULL, 10);
    }
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = (uint32_t)threads;
    atmsae_context *ctx;
    atmsae_synth *synth;
    must(atmsae_context_create(&config, &ctx) == ATMSAE_OK, "no context");
    must(synth16k_create(ctx, D, &synth) == ATMSAE_OK, atmsae_last_error(ctx));
    float *x = aligned_alloc(64, bytes); /* as in a trainer */
    must(x != NULL, "memory");
    memset(x, 0, bytes);
    const double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (uint64_t r = 0; r < rows; r += ROWS_A_CALL) {
        const uint64_t n = rows - r < ROWS_A_CALL ? rows - r : ROWS_A_CALL;
        must(atmsae_synth_rows(synth, r, n, x, NULL) == ATMSAE_OK, atmsae_last_error(ctx));
    }
    const double seconds = now(CLOCK_MONOTONIC) - wall, cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%.0f rows a second; %.2f CPU us a row; %.0f rows a CPU second\n", (double)rows / seconds,
           1e6 * cpu_seconds / (double)rows, (double)rows / cpu_seconds);
    free(x);
    atmsae_synth_destroy(synth);
    atmsae_context_destroy(ctx);
    return 0;
}
