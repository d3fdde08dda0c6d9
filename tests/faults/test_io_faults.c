/* SPDX-License-Identifier: MIT
 *
 * Every system call of every save fails, once and for ever, with every error that it may have; is
 * interrupted; writes less than asked; or is the last thing that the process does. Whatever happens, in one
 * save or in several, the old or the new one can be loaded, whole, and the next save works.
 */
#include "format/format.h"
#include "small_run.h"
#include "../suite.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- system calls that fail on demand -------------------------------------------------------------- */

enum { OPENAT, FLOCK, FALLOCATE, WRITE, FSYNC, RENAMEAT, UNLINKAT, CLOSE, KINDS };

static struct {
    long calls, at;      /* at: number of the call to hit, from 1; 0: none */
    bool for_ever, kill; /* kill: die before the call instead */
    int error;
    size_t most;         /* bytes that a write takes; 0: all */
    unsigned hit;        /* kinds that were hit */
    int fsyncs;          /* calls of fsync, hit or not */
    bool after_rename;   /* the first hit came after the last rename */
    bool renamed;
    unsigned random;     /* short writes of random length; 0: not */
    bool only_one_kind;  /* for ever, but other kinds of calls go through */
} fault;

static bool hit(int kind)
{
    fault.calls++;
    fault.fsyncs += kind == FSYNC;
    if (fault.at == 0 || fault.calls < fault.at || (fault.calls > fault.at && !fault.for_ever)) return false;
    if (fault.only_one_kind && fault.hit && !(fault.hit >> kind & 1)) return false;
    if (fault.kill) raise(SIGKILL);
    if (!fault.hit) fault.after_rename = fault.renamed;
    fault.hit |= 1u << kind;
    errno = fault.error;
    return true;
}

static int fault_openat(int dir, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    return hit(OPENAT) ? -1 : openat(dir, path, flags, mode);
}
static int fault_flock(int fd, int operation) { return hit(FLOCK) ? -1 : flock(fd, operation); }
static int fault_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return hit(FALLOCATE) ? -1 : fallocate(fd, mode, offset, length);
}
static ssize_t fault_write(int fd, const void *data, size_t bytes)
{
    if (hit(WRITE)) return -1;
    if (fault.random) bytes = 1 + (fault.random = fault.random * 1664525u + 1013904223u) % bytes;
    return write(fd, data, fault.most && bytes > fault.most ? fault.most : bytes);
}
static int fault_fsync(int fd) { return hit(FSYNC) ? -1 : fsync(fd); }
static int fault_renameat(int a, const char *from, int b, const char *to)
{
    if (hit(RENAMEAT)) return -1;
    fault.renamed = true;
    return renameat(a, from, b, to);
}
static int fault_unlinkat(int dir, const char *path, int flags) { return hit(UNLINKAT) ? -1 : unlinkat(dir, path, flags); }
static int fault_close(int fd) /* which is closed also where that fails */
{
    const bool bad = hit(CLOSE);
    const int error = errno, result = close(fd);
    if (bad) errno = error;
    return bad ? -1 : result;
}
static const ams_io fault_io = {fault_openat, fault_flock, fault_fallocate, fault_write,
                                fault_fsync, fault_renameat, fault_unlinkat, fault_close};

/* ---- what gets saved --------------------------------------------------------------------------------- */

typedef struct state {
    char *bytes[2];
    size_t size[2];
} state;

/* A kind of save: `save` writes version 0 or 1, whose bytes are known. */
typedef struct saver {
    const char *name;
    atmsae_status (*save)(int version, const char *folder);
    const char *files[2]; /* in the folder; the second may be NULL */
    const char *stale[2]; /* their temporary files */
} saver;

static atmsae_context *ctx;
static small_run runs[2];
static atmsae_model *models[2];
static char *blob;
enum { BLOB = (1 << 21) + 12345 }; /* more than two blocks of the writer */

