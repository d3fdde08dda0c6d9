/* SPDX-License-Identifier: MIT
 *
 * SAEs in the archives of others: the input is a .npz or, if its first byte is even, what follows is the
 * pickle of a .pt whose storages are fixed, so that the pickle machine sees more than broken archives.
 * Whole archives are read as tensor files; all that opens is read, and a Gemma Scope that loads encodes.
 */
#include "tensors.h"

enum { ROOM = 1 << 16 };

static void le(uint8_t *p, unsigned n, uint64_t v)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

typedef struct archive {
    uint8_t bytes[ROOM], directory[1024];
    size_t n, d, count;
} archive;

static void add_entry(archive *a, const char *name, const void *data, size_t size)
{
    size_t length = strlen(name);
    uint8_t *local = a->bytes + a->n, *entry = a->directory + a->d;
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

static size_t end_archive(archive *a)
{
    memcpy(a->bytes + a->n, a->directory, a->d);
    uint8_t *end = a->bytes + a->n + a->d;
    memset(end, 0, 22);
    memcpy(end, "PK\5\6", 4);
    le(end + 8, 2, a->count);
    le(end + 10, 2, a->count);
    le(end + 12, 4, a->d);
    le(end + 16, 4, a->n);
    return a->n + a->d + 22;
}

static atmsae_status read_pickle(const uint8_t *pickle, size_t size)
{
    static const float values[24] = {1, 2, -3};
    static archive a;
    a.n = a.d = a.count = 0;
    add_entry(&a, "r/data.pkl", pickle, size);
    add_entry(&a, "r/data/0", values, 96);
    add_entry(&a, "r/data/1", values, 24);
    size_t n = end_archive(&a);
    return fz_read_tensors(a.bytes, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > ROOM - 4096) return 0;
    if (data[0] % 2 == 0) {
        fz_done(read_pickle(data + 1, size - 1));
        return 0;
    }
    static uint8_t copy[ROOM];
    memcpy(copy, data, size);
    if (size >= 4) memcpy(copy, "PK\3\4", 4); /* chooses the reader; the first entry begins so anyway */
    fz_done(fz_read_tensors(copy, size));
    return 0;
}
