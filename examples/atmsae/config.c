/* SPDX-License-Identifier: MIT
 *
 * --config: a JSON object of options. Values become texts, which are then read like those of the
 * command line, so that ranges, units and messages are the same.
 */
#include "command.h"
#include "files.h"
#include "json.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>

#define MOST_DEPTH 32

typedef struct reader {
    const char *path, *start, *at;
    char *out; /* where the next text goes: texts are never longer than what they are read from */
} reader;

static bool broken(const reader *r, const char *expected)
{
    int line = 1;
    for (const char *c = r->start; c < r->at; c++) line += *c == '\n';
    program_error("%s: line %d: expected %s", r->path, line, expected);
    return false;
}

static char next(reader *r)
{
    r->at += strspn(r->at, " \t\r\n");
    return *r->at;
}

static bool comma(reader *r)
{
    if (next(r) != ',') return false;
    r->at++;
    return true;
}

/* A string, a number, true, false or null; where it was put in *text. */
static bool scalar(reader *r, const char **text, bool *quoted)
{
    *text = r->out;
    *quoted = next(r) == '"';
    if (*quoted) {
        r->at++;
        while (*r->at != '"') {
            if ((unsigned char)*r->at < 0x20) return broken(r, "the end of a string");
            if (*r->at != '\\') *r->out++ = *r->at++;
            else if (r->at++, !json_unescape(&r->at, &r->out)) return broken(r, "an escape of JSON");
        }
        r->at++;
    } else {
        const size_t length = strspn(r->at, "+-.0123456789abcdefghijklmnopqrstuvwxyzE");
        if (length == 0) return broken(r, "a value");
        memcpy(r->out, r->at, length);
        r->at += length;
        r->out += length;
    }
    *r->out++ = 0;
    return true;
}

// NOLINTNEXTLINE(misc-no-recursion): no deeper than MOST_DEPTH
static bool skip(reader *r, int depth)
{
    const char open = next(r), *text;
    bool quoted;
    if (open != '{' && open != '[') return scalar(r, &text, &quoted);
    const char close = open == '{' ? '}' : ']';
    if (depth == MOST_DEPTH) return broken(r, "less depth");
    r->at++;
    if (next(r) != close) {
        do {
            if (open == '{') {
                if (!scalar(r, &text, &quoted)) return false;
                if (next(r) != ':') return broken(r, "a colon");
                r->at++;
            }
            if (!skip(r, depth + 1)) return false;
        } while (comma(r));
    }
    if (*r->at != close) return broken(r, open == '{' ? "a comma or }" : "a comma or ]");
    r->at++;
    return true;
}

static bool take(const reader *r, const option *o, const char *text, bool quoted, setting *s)
{
    const bool words = o->kind == OPTION_TEXT || o->kind == OPTION_TEXTS || o->kind == OPTION_CHOICE;
    if (!quoted && strcmp(text, "null") == 0) return true; /* as if it were not there */
    if (o->kind == OPTION_FLAG) {
        if (quoted || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)) {
            program_error("%s: %s: expected true or false", r->path, o->name);
            return false;
        }
        s->given = text[0] == 't';
        return true;
    }
    if (words && !quoted) {
        program_error("%s: %s: expected a string", r->path, o->name);
        return false;
    }
    char where[300];
    snprintf(where, sizeof where, "%.290s: ", r->path);
    return option_take(o, text, where, s);
}

/* [..] of an option that takes several: texts one by one, numbers as one list. */
static bool list(reader *r, const option *o, setting *s)
{
    const bool texts = o->kind == OPTION_TEXTS;
    const char *first = NULL;
    if (!texts && o->kind != OPTION_COUNTS) {
        program_error("%s: %s: expected one value, not a list", r->path, o->name);
        return false;
    }
    r->at++;
    if (next(r) == ']') return broken(r, "a value");
    do {
        const char *text;
        bool quoted;
        if (!scalar(r, &text, &quoted) || (texts && !take(r, o, text, quoted, s))) return false;
        if (!first) first = text;
        if (!texts && next(r) == ',') r->out[-1] = ',';
    } while (comma(r));
    if (*r->at != ']') return broken(r, "a comma or ]");
    r->at++;
    return texts || take(r, o, first, false, s);
}

static bool member(reader *r, const option *options, size_t n, setting *settings, bool *seen)
{
    const char *key, *text;
    bool quoted;
    if (next(r) != '"') return broken(r, "the name of an option");
    if (!scalar(r, &key, &quoted)) return false;
    if (next(r) != ':') return broken(r, "a colon");
    r->at++;
    if (strcmp(key, "facts") == 0) return skip(r, 0);
    const option *o = option_find(options, n, key);
    if (!o) {
        char where[300];
        snprintf(where, sizeof where, "%.290s: ", r->path);
        return option_unknown(options, n, key, where);
    }
    if (seen[o - options]) {
        program_error("%s: %s is there twice", r->path, key);
        return false;
    }
    seen[o - options] = true;
    if (settings[o - options].given) return skip(r, 0);
    setting *s = &settings[o - options];
    if (next(r) == '[' ? !list(r, o, s) : !scalar(r, &text, &quoted) || !take(r, o, text, quoted, s)) return false;
    s->from_file = s->given;
    return true;
}

static bool object(reader *r, const option *options, size_t n, setting *settings, bool *seen)
{
    if (next(r) != '{') return broken(r, "a JSON object, {\"option\": value, ..}");
    r->at++;
    if (next(r) != '}') {
        do {
            if (!member(r, options, n, settings, seen)) return false;
        } while (comma(r));
    }
    if (*r->at != '}') return broken(r, "a comma or }");
    r->at++;
    return next(r) == 0 || broken(r, "the end of the file");
}

bool options_load(const option *options, size_t n, const char *path, setting *settings)
{
    size_t size;
    char *text = file_read(path, MOST_JSON_BYTES, &size);
    if (!text) return false;
    bool *seen = program_alloc(n, sizeof *seen);
    reader r = {.path = path, .start = text, .at = text, .out = program_alloc(size + 1, 1)};
    free(settings[n].owned);
    settings[n].owned = r.out;
    const bool good = object(&r, options, n, settings, seen);
    free(seen);
    free(text);
    return good;
}
