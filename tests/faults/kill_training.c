/* SPDX-License-Identifier: MIT
 *
 * usage: kill_training PATH/TO/atmsae [KILLS]
 *
 * Kills training runs of the command at random moments, 60 times (times ATMSAE_SCALE), each time going
 * on with --resume: it must work, lose at most one checkpoint interval, and end in the SAE of a run
 * without a break, to the bit. A run that ends is compared and begun anew. TAP on stdout.
 */
#include "small_run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 50, STEPS = 700, ROWS = BATCH * STEPS, WIDTH = 48, INPUT_ROWS = 3000 };

static const char *program, *folder;
static char out[120], metrics[120], input[120], errors[120];

static uint64_t random_state;
static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 32) * below >> 32);
}

static int stop(const char *what)
{
    printf("not ok - %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_input(void)
{
    const size_t bytes = (size_t)INPUT_ROWS * WIDTH * sizeof(float);
    char *file = calloc(1, 128 + bytes), head[128];
    if (!file) stop("memory");
    memcpy(file, "\223NUMPY\001\000\166\000", 10);
    snprintf(head, sizeof head, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", INPUT_ROWS, WIDTH);
    snprintf(file + 10, 118, "%-117.117s", head);
    file[127] = '\n';
    for (size_t i = 0; i < (size_t)INPUT_ROWS * WIDTH; i++) {
        const float value = (float)draw(1 << 20) * 0x1p-19f - 1 + (i % WIDTH % 7 == 0 ? 0.5f : 0);
        memcpy(file + 128 + i * sizeof value, &value, sizeof value);
    }
    small_write(input, file, 128 + bytes);
    free(file);
}

/* Starts the command; every: rows between checkpoints. */
static pid_t start(bool resume, const char *where, const char *lines, unsigned every, unsigned threads)
{
    char rows[16], interval[16], count[16], batch[16];
    snprintf(rows, sizeof rows, "%d", ROWS);
    snprintf(batch, sizeof batch, "%d", BATCH);
    snprintf(interval, sizeof interval, "%u", every);
    snprintf(count, sizeof count, "%u", threads);
    const pid_t pid = fork();
    if (pid < 0) stop("fork");
    if (pid > 0) return pid;
    const int fd = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    execl(program, program, "train", "--input", input, "--out", where, "--metrics", lines, "--d-sae", "96", "--k", "6", "--batch", batch,
          "--rows", rows, "--lr", "1e-3", "--seed", "3", "--shuffle-rows", "500", "--dead-window", "500", "--quiet", "--threads", count,
          "--checkpoint-every", interval, resume ? "--resume" : "--force", (char *)NULL);
    _exit(127);
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) stop("waitpid");
    return status;
}

/* Steps that the metrics tell of: the last whole line's and one. */
static uint64_t steps_made(void)
{
    size_t size;
    char *text = small_read(metrics, &size);
    if (!text) return 0;
    while (size > 0 && text[size - 1] != '\n')
        size--;
    uint64_t steps = 0;
    if (size > 0) {
        size_t begin = size - 1;
        while (begin > 0 && text[begin - 1] != '\n')
            begin--;
        char *end;
        const uint64_t step = strtoull(text + begin, &end, 10);
        if (end > text + begin) steps = step + 1;
    }
    free(text);
    return steps;
}

/* Steps in the newest checkpoint; 0: there is none. -1: it cannot be loaded. */
static int64_t steps_saved(atmsae_context *ctx)
{
    char path[200];
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", out);
    if (access(path, F_OK) != 0) return 0;
    atmsae_trainer *trainer;
    if (atmsae_trainer_load(ctx, path, NULL, &trainer) < 0) return -1;
    const uint64_t steps = atmsae_trainer_steps_done(trainer);
    atmsae_trainer_destroy(trainer);
    return (int64_t)steps;
}

static bool same(const char *a, const char *b)
{
    size_t n, m;
    char *x = small_read(a, &n), *y = small_read(b, &m);
    const bool equal = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return equal;
}

static bool same_results(void)
{
    static const char *const files[] = {"sae_weights.safetensors", "cfg.json", "checkpoint.safetensors"};
    char a[200], b[200];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(a, sizeof a, "%s/whole/%s", folder, files[i]);
        snprintf(b, sizeof b, "%s/%s", out, files[i]);
        if (same(a, b)) continue;
        printf("# %s differs\n", files[i]);
        return false;
    }
    snprintf(a, sizeof a, "%s/whole.csv", folder);
    return same(a, metrics);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    program = argv[1];
    const uint64_t kills_wanted = argc > 2 ? strtoull(argv[2], NULL, 10) : 60 * small_scale();
    folder = small_folder();
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(metrics, sizeof metrics, "%s/run.csv", folder);
    snprintf(input, sizeof input, "%s/input.npy", folder);
    snprintf(errors, sizeof errors, "%s/errors", folder);
    random_state = 11;
    write_input();

    char whole[200], lines[200];
    snprintf(whole, sizeof whole, "%s/whole", folder);
    snprintf(lines, sizeof lines, "%s/whole.csv", folder);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const int first = wait_for(start(false, whole, lines, 0, 1));
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    printf("%sok 1 - a run without a break (%.2f s)\n", first ? "not " : "", seconds);
    const uint32_t longest = (uint32_t)(seconds * 1e6); /* microseconds until a kill */

    uint64_t kills = 0, finished = 0, in_saves = 0, failures = first != 0, lost_most = 0;
    atmsae_context *ctx = small_context(1);
    bool resume = false;
    while (kills < kills_wanted && failures == 0) {
        const unsigned interval = 1u << draw(6); /* steps */
        const int64_t from = resume ? steps_saved(ctx) : 0;
        if (resume && from == 0) resume = false; /* killed before the first checkpoint */
        const int64_t before = (int64_t)steps_made();
        const pid_t pid = start(resume, out, metrics, interval * BATCH, 1 + draw(3));
        const uint32_t delay = draw(10) ? longest / 50 + draw(longest / 3) : draw(longest * 2);
        usleep(delay);
        kill(pid, SIGKILL);
        const int status = wait_for(pid);
        if (WIFSIGNALED(status)) {
            kills++;
            const int64_t made = (int64_t)steps_made(), saved = steps_saved(ctx);
            char temporary[200];
            snprintf(temporary, sizeof temporary, "%s/.checkpoint.safetensors.tmp", out);
            in_saves += access(temporary, F_OK) == 0;
            /* The metrics of the life before are still there if it died while starting. */
            const int64_t lost = made == before ? 0 : made - saved;
            if (saved < from || lost > (int64_t)interval) {
                printf("# killed after %u us: %lld steps made, %lld saved (%lld before), interval %u\n", delay, (long long)made, (long long)saved,
                       (long long)from, interval);
                failures++;
            } else if (lost > (int64_t)lost_most) {
                lost_most = (uint64_t)lost;
            }
            resume = true;
            continue;
        }
        if (WEXITSTATUS(status) != 0 || !same_results()) {
            size_t size;
            char *text = small_read(errors, &size);
            printf("# exit status %d, %s: %s\n", WEXITSTATUS(status), resume ? "resumed" : "begun", text ? text : "");
            free(text);
            failures++;
        }
        finished++;
        resume = false;
        small_remove(out);
        unlink(metrics);
    }
    /* The last one goes on to its end. */
    if (failures == 0 && resume) {
        if (steps_saved(ctx) == 0) resume = false;
        if (wait_for(start(resume, out, metrics, 64 * BATCH, 2)) != 0 || !same_results()) failures++;
        finished++;
    }
    printf("# %llu kills, %llu of them inside a save; %llu runs ended, all the same; at most %llu steps lost\n", (unsigned long long)kills,
           (unsigned long long)in_saves, (unsigned long long)finished, (unsigned long long)lost_most);
    printf("%sok 2 - killed %llu times\n1..2\n", failures ? "not " : "", (unsigned long long)kills);
    atmsae_context_destroy(ctx);
    small_remove(folder);
    return failures != 0 || finished == 0;
}
