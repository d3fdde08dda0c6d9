/* SPDX-License-Identifier: MIT
 *
 * A model's latents on a set of rows, by row and by latent, in the units of the data.
 */
#ifndef AMS_EVAL_LATENTS_H
#define AMS_EVAL_LATENTS_H

#include "eval/lasso.h"

typedef struct ams_latents {
    uint64_t n_rows, d_sae;
    double *norm;         /* [F] of the decoder rows, in the model's scaled units */
    uint64_t *row_start;  /* [n_rows + 1] by row: latents ascending */
    uint32_t *latent;
    float *value;         /* f |d| / output_scale: as if decoder rows were unit vectors in units of x */
    uint64_t capacity, value_capacity;
    uint64_t *column_start, *first_count; /* [F] by latent, after transpose: rows ascending; entries in the first rows */
    uint64_t *column_count;               /* [F] */
    uint32_t *row;
    float *column_value;
} ams_latents;

/* Encodes n rows of x [n, d_in], by row. On failure nothing is kept. */
atmsae_status ams_latents_encode(atmsae_context *ctx, const atmsae_model *model, const float *x, uint64_t n,
                                 ams_latents *out);
/* Adds what is by latent. first: entries in rows 0 .. first-1 are counted in first_count. On failure
 * what is there is still to be freed. */
atmsae_status ams_latents_transpose(atmsae_context *ctx, uint64_t first, ams_latents *latents);
void ams_latents_free(atmsae_context *ctx, ams_latents *latents);

#endif
