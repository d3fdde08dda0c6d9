/* SPDX-License-Identifier: MIT
 *
 * lib/base: contexts, error texts, memory, structs of the ABI, worker threads, Philox, CRC-64.
 */
#include "base/context.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atmsae_context *new_context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

/* ---- context ------------------------------------------------------------------------------- */

START_TEST(context_life)
{
    atmsae_context *ctx = NULL;
    ck_assert_int_eq(atmsae_context_create(NULL, &ctx), ATMSAE_OK);
    ck_assert_ptr_nonnull(ctx);
    ck_assert_str_eq(atmsae_last_error(ctx), "");
    ck_assert_uint_ge(atmsae_context_threads(ctx), 1);
    ck_assert_uint_eq(atmsae_context_threads(ctx), ams_workers(ctx));
    ck_assert_ptr_nonnull(strstr(atmsae_context_cpu(ctx), "BLIS"));

    /* A handle's reference keeps the context alive after its owner let go. */
    atmsae_context *held = ams_context_ref(ctx);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(ams_fail(held, ATMSAE_E_STATE, "still here"), ATMSAE_E_STATE);
    ck_assert_str_eq(atmsae_last_error(held), "still here");
    atmsae_context_destroy(held);
    atmsae_context_destroy(NULL);
    ck_assert_int_eq(atmsae_context_create(NULL, NULL), ATMSAE_E_ARG);
}
END_TEST

START_TEST(context_threads)
{
    static const uint32_t wanted[] = {1, 2, 3, 8};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        atmsae_context *ctx = new_context(wanted[i]);
        ck_assert_uint_eq(atmsae_context_threads(ctx), wanted[i]);
        atmsae_context_destroy(ctx);
    }
}
END_TEST

START_TEST(context_leaves_the_process_alone)
{
    sigset_t before, after;
    struct sigaction old[32], now;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    for (int s = 1; s < 32; s++)
        if (s != SIGKILL && s != SIGSTOP) sigaction(s, NULL, &old[s]);
    atmsae_context *ctx = new_context(4);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int s = 1; s < 32; s++) {
        ck_assert_int_eq(sigismember(&before, s), sigismember(&after, s));
        if (s == SIGKILL || s == SIGSTOP) continue;
        sigaction(s, NULL, &now);
        ck_assert(now.sa_handler == old[s].sa_handler);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(version_and_status_names)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", ATMSAE_VERSION_MAJOR, ATMSAE_VERSION_MINOR, ATMSAE_VERSION_PATCH);
    ck_assert_str_eq(atmsae_version_string(), text);
    uint32_t n = atmsae_version_number();
    ck_assert_uint_eq(n / 10000, ATMSAE_VERSION_MAJOR);
    ck_assert_uint_eq(n / 100 % 100, ATMSAE_VERSION_MINOR);
    ck_assert_uint_eq(n % 100, ATMSAE_VERSION_PATCH);

#define NAME(status) ck_assert_str_eq(atmsae_status_name(status), #status)
    NAME(ATMSAE_OK);
    NAME(ATMSAE_E_ARG);
    NAME(ATMSAE_E_NOMEM);
    NAME(ATMSAE_E_STATE);
    NAME(ATMSAE_E_UNSUPPORTED);
    NAME(ATMSAE_E_ABI);
    NAME(ATMSAE_E_NONFINITE);
    NAME(ATMSAE_E_LIMIT);
    NAME(ATMSAE_E_IO);
    NAME(ATMSAE_E_FORMAT);
    NAME(ATMSAE_E_TRUNCATED);
    NAME(ATMSAE_E_VERSION);
    NAME(ATMSAE_E_CALLBACK);
#undef NAME
    ck_assert_ptr_nonnull(atmsae_status_name(1));
    ck_assert_ptr_nonnull(atmsae_status_name(INT32_MIN));
    ck_assert_ptr_nonnull(atmsae_status_name(INT32_MAX));
}
END_TEST

/* ---- errors and log ------------------------------------------------------------------------ */

