/* SPDX-License-Identifier: MIT
 *
 * Worker threads. Jobs are handed out by a counter; the caller works too. Signals are blocked in
 * the workers, so that the program's handlers run in the program's threads.
 */
#include "context.h"

#include <signal.h>

struct ams_pool {
    pthread_mutex_t call;   /* one parallel region at a time */
    pthread_mutex_t lock;   /* protects what follows */
    pthread_cond_t start, done;
    uint64_t generation;
    unsigned running;
    bool quit;
    ams_job *job;
    void *arg;
    uint64_t jobs;
    _Atomic uint64_t next;
    atomic_uint ticket;
    unsigned workers;
    pthread_t threads[];
};

static void work(ams_pool *pool, unsigned worker)
{
    for (;;) {
        uint64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= pool->jobs) return;
        pool->job(pool->arg, i, worker);
    }
}

static void *worker_main(void *arg)
{
    ams_pool *pool = arg;
    fenv_t inherited;
    ams_float_begin(&inherited); /* a thread starts with its creator's */
    unsigned worker = atomic_fetch_add(&pool->ticket, 1) + 1;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->generation == seen && !pool->quit)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->quit) break;
        seen = pool->generation;
        pthread_mutex_unlock(&pool->lock);
        work(pool, worker);
        pthread_mutex_lock(&pool->lock);
        if (--pool->running == 0) pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

ams_pool *ams_pool_create(atmsae_context *ctx, unsigned *threads)
{
    enum { MOST = 1024 };
    const unsigned asked = *threads ? *threads : ams_cpus(), wanted = (unsigned)ams_min(asked, MOST) - 1;
    *threads = 1;
    if (wanted == 0) return NULL;
    ams_pool *pool = ams_calloc(ctx, 1, sizeof *pool + wanted * sizeof(pthread_t));
    if (!pool) return NULL;
    pthread_mutex_init(&pool->call, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);

    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool->workers < wanted &&
           pthread_create(&pool->threads[pool->workers], NULL, worker_main, pool) == 0)
        pool->workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    *threads = pool->workers + 1;
    return pool;
}

void ams_pool_destroy(atmsae_context *ctx, ams_pool *pool)
{
    if (!pool) return;
    if (ams_forked(ctx)) { /* no threads to join, and the locks' state is unknown */
        ams_free(ctx, pool);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->start);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->call);
    ams_free(ctx, pool);
}

void ams_pool_run(ams_pool *pool, uint64_t jobs, ams_job *job, void *arg)
{
    pthread_mutex_lock(&pool->call);
    pthread_mutex_lock(&pool->lock);
    pool->job = job;
    pool->arg = arg;
    pool->jobs = jobs;
    atomic_store(&pool->next, 0);
    pool->running = pool->workers;
    pool->generation++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);

    work(pool, 0);

    pthread_mutex_lock(&pool->lock);
    while (pool->running > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->call);
}
