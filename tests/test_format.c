/* SPDX-License-Identifier: MIT
 *
 * Files: malformed JSON, .safetensors and .npy with the status each must give; truncation at every
 * byte and every flipped bit; round trips; writing that fails and leaves the old file; failing
 * allocations. Expected values are literals, not what the library computes.
 */
#include "counted.h"
#include "format/format.h"
#include "format/json.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OK ATMSAE_OK
#define FORMAT ATMSAE_E_FORMAT
#define TRUNCATED ATMSAE_E_TRUNCATED
#define LIMIT ATMSAE_E_LIMIT
#define UNSUPPORTED ATMSAE_E_UNSUPPORTED
#define BYTES(literal) literal, sizeof literal - 1

static atmsae_context *ctx;
static char dir[64], path_memory[8][128];

static void setup(void)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &counted;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), OK);
    strcpy(dir, "/tmp/atmsae_format_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(live, 0);
    ck_assert_uint_le(largest_request, 64u << 20); /* whatever a small file claims */
}

static const char *in_dir(const char *name)
{
    static unsigned turn;
    char *path = path_memory[turn++ % 8];
    snprintf(path, sizeof path_memory[0], "%s/%s", dir, name);
    return path;
}

static void put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

static size_t get(const char *path, void *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(bytes, 1, room, f);
    ck_assert(feof(f));
    fclose(f);
    return n;
}

static unsigned entries(const char *folder)
{
    unsigned n = 0;
    DIR *d = opendir(folder);
    ck_assert_ptr_nonnull(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

/* ---- JSON --------------------------------------------------------------------------------------- */

static atmsae_status walk(const char *text, size_t length, unsigned depth)
{
    char *copy = malloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    ams_json json;
    ams_json_token token;
    ams_json_open(&json, ctx, copy, length, depth);
    atmsae_status status;
    do
        status = ams_json_next(&json, &token);
    while (status == OK && token.kind != AMS_JSON_END);
    ams_json_close(&json);
    free(copy);
    return status;
}

static const struct {
    const char *text;
    size_t length;
    atmsae_status status;
} json_cases[] = {
    {BYTES("{}"), OK},
    {BYTES(" [ ] "), OK},
    {BYTES("null"), OK},
    {BYTES("{\"a\":[1,-2.5e-3,0,true,false,null,\"x\"],\"b\":{\"a\":{}}}"), OK},
    {BYTES("[1E400]"), FORMAT},
    {BYTES("[-1e999]"), FORMAT},
    {BYTES("[1e-999]"), OK}, /* 0 */
    {BYTES("\"\\u00e9\\ud834\\udd1e\\/\\b\\f\\n\\r\\t\\\"\\\\\""), OK},
    {BYTES("\"\xf4\x8f\xbf\xbf\xed\x9f\xbf\xc2\x80\""), OK},
    {BYTES(""), FORMAT},
    {BYTES("   "), FORMAT},
    {BYTES("{"), FORMAT},
    {BYTES("[1,2"), FORMAT},
    {BYTES("{} {}"), FORMAT},
    {BYTES("[]]"), FORMAT},
    {BYTES("[}"), FORMAT},
    {BYTES("{]"), FORMAT},
    {BYTES("[1,]"), FORMAT},
    {BYTES("[,1]"), FORMAT},
    {BYTES("[1 2]"), FORMAT},
    {BYTES("{\"a\":1,}"), FORMAT},
    {BYTES("{\"a\" 1}"), FORMAT},
    {BYTES("{\"a\":}"), FORMAT},
    {BYTES("{\"a\"}"), FORMAT},
    {BYTES("{a:1}"), FORMAT},
    {BYTES("{'a':1}"), FORMAT},
    {BYTES("{1:1}"), FORMAT},
    {BYTES("[/*c*/1]"), FORMAT},
    {BYTES("[1]//"), FORMAT},
    {BYTES("\xef\xbb\xbf{}"), FORMAT},
    {BYTES("{}\0"), FORMAT},
    {BYTES("[\0]"), FORMAT},
    {BYTES("[1\0]"), FORMAT},
    {BYTES("[01]"), FORMAT},
    {BYTES("[-]"), FORMAT},
    {BYTES("[+1]"), FORMAT},
    {BYTES("[.5]"), FORMAT},
    {BYTES("[1.]"), FORMAT},
    {BYTES("[1e]"), FORMAT},
    {BYTES("[1e+]"), FORMAT},
    {BYTES("[0x10]"), FORMAT},
    {BYTES("[1_000]"), FORMAT},
    {BYTES("[0,5.5.5]"), FORMAT},
    {BYTES("[NaN]"), FORMAT},
    {BYTES("[Infinity]"), FORMAT},
    {BYTES("[-Infinity]"), FORMAT},
    {BYTES("[True]"), FORMAT},
    {BYTES("[nul]"), FORMAT},
    {BYTES("[truex]"), FORMAT},
    {BYTES("\"abc"), FORMAT},
    {BYTES("\"a\nb\""), FORMAT},
    {BYTES("\"a\0b\""), FORMAT},
    {BYTES("\"\\x41\""), FORMAT},
    {BYTES("\"\\"), FORMAT},
    {BYTES("\"\\u12"), FORMAT},
    {BYTES("\"\\u12g4\""), FORMAT},
    {BYTES("\"\\ud800\""), FORMAT},
    {BYTES("\"\\udc00\""), FORMAT},
    {BYTES("\"\\ud800\\u0041\""), FORMAT},
    {BYTES("\"\\ud800\\ud800\""), FORMAT},
    {BYTES("\"\xc0\x80\""), FORMAT},         /* overlong */
    {BYTES("\"\xe0\x9f\xbf\""), FORMAT},     /* overlong */
    {BYTES("\"\xf0\x8f\xbf\xbf\""), FORMAT}, /* overlong */
    {BYTES("\"\xed\xa0\x80\""), FORMAT},     /* surrogate */
    {BYTES("\"\xf4\x90\x80\x80\""), FORMAT}, /* above U+10FFFF */
    {BYTES("\"\xf5\x80\x80\x80\""), FORMAT},
    {BYTES("\"\x80\""), FORMAT},
    {BYTES("\"\xe2\x82\""), FORMAT},
    {BYTES("\"\xe2\x82"), FORMAT},
    {BYTES("\"\xff\""), FORMAT},
    {BYTES("{\"a\":1,\"b\":2,\"a\":3}"), FORMAT},
    {BYTES("{\"a\":1,\"\\u0061\":2}"), FORMAT},
    {BYTES("{\"x\":{\"a\":1,\"a\":1}}"), FORMAT},
    {BYTES("{\"x\":{\"a\":1},\"y\":{\"a\":1},\"a\":1}"), OK},
    {BYTES("{\"a\\u0000b\":1,\"a\\u0000c\":2}"), OK},
    {BYTES("{\"a\\u0000b\":1,\"a\\u0000b\":2}"), FORMAT},
};

START_TEST(json_table)
{
    for (size_t i = 0; i < sizeof json_cases / sizeof *json_cases; i++) {
        atmsae_status status = walk(json_cases[i].text, json_cases[i].length, 64);
        ck_assert_msg(status == json_cases[i].status, "case %zu: %s: got %s: %s", i, json_cases[i].text,
                      atmsae_status_name(status), atmsae_last_error(ctx));
        if (status < 0) ck_assert_ptr_eq(strstr(atmsae_last_error(ctx), "byte "), atmsae_last_error(ctx));
    }
}
END_TEST

START_TEST(json_depth)
{
    char *deep = malloc(2000001);
    for (unsigned depth = 1; depth <= 1000000; depth = depth < 100 ? depth + 1 : depth * 10) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        ck_assert_int_eq(walk(deep, 2 * depth, 64), depth <= 64 ? OK : LIMIT);
        ck_assert_int_eq(walk(deep, 2 * depth, 8), depth <= 8 ? OK : LIMIT);
    }
    free(deep);
}
END_TEST

START_TEST(json_many_keys)
{
    /* Keys that come in order, so that a bad sort would show, and one duplicate far from the first. */
    enum { N = 20000 };
    char *text = malloc(N * 16);
    for (int duplicate = 0; duplicate < 2; duplicate++) {
        size_t n = 0;
        for (int i = 0; i < N; i++)
            n += (size_t)sprintf(text + n, "%c\"k%06d\":0", i ? ',' : '{', duplicate && i == N - 2 ? 17 : i);
        text[n++] = '}';
        ck_assert_int_eq(walk(text, n, 8), duplicate ? FORMAT : OK);
    }
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "k000017"));
    free(text);
}
END_TEST

