/* SPDX-License-Identifier: MIT
 *
 * Sources: order, shuffling against a naive model of it, ends, failures in the middle, and states
 * saved and restored. Row i of the stream holds i % 256, i / 256 and 7: exact in every row type.
 */
#include "base/base.h"
#include "data/data.h"
#include "data/source.h"
#include "suite.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { D = 3, MAX_ROWS = 4096 };
enum { MEMORY, NPY, SAFETENSORS, CALLBACK };

typedef struct part {
    int kind, type;
    uint64_t rows;
} part;

/* ---- inputs ------------------------------------------------------------------------------------- */

static atmsae_context *ctx;
static char folder[64];
static struct { /* allocations fail from number `at` on, `times` times */
    uint64_t count, at, times;
} faults;

static void *test_alloc(void *opaque, size_t align, size_t bytes)
{
    (void)opaque;
    uint64_t i = faults.count++;
    void *memory = NULL;
    if (bytes > (size_t)1 << 40) return NULL; /* sanitizers abort where malloc would fail */
    if (faults.at > 0 && i + 1 >= faults.at && i + 1 < faults.at + faults.times) return NULL;
    return posix_memalign(&memory, align, bytes) == 0 ? memory : NULL;
}

static void test_free(void *opaque, void *memory)
{
    (void)opaque;
    free(memory);
}

static void setup(void)
{
    static const atmsae_allocator allocator = {NULL, test_alloc, test_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &allocator;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), 0);
    strcpy(folder, "/tmp/atmsae-test-source-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    atmsae_context_destroy(ctx);
}

static const char *path_of(int i)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%d", folder, i);
    return path;
}

static size_t size_of(int type) { return type == ATMSAE_F32 ? 4 : 2; }

/* One exact value in the given type. */
static void put(char *out, int type, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t half = (uint16_t)(bits >> 16);
    if (type == ATMSAE_F16) half = value == 0 ? 0 : (uint16_t)(((bits >> 23) - 112) << 10 | (bits >> 13 & 0x3ff));
    memcpy(out, type == ATMSAE_F32 ? (void *)&bits : (void *)&half, size_of(type));
}

static void put_row(char *out, int type, uint64_t id)
{
    const float values[D] = {(float)(id % 256), (float)(id / 256), 7};
    for (size_t j = 0; j < D; j++)
        put(out + j * size_of(type), type, values[j]);
}

/* Rows first .. first + n - 1 of the stream, `ld` elements apart. */
static char *make_rows(int type, uint64_t first, uint64_t n, uint64_t ld)
{
    char *rows = calloc(n * ld + 1, size_of(type));
    for (uint64_t i = 0; rows && i < n; i++)
        put_row(rows + i * ld * size_of(type), type, first + i);
    return rows;
}

static void write_file(const char *path, const char *head, size_t head_bytes, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(head, 1, head_bytes, file), head_bytes);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_npy_as(const char *path, const char *descr, const char *fortran, const char *shape, const void *data, size_t bytes)
{
    char head[128] = "\x93NUMPY\x01\x00\x76\x00"; /* 118 bytes of header follow */
    int n = snprintf(head + 10, 118, "{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, fortran, shape);
    memset(head + 10 + n, ' ', 118 - (size_t)n);
    head[127] = '\n';
    write_file(path, head, 128, data, bytes);
}

static void write_npy(const char *path, const char *descr, const char *shape, const void *data, size_t bytes)
{
    write_npy_as(path, descr, "False", shape, data, bytes);
}

static void write_safetensors(const char *path, const char *json, const void *data, size_t bytes)
{
    char head[1024];
    uint64_t n = strlen(json);
    ck_assert_uint_lt(n, 1000);
    memcpy(head, &n, 8);
    memcpy(head + 8, json, n);
    write_file(path, head, 8 + n, data, bytes);
}

static void write_part(const char *path, const part *p, uint64_t first)
{
    static const char *const descr[] = {"", "<f4", "<f2", "<u2"}, *const dtype[] = {"", "F32", "F16", "BF16"};
    size_t bytes = (size_t)p->rows * D * size_of(p->type);
    char *rows = make_rows(p->type, first, p->rows, D), text[200];
    if (p->kind == NPY) {
        snprintf(text, sizeof text, "%llu, 3", (unsigned long long)p->rows);
        write_npy(path, descr[p->type], text, rows, bytes);
    } else {
        snprintf(text, sizeof text, "{\"x\":{\"dtype\":\"%s\",\"shape\":[%llu,3],\"data_offsets\":[0,%zu]}}", dtype[p->type],
                 (unsigned long long)p->rows, bytes);
        write_safetensors(path, text, rows, bytes);
    }
    free(rows);
}

/* A callback over rows next .. end - 1; at most `most` a call; fails at the given calls. */
typedef struct feed {
    uint64_t next, end, most, calls, fail_every;
} feed;

static int64_t read_feed(void *opaque, float *out, uint64_t max_rows)
{
    feed *f = opaque;
    f->calls++;
    if (f->fail_every > 0 && f->calls % f->fail_every == 0) return -5;
    uint64_t n = ams_min(ams_min(f->end - f->next, f->most), max_rows);
    for (uint64_t i = 0; i < n; i++)
        put_row((char *)(out + i * D), ATMSAE_F32, f->next + i);
    f->next += n;
    return (int64_t)n;
}

typedef struct setting {
    const part *parts;
    int n_parts;
    uint64_t shuffle, epochs, seed;
} setting;

static setting current; /* of the source made last; its parts are NULL if it is not of parts */
static char *lent[64]; /* memory inputs; freed by finish */
static feed feeds[8];
static int n_lent, n_feeds;

static atmsae_source *new_source(uint64_t shuffle, uint64_t epochs, uint64_t seed)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    ck_assert_uint_eq(config.shuffle_rows, 65536);
    config.shuffle_rows = shuffle;
    config.epochs = epochs;
    config.seed = seed;
    current = (setting){0};
    atmsae_source *source;
    ck_assert_int_eq(atmsae_source_create(ctx, &config, &source), 0);
    return source;
}

/* Files are numbered by their place, so that a second source finds the first one's. */
static atmsae_source *make_source(const setting *s)
{
    atmsae_source *source = new_source(s->shuffle, s->epochs, s->seed);
    uint64_t first = 0;
    n_feeds = 0;
    for (int i = 0; i < s->n_parts; i++) {
        const part *p = &s->parts[i];
        atmsae_status status;
        if (p->kind == MEMORY) {
            lent[n_lent] = make_rows(p->type, first, p->rows, D + (uint64_t)i);
            status = atmsae_source_add_memory(source, lent[n_lent++], p->rows, D, D + (uint64_t)i, p->type);
        } else if (p->kind == CALLBACK) {
            feeds[n_feeds] = (feed){first, first + p->rows, 5, 0, 0};
            status = atmsae_source_add_callback(source, D, read_feed, &feeds[n_feeds++]);
        } else {
            if (access(path_of(i), F_OK) != 0) write_part(path_of(i), p, first);
            status = atmsae_source_add_file(source, path_of(i), NULL, p->type == ATMSAE_BF16);
        }
        ck_assert_msg(status == 0, "%s", atmsae_last_error(ctx));
        first += p->rows;
    }
    current = *s;
    return source;
}

static void finish(atmsae_source *source)
{
    atmsae_source_destroy(source);
    while (n_lent > 0)
        free(lent[--n_lent]);
}

/* Row `row` of the last batch is number `id` of the stream: does the source say the same? */
static bool is_located(const atmsae_source *source, uint64_t row, uint64_t id)
{
    atmsae_row_origin origin = {.size = sizeof origin};
    if (!current.parts) return true;
    if (atmsae_source_locate(source, row, &origin) < 0 || origin.input >= (uint64_t)current.n_parts) return false;
    uint64_t first = 0;
    for (uint64_t i = 0; i < origin.input; i++)
        first += current.parts[i].rows;
    const part *p = &current.parts[origin.input];
    const bool file = p->kind == NPY || p->kind == SAFETENSORS;
    return origin.size == sizeof origin && origin.row < p->rows && first + origin.row == id &&
           (file ? origin.path && strcmp(origin.path, path_of((int)origin.input)) == 0 : !origin.path);
}

