/* SPDX-License-Identifier: MIT
 *
 * What checkpoints need of a source: its position and its shuffle buffer, as plain arrays.
 */
#ifndef AMS_DATA_H
#define AMS_DATA_H

#include "base/base.h"

/* A source with seekable inputs only (memory, files) stores the ids of the buffered rows and reads
 * them again; one with a callback stores the rows themselves too, because they cannot be had again. */
typedef struct ams_source_state {
    uint64_t *position; /* fingerprint of the inputs and place in the stream, see state.c */
    uint64_t n_position;
    const uint64_t *ids; /* [n_ids] or NULL: row number within a pass of each slot */
    uint64_t n_ids;
    const float *rows;   /* [n_rows, d] or NULL: content of each slot */
    uint64_t n_rows;
    const float *held;   /* [n_held, d] or NULL: rows a callback gave to a call that failed later */
    uint64_t n_held;
} ams_source_state;

/* For AMS_CALL, which claims the source. */
ams_use *ams_source_use(const atmsae_source *source);

/* Fills *state; `position` is to be freed by ams_source_state_free, the other arrays are lent until
 * the source is used again. */
atmsae_status ams_source_state_save(const atmsae_source *source, ams_source_state *state);
void ams_source_state_free(const atmsae_source *source, ams_source_state *state);

/* Continues where save was called: the same rows follow. The inputs, the seed and the buffer's size
 * must be those of then (E_STATE says what differs); `epochs` may differ. A callback must itself go
 * on where it was; E_UNSUPPORTED if there is one and the slots' content is missing. On failure the
 * source is as before. */
atmsae_status ams_source_state_restore(atmsae_source *source, const ams_source_state *state);

#endif
