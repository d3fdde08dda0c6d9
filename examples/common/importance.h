/* SPDX-License-Identifier: MIT
 *
 * The importance of every latent over a training run: some points in time, in a tensor file beside the SAE.
 */
#ifndef IMPORTANCE_H
#define IMPORTANCE_H

#include <atmsae/atmsae.h>
#include <stdbool.h>

#define IMPORTANCE_FILE "importance.safetensors"

typedef struct importance {
    uint64_t d_sae, stride; /* steps between two points */
    size_t n, capacity;     /* points; at most 64, fewer for more than 65536 latents */
    int64_t *step;          /* [n] */
    float *theta;           /* [n] the masker's threshold at that time */
    float *rate, *mean_p;   /* [n] of the masker: r, and the mean probability that a latent is masked */
    float *value;           /* [n, d_sae] */
} importance;

importance *importance_create(uint64_t d_sae);
void importance_destroy(importance *self);
/* After each step. Takes a point every `stride` steps; when the points are full, drops every other one and
 * doubles the stride. */
void importance_record(importance *self, atmsae_trainer *trainer, uint64_t step);
/* tensors `step` I64 [n], `theta`, `rate`, `mean_p` F32 [n], `importance` F32 [n, d_sae]: the points, and the trainer's
 * state as the last one. Replaces a file that is there. False after a message. */
bool importance_save(importance *self, atmsae_trainer *trainer, const char *path);
/* All points of a file. False if it cannot be read or is of another d_sae; *self is then as it was. */
bool importance_load(importance *self, atmsae_context *context, const char *path);
/* Likewise, for a run that goes on at step `end`: as if it had recorded them itself. */
bool importance_resume(importance *self, atmsae_context *context, const char *path, uint64_t end);

#endif