static const char *in(const char *folder, const char *name)
{
    static char path[8][200];
    static unsigned turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static atmsae_status save_bytes(int version, const char *folder)
{
    memset(blob, version ? 'n' : 'o', BLOB);
    return ams_write_file(ctx, in(folder, "file"), blob, version ? BLOB : 1000);
}
static atmsae_status save_checkpoint(int version, const char *folder)
{
    return atmsae_trainer_save(runs[version].trainer, runs[version].source, in(folder, "checkpoint"));
}
static atmsae_status save_folder(int version, const char *folder) { return atmsae_model_save(models[version], in(folder, "sae"), NULL); }

static const saver savers[] = {
    {"bytes", save_bytes, {"file", NULL}, {".file.tmp", NULL}},
    {"checkpoint", save_checkpoint, {"checkpoint", NULL}, {".checkpoint.tmp", NULL}},
    {"SAE folder", save_folder, {"sae/sae_weights.safetensors", "sae/cfg.json"},
     {"sae/.sae_weights.safetensors.tmp", "sae/.cfg.json.tmp"}},
};
enum { SAVERS = sizeof savers / sizeof *savers, FOLDER = 2 };
#define STAGED "sae/sae_weights.staged.safetensors"

static const char *folder;
static char in_sae[200];
static state known[2];

static state look(const saver *s)
{
    state now = {0};
    for (int i = 0; i < 2 && s->files[i]; i++)
        now.bytes[i] = small_read(in(folder, s->files[i]), &now.size[i]);
    return now;
}

static void forget(state *s)
{
    for (int i = 0; i < 2; i++)
        free(s->bytes[i]);
}

/* Bit v: file i is that of version v. */
static unsigned version_of(const state *now, int i)
{
    unsigned versions = 0;
    for (int v = 0; v < 2; v++)
        versions |= (unsigned)(now->size[i] == known[v].size[i] && !now->bytes[i] == !known[v].bytes[i] &&
                               (!now->bytes[i] || memcmp(now->bytes[i], known[v].bytes[i], now->size[i]) == 0))
                    << v;
    return versions;
}

static int open_files(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void setup(void)
{
    folder = small_folder();
    ctx = small_context(1);
    blob = malloc(BLOB);
    const small_setup *kind = &small_setups[1]; /* topk */
    for (int v = 0; v < 2; v++) {
        small_begin(&runs[v], kind, ctx);
        small_until(&runs[v], v ? 7 : 3);
        /* Two SAEs of one shape: weights of one would pass for the other's but for their k. */
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = SMALL_D;
        config.d_sae = SMALL_F;
        config.activation = ATMSAE_TOPK;
        config.k = v ? 5 : 3;
        config.seed = (uint64_t)v;
        ck_assert_int_eq(atmsae_model_create(ctx, &config, &models[v]), ATMSAE_OK);
    }
    ams_context_set_io(ctx, &fault_io);
    memset(&fault, 0, sizeof fault);
}

static void teardown(void)
{
    for (int v = 0; v < 2; v++) {
        small_end(&runs[v]);
        atmsae_model_destroy(models[v]);
    }
    atmsae_context_destroy(ctx);
    free(blob);
    small_remove(folder);
}

static void learn_versions(const saver *s)
{
    for (int v = 1; v >= 0; v--) { /* which leaves the old one there */
        ck_assert_int_eq(s->save(v, folder), ATMSAE_OK);
        known[v] = look(s);
    }
}

static void forget_versions(void)
{
    forget(&known[0]);
    forget(&known[1]);
}

static void expect_version(const saver *s, int version, const char *what)
{
    state now = look(s);
    for (int i = 0; i < 2 && s->files[i]; i++)
        ck_assert_msg(version_of(&now, i) >> version & 1, "%s, %s: %s is not that of version %d", s->name, what, s->files[i], version);
    forget(&now);
}

static void expect_no_temporary(const saver *s, const char *what)
{
    for (int i = 0; i < 2 && s->stale[i]; i++)
        ck_assert_msg(access(in(folder, s->stale[i]), F_OK) != 0, "%s, %s: %s stayed", s->name, what, s->stale[i]);
}

static long count_calls(const saver *s)
{
    memset(&fault, 0, sizeof fault);
    ck_assert_int_eq(s->save(1, folder), ATMSAE_OK);
    const long calls = fault.calls;
    expect_version(s, 1, "a save without faults");
    ck_assert_int_eq(s->save(0, folder), ATMSAE_OK);
    return calls;
}

/* Which of the two does the folder hold? It holds one, and all of it. */
static int load_folder(const char *what)
{
    atmsae_model *model;
    ams_context_set_io(ctx, NULL);
    const atmsae_status status = atmsae_model_load(ctx, in(folder, "sae"), &model);
    ams_context_set_io(ctx, &fault_io);
    ck_assert_msg(status == ATMSAE_OK, "%s: no SAE can be loaded: %s", what, status ? atmsae_last_error(ctx) : "");
    atmsae_model_config config = {.size = sizeof config};
    ck_assert_int_eq(atmsae_model_get_config(model, &config), ATMSAE_OK);
    const int version = config.k == 5;
    ck_assert(config.k == 3 || version);
    uint64_t n;
    const float *a = atmsae_model_view(model, ATMSAE_W_ENC, &n), *b = atmsae_model_view(models[version], ATMSAE_W_ENC, &n);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    atmsae_model_destroy(model);
    return version;
}

/* After anything: old or new, whole. Its version. */
static int check_files(const saver *s, const char *what)
{
    state now = look(s);
    const unsigned first = version_of(&now, 0), second = s->files[1] ? version_of(&now, 1) : first;
    forget(&now);
    ck_assert_msg(first && second, "%s, %s: a file is neither old nor new", s->name, what);
    return s->save == save_folder ? load_folder(what) : first == 2;
}

static void next_save_works(const saver *s, const char *what)
{
    memset(&fault, 0, sizeof fault);
    ck_assert_msg(s->save(1, folder) == ATMSAE_OK, "%s, %s: the next save: %s", s->name, what, atmsae_last_error(ctx));
    expect_version(s, 1, what);
    expect_no_temporary(s, what);
    ck_assert_msg(access(in(folder, STAGED), F_OK) != 0, "%s: %s stayed", what, STAGED);
    ck_assert_int_eq(s->save(0, folder), ATMSAE_OK);
}

/* ---- the tests ------------------------------------------------------------------------------------------ */

START_TEST(errors)
{
    static const int codes[] = {ENOSPC, EIO, EFBIG, EDQUOT, EACCES, EMFILE, EROFS, ENOLCK};
    const saver *s = &savers[_i];
    learn_versions(s);
    const long calls = count_calls(s);
    const int files = open_files();
    long points = 0, failures = 0;
    for (long at = 1; at <= calls; at++)
        for (size_t c = 0; c < sizeof codes / sizeof *codes; c++)
            for (int for_ever = 0; for_ever < 2; for_ever++) {
                char what[80];
                snprintf(what, sizeof what, "call %ld, %s, %s", at, strerror(codes[c]), for_ever ? "for ever" : "once");
                memset(&fault, 0, sizeof fault);
                fault.at = at, fault.error = codes[c], fault.for_ever = for_ever;
                const atmsae_status status = s->save(1, folder);
                const unsigned kinds = fault.hit;
                const int fsyncs = fault.fsyncs;
                const bool late = fault.after_rename;
                memset(&fault, 0, sizeof fault);
                points++;
                const int version = check_files(s, what);
                ck_assert_msg(kinds != 0, "%s: nothing was hit", what);
                if (status == ATMSAE_OK) {
                    ck_assert_msg(version == 1, "%s: says that it saved", what);
                } else {
                    failures++;
                    ck_assert_msg(status == ATMSAE_E_IO, "%s: %s", what, atmsae_status_name(status));
                    ck_assert_msg(strstr(atmsae_last_error(ctx), folder) && strstr(atmsae_last_error(ctx), ": "), "%s: \"%s\"", what,
                                  atmsae_last_error(ctx));
                    ck_assert_msg(version == 0 || late, "%s: failed, but the file is new", what);
                    if (version == 1) ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "in place"));
                }
                /* A failed sync is the last: no second one of the same file. */
                if (kinds == 1u << FSYNC && !for_ever && !s->files[1]) ck_assert_int_le(fsyncs, late ? 2 : 1);
                if (kinds >> FSYNC & 1) ck_assert_int_ne(status, ATMSAE_OK);
                if (!(kinds >> UNLINKAT & 1)) expect_no_temporary(s, what);
                if (!(kinds >> UNLINKAT & 1) && !version) ck_assert_int_ne(access(in(folder, STAGED), F_OK), 0);
                ck_assert_int_eq(open_files(), files);
                next_save_works(s, what);
            }
    ck_assert_int_ge(failures, calls * 4); /* closing and locks are forgiven */
    printf("%s: %ld calls, %ld points, %ld failures\n", s->name, calls, points, failures);
    forget_versions();
}
END_TEST