/* Takes up to `want` rows in calls of `step`, repeating calls that fail; returns the ids. */
static uint64_t drain(atmsae_source *source, uint64_t want, uint64_t step, uint64_t *ids)
{
    static float out[MAX_ROWS * D];
    uint64_t done = 0, failures = 0, strange = 0;
    while (done < want) {
        uint64_t n = ams_min(step, want - done), got;
        atmsae_status status = atmsae_source_next(source, n, out, &got);
        if (status < 0) {
            ck_assert_uint_eq(got, 0);
            if (++failures > 10000) ck_abort_msg("%s", atmsae_last_error(ctx));
            continue;
        }
        for (uint64_t i = 0; i < got; i++) {
            const float *row = out + i * D;
            ids[done + i] = (uint64_t)row[0] + 256 * (uint64_t)row[1];
            strange += row[2] != 7 || !is_located(source, i, ids[done + i]);
        }
        done += got;
        if (got < n) break;
    }
    ck_assert_uint_eq(strange, 0);
    return done;
}

/* What drain must return: the buffer as the header describes it, over a list of numbers. */
static uint64_t model(const setting *s, uint64_t want, uint64_t *ids)
{
    static uint64_t slots[MAX_ROWS];
    uint64_t rows = 0, stream = 0, filled = 0, done = 0, draws = 0, capacity = s->shuffle;
    bool streamed = false;
    for (int i = 0; i < s->n_parts; i++) {
        rows += s->parts[i].rows;
        streamed |= s->parts[i].kind == CALLBACK;
    }
    uint64_t end = streamed ? rows : s->epochs == 0 ? UINT64_MAX : rows * s->epochs;
    if (capacity == 0) {
        for (; done < want && done < end; done++)
            ids[done] = done % rows;
        return done;
    }
    if (!streamed) capacity = ams_min(capacity, rows);
    for (; filled < capacity && stream < end; stream++)
        slots[filled++] = stream % rows;
    for (; done < want && filled > 0; done++) {
        uint32_t words[4];
        ams_philox(s->seed, AMS_DRAW_SHUFFLE, 0, draws++, words);
        unsigned __int128 product = (unsigned __int128)((uint64_t)words[0] << 32 | words[1]) * filled;
        uint64_t slot = (uint64_t)(product >> 64);
        ids[done] = slots[slot];
        slots[slot] = stream < end ? stream++ % rows : slots[--filled];
    }
    return done;
}

static void check_same(const uint64_t *a, uint64_t n_a, const uint64_t *b, uint64_t n_b, const char *what, uint64_t point)
{
    ck_assert_msg(n_a == n_b, "%s %llu: %llu rows, expected %llu", what, (unsigned long long)point, (unsigned long long)n_a,
                  (unsigned long long)n_b);
    for (uint64_t i = 0; i < n_a; i++)
        if (a[i] != b[i])
            ck_abort_msg("%s %llu: row %llu is %llu, expected %llu", what, (unsigned long long)point, (unsigned long long)i,
                         (unsigned long long)a[i], (unsigned long long)b[i]);
}

static uint64_t got_ids[MAX_ROWS], expected[MAX_ROWS];

static const part mixed[] = {
    {MEMORY, ATMSAE_F32, 40}, {NPY, ATMSAE_F16, 100}, {MEMORY, ATMSAE_BF16, 0}, {NPY, ATMSAE_BF16, 61},
    {SAFETENSORS, ATMSAE_BF16, 1}, {NPY, ATMSAE_F32, 30}, {MEMORY, ATMSAE_F16, 17}, {SAFETENSORS, ATMSAE_F16, 51}, {NPY, ATMSAE_F16, 0},
}; /* 300 rows */
static const part halves[] = {{NPY, ATMSAE_F16, 120}, {MEMORY, ATMSAE_F16, 80}, {SAFETENSORS, ATMSAE_F16, 100}};
static const part streams[] = {
    {MEMORY, ATMSAE_F16, 50}, {CALLBACK, ATMSAE_F32, 120}, {NPY, ATMSAE_BF16, 30}, {CALLBACK, ATMSAE_F32, 0}, {CALLBACK, ATMSAE_F32, 100}};
static const struct {
    const part *parts;
    int n;
} inputs[] = {{mixed, 9}, {halves, 3}, {streams, 5}};

/* ---- order -------------------------------------------------------------------------------------- */

START_TEST(rows_come_as_in_the_model)
{
    static const uint64_t shuffles[] = {0, 1, 2, 7, 50, 299, 300, 301, 2000}, steps[] = {1, 3, 64, 300, 2000};
    for (size_t a = 0; a < sizeof shuffles / sizeof *shuffles; a++)
        for (uint64_t epochs = 0; epochs < 4; epochs++) {
            setting s = {inputs[_i].parts, inputs[_i].n, shuffles[a], epochs, 11 + a};
            uint64_t n = model(&s, 1500, expected);
            for (size_t b = 0; b < sizeof steps / sizeof *steps; b++) {
                atmsae_source *source = make_source(&s);
                check_same(got_ids, drain(source, 1500, steps[b], got_ids), expected, n, "shuffle", shuffles[a]);
                if (n < 1500) { /* the end stays the end */
                    ck_assert_uint_eq(drain(source, 5, 5, got_ids), 0);
                }
                finish(source);
            }
        }
}
END_TEST

START_TEST(each_epoch_has_every_row_once)
{
    for (uint64_t shuffle = 0; shuffle <= 400; shuffle += 80) {
        setting s = {mixed, 9, shuffle, 1, 5};
        atmsae_source *source = make_source(&s);
        ck_assert_uint_eq(atmsae_source_d(source), D);
        ck_assert_uint_eq(atmsae_source_rows(source), 300);
        uint8_t seen[300] = {0};
        ck_assert_uint_eq(drain(source, MAX_ROWS, 13, got_ids), 300);
        for (uint64_t i = 0; i < 300; i++) {
            ck_assert_uint_lt(got_ids[i], ams_min(300, i + ams_max(shuffle, 1))); /* no row before it was in the buffer */
            ck_assert_uint_eq(seen[got_ids[i]]++, 0);
        }
        finish(source);
    }
}
END_TEST

/* The first row is any of the buffer's with equal probability, and the last row as well. */
START_TEST(draws_are_uniform)
{
    enum { SEEDS = 6000, SLOTS = 12 };
    static const part twelve[] = {{MEMORY, ATMSAE_F32, SLOTS}};
    double first[SLOTS] = {0}, last[SLOTS] = {0}, chi_first = 0, chi_last = 0, e = (double)SEEDS / SLOTS;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        setting s = {twelve, 1, 100, 1, seed};
        atmsae_source *source = make_source(&s);
        uint64_t got = 0;
        float out[SLOTS * D];
        if (atmsae_source_next(source, SLOTS, out, &got) < 0 || got != SLOTS) ck_abort();
        first[(int)out[0]]++;
        last[(int)out[(SLOTS - 1) * D]]++;
        finish(source);
    }
    for (int i = 0; i < SLOTS; i++) {
        chi_first += (first[i] - e) * (first[i] - e) / e;
        chi_last += (last[i] - e) * (last[i] - e) / e;
    }
    ck_assert_double_lt(chi_first, 38); /* 11 degrees of freedom: p = 8e-5 */
    ck_assert_double_lt(chi_last, 38);
}
END_TEST

enum { WIDE = 300000, WIDE_ROWS = 8 };