START_TEST(json_values)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t value;
    } numbers[] = {
        {"0", true, 0}, {"9007199254740993", true, 9007199254740993u}, {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0}, {"99999999999999999999", false, 0}, {"-0", false, 0}, {"-1", false, 0},
        {"2.0", false, 0}, {"2e0", false, 0}, {"\"2\"", false, 0}, {"null", false, 0}, {"true", false, 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char text[64];
        strcpy(text, numbers[i].text);
        ams_json json;
        ams_json_token token;
        ams_json_open(&json, ctx, text, strlen(text), 64);
        ck_assert_int_eq(ams_json_next(&json, &token), OK);
        uint64_t value = 77;
        ck_assert_int_eq(ams_json_u64(&json, &token, "n", &value), numbers[i].good ? OK : FORMAT);
        ck_assert_uint_eq(value, numbers[i].good ? numbers[i].value : 77);
        ams_json_close(&json);
    }

    char text[] = "{\"\\u00e9\\ud834\\udd1e\\n\":[0.1,-2.5e-3,true],\"z\\u0000z\":\"\"}";
    ams_json json;
    ams_json_token token;
    double d;
    bool b;
    ams_json_open(&json, ctx, text, strlen(text), 64);
    ck_assert_int_eq(ams_json_expect(&json, AMS_JSON_OBJECT, "", &token), OK);
    ck_assert_int_eq(ams_json_expect(&json, AMS_JSON_KEY, "", &token), OK);
    ck_assert_str_eq(token.text, "\xc3\xa9\xf0\x9d\x84\x9e\n");
    ck_assert_int_eq(ams_json_expect(&json, AMS_JSON_ARRAY, "", &token), OK);
    ck_assert_int_eq(ams_json_next(&json, &token), OK);
    ck_assert_int_eq(ams_json_double(&json, &token, "d", &d), OK);
    ck_assert(d == 0.1);
    ck_assert_int_eq(ams_json_next(&json, &token), OK);
    ck_assert_int_eq(ams_json_double(&json, &token, "d", &d), OK);
    ck_assert(d == -0.0025);
    ck_assert_int_eq(ams_json_bool(&json, &token, "b", &b), FORMAT);
    ck_assert_int_eq(ams_json_next(&json, &token), OK);
    ck_assert_int_eq(ams_json_double(&json, &token, "d", &d), FORMAT);
    ck_assert_int_eq(ams_json_bool(&json, &token, "b", &b), OK);
    ck_assert(b);
    ck_assert_int_eq(ams_json_expect(&json, AMS_JSON_ARRAY_END, "", &token), OK);
    ck_assert_int_eq(ams_json_expect(&json, AMS_JSON_KEY, "", &token), OK);
    ck_assert_uint_eq(token.length, 3);
    ck_assert_mem_eq(token.text, "z\0z", 4);
    ams_json_close(&json);
}
END_TEST

START_TEST(json_written)
{
    ams_text text = {.ctx = ctx};
    ams_text_string(&text, "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9");
    ams_text_u64(&text, UINT64_MAX);
    ck_assert_int_eq(text.status, OK);
    ck_assert_str_eq(text.data, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\"18446744073709551615");
    ams_text_string(&text, "\xff");
    ck_assert_int_eq(text.status, ATMSAE_E_ARG);
    ams_free(ctx, text.data);
}
END_TEST

/* ---- .safetensors ------------------------------------------------------------------------------- */

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* A header and how many bytes of data follow. */
static const struct {
    const char *header;
    size_t length;
    unsigned data;
    atmsae_status status;
    const char *text; /* of the error; NULL: any */
} st_cases[] = {
    {BYTES("{}"), 0, OK, NULL},
    {BYTES("{}      \n"), 0, OK, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,8]") "}"), 8, OK, NULL},
    {BYTES("{\"a\":" T("F32", "[]", "[0,4]") "}"), 4, OK, NULL},
    {BYTES("{\"\":" T("U8", "[3]", "[0,3]") "}"), 3, OK, NULL},
    {BYTES("{\"a\\u0000b\":" T("U8", "[3]", "[0,3]") "}"), 3, OK, NULL},
    {BYTES("{\"b\":" T("F32", "[1]", "[3,7]") ",\"a\":" T("U8", "[3]", "[0,3]") "}"), 7, OK, NULL}, /* unaligned, any order */
    {BYTES("{\"e\":" T("F32", "[0,3]", "[4,4]") ",\"f\":" T("F32", "[0]", "[4,4]") ",\"a\":" T("U8", "[4]", "[0,4]") "}"), 4, OK, NULL},
    {BYTES("{\"a\":{\"x\":[[[{}]]],\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1],\"y\":null}}"), 1, OK, NULL},
    {BYTES("{\"__metadata__\":null}"), 0, OK, NULL},
    {BYTES("{\"__metadata__\":{\"k\":\"v\",\"\":\"\"}}"), 0, OK, NULL},
    {BYTES("{\"a\":" T("U8", "[1,1,1,1,1,1,1,3]", "[0,3]") "}"), 3, OK, NULL},
    {BYTES(""), 0, FORMAT, "does not begin"},
    {BYTES("{"), 0, FORMAT, "byte 1"},
    {BYTES(" {}"), 0, FORMAT, "does not begin"},
    {BYTES("\t{}"), 0, FORMAT, NULL},
    {BYTES("\xef\xbb\xbf{}"), 0, FORMAT, NULL},
    {BYTES("[]"), 0, FORMAT, NULL},
    {BYTES("null"), 0, FORMAT, NULL},
    {BYTES("1"), 0, FORMAT, NULL},
    {BYTES("{}{}"), 0, FORMAT, "byte 2"},
    {BYTES("{}\0\0"), 0, FORMAT, NULL},
    {BYTES("{,}"), 0, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,8]") ",}"), 8, FORMAT, NULL},
    {BYTES("{\"a\xff\":" T("F32", "[2]", "[0,8]") "}"), 8, FORMAT, "UTF-8"},
    {BYTES("{\"\\ud800\":" T("F32", "[2]", "[0,8]") "}"), 8, FORMAT, "surrogate"},
    {BYTES("{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[1,2]") "}"), 2, FORMAT, "duplicate key \"a\""},
    {BYTES("{\"a\":" T("U8", "[1]", "[0,1]") ",\"\\u0061\":" T("U8", "[1]", "[1,2]") "}"), 2, FORMAT, "duplicate"},
    {BYTES("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"), 1, FORMAT, "duplicate"},
    {BYTES("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, FORMAT, "duplicate"},
    {BYTES("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}"), 0, FORMAT, "duplicate"},
    {BYTES("{\"__metadata__\":{\"k\":1}}"), 0, FORMAT, "string"},
    {BYTES("{\"__metadata__\":{\"k\":null}}"), 0, FORMAT, NULL},
    {BYTES("{\"__metadata__\":[]}"), 0, FORMAT, "object"},
    {BYTES("{\"__metadata__\":\"x\"}"), 0, FORMAT, NULL},
    {BYTES("{\"a\":[]}"), 0, FORMAT, NULL},
    {BYTES("{\"a\":null}"), 0, FORMAT, NULL},
    {BYTES("{\"a\":{}}"), 0, FORMAT, "no dtype"},
    {BYTES("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}"), 1, FORMAT, "no shape"},
    {BYTES("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}"), 1, FORMAT, "no data_offsets"},
    {BYTES("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}"), 1, FORMAT, "no dtype"},
    {BYTES("{\"a\":" T("f32", "[2]", "[0,8]") "}"), 8, FORMAT, "\"f32\""},
    {BYTES("{\"a\":" T("F32 ", "[2]", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32\\u0000", "[2]", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("", "[2]", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,1]}}"), 1, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[-2]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[2.0]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[2e0]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[\"2\"]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[null]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[-0]", "[0,0]") "}"), 0, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[02]", "[0,8]") "}"), 8, FORMAT, "number"},
    {BYTES("{\"a\":" T("F32", "[18446744073709551616]", "[0,8]") "}"), 8, FORMAT, "shape"},
    {BYTES("{\"a\":" T("F32", "[NaN]", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[[2]]", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "2", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "null", "[0,8]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[8]") "}"), 8, FORMAT, "two numbers"},
    {BYTES("{\"a\":" T("F32", "[2]", "[]") "}"), 8, FORMAT, "two numbers"},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,8,8]") "}"), 8, FORMAT, "two numbers"},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,8,8,8,8]") "}"), 8, FORMAT, "two numbers"},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,8.0]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[-8,0]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}"), 0, LIMIT, "overflows"},
    {BYTES("{\"a\":" T("F32", "[4294967296,4294967296,0]", "[0,0]") "}"), 0, LIMIT, NULL},
    {BYTES("{\"a\":" T("F32", "[0,18446744073709551615,9]", "[0,0]") "}"), 0, LIMIT, NULL},
    {BYTES("{\"a\":" T("F64", "[4611686018427387904]", "[0,0]") "}"), 0, LIMIT, NULL},
    {BYTES("{\"a\":" T("U8", "[2305843009213693951]", "[0,2305843009213693951]") "}"), 8, TRUNCATED, NULL},
    {BYTES("{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,3]", "[0,3]") "}"), 3, LIMIT, "8 numbers"},
    {BYTES("{\"a\":" T("F32", "[2]", "[8,0]") "}"), 8, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,4]") "}"), 4, FORMAT, "8 bytes"},
    {BYTES("{\"a\":" T("F32", "[2]", "[0,12]") "}"), 12, FORMAT, NULL},
    {BYTES("{\"a\":" T("F32", "[2]", "[4,12]") "}"), 12, FORMAT, "hole"},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[3,5]") "}"), 5, FORMAT, "hole"},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[1,3]") "}"), 3, FORMAT, "overlap"},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[0,2]") "}"), 2, FORMAT, "overlap"},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[0]", "[1,1]") "}"), 2, FORMAT, NULL},
    {BYTES("{\"a\":" T("U8", "[0]", "[5,5]") "}"), 0, FORMAT, NULL},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") "}"), 3, FORMAT, "follow"},
    {BYTES("{\"a\":" T("U8", "[2]", "[0,2]") "}"), 1, TRUNCATED, NULL},
    {BYTES("{}"), 1, FORMAT, NULL},
    {BYTES("{\"a\":" T("F4", "[3]", "[0,1]") "}"), 1, FORMAT, "whole bytes"},
    {BYTES("{\"a\":{\"x\":[[[[[[[1]]]]]]]}}"), 0, LIMIT, "deeper"},
};