START_TEST(interruptions)
{
    const saver *s = &savers[_i];
    learn_versions(s);
    const long calls = count_calls(s);
    for (long at = 1; at <= calls; at++) {
        memset(&fault, 0, sizeof fault);
        fault.at = at, fault.error = EINTR;
        ck_assert_msg(s->save(1, folder) == ATMSAE_OK, "%s, call %ld: %s", s->name, at, atmsae_last_error(ctx));
        ck_assert(fault.hit);
        expect_version(s, 1, "after EINTR");
        expect_no_temporary(s, "after EINTR");
        memset(&fault, 0, sizeof fault);
        ck_assert_int_eq(s->save(0, folder), ATMSAE_OK);
    }
    forget_versions();
}
END_TEST

START_TEST(short_writes)
{
    static const size_t most[] = {1, 7, 511, 4096, 65537};
    const saver *s = &savers[_i];
    learn_versions(s);
    for (size_t i = 0; i < sizeof most / sizeof *most + 10; i++) {
        memset(&fault, 0, sizeof fault);
        if (i < sizeof most / sizeof *most) fault.most = most[i];
        else fault.random = (unsigned)i;
        if (s->save == save_bytes && fault.most && fault.most < 100) continue; /* two million calls */
        ck_assert_int_eq(s->save(1, folder), ATMSAE_OK);
        expect_version(s, 1, "short writes");
        ck_assert_int_eq(s->save(0, folder), ATMSAE_OK);
    }
    forget_versions();
}
END_TEST