static void write_wide(const char *path, int type)
{
    size_t bytes = WIDE_ROWS * WIDE * size_of(type);
    char *data = malloc(bytes);
    for (uint64_t i = 0; i < WIDE_ROWS; i++)
        for (uint64_t j = 0; j < WIDE; j++)
            put(data + (i * WIDE + j) * size_of(type), type, (float)((i * 31 + j) % 200));
    write_npy(path, type == ATMSAE_F32 ? "<f4" : "<f2", "8, 300000", data, bytes);
    free(data);
}

static uint64_t wrong_in_wide(const float *out, uint64_t first, uint64_t n)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < WIDE; j++)
            wrong += out[i * WIDE + j] != (float)(((first + i) % WIDE_ROWS * 31 + j) % 200);
    return wrong;
}

/* Rows of 1.2 MB: a block holds one of them (f32) or three (f16). */
START_TEST(rows_larger_than_blocks)
{
    float *out = malloc(sizeof *out * 2 * WIDE_ROWS * WIDE);
    for (int type = ATMSAE_F32; type <= ATMSAE_F16; type++) {
        write_wide(path_of(type), type);
        atmsae_source *source = new_source(type == ATMSAE_F32 ? 0 : 1, 2, 0);
        ck_assert_int_eq(atmsae_source_add_file(source, path_of(type), NULL, 0), 0);
        uint64_t got;
        ck_assert_int_eq(atmsae_source_next(source, 2 * WIDE_ROWS, out, &got), 0);
        ck_assert_uint_eq(got, 2 * WIDE_ROWS);
        ck_assert_uint_eq(wrong_in_wide(out, 0, got), 0);
        finish(source);
    }
    free(out);
}
END_TEST

/* A file cut within the second block while it is open, then replaced by a whole one. */
START_TEST(cut_files_can_be_replaced)
{
    float *out = malloc(sizeof *out * WIDE_ROWS * WIDE);
    uint64_t got;
    write_wide(path_of(0), ATMSAE_F16);
    atmsae_source *source = new_source(0, 1, 0);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), NULL, 0), 0);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    ck_assert_int_eq(truncate(path_of(0), 9 * WIDE), 0); /* 4.5 rows */
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), ATMSAE_E_TRUNCATED);
    ck_assert_uint_eq(got, 0);
    ck_assert_int_eq(unlink(path_of(0)), 0);
    write_wide(path_of(0), ATMSAE_F16);
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), 0);
    ck_assert_uint_eq(got, 7);
    ck_assert_uint_eq(wrong_in_wide(out, 1, 7), 0);
    finish(source);
    free(out);
}
END_TEST

START_TEST(rewind_starts_again)
{
    setting s = {mixed, 9, 50, 2, 9};
    atmsae_source *source = make_source(&s);
    drain(source, 123, 50, got_ids);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    check_same(got_ids, drain(source, MAX_ROWS, 64, got_ids), expected, model(&s, MAX_ROWS, expected), "rewind", 0);
    /* before the first row, inputs can be added again, and the type of the slots may change */
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    char *more = make_rows(ATMSAE_F16, 300, 20, D);
    ck_assert_int_eq(atmsae_source_add_memory(source, more, 20, D, 0, ATMSAE_F16), 0);
    part longer[10];
    memcpy(longer, mixed, sizeof mixed);
    longer[9] = (part){MEMORY, ATMSAE_F16, 20};
    setting t = {longer, 10, 50, 2, 9};
    current = t;
    check_same(got_ids, drain(source, MAX_ROWS, 64, got_ids), expected, model(&t, MAX_ROWS, expected), "rewind", 1);
    finish(source);
    free(more);

    setting c = {streams, 5, 10, 0, 0};
    source = make_source(&c);
    ck_assert_uint_eq(atmsae_source_rows(source), 0);
    ck_assert_int_eq(atmsae_source_rewind(source), 0); /* not read yet */
    drain(source, 60, 60, got_ids);
    ck_assert_int_eq(atmsae_source_rewind(source), ATMSAE_E_UNSUPPORTED);
    ck_assert_uint_eq(drain(source, MAX_ROWS, 60, got_ids), 240); /* and goes on */
    finish(source);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------------- */

START_TEST(failed_callbacks_lose_nothing)
{
    for (uint64_t every = 2; every < 6; every++)
        for (uint64_t shuffle = 0; shuffle < 200; shuffle += 33)
            for (uint64_t step = 1; step < 200; step += 66) {
                setting s = {streams, 5, shuffle, 1, 4};
                atmsae_source *source = make_source(&s);
                for (int i = 0; i < 3; i++)
                    feeds[i].fail_every = every;
                uint64_t n = model(&s, MAX_ROWS, expected);
                check_same(got_ids, drain(source, MAX_ROWS, step, got_ids), expected, n, "every", every);
                finish(source);
            }
    static const part one[] = {{CALLBACK, ATMSAE_F32, 10}};
    setting s = {one, 1, 0, 1, 0};
    atmsae_source *source = make_source(&s);
    feeds[0].fail_every = 1;
    float out[4 * D];
    uint64_t got = 9;
    ck_assert_int_eq(atmsae_source_next(source, 4, out, &got), ATMSAE_E_CALLBACK);
    ck_assert_uint_eq(got, 0);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "-5"));
    finish(source);
}
END_TEST

static int64_t read_too_much(void *opaque, float *out, uint64_t max_rows)
{
    (void)opaque;
    (void)out;
    return (int64_t)max_rows + 1;
}

START_TEST(a_callback_that_returns_too_much)
{
    atmsae_source *source = new_source(10, 1, 0);
    ck_assert_int_eq(atmsae_source_add_callback(source, D, read_too_much, NULL), 0);
    float out[D];
    uint64_t got;
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), ATMSAE_E_CALLBACK);
    finish(source);
}
END_TEST

/* A file that is short for a while, then whole again; also replaced by another inode. */
START_TEST(failed_reads_lose_nothing)
{
    for (uint64_t taken = 0; taken < 60; taken += 7) {
        setting s = {halves, 3, (uint64_t)_i, 1, 4};
        atmsae_source *source = make_source(&s);
        uint64_t n = drain(source, taken, 10, got_ids), got;
        char away[128], kept[128];
        strcpy(kept, path_of(2));
        strcpy(away, path_of(99));
        ck_assert_int_eq(rename(kept, away), 0);
        static float out[300 * D];
        ck_assert_int_eq(atmsae_source_next(source, 300, out, &got), ATMSAE_E_IO);
        ck_assert_uint_eq(got, 0);
        char *fewer = make_rows(ATMSAE_F16, 200, 99, D);
        write_npy(kept, "<f2", "99, 3", fewer, 99 * D * 2);
        free(fewer);
        ck_assert_int_lt(atmsae_source_next(source, 300, out, &got), 0); /* another file */
        ck_assert_int_eq(rename(away, kept), 0);
        n += drain(source, MAX_ROWS - 100, 300, got_ids + n);
        check_same(got_ids, n, expected, model(&s, MAX_ROWS, expected), "taken", taken);
        finish(source);
    }
}
END_TEST

START_TEST(failed_allocations_lose_nothing)
{
    static const part all[] = {{NPY, ATMSAE_F16, 60}, {CALLBACK, ATMSAE_F32, 70}, {SAFETENSORS, ATMSAE_BF16, 50}};
    setting s = {all, _i ? 1 : 3, 40, 1, 4}; /* with a callback, or a file alone */
    uint64_t n = model(&s, MAX_ROWS, expected), failures = 0;
    for (uint64_t at = 1; at < 100; at++) {
        faults.at = 0;
        atmsae_source *source = make_source(&s);
        faults.count = 0;
        faults.at = at;
        faults.times = 3;
        check_same(got_ids, drain(source, MAX_ROWS, 50, got_ids), expected, n, "allocation", at);
        if (faults.count >= at) failures++;
        faults.at = 0;
        finish(source);
    }
    ck_assert_uint_gt(failures, 5);
    for (uint64_t at = 1; at < 100; at++) { /* adding a file */
        atmsae_source *source = new_source(0, 1, 0);
        faults.count = 0;
        faults.at = at;
        faults.times = UINT64_MAX - at;
        atmsae_status status = atmsae_source_add_file(source, path_of(0), NULL, 0);
        faults.at = 0;
        ck_assert(status == 0 || status == ATMSAE_E_NOMEM);
        ck_assert_uint_eq(atmsae_source_rows(source), status == 0 ? 60 : 0);
        finish(source);
        if (status == 0) break;
        ck_assert_uint_lt(at, 99);
    }
}
END_TEST

