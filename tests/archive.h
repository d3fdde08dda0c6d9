/* SPDX-License-Identifier: MIT
 *
 * A ZIP of stored entries, made by hand: for tests and fuzz targets of the readers of .npz and .pt.
 */
#ifndef ARCHIVE_H
#define ARCHIVE_H

#include "base/base.h"

#include <string.h>

typedef struct archive {
    unsigned char bytes[1 << 16], directory[1 << 14];
    size_t n, d;
    unsigned count;
} archive;

static inline void le(unsigned char *p, unsigned n, uint64_t v)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

static inline void add_entry(archive *a, const char *name, const void *data, size_t size)
{
    size_t length = strlen(name);
    unsigned char *local = a->bytes + a->n, *entry = a->directory + a->d;
    memset(local, 0, 30);
    memset(entry, 0, 46);
    memcpy(local, "PK\3\4", 4);
    memcpy(entry, "PK\1\2", 4);
    le(entry + 16, 4, ams_crc32(0, data, size));
    le(entry + 20, 4, size);
    le(entry + 24, 4, size);
    le(entry + 28, 2, length);
    le(local + 26, 2, length);
    le(entry + 42, 4, a->n);
    memcpy(local + 30, name, length);
    memcpy(entry + 46, name, length);
    if (size) memcpy(local + 30 + length, data, size);
    a->n += 30 + length + size;
    a->d += 46 + length;
    a->count++;
}

static inline void end_archive(archive *a)
{
    memcpy(a->bytes + a->n, a->directory, a->d);
    unsigned char *end = a->bytes + a->n + a->d;
    memset(end, 0, 22);
    memcpy(end, "PK\5\6", 4);
    le(end + 8, 2, a->count);
    le(end + 10, 2, a->count);
    le(end + 12, 4, a->d);
    le(end + 16, 4, a->n);
    a->n += a->d + 22;
}

#endif
