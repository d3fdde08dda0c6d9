/* SPDX-License-Identifier: MIT
 *
 * Checkpoints. The checksum is put right before each load, and the mutator keeps the header's length
 * right, so that most inputs get past both. What loads must step, and save and load to the same bytes.
 */
#include "settings.h"

enum { ROOM = 1 << 16, D = 2, ROWS = 9 };

/* ---- mutator: not needed, and not there, in a replay --------------------------------------------- */

__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

static size_t header_size(const uint8_t *data, size_t size)
{
    uint64_t n = 0;
    if (size > 16) memcpy(&n, data, 8);
    return n <= size - ams_min(16, size) ? (size_t)n : 0;
}

/* Replaces data[at .. at+old-1] and corrects the header's length. */
static size_t splice(uint8_t *data, size_t size, size_t room, size_t at, size_t old, const void *bytes, size_t n)
{
    if (size - old + n > room) return size;
    memmove(data + at + n, data + at + old, size - at - old);
    memcpy(data + at, bytes, n);
    uint64_t header = header_size(data, size) + n - old;
    memcpy(data, &header, 8);
    return size - old + n;
}

/* A number of the header becomes another: in quotes a setting, without a shape or an offset. */
static size_t change_number(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    static const char *const numbers[] = {"0", "1", "2", "3", "4", "5", "6", "7", "16", "-1", "0.5", "1e-30", "1e300", "nan",
                                          "inf", "-inf", "64", "65535", "2147483647", "2147483648", "4294967295",
                                          "4294967296", "72057594037927936", "9223372036854775808",
                                          "18446744073709551615", "18446744073709551616", "", " 1", "0x10"};
    size_t end = 8 + header_size(data, size), at = 8 + seed / 64 % (end - 8);
    while (at < end && (data[at] < '0' || data[at] > '9'))
        at++;
    size_t length = 0;
    while (at + length < end && strchr("0123456789.e-+", data[at + length]))
        length++;
    const char *number = numbers[(seed * 2654435761u >> 16) % (sizeof numbers / sizeof *numbers)];
    return splice(data, size, room, at, length, number, strlen(number));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    size_t n = header_size(data, size);
    uint8_t part[ROOM];
    if (n == 0 || n > ROOM / 2 || seed % 64 == 0) return LLVMFuzzerMutate(data, size, room);
    if (seed % 4 == 1) { /* values of tensors, sizes unchanged */
        LLVMFuzzerMutate(data + 8 + n, size - 8 - n, size - 8 - n);
        return size;
    }
    if (seed % 4 == 2) {
        memcpy(part, data + 8, n);
        size_t changed = LLVMFuzzerMutate(part, n, ROOM);
        return splice(data, size, room, 8, n, part, changed);
    }
    return change_number(data, size, room, seed);
}

/* ---- target --------------------------------------------------------------------------------------- */

static int64_t give_rows(void *opaque, float *out, uint64_t max_rows)
{
    (void)opaque;
    memset(out, 0, max_rows * D * sizeof *out);
    return (int64_t)ams_min(max_rows, 2);
}

/* The source that the file was saved with, if any: memory, or a callback. */
static atmsae_source *make_source(const uint8_t *data, size_t size)
{
    static const float rows[ROWS * D] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    if (!memmem(data, size, "source.position", 15)) return NULL;
    bool streamed = memmem(data, size, "source.rows", 11);
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 4;
    atmsae_source *source;
    FZ_CHECK(atmsae_source_create(fz_context(), &config, &source) == ATMSAE_OK);
    FZ_CHECK((streamed ? atmsae_source_add_callback(source, D, give_rows, NULL)
                       : atmsae_source_add_memory(source, rows, ROWS, D, 0, ATMSAE_F32)) == ATMSAE_OK);
    return source;
}

static void use_source(atmsae_source *source)
{
    float rows[3 * D];
    uint64_t got;
    for (int i = 0; i < 5; i++)
        FZ_CHECK(atmsae_source_next(source, 3, rows, &got) == ATMSAE_OK && got <= 3);
}

static void use_trainer(atmsae_trainer *trainer)
{
    atmsae_trainer_config config = {.size = sizeof config};
    FZ_CHECK(atmsae_trainer_get_config(trainer, &config) == ATMSAE_OK);
    uint64_t d_in = config.model->d_in, d_out = config.model->d_out;
    FZ_CHECK(d_in < ROOM && d_out < ROOM && config.model->d_sae < ROOM);
    fz_check_finite(atmsae_trainer_model(trainer));
    float *x = malloc(2 * (d_in + d_out) * sizeof *x);
    FZ_CHECK(x);
    for (uint64_t i = 0; i < 2 * (d_in + d_out); i++)
        x[i] = (float)(i * 7 % 5) - 1.5f;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = 2;
    batch.x = x;
    batch.y = x + 2 * d_in;
    atmsae_status status = atmsae_trainer_step(trainer, &batch, NULL);
    FZ_CHECK(status == ATMSAE_OK || status == ATMSAE_E_NONFINITE || status == ATMSAE_E_LIMIT);
    fz_check_finite(atmsae_trainer_model(trainer));
    free(x);
}

/* Saved, loaded and saved again: the same bytes. */
static void save_twice(const atmsae_trainer *trainer)
{
    static char bytes[2][2 * ROOM];
    atmsae_trainer *again;
    FZ_CHECK(atmsae_trainer_save(trainer, NULL, fz_path("a")) == ATMSAE_OK);
    FZ_CHECK(atmsae_trainer_load(fz_context(), fz_path("a"), NULL, &again) == ATMSAE_OK);
    FZ_CHECK(atmsae_trainer_save(again, NULL, fz_path("b")) == ATMSAE_OK);
    atmsae_trainer_destroy(again);
    size_t n = fz_read(fz_path("a"), bytes[0], 2 * ROOM);
    FZ_CHECK(n == fz_read(fz_path("b"), bytes[1], 2 * ROOM) && memcmp(bytes[0], bytes[1], n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8 || size > ROOM) return 0;
    uint8_t *file = malloc(size);
    FZ_CHECK(file);
    memcpy(file, data, size);
    uint64_t crc = ams_crc64(0, file, size - 8);
    memcpy(file + size - 8, &crc, 8);

    fz_context();
    fz_limit((1 << 20) + 64 * size);
    atmsae_source *source = make_source(file, size);
    atmsae_trainer *trainer;
    atmsae_status status = atmsae_trainer_load(fz_context(), fz_file(file, size), source, &trainer);
    FZ_CHECK((status == ATMSAE_OK) == (trainer != NULL));
    FZ_CHECK(status != ATMSAE_E_NOMEM && status != ATMSAE_E_IO);
    if (trainer) {
        if (crc % 16 == 0) save_twice(trainer); /* system calls: a hundred times slower than the rest */
        use_trainer(trainer);
    }
    if (source) use_source(source); /* whether it was restored or not */
    atmsae_trainer_destroy(trainer);
    atmsae_source_destroy(source);
    free(file);
    fz_done(status);
    return 0;
}