START_TEST(error_text)
{
    atmsae_context *ctx = new_context(1);
    ck_assert_int_eq(ams_fail(ctx, ATMSAE_E_ARG, "k = %d, must be %.1f", 3, 0.5), ATMSAE_E_ARG);
    ck_assert_str_eq(atmsae_last_error(ctx), "k = 3, must be 0.5");
    ck_assert_int_eq(ams_fail_in(ctx, ATMSAE_E_FORMAT, "file.json"), ATMSAE_E_FORMAT);
    ck_assert_str_eq(atmsae_last_error(ctx), "file.json: k = 3, must be 0.5");
    char text[12] = "unchanged..";
    ck_assert_uint_eq(atmsae_copy_error(ctx, NULL, 0), 29);
    ck_assert_uint_eq(atmsae_copy_error(ctx, text, 0), 29);
    ck_assert_str_eq(text, "unchanged..");
    ck_assert_uint_eq(atmsae_copy_error(ctx, text, sizeof text), 29);
    ck_assert_str_eq(text, "file.json: ");
    ck_assert_int_eq(ams_fail_errno(ctx, "dir/x", "open", ENOENT), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "dir/x: open: "));
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "No such file"));
    ck_assert_int_eq(ams_fail_errno(ctx, "dir/x", "open", ENOMEM), ATMSAE_E_NOMEM);

    /* A text longer than the buffer is cut, not lost, and more prefixes do no harm. */
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    ams_fail(ctx, ATMSAE_E_ARG, "start %s", big);
    size_t length = strlen(atmsae_last_error(ctx));
    ck_assert_uint_ge(length, 200);
    ck_assert_int_eq(strncmp(atmsae_last_error(ctx), "start xxx", 9), 0);
    for (int i = 0; i < 3; i++)
        ams_fail_in(ctx, ATMSAE_E_ARG, "prefix");
    ck_assert_uint_le(strlen(atmsae_last_error(ctx)), length + 3 * strlen("prefix: "));
    ck_assert_int_eq(strncmp(atmsae_last_error(ctx), "prefix: prefix: prefix: start", 29), 0);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(ams_fail(NULL, ATMSAE_E_ABI, "no context"), ATMSAE_E_ABI);
}
END_TEST

typedef struct lines {
    int count;
    int32_t level;
    char text[256];
} lines;
static void keep_line(void *opaque, int32_t level, const char *message)
{
    lines *l = opaque;
    l->count++;
    l->level = level;
    snprintf(l->text, sizeof l->text, "%s", message);
}

START_TEST(log_levels)
{
    for (int32_t level = 0; level <= ATMSAE_LOG_INFO; level++) {
        lines seen = {0};
        atmsae_context_config config;
        atmsae_context_config_init(&config, sizeof config);
        ck_assert_int_eq(config.log_level, ATMSAE_LOG_INFO);
        config.log_level = level;
        config.log = keep_line;
        config.log_opaque = &seen;
        atmsae_context *ctx;
        ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
        for (int32_t sent = ATMSAE_LOG_ERROR; sent <= ATMSAE_LOG_INFO; sent++) {
            int before = seen.count;
            ams_log(ctx, sent, "level %d, %.2f", sent, 1.5);
            ck_assert_int_eq(seen.count - before, sent <= level);
            if (sent > level) continue;
            char expected[64];
            snprintf(expected, sizeof expected, "level %d, 1.50", sent);
            ck_assert_str_eq(seen.text, expected);
            ck_assert_int_eq(seen.level, sent);
        }
        atmsae_context_destroy(ctx);
    }
    atmsae_context *silent = new_context(1);
    ams_log(silent, ATMSAE_LOG_ERROR, "nobody listens");
    atmsae_context_destroy(silent);
}
END_TEST

/* ---- memory -------------------------------------------------------------------------------- */

/* Counts blocks, and fails the allocation number `fail_at` (and, if `for_ever`, all later ones). */
typedef struct counter {
    atomic_long blocks, calls;
    long fail_at;
    bool for_ever;
} counter;
static void *counted_alloc(void *opaque, size_t align, size_t bytes)
{
    counter *c = opaque;
    long call = atomic_fetch_add(&c->calls, 1) + 1;
    if (c->fail_at && (call == c->fail_at || (c->for_ever && call > c->fail_at))) return NULL;
    ck_assert_uint_ge(align, 1);
    ck_assert_uint_eq(align & (align - 1), 0);
    void *memory = NULL;
    if (posix_memalign(&memory, align < sizeof(void *) ? sizeof(void *) : align, bytes) != 0) return NULL;
    memset(memory, 0xA5, bytes); /* so that nobody relies on zeros */
    atomic_fetch_add(&c->blocks, 1);
    return memory;
}
static void counted_free(void *opaque, void *memory)
{
    counter *c = opaque;
    ck_assert_ptr_nonnull(memory);
    atomic_fetch_sub(&c->blocks, 1);
    free(memory);
}

