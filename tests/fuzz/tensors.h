/* SPDX-License-Identifier: MIT
 *
 * Opens the input as a tensor file and reads all of it; for the two formats' targets.
 */
#ifndef AMS_FUZZ_TENSORS_H
#define AMS_FUZZ_TENSORS_H

#include "fuzz.h"
#include "format/format.h"

#include <string.h>

static void fz_read_tensor(const atmsae_tensors *file, uint64_t i, size_t size)
{
    atmsae_tensor_info info = {.size = sizeof info};
    FZ_CHECK(atmsae_tensors_info(file, i, &info) == ATMSAE_OK);
    uint64_t count = 1, found;
    FZ_CHECK(info.rank <= 8 && strlen(info.dtype) > 0);
    for (uint64_t r = 0; r < info.rank; r++)
        count *= info.shape[r];
    FZ_CHECK(count <= 2 * size); /* F4 takes half a byte */
    if (atmsae_tensors_find(file, info.name, &found) == ATMSAE_OK) { /* not where a name holds a NUL */
        atmsae_tensor_info same = {.size = sizeof same};
        FZ_CHECK(atmsae_tensors_info(file, found, &same) == ATMSAE_OK && strcmp(same.name, info.name) == 0);
    }
    char *out = malloc(count ? count * 8 : 1);
    FZ_CHECK(out);
    atmsae_status f32 = atmsae_tensors_read_f32(file, i, (float *)out, count);
    atmsae_status i64 = atmsae_tensors_read_i64(file, i, (int64_t *)out, count);
    FZ_CHECK(f32 == ATMSAE_OK || f32 == ATMSAE_E_UNSUPPORTED);
    FZ_CHECK(i64 == ATMSAE_OK || i64 == ATMSAE_E_UNSUPPORTED || i64 == ATMSAE_E_LIMIT); /* U64 above 2^63 */
    FZ_CHECK(f32 < 0 || i64 < 0);
    FZ_CHECK(atmsae_tensors_read_f32(file, i, (float *)out, count + 1) == ATMSAE_E_ARG);
    free(out);
}

static atmsae_status fz_read_tensors(const uint8_t *data, size_t size)
{
    atmsae_context *ctx = fz_context();
    atmsae_tensors *file;
    fz_limit((1 << 17) + 64 * size); /* memory follows the file's size, whatever it claims */
    atmsae_status status = atmsae_tensors_open(ctx, fz_file(data, size), &file);
    FZ_CHECK((status == ATMSAE_OK) == (file != NULL));
    FZ_CHECK(status != ATMSAE_E_IO && status != ATMSAE_E_ARG);
    if (status < 0) return status;
    for (uint64_t i = 0; i < atmsae_tensors_count(file); i++)
        fz_read_tensor(file, i, size);
    ams_tensors_metadata(file, "format");
    atmsae_status verified = ams_tensors_verify(file);
    FZ_CHECK(verified == ATMSAE_OK || verified == ATMSAE_E_FORMAT);
    atmsae_tensors_close(file);
    return status;
}

#endif
