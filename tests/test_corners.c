/* SPDX-License-Identifier: MIT
 *
 * What tests of ordinary use do not reach: checkpoints with a right checksum and one wrong setting,
 * tensor or array; and system and library calls that fail (the linker's --wrap puts them between).
 * Whatever happens: the status that the header promises, a text that names what is wrong, no leak, and
 * a context that goes on.
 */
#include "base/context.h"
#include "format/json.h"
#include "format/tensors.h"
#include "small_run.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- calls that fail on demand ------------------------------------------------------------------------- */

enum { OPEN, FSTAT, PREAD, LSTAT, READLINK, NAMES, CHOWN, GET_LIST, SET_LIST, LOCALE, MUTEX, THREAD, CPUS, MEMORY, /* the library's own calls */
       CREATE, REOPEN, LOCK, UNLINK, SYNC_FOLDER };                                                              /* through ams_io */
static struct {
    int kind, error;
    int then;       /* error of the calls hit after the first; 0: the same, and only one is hit unless all are */
    long calls, at; /* the call of this kind to hit, from 1; 0: none; -1: all */
    size_t most;    /* bytes that a pread gives; 0: all */
} fault;

static bool hit(int kind)
{
    if (kind != fault.kind || fault.at == 0) return false;
    const long call = ++fault.calls, first = fault.at < 0 ? 1 : fault.at;
    if (fault.at > 0 && call != first && !(fault.then && call == first + 1)) return false;
    errno = fault.then && call > first ? fault.then : fault.error;
    return true;
}

static void fail_then(int kind, long at, int error, int then)
{
    fault.kind = kind;
    fault.calls = 0;
    fault.at = at;
    fault.error = error;
    fault.then = then;
}

static void fail_at(int kind, long at, int error) { fail_then(kind, at, error, 0); }

/* What the system says of files without failing. */
static struct {
    bool other_group, other_device; /* fstat: the file's are others than those of its name */
    ssize_t list;     /* getxattr: a list of so many bytes, which fsetxattr takes; -1: what there is */
    bool endless;     /* pread: gives all that is asked for, and writes none of it */
    size_t asked, most_asked; /* of an endless file: bytes in all, and at once */
} world = {.list = -1};

/* Large-file builds call the names with 64. */
#define WRAP(type, name, parameters, arguments, kind)   \
    type __real_##name parameters;                      \
    type __wrap_##name parameters;                      \
    type __wrap_##name parameters { return hit(kind) ? (type)-1 : __real_##name arguments; }
#define WRAP_OPEN(name)                                                  \
    int __real_##name(const char *path, int flags, ...);                 \
    int __wrap_##name(const char *path, int flags, ...);                 \
    int __wrap_##name(const char *path, int flags, ...)                  \
    {                                                                    \
        return hit(OPEN) ? -1 : __real_##name(path, flags); /* never O_CREAT */ \
    }
static ssize_t read_endless(size_t n, off_t at)
{
    ck_assert_uint_eq((uint64_t)at, world.asked);
    world.asked += n;
    if (n > world.most_asked) world.most_asked = n;
    return (ssize_t)n;
}
static int with_others(int result, struct stat *st)
{
    st->st_gid += result == 0 && world.other_group;
    st->st_dev += result == 0 && world.other_device;
    return result;
}
#define WRAP_FSTAT(name)                                                 \
    int __real_##name(int fd, struct stat *st);                          \
    int __wrap_##name(int fd, struct stat *st);                          \
    int __wrap_##name(int fd, struct stat *st) { return hit(FSTAT) ? -1 : with_others(__real_##name(fd, st), st); }
#define WRAP_PREAD(name)                                                 \
    ssize_t __real_##name(int fd, void *out, size_t n, off_t at);        \
    ssize_t __wrap_##name(int fd, void *out, size_t n, off_t at);        \
    ssize_t __wrap_##name(int fd, void *out, size_t n, off_t at)         \
    {                                                                    \
        if (hit(PREAD)) return -1;                                       \
        if (world.endless) return read_endless(n, at);                   \
        return __real_##name(fd, out, fault.most && n > fault.most ? fault.most : n, at); \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)
WRAP_PREAD(pread)
WRAP_PREAD(pread64)
WRAP_FSTAT(fstat)
WRAP_FSTAT(fstat64)
WRAP(int, lstat, (const char *path, struct stat *st), (path, st), LSTAT)
WRAP(int, lstat64, (const char *path, struct stat *st), (path, st), LSTAT)
WRAP(ssize_t, readlink, (const char *path, char *out, size_t n), (path, out, n), READLINK)
WRAP(long, fpathconf, (int fd, int name), (fd, name), NAMES)
WRAP(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), CHOWN)
WRAP(long, sysconf, (int name), (name), CPUS)
WRAP(int, sched_getaffinity, (pid_t pid, size_t bytes, cpu_set_t *set), (pid, bytes, set), CPUS)

ssize_t __real_getxattr(const char *path, const char *name, void *value, size_t size);
ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t size);
ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t size)
{
    if (hit(GET_LIST)) return -1;
    if (world.list < 0) return __real_getxattr(path, name, value, size);
    memset(value, 0, (size_t)world.list);
    return world.list;
}
int __real_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    if (hit(SET_LIST)) return -1;
    return world.list < 0 ? __real_fsetxattr(fd, name, value, size, flags) : 0;
}
int __real_posix_memalign(void **out, size_t align, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    return hit(MEMORY) ? ENOMEM : __real_posix_memalign(out, align, bytes);
}
locale_t __real_newlocale(int mask, const char *name, locale_t base);
locale_t __wrap_newlocale(int mask, const char *name, locale_t base);
locale_t __wrap_newlocale(int mask, const char *name, locale_t base)
{
    return hit(LOCALE) ? (locale_t)0 : __real_newlocale(mask, name, base);
}
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
    return hit(MUTEX) ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg)
{
    return hit(THREAD) ? EAGAIN : __real_pthread_create(thread, attributes, start, arg);
}

void __gcov_dump(void) __attribute__((weak));

/* ---- a checkpoint and its edited copies ---------------------------------------------------------------- */

enum { ROOM = 160 };
typedef struct contents {
    ams_tensor_out tensor[ROOM];
    uint64_t n_tensors;
    ams_metadata_out metadata[ROOM];
    uint64_t n_metadata;
    atmsae_tensors *file; /* names and texts are its own */
} contents;

static atmsae_context *ctx;
static const char *folder;
static char original[100], edited[100];
static contents whole;
static const small_setup *setup;

