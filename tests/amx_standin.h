/* SPDX-License-Identifier: MIT
 *
 * Stand-ins for the AMX intrinsics that lib/kernels uses, after the operation sections of Intel's SDM,
 * volume 2 (LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS): the code for these instructions runs on any
 * machine. What would raise #UD fails the test.
 */
#ifndef AMX_STANDIN_H
#define AMX_STANDIN_H

#include <check.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h> /* whose names are taken below */
#endif

#define AMS_TARGET(features)
/* Check's own assertions write to a file each time. */
#define must(condition)                                          \
    do {                                                         \
        if (!(condition)) ck_abort_msg("%s", #condition);        \
    } while (0)

/* Fused, to nearest even; denormals count as zeros on both sides, whatever MXCSR says. */
static float standin_flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static float standin_half(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return standin_flush(x);
}
static float standin_fma(float sum, uint16_t a, uint16_t b)
{
    return standin_flush(fmaf(standin_half(a), standin_half(b), standin_flush(sum)));
}

/* ---- AMX ------------------------------------------------------------------------------------------- */

static struct {
    int palette; /* 0: no tile can be used */
    unsigned rows[8], bytes[8];
    uint8_t data[8][16][64];
    unsigned configured, released; /* how often */
} tiles;

static inline void standin_tile_loadconfig(const void *config)
{
    const uint8_t *c = config;
    must(c[0] == 1 && c[1] == 0) /* palette, start row */;
    for (int i = 2; i < 16; i++)
        must(c[i] == 0);
    for (int i = 0; i < 8; i++) {
        uint16_t bytes;
        memcpy(&bytes, c + 16 + 2 * i, 2);
        must(bytes <= 64);
        must(c[48 + i] <= 16);
        must((bytes == 0) == (c[48 + i] == 0));
        tiles.bytes[i] = bytes;
        tiles.rows[i] = c[48 + i];
        must((c[32 + 2 * i] | c[33 + 2 * i] | c[56 + i]) == 0);
    }
    memset(tiles.data, 0, sizeof tiles.data);
    tiles.palette = 1;
    tiles.configured++;
}
static inline void standin_tile_release(void)
{
    tiles.palette = 0;
    tiles.released++;
}
static inline void standin_usable(int t) { must(tiles.palette == 1 && tiles.rows[t] > 0); }
static inline void standin_tile_zero(int t)
{
    standin_usable(t);
    memset(tiles.data[t], 0, sizeof tiles.data[t]);
}
static inline void standin_tile_loadd(int t, const void *base, uint64_t stride)
{
    standin_tile_zero(t);
    for (unsigned r = 0; r < tiles.rows[t]; r++)
        memcpy(tiles.data[t][r], (const char *)base + r * stride, tiles.bytes[t]);
}
static inline void standin_tile_stored(int t, void *base, uint64_t stride)
{
    standin_usable(t);
    for (unsigned r = 0; r < tiles.rows[t]; r++)
        memcpy((char *)base + r * stride, tiles.data[t][r], tiles.bytes[t]);
}
static inline void standin_tile_dpbf16ps(int dest, int src1, int src2)
{
    standin_usable(dest);
    standin_usable(src1);
    standin_usable(src2);
    must(dest != src1 && dest != src2 && src1 != src2);
    must(tiles.rows[dest] == tiles.rows[src1]);
    must(tiles.bytes[dest] == tiles.bytes[src2]);
    must(tiles.bytes[src1] / 4 == tiles.rows[src2]);
    for (unsigned m = 0; m < tiles.rows[dest]; m++) {
        float temp[32] = {0}, sum[16];
        uint16_t a[32], b[32];
        memcpy(a, tiles.data[src1][m], sizeof a);
        for (unsigned k = 0; k < tiles.bytes[src1] / 4; k++) {
            memcpy(b, tiles.data[src2][k], sizeof b);
            for (unsigned n = 0; n < tiles.bytes[dest] / 4; n++) {
                temp[2 * n] = standin_fma(temp[2 * n], a[2 * k], b[2 * n]);
                temp[2 * n + 1] = standin_fma(temp[2 * n + 1], a[2 * k + 1], b[2 * n + 1]);
            }
        }
        memcpy(sum, tiles.data[dest][m], sizeof sum);
        for (unsigned n = 0; n < tiles.bytes[dest] / 4; n++)
            sum[n] = standin_flush(standin_flush(sum[n]) + standin_flush(temp[2 * n] + temp[2 * n + 1]));
        memcpy(tiles.data[dest][m], sum, tiles.bytes[dest]);
    }
}

#undef _tile_loadconfig
#define _tile_loadconfig standin_tile_loadconfig
#undef _tile_release
#define _tile_release standin_tile_release
#undef _tile_zero
#define _tile_zero standin_tile_zero
#undef _tile_loadd
#define _tile_loadd standin_tile_loadd
#undef _tile_stored
#define _tile_stored standin_tile_stored
#undef _tile_dpbf16ps
#define _tile_dpbf16ps standin_tile_dpbf16ps

#endif