static atmsae_status open_file(const char *path)
{
    atmsae_tensors *t = (atmsae_tensors *)&ctx;
    atmsae_status status = atmsae_tensors_open(ctx, path, &t);
    if (status < 0) ck_assert_ptr_null(t);
    else atmsae_tensors_close(t);
    return status;
}

START_TEST(safetensors_table)
{
    const char *path = in_dir("case.safetensors");
    char file[1024];
    for (size_t i = 0; i < sizeof st_cases / sizeof *st_cases; i++) {
        uint64_t n = st_cases[i].length;
        memcpy(file, &n, 8);
        memcpy(file + 8, st_cases[i].header, n);
        memset(file + 8 + n, 0, st_cases[i].data);
        put(path, file, 8 + n + st_cases[i].data);
        atmsae_status status = open_file(path);
        const char *text = status < 0 ? atmsae_last_error(ctx) : "";
        ck_assert_msg(status == st_cases[i].status, "case %zu: %s: got %s: %s", i, st_cases[i].header,
                      atmsae_status_name(status), text);
        if (status == OK) continue;
        ck_assert_ptr_eq(strstr(text, path), text);
        if (st_cases[i].text) ck_assert_msg(strstr(text, st_cases[i].text) != NULL, "case %zu: %s", i, text);
    }
}
END_TEST

START_TEST(safetensors_lengths)
{
    static const struct {
        uint64_t n;
        atmsae_status status;
    } cases[] = {
        {0, FORMAT}, {1, FORMAT}, {9, TRUNCATED}, {100000000, TRUNCATED}, {100000001, LIMIT}, {1ull << 63, LIMIT},
        {UINT64_MAX, LIMIT}, {UINT64_MAX - 7, LIMIT},
    };
    const char *path = in_dir("n.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char file[16] = "12345678{}";
        memcpy(file, &cases[i].n, 8);
        put(path, file, 16);
        ck_assert_int_eq(open_file(path), cases[i].status);
    }
    for (size_t n = 0; n < 8; n++) {
        put(path, "\2\0\0\0\0\0\0\0", n);
        ck_assert_int_eq(open_file(path), TRUNCATED);
    }
    /* Names of 65536 bytes pass, longer ones do not. */
    char *file = malloc(70000);
    for (size_t name = 65535; name <= 65537; name++) {
        uint64_t n = name + (uint64_t)sprintf(file + 8 + 2 + name, "\":%s}", T("U8", "[0]", "[0,0]")) + 2;
        memcpy(file, &n, 8);
        memcpy(file + 8, "{\"", 2);
        memset(file + 10, 'x', name);
        put(path, file, 8 + n);
        ck_assert_int_eq(open_file(path), name <= 65536 ? OK : LIMIT);
    }
    free(file);
}
END_TEST

/* ---- .npy --------------------------------------------------------------------------------------- */

#define D(descr, fortran, shape) "{'descr': " descr ", 'fortran_order': " fortran ", 'shape': " shape ", }"

