/* SPDX-License-Identifier: MIT
 *
 * Reads a JSON configuration by a table of its keys.
 */
#include "format/sae_formats.h"

#include <string.h>

static atmsae_status read_keys(ams_json *json, const ams_config_key *keys, void *config, ams_text *unknown);

// NOLINTNEXTLINE(misc-no-recursion): as deep as the tables of keys
static atmsae_status read_value(ams_json *json, const ams_config_key *key, void *config)
{
    ams_json_token token;
    AMS_TRY(ams_json_next(json, &token));
    void *field = (char *)config + key->offset;
    if (token.kind == AMS_JSON_NULL && !key->required) return ATMSAE_OK; /* as if it were not there */
    switch (key->kind) {
    case 's':
    case 'w':
        if (key->kind == 'w' && (token.kind == AMS_JSON_TRUE || token.kind == AMS_JSON_FALSE)) {
            *(const char **)field = token.kind == AMS_JSON_TRUE ? "true" : "false";
            return ATMSAE_OK;
        }
        if (token.kind != AMS_JSON_STRING || strlen(token.text) != token.length)
            return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "%s must be a string", key->name);
        *(const char **)field = token.text;
        return ATMSAE_OK;
    case 't':
        if (token.kind == AMS_JSON_STRING && strlen(token.text) == token.length) *(const char **)field = token.text;
        return ams_json_skip(json, &token);
    case 'u': {
        uint64_t value;
        AMS_TRY(ams_json_u64(json, &token, key->name, &value));
        if (value < key->required || value > key->max)
            return ams_json_fail(json, ATMSAE_E_FORMAT, token.at, "%s = %llu, allowed: %d to %llu", key->name,
                                 (unsigned long long)value, key->required, (unsigned long long)key->max);
        *(uint64_t *)field = value;
        return ATMSAE_OK;
    }
    case 'd':
        return ams_json_double(json, &token, key->name, field);
    case 'b':
        return ams_json_bool(json, &token, key->name, field);
    case 'o':
        if (token.kind == AMS_JSON_OBJECT) return read_keys(json, key->inner, config, NULL);
        return ams_json_skip(json, &token);
    default:
        return ams_json_skip(json, &token);
    }
}

/* The rest of an object. */
// NOLINTNEXTLINE(misc-no-recursion): as above
static atmsae_status read_keys(ams_json *json, const ams_config_key *keys, void *config, ams_text *unknown)
{
    ams_json_token token;
    unsigned seen = 0;
    for (;;) {
        AMS_TRY(ams_json_next(json, &token));
        if (token.kind == AMS_JSON_OBJECT_END) break;
        unsigned i = 0;
        while (keys[i].name && !ams_json_is(&token, keys[i].name))
            i++;
        if (keys[i].name) {
            seen |= 1u << i;
            AMS_TRY(read_value(json, &keys[i], config));
            continue;
        }
        if (unknown) {
            ams_text_add(unknown, unknown->length ? ", " : "");
            ams_text_add(unknown, token.text);
        }
        AMS_TRY(ams_json_next(json, &token));
        AMS_TRY(ams_json_skip(json, &token));
    }
    for (unsigned i = 0; keys[i].name; i++)
        if (keys[i].required && !(seen >> i & 1))
            return ams_fail(json->ctx, ATMSAE_E_FORMAT, "\"%s\" is missing", keys[i].name);
    return ATMSAE_OK;
}

atmsae_status ams_config_read(atmsae_context *ctx, const char *path, const ams_config_key *keys, bool log_unknown,
                              void *config, char **text)
{
    uint64_t bytes;
    AMS_TRY(ams_read_file(ctx, path, AMS_MAX_CONFIG, text, &bytes));
    ams_json json;
    ams_json_token token;
    ams_text unknown = {.ctx = ctx};
    ams_json_open(&json, ctx, *text, (size_t)bytes, AMS_JSON_MAX_DEPTH);
    json.python = true;
    atmsae_status status = ams_json_expect(&json, AMS_JSON_OBJECT, "an object", &token);
    if (status == ATMSAE_OK) status = read_keys(&json, keys, config, &unknown);
    if (status == ATMSAE_OK) status = ams_json_expect(&json, AMS_JSON_END, "the end", &token);
    if (status == ATMSAE_OK) status = unknown.status;
    if (status == ATMSAE_OK && log_unknown && unknown.length)
        ams_log(ctx, ATMSAE_LOG_WARNING, "%s: ignored: %s", path, unknown.data);
    ams_json_close(&json);
    ams_free(ctx, unknown.data);
    return status < 0 ? ams_fail_in(ctx, status, path) : ATMSAE_OK;
}
