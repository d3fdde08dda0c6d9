/* SPDX-License-Identifier: MIT
 *
 * Rows that take no part: those above the norm limit (max_norm), and those with a NaN or infinite value, of which a run
 * may meet some (skip_bad_rows). Whether a batch has any of the latter shows when it is used, so it is used as it is
 * first, and a clean one costs nothing.
 */
#include "kernels/rows.h"
#include "kernels/kernels.h"
#include "train/train.h"

#include <math.h>

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

/* Again, on a batch on which `use` has failed, perhaps for bad rows. */
static atmsae_status use_without_bad_rows(atmsae_trainer *t, const atmsae_batch *batch, bool targets, uint64_t allowed,
                                          ams_batch_use *use, void *arg, uint64_t *skipped)
{
    atmsae_batch b;
    AMS_TRY(ams_batch_check(t->ctx, t->model, batch, targets, &b));
    float *weights = ams_alloc(t->ctx, b.n_rows + ams_max(t->model->d_in, t->model->d_out), sizeof *weights);
    if (!weights) return ams_nomem(t->ctx, "row weights");
    atmsae_status status = ATMSAE_E_NONFINITE;
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

/* ---- the norm limit ---------------------------------------------------------------------------------------------- */

static ams_rows inputs(const atmsae_model *m, const atmsae_batch *b)
{
    return (ams_rows){"batch: x", b->x, b->n_rows, m->d_in, b->ld_x, b->x_type};
}

static ams_rows targets_of(const atmsae_model *m, const atmsae_batch *b)
{
    return (ams_rows){"batch: y", b->y, b->n_rows, m->d_out, b->ld_y, b->y_type};
}

static atmsae_status find_limit(const atmsae_trainer *t, const ams_rows *rows, const float *weights, double *limit)
{
    atmsae_row_norms norms;
    if (!ams_row_norms(t->ctx, rows, weights, false, &norms)) return ams_nomem(t->ctx, "norms of rows");
    *limit = norms.rows ? t->max_norm * norms.median : INFINITY; /* without rows, prepare fails and says why */
    if (*limit > 0) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_ARG, "%s: the median norm is 0, of which max_norm = %g can be no multiple: leave out rows "
                    "of zeros, of which there are more than half, or max_norm", rows->name, t->max_norm);
}

atmsae_status ams_find_norm_limits(const atmsae_trainer *t, const atmsae_batch *caller, double limits[2])
{
    limits[0] = limits[1] = 0;
    if (t->max_norm == 0) return ATMSAE_OK;
    atmsae_batch b;
    AMS_TRY(ams_batch_check(t->ctx, t->model, caller, true, &b));
    const ams_rows x = inputs(t->model, &b), y = targets_of(t->model, &b);
    AMS_TRY(find_limit(t, &x, b.row_weights, &limits[0]));
    return b.y ? find_limit(t, &y, b.row_weights, &limits[1]) : ATMSAE_OK;
}

/* The batch with weight 0 for its outliers, whose number is *n. Without any its weights stay those of the caller. */
static atmsae_status limit(atmsae_trainer *t, const atmsae_batch *caller, bool targets, atmsae_batch *b, uint64_t *n)
{
    if (t->norm_limit[0] == 0)
        return ams_fail(t->ctx, ATMSAE_E_STATE, "trainer: max_norm = %g is a multiple of the median norm of rows, which "
                        "atmsae_trainer_prepare finds: call it first", t->max_norm);
    AMS_TRY(ams_batch_check(t->ctx, t->model, caller, targets, b));
    const uint64_t widest = ams_max(t->model->d_in, t->model->d_out), room = ams_workers(t->ctx) * widest;
    const ams_rows x = inputs(t->model, b), y = targets_of(t->model, b);
    AMS_TRY(ams_grow(t->ctx, &t->weights, &t->weights_capacity, b->n_rows + room, 0, sizeof *t->weights));
    uint64_t left = 0;
    for (uint64_t r = 0; r < b->n_rows; r++)
        t->weights[r] = b->row_weights ? b->row_weights[r] : 1;
    *n = ams_limit_rows(t->ctx, &x, t->norm_limit[0], t->weights, t->weights + b->n_rows);
    if (b->y && t->norm_limit[1] > 0)
        *n += ams_limit_rows(t->ctx, &y, t->norm_limit[1], t->weights, t->weights + b->n_rows);
    if (*n == 0) return ATMSAE_OK;
    for (uint64_t r = 0; r < b->n_rows; r++)
        left += t->weights[r] > 0;
    b->row_weights = t->weights;
    if (left > 0) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_ARG, "batch: all of its rows, %llu of non-zero weight, are above the norm limit %g, which is max_norm "
                    "= %g times the median norm of the rows given to prepare: rows of another kind, or too few of them a batch",
                    (unsigned long long)*n, t->norm_limit[0], t->max_norm);
}

void ams_advise_batch(atmsae_trainer *t, const atmsae_batch *caller, bool limited)
{
    atmsae_batch b;
    if (ams_batch_check(t->ctx, t->model, caller, true, &b) < 0) return;
    const ams_rows x = inputs(t->model, &b), y = targets_of(t->model, &b);
    ams_advise_norms(t->model, &x, b.y ? &y : NULL, limited ? t->weights : b.row_weights);
}

atmsae_status ams_use_batch(atmsae_trainer *t, const atmsae_batch *batch, bool targets, uint64_t allowed,
                            ams_batch_use *use, void *arg, ams_left_out *out)
{
    *out = (ams_left_out){0};
    atmsae_batch limited;
    if (t->max_norm > 0) {
        AMS_TRY(limit(t, batch, targets, &limited, &out->outliers));
        batch = &limited;
    }
    const atmsae_status status = use(t, batch, arg);
    if (status != ATMSAE_E_NONFINITE || t->skip_bad_rows == 0) return status;
    return use_without_bad_rows(t, batch, targets, allowed, use, arg, &out->bad);
}