static const struct {
    const char *dict;
    size_t length;
    unsigned data;
    atmsae_status status;
    const char *text;
} npy_cases[] = {
    {BYTES(D("'<f4'", "False", "(2, 3)") "      \n"), 24, OK, "F32"},
    {BYTES(D("'<f4'", "False", "()") "\n"), 4, OK, "F32"},
    {BYTES(D("'<f4'", "False", "(0, 3)")), 0, OK, "F32"},
    {BYTES("{\"shape\":(3,),\"descr\":\"<f2\",\"fortran_order\":False}"), 6, OK, "F16"},
    {BYTES(D("'<f8'", "False", "(3,)")), 24, OK, "F64"},
    {BYTES(D("'|V2'", "False", "(3,)")), 6, OK, "U16"},
    {BYTES(D("'<u2'", "False", "(3,)")), 6, OK, "U16"},
    {BYTES(D("'|b1'", "False", "(3,)")), 3, OK, "BOOL"},
    {BYTES(D("'|u1'", "False", "(3,)")), 3, OK, "U8"},
    {BYTES(D("'|i1'", "False", "(3,)")), 3, OK, "I8"},
    {BYTES(D("'<i2'", "False", "(3,)")), 6, OK, "I16"},
    {BYTES(D("'<i4'", "False", "(3,)")), 12, OK, "I32"},
    {BYTES(D("'<i8'", "False", "(1,1,1,1,1,1,1,3)")), 24, OK, "I64"},
    {BYTES(D("'>f4'", "False", "(3,)")), 12, UNSUPPORTED, "'>f4': little-endian numbers are read; save a copy with NumPy: "
     "numpy.save(\"copy.npy\", numpy.load(FILE).astype(\"<f4\"))"},
    {BYTES(D("'|O'", "False", "(3,)")), 12, UNSUPPORTED, "|O"},
    {BYTES(D("'<U5'", "False", "(3,)")), 12, UNSUPPORTED, NULL},
    {BYTES(D("'f4'", "False", "(3,)")), 12, UNSUPPORTED, NULL},
    {BYTES(D("''", "False", "(3,)")), 12, UNSUPPORTED, NULL},
    {BYTES(D("[('a', '<f4')]", "False", "(3,)")), 12, UNSUPPORTED, "structured_to_unstructured"},
    {BYTES(D("'<f4'", "True", "(3, 1)")), 12, OK, "F32"},
    {BYTES(D("'<f4'", "True", "(3,)")), 12, OK, "F32"},
    {BYTES(D("'<f4'", "True", "(3, 1, 1)")), 12, UNSUPPORTED, "fortran_order with 3 dimensions; save a copy with NumPy: "
     "numpy.save(\"copy.npy\", numpy.ascontiguousarray(numpy.load(FILE)))"},
    {BYTES(""), 0, FORMAT, NULL},
    {BYTES("None"), 0, FORMAT, NULL},
    {BYTES("[1]"), 0, FORMAT, NULL},
    {BYTES("{}"), 0, FORMAT, "needed"},
    {BYTES("{"), 0, FORMAT, NULL},
    {BYTES("{'descr': '<f4', 'fortran_order': False, }"), 0, FORMAT, "needed"},
    {BYTES("{'descr': '<f4', 'shape': (1,), }"), 4, FORMAT, NULL},
    {BYTES("{'fortran_order': False, 'shape': (1,), }"), 4, FORMAT, NULL},
    {BYTES("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}"), 4, FORMAT, "unknown key"},
    {BYTES("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}"), 4, FORMAT, "duplicate"},
    {BYTES(D("'<f4'", "False", "(1,)") " x"), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1,)") "\0"), 4, FORMAT, "NUL"},
    {BYTES("{'descr' '<f4', 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES("{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES("{,'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES("{descr: '<f4', 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES("{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES("{'descr': '<f4"), 4, FORMAT, NULL},
    {BYTES("{'de\\x73cr': '<f4', 'fortran_order': False, 'shape': (1,)}"), 4, FORMAT, NULL},
    {BYTES(D("5", "False", "(1,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "0", "(1,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "'False'", "(1,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "Falsee", "(1,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "false", "(1,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "[1]")), 4, FORMAT, "tuple"},
    {BYTES(D("'<f4'", "False", "1")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1)")), 4, FORMAT, "comma"},
    {BYTES(D("'<f4'", "False", "(,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1,,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1 1)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1,")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(-1,)")), 4, FORMAT, "dimension"},
    {BYTES(D("'<f4'", "False", "(1.0,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(True,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "('1',)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(01,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(1L,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(2**64,)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(18446744073709551616,)")), 4, FORMAT, "dimension"},
    {BYTES(D("'<f4'", "False", "((1,),)")), 4, FORMAT, NULL},
    {BYTES(D("'<f4'", "False", "(4294967296,4294967296)")), 0, LIMIT, NULL},
    {BYTES(D("'<f4'", "False", "(0,18446744073709551615,9)")), 0, LIMIT, NULL},
    {BYTES(D("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)")), 4, LIMIT, NULL},
    {BYTES(D("'<f4'", "False", "(2,)")), 7, TRUNCATED, NULL},
    {BYTES(D("'<f4'", "False", "(2,)")), 9, FORMAT, NULL},
};

static size_t npy(char *file, unsigned version, const char *dict, size_t length, size_t data)
{
    size_t start = version == 1 ? 10 : 12;
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (char)version;
    file[7] = 0;
    uint32_t n = (uint32_t)length;
    memcpy(file + 8, &n, start - 8);
    memcpy(file + start, dict, length);
    memset(file + start + length, 0, data);
    return start + length + data;
}

START_TEST(npy_table)
{
    const char *path = in_dir("case.npy");
    char file[1024];
    for (size_t i = 0; i < sizeof npy_cases / sizeof *npy_cases; i++)
        for (unsigned version = 1; version <= 4; version++) {
            put(path, file, npy(file, version, npy_cases[i].dict, npy_cases[i].length, npy_cases[i].data));
            atmsae_tensors *t = NULL;
            atmsae_status status = atmsae_tensors_open(ctx, path, &t), wanted = version == 4 ? FORMAT : npy_cases[i].status;
            const char *text = status < 0 ? atmsae_last_error(ctx) : "";
            ck_assert_msg(status == wanted, "case %zu, version %u: %s: got %s: %s", i, version, npy_cases[i].dict,
                          atmsae_status_name(status), text);
            if (status == OK) {
                atmsae_tensor_info info = {.size = sizeof info};
                ck_assert_uint_eq(atmsae_tensors_count(t), 1);
                ck_assert_int_eq(atmsae_tensors_info(t, 0, &info), OK);
                ck_assert_str_eq(info.name, "");
                ck_assert_str_eq(info.dtype, npy_cases[i].text);
                atmsae_tensors_close(t);
            } else if (npy_cases[i].text && version < 4) {
                ck_assert_msg(strstr(text, npy_cases[i].text) != NULL, "case %zu: %s", i, text);
            }
        }
}
END_TEST

START_TEST(columns_first)
{
    char file[256];
    const char *path = in_dir("columns.npy");
    static const char dict[] = D("'<f4'", "True", "(2, 3)");
    const float columns[6] = {1, 4, 2, 5, 3, 6}, rows[6] = {1, 2, 3, 4, 5, 6};
    float got[6];
    size_t n = npy(file, 1, dict, sizeof dict - 1, sizeof columns);
    memcpy(file + n - sizeof columns, columns, sizeof columns);
    put(path, file, n);
    atmsae_tensors *t;
    ck_assert_int_eq(atmsae_tensors_open(ctx, path, &t), OK);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 0, got, 6), OK);
    ck_assert_mem_eq(got, rows, sizeof rows);
    atmsae_tensors_close(t);
}
END_TEST

/* Files of other programs get a sentence that says what they are and what to do, whatever their name. */
START_TEST(foreign_files)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *text;
    } cases[] = {
        {BYTES("PAR1............PAR1"), "a Parquet file: not read; save its rows with NumPy: numpy.save(\"rows.npy\", "
         "numpy.array(pyarrow.parquet.read_table(FILE)[\"COLUMN\"].to_pylist(), \"f4\"))"},
        {BYTES("ARROW1\0\0........"), "an Arrow file: not read; "},
        {BYTES("\xff\xff\xff\xff\x10\1\0\0\x10\0\0\0\0\0\x0a\0"), "an Arrow stream: not read; "},
        {BYTES("\x89HDF\r\n\x1a\n........"), "an HDF5 file: not read; "},
        {BYTES("MATLAB 5.0 MAT-file, Platform"), "a MATLAB file: not read; "},
        {BYTES("\x80\4\x95............."), "a Python pickle, which is a program: not read; "},
        {BYTES("GGUF\3\0\0\0\0\0\0\0\0\0\0\0"), "a GGUF file"},
        {BYTES("\x1f\x8b.............."), "gunzip -k"},
        {BYTES("\x28\xb5\x2f\xfd............"), "zstd -d"},
        {BYTES("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"},
        {BYTES("a,b,c\n1,2.5,-3e-4\r\n"), "a text file: not read; save its rows with NumPy: numpy.save(\"rows.npy\", "
         "numpy.loadtxt(FILE, \"f4\", delimiter=\",\")), with skiprows=1 after a line of names"},
    };
    static const char *const names[] = {"f.npy", "f.npz", "f.pt", "f.safetensors", "f.csv"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t j = 0; j < sizeof names / sizeof *names; j++) {
            put(in_dir(names[j]), cases[i].bytes, cases[i].length);
            ck_assert_int_eq(open_file(in_dir(names[j])), UNSUPPORTED);
            const char *text = atmsae_last_error(ctx);
            ck_assert_msg(strstr(text, cases[i].text) != NULL && strstr(text, names[j]) != NULL, "%s, not: %s", text, cases[i].text);
        }
}
END_TEST

START_TEST(npy_frames)
{
    static const struct {
        const char *bytes;
        size_t length;
        atmsae_status status;
    } cases[] = {
        {BYTES(""), TRUNCATED},
        {BYTES("\x93NUMP"), TRUNCATED},
        {BYTES("\x93NUMPX\1\0\2\0{}"), FORMAT},
        {BYTES("PK\3\4..............."), FORMAT},
        {BYTES("\x93NUMPY\0\0\2\0{}........"), FORMAT},
        {BYTES("\x93NUMPY\1\1\2\0{}........"), FORMAT},
        {BYTES("\x93NUMPY\5\0\2\0{}........"), FORMAT},
        {BYTES("\x93NUMPY\1\0\2"), TRUNCATED},
        {BYTES("\x93NUMPY\2\0\0\0\0"), TRUNCATED},
        {BYTES("\x93NUMPY\2\0\xff\xff\xff\xff"), FORMAT},
        {BYTES("\x93NUMPY\1\0\x11\x27{}"), FORMAT}, /* 10001 */
        {BYTES("\x93NUMPY\1\0\x10\x27{}"), TRUNCATED},
    };
    const char *path = in_dir("frame.npy");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(path, cases[i].bytes, cases[i].length);
        atmsae_status status = open_file(path);
        ck_assert_msg(status == cases[i].status, "case %zu: got %s: %s", i, atmsae_status_name(status), atmsae_last_error(ctx));
    }
    /* Known by its magic under any name. */
    char file[256];
    npy(file, 1, BYTES(D("'<f4'", "False", "(1,)")), 4);
    file[7] = 1;
    put(path, file, 10 + sizeof D("'<f4'", "False", "(1,)") - 1 + 4);
    ck_assert_int_eq(open_file(path), FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "version 1.1"));
    path = in_dir("array");
    put(path, file, npy(file, 1, BYTES(D("'<f4'", "False", "(1,)")), 4));
    ck_assert_int_eq(open_file(path), OK);
}
END_TEST

/* ---- cut and damaged ---------------------------------------------------------------------------- */

static const float sample[6] = {1.5f, -2, 0, 3e38f, -0.25f, 1e-40f};
static const ams_tensor_out sample_tensors[] = {
    {.name = "weights", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = sample},
    {.name = "b\xc3\xa9\n", .dtype = "U8", .rank = 1, .shape = {3}, .data = "\1\2\3"},
};
static const ams_metadata_out sample_metadata[] = {{"version", "1"}, {"quoted", "\"x\"\t"}};

static void write_sample(const char *path, bool checksum)
{
    ck_assert_int_eq(ams_safetensors_write(ctx, path, sample_tensors, 2, sample_metadata, 2, checksum), OK);
}

START_TEST(cut_at_every_byte)
{
    static char file[2048];
    const char *whole = in_dir("whole.safetensors"), *cut = in_dir("cut.safetensors");
    write_sample(whole, false);
    size_t n = get(whole, file, sizeof file);
    ck_assert_uint_gt(n, 200);
    for (size_t i = 0; i < n; i++) {
        put(cut, file, i);
        ck_assert_int_eq(open_file(cut), TRUNCATED);
    }
    cut = in_dir("cut.npy");
    n = npy(file, 2, BYTES(D("'<f4'", "False", "(2, 3)") "      \n"), 24);
    for (size_t i = 0; i <= n; i++) {
        put(cut, file, i);
        ck_assert_int_eq(open_file(cut), i < n ? TRUNCATED : OK);
    }
}
END_TEST

static atmsae_status open_and_verify(const char *path)
{
    atmsae_tensors *t;
    atmsae_status status = atmsae_tensors_open(ctx, path, &t);
    if (status < 0) return status;
    status = ams_tensors_verify(t);
    atmsae_tensors_close(t);
    return status;
}

START_TEST(every_bit_flipped)
{
    static char file[2048];
    const char *path = in_dir("sum.safetensors"), *bad = in_dir("bad.safetensors");
    write_sample(path, true);
    ck_assert_int_eq(open_and_verify(path), OK);
    size_t n = get(path, file, sizeof file);
    put(bad, file, n);
    int fd = open(bad, O_WRONLY);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        char damaged = (char)(file[bit / 8] ^ (1 << bit % 8));
        ck_assert_int_eq(pwrite(fd, &damaged, 1, (off_t)(bit / 8)), 1);
        atmsae_status status = open_and_verify(bad);
        ck_assert_msg(status == FORMAT || status == TRUNCATED || status == LIMIT, "bit %zu: %d", bit, status);
        ck_assert_int_eq(pwrite(fd, &file[bit / 8], 1, (off_t)(bit / 8)), 1);
    }
    close(fd);
    ck_assert_int_eq(open_and_verify(bad), OK);
    write_sample(bad, false);
    ck_assert_int_eq(open_and_verify(bad), FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "no checksum"));
    /* A checksum that does not cover what follows it. */
    const char header[] = "{\"checksum\":" T("U64", "[1]", "[0,8]") ",\"x\":" T("U8", "[1]", "[8,9]") "}";
    uint64_t length = sizeof header - 1;
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    uint64_t crc = ams_crc64(0, file, 8 + length); /* right, for the bytes before it */
    memcpy(file + 8 + length, &crc, 8);
    put(bad, file, 8 + length + 9);
    ck_assert_int_eq(open_and_verify(bad), FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "at the end"));
}
END_TEST

START_TEST(crc_check_value)
{
    const char digits[] = "123456789";
    ck_assert_uint_eq(ams_crc64(0, digits, 9), 0x995dc9bbdf1939fau);
    for (size_t i = 0; i <= 9; i++)
        ck_assert_uint_eq(ams_crc64(ams_crc64(0, digits, i), digits + i, 9 - i), 0x995dc9bbdf1939fau);
    /* The table-driven path against single bytes. */
    static unsigned char block[10007];
    uint64_t crc = 0;
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] = (unsigned char)(i * 2654435761u >> 13);
        crc = ams_crc64(crc, block + i, 1);
    }
    ck_assert_uint_eq(ams_crc64(0, block, sizeof block), crc);
    ck_assert_uint_eq(ams_crc64(ams_crc64(0, block, 4999), block + 4999, sizeof block - 4999), crc);
}
END_TEST

/* ---- round trips -------------------------------------------------------------------------------- */

START_TEST(values_come_back)
{
    const uint16_t f16[] = {0x3c00, 0x0001, 0xfbff, 0x8000, 0x7c00, 0x3555};
    const uint16_t bf16[] = {0x3f80, 0x0001, 0xc2f7, 0xff80};
    const double f64[] = {0.1, -1e300, 0x1p-149};
    const int8_t i8[] = {-128, 127};
    const int16_t i16[] = {-32768, 32767};
    const int32_t i32[] = {INT32_MIN, INT32_MAX};
    const int64_t i64[] = {INT64_MIN, INT64_MAX};
    const uint8_t u8[] = {0, 255}, boolean[] = {0, 1, 7};
    const uint16_t u16[] = {0, 65535};
    const uint32_t u32[] = {0, UINT32_MAX};
    const uint64_t u64[] = {5, INT64_MAX}, big[] = {1, 1ull << 63};
    const ams_tensor_out out[] = {
        {.name = "f16", .dtype = "F16", .rank = 1, .shape = {6}, .data = f16},
        {.name = "bf16", .dtype = "BF16", .rank = 2, .shape = {2, 2}, .data = bf16},
        {.name = "f32", .dtype = "F32", .rank = 3, .shape = {1, 6, 1}, .data = sample},
        {.name = "f64", .dtype = "F64", .rank = 1, .shape = {3}, .data = f64},
        {.name = "i8", .dtype = "I8", .rank = 1, .shape = {2}, .data = i8},
        {.name = "i16", .dtype = "I16", .rank = 1, .shape = {2}, .data = i16},
        {.name = "i32", .dtype = "I32", .rank = 1, .shape = {2}, .data = i32},
        {.name = "i64", .dtype = "I64", .rank = 1, .shape = {2}, .data = i64},
        {.name = "u8", .dtype = "U8", .rank = 1, .shape = {2}, .data = u8},
        {.name = "bool", .dtype = "BOOL", .rank = 1, .shape = {3}, .data = boolean},
        {.name = "u16", .dtype = "U16", .rank = 1, .shape = {2}, .data = u16},
        {.name = "u32", .dtype = "U32", .rank = 1, .shape = {2}, .data = u32},
        {.name = "u64", .dtype = "U64", .rank = 1, .shape = {2}, .data = u64},
        {.name = "big", .dtype = "U64", .rank = 1, .shape = {2}, .data = big},
        {.name = "scalar", .dtype = "F32", .rank = 0, .data = sample},
        {.name = "none", .dtype = "F32", .rank = 2, .shape = {0, 3}, .data = NULL},
    };
    enum { N = sizeof out / sizeof *out };
    const char *path = in_dir("all.safetensors");
    ck_assert_int_eq(ams_safetensors_write(ctx, path, out, N, sample_metadata, 2, true), OK);
    atmsae_tensors *t;
    ck_assert_int_eq(atmsae_tensors_open(ctx, path, &t), OK);
    ck_assert_int_eq(ams_tensors_verify(t), OK);
    ck_assert_uint_eq(atmsae_tensors_count(t), N + 1);
    ck_assert_str_eq(ams_tensors_metadata(t, "quoted"), "\"x\"\t");
    ck_assert_ptr_null(ams_tensors_metadata(t, "other"));
    for (uint64_t i = 0; i < N; i++) { /* order and shapes as given; raw bytes */
        atmsae_tensor_info info = {.size = sizeof info};
        ck_assert_int_eq(atmsae_tensors_info(t, i, &info), OK);
        ck_assert_str_eq(info.name, out[i].name);
        ck_assert_str_eq(info.dtype, out[i].dtype);
        ck_assert_uint_eq(info.rank, out[i].rank);
        uint64_t count = 1, index;
        for (uint64_t k = 0; k < info.rank; k++) {
            ck_assert_uint_eq(info.shape[k], out[i].shape[k]);
            count *= info.shape[k];
        }
        char raw[64];
        ck_assert_int_eq(ams_tensors_read_raw(t, i, 0, count, raw), OK);
        if (count) ck_assert_mem_eq(raw, out[i].data, count * ams_dtype_size(info.dtype));
        ck_assert_int_eq(ams_tensors_read_raw(t, i, 1, count, raw), ATMSAE_E_ARG);
        ck_assert_int_eq(ams_tensors_read_raw(t, i, UINT64_MAX, 2, raw), ATMSAE_E_ARG);
        ck_assert_int_eq(atmsae_tensors_find(t, info.name, &index), OK);
        ck_assert_uint_eq(index, i);
    }

    float f[8];
    const float want16[] = {1, 0x1p-24f, -65504, -0.0f, INFINITY, 0x1.554p-2f}, wantb[] = {1, 0x1p-133f, -123.5f, -INFINITY};
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 0, f, 6), OK);
    ck_assert_mem_eq(f, want16, sizeof want16);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 1, f, 4), OK);
    ck_assert_mem_eq(f, wantb, sizeof wantb);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 2, f, 6), OK);
    ck_assert_mem_eq(f, sample, sizeof sample);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 3, f, 3), OK);
    ck_assert(f[0] == 0.1f && f[1] == -INFINITY && f[2] == 0x1p-149f);
    ck_assert_int_eq(ams_tensors_read_part(t, 1, 2, 1, f), OK);
    ck_assert(f[0] == -123.5f);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 2, f, 5), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 2, NULL, 6), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 4, f, 2), UNSUPPORTED);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, N + 1, f, 1), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 15, NULL, 0), OK);

    int64_t v[3];
    const int64_t want[][3] = {{-128, 127}, {-32768, 32767}, {INT32_MIN, INT32_MAX}, {INT64_MIN, INT64_MAX},
                               {0, 255}, {0, 1, 1}, {0, 65535}, {0, UINT32_MAX}, {5, INT64_MAX}};
    for (uint64_t i = 0; i < 9; i++) {
        uint64_t count = i == 5 ? 3 : 2;
        ck_assert_int_eq(atmsae_tensors_read_i64(t, 4 + i, v, count), OK);
        ck_assert_mem_eq(v, want[i], count * sizeof *v);
    }
    ck_assert_int_eq(atmsae_tensors_read_i64(t, 13, v, 2), LIMIT);
    ck_assert_int_eq(atmsae_tensors_read_i64(t, 0, v, 6), UNSUPPORTED);
    uint64_t index;
    ck_assert_int_eq(atmsae_tensors_find(t, "none such", &index), ATMSAE_E_ARG);
    atmsae_tensors_close(t);
}
END_TEST

