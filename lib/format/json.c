/* SPDX-License-Identifier: MIT
 *
 * The JSON reader and writer of json.h.
 */
#include "format/json.h"
#include "format/format.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { VALUE, VALUE_OR_END, KEY, KEY_OR_END, COMMA_OR_END, DONE }; /* what may come next */

void ams_json_open(ams_json *json, atmsae_context *ctx, char *text, size_t length, unsigned max_depth)
{
    *json = (ams_json){.ctx = ctx, .text = text, .length = length, .max_depth = max_depth, .state = VALUE};
}

void ams_json_close(ams_json *json)
{
    ams_free(json->ctx, json->keys);
    json->keys = NULL;
}

atmsae_status ams_json_fail(ams_json *json, atmsae_status status, size_t at, const char *format, ...)
{
    char text[512]; /* only integers and strings are formatted here, so the locale does not matter */
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return ams_fail(json->ctx, status, "byte %zu: %s", at, text);
}

/* ---- strings ------------------------------------------------------------------------------------ */

/* Length of the UTF-8 sequence at p, 0 if it is none (RFC 3629: shortest form, no surrogates). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0;
    if (p[0] == 0xed && p[1] >= 0xa0) return 0;
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] >= 0x90) return 0;
    return n;
}

static size_t utf8_put(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[n] | code);
    return n;
}

/* The 4 hex digits at text[at]. */
static bool hex4(const ams_json *json, size_t at, unsigned *code)
{
    *code = 0;
    for (size_t i = at; i < at + 4; i++) { /* the NUL behind the text stops this */
        char c = json->text[i];
        int digit = c >= '0' && c <= '9' ? c - '0'
                  : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return false;
        *code = *code * 16 + (unsigned)digit;
    }
    return true;
}

/* An escape, json->at behind the backslash. Writes at *out, which is before it. */
static atmsae_status unescape(ams_json *json, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = json->text[json->at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        *(*out)++ = to[simple - from];
        json->at++;
        return ATMSAE_OK;
    }
    size_t at = json->at - 1;
    unsigned code, low;
    if (c != 'u' || !hex4(json, json->at + 1, &code)) return ams_json_fail(json, ATMSAE_E_FORMAT, at, "bad escape");
    json->at += 5;
    if (code >= 0xd800 && code < 0xe000) {
        if (code >= 0xdc00 || json->text[json->at] != '\\' || json->text[json->at + 1] != 'u' ||
            !hex4(json, json->at + 2, &low) || low < 0xdc00 || low >= 0xe000)
            return ams_json_fail(json, ATMSAE_E_FORMAT, at, "lone surrogate");
        json->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *out += utf8_put(*out, code);
    return ATMSAE_OK;
}

static atmsae_status string(ams_json *json, ams_json_token *token)
{
    char *out = json->text + ++json->at;
    token->text = out;
    for (;;) {
        unsigned char c = (unsigned char)json->text[json->at];
        if (c == '"') break;
        if (c == '\\') {
            json->at++;
            AMS_TRY(unescape(json, &out));
            continue;
        }
        if (json->at == json->length) return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "string without an end");
        if (c < 0x20) return ams_json_fail(json, ATMSAE_E_FORMAT, json->at, "control character 0x%02x in a string", c);
        size_t n = utf8_length((unsigned char *)json->text + json->at, json->length - json->at);
        if (n == 0) return ams_json_fail(json, ATMSAE_E_FORMAT, json->at, "invalid UTF-8");
        for (; n > 0; n--)
            *out++ = json->text[json->at++];
    }
    json->at++;
    *out = '\0';
    token->length = (size_t)(out - token->text);
    return ATMSAE_OK;
}

/* ---- numbers ------------------------------------------------------------------------------------ */

static size_t digits(const char *p)
{
    size_t n = 0;
    while (p[n] >= '0' && p[n] <= '9')
        n++;
    return n;
}

static atmsae_status number(ams_json *json, ams_json_token *token)
{
    const char *p = token->text = json->text + json->at;
    if (*p == '-') p++;
    size_t n = digits(p);
    bool good = n > 0 && (n == 1 || *p != '0');
    p += n;
    if (good && *p == '.') {
        n = digits(++p);
        good = n > 0;
        p += n;
    }
    if (good && (*p == 'e' || *p == 'E')) {
        p++;
        if (*p == '+' || *p == '-') p++;
        n = digits(p);
        good = n > 0;
        p += n;
    }
    if (!good || (*p && !strchr(",]} \t\r\n", *p)))
        return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "bad number");
    token->length = (size_t)(p - token->text);
    json->at += token->length;
    /* Checked here and not where the value is used, so that no ignored key can hide one. Without an
     * exponent it takes 309 digits to overflow. */
    bool may_overflow = token->length >= 309 || memchr(token->text, 'e', token->length) ||
                        memchr(token->text, 'E', token->length);
    if (may_overflow && !isfinite(ams_strtod(token->text, NULL)))
        return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "number too large for a double");
    return ATMSAE_OK;
}

