/* SPDX-License-Identifier: MIT
 *
 * Inside of the generators of rows with known features, which lib/eval scores models against.
 */
#ifndef AMS_SYNTH_H
#define AMS_SYNTH_H

#include "base/base.h"

#include <atmsae/eval.h>

#define AMS_NO_PARENT UINT32_MAX

/* What a generator of atmsae_synth_create_tree adds; see synth_tree.c. */
typedef struct ams_tree {
    uint32_t *child;     /* features that have a parent, by parent, then index */
    uint32_t *child_end; /* [n] where i's end in it; they begin where those of i - 1 end */
    uint8_t *exclusive;  /* [n] ATMSAE_CHILDREN_.. of each feature's children */
    double *p;           /* [n] probability of the draw */
    double *threshold;   /* [n] Q^-1(p) */
    float *factor;       /* [n / 4, rank, 4]: of features 4 q .. 4 q + 3 side by side */
    double *own;         /* [n] sqrt(1 - |factor of i|^2) */
    uint32_t *block;     /* [n_blocks] numbers, of blocks of 64 features with one that has no parent */
    float *block_limits; /* [n_blocks, rank + 2, 64] for those: factors, thresholds, 1 / own; see ams_tree_place */
    uint32_t *numbers;   /* [rank] 0, 1, .. */
    uint64_t n_blocks;
    double *tail;        /* Q on a grid, see synth_tree.c */
    float *mean, *sd;    /* [n] */
    float *bias;         /* [d] */
    uint64_t rank;
    bool scale_children;
} ams_tree;

struct atmsae_synth {
    atmsae_context *ctx;
    atmsae_synth_config config; /* a tree: d and seed only */
    uint64_t features;
    float *directions;     /* [features, d], unit; parents, children (parent-major), independents */
    double *p_independent; /* [n_independent] */
    double *child_sums;    /* [n_children]: sum of the probabilities of children 0 .. j, of a parent
                              that is on; the last is p_child */
    uint32_t *parent_of;   /* [features] or AMS_NO_PARENT */
    uint32_t *parents;     /* [n_parents] ascending */
    uint64_t n_parents;
    ams_tree *tree;        /* NULL: atmsae_synth_create's */
};

/* Draws: the counter's first word is use << 48 | index, the second the row. */
enum {
    AMS_SYNTH_DIRECTION, AMS_SYNTH_PROBABILITY, AMS_SYNTH_PARENT, AMS_SYNTH_PARENT_SIZE, AMS_SYNTH_INDEPENDENT,
    AMS_SYNTH_INDEPENDENT_SIZE, AMS_SYNTH_FACTOR, AMS_SYNTH_SPREAD, AMS_SYNTH_BIAS, AMS_SYNTH_FIRE, AMS_SYNTH_COMMON,
    AMS_SYNTH_SIZE, AMS_SYNTH_CHOICE
};
void ams_synth_words(const atmsae_synth *synth, unsigned use, uint64_t index, uint64_t row, uint32_t words[4]);
/* Random unit directions of all features. */
void ams_synth_draw_directions(atmsae_synth *synth);

/* At most AMS_TREE_ROWS rows of a tree. scratch: ams_tree_scratch bytes for each worker, enough for fewer rows too;
 * active: NULL or as in atmsae_synth_rows. */
enum { AMS_TREE_ROWS = 1024 };
uint64_t ams_tree_scratch(const atmsae_synth *synth, uint64_t rows);
void ams_tree_rows(const atmsae_synth *synth, uint64_t first, uint64_t rows, void *scratch, float *x, uint8_t *active);
/* Which of a block's 64 features has place j in its limits: feature i is drawn by word i % 4 of draw i / 4, and
 * ams_philox_16 gives first words first. */
static inline uint64_t ams_tree_place(unsigned j) { return j % 16 * 4 + j / 16; }
/* Limits and correlations of a tree whose p and parents are set. */
atmsae_status ams_tree_set_limits(atmsae_synth *synth, uint64_t rank, double scale);
/* Moves the directions apart: `steps` of Adam on sum over pairs of cos^2, norms held near 1. */
atmsae_status ams_synth_orthogonalise(atmsae_synth *synth, uint64_t steps, double lr);
/* The body of atmsae_synth_create_tree. */
atmsae_status ams_synth_create_tree(atmsae_context *ctx, const atmsae_tree_config *config, atmsae_synth **out);
void ams_tree_free(atmsae_context *ctx, ams_tree *tree);

#endif