/* Longer than a block of any reader or writer, through fill and with a checksum. */
static void fill_count(const void *arg, uint64_t first, uint64_t rows, void *out)
{
    for (uint64_t i = 0; i < rows * 3; i++)
        ((float *)out)[i] = (float)(first * 3 + i) * *(const float *)arg;
}

START_TEST(long_tensors)
{
    enum { N = 300001 };
    const float half = 0.5f;
    uint16_t *bf16 = malloc(2 * N);
    for (unsigned i = 0; i < N; i++)
        bf16[i] = (uint16_t)(i % 0x7f00);
    const ams_tensor_out out[] = {
        {.name = "b", .dtype = "BF16", .rank = 1, .shape = {N}, .data = bf16},
        {.name = "filled", .dtype = "F32", .rank = 2, .shape = {N, 3}, .fill = fill_count, .arg = &half},
    };
    const char *path = in_dir("long.safetensors");
    ck_assert_int_eq(ams_safetensors_write(ctx, path, out, 2, NULL, 0, true), OK);
    atmsae_tensors *t;
    ck_assert_int_eq(atmsae_tensors_open(ctx, path, &t), OK);
    ck_assert_int_eq(ams_tensors_verify(t), OK);
    float *f = malloc(sizeof *f * 3 * N);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 1, f, 3 * N), OK);
    for (unsigned i = 0; i < 3 * N; i++)
        ck_assert(f[i] == (float)i * 0.5f);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 0, f, N), OK);
    for (unsigned i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)(i % 0x7f00) << 16;
        ck_assert_mem_eq(&f[i], &bits, 4);
    }
    atmsae_tensors_close(t);
    free(f);
    free(bf16);
}
END_TEST

