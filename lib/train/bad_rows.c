/* SPDX-License-Identifier: MIT
 *
 * Rows with a NaN or infinite value, of which a run may meet some (skip_bad_rows). Whether a batch has any shows
 * when it is used, so it is used as it is first, and a clean one costs nothing.
 */
#include "kernels/kernels.h"
#include "train/train.h"

typedef struct bad_rows {
    uint64_t n, left; /* bad ones, and good ones of non-zero weight */
    uint64_t first;   /* bad one */
    char side;        /* where it is bad: 'x' or 'y' */
} bad_rows;

static bool is_finite(const void *rows, uint64_t ld, int32_t type, uint64_t r, uint64_t d, float *one)
{
    ams_to_f32(one, (const char *)rows + r * ld * ams_type_size(type), type, d);
    return ams_all_finite(one, d);
}

/* weights [n_rows]: the batch's, and 0 for bad rows. one: room for a row. */
static bad_rows find(const atmsae_model *m, const atmsae_batch *b, float *weights, float *one)
{
    bad_rows found = {0};
    for (uint64_t r = 0; r < b->n_rows; r++) {
        weights[r] = b->row_weights ? b->row_weights[r] : 1;
        if (weights[r] == 0) continue;
        const bool x = is_finite(b->x, b->ld_x, b->x_type, r, m->d_in, one);
        const bool y = !x || !b->y || is_finite(b->y, b->ld_y, b->y_type, r, m->d_out, one);
        found.left += x && y;
        if (x && y) continue;
        weights[r] = 0;
        if (found.n++ > 0) continue;
        found.first = r;
        found.side = x ? 'y' : 'x';
    }
    return found;
}

static atmsae_status check_allowed(const atmsae_trainer *t, const bad_rows *found, uint64_t allowed)
{
    if (found->n > allowed)
        return ams_fail(t->ctx, ATMSAE_E_NONFINITE, "batch: row %llu of %c has a NaN or infinite value; with %llu such rows "
                        "here and %llu before, there are more than skip_bad_rows = %llu", (unsigned long long)found->first,
                        found->side, (unsigned long long)found->n, (unsigned long long)t->bad_rows,
                        (unsigned long long)t->skip_bad_rows);
    if (found->left == 0)
        return ams_fail(t->ctx, ATMSAE_E_NONFINITE, "batch: all of its %llu rows have a NaN or infinite value; row %llu of %c "
                        "is the first", (unsigned long long)found->n, (unsigned long long)found->first, found->side);
    return ATMSAE_OK;
}

atmsae_status ams_use_batch(atmsae_trainer *t, const atmsae_batch *batch, bool targets, uint64_t allowed,
                            ams_batch_use *use, void *arg, uint64_t *skipped)
{
    *skipped = 0;
    atmsae_status status = use(t, batch, arg);
    if (status != ATMSAE_E_NONFINITE || t->skip_bad_rows == 0) return status;
    atmsae_batch b;
    AMS_TRY((targets ? ams_batch_check : ams_batch_check_inputs)(t->ctx, t->model, batch, &b));
    float *weights = ams_alloc(t->ctx, b.n_rows + ams_max(t->model->d_in, t->model->d_out), sizeof *weights);
    if (!weights) return ams_nomem(t->ctx, "row weights");
    const bad_rows found = find(t->model, &b, weights, weights + b.n_rows);
    if (found.n > 0) { /* else something else is not finite, and the text says what */
        status = check_allowed(t, &found, allowed);
        b.row_weights = weights;
        if (status == ATMSAE_OK) status = use(t, &b, arg);
        if (status == ATMSAE_OK) *skipped = found.n;
    }
    ams_free(t->ctx, weights);
    return status;
}
