/* SPDX-License-Identifier: MIT
 *
 * Power cuts, simulated (after ALICE, Pillai et al., OSDI 2014). The system calls of a save are logged
 * while they run; then, for every prefix of the log, the states that a disk may be found in are made:
 * a write that no fsync followed is there, missing, or torn at sectors of 512 bytes; a change of a
 * file's size is there or not; a name that was made, moved or removed without an fsync of the folder
 * is there or not, in any combination. Every state must load as the old or the new one, whole; so must
 * an SAE that is saved over one whose own save did not end, or that was not known to be on the disk.
 *
 * As a control the same is done to protocols without one of their fsyncs, where damage must be found.
 */
#include "format/format.h"
#include "small_run.h"
#include "../suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the log ------------------------------------------------------------------------------------------- */

enum { CREATE, LINK, RENAME, UNLINK, SYNC_FOLDER, SIZE, WRITE, SYNC };
enum { MAX_OPS = 400, MAX_NODES = 16, MAX_FDS = 256, SECTOR = 512 };

typedef struct op {
    int kind, node;
    char from[64], to[64]; /* names; CREATE, LINK and UNLINK: to */
    size_t at, bytes;
    char *data;
} op;

static op ops[MAX_OPS];
static unsigned n_ops;
static int n_nodes;
static struct {
    int node; /* 0: none, -1: the folder */
    size_t at;
} fds[MAX_FDS];

/* Names of the one folder, in the log's view and in a disk's. */
typedef struct names {
    struct {
        char name[64];
        int node;
    } list[12];
    unsigned n;
} names;
static names live;
static size_t piece; /* most bytes that one write takes: more of them, more states */
static int kill_after = -1; /* so many renames nothing works any more; -1: never */

static bool killed(void)
{
    errno = EIO;
    return kill_after == 0;
}

static int find_name(const names *all, const char *name)
{
    for (unsigned i = 0; i < all->n; i++)
        if (strcmp(all->list[i].name, name) == 0) return all->list[i].node;
    return 0;
}

static void set_name(names *all, const char *name, int node) /* 0: remove */
{
    for (unsigned i = 0; i < all->n; i++)
        if (strcmp(all->list[i].name, name) == 0) {
            if (node) all->list[i].node = node;
            else all->list[i] = all->list[--all->n];
            return;
        }
    if (!node) return;
    ck_assert_uint_lt(all->n, 12);
    snprintf(all->list[all->n].name, sizeof all->list[0].name, "%s", name);
    all->list[all->n++].node = node;
}

static void change(names *all, const op *o)
{
    if (o->kind == CREATE || o->kind == LINK) set_name(all, o->to, o->node);
    if (o->kind == UNLINK) set_name(all, o->to, 0);
    if (o->kind == RENAME) {
        set_name(all, o->to, o->node);
        if (find_name(all, o->from) == o->node) set_name(all, o->from, 0);
    }
}

static op *log_op(int kind, int node, const char *from, const char *to)
{
    ck_assert_uint_lt(n_ops, MAX_OPS);
    op *o = &ops[n_ops++];
    *o = (op){.kind = kind, .node = node};
    snprintf(o->from, sizeof o->from, "%s", from ? from : "");
    snprintf(o->to, sizeof o->to, "%s", to ? to : "");
    change(&live, o);
    return o;
}

