/* SPDX-License-Identifier: MIT
 *
 * Candidates for the k largest pre-activations, of a row or of the batch: entries with the value of a
 * product, which may be off by the row's slack, until they get their exact one.
 */
#ifndef AMS_CANDIDATES_H
#define AMS_CANDIDATES_H

#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>

/* What exact values are made of. */
typedef struct ams_scorer {
    const atmsae_model *m;
    const float *x;     /* [n, d] x~ */
    const float *slack; /* [n] */
    uint64_t k;
} ams_scorer;

static inline float ams_pre_activation(const ams_scorer *s, uint64_t row, uint64_t latent)
{
    const atmsae_model *m = s->m;
    return ams_dot(m->w_enc + latent * m->d_in, s->x + row * m->d_in, m->d_in) + m->b_enc[latent];
}

/* Of the latent that is scored next. */
static inline void ams_prefetch_latent(const ams_scorer *s, uint64_t latent)
{
    ams_prefetch(s->m->w_enc + latent * s->m->d_in, s->m->d_in);
}

typedef struct ams_candidates {
    ams_entry *entries; /* of a row: latents ascending */
    float *values;      /* [2, room] working memory */
    bool batch;         /* of all rows, in no order */
    uint64_t count, room;
    uint64_t exact;  /* the first so many have exact values, */
    uint64_t next;   /* and from here on they are to be made exact */
    bool crowded;    /* more near-ties than room: from then on every trim selects by exact values */
    float cut;       /* the k-th largest exact value is at least this; 0: it only has to be positive */
} ams_candidates;

/* A product's value above this may belong to the k largest. Ties come in: a lower row or latent may be
 * among them. */
static inline float ams_candidates_limit(float cut, float slack)
{
    return cut > 0 ? nextafterf(cut - slack, -INFINITY) : -slack;
}
static inline bool ams_candidates_may_take(float value, float cut, float slack)
{
    return cut > 0 ? value >= cut - slack : value > -slack;
}

/* Adds an entry that may be taken; trims a list that is full. */
void ams_candidates_push(const ams_scorer *scorer, ams_candidates *list, ams_entry entry);
/* Drops entries that cannot belong to the k largest. */
void ams_candidates_cut(const ams_scorer *scorer, ams_candidates *list);
/* Makes room in a list that has more than k entries. */
void ams_candidates_trim(const ams_scorer *scorer, ams_candidates *list);
/* Exact values for the entries before latent `end`, of which only positive ones stay. */
void ams_candidates_rescore(const ams_scorer *scorer, ams_candidates *list, uint64_t end);
/* The first k by exact values. */
void ams_candidates_select(const ams_scorer *scorer, ams_candidates *list);

#endif
