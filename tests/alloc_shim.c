/* SPDX-License-Identifier: MIT
 *
 * Stands in for the C library's allocation functions, to count calls and let chosen ones fail. Two
 * uses: linked into a test program, which sets the variables below; or preloaded into a command:
 *
 *   ALLOC_SHIM_FAIL=n   the n-th allocation fails, "n+": that one and all after it
 *   ALLOC_SHIM_LOG=path lines appended there: "failed N LIBRARY" where an allocation fails (one line
 *                       while the library that wanted it is the same), "allocations N" at the end
 *
 * glibc exports its own functions under __libc_ names too, which is what we forward to: dlsym would
 * itself allocate.
 */
#include "alloc_shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void __libc_free(void *memory);

_Atomic long alloc_shim_calls, alloc_shim_fail_at;
_Atomic int alloc_shim_go_on, alloc_shim_spare_libgomp;
static const char *log_path;

static void append(const char *word, long number, const char *name)
{
    char text[512], digits[24];
    size_t n = 0, d = 0;
    int file = log_path ? open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (file < 0) return;
    while (*word)
        text[n++] = *word++;
    do
        digits[d++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (d > 0)
        text[n++] = digits[--d];
    text[n++] = ' ';
    while (*name && n < sizeof text - 1)
        text[n++] = *name++;
    text[n++] = '\n';
    if (write(file, text, n) < 0) n = 0;
    close(file);
}

#if ALLOC_SHIM
static int fails(const void *caller)
{
    long call = ++alloc_shim_calls, at = alloc_shim_fail_at;
    if (at == 0 || call < at || (call > at && !alloc_shim_go_on)) return 0;
    static const char *_Atomic last;
    Dl_info info;
    const char *name = log_path && dladdr(caller, &info) && info.dli_fname ? info.dli_fname : "unknown";
    if (name != last) append("failed ", call, name);
    last = name;
    errno = ENOMEM;
    return 1;
}
#define FAILS() fails(__builtin_return_address(0))

void *malloc(size_t bytes) { return FAILS() ? NULL : __libc_malloc(bytes); }
void *calloc(size_t count, size_t size) { return FAILS() ? NULL : __libc_calloc(count, size); }
void *realloc(void *memory, size_t bytes) { return FAILS() ? NULL : __libc_realloc(memory, bytes); }
void *memalign(size_t align, size_t bytes)
{
    return FAILS() && !alloc_shim_spare_libgomp ? NULL : __libc_memalign(align, bytes);
}
void *aligned_alloc(size_t align, size_t bytes) { return FAILS() ? NULL : __libc_memalign(align, bytes); }
int posix_memalign(void **out, size_t align, size_t bytes)
{
    void *memory = FAILS() ? NULL : __libc_memalign(align, bytes);
    if (!memory) return ENOMEM;
    *out = memory;
    return 0;
}
void free(void *memory) { __libc_free(memory); }
#endif

__attribute__((constructor)) static void start(void)
{
    log_path = getenv("ALLOC_SHIM_LOG");
    const char *text = getenv("ALLOC_SHIM_FAIL");
    if (!text) return;
    long at = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        at = at * 10 + (*text - '0');
    alloc_shim_go_on = *text == '+';
    alloc_shim_fail_at = at;
    alloc_shim_calls = 0;
}

__attribute__((destructor)) static void end(void) { append("allocations ", alloc_shim_calls, ""); }