static void expect_ok(atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static void open_folder(void)
{
    folder = small_folder();
    snprintf(original, sizeof original, "%s/original", folder);
    snprintf(edited, sizeof edited, "%s/edited", folder);
    ctx = small_context(1);
}

static void close_folder(void)
{
    fail_at(OPEN, 0, 0);
    fault.most = 0;
    world.endless = world.other_device = false;
    atmsae_context_destroy(ctx);
    small_remove(folder);
}

static void make_checkpoint(const small_setup *which, bool with_source, uint64_t steps)
{
    setup = which;
    small_run run;
    small_begin(&run, setup, ctx);
    small_until(&run, steps);
    expect_ok(atmsae_trainer_save(run.trainer, with_source ? run.source : NULL, original));
    small_end(&run);
    memset(&whole, 0, sizeof whole);
    expect_ok(atmsae_tensors_open(ctx, original, &whole.file));
    const atmsae_tensors *file = whole.file;
    for (uint64_t i = 0; i + 1 < file->count; i++) { /* the last one is the checksum */
        const ams_tensor *t = &file->items[i];
        char *data = malloc(t->bytes + 16);
        ck_assert_ptr_nonnull(data);
        expect_ok(ams_tensors_read_raw(file, i, 0, t->count, data));
        ck_assert_uint_eq(t->rank, 1);
        whole.tensor[whole.n_tensors++] = (ams_tensor_out){t->name, t->dtype->name, 1, {t->count}, data, NULL, NULL};
    }
    memcpy(whole.metadata, file->metadata, file->n_metadata * sizeof *file->metadata);
    whole.n_metadata = file->n_metadata;
}

static void drop_checkpoint(void)
{
    for (uint64_t i = 0; i < whole.n_tensors; i++)
        free((void *)(uintptr_t)whole.tensor[i].data);
    atmsae_tensors_close(whole.file);
}

/* Loads what was written last; a source comes along if the original was saved with one, or is wanted. */
static atmsae_status load(bool with_source)
{
    small_run run = {0};
    atmsae_status status;
    if (with_source) {
        status = small_load(&run, setup, ctx, edited, SMALL_N * 8);
    } else {
        status = atmsae_trainer_load(ctx, edited, NULL, &run.trainer);
        ck_assert_int_eq(run.trainer != NULL, status == ATMSAE_OK);
    }
    if (status == ATMSAE_OK) {
        char again[110];
        snprintf(again, sizeof again, "%s.2", edited);
        expect_ok(atmsae_trainer_save(run.trainer, run.source, again));
    }
    small_end(&run);
    return status;
}

static void write_copy(const contents *c)
{
    expect_ok(ams_safetensors_write(ctx, edited, c->tensor, c->n_tensors, c->metadata, c->n_metadata, true));
}

static void expect(atmsae_status status, atmsae_status wanted, const char *name, const char *how)
{
    ck_assert_msg(status == wanted, "%s %s: %s, expected %s: %s", name, how, atmsae_status_name(status),
                  atmsae_status_name(wanted),
                  atmsae_last_error(ctx));
    if (wanted == ATMSAE_OK) return;
    ck_assert_msg(strstr(atmsae_last_error(ctx), name) && strstr(atmsae_last_error(ctx), edited),
                  "%s %s: the text is \"%s\"", name,
                  how, atmsae_last_error(ctx));
}

/* ---- settings ------------------------------------------------------------------------------------------ */

START_TEST(every_setting)
{
    static const char *const no_numbers[] = {NULL, "", "x", "1x", "1,5", "1 ", "--1", "0x"};
    static const char *const out_of_range[] = {"-1", "18446744073709551616", "99999999999999999999", "2147483648",
                                               "-2147483649",
                                               "18446744073709551615", "nan", "inf", "-inf", "1e999", "-1e300", "1e300"};
    /* Those that came after the first release, which a file may lack: they are there where they were used. */
    static const char *const later[] = {"trainer.skip_bad_rows", "trainer.bad_rows", "trainer.max_norm", "trainer.norm_limit", "trainer.outlier_rows"};
    static const int setups[] = {5, 6, 12, 15};
    /* A setting that is not used may be NaN. */
    make_checkpoint(&small_setups[setups[_i]], false, 4); /* BatchTopK with prefixes; JumpReLU; one with bad rows; one with outliers */
    unsigned settings = 0, refused = 0;
    for (uint64_t i = 0; i < whole.n_metadata; i++) {
        const char *key = whole.metadata[i].key;
        if (!strchr(key, '.')) continue; /* format, version */
        settings++;
        contents copy = whole;
        for (size_t k = 0; k < sizeof no_numbers / sizeof *no_numbers; k++) {
            copy = whole;
            copy.metadata[i].value = no_numbers[k];
            if (!no_numbers[k]) copy.metadata[i] = copy.metadata[--copy.n_metadata];
            write_copy(&copy);
            bool may_lack = false;
            for (size_t l = 0; l < sizeof later / sizeof *later; l++)
                may_lack = may_lack || (!no_numbers[k] && strcmp(key, later[l]) == 0);
            expect(load(false), may_lack ? ATMSAE_OK : ATMSAE_E_FORMAT, key, no_numbers[k] ? no_numbers[k] : "missing");
        }
        copy = whole;
        copy.metadata[i].value = "0.25";
        write_copy(&copy);
        bool is_double = load(false) != ATMSAE_E_FORMAT;
        for (size_t k = 0; k < sizeof out_of_range / sizeof *out_of_range; k++) {
            copy = whole;
            copy.metadata[i].value = out_of_range[k];
            write_copy(&copy);
            atmsae_status status = load(false);
            ck_assert_msg(status == ATMSAE_OK || status == ATMSAE_E_FORMAT || status == ATMSAE_E_ARG ||
                          status == ATMSAE_E_LIMIT,
                          "%s = %s: %s: %s", key, out_of_range[k], atmsae_status_name(status), atmsae_last_error(ctx));
            ck_assert_msg(is_double || k < 6 || status == ATMSAE_E_FORMAT, "%s = %s was taken", key, out_of_range[k]);
            refused += status < 0;
        }
    }
    ck_assert_uint_eq(settings, _i == 2 ? 54 : _i == 3 ? 55 : 52);
    ck_assert_uint_gt(refused, settings * 6);
    drop_checkpoint();
}
END_TEST

START_TEST(sizes_that_do_not_fit)
{
    make_checkpoint(&small_setups[5], false, 4);
    static const struct {
        const char *key, *value, *named;
    } cases[] = {{"model.d_out", "0", NULL}, {"model.d_sae", "41", "W_enc"}, {"model.d_sae", "6148914691236517206",
                                                                              "W_enc"}, {"model.d_in", "13", "W_enc"},
                 {"model.d_out", "13", "W_dec"}, {"model.n_prefixes", "64", "model.n_prefixes"},
                 {"model.n_prefixes", "18446744073709551615", "model.n_prefixes"}, {"model.n_prefixes", "1",
                                                                                    "prefixes"}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        contents copy = whole;
        for (uint64_t i = 0; i < copy.n_metadata; i++)
            if (strcmp(copy.metadata[i].key, cases[k].key) == 0) copy.metadata[i].value = cases[k].value;
        write_copy(&copy);
        expect(load(false), cases[k].named ? ATMSAE_E_FORMAT : ATMSAE_OK, cases[k].named, cases[k].value);
    }
    drop_checkpoint();
}
END_TEST

/* What target_l0 has done to the coefficient is a number that training keeps within bounds (train/target.c). */
START_TEST(a_coefficient_that_no_run_has)
{
    static const struct {
        const char *value;
        atmsae_status status;
    } cases[] = {{"15", ATMSAE_OK}, {"-15", ATMSAE_OK}, {"15.000001", ATMSAE_E_FORMAT}, {"-15.000001", ATMSAE_E_FORMAT},
                 {"1e300", ATMSAE_E_FORMAT}, {"nan", ATMSAE_E_FORMAT}, {"-inf", ATMSAE_E_FORMAT}};
    make_checkpoint(&small_setups[6], false, 4); /* JumpReLU */
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        contents copy = whole;
        copy.metadata[copy.n_metadata++] = (ams_metadata_out){"trainer.log_coef", cases[k].value};
        write_copy(&copy);
        expect(load(false), cases[k].status, "trainer.log_coef", cases[k].value);
    }
    drop_checkpoint();
}
END_TEST

/* ---- tensors ------------------------------------------------------------------------------------------- */

