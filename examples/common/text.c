/* SPDX-License-Identifier: MIT
 *
 * See text.h.
 */
#include "text.h"
#include "program.h"

#include <stdint.h>
#include <string.h>

/* The code of the character of n bytes at s, whose continuation bytes are in order. */
static uint32_t code_of(const unsigned char *s, size_t n)
{
    uint32_t code = n == 1 ? s[0] : n == 2 ? s[0] & 0x1fu : n == 3 ? s[0] & 0x0fu : s[0] & 0x07u;
    for (size_t i = 1; i < n; i++) code = code << 6 | (s[i] & 0x3fu);
    return code;
}

size_t text_character(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    const size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint32_t code = n ? code_of(s, n) : 0;
    return code < least[n] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : n;
}

bool text_is_control(const unsigned char *s, size_t n)
{
    static const uint32_t ranges[][2] = {
        {0, 0x1f}, {0x7f, 0x9f}, {0x61c, 0x61c}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069},
    };
    const uint32_t code = code_of(s, n);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    return false;
}

size_t text_escape(const char *text, char *out, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const size_t n = text_character(s), bytes = n ? n : 1;
        const bool plain = n > 0 && !text_is_control(s, n);
        for (const unsigned char *end = s + bytes; s < end; s++) {
            const char escaped[] = {'\\', 'x', digits[*s >> 4], digits[*s & 15]};
            const size_t width = plain ? 1 : sizeof escaped;
            if (length + width < size) memcpy(out + length, plain ? (const char *)s : escaped, width);
            else if (length < size) size = length + 1; /* full: what follows is counted only */
            length += width;
        }
    }
    if (size > 0) out[length < size ? length : size - 1] = 0;
    return length;
}

char *text_shown(const char *text)
{
    const size_t size = text_escape(text, NULL, 0) + 1;
    char *shown = program_alloc(size, 1);
    (void)text_escape(text, shown, size);
    return shown;
}
