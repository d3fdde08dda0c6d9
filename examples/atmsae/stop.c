/* SPDX-License-Identifier: MIT
 *
 * See stop.h.
 */
#include "stop.h"
#include "command.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000 /* in milliseconds */

static const struct {
    int number;
    bool repeats; /* by itself or by a supervisor: more of them mean no more than the first */
} signals[] = {
    {SIGINT, false}, {SIGTERM, false}, {SIGHUP, true}, {SIGXCPU, true}, {SIGUSR1, true}, /* USR1: of batch systems, before the limit */
};
#define N_SIGNALS (sizeof signals / sizeof *signals)

static atomic_llong told; /* when the message was written, in milliseconds; 0: not yet */
static atomic_bool asked;

static long long now(void)
{
    struct timespec time = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return SECOND * (long long)time.tv_sec + time.tv_nsec / 1000000 + 1;
}

/* May run on any thread, and calls only what a handler may. */
static void on_signal(int number)
{
    static const char message[] = "\natmsae: stopping after this step, to save a checkpoint; Ctrl-C or SIGTERM once more, after a second, exits "
                                  "without it\n";
    const int error = errno;
    if (!atomic_exchange(&asked, true)) {
        const ssize_t written = write(STDERR_FILENO, message, sizeof message - 1);
        (void)written; /* the terminal may be gone */
        atomic_store(&told, now());
    } else {
        const long long since = atomic_load(&told);
        for (size_t i = 0; i < N_SIGNALS; i++)
            if (signals[i].number == number && !signals[i].repeats && since != 0 && now() - since >= SECOND) _exit(EXIT_INTERRUPTED);
    }
    errno = error;
}

void stop_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < N_SIGNALS; i++)
        if (sigaction(signals[i].number, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(signals[i].number, &action, NULL);
}

bool stop_asked(void)
{
    return atomic_load(&asked);
}
