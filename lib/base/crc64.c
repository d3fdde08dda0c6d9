/* SPDX-License-Identifier: MIT
 *
 * CRC-64/XZ (the reflected ECMA-182 polynomial), eight bytes a step. The 16 KB of tables are cheap
 * to derive next to the megabytes that a checkpoint feeds in, and so need neither state nor source.
 */
#include "base.h"

#include <string.h>

#define POLYNOMIAL 0xC96C5795D7870F42u

static uint64_t shift8(uint64_t crc)
{
    for (int bit = 0; bit < 8; bit++)
        crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    return crc;
}

uint64_t ams_crc64(uint64_t crc, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    crc = ~crc;
    if (bytes >= 4096) {
        uint64_t table[8][256]; /* table[k][v]: v followed by k zero bytes */
        for (unsigned v = 0; v < 256; v++)
            table[0][v] = shift8(v);
        for (int k = 1; k < 8; k++)
            for (unsigned v = 0; v < 256; v++)
                table[k][v] = table[k - 1][v] >> 8 ^ table[0][table[k - 1][v] & 255];
        for (; bytes >= 8; bytes -= 8, p += 8) {
            uint64_t word = 0;
            for (int i = 7; i >= 0; i--)
                word = word << 8 | p[i];
            word ^= crc;
            crc = 0;
            for (int k = 0; k < 8; k++)
                crc ^= table[7 - k][word >> 8 * k & 255];
        }
    }
    for (; bytes > 0; bytes--)
        crc = crc >> 8 ^ shift8((crc ^ *p++) & 255);
    return ~crc;
}