static void check_tensor(uint64_t i)
{
    const char *name = whole.tensor[i].name, *dtype = whole.tensor[i].dtype;
    const bool floats = dtype[0] == 'F', wide = strcmp(dtype, "F64") == 0;
    contents copy = whole;
    copy.tensor[i] = copy.tensor[--copy.n_tensors];
    write_copy(&copy);
    expect(load(false), ATMSAE_E_FORMAT, name, "missing");
    copy = whole;
    copy.tensor[i].dtype = wide || dtype[1] == '6' ? "I64" : dtype[1] == '8' ? "I8" : "I32";
    write_copy(&copy);
    expect(load(false), ATMSAE_E_FORMAT, name, "of another type");
    copy = whole;
    copy.tensor[i].rank = 2;
    copy.tensor[i].shape[1] = copy.tensor[i].shape[0];
    copy.tensor[i].shape[0] = 1;
    write_copy(&copy);
    expect(load(false), ATMSAE_E_FORMAT, name, "of rank 2");
    for (int more = whole.tensor[i].shape[0] ? -1 : 1; more <= 1; more += 2) { /* the data have room for one more */
        copy = whole;
        copy.tensor[i].shape[0] += (uint64_t)more;
        write_copy(&copy);
        expect(load(false), ATMSAE_E_FORMAT, name, "of another length");
    }
    if (!floats) return;
    const double values[] = {NAN, INFINITY, -INFINITY, -1};
    for (int k = 0; k < 4; k++) {
        double d = values[k], old_d;
        float f = (float)d, old_f;
        void *at = (void *)(uintptr_t)whole.tensor[i].data;
        memcpy(&old_d, at, 8);
        memcpy(&old_f, at, 4);
        if (wide) memcpy(at, &d, 8);
        else memcpy(at, &f, 4);
        write_copy(&whole);
        atmsae_status status = load(false);
        const bool may_be_nan = strcmp(name, "batch_threshold") == 0 && k == 0;
        const bool may_be_negative = k == 3 && !wide && !strstr(name, "adam_v") && !strstr(name, "scale") &&
                                     (!strstr(name, "threshold") || strstr(name, "log_"));
        if (may_be_nan || may_be_negative) expect(status, ATMSAE_OK, name, "changed");
        else expect(status, k < 3 ? ATMSAE_E_NONFINITE : ATMSAE_E_FORMAT, name, "changed");
        if (wide) memcpy(at, &old_d, 8);
        else memcpy(at, &old_f, 4);
    }
}

/* A newer version's settings and tensors mean something: they are refused by name, not left out. Other metadata
 * describe the file. */
START_TEST(what_a_newer_version_adds)
{
    make_checkpoint(&small_setups[5], false, 4);
    contents copy = whole;
    copy.metadata[copy.n_metadata++] = (ams_metadata_out){"masker.kind_2", "0"};
    write_copy(&copy);
    expect(load(false), ATMSAE_E_VERSION, "masker.kind_2 = 0", "unknown");
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), atmsae_version_string()));
    copy = whole;
    copy.tensor[copy.n_tensors] = copy.tensor[0];
    copy.tensor[copy.n_tensors++].name = "W_skip";
    write_copy(&copy);
    expect(load(false), ATMSAE_E_VERSION, "tensor W_skip", "unknown");
    for (uint64_t i = 0; i < copy.n_metadata; i++) /* of a program that does not say what it is */
        if (strcmp(copy.metadata[i].key, "version") == 0) copy.metadata[i] = copy.metadata[--copy.n_metadata];
    write_copy(&copy);
    expect(load(false), ATMSAE_E_VERSION, "version unknown", "missing");
    copy = whole;
    copy.metadata[copy.n_metadata++] = (ams_metadata_out){"note", "0"};
    write_copy(&copy);
    expect(load(false), ATMSAE_OK, "note", "unknown");
    drop_checkpoint();
}
END_TEST

START_TEST(every_tensor)
{
    make_checkpoint(&small_setups[_i ? 6 : 5], false, 4);
    for (uint64_t i = 0; i < whole.n_tensors; i++)
        check_tensor(i);
    drop_checkpoint();
}
END_TEST

/* ---- the source's part --------------------------------------------------------------------------------- */

START_TEST(every_array_of_the_source)
{
    make_checkpoint(&small_setups[_i ? 9 : 1], true, 8); /* a callback; memory */
    write_copy(&whole);
    expect(load(true), ATMSAE_OK, "", "unchanged");
    unsigned arrays = 0;
    for (uint64_t i = 0; i < whole.n_tensors; i++) {
        const char *name = whole.tensor[i].name;
        if (strncmp(name, "source.", 7) != 0) continue;
        arrays++;
        contents copy = whole;
        copy.tensor[i].dtype = whole.tensor[i].dtype[0] == 'F' ? "I32" : "I64";
        write_copy(&copy);
        expect(load(true), ATMSAE_E_FORMAT, name, "of another type");
        copy = whole;
        copy.tensor[i].rank = 2;
        copy.tensor[i].shape[1] = 1;
        write_copy(&copy);
        expect(load(true), ATMSAE_E_FORMAT, name, "of rank 2");
        copy = whole;
        copy.tensor[i] = copy.tensor[--copy.n_tensors];
        write_copy(&copy);
        atmsae_status status = load(true);
        ck_assert_msg(strcmp(name, "source.position") != 0 || status == ATMSAE_E_STATE, "%s", atmsae_last_error(ctx));
        ck_assert_msg(status < 0 || whole.tensor[i].shape[0] == 0, "%s was not missed", name);
        ck_assert_int_eq(load(false), ATMSAE_OK); /* who has no source need not have its place */
        for (uint64_t n = 0; n < 4; n++) {
            copy = whole;
            if (n == whole.tensor[i].shape[0] || (n == 0 && whole.tensor[i].dtype[0] == 'F')) continue;
            copy.tensor[i].shape[0] = ams_min(n, whole.tensor[i].shape[0] + 1);
            write_copy(&copy);
            status = load(true);
            ck_assert_msg(status < 0 && *atmsae_last_error(ctx), "%s of length %d was taken", name, (int)n);
        }
    }
    ck_assert_uint_ge(arrays, 2);
    drop_checkpoint();
}
END_TEST

START_TEST(saved_without_a_source)
{
    make_checkpoint(&small_setups[0], false, 0);
    write_copy(&whole);
    expect(load(true), ATMSAE_E_STATE, "source", "missing");
    expect(load(false), ATMSAE_OK, "", "");
    drop_checkpoint();
}
END_TEST

/* ---- marks of the file --------------------------------------------------------------------------------- */

START_TEST(checksums)
{
    static const uint64_t words[2] = {1, 2};
    static const ams_metadata_out mark = {"format", "libatmsae checkpoint 1"};
    static const ams_tensor_out none = {"x", "U64", 1, {1}, words, NULL, NULL}, two = {"checksum", "U64", 1, {2},
                                                                                       words, NULL, NULL},
                                other = {"checksum", "F64", 1, {1}, words, NULL, NULL},
                                early[] = {{"checksum", "U64", 1, {1}, words, NULL, NULL}, {"x", "U64", 1, {1}, words,
                                                                                            NULL, NULL}},
                                wrong = {"checksum", "U64", 1, {1}, words, NULL, NULL};
    const struct {
        const ams_tensor_out *tensor;
        uint64_t n;
    } cases[] = {{&none, 1}, {&two, 1}, {&other, 1}, {early, 2}, {&wrong, 1}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        expect_ok(ams_safetensors_write(ctx, edited, cases[k].tensor, cases[k].n, &mark, 1, false));
        setup = &small_setups[0];
        expect(load(false), ATMSAE_E_FORMAT, "checksum", "");
    }
    expect_ok(ams_safetensors_write(ctx, edited, &none, 1, NULL, 0, true));
    expect(load(false), ATMSAE_E_FORMAT, "not a libatmsae checkpoint", "");
}
END_TEST

/* ---- reading that fails -------------------------------------------------------------------------------- */

