/* SPDX-License-Identifier: MIT
 *
 * Files as inputs of a source: the rows are those that memory would give, whatever is read ahead, and
 * what is wrong with a file shows in the call that needs it, not when the kernel is asked to read it.
 */
#include "base/base.h"
#include "data/data.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { D = 500, SHARDS = 5, MAX_BATCH = 4096 };
/* Blocks are of 2 MiB, 2097 rows: shards smaller than one, of exactly one, and of more. */
static const uint64_t shard_rows[SHARDS] = {1, 3000, 2097, 700, 5000};

static atmsae_context *ctx;
static char folder[64];
static uint16_t *rows;
static uint64_t n_rows;

static const char *path_of(int shard)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%d%s", folder, shard, shard % 2 ? ".npy" : ".safetensors");
    return path;
}

static uint64_t first_of(int shard)
{
    uint64_t first = 0;
    for (int i = 0; i < shard; i++)
        first += shard_rows[i];
    return first;
}

static void write_to(const char *path, bool npy, int shard, uint64_t n, uint64_t d, bool bf16)
{
    char head[128], text[128];
    const uint16_t *data = rows + first_of(shard) * D;
    memset(head, ' ', sizeof head);
    head[127] = '\n';
    size_t at = npy ? 10 : 8;
    int length = npy
        ? snprintf(text, sizeof text, "{'descr': '<f2', 'fortran_order': False, 'shape': (%llu, %llu), }",
                   (unsigned long long)n, (unsigned long long)d)
        : snprintf(text, sizeof text, "{\"x\":{\"dtype\":\"%sF16\",\"shape\":[%llu,%llu],\"data_offsets\":[0,%llu]}}",
                   bf16 ? "B" : "", (unsigned long long)n, (unsigned long long)d, (unsigned long long)(n * d * 2));
    ck_assert_int_lt(length, 118);
    if (npy) memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    else memcpy(head, (const uint64_t[]){120}, 8);
    memcpy(head + at, text, (size_t)length);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(head, 1, sizeof head, file), sizeof head);
    ck_assert_uint_eq(fwrite(data, 2 * d, n, file), n);
    ck_assert_int_eq(fflush(file), 0);
    ck_assert_int_eq(fsync(fileno(file)), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_as(int shard, uint64_t n, uint64_t d, bool bf16) { write_to(path_of(shard), shard % 2, shard, n, d, bf16); }
static void write_shard(int shard, uint64_t n) { write_as(shard, n, D, false); }

static void setup(void)
{
    ck_assert_int_eq(atmsae_context_create(NULL, &ctx), 0);
    strcpy(folder, "/tmp/atmsae-test-input-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    n_rows = first_of(SHARDS);
    rows = malloc(n_rows * D * sizeof *rows);
    uint32_t state = 1;
    for (uint64_t i = 0; i < n_rows * D; i++) { /* any finite number */
        state = state * 1664525 + 1013904223;
        rows[i] = (uint16_t)(state >> 16);
        if ((rows[i] & 0x7c00) == 0x7c00) rows[i] ^= 0x4000;
    }
    for (int i = 0; i < SHARDS; i++)
        write_shard(i, shard_rows[i]);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    atmsae_context_destroy(ctx);
    free(rows);
}

/* Shards first .. last - 1, or the same rows as one input in memory. */
static atmsae_source *new_source(int first, int last, bool memory, uint64_t shuffle)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = shuffle;
    config.epochs = 2;
    atmsae_source *source;
    ck_assert_int_eq(atmsae_source_create(ctx, &config, &source), 0);
    for (int i = first; i < last; i++) {
        atmsae_status status = memory
            ? atmsae_source_add_memory(source, rows + first_of(i) * D, shard_rows[i], D, 0, ATMSAE_F16)
            : atmsae_source_add_file(source, path_of(i), NULL, 0);
        ck_assert_msg(status == 0, "%s", atmsae_last_error(ctx));
    }
    return source;
}

static float got_rows[MAX_BATCH * D], expected[MAX_BATCH * D];

/* The next batch of both is the same; returns its size. */
static uint64_t same_batch(atmsae_source *a, atmsae_source *b, uint64_t n)
{
    uint64_t got_a, got_b;
    atmsae_status status = atmsae_source_next(a, n, got_rows, &got_a);
    ck_assert_msg(status == 0, "%s", atmsae_last_error(ctx));
    ck_assert_int_eq(atmsae_source_next(b, n, expected, &got_b), 0);
    ck_assert_uint_eq(got_a, got_b);
    ck_assert(memcmp(got_rows, expected, got_a * D * sizeof(float)) == 0);
    return got_a;
}

/* ---- the same rows ------------------------------------------------------------------------------ */

/* _i: sizes of the buffer and of the batches. */
START_TEST(files_give_the_rows_of_memory)
{
    static const uint64_t shuffles[] = {0, 0, 4000}, batches[] = {129, MAX_BATCH, 1000};
    const uint64_t n = batches[_i];
    atmsae_source *files = new_source(0, SHARDS, false, shuffles[_i]), *memory = new_source(0, SHARDS, true, shuffles[_i]);
    uint64_t total = 0, got = n;
    while (got == n)
        total += got = same_batch(files, memory, n);
    ck_assert_uint_eq(total, 2 * n_rows);
    ck_assert_int_eq(atmsae_source_rewind(files), 0);
    ck_assert_int_eq(atmsae_source_rewind(memory), 0);
    for (int i = 0; i < 3; i++)
        same_batch(files, memory, n);
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
}
END_TEST

/* A position saved while the files behind it are on their way: it says nothing of them. */
START_TEST(a_saved_position_goes_on_the_same)
{
    const uint64_t shuffle = _i ? 3000 : 0, n = 700;
    for (int taken = 0; taken < 20; taken += 6) {
        atmsae_source *files = new_source(0, SHARDS, false, shuffle), *memory = new_source(0, SHARDS, true, shuffle);
        atmsae_source *resumed = new_source(0, SHARDS, false, shuffle);
        for (int i = 0; i < taken; i++)
            same_batch(files, memory, n);
        ams_source_state state;
        ck_assert_int_eq(ams_source_state_save(files, &state), 0);
        uint64_t got;
        if (taken % 4) ck_assert_int_eq(atmsae_source_next(resumed, 3500, got_rows, &got), 0); /* it was elsewhere */
        ck_assert_int_eq(ams_source_state_restore(resumed, &state), 0);
        ams_source_state_free(files, &state);
        while (same_batch(resumed, memory, n) == n)
            continue;
        atmsae_source_destroy(files);
        atmsae_source_destroy(resumed);
        atmsae_source_destroy(memory);
    }
}
END_TEST

/* ---- reading ahead -------------------------------------------------------------------------------- */

/* How much of a file is in the page cache, 0 .. 1. */
static double cached(const char *path)
{
    int fd = open(path, O_RDONLY);
    struct stat info;
    ck_assert(fd >= 0 && fstat(fd, &info) == 0);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = ((size_t)info.st_size + page - 1) / page, present = 0;
    unsigned char *flags = malloc(pages);
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert(map != MAP_FAILED);
    ck_assert_int_eq(mincore(map, (size_t)info.st_size, flags), 0);
    for (size_t i = 0; i < pages; i++)
        present += flags[i] & 1;
    munmap(map, (size_t)info.st_size);
    free(flags);
    close(fd);
    return (double)present / (double)pages;
}

static void forget(const char *path)
{
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
}

/* One row of a shard is taken: the rest of it and two more shards come into the page cache, and the
 * last begins to. */
START_TEST(shards_are_read_ahead)
{
    atmsae_source *source = new_source(1, SHARDS, false, 0);
    for (int i = 1; i < SHARDS; i++)
        forget(path_of(i));
    if (cached(path_of(4)) > 0) { /* a file system in memory */
        atmsae_source_destroy(source);
        return;
    }
    uint64_t got;
    ck_assert_int_eq(atmsae_source_next(source, 1, got_rows, &got), 0);
    for (int i = 1; i < SHARDS; i++) {
        const double most = i == 4 ? 0.08 : 1;
        for (int tries = 0; tries < 1000 && cached(path_of(i)) < most; tries++)
            usleep(10000);
        ck_assert_double_ge(cached(path_of(i)), most);
    }
    atmsae_source_destroy(source);
}
END_TEST

/* Read far, rewound, and read again: what is ahead of the start is asked for as at first. The file is
 * one hole: 160 rows of 1 MB. */
START_TEST(rewound_sources_read_ahead_again)
{
    enum { WIDE = 1 << 19, WIDE_ROWS = 160 };
    char head[128] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (160, 524288), }";
    memset(head + strlen(head + 10) + 10, ' ', 117 - strlen(head + 10));
    head[127] = '\n';
    int fd = open(path_of(9), O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(write(fd, head, 128), 128);
    ck_assert_int_eq(ftruncate(fd, 128 + (off_t)WIDE_ROWS * WIDE * 2), 0);
    ck_assert_int_eq(fsync(fd), 0);
    close(fd);
    atmsae_source *source = new_source(0, 0, false, 0);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(9), NULL, 0), 0);
    uint64_t got;
    double share = 0;
    float *out = malloc(sizeof *out * WIDE);
    for (int i = 0; i < 90; i++)
        ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    forget(path_of(9));
    bool forgotten = cached(path_of(9)) < 0.1;
    for (int i = 0; i < 40; i++)
        ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    for (int tries = 0; forgotten && tries < 1000 && share < 0.45; tries++) {
        usleep(10000);
        share = cached(path_of(9));
    }
    if (forgotten) { /* 80 of the 160 MB, not all */
        ck_assert_double_ge(share, 0.45);
        ck_assert_double_le(share, 0.7);
    }
    free(out);
    atmsae_source_destroy(source);
}
END_TEST

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(dir);
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* One descriptor is enough, and none is left. */
START_TEST(one_descriptor_at_a_time)
{
    atmsae_source *files = new_source(0, SHARDS, false, 0), *memory = new_source(0, SHARDS, true, 0);
    int before = descriptors(), lowest = open("/dev/null", O_RDONLY);
    ck_assert_int_ge(lowest, 0);
    close(lowest);
    same_batch(files, memory, 100); /* of two shards, and three more are read ahead */
    ck_assert_int_eq(descriptors(), before + 1);
    struct rlimit limit, all;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &all), 0);
    limit = all;
    limit.rlim_cur = (rlim_t)lowest + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (same_batch(files, memory, 1000) == 1000)
        continue;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &all), 0);
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
    ck_assert_int_eq(descriptors(), before);
}
END_TEST