START_TEST(allocator_hook)
{
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        for (long n = 1;; n++) {
            ck_assert_int_lt(n, 100);
            counter c = {.fail_at = n, .for_ever = for_ever};
            const atmsae_allocator allocator = {&c, counted_alloc, counted_free};
            atmsae_context_config config;
            atmsae_context_config_init(&config, sizeof config);
            config.threads = 3;
            config.allocator = &allocator;
            atmsae_context *ctx = (atmsae_context *)&c;
            atmsae_status status = atmsae_context_create(&config, &ctx);
            if (status < 0) {
                ck_assert_int_eq(status, ATMSAE_E_NOMEM);
                ck_assert_ptr_null(ctx);
            } else {
                ck_assert_uint_ge(atmsae_context_threads(ctx), 1); /* fewer threads are no error */
                atmsae_context_destroy(ctx);
            }
            ck_assert_int_eq(atomic_load(&c.blocks), 0);
            if (atomic_load(&c.calls) < n) break; /* nothing was left to fail */
        }
    }
}
END_TEST

START_TEST(allocator_must_be_whole)
{
    const atmsae_allocator half = {NULL, counted_alloc, NULL};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.allocator = &half;
    atmsae_context *ctx = (atmsae_context *)&config;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_E_ARG);
    ck_assert_ptr_null(ctx);
}
END_TEST

START_TEST(alloc_checks_products)
{
    counter c = {0};
    const atmsae_allocator allocator = {&c, counted_alloc, counted_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &allocator;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);

    long calls = atomic_load(&c.calls);
    ck_assert_ptr_null(ams_alloc(ctx, UINT64_MAX, 8));
    ck_assert_ptr_null(ams_alloc(ctx, (uint64_t)1 << 62, 4));
    ck_assert_ptr_null(ams_alloc(ctx, (uint64_t)1 << 62, 16));
    ck_assert_ptr_null(ams_alloc(ctx, (uint64_t)1 << 63, 1));
    ck_assert_ptr_null(ams_calloc(ctx, ((uint64_t)1 << 61) + 1, 8)); /* 8 bytes after wrapping */
    ck_assert_int_eq(atomic_load(&c.calls), calls);

    unsigned char *bytes = ams_calloc(ctx, 37, 3);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq((uintptr_t)bytes % 64, 0);
    for (int i = 0; i < 37 * 3; i++)
        ck_assert_uint_eq(bytes[i], 0);
    ams_free(ctx, bytes);
    void *empty = ams_alloc(ctx, 0, 8);
    ck_assert_ptr_nonnull(empty);
    ams_free(ctx, empty);
    ams_free(ctx, NULL);

    uint64_t product;
    ck_assert(ams_mul(UINT32_MAX, UINT32_MAX, &product) && product == UINT64_C(18446744065119617025));
    ck_assert(!ams_mul((uint64_t)1 << 32, (uint64_t)1 << 32, &product));
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(atomic_load(&c.blocks), 0);
}
END_TEST

START_TEST(grow_keeps_what_it_is_told)
{
    counter c = {0};
    const atmsae_allocator allocator = {&c, counted_alloc, counted_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &allocator;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);

    uint32_t *array = NULL;
    uint64_t capacity = 0;
    uint64_t moves = 0;
    for (uint32_t n = 0; n < 10000; n++) {
        uint64_t before = capacity;
        ck_assert_int_eq(ams_grow(ctx, &array, &capacity, n + 1, n, sizeof *array), ATMSAE_OK);
        ck_assert_uint_ge(capacity, n + 1);
        moves += capacity != before;
        array[n] = n * 7;
    }
    ck_assert_uint_le(moves, 20); /* grows by factors */
    for (uint32_t n = 0; n < 10000; n++)
        ck_assert_uint_eq(array[n], n * 7);

    uint32_t *old = array;
    uint64_t old_capacity = capacity;
    c.fail_at = atomic_load(&c.calls) + 1;
    c.for_ever = true;
    ck_assert_int_eq(ams_grow(ctx, &array, &capacity, capacity + 1, 10000, sizeof *array), ATMSAE_E_NOMEM);
    ck_assert_ptr_eq(array, old);
    ck_assert_uint_eq(capacity, old_capacity);
    c.fail_at = 0;
    ck_assert_int_eq(ams_grow(ctx, &array, &capacity, UINT64_MAX, 10000, sizeof *array), ATMSAE_E_NOMEM);
    ck_assert_ptr_eq(array, old);
    ams_free(ctx, array);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(atomic_load(&c.blocks), 0);
}
END_TEST

/* ---- texts ------------------------------------------------------------------------------------ */

static void keep_message(void *opaque, int32_t level, const char *message)
{
    (void)level;
    snprintf(opaque, 600, "%s", message);
}

