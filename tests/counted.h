/* SPDX-License-Identifier: MIT
 *
 * An allocator that counts what lives, fails where a test wants it to, and knows the largest request.
 */
#ifndef COUNTED_H
#define COUNTED_H

#include <atmsae/atmsae.h>

#include <stdbool.h>
#include <stdlib.h>

static long live, countdown; /* to the allocation that fails; 0: none does */
static size_t largest_request; /* until now */
static bool for_ever = true; /* and all after it */

static void *counted_alloc(void *opaque, size_t align, size_t bytes)
{
    (void)opaque;
    void *memory = NULL;
    if (bytes > largest_request) largest_request = bytes;
    if (countdown == 1 && for_ever) return NULL;
    if (countdown > 0 && --countdown == 0) return NULL;
    if (posix_memalign(&memory, align, bytes) != 0) return NULL;
    live++;
    return memory;
}

static void counted_free(void *opaque, void *memory)
{
    (void)opaque;
    live--;
    free(memory);
}

static const atmsae_allocator counted = {NULL, counted_alloc, counted_free};

#endif