static atmsae_status open_and_read(const char *path)
{
    atmsae_tensors *file;
    atmsae_status status = atmsae_tensors_open(ctx, path, &file);
    ck_assert_int_eq(file != NULL, status == ATMSAE_OK);
    for (uint64_t i = 0; i < atmsae_tensors_count(file) && status == ATMSAE_OK; i++) {
        char out[4096];
        atmsae_tensor_info info = {.size = sizeof info};
        expect_ok(atmsae_tensors_info(file, i, &info));
        const uint64_t n = info.rank ? info.shape[0] : 1;
        status = info.dtype[0] == 'F' ? atmsae_tensors_read_f32(file, i, (float *)out, n)
                                      : atmsae_tensors_read_i64(file, i, (int64_t *)out, n);
    }
    uint64_t crc;
    if (status == ATMSAE_OK) status = ams_tensors_crc(file, &crc);
    if (status == ATMSAE_OK && file->n_metadata) status = ams_tensors_verify(file);
    atmsae_tensors_close(file);
    return status;
}

static atmsae_status read_model(const char *path)
{
    atmsae_model *model;
    atmsae_status status = atmsae_model_load(ctx, path, &model);
    ck_assert_int_eq(model != NULL, status == ATMSAE_OK);
    atmsae_model_destroy(model);
    return status;
}

static atmsae_status read_checkpoint(const char *path)
{
    small_run run;
    atmsae_status status = small_load(&run, setup, ctx, path, SMALL_N * 8);
    small_end(&run);
    return status;
}

/* Every open, fstat and pread of a reader fails once, for ever, is interrupted, or gives a byte at a
 * time; or the file ends early. */
static void check_reader(const char *path, atmsae_status (*reader)(const char *))
{
    for (int kind = OPEN; kind <= PREAD; kind++) {
        long at = 0;
        for (atmsae_status status = ATMSAE_E_IO; status != ATMSAE_OK;) {
            fail_at(kind, ++at, EIO);
            status = reader(path);
            if (status == ATMSAE_OK) break;
            ck_assert_msg(status == ATMSAE_E_IO && strstr(atmsae_last_error(ctx), folder),
                          "kind %d, call %ld: %s: %s", kind, at,
                          atmsae_status_name(status), atmsae_last_error(ctx));
            fail_at(kind, at, EINTR);
            if (kind != FSTAT) expect_ok(reader(path)); /* fstat is never interrupted */
        }
        ck_assert_msg(at > 1, "no call of kind %d in %s", kind, path);
        fail_at(kind, -1, EIO);
        ck_assert_int_eq(reader(path), ATMSAE_E_IO);
        fail_at(kind, -1, EINTR); /* signals that come faster than the call can end */
        ck_assert_int_eq(reader(path), ATMSAE_E_IO);
        if (kind != FSTAT) ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "Interrupted"));
    }
    fail_at(OPEN, 0, 0);
    fault.most = 1;
    expect_ok(reader(path));
    fault.most = 0;
}

/* Wherever reading the newest checkpoint fails, the one before it goes on with the same source, and comes to the same
 * bytes. */
START_TEST(the_one_before_it)
{
    char before[120], newest[120], again[120];
    small_run run;
    snprintf(before, sizeof before, "%s/before", folder);
    snprintf(newest, sizeof newest, "%s/newest", folder);
    snprintf(again, sizeof again, "%s/again", folder);
    setup = &small_setups[1];
    small_begin(&run, setup, ctx);
    small_until(&run, 3);
    expect_ok(atmsae_trainer_save(run.trainer, run.source, before));
    small_until(&run, 5);
    expect_ok(atmsae_trainer_save(run.trainer, run.source, newest));
    small_end(&run);
    size_t size, size_again;
    char *bytes = small_read(newest, &size);
    long at = 0;
    for (bool failed = true; failed;) {
        atmsae_trainer *trainer;
        small_begin(&run, setup, ctx);
        fail_at(PREAD, ++at, EIO);
        const atmsae_status status = atmsae_trainer_load(ctx, newest, run.source, &trainer);
        fail_at(OPEN, 0, 0);
        failed = status < 0;
        if (failed) {
            ck_assert_int_eq(status, ATMSAE_E_IO);
            ck_assert_ptr_null(trainer);
            expect_ok(atmsae_trainer_load(ctx, before, run.source, &trainer));
        }
        atmsae_trainer_destroy(run.trainer);
        run.trainer = trainer;
        small_until(&run, 5);
        expect_ok(atmsae_trainer_save(run.trainer, run.source, again));
        char *bytes_again = small_read(again, &size_again);
        ck_assert(size_again == size && memcmp(bytes, bytes_again, size) == 0);
        free(bytes_again);
        small_end(&run);
    }
    ck_assert_int_gt(at, 10);
    free(bytes);
}
END_TEST

START_TEST(reading_fails)
{
    static const char npy[] = "\x93NUMPY\x01\x00\x36\x00{'descr':'<f8','fortran_order':False,'shape':(2,)}    \n"
                              "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\0";
    char path[110];
    snprintf(path, sizeof path, "%s/x.npy", folder);
    small_write(path, npy, 10 + 0x36 + 16);
    check_reader(path, open_and_read);

    make_checkpoint(&small_setups[9], true, 8);
    check_reader(original, open_and_read);
    check_reader(original, read_checkpoint);
    drop_checkpoint();

    static const uint64_t empty[] = {0};
    const ams_tensor_out tensors[] = {{"b", "BOOL", 1, {3}, "\1\0\1", NULL, NULL}, {"u", "U8", 1, {2}, "\1\2", NULL,
                                                                                    NULL},
                                      {"i", "I16", 1, {1}, "\xff\xff", NULL, NULL}, {"h", "F16", 1, {1}, "\0\x3c",
                                                                                     NULL, NULL},
                                      {"none", "F32", 1, {0}, empty, NULL, NULL}};
    expect_ok(ams_safetensors_write(ctx, edited, tensors, 5, NULL, 0, true));
    check_reader(edited, open_and_read);

    for (unsigned i = 0; i < 3; i++) { /* with W_enc, threshold; without */
        small_run run;
        small_begin(&run, &small_setups[(const int[]){1, 6, 8}[i]], ctx);
        snprintf(path, sizeof path, "%s/sae", folder);
        expect_ok(atmsae_model_save(atmsae_trainer_model(run.trainer), path, NULL));
        small_end(&run);
        check_reader(path, read_model);
    }
}
END_TEST

/* Some kernels read at most 2 GiB at once, so that what is longer is read in parts, here of 1 GiB; its memory is not
 * touched. */
START_TEST(reading_more_than_a_gigabyte)
{
    const size_t bytes = ((size_t)5 << 29) + 7;
    void *room = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert(room != MAP_FAILED);
    world.endless = true;
    expect_ok(ams_pread(ctx, "endless", -1, room, bytes, 0));
    ck_assert_uint_eq(world.asked, bytes);
    ck_assert_uint_eq(world.most_asked, (size_t)1 << 30);
    munmap(room, bytes);
}
END_TEST

/* The same of SAEs in archives: .npz, and .pt with its config.json. */
START_TEST(reading_archives_fails)
{
    static const char *const files[][2] = {{"gemma_scope/params.npz", "params.npz"}, {"dictionary_AutoEncoderTopK/config.json", "config.json"},
                                           {"dictionary_AutoEncoderTopK/ae.pt", "ae.pt"}};
    const char *tests = getenv("ATMSAE_TESTS");
    char from[512], to[110];
    static char bytes[1 << 16];
    for (int i = 0; i < 3; i++) {
        snprintf(from, sizeof from, "%s/fixtures/formats/%s", tests ? tests : "tests", files[i][0]);
        FILE *file = fopen(from, "rb");
        ck_assert_msg(file != NULL, "cannot read %s", from);
        const size_t n = fread(bytes, 1, sizeof bytes, file);
        ck_assert(n > 0 && n < sizeof bytes);
        fclose(file);
        snprintf(to, sizeof to, "%s/%s", folder, files[i][1]);
        small_write(to, bytes, n);
        if (i == 1) continue;
        if (read_model(to) == ATMSAE_E_UNSUPPORTED && strstr(atmsae_last_error(ctx), "built without")) continue;
        check_reader(to, read_model);
    }
}
END_TEST

