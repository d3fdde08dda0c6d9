/* SPDX-License-Identifier: MIT
 *
 * Allocations of the C library that were counted, and the one that fails: alloc_shim.c.
 */
#ifndef ALLOC_SHIM_H
#define ALLOC_SHIM_H

/* The sanitizers bring their own malloc. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALLOC_SHIM 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ALLOC_SHIM 0
#endif
#endif
#ifndef ALLOC_SHIM
#define ALLOC_SHIM 1
#endif

extern _Atomic long alloc_shim_calls;   /* malloc, calloc, realloc and the aligned ones, since the start */
extern _Atomic long alloc_shim_fail_at; /* the call that fails, counted as above; 0: none */
extern _Atomic int alloc_shim_go_on;    /* 1: so do all after it */
/* 1: memalign never fails. libgomp alone still calls it, for 1.5 KB in each product of BLIS built with
 * OpenMP, and ends the process when there is none. */
extern _Atomic int alloc_shim_spare_libgomp;

#endif