/* A terminal obeys what comes to it; a message quotes what anyone may have written into a file. */
START_TEST(messages_command_no_terminal)
{
    static const struct {
        const char *quoted, *shown;
    } cases[] = {
        {"\x1b[31mred\x07", "\\x1b[31mred\\x07"},
        {"line\nline\r\t\x7f", "line\\x0aline\\x0d\\x09\\x7f"},
        {"\xc2\x9b" "2J", "\\xc2\\x9b2J"},                              /* CSI as one character */
        {"\xe2\x80\xae" "exe.txt", "\\xe2\\x80\\xaeexe.txt"},           /* right-to-left override */
        {"caf\xc3\xa9 \xce\xbc \xe2\x82\xac \xf0\x9f\x90\x98 caf\xe9", "caf\xc3\xa9 \xce\xbc \xe2\x82\xac \xf0\x9f\x90\x98 caf\xe9"},
        {"\xc2\x7f", "\xc2\\x7f"},                                     /* no character: DEL after half of one */
        {"\xc2\x80" "a\xc2\x9f", "\\xc2\\x80a\\xc2\\x9f"},            /* first and last of C1 */
        {"\xc2\xa0", "\xc2\xa0"},                                      /* behind it: a space without a break */
        {"\xe2\x80\xa9\xe2\x80\xaa", "\xe2\x80\xa9\\xe2\\x80\\xaa"},  /* the embeddings and overrides, and their neighbours */
        {"\xe2\x80\xae\xe2\x80\xaf", "\\xe2\\x80\\xae\xe2\x80\xaf"},
        {"\xe2\x81\xa5\xe2\x81\xa6", "\xe2\x81\xa5\\xe2\\x81\\xa6"},  /* the isolates, and theirs */
        {"\xe2\x81\xa9\xe2\x81\xaa", "\\xe2\\x81\\xa9\xe2\x81\xaa"},
        {"\xe2\x7f\xe2\x80" "x\xe2\x81" "x", "\xe2\\x7f\xe2\x80x\xe2\x81x"},
        {"\xc2", "\xc2"},
        {"\xe2\x80", "\xe2\x80"},
    };
    char line[600];
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.log = keep_message;
    config.log_opaque = line;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ams_fail(ctx, ATMSAE_E_ARG, "%s", cases[i].quoted);
        ck_assert_str_eq(atmsae_last_error(ctx), cases[i].shown);
        ams_fail_in(ctx, ATMSAE_E_ARG, cases[i].quoted); /* the text before it is not escaped again */
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), cases[i].shown));
        ck_assert_ptr_null(strchr(atmsae_last_error(ctx), '\x1b'));
        ams_log(ctx, ATMSAE_LOG_WARNING, "%s", cases[i].quoted);
        ck_assert_str_eq(line, cases[i].shown);
    }
    char many[2000];
    for (size_t n = 1; n < sizeof many; n++) { /* cut, but never within an escape */
        memset(many, n % 2 ? 1 : 'x', n);
        many[n] = '\0';
        ams_fail(ctx, ATMSAE_E_ARG, "%s", many);
        const size_t shown = strlen(atmsae_last_error(ctx));
        ck_assert_uint_lt(shown, sizeof ctx->error);
        if (n % 2) ck_assert_uint_eq(shown % 4, 0);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- the default number of threads ----------------------------------------------------------- */

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(cpus_of_a_cgroup)
{
    static const struct {
        const char *membership, *top, *a, *b; /* cpu.max of the mount, of /a and of /a/b; NULL: not there */
        unsigned cpus;
    } cases[] = {
        {"0::/a/b\n", NULL, "max 100000\n", "150000 100000\n", 2},
        {"0::/a/b\n", NULL, "100000 100000\n", "max 100000\n", 1},    /* a group above it is narrower */
        {"0::/a\n", NULL, "400000 100000\n", "100000 100000\n", 4},   /* one below it does not count */
        {"12:cpu,cpuacct:/x\n0::/a/b\n1:name=systemd:/y\n", "300000 100000\n", NULL, NULL, 3},
        {"0::/\n", "50000 100000\n", NULL, NULL, 1},
        {"0::/not/in/this/container\n", "250000 100000\n", NULL, NULL, 3},
        {"0::/a/b\n", "max 100000\n", "max 100000\n", "max 100000\n", UINT_MAX},
        {"0::/a/b\n", "", "x", "100000", UINT_MAX},
        {"0::/a/b\n", "0 100000", "-1 -1", "99999999999999999999999 1", UINT_MAX},
        {"4:memory:/a\n1:cpu:/a\n", "100000 100000", "100000 100000", NULL, UINT_MAX}, /* cgroup v1 */
        {"", "100000 100000", NULL, NULL, UINT_MAX},
    };
    char folder[] = "cgroup-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, i ? "a/b" : "a");
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    static const char *const names[] = {"cpu.max", "a/cpu.max", "a/b/cpu.max", "membership"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const texts[] = {cases[i].top, cases[i].a, cases[i].b, cases[i].membership};
        for (int k = 0; k < 4; k++)
            if (texts[k]) write_text(folder, names[k], texts[k]);
        snprintf(path, sizeof path, "%s/membership", folder);
        const unsigned cpus = ams_cgroup_cpus(path, folder);
        ck_assert_msg(cpus == cases[i].cpus, "case %zu: %u CPUs, expected %u", i, cpus, cases[i].cpus);
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "%s/%s", folder, names[k]);
            unlink(path);
        }
    }
    ck_assert_uint_eq(ams_cgroup_cpus("cgroup-not-there", folder), UINT_MAX);
    for (int i = 2; i >= 0; i--) {
        snprintf(path, sizeof path, "%s%s", folder, i == 2 ? "/a/b" : i ? "/a" : "");
        ck_assert_int_eq(rmdir(path), 0);
    }
}
END_TEST

