/* SPDX-License-Identifier: MIT
 *
 * The inside of k-sparse probing: the handle, and the features that a probe reads.
 */
#ifndef AMS_EVAL_PROBING_H
#define AMS_EVAL_PROBING_H

#include "base/base.h"

#include <atmsae/eval.h>

enum { AMS_MAX_KS = 16, AMS_MAX_K = 1024 };

struct atmsae_probing {
    atmsae_context *ctx;
    atmsae_probing_config config; /* ks points to `ks`; texts is NULL */
    uint64_t ks[AMS_MAX_KS];
    uint64_t d, n_rows, n_texts;
    float *x;             /* [n_rows, d] */
    uint64_t *text_start; /* [n_texts + 1] its rows */
    int8_t *label;        /* [n_texts, n_tasks] 1, 0, -1: not part of the task */
    uint8_t *is_train;    /* [n_texts] */
    atmsae_probing_task *tasks; /* [n_tasks] */
};

/* One row of features a text: dense (column NULL, `width` values a row) or sparse. */
typedef struct ams_features {
    uint64_t width;
    const float *value;
    const uint64_t *row_start; /* [n_texts + 1] */
    const uint32_t *column;
} ams_features;

/* Fits and tests the probes of all tasks: entries [n_tasks, n_ks + 1]. */
atmsae_status ams_probe(const atmsae_probing *probing, const ams_features *features, atmsae_probing_entry *entries);

#endif
