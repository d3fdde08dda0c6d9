/* SPDX-License-Identifier: MIT
 *
 * JSON reader. Checked besides: what is written again from the tokens reads as the same tokens, and
 * skip ends where reading token by token does.
 */
#include "fuzz.h"
#include "format/json.h"

#include <math.h>
#include <string.h>

enum { ROOM = 1 << 16 };

static void use_number(ams_json *json, const ams_json_token *token)
{
    uint64_t u;
    double d;
    FZ_CHECK(ams_json_double(json, token, "value", &d) == ATMSAE_OK && isfinite(d));
    FZ_CHECK(ams_json_u64(json, token, "value", &u) < 0 || fabs(d - (double)u) <= 0);
}

static void use_as_other(ams_json *json, const ams_json_token *token)
{
    uint64_t u;
    double d;
    bool b, boolean = token->kind == AMS_JSON_TRUE || token->kind == AMS_JSON_FALSE;
    FZ_CHECK((ams_json_bool(json, token, "value", &b) == ATMSAE_OK) == boolean);
    if (token->kind == AMS_JSON_NUMBER) return;
    FZ_CHECK(ams_json_u64(json, token, "value", &u) < 0);
    FZ_CHECK(ams_json_double(json, token, "value", &d) < 0);
}

static void write_token(ams_text *out, const ams_json_token *token, bool *comma)
{
    static const char *const plain[] = {
        [AMS_JSON_OBJECT] = "{", [AMS_JSON_OBJECT_END] = "}", [AMS_JSON_ARRAY] = "[", [AMS_JSON_ARRAY_END] = "]",
        [AMS_JSON_TRUE] = "true", [AMS_JSON_FALSE] = "false", [AMS_JSON_NULL] = "null", [AMS_JSON_END] = "",
    };
    bool ends = token->kind == AMS_JSON_OBJECT_END || token->kind == AMS_JSON_ARRAY_END || token->kind == AMS_JSON_END;
    if (*comma && !ends) ams_text_add(out, ",");
    *comma = token->kind != AMS_JSON_OBJECT && token->kind != AMS_JSON_ARRAY && token->kind != AMS_JSON_KEY;
    if (token->kind == AMS_JSON_KEY || token->kind == AMS_JSON_STRING) {
        FZ_CHECK(token->text[token->length] == '\0');
        ams_text_string(out, token->text);
        if (token->kind == AMS_JSON_KEY) ams_text_add(out, ":");
    } else if (token->kind == AMS_JSON_NUMBER) {
        for (size_t i = 0; i < token->length; i++)
            ams_text_add(out, (char[2]){token->text[i], '\0'});
    } else {
        ams_text_add(out, plain[token->kind]);
    }
}

/* Reads all tokens of text (changing it); writes them to *out unless NULL. *exact: no string holds a
 * NUL, which the writer cannot carry. */
static atmsae_status read_all(char *text, size_t size, ams_text *out, bool *exact, uint64_t *count)
{
    ams_json json;
    ams_json_token token;
    bool comma = false;
    atmsae_status status;
    ams_json_open(&json, fz_context(), text, size, AMS_JSON_MAX_DEPTH);
    for (*count = 0; (status = ams_json_next(&json, &token)) == ATMSAE_OK; ++*count) {
        if (token.kind == AMS_JSON_NUMBER) use_number(&json, &token);
        if (*count % 16 < 2) use_as_other(&json, &token); /* texts of errors take most of the time */
        FZ_CHECK(token.at <= size && token.text && (token.length == 0 || token.text + token.length <= text + size));
        if (strlen(token.text) < token.length) *exact = false;
        if (out) write_token(out, &token, &comma);
        if (token.kind == AMS_JSON_END) break;
    }
    FZ_CHECK(status == ATMSAE_OK || status == ATMSAE_E_FORMAT || status == ATMSAE_E_LIMIT);
    ams_json_close(&json);
    return status;
}

static atmsae_status skip_all(char *text, size_t size)
{
    ams_json json;
    ams_json_token token;
    ams_json_open(&json, fz_context(), text, size, AMS_JSON_MAX_DEPTH);
    atmsae_status status = ams_json_next(&json, &token);
    if (status == ATMSAE_OK) status = ams_json_skip(&json, &token);
    if (status == ATMSAE_OK) status = ams_json_expect(&json, AMS_JSON_END, "the end", &token);
    ams_json_close(&json);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= ROOM) return 0;
    ams_text out = {.ctx = fz_context()};
    bool exact = true;
    uint64_t count, again;
    char *text = malloc(size + 1), *copy = malloc(size + 1); /* exact size: a sanitizer sees the end */
    FZ_CHECK(text && copy);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    memcpy(copy, text, size + 1);
    bool again_too = ams_crc64(0, data, size) % 4 == 0; /* most of the time goes into what follows the first reading */
    atmsae_status status = read_all(text, size, again_too ? &out : NULL, &exact, &count);
    FZ_CHECK(!again_too || skip_all(copy, size) == status);
    if (again_too && status == ATMSAE_OK && exact) {
        FZ_CHECK(out.status == ATMSAE_OK);
        FZ_CHECK(read_all(out.data, out.length, NULL, &exact, &again) == ATMSAE_OK && again == count);
    }
    free(text);
    free(copy);
    ams_free(fz_context(), out.data);
    fz_done(status);
    return 0;
}
