/* SPDX-License-Identifier: MIT
 *
 * SAE folders between two steps of a save (lib/format/sae_folder.c): the weights have their staged name only. What
 * loading makes of each state, that it changes nothing, and what the next save does.
 */
#include "format/format.h"
#include "small_run.h"
#include "../suite.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHTS "sae_weights.safetensors"
#define STAGED "sae_weights.staged.safetensors"

static const char *root;
static atmsae_context *ctx;
static atmsae_model *models[3];
static char logged[1024];

static void keep(void *opaque, int32_t level, const char *message)
{
    (void)opaque, (void)level;
    snprintf(logged, sizeof logged, "%s", message);
}

static const char *in(const char *name)
{
    static char path[16][200];
    static unsigned turn;
    char *p = path[turn++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

static void setup(void)
{
    root = small_folder();
    atmsae_context_config context;
    atmsae_context_config_init(&context, sizeof context);
    context.threads = 1;
    context.log = keep;
    context.log_level = ATMSAE_LOG_INFO;
    ck_assert_int_eq(atmsae_context_create(&context, &ctx), ATMSAE_OK);
    for (int v = 0; v < 3; v++) { /* k tells which one it is; its folder is that of its number */
        static const char *const names[] = {"0", "1", "2"};
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = SMALL_D;
        config.d_sae = SMALL_F;
        config.activation = ATMSAE_TOPK;
        config.k = 3 + v;
        config.seed = (uint64_t)v;
        ck_assert_int_eq(atmsae_model_create(ctx, &config, &models[v]), ATMSAE_OK);
        ck_assert_int_eq(atmsae_model_save(models[v], in(names[v]), NULL), ATMSAE_OK);
        ck_assert_uint_eq(small_entries(in(names[v])), 2);
    }
    ck_assert_int_eq(mkdir(in("sae"), 0700), 0);
}

static void teardown(void)
{
    for (int v = 0; v < 3; v++)
        atmsae_model_destroy(models[v]);
    atmsae_context_destroy(ctx);
    small_remove(root);
}

static void copy(const char *from, const char *to)
{
    size_t size;
    char *bytes = small_read(in(from), &size);
    ck_assert_ptr_nonnull(bytes);
    small_write(in(to), bytes, size);
    free(bytes);
}

/* The folder sae: cfg.json of one version, weights of another, staged ones of a third; -1: none. */
static void make(int cfg, int weights, int staged)
{
    char name[64];
    (void)unlink(in("sae/cfg.json"));
    (void)unlink(in("sae/" WEIGHTS));
    (void)unlink(in("sae/" STAGED));
    snprintf(name, sizeof name, "%d/cfg.json", cfg);
    if (cfg >= 0) copy(name, "sae/cfg.json");
    snprintf(name, sizeof name, "%d/" WEIGHTS, weights);
    if (weights >= 0) copy(name, "sae/" WEIGHTS);
    snprintf(name, sizeof name, "%d/" WEIGHTS, staged);
    if (staged >= 0) copy(name, "sae/" STAGED);
}

/* The version that can be loaded; a status below 0 if none can. */
static int load(const char *name)
{
    atmsae_model *model;
    atmsae_model_config config = {.size = sizeof config};
    uint64_t n;
    logged[0] = '\0';
    const atmsae_status status = atmsae_model_load(ctx, in(name), &model);
    if (status < 0) return status;
    ck_assert_int_eq(atmsae_model_get_config(model, &config), ATMSAE_OK);
    const int version = (int)config.k - 3;
    const float *a = atmsae_model_view(model, ATMSAE_W_ENC, &n), *b = atmsae_model_view(models[version], ATMSAE_W_ENC, &n);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    atmsae_model_destroy(model);
    return version;
}

/* A weights file as SAELens would write it: the same tensors, without our mark. */
static void write_unmarked(const char *name, int version)
{
    static const struct {
        const char *name;
        int32_t parameter;
        uint64_t rank, shape[2];
    } tensors[] = {{"W_enc", ATMSAE_W_ENC, 2, {SMALL_D, SMALL_F}}, {"b_enc", ATMSAE_B_ENC, 1, {SMALL_F, 0}},
                   {"W_dec", ATMSAE_W_DEC, 2, {SMALL_F, SMALL_D}}, {"b_dec", ATMSAE_B_DEC, 1, {SMALL_D, 0}}};
    ams_tensor_out out[4];
    float w_enc[SMALL_D * SMALL_F];
    const float *rows = atmsae_model_view(models[version], ATMSAE_W_ENC, NULL);
    for (int i = 0; i < SMALL_F * SMALL_D; i++)
        w_enc[i % SMALL_D * SMALL_F + i / SMALL_D] = rows[i];
    for (int i = 0; i < 4; i++)
        out[i] = (ams_tensor_out){.name = tensors[i].name, .dtype = "F32", .rank = tensors[i].rank,
                                  .shape = {tensors[i].shape[0], tensors[i].shape[1]},
                                  .data = i == 0 ? w_enc : atmsae_model_view(models[version], tensors[i].parameter, NULL)};
    ck_assert_int_eq(ams_safetensors_write(ctx, in(name), out, 4, NULL, 0, false), ATMSAE_OK);
}

START_TEST(which_weights)
{
    enum { NONE = -1 };
    const struct {
        int cfg, weights, staged, found;
    } states[] = {
        {0, 0, NONE, 0}, {0, 0, 1, 0},                          /* before the new cfg.json; */
        {1, 0, 1, 1},    {1, 1, NONE, 1}, {1, 1, 1, 1},         /* after it */
        {1, NONE, 1, 1}, {0, NONE, 1, ATMSAE_E_IO},             /* the same in a new folder */
        {NONE, 0, 1, ATMSAE_E_IO}, {NONE, NONE, 1, ATMSAE_E_IO},
        {1, 0, NONE, ATMSAE_E_FORMAT}, {1, 0, 2, ATMSAE_E_FORMAT}, /* of no one save */
    };
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        make(states[i].cfg, states[i].weights, states[i].staged);
        const unsigned entries = small_entries(in("sae"));
        struct stat before, after;
        ck_assert_int_eq(stat(in("sae"), &before), 0);
        ck_assert_msg(load("sae") == states[i].found, "state %zu: %s", i, atmsae_last_error(ctx));
        ck_assert_int_eq(strstr(logged, STAGED) != NULL, states[i].found == states[i].staged && states[i].found != NONE);
        if (states[i].found >= 0 && states[i].cfg != NONE) ck_assert_int_eq(load("sae/cfg.json"), states[i].found);
        if (states[i].weights != NONE && states[i].cfg != NONE) ck_assert_int_eq(load("sae/" WEIGHTS), states[i].found);
        if (states[i].found >= 0 && states[i].staged != NONE) ck_assert_int_eq(load("sae/" STAGED), states[i].found);
        ck_assert_int_eq(stat(in("sae"), &after), 0);
        ck_assert(small_entries(in("sae")) == entries && before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
                  before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
        /* Whatever it was, it can be saved over, and nothing is left. */
        ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_OK);
        ck_assert_int_eq(load("sae"), 2);
        ck_assert_str_eq(logged, "");
        ck_assert_uint_eq(small_entries(in("sae")), 2);
    }
}
END_TEST

/* A folder that SAELens wrote, which has no checksum, and one that it read from us and wrote again. */
START_TEST(folders_of_others)
{
    make(0, -1, -1);
    write_unmarked("sae/" WEIGHTS, 0);
    ck_assert_int_eq(load("sae"), 0);
    copy("1/" WEIGHTS, "sae/" STAGED); /* our save came up to here */
    ck_assert_int_eq(load("sae"), 0);
    copy("1/cfg.json", "sae/cfg.json");
    ck_assert_int_eq(load("sae"), 1);
    ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_OK);
    ck_assert_int_eq(load("sae"), 2);

    /* What is staged in the folder of another format says nothing. */
    make(-1, -1, 1);
    static const char sparsify[] = "{\"k\": 3, \"d_in\": 12, \"activation\": \"topk\", \"num_latents\": 40}";
    small_write(in("sae/cfg.json"), sparsify, sizeof sparsify - 1);
    small_write(in("sae/sae.safetensors"), "x", 1);
    ck_assert_int_eq(load("sae"), ATMSAE_E_TRUNCATED);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "sae.safetensors"));
    (void)unlink(in("sae/sae.safetensors"));
    ck_assert_int_eq(load("sae"), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "no SAE"));
}
END_TEST