START_TEST(wrong_calls_are_named)
{
    char rows[64] __attribute__((aligned(8))) = {0};
    float out[D];
    uint64_t got;
    atmsae_source *source = new_source(0, 1, 0);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), ATMSAE_E_STATE); /* no input */
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, 0, 0, ATMSAE_F32), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, (1 << 24) + 1, 0, ATMSAE_F32), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 2, ATMSAE_F32), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 0, 4), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, NULL, 1, D, 0, ATMSAE_F32), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows + 1, 1, D, 0, ATMSAE_F16), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, UINT64_MAX / 4, D, 0, ATMSAE_F32), ATMSAE_E_LIMIT);
    ck_assert_int_eq(atmsae_source_add_callback(source, D, NULL, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, NULL, 0, D, 0, ATMSAE_F32), 0); /* an empty shard */
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    ck_assert_uint_eq(got, 0);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 0, ATMSAE_F32), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), NULL, 0), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_add_callback(source, D, read_feed, NULL), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D + 1, 0, ATMSAE_F32), ATMSAE_E_ARG); /* another width */
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "4"));
    ck_assert_int_eq(atmsae_source_next(source, UINT64_MAX, out, &got), ATMSAE_E_LIMIT);
    ck_assert_int_eq(atmsae_source_next(source, 1, NULL, &got), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_next(source, 0, NULL, &got), 0);
    finish(source);

    source = new_source(UINT64_MAX, 0, 0); /* a buffer of everything; for ever over nothing ends at once */
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 0, D, 0, ATMSAE_F16), 0);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    ck_assert_uint_eq(got, 0);
    finish(source);
    source = new_source(UINT64_MAX, 0, 0); /* with a callback its size cannot be bounded by the rows */
    ck_assert_int_eq(atmsae_source_add_callback(source, 1 << 24, read_feed, NULL), 0);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), ATMSAE_E_NOMEM);
    finish(source);

    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.size = 4;
    ck_assert_int_eq(atmsae_source_create(ctx, &config, &source), ATMSAE_E_ABI);
    ck_assert_ptr_null(source);
    ck_assert_int_eq(atmsae_source_create(ctx, NULL, &source), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_create(NULL, &config, &source), ATMSAE_E_ARG);
    atmsae_source_destroy(NULL);
}
END_TEST

START_TEST(null_handles)
{
    float out[D];
    uint64_t got = 7;
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    ck_assert_int_eq(atmsae_source_create(ctx, &config, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_create(NULL, &config, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(NULL, out, 1, D, 0, ATMSAE_F32), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_callback(NULL, D, read_feed, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_file(NULL, path_of(0), NULL, 0), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_next(NULL, 1, out, &got), ATMSAE_E_ARG);
    ck_assert_uint_eq(got, 0);
    ck_assert_int_eq(atmsae_source_rewind(NULL), ATMSAE_E_ARG);
    ck_assert_uint_eq(atmsae_source_d(NULL), 0);
    ck_assert_uint_eq(atmsae_source_rows(NULL), 0);
}
END_TEST

/* A callback that calls the source that called it, in every way. */
static int64_t call_back_in(void *opaque, float *out, uint64_t max_rows)
{
    atmsae_source *source = *(atmsae_source **)opaque;
    uint64_t got;
    (void)max_rows;
    ck_assert_int_eq(atmsae_source_add_memory(source, out, 1, D, 0, ATMSAE_F32), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_add_callback(source, D, read_feed, NULL), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), NULL, 0), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_rewind(source), ATMSAE_E_STATE);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "in use"));
    return 0;
}

START_TEST(callbacks_cannot_call_back_in)
{
    float out[D];
    uint64_t got;
    atmsae_source *source = new_source(0, 1, 0);
    ck_assert_int_eq(atmsae_source_add_callback(source, D, call_back_in, &source), 0);
    ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
    ck_assert_uint_eq(got, 0);
    ck_assert_int_eq(atmsae_source_rewind(source), ATMSAE_E_UNSUPPORTED); /* it was asked, if only to say that it ended */
    finish(source);
}
END_TEST

START_TEST(sizes_that_overflow)
{
    const uint64_t most = PTRDIFF_MAX;
    float rows[D] = {0}, out[D];
    uint64_t got;
    atmsae_source *source = new_source(0, 1, 0);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, UINT64_MAX / 2, ATMSAE_F32), ATMSAE_E_LIMIT); /* ld * 4 */
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, UINT64_MAX / 16, D, 8, ATMSAE_F32), ATMSAE_E_LIMIT); /* * rows */
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, most / 12 + 1, D, 3, ATMSAE_F32), ATMSAE_E_LIMIT); /* > PTRDIFF_MAX */
    ck_assert_int_eq(atmsae_source_add_callback(source, 0, read_feed, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_callback(source, (1 << 24) + 1, read_feed, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 0, ATMSAE_F32), 0);
    ck_assert_int_eq(atmsae_source_next(source, most / 12 + 1, out, &got), ATMSAE_E_LIMIT);
    /* No machine has room for 2^64 rows: a source that believes to have them. */
    source->inputs[0].n_rows = UINT64_MAX - 1;
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 0, ATMSAE_F32), 0);
    ck_assert_int_eq(atmsae_source_add_memory(source, rows, 1, D, 0, ATMSAE_F32), ATMSAE_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "2^64"));
    ck_assert_uint_eq(source->n_inputs, 2);
    finish(source);
}
END_TEST

START_TEST(files_are_checked_when_added)
{
    char zeros[256] = {0};
    atmsae_source *source = new_source(0, 1, 0);
    const char *p = path_of(0);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_IO); /* missing */
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), p));
    ck_assert_int_eq(atmsae_source_add_file(source, NULL, NULL, 0), ATMSAE_E_ARG);
    write_npy(p, "<f4", "4,", zeros, 16);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_ARG); /* one dimension */
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "the array has 1 dimension; rows have 2 or more"));
    write_npy(p, "<i4", "2, 3", zeros, 24);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_UNSUPPORTED);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 1), ATMSAE_E_UNSUPPORTED);
    write_npy(p, "<f4", "2, 3", zeros, 23);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_TRUNCATED);
    write_npy(p, "<u2", "2, 3", zeros, 12);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "If it is bfloat16, for which NumPy has no type, say so: as_bf16"));
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 2), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_file(source, p, "x", 1), ATMSAE_E_ARG);
    ck_assert_uint_eq(atmsae_source_d(source), 0);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 1), 0);
    write_npy(p, "|V2", "2, 3", zeros, 12);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 1), 0);
    write_npy(p, "<f2", "2, 4", zeros, 16);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_ARG); /* another width */
    ck_assert_uint_eq(atmsae_source_rows(source), 4);

    /* safetensors: which tensor */
    write_safetensors(p, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"b\":{\"dtype\":\"F16\",\"shape\":[1,3],\"data_offsets\":[24,30]},"
                         "\"c\":{\"dtype\":\"U16\",\"shape\":[1,3],\"data_offsets\":[30,36]},"
                         "\"n\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[36,64]}}", zeros, 64);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_ARG); /* a or b? */
    ck_assert_int_eq(atmsae_source_add_file(source, p, "d", 0), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_file(source, p, "n", 0), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_add_file(source, p, "c", 1), ATMSAE_E_UNSUPPORTED); /* .npy only */
    ck_assert_int_eq(atmsae_source_add_file(source, p, "b", 0), 0);
    ck_assert_uint_eq(atmsae_source_rows(source), 5);
    write_safetensors(p, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"activations\":{\"dtype\":\"F16\",\"shape\":[3,3],\"data_offsets\":[24,42]}}", zeros, 42);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), 0);
    ck_assert_uint_eq(atmsae_source_rows(source), 8);
    write_safetensors(p, "{\"i\":{\"dtype\":\"I32\",\"shape\":[1,3],\"data_offsets\":[0,12]}}", zeros, 12);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_ARG); /* none */
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "none of its 1 tensors can be rows"));
    write_safetensors(p, "{\"activations\":{\"dtype\":\"I32\",\"shape\":[1,3],\"data_offsets\":[0,12]}}", zeros, 12);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), ATMSAE_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "tensor \"activations\" holds I32"));
    /* What is read as it is comes first, then F64 and more dimensions. */
    write_safetensors(p, "{\"a\":{\"dtype\":\"F64\",\"shape\":[1,3],\"data_offsets\":[0,24]},"
                         "\"b\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[24,36]}}", zeros, 36);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), 0);
    write_safetensors(p, "{\"a\":{\"dtype\":\"F64\",\"shape\":[1,2,3],\"data_offsets\":[0,48]},"
                         "\"n\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[48,56]}}", zeros, 56);
    ck_assert_int_eq(atmsae_source_add_file(source, p, NULL, 0), 0);
    ck_assert_uint_eq(atmsae_source_rows(source), 11);
    finish(source);
}
END_TEST

