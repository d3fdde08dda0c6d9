/* SPDX-License-Identifier: MIT
 *
 * The context's inside, for lib/base only.
 */
#ifndef AMS_CONTEXT_H
#define AMS_CONTEXT_H

#include "base.h"
#include <pthread.h>
#include <sys/types.h>

typedef struct ams_pool ams_pool;

struct atmsae_context {
    atomic_size_t references;
    pid_t pid;       /* of the process that made it */
    atomic_int stop; /* atmsae_request_stop was called */
    atmsae_allocator allocator;
    void (*log)(void *opaque, int32_t level, const char *message);
    void *log_opaque;
    int32_t log_level;
    const struct ams_io *io;
    unsigned threads;
    const struct ams_product *product; /* that proposes latents; NULL: BLIS's */
    ams_pool *pool; /* NULL: one thread */
    double *parallel_seconds; /* NULL: not measured */
    pthread_mutex_t text_lock;
    char error[1024];
    char cpu[160];
};

/* Starts up to threads - 1 workers (0: one for each CPU that the process may use, less one); *threads becomes the
 * number that will compute. */
ams_pool *ams_pool_create(atmsae_context *ctx, unsigned *threads);
/* cpus.c: CPUs that this process may use, at least 1; and the part of it that a cgroup decides, UINT_MAX where none
 * does: membership is /proc/self/cgroup, mount /sys/fs/cgroup. */
unsigned ams_cpus(void);
unsigned ams_cgroup_cpus(const char *membership, const char *mount);
void ams_pool_destroy(atmsae_context *ctx, ams_pool *pool);
void ams_pool_run(ams_pool *pool, uint64_t jobs, ams_job *job, void *arg);

#endif
