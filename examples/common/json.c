/* SPDX-License-Identifier: MIT
 *
 * See json.h.
 */
#include "json.h"
#include "program.h"
#include "text.h"

#include <math.h>
#include <string.h>

enum { BYTE = 0xdc00 }; /* the lone surrogate that stands for byte b is BYTE + b, b >= 0x80 */

void json_inside(FILE *out, const char *text)
{
    for (const char *s = text; *s;) {
        uint32_t code;
        const size_t n = text_character(s, &code);
        if (n == 0) fprintf(out, "\\u%04x", BYTE + code);
        else if (*s == '"' || *s == '\\') fprintf(out, "\\%c", *s);
        else if (*s == '<' || text_is_control(code)) fprintf(out, "\\u%04x", code);
        else fwrite(s, 1, n, out);
        s += n ? n : 1;
    }
}

void json_string(FILE *out, const char *text)
{
    fputc('"', out);
    json_inside(out, text);
    fputc('"', out);
}

void json_real(FILE *out, double value, int digits)
{
    if (isfinite(value)) fprintf(out, "%.*g", digits, value);
    else fputs("null", out);
}

char *json_strings(const char *const *texts, size_t n)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        json_string(out, texts[i]);
    }
    fputc(']', out);
    return program_text_close(out, &json);
}

/* Four digits; UINT32_MAX if they are none. */
static uint32_t hex(const char *digits)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const char *all = "0123456789abcdef", *found = digits[i] ? strchr(all, digits[i] | 0x20) : NULL;
        if (!found) return UINT32_MAX;
        value = value << 4 | (uint32_t)(found - all);
    }
    return value;
}

static char *put_utf8(char *out, uint32_t c)
{
    static const uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *out++ = (char)(lead[more] | c >> (6 * more));
    for (int i = more - 1; i >= 0; i--) *out++ = (char)(0x80 | (c >> (6 * i) & 0x3f));
    return out;
}

bool json_unescape(const char **in, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found = **in ? strchr(from, **in) : NULL;
    if (found) {
        *(*out)++ = to[found - from];
        ++*in;
        return true;
    }
    uint32_t c = **in == 'u' ? hex(*in + 1) : UINT32_MAX;
    if (c == UINT32_MAX || c == 0) return false;
    *in += 5;
    const uint32_t low = c >= 0xd800 && c < 0xdc00 && (*in)[0] == '\\' && (*in)[1] == 'u' ? hex(*in + 2) : UINT32_MAX;
    if (low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        *in += 6;
    }
    if (c >= BYTE + 0x80 && c <= BYTE + 0xff) *(*out)++ = (char)(c - BYTE);
    else if (c >= 0xd800 && c < 0xe000) return false;
    else *out = put_utf8(*out, c);
    return true;
}