/* ---- paths of writing ---------------------------------------------------------------------------------- */

static void expect_no_write(const char *path, const char *reason)
{
    atmsae_status status = ams_write_file(ctx, path, "x", 1);
    ck_assert_msg(status == ATMSAE_E_IO && strstr(atmsae_last_error(ctx), reason), "%.100s: %.300s", path,
                  atmsae_last_error(ctx));
}

START_TEST(names_that_cannot_be_written)
{
    char link[200], target[5000], *longest = malloc(5000);
    ck_assert_ptr_nonnull(longest);
    memset(longest, 'x', 4999);
    longest[4999] = '\0';
    expect_no_write(longest, ""); /* the reason is behind the end of the text */
    snprintf(link, sizeof link, "%s/link", folder);

    memset(target, 'y', sizeof target); /* fits as a link, not behind the folder */
    target[4090] = '\0';
    ck_assert_int_eq(symlink(target, link), 0);
    expect_no_write(link, "File name too long");
    unlink(link);
    ck_assert_int_eq(symlink("link", link), 0);
    expect_no_write(link, "Too many levels");
    unlink(link);
    ck_assert_int_eq(symlink("/", link), 0);
    expect_no_write(link, "directory");
    unlink(link);

    fail_at(LSTAT, 1, EACCES);
    expect_no_write(link, "Permission denied");
    ck_assert_int_eq(symlink("there", link), 0);
    fail_at(READLINK, 1, EIO);
    expect_no_write(link, "Input/output error");
    fail_at(READLINK, 0, 0);
    expect_ok(ams_write_file(ctx, link, "x", 1));
    free(longest);

    /* A folder's own names, and the root. */
    expect_no_write("", "");
    expect_no_write("/atmsae-no-such-folder/x", "No such file");
    char here[4096];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_eq(chdir(folder), 0);
    expect_ok(ams_write_file(ctx, "plain", "x", 1));
    ck_assert_int_eq(access("plain", F_OK), 0);
    ck_assert_int_eq(chdir(here), 0);
}
END_TEST

/* ---- the temporary file -------------------------------------------------------------------------------- */

enum { NOTHING, GONE, ALWAYS_GONE, SWAPPED, WRITES_NOTHING, MOVED_ALL_THE_SAME };
static int trick; /* what happens to the temporary file while it is locked, or to a call on it */
static char temporary[120];
static long io_calls;

static int io_openat(int dir, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    io_calls++;
    if (flags & O_CREAT ? hit(CREATE) : !(flags & O_DIRECTORY) && hit(REOPEN)) return -1;
    return openat(dir, path, flags, mode);
}
static int io_flock(int fd, int operation)
{
    io_calls++;
    if (trick == GONE || trick == ALWAYS_GONE || trick == SWAPPED) unlink(temporary);
    if (trick == SWAPPED) small_write(temporary, "another's", 9);
    if (trick == GONE || trick == SWAPPED) trick = NOTHING;
    return hit(LOCK) ? -1 : flock(fd, operation);
}
static int io_fallocate(int fd, int mode, off_t offset, off_t length)
{
    (void)fd, (void)mode, (void)offset, (void)length;
    io_calls++;
    errno = ENOTSUP; /* no reason to stop */
    return -1;
}
static ssize_t io_write(int fd, const void *data, size_t bytes)
{
    io_calls++;
    return trick == WRITES_NOTHING ? 0 : write(fd, data, bytes);
}
static int io_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    io_calls++;
    const int result = renameat(from_dir, from, to_dir, to);
    if (trick != MOVED_ALL_THE_SAME) return result;
    errno = ENOENT; /* a file server's answer to the second request, when its answer to the first was lost */
    return -1;
}
static int io_unlinkat(int dir, const char *path, int flags)
{
    io_calls++;
    return hit(UNLINK) ? -1 : unlinkat(dir, path, flags);
}
static int io_fsync(int fd)
{
    struct stat st;
    io_calls++;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && hit(SYNC_FOLDER) ? -1 : fsync(fd);
}
static const ams_io corner_io = {io_openat, io_flock, io_fallocate, io_write, io_fsync, io_renameat, io_unlinkat, close};

START_TEST(temporary_files)
{
    static const struct {
        const char *name;
        bool stale; /* one is there */
        int trick, kind;
        long at;
        int error, then;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {"none there", false, NOTHING, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"a dead writer's", true, NOTHING, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"removed while opened", true, NOTHING, REOPEN, 1, ENOENT, 0, ATMSAE_OK, ""},
        {"not to be opened for writing", true, NOTHING, REOPEN, 1, EACCES, 0, ATMSAE_OK, ""},
        {"not to be opened", true, NOTHING, REOPEN, -1, EACCES, 0, ATMSAE_E_IO, "Permission denied"},
        {"none of a writer", true, NOTHING, REOPEN, 1, ELOOP, 0, ATMSAE_E_IO, "remove it"},
        {"interrupted", true, NOTHING, REOPEN, 1, EINTR, 0, ATMSAE_OK, ""},
        {"not for writing, then interrupted", true, NOTHING, REOPEN, 1, EACCES, EINTR, ATMSAE_OK, ""},
        {"not for writing, then interrupted for ever", true, NOTHING, REOPEN, -1, EACCES, EINTR, ATMSAE_E_IO, "Interrupted"},
        {"a living writer's", true, NOTHING, LOCK, 1, EWOULDBLOCK, 0, ATMSAE_E_IO, "another writer"},
        {"no locks", true, NOTHING, LOCK, 1, ENOLCK, 0, ATMSAE_E_IO, "remove it"},
        {"no locks, none there", false, NOTHING, LOCK, 1, ENOLCK, 0, ATMSAE_OK, ""},
        {"interrupted lock", true, NOTHING, LOCK, 1, EINTR, 0, ATMSAE_OK, ""},
        {"a lock interrupted for ever", true, NOTHING, LOCK, -1, EINTR, 0, ATMSAE_E_IO, "remove it"},
        {"swept at once", false, NOTHING, LOCK, 1, EWOULDBLOCK, 0, ATMSAE_OK, ""},
        {"not to be removed", true, NOTHING, UNLINK, 1, EACCES, 0, ATMSAE_E_IO, "Permission denied"},
        {"removed by another", true, NOTHING, UNLINK, 1, ENOENT, 0, ATMSAE_OK, ""},
        {"interrupted removal", true, NOTHING, UNLINK, 1, EINTR, 0, ATMSAE_OK, ""},
        {"a removal interrupted for ever", true, NOTHING, UNLINK, -1, EINTR, 0, ATMSAE_E_IO, "Interrupted"},
        {"gone while locked", true, GONE, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"own one gone", false, GONE, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"own one gone whenever it is made", false, ALWAYS_GONE, CREATE, 0, 0, 0, ATMSAE_E_IO, "another writer"},
        {"another in its place", true, SWAPPED, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"another in its own one's place", false, SWAPPED, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"never its own", false, NOTHING, FSTAT, -1, EIO, 0, ATMSAE_E_IO, "cannot tell"},
        {"no room for it", false, NOTHING, CREATE, 1, ENOSPC, 0, ATMSAE_E_IO, "No space left"},
        {"written nothing", false, WRITES_NOTHING, CREATE, 0, 0, 0, ATMSAE_E_IO, "Input/output error"},
        {"an interrupted removal at the end", false, WRITES_NOTHING, UNLINK, 1, EINTR, 0, ATMSAE_E_IO,
         "Input/output error"},
        {"a removal at the end interrupted for ever", false, WRITES_NOTHING, UNLINK, -1, EINTR, 0, ATMSAE_E_IO, "Input/output error"},
        {"names as long as one likes", true, NOTHING, NAMES, -1, 0, 0, ATMSAE_OK, ""},
        {"moved, though the system denies it", false, MOVED_ALL_THE_SAME, CREATE, 0, 0, 0, ATMSAE_OK, ""},
        {"folders that cannot be synced", false, NOTHING, SYNC_FOLDER, 1, EINVAL, 0, ATMSAE_OK, ""},
        {"an interrupted sync", false, NOTHING, SYNC_FOLDER, 1, EINTR, 0, ATMSAE_OK, ""},
        {"a sync that fails", false, NOTHING, SYNC_FOLDER, 1, EIO, 0, ATMSAE_E_IO, "is in place"},
    };
    char path[110];
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(temporary, sizeof temporary, "%s/.file.tmp", folder);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        ams_context_set_io(ctx, NULL);
        unlink(temporary);
        expect_ok(ams_write_file(ctx, path, "old", 3));
        if (cases[k].stale) small_write(temporary, "stale", 5);
        ams_context_set_io(ctx, &corner_io);
        trick = cases[k].trick;
        fail_then(cases[k].kind, cases[k].at, cases[k].error, cases[k].then);
        atmsae_status status = ams_write_file(ctx, path, "new", 3);
        fail_at(OPEN, 0, 0);
        trick = NOTHING;
        ck_assert_msg(status == cases[k].status && (status == ATMSAE_OK || strstr(atmsae_last_error(ctx),
                                                                                  cases[k].text)), "%s: %s: %s",
                      cases[k].name, atmsae_status_name(status), atmsae_last_error(ctx));
        size_t size;
        char *bytes = small_read(path, &size);
        const bool new = status == ATMSAE_OK || cases[k].kind == SYNC_FOLDER;
        ck_assert_msg(size == 3 && memcmp(bytes, new ? "new" : "old", 3) == 0, "%s: the file has \"%s\"",
                      cases[k].name, bytes);
        free(bytes);
        /* A writer that went well has taken what was there for its own, or removed it. */
        const bool may_stay = cases[k].stale || cases[k].kind == FSTAT || cases[k].kind == LOCK || (cases[k].kind == UNLINK && cases[k].at < 0);
        ck_assert_msg(access(temporary, F_OK) < 0 || (status < 0 && may_stay), "%s: left", cases[k].name);
    }
    fail_at(CREATE, 1, EACCES); /* a name in the root folder; not to be made there */
    expect_no_write("/atmsae-test", "Permission denied");
    ams_context_set_io(ctx, NULL);
}
END_TEST

