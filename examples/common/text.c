/* SPDX-License-Identifier: MIT
 *
 * See text.h.
 */
#include "text.h"
#include "program.h"

#include <string.h>

size_t text_character(const char *s, uint32_t *code)
{
    const unsigned char *byte = (const unsigned char *)s, first = *byte;
    const size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    uint32_t c = n < 2 ? first : first & (0x7fu >> n);
    *code = first;
    for (size_t i = 1; i < n; i++) {
        if ((byte[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (byte[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) return 0;
    *code = c;
    return n;
}

bool text_is_control(uint32_t code)
{
    static const uint32_t ranges[][2] = {
        {0, 0x1f}, {0x7f, 0x9f}, {0x61c, 0x61c}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    return false;
}

size_t text_escape(const char *text, char *out, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;
    for (const char *s = text; *s;) {
        uint32_t code;
        const size_t n = text_character(s, &code), bytes = n ? n : 1;
        const bool plain = n > 0 && !text_is_control(code);
        for (const char *end = s + bytes; s < end; s++) {
            const char escaped[] = {'\\', 'x', digits[(unsigned char)*s >> 4], digits[*s & 15]};
            const size_t width = plain ? 1 : sizeof escaped;
            if (length + width < size) memcpy(out + length, plain ? s : escaped, width);
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