/* A full disk shows as a short write, then an error. */
START_TEST(short_writes_then_full)
{
    const saver *s = &savers[_i];
    learn_versions(s);
    memset(&fault, 0, sizeof fault);
    fault.most = s->save == save_bytes ? 65536 : 512;
    ck_assert_int_eq(s->save(1, folder), ATMSAE_OK);
    const long calls = fault.calls;
    for (long at = 1; at <= calls; at++) {
        memset(&fault, 0, sizeof fault);
        ck_assert_int_eq(s->save(0, folder), ATMSAE_OK);
        memset(&fault, 0, sizeof fault);
        fault.most = s->save == save_bytes ? 65536 : 512;
        fault.at = at, fault.error = ENOSPC, fault.for_ever = true;
        (void)s->save(1, folder);
        fault.at = 0;
        (void)check_files(s, "short writes, then full");
        next_save_works(s, "short writes, then full");
    }
    forget_versions();
}
END_TEST

START_TEST(kills)
{
    const saver *s = &savers[_i];
    learn_versions(s);
    const long calls = count_calls(s);
    int seen[2] = {0};
    for (long at = 1; at <= calls; at++) {
        const pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            /* A context of its own: handles do not work on both sides of a fork. */
            ctx = small_context(1);
            ams_context_set_io(ctx, &fault_io);
            const small_setup *kind = &small_setups[1];
            small_begin(&runs[1], kind, ctx);
            small_until(&runs[1], 7);
            atmsae_model_config config;
            atmsae_model_config_init(&config, sizeof config);
            config.d_in = SMALL_D, config.d_sae = SMALL_F, config.activation = ATMSAE_TOPK, config.k = 5, config.seed = 1;
            if (atmsae_model_create(ctx, &config, &models[1]) < 0) _exit(9);
            memset(&fault, 0, sizeof fault);
            fault.at = at, fault.kill = true;
            (void)s->save(1, folder);
            _exit(1);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "call %ld: status %x", at, (unsigned)status);
        seen[check_files(s, "after a kill")]++;
        next_save_works(s, "after a kill");
    }
    ck_assert(seen[0] > 0 && seen[1] > 0);
    printf("%s: killed before each of %ld calls: old %d, new %d\n", s->name, calls, seen[0], seen[1]);
    forget_versions();
}
END_TEST