/* Rows in any number of dimensions, as f64, and column by column are those of memory: when they are drawn, in a state,
 * and by their place. */
enum { COLS = 37, ROWS = 50 };

static void next_rows(atmsae_source *source, uint64_t n, float *out)
{
    uint64_t got;
    ck_assert_int_eq(atmsae_source_next(source, n, out, &got), 0);
    ck_assert_uint_eq(got, n);
}

START_TEST(rows_of_other_shapes)
{
    static const struct {
        const char *descr, *fortran, *shape;
    } forms[] = {
        {"<f4", "False", "5, 10, 37"}, {"<f4", "False", "5, 2, 5, 37"}, {"<f8", "False", "50, 37"},
        {"<f8", "False", "10, 5, 37"}, {"<f4", "True", "50, 37"},      {"<f8", "True", "50, 37"},
    };
    static float rows[ROWS * COLS], want[ROWS * COLS], got[ROWS * COLS];
    static double doubles[ROWS * COLS];
    static float floats[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++)
        rows[i] = (float)i / 3;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        const bool columns = forms[f].fortran[0] == 'T', wide = forms[f].descr[2] == '8';
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLS; j++) {
                const int at = columns ? j * ROWS + i : i * COLS + j;
                floats[at] = rows[i * COLS + j];
                doubles[at] = (double)rows[i * COLS + j] * (1 + 0x1p-30); /* rounds to it */
            }
        write_npy_as(path_of(0), forms[f].descr, forms[f].fortran, forms[f].shape, wide ? (void *)doubles : floats,
                     wide ? sizeof doubles : sizeof floats);
        atmsae_source *memory = new_source(10, 0, 5), *file = new_source(10, 0, 5), *again = new_source(10, 0, 5);
        ck_assert_int_eq(atmsae_source_add_memory(memory, rows, ROWS, COLS, 0, ATMSAE_F32), 0);
        if (atmsae_source_add_file(file, path_of(0), NULL, 0) < 0) ck_abort_msg("%s", atmsae_last_error(ctx));
        ck_assert_int_eq(atmsae_source_add_file(again, path_of(0), NULL, 0), 0);
        ck_assert_uint_eq(atmsae_source_rows(file), ROWS);
        ck_assert_uint_eq(atmsae_source_d(file), COLS);
        next_rows(memory, 30, want);
        next_rows(file, 30, got);
        ck_assert_mem_eq(got, want, 30 * COLS * sizeof *got);
        for (uint64_t i = 0; i < 30; i++) {
            atmsae_row_origin a = {.size = sizeof a}, b = {.size = sizeof b};
            ck_assert_int_eq(atmsae_source_locate(memory, i, &a), 0);
            ck_assert_int_eq(atmsae_source_locate(file, i, &b), 0);
            ck_assert_uint_eq(a.row, b.row);
            ck_assert(got[i * COLS] == rows[b.row * COLS]);
        }
        ams_source_state state; /* of the rows in memory: the same checksum */
        ck_assert_int_eq(ams_source_state_save(memory, &state), 0);
        if (ams_source_state_restore(again, &state) < 0) ck_abort_msg("%s", atmsae_last_error(ctx));
        ams_source_state_free(memory, &state);
        next_rows(memory, ROWS, want);
        next_rows(again, ROWS, got);
        ck_assert_mem_eq(got, want, sizeof want);
        finish(memory);
        finish(file);
        finish(again);
    }
}
END_TEST

/* The advice for a file that is slow to read may be followed while a run goes on: its rows stay the same. */
START_TEST(another_form_in_place)
{
    static float rows[4 * D] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, columns[4 * D] = {1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12}, got[4 * D];
    static double doubles[4 * D] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1e300, 11, 12};
    atmsae_source *source = new_source(0, 0, 0);
    write_npy_as(path_of(0), "<f4", "True", "4, 3", columns, sizeof columns);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), NULL, 0), 0);
    next_rows(source, 4, got);
    ck_assert_mem_eq(got, rows, sizeof rows);
    write_npy(path_of(1), "<f4", "2, 2, 3", rows, sizeof rows);
    char from[128];
    strcpy(from, path_of(1));
    ck_assert_int_eq(rename(from, path_of(0)), 0);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    next_rows(source, 4, got);
    ck_assert_mem_eq(got, rows, sizeof rows);
    finish(source);
    /* Beyond what f32 holds there is only infinity, which steps refuse. */
    write_npy(path_of(0), "<f8", "4, 3", doubles, sizeof doubles);
    source = new_source(0, 1, 0);
    ck_assert_int_eq(atmsae_source_add_file(source, path_of(0), NULL, 0), 0);
    next_rows(source, 4, got);
    ck_assert(isinf(got[9]) && got[10] == 11);
    finish(source);
}
END_TEST

/* More files than a process may have open, by a relative path, from another folder. */
START_TEST(many_shards_and_chdir)
{
    enum { SHARDS = 1200 };
    setting s = {(const part[]){{NPY, ATMSAE_F16, SHARDS}}, 1, 100, 1, 0};
    atmsae_source *source = new_source(100, 1, 0);
    ck_assert_int_eq(chdir(folder), 0);
    for (int i = 0; i < SHARDS; i++) {
        char name[32];
        snprintf(name, sizeof name, "shard-%d.npy", i);
        char *row = make_rows(ATMSAE_F16, (uint64_t)i, 1, D);
        write_npy(name, "<f2", "1, 3", row, D * 2);
        free(row);
        if (atmsae_source_add_file(source, name, NULL, 0) < 0) ck_abort_msg("%s", atmsae_last_error(ctx));
    }
    ck_assert_int_eq(chdir("/"), 0);
    check_same(got_ids, drain(source, MAX_ROWS, 500, got_ids), expected, model(&s, MAX_ROWS, expected), "shards", SHARDS);
    finish(source);
}
END_TEST

/* ---- states --------------------------------------------------------------------------------------- */

/* A copy, as a checkpoint makes one. */
typedef struct saved {
    ams_source_state state;
    uint64_t position[64], ids[512];
    float rows[512 * D], held[512 * D];
} saved;

