/* SPDX-License-Identifier: MIT
 *
 * One block of the bf16 product, C [32, 32] = a panel of A times one of B over all of d, by AMX tiles. The
 * includer defines AMS_TARGET(features) and the intrinsics: panels.c has the compiler's, the test also a
 * stand-in's. The layout of panels, TILE and STEP are panels.c's.
 */

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
static void block_amx(const uint16_t *a, const uint16_t *b, uint64_t steps, const float *a_scale, const float *b_scale,
                      float *c, uint64_t ldc)
{
    (void)a_scale;
    (void)b_scale;
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