static int log_openat(int dir, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    if (killed()) return -1;
    const int fd = openat(dir, path, flags, mode);
    if (fd < 0) return fd;
    ck_assert_int_lt(fd, MAX_FDS);
    fds[fd].at = 0;
    if (flags & O_DIRECTORY) fds[fd].node = -1;
    else if (flags & O_CREAT) log_op(CREATE, fds[fd].node = ++n_nodes, NULL, path);
    else fds[fd].node = find_name(&live, path);
    ck_assert_int_lt(n_nodes, MAX_NODES);
    return fd;
}
static int log_fallocate(int fd, int mode, off_t offset, off_t length)
{
    const int result = killed() ? -1 : fallocate(fd, mode, offset, length);
    if (result == 0) log_op(SIZE, fds[fd].node, NULL, NULL)->bytes = (size_t)(offset + length);
    return result;
}
static ssize_t log_write(int fd, const void *data, size_t bytes)
{
    const ssize_t put = killed() ? -1 : write(fd, data, bytes < piece ? bytes : piece);
    if (put <= 0) return put;
    op *o = log_op(WRITE, fds[fd].node, NULL, NULL);
    o->at = fds[fd].at;
    o->bytes = (size_t)put;
    o->data = malloc(o->bytes);
    memcpy(o->data, data, o->bytes);
    fds[fd].at += o->bytes;
    return put;
}
static int log_fsync(int fd)
{
    const int result = killed() ? -1 : fsync(fd);
    if (result == 0) log_op(fds[fd].node == -1 ? SYNC_FOLDER : SYNC, fds[fd].node, NULL, NULL);
    return result;
}
static int log_renameat(int a, const char *from, int b, const char *to)
{
    const int result = killed() ? -1 : renameat(a, from, b, to);
    if (result == 0) log_op(RENAME, find_name(&live, from), from, to);
    if (result == 0 && kill_after > 0) kill_after--;
    return result;
}
static int log_unlinkat(int dir, const char *path, int flags)
{
    const int result = killed() ? -1 : unlinkat(dir, path, flags);
    if (result == 0) log_op(UNLINK, 0, NULL, path);
    return result;
}
static int log_close(int fd)
{
    fds[fd].node = 0;
    return close(fd);
}
static const ams_io log_io = {log_openat, flock, log_fallocate, log_write, log_fsync, log_renameat, log_unlinkat, log_close};

/* ---- states of the disk ---------------------------------------------------------------------------------- */

typedef struct image {
    char *bytes;
    size_t size, room;
} image;

typedef struct disk {
    names names;
    image nodes[MAX_NODES];
} disk;

static void resize(image *i, size_t size)
{
    if (size <= i->size) return;
    if (size > i->room) i->bytes = realloc(i->bytes, i->room = 2 * size);
    memset(i->bytes + i->size, 0, size - i->size);
    i->size = size;
}

static uint64_t random_state;
static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 32) * below >> 32);
}

/* What can happen to an operation that nothing made durable: number of ways, 0 is "not there". */
static unsigned ways(const op *o) { return o->kind == WRITE || o->kind == RENAME ? 3 : o->kind == SYNC || o->kind == SYNC_FOLDER ? 1 : 2; }

static void apply(disk *d, const op *o, unsigned way)
{
    if (way == 0) return;
    if (o->kind <= UNLINK) {
        const int from = o->kind == RENAME ? find_name(&d->names, o->from) : 0;
        change(&d->names, o);
        if (o->kind == RENAME && way == 2 && from) set_name(&d->names, o->from, from); /* both names */
        return;
    }
    if (o->kind == SIZE) resize(&d->nodes[o->node], o->bytes);
    if (o->kind != WRITE) return;
    resize(&d->nodes[o->node], o->at + o->bytes);
    for (size_t at = o->at; at < o->at + o->bytes;) {
        const size_t end = (at / SECTOR + 1) * SECTOR, stop = end < o->at + o->bytes ? end : o->at + o->bytes;
        if (way == 1 || draw(2)) memcpy(d->nodes[o->node].bytes + at, o->data + (at - o->at), stop - at);
        at = stop;
    }
}

static bool is_folder_op(const op *o) { return o->kind <= SYNC_FOLDER; }

/* Is operation i of the first `prefix` ones on the disk for certain? */
static bool durable(unsigned i, unsigned prefix)
{
    for (unsigned j = i; j < prefix; j++)
        if (is_folder_op(&ops[i]) ? ops[j].kind == SYNC_FOLDER : ops[j].kind == SYNC && ops[j].node == ops[i].node) return true;
    return false;
}

/* ---- scenarios ---------------------------------------------------------------------------------------------- */

enum { OLD = 1, NEW = 2, REFUSED = 4, DAMAGED = 8 };