/* One save of an SAE that meets an error at a call, once or from there on for ever, which leaves what a kill before
 * that call leaves. False: it has fewer calls. */
static bool save_badly(int version, long at, bool for_ever)
{
    memset(&fault, 0, sizeof fault);
    fault.at = at, fault.error = EIO, fault.for_ever = for_ever;
    (void)save_folder(version, folder);
    const bool hit_one = fault.hit != 0;
    memset(&fault, 0, sizeof fault);
    return hit_one;
}

/* Two saves in a row that fail, each at each of its calls; and now and then a third. */
START_TEST(compound_faults)
{
    const saver *s = &savers[FOLDER];
    learn_versions(s);
    long pairs = 0, seen[2] = {0};
    bool more = true;
    for (long first = 1; more; first++)
        for (int mode = 0; mode < 4 && more; mode++)
            for (long second = 1; more; second++) {
                char what[80];
                snprintf(what, sizeof what, "call %ld %s, then call %ld %s", first, mode & 1 ? "and on" : "once", second,
                         mode & 2 ? "and on" : "once");
                more = save_badly(1, first, mode & 1);
                const int version = load_folder(what);
                const bool hit_one = save_badly(!version, second, mode >> 1);
                seen[load_folder(what) != version]++;
                if (pairs++ % 7 == 0) {
                    (void)save_badly(version, 1 + pairs % 40, pairs % 3);
                    (void)load_folder(what);
                }
                next_save_works(s, what);
                if (!hit_one) break;
            }
    printf("SAE folder: two faults in a row: %ld pairs, the earlier one %ld, the later one %ld\n", pairs, seen[0], seen[1]);
    ck_assert(pairs > 2500 && seen[0] > 0 && seen[1] > 0);
    forget_versions();
}
END_TEST

/* Signals that come faster than a call can end: the save does, whatever its status. */
START_TEST(interrupted_for_ever)
{
    const saver *s = &savers[_i];
    learn_versions(s);
    const long calls = count_calls(s);
    for (long at = 1; at <= calls; at++) {
        memset(&fault, 0, sizeof fault);
        fault.at = at, fault.error = EINTR, fault.for_ever = true, fault.only_one_kind = true;
        const atmsae_status status = s->save(1, folder);
        const unsigned kinds = fault.hit;
        memset(&fault, 0, sizeof fault);
        const int version = check_files(s, "interrupted for ever");
        ck_assert(status == ATMSAE_OK ? version == 1 : status == ATMSAE_E_IO);
        if (kinds == 1u << FALLOCATE) ck_assert_int_eq(status, ATMSAE_OK); /* it is no more than a look at the room */
        next_save_works(s, "interrupted for ever");
    }
    forget_versions();
}
END_TEST

