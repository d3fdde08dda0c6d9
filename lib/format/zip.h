/* SPDX-License-Identifier: MIT
 *
 * ZIP archives of stored (not compressed) entries: what numpy.savez and torch.save write.
 */
#ifndef AMS_ZIP_H
#define AMS_ZIP_H

#include "format/tensors.h"

typedef struct ams_zip_entry {
    const char *name; /* NUL behind name_length bytes; into the archive's directory */
    size_t name_length;
    uint64_t at, bytes; /* its data in the file */
    uint32_t crc;       /* CRC-32 of them */
} ams_zip_entry;

typedef struct ams_zip {
    char *directory; /* ams_free, as entries */
    ams_zip_entry *entries;
    uint64_t count;
} ams_zip;

/* Reads the directory of an open file; entries that are not stored are E_UNSUPPORTED, entries that
 * overlap E_FORMAT. On failure nothing is left to free. */
atmsae_status ams_zip_open(const atmsae_tensors *file, ams_zip *zip);
void ams_zip_close(atmsae_context *ctx, ams_zip *zip);
/* NULL if there is none. */
const ams_zip_entry *ams_zip_find(const ams_zip *zip, const char *name);

#endif