START_TEST(threads_follow_the_affinity_mask)
{
    cpu_set_t before, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(NULL, &ctx), ATMSAE_OK);
    ck_assert_uint_eq(atmsae_context_threads(ctx), 1);
    atmsae_context_destroy(ctx);
    ctx = new_context(3); /* as asked for, all the same */
    ck_assert_uint_eq(atmsae_context_threads(ctx), 3);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(sched_setaffinity(0, sizeof before, &before), 0);
    ck_assert_int_eq(atmsae_context_create(NULL, &ctx), ATMSAE_OK);
    ck_assert_uint_le(atmsae_context_threads(ctx), (unsigned)CPU_COUNT(&before));
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- structs of the ABI --------------------------------------------------------------------- */

/* A library whose struct has grown from v1 by `c`, and what callers of all ages hand it. */
typedef struct thing {
    size_t size;
    uint64_t a, b;
    uint64_t c;
} thing;
enum { THING_V1 = offsetof(thing, c) };
static const ams_struct described = {"thing", sizeof(thing), THING_V1};
typedef struct newer_thing {
    thing known;
    uint64_t d;
} newer_thing;

START_TEST(struct_in)
{
    atmsae_context *ctx = new_context(1);
    const thing defaults = {sizeof defaults, 10, 20, 30};
    thing local = defaults;
    newer_thing caller;

    memset(&caller, 0x77, sizeof caller);
    caller.known = (thing){THING_V1, 1, 2, 333};
    ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, &caller), ATMSAE_OK);
    ck_assert(local.size == sizeof local && local.a == 1 && local.b == 2 && local.c == 30);

    local = defaults;
    caller.known = (thing){sizeof(thing), 1, 2, 3};
    ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, &caller), ATMSAE_OK);
    ck_assert(local.size == sizeof local && local.a == 1 && local.b == 2 && local.c == 3);

    local = defaults;
    caller.known.size = sizeof caller;
    caller.d = 0;
    ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, &caller), ATMSAE_OK);
    ck_assert(local.size == sizeof local && local.c == 3);
    caller.d = (uint64_t)1 << 60;
    ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, &caller), ATMSAE_E_ABI);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "thing"));

    static const size_t wrong[] = {0, 1, THING_V1 - 1, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        caller.known.size = wrong[i];
        ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, &caller), ATMSAE_E_ABI);
    }
    ck_assert_int_eq(ams_struct_copy_in(ctx, &described, &local, NULL), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(struct_out)
{
    atmsae_context *ctx = new_context(1);
    const thing local = {sizeof local, 1, 2, 3};
    newer_thing caller;
    static const size_t sizes[] = {THING_V1, sizeof(thing), sizeof(newer_thing)};
    for (size_t i = 0; i < 3; i++) {
        memset(&caller, 0x77, sizeof caller);
        const uint64_t untouched = caller.d;
        caller.known.size = sizes[i];
        ck_assert_int_eq(ams_struct_copy_out(ctx, &described, &caller, &local), ATMSAE_OK);
        ck_assert_uint_eq(caller.known.size, sizes[i]);
        ck_assert(caller.known.a == 1 && caller.known.b == 2);
        ck_assert_uint_eq(caller.known.c, i == 0 ? untouched : 3);
        ck_assert_uint_eq(caller.d, untouched);
    }
    caller.known.size = 0;
    ck_assert_int_eq(ams_struct_copy_out(ctx, &described, &caller, &local), ATMSAE_E_ABI);
    ck_assert_uint_eq(caller.known.a, 1);
    ck_assert_int_eq(ams_struct_copy_out(ctx, &described, NULL, &local), ATMSAE_E_ARG);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(struct_init)
{
    const thing defaults = {0, 10, 20, 30};
    unsigned char caller[64];
    for (size_t size = 0; size <= sizeof caller; size++) {
        memset(caller, 0x77, sizeof caller);
        ams_struct_init(caller, size, &defaults, sizeof defaults);
        if (size >= sizeof(size_t)) {
            unsigned char expected[64] = {0};
            memcpy(expected, &defaults, sizeof defaults);
            memcpy(expected, &size, sizeof size);
            ck_assert_mem_eq(caller, expected, size);
        }
        for (size_t i = size < sizeof(size_t) ? 0 : size; i < sizeof caller; i++)
            ck_assert_uint_eq(caller[i], 0x77);
    }
    ams_struct_init(NULL, 64, &defaults, sizeof defaults);
}
END_TEST

START_TEST(context_config_abi)
{
    struct {
        atmsae_context_config known;
        uint64_t more;
    } newer;
    atmsae_context *ctx = NULL;
    atmsae_context_config_init(&newer.known, sizeof newer);
    ck_assert_uint_eq(newer.known.size, sizeof newer);
    ck_assert_uint_eq(newer.more, 0);
    newer.known.threads = 1;
    ck_assert_int_eq(atmsae_context_create(&newer.known, &ctx), ATMSAE_OK);
    atmsae_context_destroy(ctx);
    newer.more = 1;
    ck_assert_int_eq(atmsae_context_create(&newer.known, &ctx), ATMSAE_E_ABI);
    ck_assert_ptr_null(ctx);
    newer.known.size = 8;
    ck_assert_int_eq(atmsae_context_create(&newer.known, &ctx), ATMSAE_E_ABI);
    atmsae_context_config_init(NULL, sizeof newer);
}
END_TEST

/* ---- worker threads -------------------------------------------------------------------------- */

enum { MANY_JOBS = 5000 };
typedef struct region {
    atomic_uint runs[MANY_JOBS];
    atomic_uint wrong_worker;
    unsigned workers;
} region;
static void count_run(void *arg, uint64_t i, unsigned worker)
{
    region *r = arg;
    atomic_fetch_add(&r->runs[i], 1);
    if (worker >= r->workers) atomic_fetch_add(&r->wrong_worker, 1);
}

START_TEST(pool_runs_each_job_once)
{
    static region r;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        atmsae_context *ctx = new_context(threads);
        static const uint64_t counts[] = {0, 1, 2, 3, 7, 64, MANY_JOBS};
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            memset(&r, 0, sizeof r);
            r.workers = ams_workers(ctx);
            ams_parallel(ctx, counts[k], count_run, &r);
            for (uint64_t i = 0; i < MANY_JOBS; i++)
                ck_assert_uint_eq(atomic_load(&r.runs[i]), i < counts[k]);
            ck_assert_uint_eq(atomic_load(&r.wrong_worker), 0);
        }
        for (int again = 0; again < 2000; again++) /* short regions in a row */
            ams_parallel(ctx, 3, count_run, &r);
        ck_assert_uint_eq(atomic_load(&r.runs[2]), 2001);
        atmsae_context_destroy(ctx);
    }
}
END_TEST