/* Two threads load for as long as another saves one version after the other: each load gives one of the two. */
typedef struct reader {
    atmsae_context *ctx;
    atomic_int *stop;
    long loads, failures;
    char text[400];
} reader;

static void *read_on(void *arg)
{
    reader *r = arg;
    while (!atomic_load(r->stop)) {
        atmsae_model *model;
        r->loads++;
        if (atmsae_model_load(r->ctx, in_sae, &model) < 0) {
            r->failures++;
            snprintf(r->text, sizeof r->text, "%s", atmsae_last_error(r->ctx));
        } else {
            atmsae_model_config config = {.size = sizeof config};
            r->failures += atmsae_model_get_config(model, &config) < 0 || (config.k != 3 && config.k != 5);
        }
        atmsae_model_destroy(model);
    }
    return NULL;
}

START_TEST(readers_of_a_folder)
{
    enum { READERS = 2 };
    atomic_int stop = 0;
    reader readers[READERS];
    pthread_t threads[READERS];
    snprintf(in_sae, sizeof in_sae, "%s/sae", folder);
    ck_assert_int_eq(save_folder(0, folder), ATMSAE_OK);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){.ctx = small_context(1), .stop = &stop};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (int i = 0; i < 2000; i++)
        ck_assert_int_eq(save_folder(i % 2, folder), ATMSAE_OK);
    atomic_store(&stop, 1);
    for (int i = 0; i < READERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_msg(readers[i].failures == 0, "%ld of %ld: %s", readers[i].failures, readers[i].loads, readers[i].text);
        ck_assert_int_gt(readers[i].loads, 20);
        atmsae_context_destroy(readers[i].ctx);
    }
    printf("SAE folder: 2000 saves, %ld and %ld loads at the same time\n", readers[0].loads, readers[1].loads);
}
END_TEST

/* A limit of file size whose signal nobody ignores ends the process; the files are as after a kill. */
START_TEST(size_limit_with_its_signal)
{
    const saver *s = &savers[0];
    learn_versions(s);
    for (rlim_t limit = 1; limit < BLOB; limit = limit * 7 + 1) {
        const pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            ctx = small_context(1);
            signal(SIGXFSZ, SIG_DFL);
            const struct rlimit limits = {limit, limit}, no_core = {0, 0};
            setrlimit(RLIMIT_CORE, &no_core);
            setrlimit(RLIMIT_FSIZE, &limits);
            (void)s->save(1, folder);
            _exit(1);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ, "status %x", (unsigned)status);
        ck_assert_int_eq(check_files(s, "a limit of file size"), 0);
        next_save_works(s, "a limit of file size");
    }
    forget_versions();
}
END_TEST

/* Readers keep what they have, whether they read or map, while the file is replaced under them. */
START_TEST(readers)
{
    const saver *s = &savers[1];
    learn_versions(s);
    const int fd = open(in(folder, s->files[0]), O_RDONLY);
    ck_assert_int_ge(fd, 0);
    const size_t size = known[0].size[0];
    const char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert(map != MAP_FAILED);
    atmsae_tensors *tensors;
    ck_assert_int_eq(atmsae_tensors_open(ctx, in(folder, s->files[0]), &tensors), ATMSAE_OK);
    for (int i = 1; i <= 20; i++) {
        ck_assert_int_eq(s->save(i % 2, folder), ATMSAE_OK);
        expect_version(s, i % 2, "for a new reader");
        ck_assert_mem_eq(map, known[0].bytes[0], size);
        char *bytes = malloc(size);
        ck_assert_int_eq(pread(fd, bytes, size, 0), (ssize_t)size);
        ck_assert_mem_eq(bytes, known[0].bytes[0], size);
        free(bytes);
        ck_assert_int_eq(ams_tensors_verify(tensors), ATMSAE_OK);
    }
    atmsae_tensors_close(tensors);
    munmap((void *)(uintptr_t)map, size);
    close(fd);
    forget_versions();
}
END_TEST

