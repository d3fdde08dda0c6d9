/* SPDX-License-Identifier: MIT
 *
 * One block of the bf16 product, C [32, 32] = a panel of A times one of B over all of d, by VDPBF16PS and
 * by AMX tiles. The includer defines AMS_TARGET(features) and the intrinsics: bf16.c has the compiler's,
 * the test also a stand-in's.
 * The layout of panels, TILE and STEP are bf16.c's.
 */

/* 8 rows against 32 latents at a time: 16 accumulators, 2 vectors of B and a pair of A spread out. */
AMS_TARGET("avx512f,avx512bf16")
static void block_avx512(const uint16_t *a, const uint16_t *b, uint64_t steps, float *c, uint64_t ldc)
{
    for (int first = 0; first < 32; first += 8) {
        const uint16_t *rows = a + first / 16 * TILE + first % 16 * 32;
        __m512 sum[8][2];
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++)
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (uint64_t s = 0; s < steps; s++)
            for (int pair = 0; pair < 16; pair++) {
                const uint16_t *line = b + s * STEP + pair * 32;
                const __m512bh b0 = (__m512bh)_mm512_loadu_si512(line), b1 = (__m512bh)_mm512_loadu_si512(line + TILE);
#pragma GCC unroll 8
                for (int r = 0; r < 8; r++) {
                    int32_t two;
                    memcpy(&two, rows + s * STEP + r * 32 + pair * 2, sizeof two);
                    const __m512bh spread = (__m512bh)_mm512_set1_epi32(two);
                    sum[r][0] = _mm512_dpbf16_ps(sum[r][0], spread, b0);
                    sum[r][1] = _mm512_dpbf16_ps(sum[r][1], spread, b1);
                }
            }
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            _mm512_storeu_ps(c + (uint64_t)(first + r) * ldc, sum[r][0]);
            _mm512_storeu_ps(c + (uint64_t)(first + r) * ldc + 16, sum[r][1]);
        }
    }
}

/* Palette 1, all eight tiles of 16 rows of 64 bytes. Constant, since GCC 12's _tile_loadconfig tells the
 * optimizer of the first 8 bytes only. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
static const tile_config all_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

AMS_TARGET("amx-tile") static void start_amx(void) { _tile_loadconfig(&all_tiles); }
AMS_TARGET("amx-tile") static void stop_amx(void) { _tile_release(); }

/* Tiles 0 to 3 sum up, 4 and 5 are A's, 6 and 7 B's. */
AMS_TARGET("amx-tile,amx-bf16")
static void block_amx(const uint16_t *a, const uint16_t *b, uint64_t steps, float *c, uint64_t ldc)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (uint64_t s = 0; s < steps; s++) {
        _tile_loadd(4, a + s * STEP, 64);
        _tile_loadd(6, b + s * STEP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + s * STEP + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + s * STEP + TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    const uint64_t stride = ldc * sizeof *c;
    _tile_stored(0, c, stride);
    _tile_stored(1, c + 16, stride);
    _tile_stored(2, c + 16 * ldc, stride);
    _tile_stored(3, c + 16 * ldc + 16, stride);
}