/* ---- what is wrong waits for its turn ----------------------------------------------------------------- */

enum { MISSING, CUT, PIPE, FOLDER, SHORTER, LONGER, OTHER_TYPE, OTHER_WIDTH, OTHER_ROWS, N_WRONGS };

/* Other rows between the first and the last; in place, as another program's write leaves it. */
static void change_rows(int shard)
{
    const size_t bytes = (size_t)(shard_rows[shard] - 2) * D * 2;
    uint16_t *other = malloc(bytes);
    for (size_t i = 0; i < bytes / 2; i++)
        other[i] = 0x3c00;
    FILE *file = fopen(path_of(shard), "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, 128 + D * 2, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(other, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
    free(other);
}

static void spoil(int wrong, int shard)
{
    const char *path = path_of(shard);
    if (wrong == CUT) {
        ck_assert_int_eq(truncate(path, 1000), 0);
        return;
    }
    if (wrong == OTHER_ROWS) {
        change_rows(shard);
        return;
    }
    ck_assert_int_eq(unlink(path), 0);
    if (wrong == PIPE) ck_assert_int_eq(mkfifo(path, 0600), 0);
    if (wrong == FOLDER) ck_assert_int_eq(mkdir(path, 0700), 0);
    if (wrong == SHORTER) write_shard(shard, shard_rows[shard] - 1);
    if (wrong == LONGER) write_shard(shard, shard_rows[shard] + 1);
    if (wrong == OTHER_TYPE) write_as(shard, shard_rows[shard], D, true);
    if (wrong == OTHER_WIDTH) write_as(shard, shard_rows[shard], D - 1, false);
}

static void mend(int shard)
{
    remove(path_of(shard));
    write_shard(shard, shard_rows[shard]);
}

/* _i: what is wrong with the third of four shards, from before or after the first row on: when the
 * kernel is asked to read it, or only when it is read. */
START_TEST(a_bad_shard_waits_for_its_turn)
{
    static const atmsae_status expect[N_WRONGS] = {ATMSAE_E_IO, ATMSAE_E_TRUNCATED, ATMSAE_E_IO, ATMSAE_E_IO,
                                                   ATMSAE_E_STATE, ATMSAE_E_STATE, ATMSAE_E_STATE, ATMSAE_E_STATE,
                                                   ATMSAE_E_STATE};
    const int bad = 2, wrong = _i % N_WRONGS;
    atmsae_source *files = new_source(0, 4, false, 0), *memory = new_source(0, 4, true, 0);
    if (_i < N_WRONGS) spoil(wrong, bad);
    same_batch(files, memory, 1);
    if (_i >= N_WRONGS) spoil(wrong, bad);
    for (uint64_t at = 1; at < 3001; at += 600) /* the second shard, to its end */
        ck_assert_uint_eq(same_batch(files, memory, 600), 600);
    for (int again = 0; again < 2; again++) {
        uint64_t got = 1;
        ck_assert_int_eq(atmsae_source_next(files, 600, got_rows, &got), expect[wrong]);
        ck_assert_uint_eq(got, 0);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path_of(bad)));
    }
    mend(bad);
    while (same_batch(files, memory, 600) == 600)
        continue;
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
}
END_TEST

