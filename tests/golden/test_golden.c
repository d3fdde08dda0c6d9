/* SPDX-License-Identifier: MIT
 *
 * Files of released versions load for ever and mean what they meant (make_golden.c wrote them); files
 * of later versions, of other machines and of other programs are refused with the right status.
 */
#include "base/base.h"
#include "small_run.h"
#include "../suite.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const versions[] = {"0.1"};
enum { ROWS = 8 };

static const char *golden(const char *version, const char *name, const char *end)
{
    static char path[4][600];
    static unsigned turn;
    const char *tests = getenv("ATMSAE_TESTS");
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/golden/%s/%s%s", tests ? tests : "tests", version, name, end);
    return p;
}

static bool near_to(double a, double b) { return fabs(a - b) <= 1e-6 * fmax(1e-3, fmax(fabs(a), fabs(b))); }

/* The rest of one run's part of expected.txt. */
static uint64_t check_codes(FILE *expected, const char *name, const atmsae_codes_view *view)
{
    char word[64];
    unsigned row, latent;
    double value;
    uint64_t e = 0;
    for (; fscanf(expected, " row %u latent %u value %lf", &row, &latent, &value) == 3; e++) {
        ck_assert_msg(e < view->row_start[ROWS] && view->row_start[row] <= e && e < view->row_start[row + 1], "%s: entry %d of row %u", name,
                      (int)e, row);
        ck_assert_msg(view->latent[e] == latent && near_to((double)view->value[e], value), "%s, row %u: latent %u = %.9g, expected %u = %.9g",
                      name, row, view->latent[e], (double)view->value[e], latent, value);
    }
    ck_assert_uint_eq(e, view->row_start[ROWS]);
    ck_assert_int_eq(fscanf(expected, "end %63s", word), 1);
    ck_assert_str_eq(word, name);
    return e;
}

START_TEST(old_files_mean_what_they_meant)
{
    const char *version = versions[_i];
    FILE *expected = fopen(golden(version, "expected", ".txt"), "r");
    ck_assert_msg(expected != NULL, "%s", golden(version, "expected", ".txt"));
    atmsae_context *ctx = small_context(2);
    char name[64];
    unsigned long long given;
    double loss;
    uint64_t entries = 0;
    int runs = 0;
    for (; fscanf(expected, " run %63s given %llu loss %lf", name, &given, &loss) == 3; runs++) {
        const small_setup *setup = NULL;
        for (int i = 0; i < SMALL_SETUPS; i++)
            if (strcmp(small_setups[i].name, name) == 0) setup = &small_setups[i];
        ck_assert_msg(setup != NULL, "%s", name);
        small_run run;
        ck_assert_msg(small_load(&run, setup, ctx, golden(version, name, ".safetensors"), given) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
        ck_assert_uint_eq(atmsae_trainer_steps_done(run.trainer), 10);
        small_step(&run);
        ck_assert_msg(near_to(run.loss, loss), "%s: loss %.17g, expected %.17g", name, run.loss, loss);
        small_until(&run, SMALL_STEPS);
        ck_assert(isfinite(run.loss));
        small_end(&run);

        float rows[ROWS * SMALL_D];
        small_rows(rows, ROWS);
        atmsae_batch batch;
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = ROWS;
        batch.x = rows;
        atmsae_model *model;
        atmsae_codes *codes;
        atmsae_codes_view view = {.size = sizeof view};
        ck_assert_msg(atmsae_model_load(ctx, golden(version, name, ""), &model) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
        ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
        ck_assert_int_eq(atmsae_encode(model, &batch, codes), ATMSAE_OK);
        ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
        entries += check_codes(expected, name, &view);
        atmsae_codes_destroy(codes);
        atmsae_model_destroy(model);
    }
    ck_assert_int_ge(runs, 12);
    ck_assert_uint_ge(entries, 500);
    ck_assert(feof(expected));
    fclose(expected);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- files that must be refused -------------------------------------------------------------------- */

static atmsae_context *ctx;
static const char *folder;
static char *bytes, path[100];
static size_t size;

static void setup(void)
{
    ctx = small_context(1);
    folder = small_folder();
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    bytes = small_read(golden("0.1", "topk", ".safetensors"), &size);
    ck_assert_ptr_nonnull(bytes);
}

static void teardown(void)
{
    small_remove(folder);
    free(bytes);
    atmsae_context_destroy(ctx);
}

static atmsae_status load(void)
{
    atmsae_trainer *trainer = (atmsae_trainer *)&size; /* must become NULL */
    const atmsae_status status = atmsae_trainer_load(ctx, path, NULL, &trainer);
    if (status == ATMSAE_OK) {
        atmsae_trainer_destroy(trainer);
        return status;
    }
    ck_assert_ptr_null(trainer);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path));
    return status;
}

static atmsae_status load_bytes(const void *data, size_t n)
{
    small_write(path, data, n);
    return load();
}

static void seal(void)
{
    const uint64_t crc = ams_crc64(0, bytes, size - 8);
    memcpy(bytes + size - 8, &crc, 8);
}

static char *find(const char *text)
{
    char *at = memmem(bytes, size, text, strlen(text));
    ck_assert_ptr_nonnull(at);
    return at;
}

START_TEST(newer_versions)
{
    seal();
    ck_assert_int_eq(load_bytes(bytes, size), ATMSAE_OK); /* it is this checksum */
    char *digit = find("libatmsae checkpoint 1") + strlen("libatmsae checkpoint ");
    for (char c = '2'; c <= '9'; c++) {
        *digit = c;
        ck_assert_int_eq(load_bytes(bytes, size), ATMSAE_E_FORMAT); /* damage */
        seal();
        ck_assert_int_eq(load_bytes(bytes, size), ATMSAE_E_VERSION);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "newer"));
    }
}
END_TEST

