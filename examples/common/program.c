/* SPDX-License-Identifier: MIT
 *
 * See program.h.
 */
#include "program.h"
#include "progress.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

void program_choose_blis_kernels(void)
{
#if defined(__x86_64__)
    /* BLIS decides by CPU model numbers and takes its AVX2 kernels ("haswell") on virtual machines
     * that do have AVX-512: 40 % of the speed lost. It reads the variable at its first call and
     * aborts on a kernel set the CPU cannot run, so this names the one case that is known to be
     * right: id 0 is skx, which needs exactly the features asked for here. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        setenv("BLIS_ARCH_TYPE", "0", 0);
#endif
}

/* No memory is taken: it may be what is missing. What is longer is cut. */
__attribute__((format(printf, 2, 0))) static void print_line(const char *prefix, const char *format, va_list arguments)
{
    char text[5000], shown[2 * sizeof text];
    if (vsnprintf(text, sizeof text, format, arguments) < 0) text[0] = 0;
    (void)text_escape(text, shown, sizeof shown);
    progress_break();
    fprintf(stderr, "%s%s\n", prefix, shown);
}

void program_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_line("atmsae: ", format, arguments);
    va_end(arguments);
}

void program_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
}

void *program_alloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory) {
        program_error("out of memory (%zu x %zu bytes)", count, size);
        exit(1);
    }
    return memory;
}

FILE *program_text_open(char **text, size_t *size)
{
    FILE *file = open_memstream(text, size);
    if (!file) {
        program_error("a text in memory: %s", strerror(errno));
        exit(1);
    }
    return file;
}

char *program_text_close(FILE *file, char **text)
{
    const int failed = ferror(file);
    if (fclose(file) != 0 || failed || !*text) {
        program_error("out of memory for a text");
        exit(1);
    }
    return *text;
}

double program_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void program_duration(double seconds, char *text, size_t size)
{
    const uint64_t s = seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, size, "%u:%02u:%02u", (unsigned)(s / 3600), (unsigned)(s / 60 % 60), (unsigned)(s % 60));
    else
        snprintf(text, size, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
}

bool program_make_folder(const char *path)
{
    if (!*path) {
        errno = ENOENT;
        return false;
    }
    const size_t bytes = strlen(path) + 1;
    char *copy = program_alloc(bytes, 1);
    memcpy(copy, path, bytes);
    bool made = true;
    for (char *end = copy + 1; made; end++) {
        const char saved = *end;
        if (saved != '/' && saved != 0) continue;
        *end = 0;
        made = mkdir(copy, 0777) == 0 || errno == EEXIST;
        *end = saved;
        if (saved == 0) break;
    }
    const int error = errno;
    free(copy);
    struct stat info;
    if (made && stat(path, &info) == 0 && !S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        return false;
    }
    errno = error;
    return made;
}

char *program_path(const char *folder, const char *name)
{
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = program_alloc(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

bool program_ends_with(const char *path, const char *ending)
{
    const size_t length = strlen(path), end = strlen(ending);
    return length > end && strcmp(path + length - end, ending) == 0;
}
