/* SPDX-License-Identifier: MIT
 *
 * Instead of pool.c where there are no threads (inference_only): a context computes on the caller's.
 */
#include "context.h"

ams_pool *ams_pool_create(atmsae_context *ctx, unsigned *threads)
{
    (void)ctx;
    *threads = 1;
    return NULL;
}

void ams_pool_destroy(atmsae_context *ctx, ams_pool *pool) { (void)ctx, (void)pool; }

/* Not reached: ams_parallel asks no pool where there is none. */
void ams_pool_run(ams_pool *pool, uint64_t jobs, ams_job *job, void *arg)
{
    (void)pool;
    for (uint64_t i = 0; i < jobs; i++) job(arg, i, 0);
}