START_TEST(other_byte_order)
{
    for (int i = 0; i < 4; i++) { /* the header's length */
        const char c = bytes[i];
        bytes[i] = bytes[7 - i];
        bytes[7 - i] = c;
    }
    ck_assert_int_eq(load_bytes(bytes, size), ATMSAE_E_LIMIT);
    for (int i = 0; i < 4; i++) {
        const char c = bytes[i];
        bytes[i] = bytes[7 - i];
        bytes[7 - i] = c;
    }
    for (size_t at = size - 8; at > size - 4000; at -= 4) { /* the numbers, and so the checksum */
        const char a = bytes[at], b = bytes[at + 1];
        bytes[at] = bytes[at + 3], bytes[at + 1] = bytes[at + 2], bytes[at + 2] = b, bytes[at + 3] = a;
    }
    ck_assert_int_eq(load_bytes(bytes, size), ATMSAE_E_FORMAT);
}
END_TEST

START_TEST(files_of_others)
{
    static const struct {
        const char *bytes;
        size_t size;
    } files[] = {
        {"PK\003\004\000\000\010\010\000\000\000\000archive/data.pkl", 28}, /* torch.save */
        {"\200\002}q\000(X\006\000\000\000state_q\001.", 20},             /* pickle */
        {"GGUF\003\000\000\000\000\000\000\000\000\000\000\000", 16},
        {"\211HDF\r\n\032\n\000\000\000\000\000\010\010\000", 16},
        {"{\"d_in\": 12, \"d_sae\": 40}", 25},
        {"\002\000\000\000\000\000\000\000{}", 10}, /* a tensor file with nothing in it */
        {"", 0},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const atmsae_status status = load_bytes(files[i].bytes, files[i].size);
        const bool named = status == ATMSAE_E_UNSUPPORTED; /* as the other program's file that it is */
        ck_assert_msg(named || status == ATMSAE_E_FORMAT || status == ATMSAE_E_LIMIT || status == ATMSAE_E_TRUNCATED, "%d: %s", (int)i,
                      atmsae_status_name(status));
    }
    size_t n; /* a tensor file of ours that is no checkpoint; a checkpoint that is no SAE */
    char *weights = small_read(golden("0.1", "topk", "/sae_weights.safetensors"), &n);
    ck_assert_int_eq(load_bytes(weights, n), ATMSAE_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "not a libatmsae checkpoint"));
    free(weights);

    uint64_t state = 1;
    for (int i = 0; i < 2000; i++) { /* garbage, half of it behind a length that fits */
        unsigned char noise[400];
        for (size_t j = 0; j < sizeof noise; j++)
            noise[j] = (unsigned char)((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
        if (i % 2) memcpy(noise, "\010\001\000\000\000\000\000\000{", 9);
        const atmsae_status status = load_bytes(noise, sizeof noise);
        ck_assert_msg(status == ATMSAE_E_FORMAT || status == ATMSAE_E_LIMIT || status == ATMSAE_E_TRUNCATED, "%s", atmsae_status_name(status));
    }
}
END_TEST

/* Every bit of a checkpoint: one that is flipped is never overlooked, and always known as damage, so
 * that the one before it is used. */
START_TEST(every_bit)
{
    small_write(path, bytes, size);
    const int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit++) {
            const char flipped = bytes[at] ^ (char)(1 << bit);
            ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
            const atmsae_status status = load();
            ck_assert_msg(status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT, "byte %d, bit %d: %s", (int)at,
                          bit, atmsae_status_name(status));
            ck_assert_int_eq(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
        }
    ck_assert_int_eq(load(), ATMSAE_OK);
    close(fd);
}
END_TEST

START_TEST(every_length)
{
    small_write(path, bytes, size);
    for (size_t n = size; n-- > 0;) {
        ck_assert_int_eq(truncate(path, (off_t)n), 0);
        const atmsae_status status = load();
        ck_assert_msg(status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED, "%d bytes: %s", (int)n, atmsae_status_name(status));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("golden");
    TCase *t = tcase_create("released files");
    tcase_add_loop_test(t, old_files_mean_what_they_meant, 0, sizeof versions / sizeof *versions);
    suite_add_tcase(suite, t);
    t = tcase_create("refused files");
    tcase_set_timeout(t, 600);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, newer_versions);
    tcase_add_test(t, other_byte_order);
    tcase_add_test(t, files_of_others);
    tcase_add_test(t, every_bit);
    tcase_add_test(t, every_length);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