static void sleep_a_little(void *arg, uint64_t i, unsigned worker)
{
    (void)arg, (void)i, (void)worker;
    ck_assert_int_eq(nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL), 0);
}

/* Only what several threads may share is a parallel section, and only while somebody asks. */
START_TEST(parallel_sections_are_timed_on_request)
{
    const double least = 1e-3;
    double seconds = 0;
    atmsae_context *two = new_context(2), *one = new_context(1);
    ck_assert_uint_eq(ams_workers(two), 2);
    ams_parallel(two, 2, sleep_a_little, NULL);
    ck_assert_double_eq(seconds, 0);
    ams_context_time_parallel(two, &seconds);
    ams_context_time_parallel(one, &seconds);
    ams_parallel(two, 1, sleep_a_little, NULL);
    ams_parallel(one, 2, sleep_a_little, NULL);
    ck_assert_double_eq(seconds, 0);
    ams_parallel(two, 2, sleep_a_little, NULL);
    ck_assert_double_ge(seconds, least);
    const double before = seconds;
    ams_parallel(two, 4, sleep_a_little, NULL); /* is added to it: two of four jobs come one after the other */
    ck_assert_double_ge(seconds, before + 2 * least);
    const double after = seconds;
    ams_context_time_parallel(two, NULL);
    ams_parallel(two, 2, sleep_a_little, NULL);
    ck_assert_double_eq(seconds, after);
    atmsae_context_destroy(two);
    atmsae_context_destroy(one);
}
END_TEST