/* An open file is cut behind the block that was read: the rows of that block still come. */
START_TEST(a_file_cut_while_it_is_read)
{
    const int last = SHARDS - 1;
    atmsae_source *files = new_source(last, SHARDS, false, 0), *memory = new_source(last, SHARDS, true, 0);
    same_batch(files, memory, 1);
    ck_assert_int_eq(truncate(path_of(last), 128 + 2500 * D * 2), 0);
    same_batch(files, memory, 2000);
    for (int again = 0; again < 2; again++) {
        uint64_t got = 1;
        ck_assert_int_eq(atmsae_source_next(files, 500, got_rows, &got), ATMSAE_E_TRUNCATED);
        ck_assert_uint_eq(got, 0);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path_of(last)));
    }
    mend(last);
    while (same_batch(files, memory, 500) == 500)
        continue;
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
}
END_TEST

/* _i: the rows of an open file change where they were not read yet; or another file gets its name. */
START_TEST(rows_that_change_while_they_are_read)
{
    const int last = SHARDS - 1;
    atmsae_source *files = new_source(_i ? 1 : last, SHARDS, false, 0), *memory = new_source(_i ? 1 : last, SHARDS, true, 0);
    same_batch(files, memory, 1);
    if (_i) spoil(MISSING, last), write_shard(last, shard_rows[last]);
    change_rows(last);
    uint64_t got = 600, before = 0;
    atmsae_status status;
    for (; (status = atmsae_source_next(files, 600, got_rows, &got)) == ATMSAE_OK; before++)
        ck_assert_int_eq(atmsae_source_next(memory, 600, expected, &got), ATMSAE_OK);
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(status, ATMSAE_E_STATE);
        ck_assert_uint_eq(got, 0);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path_of(last)));
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "other rows in the same shape"));
        status = atmsae_source_next(files, 600, got_rows, &got);
    }
    ck_assert_uint_gt(before, 0);
    mend(last);
    while (same_batch(files, memory, 600) == 600)
        continue;
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
}
END_TEST

