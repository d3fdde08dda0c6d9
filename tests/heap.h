/* SPDX-License-Identifier: MIT
 *
 * An allocator of a context's own: it counts what lives, and fails from some allocation on.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stdlib.h>

typedef struct heap {
    long live, left; /* left: allocations that still succeed; < 0: all */
} heap;

static inline void *heap_alloc(void *opaque, size_t align, size_t bytes)
{
    heap *h = opaque;
    void *memory = NULL;
    if (h->left == 0 || posix_memalign(&memory, align, bytes ? bytes : 1) != 0) return NULL;
    if (h->left > 0) h->left--;
    h->live++;
    return memory;
}

static inline void heap_free(void *opaque, void *memory)
{
    heap *h = opaque;
    if (memory) h->live--;
    free(memory);
}

#endif