/* An SAE of others, without marks, is not mixed with ours either; and ours, saved by others with our
 * cfg.json's metadata kept, stays readable. */
START_TEST(pairs)
{
    atmsae_model *model;
    char *cfg, *weights;
    size_t cfg_size, weights_size;
    ck_assert_int_eq(save_folder(0, folder), ATMSAE_OK);
    cfg = small_read(in(folder, "sae/cfg.json"), &cfg_size);
    weights = small_read(in(folder, "sae/sae_weights.safetensors"), &weights_size);

    char *key = strstr(cfg, "weights_crc64");
    ck_assert_ptr_nonnull(key);
    key[0] = 'W'; /* a cfg.json without it */
    small_write(in(folder, "sae/cfg.json"), cfg, cfg_size);
    ck_assert_int_eq(atmsae_model_load(ctx, in(folder, "sae"), &model), ATMSAE_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "weights_crc64 is missing"));
    key[0] = 'w';
    small_write(in(folder, "sae/cfg.json"), cfg, cfg_size);
    ck_assert_int_eq(atmsae_model_load(ctx, in(folder, "sae"), &model), ATMSAE_OK);
    atmsae_model_destroy(model);

    for (size_t at = weights_size - 1; at > 200; at -= at > 400 ? 97 : 1) { /* a flipped bit in the weights */
        weights[at] ^= 1;
        small_write(in(folder, "sae/sae_weights.safetensors"), weights, weights_size);
        weights[at] ^= 1;
        const atmsae_status status = atmsae_model_load(ctx, in(folder, "sae"), &model);
        ck_assert_msg(status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_UNSUPPORTED || status == ATMSAE_E_LIMIT,
                      "byte %zu: %s", at, atmsae_status_name(status));
        ck_assert_ptr_null(model);
    }

    /* The weights as others would write them: the same tensors, no metadata. */
    static float w_enc[SMALL_D * SMALL_F], w_dec[SMALL_F * SMALL_D], b_enc[SMALL_F], b_dec[SMALL_D];
    const ams_tensor_out out[] = {
        {.name = "W_enc", .dtype = "F32", .rank = 2, .shape = {SMALL_D, SMALL_F}, .data = w_enc},
        {.name = "W_dec", .dtype = "F32", .rank = 2, .shape = {SMALL_F, SMALL_D}, .data = w_dec},
        {.name = "b_enc", .dtype = "F32", .rank = 1, .shape = {SMALL_F}, .data = b_enc},
        {.name = "b_dec", .dtype = "F32", .rank = 1, .shape = {SMALL_D}, .data = b_dec},
    };
    ck_assert_int_eq(ams_safetensors_write(ctx, in(folder, "sae/sae_weights.safetensors"), out, 4, NULL, 0, false), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_load(ctx, in(folder, "sae"), &model), ATMSAE_OK);
    atmsae_model_destroy(model);
    free(cfg);
    free(weights);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io faults");
    TCase *t = tcase_create("saves");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, errors, 0, SAVERS);
    tcase_add_loop_test(t, interruptions, 0, SAVERS);
    tcase_add_loop_test(t, short_writes, 0, SAVERS);
    tcase_add_loop_test(t, short_writes_then_full, 0, SAVERS);
    tcase_add_loop_test(t, kills, 0, SAVERS);
    tcase_add_test(t, compound_faults);
    tcase_add_loop_test(t, interrupted_for_ever, 0, SAVERS);
    tcase_add_test(t, readers_of_a_folder);
    tcase_add_test(t, size_limit_with_its_signal);
    tcase_add_test(t, readers);
    tcase_add_test(t, pairs);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