typedef struct two_at_once {
    atomic_uint inside[64]; /* by worker */
    atomic_uint clash, total;
} two_at_once;
static void one_worker_one_job(void *arg, uint64_t job, unsigned worker)
{
    two_at_once *t = arg;
    (void)job;
    if (atomic_fetch_add(&t->inside[worker], 1) != 0) atomic_fetch_add(&t->clash, 1);
    atomic_fetch_add(&t->total, 1);
    for (int i = 0; i < 10; i++)
        sched_yield(); /* lets others in */
    atomic_fetch_sub(&t->inside[worker], 1);
}
typedef struct caller_arg {
    atmsae_context *ctx;
    two_at_once *shared;
} caller_arg;
static void *call_often(void *arg)
{
    caller_arg *a = arg;
    for (int i = 0; i < 50; i++)
        ams_parallel(a->ctx, 16, one_worker_one_job, a->shared);
    return NULL;
}

START_TEST(pool_is_shared_by_threads)
{
    /* Per-worker memory is safe only if no two jobs run as the same worker at once, also when
     * several threads of the program use the context. */
    two_at_once shared = {0};
    caller_arg arg = {new_context(3), &shared};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_often, &arg), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&shared.total), 4 * 50 * 16);
    ck_assert_uint_eq(atomic_load(&shared.clash), 0);
    atmsae_context_destroy(arg.ctx);
}
END_TEST

static void signal_mask(void *arg, uint64_t i, unsigned worker)
{
    (void)i;
    atomic_uint *open = arg;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (worker > 0 && !(sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM))) atomic_fetch_add(open, 1);
}