static void save(const atmsae_source *source, saved *out)
{
    ams_source_state lend;
    ck_assert_int_eq(ams_source_state_save(source, &lend), 0);
    ck_assert_uint_le(lend.n_position, 64);
    ck_assert_uint_le(lend.n_ids, 512);
    ck_assert_uint_le(lend.n_rows, 512);
    ck_assert_uint_le(lend.n_held, 512);
    out->state = lend;
    out->state.position = memcpy(out->position, lend.position, 8 * lend.n_position);
    if (lend.n_ids) memcpy(out->ids, lend.ids, 8 * lend.n_ids);
    if (lend.n_rows) memcpy(out->rows, lend.rows, sizeof(float) * D * lend.n_rows);
    if (lend.n_held) memcpy(out->held, lend.held, sizeof(float) * D * lend.n_held);
    out->state.ids = out->ids;
    out->state.rows = out->rows;
    out->state.held = out->held;
    ams_source_state_free(source, &lend);
}

START_TEST(restored_states_go_on_the_same)
{
    static saved state;
    for (uint64_t shuffle = 0; shuffle < 400; shuffle = shuffle * 2 + 23)
        for (uint64_t taken = 0; taken <= 620; taken += 31) {
            setting s = {inputs[_i].parts, inputs[_i].n, shuffle, 2, 6};
            atmsae_source *source = make_source(&s);
            uint64_t n = drain(source, taken, 20, got_ids);
            if (inputs[_i].parts == streams) { /* leave rows of a failed call behind, too */
                for (int i = 0; i < 3; i++)
                    feeds[i].fail_every = feeds[i].calls + 4;
                static float out[200 * D];
                uint64_t got;
                atmsae_status status = atmsae_source_next(source, 200, out, &got);
                if (status == 0) { /* (near the end nothing fails: then these rows were taken) */
                    for (uint64_t i = 0; i < got; i++)
                        got_ids[n++] = (uint64_t)out[i * D] + 256 * (uint64_t)out[i * D + 1];
                }
            }
            save(source, &state);
            finish(source);

            feed was[8];
            memcpy(was, feeds, sizeof was);
            source = make_source(&s);
            memcpy(feeds, was, sizeof was); /* a callback goes on where it was */
            for (int i = 0; i < 3; i++)
                feeds[i].fail_every = 0;
            if (taken % 2) { /* also over a source in use */
                if (inputs[_i].parts != streams) drain(source, 77, 50, expected);
            }
            atmsae_status status = ams_source_state_restore(source, &state.state);
            ck_assert_msg(status == 0, "%s", atmsae_last_error(ctx));
            n += drain(source, MAX_ROWS - n, 20, got_ids + n);
            check_same(got_ids, n, expected, model(&s, MAX_ROWS, expected), "taken", taken);
            finish(source);
        }
}
END_TEST

static void check_refused(const setting *s, const saved *state, atmsae_status status, const char *text)
{
    atmsae_source *source = make_source(s);
    ck_assert_int_eq(ams_source_state_restore(source, &state->state), status);
    ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "expected \"%s\": %s", text, atmsae_last_error(ctx));
    uint64_t n = model(s, 100, expected); /* and the source is as it was */
    check_same(got_ids, drain(source, 100, 20, got_ids), expected, n, text, 0);
    finish(source);
}

START_TEST(other_sources_are_refused)
{
    static saved state, bad;
    static const part memory[] = {{MEMORY, ATMSAE_F16, 120}, {MEMORY, ATMSAE_F16, 80}, {MEMORY, ATMSAE_F16, 100}};
    setting s = {memory, 3, 50, 1, 6};
    atmsae_source *source = make_source(&s);
    drain(source, 100, 20, got_ids);
    save(source, &state);
    finish(source);

    part other[3];
    setting t = s;
    t.parts = other;
    memcpy(other, memory, sizeof other);
    other[1].rows = 79;
    check_refused(&t, &state, ATMSAE_E_STATE, "input 1 (memory) is not what it was: its number of rows is 79");
    other[1] = (part){MEMORY, ATMSAE_BF16, 80};
    check_refused(&t, &state, ATMSAE_E_STATE, "input 1 (memory) is not what it was: its type");
    other[1] = (part){CALLBACK, ATMSAE_F32, 80};
    check_refused(&t, &state, ATMSAE_E_STATE, "input 1 (callback) is not what it was: its type");
    t = s;
    t.n_parts = 2;
    check_refused(&t, &state, ATMSAE_E_STATE, "number of inputs = 2");
    t = s;
    t.seed = 7;
    check_refused(&t, &state, ATMSAE_E_STATE, "seed = 7");
    t = s;
    t.shuffle = 51;
    check_refused(&t, &state, ATMSAE_E_STATE, "shuffle buffer = 51");
    for (int change = 0; change < 5; change++) { /* another first or last row, or many others */
        static const struct {
            uint64_t first, end;
        } changed[] = {{0, 1}, {119, 120}, {1, 119}, {30, 119}, {1, 100}};
        source = new_source(50, 1, 6);
        char *rows[3] = {make_rows(ATMSAE_F16, 0, 120, D), make_rows(ATMSAE_F16, 120, 80, D), make_rows(ATMSAE_F16, 200, 100, D)};
        for (uint64_t row = changed[change].first; row < changed[change].end; row++)
            rows[0][row * D * 2] ^= 1;
        for (int i = 0; i < 3; i++)
            ck_assert_int_eq(atmsae_source_add_memory(source, rows[i], memory[i].rows, D, 0, ATMSAE_F16), 0);
        ck_assert_msg(ams_source_state_restore(source, &state.state) == ATMSAE_E_STATE, "change %d was taken", change);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "input 0 (memory) is not what it was: its checksum"));
        finish(source);
        for (int i = 0; i < 3; i++)
            free(rows[i]);
    }

    /* A file with the same rows is the same input, and another number of passes is allowed. */
    static const part files[] = {{NPY, ATMSAE_F16, 120}, {MEMORY, ATMSAE_F16, 80}, {SAFETENSORS, ATMSAE_F16, 100}};
    t = (setting){files, 3, 50, 3, 6};
    source = make_source(&t);
    ck_assert_int_eq(ams_source_state_restore(source, &state.state), 0);
    uint64_t n = drain(source, 100, 20, got_ids); /* the first pass's rows are all handed out by then, or not yet */
    for (uint64_t i = 0; i < n; i++)
        ck_assert_uint_lt(got_ids[i], 300);
    ck_assert_uint_eq(n + drain(source, MAX_ROWS, 20, got_ids), 3 * 300 - 100);
    finish(source);

    /* Damaged states: any word set to a huge value is refused, or leads to no crash. */
    for (uint64_t i = 0; i < state.state.n_position; i++) {
        bad = state;
        bad.state.position = bad.position;
        bad.state.ids = bad.ids;
        bad.position[i] = UINT64_MAX - 3;
        source = make_source(&s);
        current.parts = NULL; /* nor are they located */
        if (ams_source_state_restore(source, &bad.state) == 0) {
            ck_assert(i == 5 || i == 8); /* pass and draws may be anything */
            drain(source, 400, 20, got_ids);
        }
        finish(source);
    }
    bad = state;
    bad.state.position = bad.position;
    bad.state.ids = bad.ids;
    bad.ids[7] = 300;
    check_refused(&s, &bad, ATMSAE_E_FORMAT, "impossible");
    bad = state;
    bad.state.n_ids--;
    check_refused(&s, &bad, ATMSAE_E_FORMAT, "impossible");
    bad = state;
    bad.state.n_position = 3;
    check_refused(&s, &bad, ATMSAE_E_FORMAT, "3 words");

    /* A callback's rows must be in the state. */
    setting c = {streams, 5, 50, 1, 6};
    source = make_source(&c);
    drain(source, 90, 20, got_ids);
    save(source, &state);
    finish(source);
    for (uint64_t i = 0; i < state.state.n_position; i++) {
        bad = state;
        bad.state.position = bad.position;
        bad.state.rows = bad.rows;
        bad.position[i] = UINT64_MAX - 3;
        source = make_source(&c);
        current.parts = NULL;
        if (ams_source_state_restore(source, &bad.state) == 0) drain(source, 400, 20, got_ids);
        finish(source);
    }
    state.state.rows = NULL;
    state.state.n_rows = 0;
    check_refused(&c, &state, ATMSAE_E_UNSUPPORTED, "callback");
}
END_TEST

