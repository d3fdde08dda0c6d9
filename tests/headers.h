/* SPDX-License-Identifier: MIT
 *
 * The functions that a public header declares, for tables that are held to it.
 */
#ifndef HEADERS_H
#define HEADERS_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls `count` with each function's name and what it gives, as written; returns the sum. header: 0 atmsae.h,
 * 1 eval.h. */
static inline int count_functions(int header, int (*count)(const char *name, const char *gives))
{
    static const char *const names[] = {"atmsae.h", "eval.h"};
    const char *tests = getenv("ATMSAE_TESTS");
    char path[512];
    snprintf(path, sizeof path, "%s/../include/atmsae/%s", tests ? tests : "tests", names[header]);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "cannot read %s", path);
    char *text = calloc(1, 200000);
    ck_assert_uint_gt(fread(text, 1, 199999, file), 1000);
    fclose(file);
    int functions = 0;
    static const char start[] = "\nATMSAE_API ";
    for (const char *at = text; (at = strstr(at, start)) != NULL;) {
        at += strlen(start);
        const char *end = strchr(at, '('), *begin = end;
        while (begin[-1] == '_' || (begin[-1] >= 'a' && begin[-1] <= 'z') || (begin[-1] >= '0' && begin[-1] <= '9'))
            begin--;
        char name[64], gives[128];
        snprintf(name, sizeof name, "%.*s", (int)(end - begin), begin);
        snprintf(gives, sizeof gives, "%.*s", (int)(begin - at), at);
        ck_assert_msg(strncmp(name, "atmsae_", 7) == 0, "\"%s\" is no function", name);
        functions += count(name, gives);
    }
    free(text);
    return functions;
}

#endif