/* Weights that are a symbolic link stay one; what is staged lies beside the file that it leads to. */
START_TEST(linked_weights)
{
    struct stat st;
    make(0, -1, -1);
    ck_assert_int_eq(mkdir(in("blobs"), 0700), 0);
    copy("0/" WEIGHTS, "blobs/b1.bin");
    ck_assert_int_eq(symlink("../blobs/b1.bin", in("sae/" WEIGHTS)), 0);
    ck_assert_int_eq(load("sae"), 0);
    copy("1/" WEIGHTS, "blobs/b1.staged.bin");
    copy("1/cfg.json", "sae/cfg.json");
    ck_assert_int_eq(load("sae"), 1);
    ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_OK);
    ck_assert_int_eq(load("sae"), 2);
    ck_assert(lstat(in("sae/" WEIGHTS), &st) == 0 && S_ISLNK(st.st_mode));
    ck_assert_uint_eq(small_entries(in("blobs")), 1);
    ck_assert_uint_eq(small_entries(in("sae")), 2);
}
END_TEST

/* The staged file of a save that goes on now is left alone, and the second save told so. */
START_TEST(another_writer)
{
    make(1, 0, 1);
    const int fd = open(in("sae/" STAGED), O_RDONLY);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "another writer"));
    ck_assert_int_eq(load("sae"), 1);
    ck_assert_uint_eq(small_entries(in("sae")), 3);
    close(fd);
    ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_OK);
    ck_assert_int_eq(load("sae"), 2);

    make(1, 0, -1); /* and what is no file is named */
    ck_assert_int_eq(mkfifo(in("sae/" STAGED), 0600), 0);
    ck_assert_int_eq(atmsae_model_save(models[2], in("sae"), NULL), ATMSAE_E_IO);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), STAGED));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("staged");
    TCase *t = tcase_create("folders");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, which_weights);
    tcase_add_test(t, folders_of_others);
    tcase_add_test(t, linked_weights);
    tcase_add_test(t, another_writer);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