/* A pipe opens for writing while somebody reads it, but is no file of a writer. */
START_TEST(a_pipe_with_the_temporary_name)
{
    char path[110];
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(temporary, sizeof temporary, "%s/.file.tmp", folder);
    ck_assert_int_eq(mkfifo(temporary, 0600), 0);
    expect_no_write(path, "remove it");
    const int reader = open(temporary, O_RDONLY | O_NONBLOCK);
    ck_assert_int_ge(reader, 0);
    expect_no_write(path, "remove it");
    close(reader);
    struct stat st;
    ck_assert(lstat(temporary, &st) == 0 && S_ISFIFO(st.st_mode) && access(path, F_OK) != 0);
}
END_TEST

/* A stale file is removed if its name is still that of the file that was locked: the number of a file may be that of one in
 * another file system, which came into the place of the first. */
START_TEST(a_file_of_the_same_number)
{
    char path[110];
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(temporary, sizeof temporary, "%s/.file.tmp", folder);
    small_write(temporary, "another's", 9);
    world.other_device = true;
    expect_no_write(path, "another writer");
    world.other_device = false;
    ck_assert_int_eq(access(temporary, F_OK), 0);
    expect_ok(ams_write_file(ctx, path, "new", 3));
    ck_assert_int_ne(access(temporary, F_OK), 0);
}
END_TEST

/* A new file is no more readable than the one that it replaces: where group or access control list cannot be kept,
 * its group may do what all may. */
START_TEST(access_that_cannot_be_kept)
{
    enum { MODE = 0674, LESS = 0644 };
    static const struct {
        const char *name;
        int kind;
        long at;
        int error;
        bool other_group;
        int list;
        unsigned mode;
    } cases[] = {
        {"nothing fails", OPEN, 0, 0, false, -1, MODE},
        {"another group", OPEN, 0, 0, true, -1, MODE},
        {"another group, not to be set", CHOWN, -1, EPERM, true, -1, LESS},
        {"the new file's group is not known", FSTAT, 2, EIO, false, -1, LESS}, /* the first one is of the lock */
        {"a list", OPEN, 0, 0, false, 44, MODE},
        {"an empty list", OPEN, 0, 0, false, 0, MODE},
        {"no lists here", GET_LIST, 1, ENOTSUP, false, -1, MODE},
        {"a list that is too long", GET_LIST, 1, ERANGE, false, -1, LESS},
        {"a list, not to be set", SET_LIST, 1, EPERM, false, 44, LESS},
        {"a list, and another group, not to be set", CHOWN, -1, EPERM, true, 44, LESS},
    };
    char path[110];
    snprintf(path, sizeof path, "%s/file", folder);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct stat st;
        small_write(path, "old", 3);
        ck_assert_int_eq(chmod(path, MODE), 0);
        world.other_group = cases[k].other_group;
        world.list = cases[k].list;
        fail_at(cases[k].kind, cases[k].at, cases[k].error);
        const atmsae_status status = ams_write_file(ctx, path, "new", 3);
        fail_at(OPEN, 0, 0);
        world.other_group = false;
        world.list = -1;
        expect_ok(status);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_msg((st.st_mode & 0777) == cases[k].mode, "%s: mode %o", cases[k].name, (unsigned)st.st_mode & 0777);
    }
}
END_TEST

/* A writer that failed does nothing more until its end, and goes on saying why. */
START_TEST(what_follows_an_error)
{
    char path[110], staged[130];
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(staged, sizeof staged, "%s/file.staged", folder);
    snprintf(temporary, sizeof temporary, "%s/.file.tmp", folder);
    ams_context_set_io(ctx, &corner_io);
    ams_writer w;
    expect_ok(ams_writer_begin(&w, ctx, path, false));
    trick = WRITES_NOTHING;
    ams_writer_append(&w, "new", 3);
    trick = NOTHING;
    ck_assert_int_eq(w.status, ATMSAE_E_IO);
    io_calls = 0;
    bool there = true;
    ams_writer_reserve(&w, 1000);
    ams_writer_append(&w, "new", 3);
    ck_assert_int_eq(ams_writer_sync(&w), ATMSAE_E_IO);
    ck_assert_int_eq(ams_writer_sync_folder(&w), ATMSAE_E_IO);
    ck_assert_int_eq(ams_writer_claim_staged(&w, &there), ATMSAE_E_IO);
    ck_assert(!there);
    ck_assert_int_eq(ams_writer_stage(&w), ATMSAE_E_IO);
    ck_assert_int_eq(ams_writer_place(&w), ATMSAE_E_IO);
    ck_assert_int_eq(io_calls, 0);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "file: cannot write: Input/output error"));
    ck_assert_int_eq(access(temporary, F_OK), 0);
    ck_assert_int_eq(ams_writer_commit(&w), ATMSAE_E_IO);
    ck_assert(access(temporary, F_OK) != 0 && access(path, F_OK) != 0 && access(staged, F_OK) != 0);
    ams_context_set_io(ctx, NULL);
}
END_TEST

/* ---- what callers inside the library do not ask for ---------------------------------------------------- */

static void fill_nothing(const void *arg, uint64_t first, uint64_t rows, void *out)
{
    (void)arg, (void)first;
    memset(out, 0, rows * sizeof(float));
}

