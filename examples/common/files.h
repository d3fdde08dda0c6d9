/* SPDX-License-Identifier: MIT
 *
 * Whole files: how the programs here read and write them.
 *
 * Writing: bytes go to a temporary file, .NAME.tmp in the folder of the file, which takes its place when it is
 * whole and on the disk. Until then what was there stays whole, whatever fails or is killed; a file that is replaced
 * leaves its permissions to the new one. A symbolic link stays and the file that it leads to is replaced; in a
 * folder like /tmp only links of one's own are followed. What is no regular file is not replaced, but pipes,
 * terminals and /dev/null are written to as they are; "-" and "/dev/stdout" are standard output.
 *
 *     file_writer out;
 *     if (!file_begin(&out, path, replace)) return false;
 *     fprintf(out.file, "..");                   errors stay in the FILE: a long loop looks at ferror
 *     return file_end(&out, good);
 */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct file_writer {
    FILE *file;
    const char *path;   /* as given; lent */
    char *target;       /* where that leads; NULL: the file is written to as it is */
    char *base, *temp;  /* names in the folder */
    int folder;
    unsigned mode;      /* of the file that is replaced; 0: none is */
    bool replace;
    struct file_writer *next; /* of those that have a temporary file, which goes if the program exits meanwhile */
} file_writer;

/* All of these return false after one message with the path and the reason. */

/* replace false: a file that is there already is refused, with a word on --force. */
bool file_begin(file_writer *self, const char *path, bool replace);
/* good: puts the file in its place; otherwise there is no file, and false is returned without a message. In any
 * case *self needs nothing more. */
bool file_end(file_writer *self, bool good);
/* Whether file_begin would do, as far as one can tell beforehand; nothing is changed. */
bool file_may_write(const char *path, bool replace);
/* Whether two paths lead to the same file, be it through links; also where neither is there yet. No message. */
bool file_same(const char *a, const char *b);
/* Whether what is written to the path is written within the folder, or is it: a path may lead out of it by way of links. No
 * message. */
bool file_within(const char *folder, const char *path);

/* A whole regular text file in new memory, with a 0 behind its *size bytes. NULL after a message, also for a file of
 * more than `most` bytes or with bytes of value 0. */
char *file_read(const char *path, size_t most, size_t *size);

#endif
