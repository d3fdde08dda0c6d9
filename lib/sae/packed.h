/* SPDX-License-Identifier: MIT
 *
 * Rows and weights of a search, packed for products with 16-bit inputs (kernels/panels.h).
 */
#ifndef AMS_PACKED_H
#define AMS_PACKED_H

#include "kernels/panels.h"
#include "sae/sae.h"

typedef struct ams_packed {
    ams_panels x, w; /* rows, and some of the eligible latents */
    double w_error;  /* the largest of the latents packed since the rows */
    uint64_t x_values, x_scale, x_error, w_values, w_scale, w_error_room; /* capacities */
} ams_packed;

void ams_packed_free(atmsae_context *ctx, ams_packed *packed);
/* For so many rows and latents of d elements. */
atmsae_status ams_packed_reserve(atmsae_context *ctx, ams_packed *packed, uint64_t rows, uint64_t latents, uint64_t d);
/* On all threads: rows x [n, d]; then latents, those at positions first .. first + count - 1 of list
 * (NULL: of all). */
void ams_packed_rows(atmsae_context *ctx, ams_packed *packed, const ams_product *product, const float *x, uint64_t n,
                     uint64_t d);
void ams_packed_latents(atmsae_context *ctx, ams_packed *packed, const ams_product *product, const atmsae_model *model,
                        const uint32_t *list, uint64_t first, uint64_t count);

#endif