/* ---- keys --------------------------------------------------------------------------------------- */

static int compare_keys(const void *pa, const void *pb)
{
    const ams_json_key *a = pa, *b = pb;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return memcmp(a->text, b->text, a->length);
}

static atmsae_status add_key(ams_json *json, const ams_json_token *token)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a: the sort below is O(n log n) even if all collide */
    for (size_t i = 0; i < token->length; i++)
        hash = (hash ^ (unsigned char)token->text[i]) * 0x100000001b3u;
    AMS_TRY(ams_grow(json->ctx, &json->keys, &json->capacity, json->n_keys + 1, json->n_keys, sizeof *json->keys));
    json->keys[json->n_keys++] = (ams_json_key){hash, token->text, token->length};
    return ATMSAE_OK;
}

/* At the end of an object: its keys are the last ones on the list. */
static atmsae_status take_keys(ams_json *json)
{
    uint64_t first = json->first_key[json->depth - 1];
    uint64_t n = json->n_keys - first;
    json->n_keys = first;
    if (n < 2) return ATMSAE_OK;
    ams_json_key *keys = json->keys + first;
    ams_sort(keys, n, sizeof *keys, compare_keys);
    for (uint64_t i = 1; i < n; i++)
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
            const char *later = keys[i].text > keys[i - 1].text ? keys[i].text : keys[i - 1].text;
            return ams_json_fail(json, ATMSAE_E_FORMAT, (size_t)(later - json->text) - 1, "duplicate key \"%.200s\"",
                                 later);
        }
    return ATMSAE_OK;
}

/* ---- tokens ------------------------------------------------------------------------------------- */

static atmsae_status open_container(ams_json *json, ams_json_token *token, bool array)
{
    if (json->depth == json->max_depth)
        return ams_json_fail(json, ATMSAE_E_LIMIT, token->at, "nested deeper than %u", json->max_depth);
    uint64_t bit = (uint64_t)1 << json->depth;
    json->arrays = array ? json->arrays | bit : json->arrays & ~bit;
    json->first_key[json->depth++] = json->n_keys;
    token->kind = array ? AMS_JSON_ARRAY : AMS_JSON_OBJECT;
    json->state = array ? VALUE_OR_END : KEY_OR_END;
    json->at++;
    return ATMSAE_OK;
}

static bool in_array(const ams_json *json) { return json->depth && (json->arrays >> (json->depth - 1) & 1); }

static atmsae_status close_container(ams_json *json, ams_json_token *token)
{
    bool array = in_array(json);
    if (!array) AMS_TRY(take_keys(json));
    json->depth--;
    json->at++;
    token->kind = array ? AMS_JSON_ARRAY_END : AMS_JSON_OBJECT_END;
    json->state = json->depth ? COMMA_OR_END : DONE;
    return ATMSAE_OK;
}

static atmsae_status key(ams_json *json, ams_json_token *token)
{
    if (json->text[json->at] != '"') return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "expected a key in quotes");
    token->kind = AMS_JSON_KEY;
    AMS_TRY(string(json, token));
    AMS_TRY(add_key(json, token));
    json->at += strspn(json->text + json->at, " \t\r\n");
    if (json->text[json->at] != ':') return ams_json_fail(json, ATMSAE_E_FORMAT, json->at, "expected ':'");
    json->at++;
    json->state = VALUE;
    return ATMSAE_OK;
}

static atmsae_status value(ams_json *json, ams_json_token *token)
{
    static const struct {
        const char *text;
        ams_json_kind kind;
    } words[] = {{"true", AMS_JSON_TRUE}, {"false", AMS_JSON_FALSE}, {"null", AMS_JSON_NULL}, {"NaN", AMS_JSON_NONFINITE},
                 {"Infinity", AMS_JSON_NONFINITE}, {"-Infinity", AMS_JSON_NONFINITE}};
    enum { WORDS = sizeof words / sizeof *words, OF_JSON = 3 };
    char c = json->text[json->at];
    if (c == '{' || c == '[') return open_container(json, token, c == '[');
    json->state = json->depth ? COMMA_OR_END : DONE;
    if (c == '"') {
        token->kind = AMS_JSON_STRING;
        return string(json, token);
    }
    for (size_t i = 0; i < (json->python ? WORDS : OF_JSON); i++) {
        size_t n = strlen(words[i].text);
        if (strncmp(json->text + json->at, words[i].text, n) != 0) continue;
        token->kind = words[i].kind;
        json->at += n;
        return ATMSAE_OK;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        token->kind = AMS_JSON_NUMBER;
        return number(json, token);
    }
    return ams_json_fail(json, ATMSAE_E_FORMAT, token->at,
                         json->at == json->length ? "the text ends early" : "expected a value");
}