START_TEST(workers_take_no_signals)
{
    atomic_uint open = 0;
    atmsae_context *ctx = new_context(4);
    ams_parallel(ctx, 2000, signal_mask, &open);
    ck_assert_uint_eq(atomic_load(&open), 0);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- Philox ----------------------------------------------------------------------------------- */

START_TEST(philox_known_answers)
{
    /* The three vectors of philox4x32-10 in Random123's kat_vectors. The counter is (b, a) with the
     * purpose in the top byte. */
    static const struct {
        uint64_t seed;
        uint32_t purpose;
        uint64_t a, b;
        uint32_t out[4];
    } vectors[] = {
        {0, 0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, 0xff, 0x00ffffffffffffff, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x03, 0x0070734413198a2e, 0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint32_t out[4];
        ams_philox(vectors[i].seed, vectors[i].purpose, vectors[i].a, vectors[i].b, out);
        ck_assert_mem_eq(out, vectors[i].out, sizeof out);
    }
}
END_TEST

START_TEST(philox_streams_differ)
{
    /* One bit in any argument gives other words. */
    uint32_t base[4], other[4];
    ams_philox(5, AMS_DRAW_MASK, 6, 7, base);
    for (int bit = 0; bit < 64; bit++) {
        ams_philox(5 ^ (uint64_t)1 << bit, AMS_DRAW_MASK, 6, 7, other);
        ck_assert_mem_ne(base, other, sizeof base);
        ams_philox(5, AMS_DRAW_MASK, 6, 7 ^ (uint64_t)1 << bit, other);
        ck_assert_mem_ne(base, other, sizeof base);
        if (bit >= 56) continue;
        ams_philox(5, AMS_DRAW_MASK, 6 ^ (uint64_t)1 << bit, 7, other);
        ck_assert_mem_ne(base, other, sizeof base);
    }
    for (uint32_t purpose = 1; purpose <= AMS_DRAW_EVAL; purpose++) {
        ams_philox(5, purpose, 6, 7, other);
        ck_assert_int_eq(memcmp(base, other, sizeof base) == 0, purpose == AMS_DRAW_MASK);
    }
}
END_TEST

START_TEST(uniform_and_normal)
{
    ck_assert(ams_uniform(0, 0) == 0);
    ck_assert(ams_uniform(UINT32_MAX, UINT32_MAX) == 1 - 0x1p-53);
    ck_assert(ams_uniform(0x80000000, 0) == 0.5);

    /* No infinity at the ends of the range. */
    static const uint32_t ends[][4] = {{0, 0, 0, 0}, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}};
    for (int i = 0; i < 2; i++) {
        double z[2];
        ams_normal2(ends[i], z);
        ck_assert(isfinite(z[0]) && isfinite(z[1]));
    }

    /* Moments within 5 standard errors. */
    enum { N = 200000 };
    double sum = 0, square = 0, fourth = 0, cross = 0, u = 0, u2 = 0;
    for (uint64_t i = 0; i < N / 2; i++) {
        uint32_t words[4];
        double z[2];
        ams_philox(1, AMS_DRAW_EVAL, 0, i, words);
        ams_normal2(words, z);
        cross += z[0] * z[1];
        for (int k = 0; k < 2; k++) {
            sum += z[k];
            square += z[k] * z[k];
            fourth += z[k] * z[k] * z[k] * z[k];
            double v = ams_uniform(words[2 * k], words[2 * k + 1]);
            u += v;
            u2 += v * v;
        }
    }
    ck_assert_double_lt(fabs(sum / N), 5 / sqrt(N));
    ck_assert_double_lt(fabs(square / N - 1), 5 * sqrt(2.0 / N));
    ck_assert_double_lt(fabs(fourth / N - 3), 5 * sqrt(96.0 / N));
    ck_assert_double_lt(fabs(cross / (N / 2)), 5 / sqrt(N / 2));
    ck_assert_double_lt(fabs(u / N - 0.5), 5 * sqrt(1.0 / 12 / N));
    ck_assert_double_lt(fabs(u2 / N - 1.0 / 3), 5 * sqrt(4.0 / 45 / N));
}
END_TEST

/* ---- CRC-64 ------------------------------------------------------------------------------------ */

static uint64_t crc64_by_bit(const unsigned char *data, size_t bytes)
{
    uint64_t crc = UINT64_MAX;
    for (size_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            uint64_t low = (crc ^ (uint64_t)(data[i] >> bit)) & 1;
            crc >>= 1;
            if (low) crc ^= UINT64_C(0xC96C5795D7870F42);
        }
    return ~crc;
}

START_TEST(crc64)
{
    ck_assert_uint_eq(ams_crc64(0, "", 0), 0);
    ck_assert_uint_eq(ams_crc64(0, "123456789", 9), UINT64_C(0x995DC9BBDF1939FA)); /* the catalogue's check */

    enum { BYTES = 20000 };
    unsigned char *data = malloc(BYTES + 8);
    for (uint32_t i = 0; i < BYTES + 8; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 24);
    static const size_t sizes[] = {1, 7, 8, 255, 4095, 4096, 4097, 4103, 8192, BYTES};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (size_t offset = 0; offset < 8; offset += 3) {
            const unsigned char *p = data + offset;
            uint64_t expected = crc64_by_bit(p, sizes[k]);
            ck_assert_uint_eq(ams_crc64(0, p, sizes[k]), expected);
            for (size_t cut = 0; cut <= sizes[k]; cut += sizes[k] / 5 + 1)
                ck_assert_uint_eq(ams_crc64(ams_crc64(0, p, cut), p + cut, sizes[k] - cut), expected);
        }
    uint64_t whole = ams_crc64(0, data, BYTES);
    for (size_t i = 0; i < BYTES; i += 997) { /* a flipped bit is seen */
        data[i] ^= 16;
        ck_assert_uint_ne(ams_crc64(0, data, BYTES), whole);
        data[i] ^= 16;
    }
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *tcase = tcase_create("base");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, context_life);
    tcase_add_test(tcase, context_threads);
    tcase_add_test(tcase, context_leaves_the_process_alone);
    tcase_add_test(tcase, version_and_status_names);
    tcase_add_test(tcase, error_text);
    tcase_add_test(tcase, log_levels);
    tcase_add_test(tcase, allocator_hook);
    tcase_add_test(tcase, allocator_must_be_whole);
    tcase_add_test(tcase, alloc_checks_products);
    tcase_add_test(tcase, grow_keeps_what_it_is_told);
    tcase_add_test(tcase, messages_command_no_terminal);
    tcase_add_test(tcase, cpus_of_a_cgroup);
    tcase_add_test(tcase, threads_follow_the_affinity_mask);
    tcase_add_test(tcase, struct_in);
    tcase_add_test(tcase, struct_out);
    tcase_add_test(tcase, struct_init);
    tcase_add_test(tcase, context_config_abi);
    tcase_add_test(tcase, pool_runs_each_job_once);
    tcase_add_test(tcase, parallel_sections_are_timed_on_request);
    tcase_add_test(tcase, pool_is_shared_by_threads);
    tcase_add_test(tcase, workers_take_no_signals);
    tcase_add_test(tcase, philox_known_answers);
    tcase_add_test(tcase, philox_streams_differ);
    tcase_add_test(tcase, uniform_and_normal);
    tcase_add_test(tcase, crc64);
    return run_all(suite);
}