START_TEST(package_order)
{
    /* The bytes that the safetensors package (0.8.0) writes for these. */
    const ams_tensor_out out[] = {
        {.name = "u", .dtype = "U8", .rank = 1, .shape = {3}, .data = "\1\2\3"},
        {.name = "z", .dtype = "F32", .rank = 1, .shape = {1}, .data = "\0\0\x80\x3f"},
        {.name = "a", .dtype = "F32", .rank = 1, .shape = {1}, .data = "\0\0\0\x40"},
        {.name = "i", .dtype = "I64", .rank = 0, .data = "\7\0\0\0\0\0\0\0"},
    };
    const char header[] = "{\"i\":" T("I64", "[]", "[0,8]") ",\"a\":" T("F32", "[1]", "[8,12]") ",\"z\":" T("F32", "[1]", "[12,16]")
                          ",\"u\":" T("U8", "[3]", "[16,19]") "}";
    char want[512], file[512];
    uint64_t n = (sizeof header - 1 + 7) / 8 * 8;
    memset(want, ' ', sizeof want);
    memcpy(want, &n, 8);
    memcpy(want + 8, header, sizeof header - 1);
    memcpy(want + 8 + n, "\7\0\0\0\0\0\0\0\0\0\0\x40\0\0\x80\x3f\1\2\3", 19);
    const char *path = in_dir("order.safetensors");
    ck_assert_int_eq(ams_safetensors_write(ctx, path, out, 4, NULL, 0, false), OK);
    ck_assert_uint_eq(get(path, file, sizeof file), 8 + n + 19);
    ck_assert_mem_eq(file, want, 8 + n + 19);

    ams_tensor_out bad = out[0];
    bad.dtype = "u8";
    ck_assert_int_eq(ams_safetensors_write(ctx, path, &bad, 1, NULL, 0, false), ATMSAE_E_ARG);
    bad = out[0];
    bad.name = "\xff";
    ck_assert_int_eq(ams_safetensors_write(ctx, path, &bad, 1, NULL, 0, false), ATMSAE_E_ARG);
    bad = out[0];
    bad.shape[0] = UINT64_MAX;
    ck_assert_int_eq(ams_safetensors_write(ctx, path, &bad, 1, NULL, 0, false), LIMIT);
    ck_assert_uint_eq(get(path, file, sizeof file), 8 + n + 19);
}
END_TEST

