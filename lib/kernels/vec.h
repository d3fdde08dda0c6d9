/* SPDX-License-Identifier: MIT
 *
 * The table of vector kernels of one instruction-set level. Every level gives the same bits; the
 * contracts are in kernels.h.
 */
#ifndef AMS_VEC_H
#define AMS_VEC_H

#include "kernels.h"

typedef struct ams_vec {
    const char *name;
    float (*dot)(const float *a, const float *b, uint64_t n);
    void (*axpy)(float *y, float a, const float *x, uint64_t n);
    void (*gather_64)(float *y, const float *a, const uint32_t *at, uint32_t first, const float *rows, uint64_t count);
    void (*adam_row)(float *w, float *m, float *v, const float *g, float scale, uint64_t n, const ams_adam *adam);
    uint64_t (*scan)(const float *x, const float *bias, float limit, uint64_t n, uint32_t *hits);
    uint64_t (*scan_each)(const float *x, const float *bias, const float *limit, float slack, uint64_t n, uint32_t *hits);
    void (*philox_16)(const uint32_t counter[4], const uint32_t key[2], uint32_t out[64]);
    uint64_t (*below_tail_64)(const uint32_t *words, const float *g, const float *threshold, const float *per_own);
    void (*f16_to_f32)(float *out, const uint16_t *in, uint64_t n);
} ams_vec;

/* The levels this CPU can run, slowest first: 0 .. ams_vec_levels() - 1. */
unsigned ams_vec_levels(void);
const ams_vec *ams_vec_level(unsigned level);

#endif