START_TEST(tensors_that_cannot_be_written)
{
    const ams_tensor_out cases[] = {{"x", "F31", 1, {1}, "1234", NULL, NULL}, {"x", "F32", 5, {1}, "1234", NULL, NULL},
                                    {"x", "F32", 1, {1}, NULL, NULL, NULL}};
    for (size_t k = 0; k < 3; k++)
        ck_assert_int_eq(ams_safetensors_write(ctx, edited, &cases[k], 1, NULL, 0, true), ATMSAE_E_ARG);
    const ams_tensor_out part = {"part", "F32", 2, {1u << 29, 1u << 29}, NULL, fill_nothing, NULL};
    ams_tensor_out parts[8]; /* of 2^60 bytes; seven are fine but for the disk */
    for (int i = 0; i < 8; i++)
        parts[i] = part;
    ck_assert_int_eq(ams_safetensors_write(ctx, edited, parts, 8, NULL, 0, true), ATMSAE_E_LIMIT);

    enum { LONG = 100000000 }; /* a header of the longest allowed size, with its frame longer */
    char *text = malloc(LONG + 1);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < LONG; i += 4)
        memcpy(text + i, "\xf0\x9f\x8c\x8d", 4);
    text[LONG] = '\0';
    const ams_metadata_out metadata = {"key", text};
    ck_assert_int_eq(ams_safetensors_write(ctx, edited, NULL, 0, &metadata, 1, true), ATMSAE_E_LIMIT);
    free(text);
    ck_assert_int_lt(access(edited, F_OK), 0);

    const ams_tensor_out scalar = {"x", "F32", 0, {0}, NULL, fill_nothing, NULL};
    expect_ok(ams_safetensors_write(ctx, edited, &scalar, 1, NULL, 0, true));
    expect_ok(open_and_read(edited));
}
END_TEST

START_TEST(models_that_cannot_be_saved)
{
    small_run run;
    char path[110];
    snprintf(path, sizeof path, "%s/sae", folder);
    small_begin(&run, &small_setups[1], ctx);
    const atmsae_model *model = atmsae_trainer_model(run.trainer);
    float *bias = (float *)(uintptr_t)atmsae_model_view(model, ATMSAE_B_DEC, NULL), old = *bias;
    float *scale = (float *)(uintptr_t)atmsae_model_view(model, ATMSAE_OUTPUT_SCALE, NULL);
    expect_ok(atmsae_model_save(model, path, NULL));
    *bias = NAN; /* as no call would leave it */
    ck_assert_int_eq(atmsae_model_save(model, path, NULL), ATMSAE_E_NONFINITE);
    *bias = old;
    *scale *= 2;
    ck_assert_int_eq(atmsae_model_save(model, path, NULL), ATMSAE_E_UNSUPPORTED);
    *scale /= 2;
    expect_ok(read_model(path)); /* the first one stands */
    small_end(&run);
}
END_TEST

