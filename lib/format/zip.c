/* SPDX-License-Identifier: MIT
 *
 * Reads a ZIP's directory (APPNOTE 6.3, sections 4.3 and 4.5.3). The end record is found from the back,
 * it leads to the directory, and each entry of that to a local header, whose lengths say where the data
 * begin. Sizes come from the directory: the local header may leave them open. ZIP64 where a field is full.
 */
#include "format/zip.h"

#include <string.h>

enum {
    END_SIZE = 22, END64_SIZE = 56, LOCATOR_SIZE = 20, ENTRY_SIZE = 46, LOCAL_SIZE = 30, MAX_COMMENT = 65535,
    MAX_DIRECTORY = 1 << 24, MAX_ENTRIES = 1 << 12,
};

static uint64_t number(const char *bytes, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = n; i-- > 0;)
        value = value << 8 | (unsigned char)bytes[i];
    return value;
}

static bool is(const char *bytes, const char *signature) { return memcmp(bytes, signature, 4) == 0; }

/* Where the directory is and how many entries it has. */
typedef struct directory {
    uint64_t at, bytes, entries;
} directory;

static atmsae_status read_end64(const atmsae_tensors *f, uint64_t end_at, directory *d)
{
    char locator[LOCATOR_SIZE], end[END64_SIZE];
    if (end_at < LOCATOR_SIZE) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "a ZIP64 end record is missing");
    AMS_TRY(ams_pread(f->ctx, f->path, f->fd, locator, sizeof locator, end_at - LOCATOR_SIZE));
    uint64_t at = number(locator + 8, 8);
    if (!is(locator, "PK\6\7") || end_at < LOCATOR_SIZE + END64_SIZE || at > end_at - LOCATOR_SIZE - END64_SIZE)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "a ZIP64 end record is missing");
    AMS_TRY(ams_pread(f->ctx, f->path, f->fd, end, sizeof end, at));
    if (!is(end, "PK\6\6")) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "byte %llu: no ZIP64 end record", (unsigned long long)at);
    *d = (directory){number(end + 48, 8), number(end + 40, 8), number(end + 32, 8)};
    return ATMSAE_OK;
}

static atmsae_status find_directory(const atmsae_tensors *f, directory *d)
{
    uint64_t room = ams_min(f->size, END_SIZE + MAX_COMMENT), base = f->size - room, at = room;
    char *tail = ams_alloc(f->ctx, room, 1);
    if (!tail) return ams_nomem(f->ctx, f->path);
    atmsae_status status = ams_pread(f->ctx, f->path, f->fd, tail, room, base);
    bool found = false;
    if (status == ATMSAE_OK && room >= END_SIZE)
        for (at = room - END_SIZE + 1; !found && at-- > 0;)
            found = is(tail + at, "PK\5\6") && at + END_SIZE + number(tail + at + 20, 2) == room;
    if (status == ATMSAE_OK && !found)
        status = ams_fail(f->ctx, ATMSAE_E_TRUNCATED, "the end of the ZIP archive is missing: the file was cut or is none");
    if (status == ATMSAE_OK) {
        const char *end = tail + at;
        *d = (directory){number(end + 16, 4), number(end + 12, 4), number(end + 10, 2)};
        bool one_disk = number(end + 4, 4) == 0 && number(end + 8, 2) == d->entries;
        if (d->at == UINT32_MAX || d->bytes == UINT32_MAX || d->entries == UINT16_MAX)
            status = read_end64(f, base + at, d);
        else if (!one_disk)
            status = ams_fail(f->ctx, ATMSAE_E_UNSUPPORTED, "a ZIP archive of several parts");
    }
    ams_free(f->ctx, tail);
    AMS_TRY(status);
    if (d->bytes > MAX_DIRECTORY || d->entries > MAX_ENTRIES)
        return ams_fail(f->ctx, ATMSAE_E_LIMIT, "a ZIP directory of %llu entries and %llu bytes, at most %d and %d are read",
                        (unsigned long long)d->entries, (unsigned long long)d->bytes, MAX_ENTRIES, MAX_DIRECTORY);
    if (d->at > f->size || d->bytes > f->size - d->at || d->entries > d->bytes / ENTRY_SIZE)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "the ZIP directory does not fit: %llu entries, %llu bytes at %llu",
                        (unsigned long long)d->entries, (unsigned long long)d->bytes, (unsigned long long)d->at);
    return ATMSAE_OK;
}

/* The ZIP64 extra field holds those of the three that are full, in this order. */
static bool read_extra(const char *extra, uint64_t length, uint64_t *bytes, uint64_t *packed, uint64_t *at)
{
    uint64_t *const fields[] = {bytes, packed, at};
    while (length >= 4) {
        uint64_t id = number(extra, 2), size = number(extra + 2, 2);
        if (size > length - 4) return false;
        if (id == 1)
            for (uint64_t i = 0, used = 0; i < 3; i++)
                if (*fields[i] == UINT32_MAX) {
                    if (size - used < 8) return false;
                    *fields[i] = number(extra + 4 + used, 8);
                    used += 8;
                }
        extra += 4 + size;
        length -= 4 + size;
    }
    return true;
}