/* Damage that keeps each word plausible. Each is applied to a good state, restored, and refused. */
START_TEST(inconsistent_states_are_refused)
{
    enum { N_INPUTS = 4, INPUT = 6, ROW = 7, FILLED = 9 }; /* words of a position */
    static saved state, bad;
    for (int streamed = 0; streamed < 2; streamed++) {
        setting s = {streamed ? streams : halves, streamed ? 5 : 3, 30, 1, 6};
        atmsae_source *source = make_source(&s);
        drain(source, 90, 20, got_ids);
        if (streamed) { /* rows of a failed call */
            float out[200 * D];
            uint64_t got;
            feeds[0].fail_every = feeds[0].calls + 3;
            ck_assert_int_eq(atmsae_source_next(source, 80, out, &got), ATMSAE_E_CALLBACK);
        }
        save(source, &state);
        finish(source);
        ck_assert_int_eq(state.state.n_held > 0, streamed);
        for (int damage = 0; damage < 9; damage++) {
            bad = state;
            bad.state.position = bad.position;
            bad.state.ids = bad.ids;
            bad.state.rows = bad.rows;
            bad.state.held = bad.held;
            const char *text = "impossible";
            switch (damage) {
            case 0: bad.state.position = NULL; text = "words"; break;
            case 1: bad.state.n_position++; text = "words for"; break;
            case 2: bad.state.n_held++; break;
            case 3:
                bad.state.held = NULL;
                if (!streamed) continue;
                break;
            case 4:
                bad.state.ids = NULL;
                if (streamed) continue;
                break;
            case 5: bad.position[INPUT] = bad.position[N_INPUTS]; break; /* and a row of none */
            case 6: bad.position[ROW] = 1 << 20; break;
            case 7: bad.state.n_rows++; if (!streamed) bad.state.n_ids++; break;
            case 8:
                bad.state.n_held = bad.position[10] = 0; /* a callback's rows ahead are not there */
                if (!streamed) continue;
                break;
            }
            if (streamed && damage == 0) continue; /* the same */
            source = make_source(&s);
            atmsae_status status = ams_source_state_restore(source, &bad.state);
            ck_assert_msg(status == ATMSAE_E_FORMAT, "damage %d, streamed %d: %d", damage, streamed, (int)status);
            ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "damage %d: %s", damage, atmsae_last_error(ctx));
            ck_assert_uint_eq(source->begun, 0);
            finish(source);
        }
    }

    /* Behind the last input is the start of the next pass. */
    setting s = {halves, 3, 30, 2, 6};
    atmsae_source *source = make_source(&s);
    uint64_t n = drain(source, 270, 27, got_ids); /* 300 rows were taken off the stream */
    save(source, &state);
    finish(source);
    ck_assert_uint_eq(state.position[INPUT], 2);
    ck_assert_uint_eq(state.position[ROW], 100);
    ck_assert_uint_eq(state.position[FILLED], 30);
    state.position[INPUT] = 3;
    state.position[ROW] = 0;
    source = make_source(&s);
    ck_assert_int_eq(ams_source_state_restore(source, &state.state), 0);
    save(source, &bad); /* and can be saved like that */
    n += drain(source, MAX_ROWS - n, 27, got_ids + n);
    check_same(got_ids, n, expected, model(&s, MAX_ROWS, expected), "behind", 0);
    finish(source);
}
END_TEST

/* Sampled rows: all where there are few, else as many in each part; never one twice. */
START_TEST(samples_spread_over_the_rows)
{
    for (uint64_t n = 0; n < 3000; n = n < 80 ? n + 1 : n * 3 / 2) {
        char *rows = calloc(n + 1, 2);
        uint64_t seen = 0, last = 0, most = 0;
        atmsae_source *source = new_source(0, 1, 0);
        ck_assert_int_eq(atmsae_source_add_memory(source, rows, n, 1, 0, ATMSAE_F16), 0);
        const ams_input *input = &source->inputs[0];
        ams_sample before = input->side[AMS_ROWS].sample, now;
        for (uint64_t r = 0; r < n; r++) { /* a row is in the sample if its change shows */
            rows[2 * r] = 1;
            ck_assert_int_eq(ams_sample_rows(ctx, &input->side[AMS_ROWS], n, NULL, 1, &now), 0);
            rows[2 * r] = 0;
            ck_assert(now.ends == before.ends || r == 0 || r == n - 1);
            if (now.rows == before.rows) continue;
            if (seen++ > 0) most = ams_max(most, r - last);
            last = r;
        }
        ck_assert_uint_eq(seen, ams_min(n, 34));
        ck_assert_msg(n == 0 || (last == n - 1 && most <= 2 * ams_max(1, (n - 1) / 32) + 32), "%llu rows: a gap of %llu",
                      (unsigned long long)n, (unsigned long long)most);
        finish(source);
        free(rows);
    }
}
END_TEST

/* What version 0.1.0 saved: the checksum of two rows, and no ids of streamed rows. */
START_TEST(states_of_the_first_layout)
{
    static saved state, bad;
    setting s = {inputs[_i].parts, inputs[_i].n, 50, 1, 6};
    atmsae_source *source = make_source(&s);
    uint64_t n = drain(source, 100, 20, got_ids), unknown = 0;
    save(source, &state);
    state.position[0] = 1;
    for (uint64_t k = 0; k < source->n_inputs; k++)
        if (!source->inputs[k].read) state.position[11 + 3 * k + 2] = source->inputs[k].side[AMS_ROWS].sample.ends;
    const bool streamed = inputs[_i].parts == streams;
    if (streamed) state.state.ids = NULL, state.state.n_ids = 0;
    finish(source);

    bad = state;
    bad.state.position = bad.position;
    bad.state.ids = streamed ? NULL : bad.ids;
    bad.state.rows = bad.rows;
    bad.position[11 + 2] ^= 1;
    check_refused(&s, &bad, ATMSAE_E_STATE, "input 0");

    source = make_source(&s);
    for (int k = 0; k < 3; k++) /* where the callbacks were */
        if (streamed) feeds[k].next += state.position[11 + 3 * (k ? k + 2 : 1) + 1];
    ck_assert_int_eq(ams_source_state_restore(source, &state.state), 0);
    save(source, &bad); /* as a state of today, which holds what is not known */
    ck_assert_uint_eq(bad.position[0], 2);
    float out[D];
    uint64_t got, end = model(&s, MAX_ROWS, expected);
    for (; n < end; n++) {
        ck_assert_int_eq(atmsae_source_next(source, 1, out, &got), 0);
        ck_assert_uint_eq((uint64_t)out[0] + 256 * (uint64_t)out[1], expected[n]);
        atmsae_row_origin origin = {.size = sizeof origin};
        if (streamed && atmsae_source_locate(source, 0, &origin) == ATMSAE_E_UNSUPPORTED) unknown++;
        else ck_assert(is_located(source, 0, expected[n]));
    }
    ck_assert_uint_eq(unknown, streamed ? 50 : 0);
    finish(source);
    source = make_source(&s);
    ck_assert_int_eq(ams_source_state_restore(source, &bad.state), 0);
    finish(source);
}
END_TEST