START_TEST(files_of_old_pytorch)
{
    char path[110];
    atmsae_tensors *file;
    snprintf(path, sizeof path, "%s/x.pt", folder);
    small_write(path, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02", 17);
    ck_assert_int_eq(atmsae_tensors_open(ctx, path, &file), ATMSAE_E_UNSUPPORTED);
    small_write(path, "\x80\x02", 2);
    ck_assert_int_lt(atmsae_tensors_open(ctx, path, &file), 0);
    ck_assert_ptr_null(file);
}
END_TEST

START_TEST(tensor_handles)
{
    const ams_tensor_out tensors[] = {{"x", "F32", 1, {2}, "12345678", NULL, NULL}, {"f4", "F4", 1, {4}, "ab", NULL,
                                                                                     NULL}};
    expect_ok(ams_safetensors_write(ctx, edited, tensors, 2, NULL, 0, false));
    atmsae_tensors *file;
    uint64_t index;
    float out[4];
    int64_t whole_numbers[4];
    atmsae_tensor_info info = {.size = sizeof info};
    expect_ok(atmsae_tensors_open(ctx, edited, &file));
    atmsae_tensors_close(file);
    ck_assert_int_eq(atmsae_tensors_open(NULL, edited, &file), ATMSAE_E_ARG);
    expect_ok(atmsae_tensors_open(ctx, edited, &file));
    ck_assert_int_eq(atmsae_tensors_open(ctx, edited, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_info(NULL, 0, &info), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_info(file, 2, &info), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_info(file, 0, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_find(NULL, "x", &index), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_find(file, NULL, &index), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_find(file, "x", NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(NULL, 0, out, 2), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_i64(NULL, 0, whole_numbers, 2), ATMSAE_E_ARG);
    expect_ok(atmsae_tensors_find(file, "x", &index));
    ck_assert_int_eq(atmsae_tensors_read_f32(file, index, NULL, 2), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(file, index, out, 1), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(file, 9, out, 1), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_i64(file, index, whole_numbers, 3), ATMSAE_E_ARG);
    ck_assert_int_eq(ams_tensors_read_part(file, index, 3, 1, out), ATMSAE_E_ARG);
    ck_assert_int_eq(ams_tensors_read_part(file, index, 1, 2, out), ATMSAE_E_ARG);
    ck_assert_int_eq(ams_tensors_read_part(file, index, 0, 0, NULL), ATMSAE_OK);
    expect_ok(atmsae_tensors_find(file, "f4", &index));
    ck_assert_int_eq(ams_tensors_read_raw(file, index, 0, 4, out), ATMSAE_E_UNSUPPORTED);
    ck_assert_uint_eq(ams_dtype_size("F31"), 0);
    ck_assert_uint_eq(atmsae_tensors_count(NULL), 0);
    atmsae_tensors_close(NULL);
    atmsae_tensors_close(file);
}
END_TEST

/* Two keys with one hash are still two keys; FNV-1a gives 0 for the first text, and stays there for NULs. */
START_TEST(keys_of_one_hash)
{
    static const struct {
        const char *text;
        atmsae_status status;
    } cases[] = {{"{\"8yn0iYCKYHlIj4-BwPqk\":1,\"GReLUrM4wMqfg9yzV3KQ\":2}", ATMSAE_OK},
                 {"{\"!0IC=VloaY\":1,\"!0IC=VloaY\\u0000\":2}", ATMSAE_OK},
                 {"{\"!0IC=VloaY\\u0000\":1,\"!0IC=VloaY\":2,\"77kepQFQ8Kl\":3}", ATMSAE_OK},
                 {"{\"!0IC=VloaY\\u0000\":1,\"!0IC=VloaY\\u0000\":2}", ATMSAE_E_FORMAT}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char text[200];
        snprintf(text, sizeof text, "%s", cases[k].text);
        ams_json json;
        ams_json_token token;
        ams_json_open(&json, ctx, text, strlen(text), 4);
        expect_ok(ams_json_next(&json, &token));
        ck_assert_msg(ams_json_skip(&json, &token) == cases[k].status, "%s: %s", cases[k].text, atmsae_last_error(ctx));
        ams_json_close(&json);
    }
}
END_TEST

START_TEST(arguments_and_memory)
{
    atmsae_context *other = ctx;
    const atmsae_allocator halves[] = {{NULL, NULL, NULL}, {NULL, (void *(*)(void *, size_t, size_t))(uintptr_t)1,
                                                            NULL}};
    for (int i = 0; i < 2; i++) {
        atmsae_context_config config;
        atmsae_context_config_init(&config, sizeof config);
        config.allocator = &halves[i];
        ck_assert_int_eq(atmsae_context_create(&config, &other), ATMSAE_E_ARG);
        ck_assert_ptr_null(other);
    }
    ck_assert_int_eq(atmsae_context_create(NULL, NULL), ATMSAE_E_ARG);
    ams_struct_init(NULL, 8, "12345678", 8);
    char one = 'x';
    ams_struct_init(&one, SIZE_MAX, "12345678", 8); /* not the size of any struct */
    ck_assert_int_eq(one, 'x');
    ck_assert_int_eq(ams_struct_check(ctx, atmsae_batch, NULL), ATMSAE_E_ARG);
    uint64_t capacity = UINT64_MAX - 8;
    char *array = NULL;
    ck_assert_int_eq(ams_grow(ctx, &array, &capacity, UINT64_MAX, 0, 1), ATMSAE_E_NOMEM);
    fail_at(MEMORY, 1, 0);
    ck_assert_ptr_null(ams_alloc(ctx, 1, 1));
    fail_at(MEMORY, 0, 0);

    small_run run;
    small_begin(&run, &small_setups[0], ctx);
    for (long at = 1;; at++) { /* every allocation of a save */
        fail_at(MEMORY, at, 0);
        atmsae_status status = atmsae_trainer_save(run.trainer, run.source, edited);
        if (status == ATMSAE_OK) break;
        ck_assert_int_eq(status, ATMSAE_E_NOMEM);
    }
    small_end(&run);
    setup = &small_setups[0];
    for (long at = 1;; at++) { /* and of a load */
        small_run loaded;
        small_begin(&loaded, setup, ctx);
        atmsae_trainer_destroy(loaded.trainer);
        loaded.trainer = NULL;
        fail_at(MEMORY, at, 0);
        atmsae_status status = atmsae_trainer_load(ctx, edited, loaded.source, &loaded.trainer);
        fail_at(MEMORY, 0, 0);
        small_end(&loaded);
        if (status == ATMSAE_OK) break;
        ck_assert_int_eq(status, ATMSAE_E_NOMEM);
    }
}
END_TEST

/* A child may not use what its parent made, but may let go of it. */
START_TEST(after_fork)
{
    atmsae_context *threaded = small_context(3);
    small_run run;
    small_begin(&run, &small_setups[1], threaded);
    expect_ok(atmsae_trainer_save(run.trainer, run.source, edited));
    atmsae_tensors *file;
    expect_ok(atmsae_tensors_open(threaded, edited, &file));
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        float out[4];
        int64_t numbers[4];
        atmsae_tensors *again;
        atmsae_trainer *trainer;
        atmsae_model *model;
        const atmsae_status got[] = {atmsae_tensors_open(threaded, edited, &again),
                                     atmsae_tensors_read_f32(file, 0, out, 1),
                                     atmsae_tensors_read_i64(file, 0, numbers, 1),
                                     atmsae_trainer_save(run.trainer, NULL, edited),
                                     atmsae_trainer_save(run.trainer, run.source, edited),
                                     atmsae_trainer_load(threaded, edited, NULL, &trainer),
                                     atmsae_trainer_load(threaded, edited, run.source, &trainer),
                                     atmsae_model_load(threaded, folder, &model),
                                     atmsae_model_save(atmsae_trainer_model(run.trainer), folder, NULL)};
        int wrong = strstr(atmsae_last_error(threaded), "fork") ? 0 : 100;
        for (size_t i = 0; i < sizeof got / sizeof *got; i++)
            wrong += got[i] != ATMSAE_E_STATE;
        atmsae_tensors_close(file);
        small_end(&run);
        atmsae_context_destroy(threaded);
        /* Coverage is written here, and not by exit: on that way a sanitizer looks for leaks, and takes the
         * memory of the threads that stayed in the parent for lost. */
        if (__gcov_dump) __gcov_dump();
        _exit(wrong);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    atmsae_tensors_close(file);
    small_end(&run);
    atmsae_context_destroy(threaded);
}
END_TEST

/* ---- a system that has no more ------------------------------------------------------------------------- */

START_TEST(no_locale)
{
    char text[64], *end;
    fail_at(LOCALE, -1, ENOMEM);
    ck_assert_int_eq(ams_format(text, sizeof text, "%g %d", 0.5, 7), 5);
    ck_assert_str_eq(text, "0.5 7"); /* the tests run in the C locale */
    ck_assert_double_eq(ams_strtod("1.25x", &end), 1.25);
    ck_assert_str_eq(end, "x");
    ck_assert_int_eq(ams_fail_errno(ctx, "path", "what", EIO), ATMSAE_E_IO);
    ck_assert_str_eq(atmsae_last_error(ctx), "path: what: unknown error");
    fail_at(LOCALE, 0, 0);
    ck_assert_int_eq(ams_fail_errno(ctx, "path", "what", ENOMEM), ATMSAE_E_NOMEM);
}
END_TEST

static atmsae_status create(uint32_t threads, atmsae_context **out)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    return atmsae_context_create(&config, out);
}

START_TEST(no_threads)
{
    atmsae_context *other = ctx;
    fail_at(MUTEX, 1, 0);
    ck_assert_int_eq(create(2, &other), ATMSAE_E_NOMEM);
    ck_assert_ptr_null(other);
    fail_at(CPUS, -1, 0);
    ck_assert_int_eq(create(0, &other), ATMSAE_OK);
    ck_assert_uint_eq(atmsae_context_threads(other), 1);
    atmsae_context_destroy(other);
    fail_at(CPUS, 1, EINVAL); /* only the affinity mask: the system's number of CPUs counts instead */
    ck_assert_int_eq(create(0, &other), ATMSAE_OK);
    fail_at(CPUS, 0, 0);
    const unsigned online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), share = ams_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    ck_assert_uint_eq(atmsae_context_threads(other), share < online ? share : online);
    atmsae_context_destroy(other);
    for (long at = 1; at <= 4; at++) {
        fail_at(THREAD, at, EAGAIN);
        ck_assert_int_eq(create(4, &other), ATMSAE_OK);
        ck_assert_uint_ge(atmsae_context_threads(other), 1);
        ck_assert_uint_le(atmsae_context_threads(other), 4);
        atmsae_context_destroy(other);
    }
    fail_at(THREAD, 0, 0);
    ck_assert_int_eq(create(100000, &other), ATMSAE_OK);
    ck_assert_uint_le(atmsae_context_threads(other), 1024);
    atmsae_context_destroy(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("corners");
    TCase *files = tcase_create("files");
    tcase_add_checked_fixture(files, open_folder, close_folder);
    tcase_add_loop_test(files, every_setting, 0, 4);
    tcase_add_test(files, sizes_that_do_not_fit);
    tcase_add_test(files, a_coefficient_that_no_run_has);
    tcase_add_test(files, what_a_newer_version_adds);
    tcase_add_loop_test(files, every_tensor, 0, 2);
    tcase_add_loop_test(files, every_array_of_the_source, 0, 2);
    tcase_add_test(files, saved_without_a_source);
    tcase_add_test(files, checksums);
    tcase_add_test(files, reading_fails);
    tcase_add_test(files, the_one_before_it);
    tcase_add_test(files, reading_more_than_a_gigabyte);
    tcase_add_test(files, reading_archives_fails);
    tcase_add_test(files, names_that_cannot_be_written);
    tcase_add_test(files, temporary_files);
    tcase_add_test(files, a_pipe_with_the_temporary_name);
    tcase_add_test(files, a_file_of_the_same_number);
    tcase_add_test(files, access_that_cannot_be_kept);
    tcase_add_test(files, what_follows_an_error);
    tcase_add_test(files, tensors_that_cannot_be_written);
    tcase_add_test(files, models_that_cannot_be_saved);
    tcase_add_test(files, files_of_old_pytorch);
    tcase_add_test(files, tensor_handles);
    tcase_add_test(files, keys_of_one_hash);
    suite_add_tcase(suite, files);
    TCase *system_calls = tcase_create("system");
    tcase_add_checked_fixture(system_calls, open_folder, close_folder);
    tcase_add_test(system_calls, no_locale);
    tcase_add_test(system_calls, no_threads);
    tcase_add_test(system_calls, arguments_and_memory);
    tcase_add_test(system_calls, after_fork);
    suite_add_tcase(suite, system_calls);
    return run_all(suite);
}
