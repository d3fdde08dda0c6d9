/* SPDX-License-Identifier: MIT
 *
 * What bench_drive knows of the workers of a case.
 */
#ifndef BENCH_DRIVE_H
#define BENCH_DRIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What workers say, in any line, as key=value. Times are one sample a repetition. */
enum { T_STEP, T_FORWARD, T_BACKWARD, T_UPDATE, T_REST, T_AUX, T_SINGLE, T_READ, T_BLIS, T_SPLIT, T_ALONE, TIMES };
enum { F_L0, F_FVU, F_MEAN_P, F_PARAMETERS_MB, F_PEAK_MB, F_GFLOP, F_GBYTES, F_UPDATE_GBYTES, FACTS };
extern const char *const time_name[TIMES], *const fact_name[FACTS];

enum { MOST_ROUNDS = 64, TEXT = 64 };

typedef struct result {
    char group[TEXT], impl[TEXT], arch[TEXT], mask[TEXT], precision[TEXT]; /* group: the case */
    char problem[4 * TEXT]; /* why there are no figures; "" */
    size_t d, F, n, k, threads;
    double sample[TIMES][MOST_ROUNDS];
    size_t samples[TIMES];
    double median[TIMES], low[TIMES], high[TIMES]; /* seconds; NaN: not measured */
    double fact[FACTS];                            /* NaN: not told */
    double unit;                                   /* seconds of the product of this size; NaN: none in the case */
} result;

typedef struct machine {
    char cpu[2 * TEXT], blis[TEXT], kernels[TEXT], level[TEXT];
    size_t threads;
    double gflops[2], read[2], copy[2], triad[2]; /* on one thread, on all */
} machine;

void report_head(const machine *m, FILE *out);
void report_columns(FILE *out);
void report_row(const machine *m, const result *r, FILE *out);
/* Lines below the table: comparisons between rows. */
void report_notes(const machine *m, const result *r, size_t n, FILE *out);
void report_json(const machine *m, const result *r, size_t n, FILE *out);

#endif