/* From the local header to the data. */
static atmsae_status locate(const atmsae_tensors *f, ams_zip_entry *entry)
{
    char local[LOCAL_SIZE];
    uint64_t after = f->size - entry->at; /* find_directory and the caller: at <= size */
    if (after < LOCAL_SIZE) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "entry \"%.200s\" begins at the end of the file", entry->name);
    AMS_TRY(ams_pread(f->ctx, f->path, f->fd, local, sizeof local, entry->at));
    uint64_t skip = LOCAL_SIZE + number(local + 26, 2) + number(local + 28, 2);
    if (!is(local, "PK\3\4") || number(local + 26, 2) != entry->name_length)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "entry \"%.200s\": no header of it at byte %llu", entry->name,
                        (unsigned long long)entry->at);
    if (skip > after || entry->bytes > after - skip)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "entry \"%.200s\": %llu bytes do not fit into the file", entry->name,
                        (unsigned long long)entry->bytes);
    entry->at += skip;
    return ATMSAE_OK;
}

/* Takes one entry off the directory; *p moves behind it. */
static atmsae_status read_entry(const atmsae_tensors *f, char **p, const char *end, ams_zip_entry *entry)
{
    char *e = *p;
    if (end - e < ENTRY_SIZE || !is(e, "PK\1\2")) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "the ZIP directory is malformed");
    uint64_t flags = number(e + 8, 2), method = number(e + 10, 2), packed = number(e + 20, 4);
    uint64_t name = number(e + 28, 2), extra = number(e + 30, 2), comment = number(e + 32, 2);
    *entry = (ams_zip_entry){.name_length = name, .crc = (uint32_t)number(e + 16, 4), .bytes = number(e + 24, 4), .at = number(e + 42, 4)};
    if (name + extra + comment > (uint64_t)(end - e) - ENTRY_SIZE)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "the ZIP directory is malformed");
    if (!read_extra(e + ENTRY_SIZE + name, extra, &entry->bytes, &packed, &entry->at))
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "the ZIP directory has a malformed extra field");
    memmove(e + ENTRY_SIZE - 1, e + ENTRY_SIZE, name); /* room for the NUL */
    e[ENTRY_SIZE - 1 + name] = '\0';
    entry->name = e + ENTRY_SIZE - 1;
    for (uint64_t i = 0; i < name; i++)
        if ((unsigned char)entry->name[i] < 0x20) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "a ZIP entry with a strange name");
    if (flags & 1) return ams_fail(f->ctx, ATMSAE_E_UNSUPPORTED, "entry \"%.200s\" is encrypted", entry->name);
    if (method != 0)
        return ams_fail(f->ctx, ATMSAE_E_UNSUPPORTED, "entry \"%.200s\" is compressed (method %llu); stored ones are read: write it with "
                        "numpy.savez in place of savez_compressed", entry->name, (unsigned long long)method);
    if (packed != entry->bytes || entry->at > f->size)
        return ams_fail(f->ctx, ATMSAE_E_FORMAT, "entry \"%.200s\": its sizes contradict each other", entry->name);
    *p = e + ENTRY_SIZE + name + extra + comment;
    return locate(f, entry);
}

static int by_place(const void *pa, const void *pb)
{
    const ams_span *a = pa, *b = pb;
    return (a->at > b->at) - (a->at < b->at);
}

/* Entries that share bytes would make a small file ask for much memory. */
static atmsae_status check_overlap(const atmsae_tensors *f, const ams_zip *zip)
{
    ams_span *spans = ams_alloc(f->ctx, zip->count, sizeof *spans);
    if (!spans) return ams_nomem(f->ctx, f->path);
    for (uint64_t i = 0; i < zip->count; i++)
        spans[i] = (ams_span){zip->entries[i].at, zip->entries[i].bytes, 0};
    ams_sort(spans, zip->count, sizeof *spans, by_place);
    bool apart = true;
    for (uint64_t i = 1; i < zip->count; i++)
        apart = apart && spans[i].at - spans[i - 1].at >= spans[i - 1].bytes;
    ams_free(f->ctx, spans);
    return apart ? ATMSAE_OK : ams_fail(f->ctx, ATMSAE_E_FORMAT, "entries of the ZIP archive overlap");
}

static atmsae_status read_directory(const atmsae_tensors *f, const directory *d, ams_zip *zip)
{
    zip->directory = ams_alloc(f->ctx, d->bytes, 1);
    zip->entries = ams_alloc(f->ctx, d->entries, sizeof *zip->entries);
    if (!zip->directory || !zip->entries) return ams_nomem(f->ctx, f->path);
    AMS_TRY(ams_pread(f->ctx, f->path, f->fd, zip->directory, d->bytes, d->at));
    char *p = zip->directory;
    for (; zip->count < d->entries; zip->count++) {
        ams_zip_entry *entry = &zip->entries[zip->count];
        AMS_TRY(read_entry(f, &p, zip->directory + d->bytes, entry));
        if (ams_zip_find(zip, entry->name)) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "two entries \"%.200s\"", entry->name);
    }
    if (p != zip->directory + d->bytes) return ams_fail(f->ctx, ATMSAE_E_FORMAT, "the ZIP directory has more than its entries");
    return check_overlap(f, zip);
}

atmsae_status ams_zip_open(const atmsae_tensors *f, ams_zip *zip)
{
    directory d = {0};
    *zip = (ams_zip){0};
    AMS_TRY(find_directory(f, &d));
    atmsae_status status = read_directory(f, &d, zip);
    if (status < 0) ams_zip_close(f->ctx, zip);
    return status;
}

void ams_zip_close(atmsae_context *ctx, ams_zip *zip)
{
    ams_free(ctx, zip->directory);
    ams_free(ctx, zip->entries);
    *zip = (ams_zip){0};
}

const ams_zip_entry *ams_zip_find(const ams_zip *zip, const char *name)
{
    for (uint64_t i = 0; i < zip->count; i++)
        if (strcmp(zip->entries[i].name, name) == 0) return &zip->entries[i];
    return NULL;
}