/* A new date, a copy under the same name, and the other of the two forms of file: the same rows. */
START_TEST(the_same_rows_in_another_file)
{
    atmsae_source *files = new_source(1, 5, false, 500), *memory = new_source(1, 5, true, 500);
    same_batch(files, memory, 1);
    const struct timespec dates[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000001}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path_of(2), dates, 0), 0);
    mend(3);
    char kept[128];
    strcpy(kept, path_of(4));
    ck_assert_int_eq(remove(kept), 0);
    write_to(kept, true, 4, shard_rows[4], D, false); /* its first bytes tell, not its name */
    while (same_batch(files, memory, 600) == 600)
        continue;
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
}
END_TEST

/* A restore that fails leaves the source good for another one: a command that cannot use its newest
 * checkpoint takes the one before. */
START_TEST(another_restore_after_one_that_failed)
{
    atmsae_source *files = new_source(1, 5, false, 3000), *memory = new_source(1, 5, true, 3000);
    atmsae_source *resumed = new_source(1, 5, false, 3000);
    ams_source_state states[2], bad;
    for (int i = 0; i < 2; i++) {
        same_batch(files, memory, 700);
        ck_assert_int_eq(ams_source_state_save(i ? memory : files, &states[i]), 0); /* each lends its own buffer */
    }
    bad = states[1];
    spoil(MISSING, 1);
    ck_assert_int_eq(ams_source_state_restore(resumed, &bad), ATMSAE_E_IO);
    mend(1);
    spoil(OTHER_ROWS, 4);
    spoil(CUT, 2);
    ck_assert_int_eq(ams_source_state_restore(resumed, &bad), ATMSAE_E_TRUNCATED);
    mend(2);
    mend(4);
    ck_assert_int_eq(ams_source_state_restore(resumed, &bad), 0);
    while (same_batch(resumed, files, 700) == 700)
        continue;
    ams_source_state_free(files, &states[0]);
    ams_source_state_free(memory, &states[1]);
    atmsae_source_destroy(files);
    atmsae_source_destroy(memory);
    atmsae_source_destroy(resumed);
}
END_TEST

