/* SPDX-License-Identifier: MIT
 *
 * What the fuzz targets share: an allocator that counts, files in memory, values from bytes.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) /* gcc */
#define ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) /* clang */
#define ADDRESS_SANITIZER
#endif
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#define POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define POISON(at, bytes) (void)0
#define UNPOISON(at, bytes) (void)0
#endif

/* ---- memory ------------------------------------------------------------------------------------- */

/* Small blocks come one after the other from an arena that starts anew with each input: much faster
 * than malloc under AddressSanitizer, which still sees what is outside a block or in a freed one. */
enum { HEADER = 64, ARENA = 1 << 20 }; /* 64: the largest alignment that the library asks for */
static _Alignas(HEADER) char arena[ARENA];
static size_t arena_used = ARENA; /* closed until the context, which stays, is made */
static size_t live, baseline, limit;
static bool refused;

static void *count_alloc(void *opaque, size_t align, size_t bytes)
{
    (void)opaque;
    char *memory;
    FZ_CHECK(align <= HEADER);
    if (bytes > limit || live - baseline > limit - bytes) {
        refused = true;
        return NULL;
    }
    size_t room = (bytes + HEADER - 1) / HEADER * HEADER + 2 * HEADER; /* header before, gap behind */
    if (bytes < ARENA / 4 && room <= ARENA - arena_used) {
        memory = arena + arena_used;
        arena_used += room;
        UNPOISON(memory, HEADER + bytes);
    } else if (posix_memalign((void **)&memory, HEADER, bytes + HEADER) != 0) {
        return NULL;
    }
    memcpy(memory, &bytes, sizeof bytes);
    POISON(memory, HEADER);
    live += bytes;
    return memory + HEADER;
}

static void count_free(void *opaque, void *memory)
{
    (void)opaque;
    size_t bytes;
    char *block = (char *)memory - HEADER;
    UNPOISON(block, HEADER);
    memcpy(&bytes, block, sizeof bytes);
    live -= bytes;
    if (block >= arena && block < arena + ARENA) POISON(block, HEADER + bytes);
    else free(block);
}

atmsae_context *fz_context(void)
{
    static atmsae_context *ctx;
    if (ctx) return ctx;
    fz_limit(0);
    const atmsae_allocator allocator = {NULL, count_alloc, count_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &allocator;
    FZ_CHECK(atmsae_context_create(&config, &ctx) == ATMSAE_OK);
    baseline = live;
    arena_used = 0;
    POISON(arena, ARENA);
    return ctx;
}

void fz_limit(size_t bytes) { limit = bytes ? bytes : 64u << 20; }

void fz_done(atmsae_status status)
{
    FZ_CHECK(strcmp(atmsae_status_name(status), "unknown status") != 0);
    FZ_CHECK(status >= 0 || atmsae_last_error(fz_context())[0] != '\0');
    FZ_CHECK(live == baseline);
    FZ_CHECK(!refused);
    fz_limit(0);
    arena_used = 0;
}

/* ---- files -------------------------------------------------------------------------------------- */

const char *fz_file(const void *data, size_t size)
{
    static char path[32];
    static int fd = -1;
    static size_t length;
    if (fd < 0) {
        FZ_CHECK((fd = memfd_create("input", 0)) >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fz_serve) {
        fz_serve(path, data, size);
        return path;
    }
    FZ_CHECK(size >= length || ftruncate(fd, (off_t)size) == 0);
    FZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
    length = size;
    return path;
}

void fz_serve_file(const char *path)
{
    enum { ROOM = 1 << 16 };
    char *bytes = malloc(ROOM);
    FZ_CHECK(bytes);
    size_t size = fz_read(path, bytes, ROOM);
    if (fz_serve) fz_serve(path, bytes, size);
    else free(bytes);
}

static char folder[64];

static void remove_folder(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s is left\n", folder);
}

const char *fz_folder(void)
{
    if (folder[0]) return folder;
    snprintf(folder, sizeof folder, "%s/atmsae_fuzz_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FZ_CHECK(mkdtemp(folder));
    FZ_CHECK(atexit(remove_folder) == 0);
    return folder;
}

const char *fz_path(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fz_folder(), name);
    return path;
}

size_t fz_read(const char *path, void *out, size_t room)
{
    int fd = open(path, O_RDONLY);
    FZ_CHECK(fd >= 0);
    size_t size = 0;
    for (ssize_t n; (n = read(fd, (char *)out + size, room - size)) > 0;)
        size += (size_t)n;
    close(fd);
    FZ_CHECK(size < room);
    return size;
}

/* ---- values ------------------------------------------------------------------------------------- */

void fz_take(fz_bytes *in, void *out, size_t n)
{
    size_t have = n < in->left ? n : in->left;
    memset(out, 0, n);
    if (have) memcpy(out, in->at, have);
    in->at += have;
    in->left -= have;
}

uint8_t fz_u8(fz_bytes *in)
{
    uint8_t v;
    fz_take(in, &v, 1);
    return v;
}

uint64_t fz_range(fz_bytes *in, uint64_t low, uint64_t high)
{
    uint64_t span = high - low + 1, v = fz_u8(in);
    if (span > 256) v |= (uint64_t)fz_u8(in) << 8;
    return low + v % span;
}

double fz_double(fz_bytes *in)
{
    static const double extreme[] = {0, -0.0, 1, -1, 0.5, NAN, INFINITY, -INFINITY, 1e-45, 1e-38, 1e-30, 1e-6,
                                     1e6, 1e9, 1e18, 1e30, 3.4e38, -3.4e38, 1e-310, 1e300, 1.7e308, -1e300};
    uint8_t kind = fz_u8(in);
    double v;
    if (kind < 192) return (kind - 96) / 16.0;
    if (kind < 240) return extreme[(kind - 192) % (sizeof extreme / sizeof *extreme)];
    fz_take(in, &v, sizeof v);
    return v;
}

float fz_float(fz_bytes *in)
{
    double v = fz_double(in);
    return fabs(v) <= 3.4028234e38 || !isfinite(v) ? (float)v : 0; /* out of range is undefined in C */
}

uint64_t fz_u64(fz_bytes *in)
{
    static const uint64_t extreme[] = {0, 1, 2, 63, 64, 1u << 16, 1u << 24, INT32_MAX, UINT32_MAX, 1ull << 32, 1ull << 56,
                                       INT64_MAX, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
    uint8_t kind = fz_u8(in);
    uint64_t v;
    if (kind < 192) return kind % 24;
    if (kind < 240) return extreme[(kind - 192) % (sizeof extreme / sizeof *extreme)];
    fz_take(in, &v, sizeof v);
    return v;
}
