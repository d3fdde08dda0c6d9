/* SPDX-License-Identifier: MIT
 *
 * See synth_codes.h.
 */
#include "eval/synth_codes.h"

atmsae_status ams_synth_check(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                              const char *what)
{
    const uint64_t d = synth->config.d;
    if (model->d_in != d || model->d_out != d)
        return ams_fail(synth->ctx, ATMSAE_E_ARG, "%s: the model has d_in = %llu, d_out = %llu, expected d = %llu", what,
                        (unsigned long long)model->d_in, (unsigned long long)model->d_out, (unsigned long long)d);
    if (n_rows == 0 || n_rows > UINT64_MAX - first_row)
        return ams_fail(synth->ctx, ATMSAE_E_ARG, "%s: n_rows = %llu, expected at least 1 and no overflow", what,
                        (unsigned long long)n_rows);
    return ATMSAE_OK;
}

atmsae_status ams_synth_encode(const atmsae_synth *synth, const atmsae_model *model, uint64_t first, uint64_t n, float *x,
                               uint8_t *truth, atmsae_codes *codes, atmsae_codes_view *view)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = x;
    *view = (atmsae_codes_view){.size = sizeof *view};
    AMS_TRY(atmsae_synth_rows(synth, first, n, x, truth));
    AMS_TRY(atmsae_encode(model, &batch, codes));
    return atmsae_codes_get(codes, view);
}