/* The tensor that was asked for is no longer one of the file's. */
START_TEST(a_file_with_fewer_tensors)
{
    static const char *const heads[2] = {
        "{\"a\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[2,4]}}",
        "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[0,4]}}"};
    atmsae_source *source;
    ck_assert_int_eq(atmsae_source_create(ctx, &(atmsae_source_config){.size = sizeof(atmsae_source_config)}, &source), 0);
    for (int i = 0; i < 2; i++) {
        uint64_t length = strlen(heads[i]), got;
        FILE *file = fopen(path_of(0), "wb");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fwrite(&length, 8, 1, file) + fwrite(heads[i], length, 1, file) + fwrite("1234", 4, 1, file), 3);
        ck_assert_int_eq(fclose(file), 0);
        if (i == 0) {
            ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), "b", 0), 0);
        } else {
            ck_assert_int_eq(atmsae_source_next(source, 1, got_rows, &got), ATMSAE_E_STATE);
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "has changed"));
        }
    }
    atmsae_source_destroy(source);
}
END_TEST

/* A file that has no name any more, by its descriptor. */
START_TEST(a_file_without_a_name)
{
    char name[64];
    int fd = open(path_of(3), O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(path_of(3)), 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    atmsae_source *file = new_source(0, 0, false, 0), *memory = new_source(3, 4, true, 0);
    ck_assert_int_eq(atmsae_source_add_file(file, name, NULL, 0), 0);
    while (same_batch(file, memory, 300) == 300)
        continue;
    atmsae_source_destroy(file);
    atmsae_source_destroy(memory);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("input");
    TCase *tests = tcase_create("input");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, files_give_the_rows_of_memory, 0, 3);
    tcase_add_loop_test(tests, a_saved_position_goes_on_the_same, 0, 2);
    tcase_add_test(tests, shards_are_read_ahead);
    tcase_add_test(tests, rewound_sources_read_ahead_again);
    tcase_add_test(tests, one_descriptor_at_a_time);
    tcase_add_loop_test(tests, a_bad_shard_waits_for_its_turn, 0, 2 * N_WRONGS);
    tcase_add_test(tests, a_file_cut_while_it_is_read);
    tcase_add_loop_test(tests, rows_that_change_while_they_are_read, 0, 2);
    tcase_add_test(tests, the_same_rows_in_another_file);
    tcase_add_test(tests, another_restore_after_one_that_failed);
    tcase_add_test(tests, a_file_with_fewer_tensors);
    tcase_add_test(tests, a_file_without_a_name);
    suite_add_tcase(suite, tests);
    return run_all(suite);
}