START_TEST(comma_locale)
{
    static char before[2048], after[2048];
    write_sample(in_dir("c.safetensors"), true);
    size_t n = get(in_dir("c.safetensors"), before, sizeof before);
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) return; /* not on this machine: nothing to show */
    write_sample(in_dir("de.safetensors"), true);
    ck_assert_uint_eq(get(in_dir("de.safetensors"), after, sizeof after), n);
    ck_assert_mem_eq(before, after, n);
    ck_assert_int_eq(open_and_verify(in_dir("de.safetensors")), OK);
    char text[] = "[0.5]";
    ams_json json;
    ams_json_token token;
    double d;
    ams_json_open(&json, ctx, text, strlen(text), 8);
    ck_assert_int_eq(ams_json_next(&json, &token), OK);
    ck_assert_int_eq(ams_json_next(&json, &token), OK);
    ck_assert_int_eq(ams_json_double(&json, &token, "d", &d), OK);
    ck_assert(d == 0.5);
    ams_json_close(&json);
    ck_assert_int_eq(walk(BYTES("[0,5]"), 8), OK); /* two numbers */
    ck_assert_int_eq(walk(BYTES("[1e999]"), 8), FORMAT);
}
END_TEST

/* ---- writing that fails ------------------------------------------------------------------------- */

static void expect_old(const char *path)
{
    char text[16] = "";
    ck_assert_uint_eq(get(path, text, sizeof text), 3);
    ck_assert_str_eq(text, "old");
}

START_TEST(refused_targets)
{
    struct stat st;
    ck_assert_int_eq(ams_write_file(ctx, "/dev/full", "x", 1), ATMSAE_E_IO);
    ck_assert_int_eq(stat("/dev/full", &st), 0);
    ck_assert(S_ISCHR(st.st_mode));
    put(in_dir("old"), "old", 3);
    static const char *const bad[] = {"old/below", "old/", "missing/x", "missing/", "", ".", "..", "loop", "pipe"};
    ck_assert_int_eq(symlink("loop", in_dir("loop")), 0);
    ck_assert_int_eq(mkfifo(in_dir("pipe"), 0600), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(ams_write_file(ctx, in_dir(bad[i]), "x", 1), ATMSAE_E_IO);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), dir));
    }
    ck_assert_int_eq(ams_write_file(ctx, "", "x", 1), ATMSAE_E_IO);
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(ams_write_file(ctx, name, "x", 1), ATMSAE_E_IO);
    expect_old(in_dir("old"));
    ck_assert_uint_eq(entries(dir), 3);
}
END_TEST

START_TEST(file_size_limit)
{
    static char big[100000];
    const char *path = in_dir("old");
    put(path, "old", 3);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {50000, 50000};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(ams_write_file(ctx, path, big, sizeof big), ATMSAE_E_IO);
    ams_writer w; /* without the size: the limit is met while writing */
    ck_assert_int_eq(ams_writer_begin(&w, ctx, path, false), OK);
    ck_assert_uint_eq(entries(dir), 2);
    ams_writer_append(&w, big, sizeof big);
    ams_writer_append(&w, big, sizeof big);
    ck_assert_int_eq(ams_writer_sync(&w), ATMSAE_E_IO);
    ck_assert_int_eq(ams_writer_commit(&w), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path));
    const ams_tensor_out out = {.name = "x", .dtype = "U8", .rank = 1, .shape = {sizeof big}, .data = big};
    ck_assert_int_eq(ams_safetensors_write(ctx, path, &out, 1, NULL, 0, true), ATMSAE_E_IO);
    expect_old(path);
    ck_assert_uint_eq(entries(dir), 1);
    ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), OK); /* still usable */
}
END_TEST

START_TEST(kept_and_replaced)
{
    const char *path = in_dir("file"), *temp = in_dir(".file.tmp");
    char text[16];
    ams_writer w;
    put(path, "old", 3);
    ck_assert_int_eq(ams_writer_begin(&w, ctx, path, true), OK);
    ams_writer_append(&w, "123456789", 9);
    ck_assert_uint_eq(w.crc, 0x995dc9bbdf1939fau);
    expect_old(path);
    /* A second writer of the same file is turned away while the first is at it. */
    ck_assert_int_eq(ams_write_file(ctx, path, "x", 1), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "another writer"));
    ams_writer_end(&w);
    expect_old(path);
    ck_assert_uint_eq(entries(dir), 1);

    /* What a dead writer left is swept. */
    put(temp, "half", 4);
    ck_assert_int_eq(ams_write_file(ctx, path, "new!", 4), OK);
    ck_assert_uint_eq(get(path, text, sizeof text), 4);
    ck_assert_uint_eq(entries(dir), 1);

    /* Not what a living one holds. */
    put(temp, "half", 4);
    int fd = open(temp, O_RDONLY);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(ams_write_file(ctx, path, "x", 1), ATMSAE_E_IO);
    ck_assert_uint_eq(get(temp, text, sizeof text), 4);
    close(fd);
    ck_assert_int_eq(ams_write_file(ctx, path, "", 0), OK);
    ck_assert_uint_eq(get(path, text, sizeof text), 0);
}
END_TEST

/* A file keeps its access rights when it is saved over, and what becomes the new one never has more of them. */
START_TEST(access_rights)
{
    const char *path = in_dir("file"), *temp = in_dir(".file.tmp");
    const mode_t modes[] = {0600, 0640, 0444, 0666, 0604};
    struct stat st, during;
    umask(027);
    ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), OK);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0640);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        ams_writer w;
        ck_assert_int_eq(chmod(path, modes[i]), 0);
        ck_assert_int_eq(ams_writer_begin(&w, ctx, path, false), OK);
        ck_assert_int_eq(stat(temp, &during), 0);
        ck_assert_int_eq(during.st_mode & 0777 & ~modes[i], 0);
        ams_writer_append(&w, "new", 3);
        ck_assert_int_eq(ams_writer_commit(&w), OK);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq(st.st_mode & 07777, modes[i]);
    }

    /* A list: user 1 may read, the file's own group may not. */
    static const unsigned char list[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
                                         16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    unsigned char now[sizeof list + 1];
    if (setxattr(path, "system.posix_acl_access", list, sizeof list, 0) == 0) {
        ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), OK);
        ck_assert_int_eq(getxattr(path, "system.posix_acl_access", now, sizeof now), sizeof list);
        ck_assert_mem_eq(now, list, sizeof list);
    }
    if (geteuid() != 0) return; /* owner and group, which root may give away */
    ck_assert_int_eq(unlink(path), 0);
    put(path, "old", 3);
    ck_assert(chown(path, 12345, 12346) == 0 && chmod(path, 0640) == 0);
    ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), OK);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert(st.st_uid == 12345 && st.st_gid == 12346 && (st.st_mode & 07777) == 0640);
}
END_TEST

/* Somebody else's link or file in a folder like /tmp is not trusted. */
START_TEST(links_of_others)
{
    if (geteuid() != 0) return; /* who alone can make some */
    char shared[100], place[120], precious[100], new[100], text[16];
    snprintf(shared, sizeof shared, "%s/shared", dir);
    snprintf(place, sizeof place, "%s/place", shared);
    snprintf(precious, sizeof precious, "%s/precious", dir);
    snprintf(new, sizeof new, "%s/new", dir);
    ck_assert(mkdir(shared, 0700) == 0 && chmod(shared, 01777) == 0);
    put(precious, "old", 3);
    for (int i = 0; i < 3; i++) { /* a link to a file, one to none, a file */
        if (i < 2) ck_assert_int_eq(symlink(i == 0 ? precious : new, place), 0);
        else put(place, "old", 3);
        ck_assert_int_eq(lchown(place, 12345, 12345), 0);
        ck_assert_int_eq(ams_write_file(ctx, place, "evil", 4), ATMSAE_E_IO);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "shared/place is a"));
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "of user 12345"));
        expect_old(precious);
        ck_assert_int_ne(access(new, F_OK), 0);
        ck_assert_uint_eq(entries(shared), 1);
        char *file = NULL;
        struct stat st;
        ck_assert_int_eq(ams_path_resolve(ctx, place, false, &file, &st), i < 2 ? ATMSAE_E_IO : OK); /* such a file may be read */
        ams_free(ctx, file);
        /* The caller's own are trusted, and so is anybody's in other folders. */
        ck_assert_int_eq(lchown(place, 0, 0), 0);
        ck_assert_int_eq(ams_write_file(ctx, place, "fine", 4), OK);
        ck_assert(lchown(place, 12345, 12345) == 0 && chmod(shared, 0755) == 0);
        ck_assert_int_eq(ams_write_file(ctx, place, "old", 3), OK);
        ck_assert_uint_eq(get(place, text, sizeof text), 3);
        ck_assert(chmod(shared, 01777) == 0 && unlink(place) == 0);
        (void)unlink(new);
    }
    ck_assert_int_eq(rmdir(shared), 0);
}
END_TEST

