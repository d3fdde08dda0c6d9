/* SPDX-License-Identifier: MIT
 *
 * Is an input still what it was? A run that goes on with other data should stop with a reason. Reading all of
 * them again would cost as much as a pass, so the checksum is of a few rows: the first, the last, and one of
 * each of AMONG equal parts of those between, at a place that only the number of rows decides. If a share s of
 * the rows has changed, all of the sampled ones are as they were with probability (1 - s)^AMONG.
 */
#include "data/source.h"

#include "format/tensors.h"
#include "kernels/kernels.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { AMONG = 32 };

atmsae_status ams_identify(atmsae_context *ctx, const char *path, int fd, ams_identity *out)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return ams_fail_errno(ctx, path, "cannot read", errno);
    *out = (ams_identity){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
                          (uint64_t)st.st_mtim.tv_nsec};
    return ATMSAE_OK;
}

bool ams_is_same_file(const ams_identity *a, const ams_identity *b) { return memcmp(a, b, sizeof *a) == 0; }

/* The i-th of ams_min(n, AMONG + 2) sampled rows, ascending. */
static uint64_t sampled_row(uint64_t n, uint64_t i)
{
    if (n <= AMONG + 2 || i == 0) return i;
    if (i == AMONG + 1) return n - 1;
    const uint64_t part = (n - 2) / AMONG, first = 1 + (i - 1) * part, end = i == AMONG ? n - 1 : first + part;
    uint32_t words[4];
    ams_philox(n, AMS_DRAW_SAMPLE, 0, i, words);
    return first + ((uint64_t)words[0] << 32 | words[1]) % (end - first);
}

static atmsae_status read_rows(const ams_side *side, uint64_t n, const atmsae_tensors *tensors, uint64_t d, char *buffer,
                               ams_sample *out)
{
    const size_t size = ams_type_size(side->type), bytes = (size_t)d * size;
    const uint64_t count = ams_min(n, AMONG + 2);
    for (uint64_t i = 0; tensors && !side->by_columns && i < count; i++) /* all are on their way while the first is waited for */
        posix_fadvise(tensors->fd, (off_t)(side->at + sampled_row(n, i) * side->row_bytes), (off_t)side->row_bytes, POSIX_FADV_WILLNEED);
    *out = (ams_sample){0};
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t r = sampled_row(n, i);
        const char *row = buffer;
        if (tensors) AMS_TRY(ams_tensors_read_rows(tensors, side->tensor, r, 1, buffer));
        else row = side->memory + r * side->ld * size;
        out->rows = ams_crc64(out->rows, row, bytes);
        if (r == 0) out->ends = ams_crc64(out->ends, row, bytes);
        if (r == n - 1) out->ends = ams_crc64(out->ends, row, bytes);
    }
    return ATMSAE_OK;
}

atmsae_status ams_sample_rows(atmsae_context *ctx, const ams_side *side, uint64_t n_rows, const atmsae_tensors *tensors,
                              uint64_t d, ams_sample *out)
{
    char *buffer = ams_alloc(ctx, tensors ? d : 0, ams_type_size(side->type));
    if (!buffer) return ams_nomem(ctx, "a row");
    atmsae_status status = read_rows(side, n_rows, tensors, d, buffer, out);
    ams_free(ctx, buffer);
    return status;
}