typedef struct scenario {
    const char *name;
    void (*save)(int version, const char *folder);
    const char *files[3];
    int (*load)(const char *folder); /* OLD, NEW, REFUSED, or DAMAGED: anything else */
    bool from_nothing;               /* there is no old state: OLD means that nothing is there */
    int allowed;
    void (*prepare)(const char *folder); /* on the old state, before the save; or NULL */
} scenario;

static atmsae_context *ctx;
static small_run runs[2];
static atmsae_model *models[2];

static const char *in(const char *folder, const char *name)
{
    static char path[8][200];
    static unsigned turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void save_checkpoint(int version, const char *folder)
{
    ck_assert_int_eq(atmsae_trainer_save(runs[version].trainer, runs[version].source, in(folder, "checkpoint")), ATMSAE_OK);
}

/* As atmsae train does it. */
static void save_and_keep(int version, const char *folder)
{
    const int before = find_name(&live, "checkpoint");
    if (before) {
        ck_assert_int_eq(link(in(folder, "checkpoint"), in(folder, "spare")), 0);
        log_op(LINK, before, NULL, "spare");
    }
    save_checkpoint(version, folder);
    if (!before) return;
    ck_assert_int_eq(rename(in(folder, "spare"), in(folder, "previous")), 0);
    log_op(RENAME, before, "spare", "previous");
}

static void save_folder(int version, const char *folder)
{
    ck_assert_int_eq(atmsae_model_save(models[version], folder, NULL), ATMSAE_OK);
}

#define STAGED "sae_weights.staged.safetensors"
/* The old SAE as a save leaves it that ends before its last step, over the new one. */
static void leave_pending(const char *folder)
{
    size_t old_size, new_size;
    char *old = small_read(in(folder, "sae_weights.safetensors"), &old_size);
    save_folder(1, folder);
    char *new = small_read(in(folder, "sae_weights.safetensors"), &new_size);
    save_folder(0, folder);
    small_write(in(folder, STAGED), old, old_size);
    small_write(in(folder, "sae_weights.safetensors"), new, new_size);
    free(old);
    free(new);
}

/* A save that is killed behind its n-th rename, which nothing has made durable then, and another one after it. */
static void save_after_a_kill(int version, const char *folder, int n)
{
    kill_after = n;
    (void)!atmsae_model_save(models[version], folder, NULL);
    ck_assert_int_eq(kill_after, 0);
    kill_after = -1;
    save_folder(!version, folder);
}
static void save_after_a_kill_2(int version, const char *folder) { save_after_a_kill(version, folder, 2); }
static void save_after_a_kill_3(int version, const char *folder) { save_after_a_kill(version, folder, 3); }

static int load_checkpoint(const char *path)
{
    atmsae_trainer *trainer;
    const atmsae_status status = atmsae_trainer_load(ctx, path, NULL, &trainer);
    if (status == ATMSAE_E_IO && access(path, F_OK) != 0) return REFUSED;
    if (status < 0) return status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT ? REFUSED : DAMAGED;
    int found = DAMAGED;
    for (int v = 0; v < 2; v++) {
        uint64_t n, m;
        const float *a = atmsae_model_view(atmsae_trainer_model(trainer), ATMSAE_W_ENC, &n);
        const float *b = atmsae_model_view(atmsae_trainer_model(runs[v].trainer), ATMSAE_W_ENC, &m);
        if (atmsae_trainer_steps_done(trainer) == atmsae_trainer_steps_done(runs[v].trainer) && n == m && memcmp(a, b, n * sizeof *a) == 0)
            found = v ? NEW : OLD;
    }
    atmsae_trainer_destroy(trainer);
    return found;
}

static int load_newest(const char *folder) { return load_checkpoint(in(folder, "checkpoint")); }

static int load_newest_or_previous(const char *folder)
{
    const int found = load_checkpoint(in(folder, "checkpoint"));
    return found == REFUSED ? load_checkpoint(in(folder, "previous")) : found;
}

static int load_folder(const char *folder)
{
    atmsae_model *model;
    const atmsae_status status = atmsae_model_load(ctx, folder, &model);
    if (status < 0) return status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT || status == ATMSAE_E_IO ? REFUSED : DAMAGED;
    atmsae_model_config config = {.size = sizeof config};
    ck_assert_int_eq(atmsae_model_get_config(model, &config), ATMSAE_OK);
    int found = DAMAGED;
    for (int v = 0; v < 2; v++) {
        uint64_t n;
        const float *a = atmsae_model_view(model, ATMSAE_W_ENC, &n), *b = atmsae_model_view(models[v], ATMSAE_W_ENC, &n);
        if (config.k == (v ? 5 : 3) && memcmp(a, b, n * sizeof *a) == 0) found = v ? NEW : OLD;
    }
    atmsae_model_destroy(model);
    return found;
}

static const scenario scenarios[] = {
    {"a checkpoint replaces one", save_checkpoint, {"checkpoint", NULL}, load_newest, false, OLD | NEW, NULL},
    {"the command keeps the previous one", save_and_keep, {"checkpoint", "previous"}, load_newest_or_previous, false, OLD | NEW, NULL},
    {"an SAE folder replaces one", save_folder, {"sae_weights.safetensors", "cfg.json", STAGED}, load_folder, false, OLD | NEW, NULL},
    {"an SAE in an empty folder", save_folder, {"sae_weights.safetensors", "cfg.json", STAGED}, load_folder, true, NEW | REFUSED, NULL},
    {"the first checkpoint", save_checkpoint, {"checkpoint", NULL}, load_newest, true, NEW | REFUSED, NULL},
    {"an SAE folder replaces one whose save did not end", save_folder, {"sae_weights.safetensors", "cfg.json", STAGED}, load_folder, false,
     OLD | NEW, leave_pending},
    {"a save after one that was killed behind cfg.json", save_after_a_kill_2, {"sae_weights.safetensors", "cfg.json", STAGED}, load_folder,
     false, OLD | NEW, NULL},
    {"a save after one that was killed at its end", save_after_a_kill_3, {"sae_weights.safetensors", "cfg.json", STAGED}, load_folder,
     false, OLD | NEW, NULL},
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* ---- the search ------------------------------------------------------------------------------------------------ */

typedef struct seen { /* images of the files that loading looks at, and what loading said */
    uint64_t hash[65536];
    int found[65536];
    unsigned n;
} seen;
static seen known;

typedef struct counts {
    uint64_t states, loads, old, new, refused, damaged, repaired;
} counts;

/* FNV-1a: to a CRC all files that end in their own CRC look alike. */
static void hash_bytes(uint64_t *hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *hash = (*hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
}

static uint64_t hash_image(const scenario *s, const disk *d)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < 3 && s->files[i]; i++) {
        const int node = find_name(&d->names, s->files[i]);
        const uint64_t size = node ? d->nodes[node].size : UINT64_MAX;
        hash_bytes(&hash, &size, sizeof size);
        if (node) hash_bytes(&hash, d->nodes[node].bytes, d->nodes[node].size);
    }
    return hash;
}

static void put_disk(const disk *d, const char *folder)
{
    for (unsigned i = 0; i < d->names.n; i++) {
        const image *file = &d->nodes[d->names.list[i].node];
        small_write(in(folder, d->names.list[i].name), file->bytes, file->size);
    }
}

static void clear_folder(const char *folder)
{
    small_remove(folder);
    ck_assert_int_eq(mkdir(folder, 0700), 0);
}

static void judge(const scenario *s, const disk *d, const char *folder, counts *c)
{
    const uint64_t hash = hash_image(s, d);
    unsigned i = 0;
    while (i < known.n && known.hash[i] != hash)
        i++;
    c->states++;
    /* Each image is loaded once; and now and then a state as a whole, to save over what is there. */
    const bool save = c->states % 512 == 0;
    if (i == known.n || save) {
        clear_folder(folder);
        put_disk(d, folder);
        const int found = s->load(folder);
        c->loads++;
        ck_assert(i == known.n || known.found[i] == found);
        if (i == known.n) {
            ck_assert_uint_lt(known.n, 65536);
            known.hash[known.n] = hash;
            known.found[known.n++] = found;
        }
        if (save) {
            if (s->load == load_folder) save_folder(1, folder);
            else save_checkpoint(1, folder);
            ck_assert_int_eq(s->load(folder), NEW);
            for (unsigned j = 0; j < d->names.n; j++) /* what was left half-written is gone */
                if (strstr(d->names.list[j].name, ".tmp")) ck_assert_int_ne(access(in(folder, d->names.list[j].name), F_OK), 0);
            c->repaired++;
        }
    }
    const int found = known.found[i];
    c->old += found == OLD;
    c->new += found == NEW;
    c->refused += found == REFUSED;
    c->damaged += found == DAMAGED;
}

static void copy_disk(disk *to, const disk *from)
{
    to->names = from->names;
    for (int i = 0; i < MAX_NODES; i++) {
        to->nodes[i].size = 0;
        resize(&to->nodes[i], from->nodes[i].size);
        if (from->nodes[i].size) memcpy(to->nodes[i].bytes, from->nodes[i].bytes, from->nodes[i].size);
    }
}

/* All states after the first `prefix` operations, or `cap` of them drawn at random. */
static void search_prefix(const scenario *s, const disk *start, unsigned prefix, uint64_t cap, const char *folder, counts *c)
{
    static disk base, d;
    static unsigned open_ops[MAX_OPS], way[MAX_OPS];
    unsigned n = 0;
    uint64_t total = 1;
    copy_disk(&base, start);
    for (unsigned i = 0; i < prefix; i++) {
        if (ways(&ops[i]) == 1) continue;
        /* A size or a write before the last sync of its file is there; so is a name. */
        if (durable(i, prefix)) {
            apply(&base, &ops[i], 1);
            continue;
        }
        open_ops[n++] = i;
        total = total > cap ? total : total * ways(&ops[i]);
    }
    const bool all = total <= cap;
    for (uint64_t state = 0; state < (all ? total : cap); state++) {
        uint64_t code = state;
        for (unsigned i = 0; i < n; i++) {
            const unsigned w = ways(&ops[open_ops[i]]);
            way[i] = all ? (unsigned)(code % w) : draw(w);
            code /= w;
        }
        copy_disk(&d, &base);
        for (unsigned i = 0; i < n; i++)
            apply(&d, &ops[open_ops[i]], way[i]);
        judge(s, &d, folder, c);
    }
}

static void log_scenario(const scenario *s, const char *folder, disk *start)
{
    for (unsigned i = 0; i < n_ops; i++)
        free(ops[i].data);
    n_ops = 0, n_nodes = 0, live.n = 0;
    known.n = 0;
    memset(start, 0, sizeof *start);
    clear_folder(folder);
    if (!s->from_nothing) {
        if (s->load == load_folder) save_folder(0, folder);
        else save_checkpoint(0, folder);
        if (s->prepare) s->prepare(folder);
        for (int i = 0; i < 3 && s->files[i]; i++) {
            image *file = &start->nodes[n_nodes + 1];
            file->bytes = small_read(in(folder, s->files[i]), &file->size);
            file->room = file->size;
            if (!file->bytes) continue;
            set_name(&live, s->files[i], ++n_nodes);
        }
    }
    start->names = live;
    piece = s->load == load_folder ? 512 : SIZE_MAX;
    ams_context_set_io(ctx, &log_io);
    s->save(1, folder);
    ams_context_set_io(ctx, NULL);
}

/* Data before names: each renamed file was synced after its last write, and the folder at the end. */
static void check_order(void)
{
    bool folder_synced = true;
    int renames = 0;
    for (unsigned i = 0; i < n_ops; i++) {
        if (ops[i].kind == SYNC_FOLDER) folder_synced = true;
        if (ops[i].kind != RENAME) continue;
        renames++;
        folder_synced = strcmp(ops[i].to, "previous") == 0;
        for (unsigned j = 0; j < i; j++)
            if (ops[j].kind == WRITE && ops[j].node == ops[i].node) ck_assert(durable(j, i));
    }
    ck_assert(folder_synced && renames > 0);
}

static counts search(const scenario *s, uint64_t cap, const char *folder)
{
    static disk start;
    counts c = {0};
    log_scenario(s, folder, &start);
    check_order();
    for (unsigned prefix = 0; prefix <= n_ops; prefix++)
        search_prefix(s, &start, prefix, cap, folder, &c);
    return c;
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static const char *folder;

static void setup(void)
{
    folder = small_folder();
    ctx = small_context(1);
    for (int v = 0; v < 2; v++) {
        small_begin(&runs[v], &small_setups[1], ctx);
        small_until(&runs[v], v ? 7 : 3);
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = SMALL_D;
        config.d_sae = SMALL_F;
        config.activation = ATMSAE_TOPK;
        config.k = v ? 5 : 3;
        config.seed = (uint64_t)v;
        ck_assert_int_eq(atmsae_model_create(ctx, &config, &models[v]), ATMSAE_OK);
    }
    random_state = 2026;
}

static void teardown(void)
{
    for (int v = 0; v < 2; v++) {
        small_end(&runs[v]);
        atmsae_model_destroy(models[v]);
    }
    atmsae_context_destroy(ctx);
    small_remove(folder);
}

START_TEST(every_state_loads)
{
    uint64_t states = 0;
    for (int i = 0; i < SCENARIOS; i++) {
        const scenario *s = &scenarios[i];
        const counts c = search(s, 4096 * small_scale(), folder);
        printf("%s: %u operations, %llu states (%llu loaded, %llu saved over): old %llu, new %llu, refused %llu, damaged %llu\n", s->name,
               n_ops, (unsigned long long)c.states, (unsigned long long)c.loads, (unsigned long long)c.repaired, (unsigned long long)c.old,
               (unsigned long long)c.new, (unsigned long long)c.refused, (unsigned long long)c.damaged);
        fflush(stdout);
        states += c.states;
        ck_assert_uint_eq(c.damaged, 0);
        ck_assert(c.new > 0 && (c.repaired > 0 || c.states < 512));
        ck_assert_int_eq(c.old > 0, (s->allowed & OLD) != 0);
        ck_assert_int_eq(c.refused > 0, (s->allowed & REFUSED) != 0);
    }
    printf("%llu states in all\n", (unsigned long long)states);
    ck_assert_uint_ge(states, 200000);
}
END_TEST

/* Can the search find anything? Without the sync of the data a checkpoint must get lost; what is left
 * of it is refused all the same, thanks to its checksum. */
START_TEST(without_sync_of_the_data)
{
    static disk start;
    for (int i = 0; i < 3; i += 2) {
        const scenario *s = &scenarios[i];
        counts c = {0};
        log_scenario(s, folder, &start);
        for (unsigned j = 0; j < n_ops; j++)
            if (ops[j].kind == SYNC) ops[j].node = 0;
        for (unsigned prefix = 0; prefix <= n_ops; prefix++)
            search_prefix(s, &start, prefix, 256, folder, &c);
        printf("%s, data not synced: %llu states, refused %llu, damaged %llu\n", s->name, (unsigned long long)c.states,
               (unsigned long long)c.refused, (unsigned long long)c.damaged);
        ck_assert_uint_gt(c.refused, 100);
        ck_assert_uint_eq(c.damaged, 0);
    }
}
END_TEST

/* Without the syncs of the folder the steps of an SAE's save may come in any order: some states are refused. */
START_TEST(without_sync_of_the_folder)
{
    static disk start;
    const scenario *s = &scenarios[2];
    counts with = search(s, 256, folder), c = {0};
    log_scenario(s, folder, &start);
    for (unsigned j = 0; j < n_ops; j++)
        if (ops[j].kind == SYNC_FOLDER) ops[j].kind = SYNC, ops[j].node = 0;
    for (unsigned prefix = 0; prefix <= n_ops; prefix++)
        search_prefix(s, &start, prefix, 256, folder, &c);
    ck_assert_uint_eq(with.refused, 0);
    ck_assert_uint_gt(c.refused, 0);
    ck_assert_uint_eq(c.damaged, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("power loss");
    TCase *t = tcase_create("states");
    tcase_set_timeout(t, 1800);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_state_loads);
    tcase_add_test(t, without_sync_of_the_data);
    tcase_add_test(t, without_sync_of_the_folder);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