/* Names as long as they may be: that of the temporary file is a short one then. */
START_TEST(long_names)
{
    char name[257], path[400], text[16];
    for (size_t length = 248; length <= 256; length++) {
        memset(name, 'n', length);
        name[length] = '\0';
        snprintf(path, sizeof path, "%s/%s", dir, name);
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(ams_write_file(ctx, path, "12", (uint64_t)i + 1), length < 256 ? OK : ATMSAE_E_IO);
            if (length == 256) continue;
            ck_assert_uint_eq(get(path, text, sizeof text), (size_t)i + 1);
            ck_assert_uint_eq(entries(dir), 1);
        }
        (void)unlink(path);
    }
}
END_TEST

/* What has the temporary file's name, and is none, stays as it is, and is named. */
START_TEST(names_in_the_way)
{
    const char *path = in_dir("file"), *temp = in_dir(".file.tmp"), *precious = in_dir("precious");
    put(path, "old", 3);
    put(precious, "old", 3);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(i == 0 ? symlink("precious", temp) : i == 1 ? symlink("nothing", temp) : i == 2 ? mkfifo(temp, 0600) : mkdir(temp, 0700),
                         0);
        ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), ATMSAE_E_IO);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), ".file.tmp"));
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "remove it"));
        expect_old(path);
        expect_old(precious);
        ck_assert_uint_eq(entries(dir), 3);
        ck_assert_int_eq(remove(temp), 0);
    }
    ck_assert_int_eq(ams_write_file(ctx, path, "new", 3), OK);
}
END_TEST

START_TEST(symbolic_links)
{
    char text[16];
    ck_assert_int_eq(mkdir(in_dir("sub"), 0700), 0);
    ck_assert_int_eq(symlink("sub/real", in_dir("a")), 0);
    ck_assert_int_eq(symlink(in_dir("a"), in_dir("b")), 0); /* absolute, to a link that dangles */
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ams_write_file(ctx, in_dir("b"), "12", (uint64_t)i + 1), OK);
        ck_assert_uint_eq(get(in_dir("sub/real"), text, sizeof text), (size_t)i + 1);
        ck_assert_uint_eq(entries(in_dir("sub")), 1);
    }
    ck_assert_int_gt(readlink(in_dir("a"), text, sizeof text), 0);
    ck_assert_int_gt(readlink(in_dir("b"), text, sizeof text), 0);
    ck_assert_int_eq(chdir(dir), 0); /* relative names */
    ck_assert_int_eq(ams_write_file(ctx, "a", "123", 3), OK);
    ck_assert_uint_eq(get("sub/real", text, sizeof text), 3);
    ck_assert_int_eq(unlink("sub/real"), 0);
    ck_assert_int_eq(rmdir("sub"), 0);
}
END_TEST

START_TEST(reading_whole_files)
{
    char *data = NULL;
    uint64_t bytes = 0;
    put(in_dir("f"), "abc", 3);
    ck_assert_int_eq(ams_read_file(ctx, in_dir("f"), 3, &data, &bytes), OK);
    ck_assert_uint_eq(bytes, 3);
    ck_assert_str_eq(data, "abc");
    ams_free(ctx, data);
    ck_assert_int_eq(ams_read_file(ctx, in_dir("f"), 2, &data, &bytes), LIMIT);
    ck_assert_int_eq(ams_read_file(ctx, in_dir("none"), 9, &data, &bytes), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "No such file"));
    ck_assert_int_eq(ams_read_file(ctx, dir, 9, &data, &bytes), ATMSAE_E_IO);
    ck_assert_int_eq(mkfifo(in_dir("pipe"), 0600), 0);
    ck_assert_int_eq(ams_read_file(ctx, in_dir("pipe"), 9, &data, &bytes), ATMSAE_E_IO); /* and does not wait */
    ck_assert_int_eq(open_file(in_dir("pipe")), ATMSAE_E_IO);
    ck_assert_int_eq(open_file(dir), ATMSAE_E_IO);
    ck_assert_int_eq(open_file(in_dir("none")), ATMSAE_E_IO);

    /* A file that shrinks under an open handle. */
    write_sample(in_dir("s.safetensors"), true);
    atmsae_tensors *t;
    float f[6];
    ck_assert_int_eq(atmsae_tensors_open(ctx, in_dir("s.safetensors"), &t), OK);
    ck_assert_int_eq(truncate(in_dir("s.safetensors"), 100), 0);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, 0, f, 6), TRUNCATED);
    ck_assert_int_eq(ams_tensors_verify(t), TRUNCATED);
    atmsae_tensors_close(t);

    atmsae_tensors *none = (atmsae_tensors *)&ctx;
    ck_assert_int_eq(atmsae_tensors_open(ctx, NULL, &none), ATMSAE_E_ARG);
    ck_assert_ptr_null(none);
    ck_assert_int_eq(atmsae_tensors_open(NULL, "x", &none), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_tensors_open(ctx, "x", NULL), ATMSAE_E_ARG);
    atmsae_tensors_close(NULL);
    ck_assert_uint_eq(atmsae_tensors_count(NULL), 0);
}
END_TEST

/* ---- allocations -------------------------------------------------------------------------------- */

START_TEST(failing_allocations)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &counted;
    atmsae_context *outer = ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), OK);
    const char *written = in_dir("written"), *path = in_dir("file.safetensors"), *array = in_dir("a.npy");
    char file[256];
    write_sample(path, true);
    put(array, file, npy(file, 1, BYTES(D("'<f4'", "False", "(1,)")), 4));
    put(written, "old", 3);
    unsigned fds = entries("/proc/self/fd");
    long before = live;
    for (int what = 0; what < 6; what++) {
        long n = 1;
        for (atmsae_status status = ATMSAE_E_NOMEM; status == ATMSAE_E_NOMEM || countdown == 0; n++) {
            ck_assert_int_lt(n, 100);
            if (what < 2) put(written, "old", 3);
            for_ever = what % 2;
            countdown = n;
            status = what < 2 ? ams_safetensors_write(ctx, written, sample_tensors, 2, sample_metadata, 2, true)
                   : what < 4 ? open_and_verify(path) : open_file(array);
            /* A growing array asks again for less, so one failure may do no harm. */
            ck_assert(status == OK || status == ATMSAE_E_NOMEM);
            ck_assert_int_eq(live, before);
            ck_assert_uint_eq(entries("/proc/self/fd"), fds);
            ck_assert_uint_eq(entries(dir), 3);
            if (what < 2 && status < 0) expect_old(written);
        }
        ck_assert_int_gt(n, 4);
    }
    countdown = 0;
    atmsae_context_destroy(ctx);
    ctx = outer;
}
END_TEST

/* How many of a table's cases are refused. */
#define REFUSED(cases, n)                                             \
    for (size_t i = 0; i < sizeof(cases) / sizeof *(cases); i++)      \
    (n) += (cases)[i].status != OK

int main(void)
{
    unsigned n_json = 0, n_st = 0, n_npy = 0;
    REFUSED(json_cases, n_json);
    REFUSED(st_cases, n_st);
    REFUSED(npy_cases, n_npy);
    printf("each refused with its status: %u JSON texts, %u headers of .safetensors, %u of .npy\n", n_json, n_st, n_npy);
    const TTest *const tests[] = {
        json_table, json_depth, json_many_keys, json_values, json_written, safetensors_table, safetensors_lengths,
        npy_table, columns_first, foreign_files, npy_frames, cut_at_every_byte, every_bit_flipped, crc_check_value, values_come_back, long_tensors,
        package_order, comma_locale, refused_targets, file_size_limit, kept_and_replaced, access_rights, links_of_others,
        long_names, names_in_the_way, symbolic_links,
        reading_whole_files, failing_allocations,
    };
    Suite *suite = suite_create("format");
    TCase *tcase = tcase_create("format");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
