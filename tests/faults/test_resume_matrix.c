/* SPDX-License-Identifier: MIT
 *
 * A run that is killed again and again, each time going on from its last checkpoint in a new process
 * with another number of threads, ends in the same state as one without a break: the bytes of its
 * last checkpoint, which hold everything, are the same.
 */
#include "small_run.h"
#include "../suite.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint32_t threads[] = {1, 2, 3, 4, 7};
enum { THREADS = sizeof threads / sizeof *threads };

/* What a child tells: shared memory outlives it. */
typedef struct notes {
    uint64_t saved, given; /* steps and callback's rows at the last checkpoint */
    bool aux, masked, dead, skipped, left_out;
} notes;

static notes *shared(void)
{
    notes *n = mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(n != MAP_FAILED);
    memset(n, 0, sizeof *n);
    return n;
}

/* Goes on from the last checkpoint. Saves after steps `saves` (a bit a step); dies before step `die`,
 * or ends whole. */
static void child(const small_setup *setup, uint32_t n_threads, uint32_t saves, uint64_t die, const char *path, notes *n)
{
    small_run run;
    atmsae_context *ctx = small_context(n_threads);
    if (atmsae_context_threads(ctx) != n_threads) _exit(3);
    if (n->saved == 0) small_begin(&run, setup, ctx);
    else if (small_load(&run, setup, ctx, path, n->given) < 0) _exit(4);
    if (atmsae_trainer_steps_done(run.trainer) != n->saved) _exit(5);
    for (uint64_t step = n->saved; step < SMALL_STEPS; step++) {
        if (step == die) raise(SIGKILL);
        small_step(&run);
        n->aux |= run.aux, n->masked |= run.masked, n->dead |= run.dead, n->skipped |= run.skipped, n->left_out |= run.left_out;
        if (step + 1 < SMALL_STEPS && !(saves >> step & 1)) continue;
        if (atmsae_trainer_save(run.trainer, run.source, path) < 0) _exit(6);
        n->given = run.given;
        n->saved = step + 1;
    }
    _exit(0);
}

static int in_child(const small_setup *setup, uint32_t n_threads, uint32_t saves, uint64_t die, const char *path, notes *n)
{
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) child(setup, n_threads, saves, die, path, n);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static uint32_t random_state = 12345;
static uint32_t draw(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

START_TEST(killed_runs_end_in_the_same_state)
{
    const small_setup *setup = &small_setups[_i];
    const char *folder = small_folder();
    char whole[100], broken[100];
    snprintf(whole, sizeof whole, "%s/whole", folder);
    snprintf(broken, sizeof broken, "%s/broken", folder);
    notes *n = shared();
    ck_assert_int_eq(in_child(setup, 1, 0, UINT64_MAX, whole, n), 0);
    ck_assert_msg(n->masked, "%s: masks were not at work", setup->name);
    ck_assert_msg(n->skipped == setup->bad_rows, "%s: bad rows", setup->name);
    ck_assert_msg(n->left_out == setup->outliers, "%s: outliers", setup->name);
    const bool topk = setup->activation == ATMSAE_TOPK || setup->activation == ATMSAE_BATCHTOPK;
    ck_assert_msg((n->dead && n->aux) || !topk, "%s: AuxK was not at work", setup->name);
    size_t size, other;
    char *expected = small_read(whole, &size);
    ck_assert_ptr_nonnull(expected);

    unsigned kills = 0;
    random_state += (uint32_t)_i;
    for (uint64_t round = 0; round < THREADS * (1 + small_scale()); round++) {
        memset(n, 0, sizeof *n);
        for (uint64_t life = 0;; life++) {
            /* The first rounds: one number of threads and no kill; then all mixed, killed at any step. */
            const bool mixed = round >= THREADS;
            const uint32_t count = threads[(round + (mixed ? life : 0)) % THREADS];
            const uint64_t die = mixed && life < 6 ? n->saved + draw((uint32_t)(SMALL_STEPS - n->saved)) : UINT64_MAX;
            const int status = in_child(setup, count, mixed ? draw(1u << 16) : 0, die, broken, n);
            if (status == 0) break;
            ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", setup->name, (unsigned)status);
            kills++;
        }
        char *bytes = small_read(broken, &other);
        ck_assert_msg(bytes && other == size && memcmp(bytes, expected, size) == 0, "%s: round %d differs", setup->name, (int)round);
        free(bytes);
    }
    ck_assert_uint_ge(kills, THREADS * 2);
    free(expected);
    munmap(n, sizeof *n);
    small_remove(folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume matrix");
    TCase *t = tcase_create("kills and threads");
    tcase_add_loop_test(t, killed_runs_end_in_the_same_state, 0, SMALL_SETUPS);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