START_TEST(only_rows_of_the_last_batch_are_located)
{
    setting s = {halves, 3, 20, 1, 6};
    atmsae_source *source = make_source(&s);
    atmsae_row_origin origin = {.size = sizeof origin};
    float out[400 * D];
    uint64_t got;
    ck_assert_int_eq(atmsae_source_locate(NULL, 0, &origin), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_locate(source, 0, &origin), ATMSAE_E_ARG); /* no batch yet */
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), 0);
    const uint64_t id = (uint64_t)out[6 * D] + 256 * (uint64_t)out[6 * D + 1];
    ck_assert_int_eq(atmsae_source_locate(source, 7, &origin), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "row 7, but the last call of source_next gave 7 rows"));
    ck_assert_int_eq(atmsae_source_locate(source, UINT64_MAX, &origin), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_locate(source, 6, NULL), ATMSAE_E_ARG);
    ck_assert(is_located(source, 6, id));
    /* What fails changes nothing, nor does a rewind. */
    char kept[128], away[128];
    strcpy(kept, path_of(2));
    strcpy(away, path_of(9));
    ck_assert_int_eq(rename(kept, away), 0);
    ck_assert_int_eq(atmsae_source_next(source, 300, out, &got), ATMSAE_E_IO);
    ck_assert_int_eq(rename(away, kept), 0);
    ck_assert(is_located(source, 6, id));
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    ck_assert(is_located(source, 6, id));
    ck_assert_int_eq(atmsae_source_next(source, 400, out, &got), 0);
    ck_assert_uint_eq(got, 300);
    ck_assert(is_located(source, 299, (uint64_t)out[299 * D] + 256 * (uint64_t)out[299 * D + 1]));
    ck_assert_int_eq(atmsae_source_locate(source, 300, &origin), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_next(source, 400, out, &got), 0); /* the end */
    ck_assert_int_eq(atmsae_source_locate(source, 0, &origin), ATMSAE_E_ARG);
    finish(source);
}
END_TEST

/* Batches that are put back come again, those of a buffer that drains at the end too; and nothing else changes. */
START_TEST(rows_put_back_come_again)
{
    for (int i = 0; i < 2; i++)
        for (uint64_t shuffle = 0; shuffle <= 400; shuffle += 50) {
            setting s = {inputs[i].parts, inputs[i].n, shuffle, 2, 7};
            atmsae_source *source = make_source(&s);
            const uint64_t n = model(&s, 1500, expected);
            for (uint64_t done = 0, step = 1, got = 1; got > 0; done += got, step = step * 5 % 97) {
                got = drain(source, step, step, got_ids);
                ck_assert_int_eq(atmsae_source_unread(source), got > 0 ? ATMSAE_OK : ATMSAE_E_STATE);
                ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_STATE); /* they are back already */
                const uint64_t other = step * 3 % 89; /* in one call or another */
                drain(source, other, other, got_ids);
                ck_assert_int_eq(atmsae_source_unread(source), got > 0 && other > 0 ? ATMSAE_OK : ATMSAE_E_STATE);
                ck_assert_uint_eq(drain(source, step, step, got_ids), got);
                check_same(got_ids, got, expected + done, ams_min(step, n - done), "row", done);
            }
            finish(source);
        }
}
END_TEST

START_TEST(what_cannot_be_put_back)
{
    setting s = {halves, 3, 20, 1, 6};
    atmsae_source *source = make_source(&s);
    float out[300 * D];
    uint64_t got;
    ck_assert_int_eq(atmsae_source_unread(NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), 0);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), 0);
    ck_assert_int_eq(atmsae_source_next(source, 0, NULL, &got), 0); /* the last call, and it gave none */
    ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_source_rewind(source), 0);
    /* They cannot be read again: the next ones follow. */
    char kept[128], away[128];
    strcpy(kept, path_of(0));
    strcpy(away, path_of(9));
    ck_assert_uint_eq(drain(source, 250, 250, got_ids), 250);
    ck_assert_int_eq(rename(kept, away), 0);
    ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_IO);
    ck_assert_int_eq(rename(away, kept), 0);
    model(&s, 300, expected);
    ck_assert_uint_eq(drain(source, 50, 50, got_ids), 50);
    check_same(got_ids, 50, expected + 250, 50, "row", 250);
    finish(source);
    s = (setting){streams, 5, 20, 1, 6};
    source = make_source(&s);
    ck_assert_int_eq(atmsae_source_next(source, 7, out, &got), 0);
    ck_assert_int_eq(atmsae_source_unread(source), ATMSAE_E_UNSUPPORTED);
    finish(source);
}
END_TEST

/* Saving and restoring while memory is short or a file is away: the source goes on as if not called. */
START_TEST(failed_restores_change_nothing)
{
    static saved state;
    for (int streamed = 0; streamed < 2; streamed++) {
        setting s = {streamed ? streams : halves, streamed ? 5 : 3, 30, 1, 6};
        atmsae_source *source = make_source(&s);
        drain(source, 90, 20, got_ids);
        ams_source_state lend;
        faults.at = 1;
        faults.count = 0;
        faults.times = 1;
        ck_assert_int_eq(ams_source_state_save(source, &lend), ATMSAE_E_NOMEM);
        faults.at = 0;
        save(source, &state);
        finish(source);

        uint64_t n = model(&s, 100, expected), at = 1;
        for (bool failed = true; failed; at++) {
            source = make_source(&s);
            faults.count = 0;
            faults.at = at;
            faults.times = UINT64_MAX - at;
            atmsae_status status = ams_source_state_restore(source, &state.state);
            failed = faults.count >= at;
            faults.at = 0;
            ck_assert_int_eq(status, failed ? ATMSAE_E_NOMEM : ATMSAE_OK);
            if (failed) check_same(got_ids, drain(source, 100, 20, got_ids), expected, n, "allocation", at);
            finish(source);
        }
        ck_assert_uint_gt(at, streamed ? 4 : 5);
    }
    setting s = {halves, 3, 30, 1, 6};
    char kept[128];
    strcpy(kept, path_of(2));
    atmsae_source *source = make_source(&s);
    drain(source, 225, 20, got_ids);
    save(source, &state); /* rows of the last file are in the buffer */
    finish(source);
    source = make_source(&s);
    ck_assert_int_eq(rename(kept, path_of(99)), 0);
    ck_assert_int_eq(ams_source_state_restore(source, &state.state), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), kept));
    ck_assert_int_eq(rename(path_of(99), kept), 0);
    check_same(got_ids, drain(source, 100, 20, got_ids), expected, model(&s, 100, expected), "away", 0);
    finish(source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("source");
    TCase *tests = tcase_create("source");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, rows_come_as_in_the_model, 0, 3);
    tcase_add_test(tests, each_epoch_has_every_row_once);
    tcase_add_test(tests, draws_are_uniform);
    tcase_add_test(tests, rows_larger_than_blocks);
    tcase_add_test(tests, cut_files_can_be_replaced);
    tcase_add_test(tests, rewind_starts_again);
    tcase_add_test(tests, failed_callbacks_lose_nothing);
    tcase_add_test(tests, a_callback_that_returns_too_much);
    tcase_add_loop_test(tests, failed_reads_lose_nothing, 0, 2);
    tcase_add_loop_test(tests, failed_allocations_lose_nothing, 0, 2);
    tcase_add_test(tests, wrong_calls_are_named);
    tcase_add_test(tests, null_handles);
    tcase_add_test(tests, callbacks_cannot_call_back_in);
    tcase_add_test(tests, sizes_that_overflow);
    tcase_add_test(tests, files_are_checked_when_added);
    tcase_add_test(tests, rows_of_other_shapes);
    tcase_add_test(tests, another_form_in_place);
    tcase_add_test(tests, many_shards_and_chdir);
    tcase_add_loop_test(tests, restored_states_go_on_the_same, 0, 3);
    tcase_add_test(tests, other_sources_are_refused);
    tcase_add_test(tests, inconsistent_states_are_refused);
    tcase_add_test(tests, samples_spread_over_the_rows);
    tcase_add_loop_test(tests, states_of_the_first_layout, 0, 3);
    tcase_add_test(tests, only_rows_of_the_last_batch_are_located);
    tcase_add_test(tests, rows_put_back_come_again);
    tcase_add_test(tests, what_cannot_be_put_back);
    tcase_add_test(tests, failed_restores_change_nothing);
    suite_add_tcase(suite, tests);
    return run_all(suite);
}
