/* SPDX-License-Identifier: MIT
 *
 * A strict JSON reader (RFC 8259) that hands out one token at a time, and a small writer.
 *
 * Stricter than most: invalid UTF-8, lone surrogates, duplicate keys, numbers too large for a double
 * and anything after the value are errors. Errors name the byte. Strings are unescaped in place, so
 * the text is the caller's to keep while tokens are in use; the only memory taken is a list of the
 * keys of open objects.
 */
#ifndef AMS_JSON_H
#define AMS_JSON_H

#include "base/base.h"

typedef enum ams_json_kind {
    AMS_JSON_OBJECT,
    AMS_JSON_OBJECT_END,
    AMS_JSON_ARRAY,
    AMS_JSON_ARRAY_END,
    AMS_JSON_KEY,
    AMS_JSON_STRING,
    AMS_JSON_NUMBER,
    AMS_JSON_TRUE,
    AMS_JSON_FALSE,
    AMS_JSON_NULL,
    AMS_JSON_NONFINITE, /* NaN, Infinity, -Infinity: with `python` only; no value is read from it */
    AMS_JSON_END /* after the value; only white space followed */
} ams_json_kind;

typedef struct ams_json_token {
    ams_json_kind kind;
    const char *text; /* KEY, STRING: UTF-8 and a NUL behind `length` bytes; NUMBER: as written */
    size_t length;
    size_t at;        /* byte in the text */
} ams_json_token;

enum { AMS_JSON_MAX_DEPTH = 64 };

typedef struct ams_json_key {
    uint64_t hash;
    const char *text;
    size_t length;
} ams_json_key;

typedef struct ams_json {
    atmsae_context *ctx;
    char *text;
    size_t length, at;
    unsigned depth, max_depth;
    int state;
    bool python; /* set after open: text of Python's json module, which writes NaN and infinities */
    uint64_t arrays; /* bit d: the container at depth d is an array */
    ams_json_key *keys;
    uint64_t n_keys, capacity;
    uint64_t first_key[AMS_JSON_MAX_DEPTH]; /* of the object at each depth */
} ams_json;

/* text[length] must be NUL. max_depth: containers inside each other, <= AMS_JSON_MAX_DEPTH. */
void ams_json_open(ams_json *json, atmsae_context *ctx, char *text, size_t length, unsigned max_depth);
void ams_json_close(ams_json *json);

/* E_FORMAT, or E_LIMIT beyond max_depth. */
atmsae_status ams_json_next(ams_json *json, ams_json_token *token);
/* The next token, which must be of this kind; `what` says what it is for. */
atmsae_status ams_json_expect(ams_json *json, ams_json_kind kind, const char *what, ams_json_token *token);
/* Passes over the rest of the value that began with `token`. */
atmsae_status ams_json_skip(ams_json *json, const ams_json_token *token);

/* Values of a token; E_FORMAT, naming `what`, if it is none. A u64 is digits only: no sign, fraction
 * or exponent, and never passes through a double. */
atmsae_status ams_json_u64(ams_json *json, const ams_json_token *token, const char *what, uint64_t *value);
atmsae_status ams_json_double(ams_json *json, const ams_json_token *token, const char *what, double *value);
atmsae_status ams_json_bool(ams_json *json, const ams_json_token *token, const char *what, bool *value);
bool ams_json_is(const ams_json_token *token, const char *text);
/* Fails with "byte N: " before the message. */
__attribute__((format(printf, 4, 5))) atmsae_status
ams_json_fail(ams_json *json, atmsae_status status, size_t at, const char *format, ...);

/* ---- writing: text that grows; the first failure stays in `status` ------------------------------ */

typedef struct ams_text {
    atmsae_context *ctx;
    char *data;
    uint64_t length, capacity;
    atmsae_status status;
} ams_text;
void ams_text_add(ams_text *text, const char *plain);
void ams_text_u64(ams_text *text, uint64_t value);
/* In quotes, escaped. E_ARG if it is not UTF-8. */
void ams_text_string(ams_text *text, const char *string);

#endif
