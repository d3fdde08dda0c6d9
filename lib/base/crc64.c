/* SPDX-License-Identifier: MIT
 *
 * CRC-64/XZ (the reflected ECMA-182 polynomial), eight bytes a step; CRC-32 (IEEE 802.3), one byte a
 * step, for the archives that have it. The CRC is linear, so what a byte
 * leaves behind is the sum of what its bits leave: the compiler makes the tables from 64 numbers.
 */
#include "base.h"

/* Entry v: of the eight numbers, those whose bit is set in v, added up. */
#define ENTRY(v, a, b, c, d, e, f, g, h)                                                                   \
    (((v) & 1 ? (a) : 0) ^ ((v) & 2 ? (b) : 0) ^ ((v) & 4 ? (c) : 0) ^ ((v) & 8 ? (d) : 0) ^ ((v) & 16 ? (e) : 0) ^  \
     ((v) & 32 ? (f) : 0) ^ ((v) & 64 ? (g) : 0) ^ ((v) & 128 ? (h) : 0))
#define ENTRIES4(v, ...) \
    ENTRY(v, __VA_ARGS__), ENTRY((v) + 1, __VA_ARGS__), ENTRY((v) + 2, __VA_ARGS__), ENTRY((v) + 3, __VA_ARGS__)
#define ENTRIES16(v, ...) \
    ENTRIES4(v, __VA_ARGS__), ENTRIES4((v) + 4, __VA_ARGS__), ENTRIES4((v) + 8, __VA_ARGS__), ENTRIES4((v) + 12, __VA_ARGS__)
#define ENTRIES64(v, ...) \
    ENTRIES16(v, __VA_ARGS__), ENTRIES16((v) + 16, __VA_ARGS__), ENTRIES16((v) + 32, __VA_ARGS__), ENTRIES16((v) + 48, __VA_ARGS__)
#define TABLE(...) \
    {ENTRIES64(0, __VA_ARGS__), ENTRIES64(64, __VA_ARGS__), ENTRIES64(128, __VA_ARGS__), ENTRIES64(192, __VA_ARGS__)}

/* table[k][v]: byte k of the register, of value v, after 64 shifts. Its numbers: bits 8k .. 8k+7. */
static const uint64_t table[8][256] = {
    TABLE(0xDABE95AFC7875F40, 0x27A584742000A005, 0x4F4B08E84001400A, 0x9E9611D080028014,
          0xAFF48C8AAF0B1EAD, 0xCD31B63EF11823DF, 0x08BBC3564D3E593B, 0x117786AC9A7CB276),
    TABLE(0x22EF0D5934F964EC, 0x45DE1AB269F2C9D8, 0x8BBC3564D3E593B0, 0x85A0C5E208C539E5,
          0x999924EFBE846D4F, 0xA1EAE6F4D206C41B, 0xD10D62C20B0396B3, 0x30C26AAFB90933E3),
    TABLE(0x6184D55F721267C6, 0xC309AABEE424CF8C, 0x14CBFA566747819D, 0x2997F4ACCE8F033A,
          0x532FE9599D1E0674, 0xA65FD2B33A3C0CE8, 0xDE670A4DDB760755, 0x2E16BBB019E2102F),
    TABLE(0x5C2D776033C4205E, 0xB85AEEC0678840BC, 0xE26D72AB601E9FFD, 0x56024A7D6F33217F,
          0xAC0494FADE6642FE, 0xCAD186DE13C29B79, 0x077BA297888B2877, 0x0EF7452F111650EE),
    TABLE(0x1DEE8A5E222CA1DC, 0x3BDD14BC445943B8, 0x77BA297888B28770, 0xEF7452F111650EE0,
          0x4C300AC98DC40345, 0x986015931B88068A, 0xA218840D981E1391, 0xD6E9A7309F3239A7),
    TABLE(0x3F0BE14A916A6DCB, 0x7E17C29522D4DB96, 0xFC2F852A45A9B72C, 0x6A87A57F245D70DD,
          0xD50F4AFE48BAE1BA, 0x38C63AD73E7BDDF1, 0x718C75AE7CF7BBE2, 0xE318EB5CF9EF77C4),
    TABLE(0x54E979925CD0F10D, 0xA9D2F324B9A1E21A, 0xC17D4962DC4DDAB1, 0x10223DEE1795ABE7,
          0x20447BDC2F2B57CE, 0x4088F7B85E56AF9C, 0x8111EF70BCAD5F38, 0x90FB71CAD654A0F5),
    TABLE(0xB32E4CBE03A75F6F, 0xF4843657A840A05B, 0x7BD0C384FF8F5E33, 0xF7A18709FF1EBC66,
          0x7D9BA13851336649, 0xFB374270A266CC92, 0x64B62BCAEBC387A1, 0xC96C5795D7870F42),
};

uint64_t ams_crc64(uint64_t crc, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t word = 0;
        for (int i = 7; i >= 0; i--)
            word = word << 8 | p[i];
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= table[k][word >> 8 * k & 255];
    }
    for (; bytes > 0; bytes--)
        crc = crc >> 8 ^ table[7][(crc ^ *p++) & 255];
    return ~crc;
}

static const uint32_t table32[256] = TABLE(0x77073096u, 0xEE0E612Cu, 0x076DC419u, 0x0EDB8832u, 0x1DB71064u, 0x3B6E20C8u,
                                           0x76DC4190u, 0xEDB88320u);

uint32_t ams_crc32(uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; bytes > 0; bytes--)
        crc = crc >> 8 ^ table32[(crc ^ *p++) & 255];
    return ~crc;
}
