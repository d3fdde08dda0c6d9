/* SPDX-License-Identifier: MIT
 *
 * Rows and weights of a search in bf16, where the context's products are of that precision.
 */
#ifndef AMS_PACKED_H
#define AMS_PACKED_H

#include "kernels/bf16.h"
#include "sae/sae.h"

typedef struct ams_packed {
    uint16_t *x, *w;  /* [n, d], [eligible latents, d], in panels */
    float *x_error;   /* [n] what rounding took from each row, as a norm */
    float *w_errors;  /* the same of the latents */
    double w_error;   /* the largest of them */
    uint64_t x_capacity, w_capacity, x_error_capacity, w_errors_capacity;
} ams_packed;

void ams_packed_free(atmsae_context *ctx, ams_packed *packed);
atmsae_status ams_packed_reserve(atmsae_context *ctx, ams_packed *packed, const atmsae_model *model, uint64_t n);
/* Packs a query's rows and eligible latents, on all threads. */
void ams_packed_fill(atmsae_context *ctx, ams_packed *packed, const atmsae_model *model, const ams_query *query,
                     uint64_t latents);

#endif