// NOLINTNEXTLINE(misc-no-recursion): after a comma, once
atmsae_status ams_json_next(ams_json *json, ams_json_token *token)
{
    json->at += strspn(json->text + json->at, " \t\r\n");
    *token = (ams_json_token){.at = json->at, .text = ""};
    char c = json->text[json->at];
    char end = in_array(json) ? ']' : '}';
    switch (json->state) {
    case DONE:
        if (json->at != json->length)
            return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "something follows the value");
        token->kind = AMS_JSON_END;
        return ATMSAE_OK;
    case COMMA_OR_END:
        if (c == end) return close_container(json, token);
        if (c != ',') return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "expected ',' or '%c'", end);
        json->at++;
        json->state = in_array(json) ? VALUE : KEY;
        return ams_json_next(json, token); /* once: neither state comes back here */
    case KEY_OR_END:
        if (c == end) return close_container(json, token);
        return key(json, token);
    case KEY:
        return key(json, token);
    case VALUE_OR_END:
        if (c == end) return close_container(json, token);
        return value(json, token);
    default:
        return value(json, token);
    }
}

atmsae_status ams_json_expect(ams_json *json, ams_json_kind kind, const char *what, ams_json_token *token)
{
    AMS_TRY(ams_json_next(json, token));
    if (token->kind == kind) return ATMSAE_OK;
    return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "expected %s", what);
}

atmsae_status ams_json_skip(ams_json *json, const ams_json_token *token)
{
    if (token->kind != AMS_JSON_OBJECT && token->kind != AMS_JSON_ARRAY) return ATMSAE_OK;
    ams_json_token inner;
    for (unsigned outside = json->depth - 1; json->depth > outside;)
        AMS_TRY(ams_json_next(json, &inner));
    return ATMSAE_OK;
}

/* ---- values ------------------------------------------------------------------------------------- */

atmsae_status ams_json_u64(ams_json *json, const ams_json_token *token, const char *what, uint64_t *value_out)
{
    uint64_t v = 0;
    bool good = token->kind == AMS_JSON_NUMBER;
    for (size_t i = 0; good && i < token->length; i++) {
        char c = token->text[i];
        good = c >= '0' && c <= '9' && ams_mul(v, 10, &v) && !__builtin_add_overflow(v, (uint64_t)(c - '0'), &v);
    }
    if (!good)
        return ams_json_fail(json, ATMSAE_E_FORMAT, token->at,
                             "%s must be a whole number from 0 to 2^64 - 1, in digits",
                             what);
    *value_out = v;
    return ATMSAE_OK;
}

atmsae_status ams_json_double(ams_json *json, const ams_json_token *token, const char *what, double *value_out)
{
    if (token->kind != AMS_JSON_NUMBER)
        return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "%s must be a number", what);
    *value_out = ams_strtod(token->text, NULL);
    return ATMSAE_OK;
}

atmsae_status ams_json_bool(ams_json *json, const ams_json_token *token, const char *what, bool *value_out)
{
    if (token->kind != AMS_JSON_TRUE && token->kind != AMS_JSON_FALSE)
        return ams_json_fail(json, ATMSAE_E_FORMAT, token->at, "%s must be true or false", what);
    *value_out = token->kind == AMS_JSON_TRUE;
    return ATMSAE_OK;
}

bool ams_json_is(const ams_json_token *token, const char *text)
{
    return token->length == strlen(text) && memcmp(token->text, text, token->length) == 0;
}

/* ---- writing ------------------------------------------------------------------------------------ */

static void add_bytes(ams_text *text, const char *bytes, size_t n)
{
    if (text->status < 0) return;
    text->status = ams_grow(text->ctx, &text->data, &text->capacity, text->length + n + 1, text->length, 1);
    if (text->status < 0) return;
    memcpy(text->data + text->length, bytes, n);
    text->length += n;
    text->data[text->length] = '\0';
}

void ams_text_add(ams_text *text, const char *plain) { add_bytes(text, plain, strlen(plain)); }

void ams_text_u64(ams_text *text, uint64_t value_in)
{
    char digits_out[24];
    ams_format(digits_out, sizeof digits_out, "%llu", (unsigned long long)value_in);
    ams_text_add(text, digits_out);
}

void ams_text_string(ams_text *text, const char *string_in)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    add_bytes(text, "\"", 1);
    for (size_t left = strlen(string_in), n; left > 0; left -= n, string_in += n) {
        n = utf8_length((const unsigned char *)string_in, left);
        if (n == 0) {
            text->status = ams_fail(text->ctx, ATMSAE_E_ARG, "\"%.200s\" is not valid UTF-8", string_in);
            return;
        }
        const char *simple = strchr(from, *string_in);
        char escape[8];
        if (simple) {
            ams_format(escape, sizeof escape, "\\%c", to[simple - from]);
            ams_text_add(text, escape);
        } else if ((unsigned char)*string_in < 0x20) {
            ams_format(escape, sizeof escape, "\\u%04x", (unsigned char)*string_in);
            ams_text_add(text, escape);
        } else {
            add_bytes(text, string_in, n);
        }
    }
    add_bytes(text, "\"", 1);
}
