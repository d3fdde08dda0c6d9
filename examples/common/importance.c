/* SPDX-License-Identifier: MIT
 *
 * See importance.h.
 */
#include "importance.h"
#include "files.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_POINTS = 64, LEAST_POINTS = 8, MOST_VALUES = 1 << 22 };

importance *importance_create(uint64_t d_sae)
{
    importance *self = program_alloc(1, sizeof *self);
    self->d_sae = d_sae;
    self->stride = 1;
    self->capacity = MOST_POINTS;
    while (self->capacity > LEAST_POINTS && self->capacity * d_sae > MOST_VALUES) self->capacity /= 2;
    const size_t points = self->capacity + 1; /* one more, see importance_save */
    self->step = program_alloc(points, sizeof *self->step);
    self->theta = program_alloc(points, sizeof *self->theta);
    self->rate = program_alloc(points, sizeof *self->rate);
    self->mean_p = program_alloc(points, sizeof *self->mean_p);
    self->value = program_alloc(points * d_sae, sizeof *self->value);
    return self;
}

void importance_destroy(importance *self)
{
    if (!self) return;
    free(self->step);
    free(self->theta);
    free(self->rate);
    free(self->mean_p);
    free(self->value);
    free(self);
}

static void halve(importance *self)
{
    for (size_t i = 0; i < self->n; i += 2) {
        self->step[i / 2] = self->step[i];
        self->theta[i / 2] = self->theta[i];
        self->rate[i / 2] = self->rate[i];
        self->mean_p[i / 2] = self->mean_p[i];
        memmove(self->value + i / 2 * self->d_sae, self->value + i * self->d_sae, self->d_sae * sizeof *self->value);
    }
    self->n = (self->n + 1) / 2;
    self->stride *= 2;
}

static void take(importance *self, atmsae_trainer *trainer, uint64_t step)
{
    const atmsae_masker *masker = atmsae_trainer_masker(trainer);
    const double *now = atmsae_tracker_importance(atmsae_trainer_tracker(trainer));
    float *to = self->value + self->n * self->d_sae;
    for (uint64_t i = 0; i < self->d_sae; i++) to[i] = (float)now[i];
    self->step[self->n] = (int64_t)step;
    self->theta[self->n] = (float)atmsae_masker_theta(masker);
    self->rate[self->n] = (float)atmsae_masker_rate(masker);
    self->mean_p[self->n++] = (float)atmsae_masker_mean_p(masker);
}

void importance_record(importance *self, atmsae_trainer *trainer, uint64_t step)
{
    if (step % self->stride != 0) return;
    if (self->n == self->capacity) {
        halve(self);
        if (step % self->stride != 0) return;
    }
    take(self, trainer, step);
}

/* ---- the file --------------------------------------------------------------------------------------- */

static void write_tensors(const importance *self, FILE *file)
{
    const unsigned long long n = self->n, f = self->d_sae, a = 8 * n, b = a + 4 * n, c = b + 4 * n, d = c + 4 * n, e = d + 4 * n * f;
    char header[512];
    int length = snprintf(header, sizeof header,
                          "{\"step\":{\"dtype\":\"I64\",\"shape\":[%llu],\"data_offsets\":[0,%llu]},"
                          "\"theta\":{\"dtype\":\"F32\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]},"
                          "\"rate\":{\"dtype\":\"F32\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]},"
                          "\"mean_p\":{\"dtype\":\"F32\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]},"
                          "\"importance\":{\"dtype\":\"F32\",\"shape\":[%llu,%llu],\"data_offsets\":[%llu,%llu]}}",
                          n, a, n, a, b, n, b, c, n, c, d, n, f, d, e);
    while (length % 8) header[length++] = ' ';
    const uint64_t size = (uint64_t)length;
    fwrite(&size, sizeof size, 1, file);
    fwrite(header, 1, (size_t)length, file);
    fwrite(self->step, sizeof *self->step, self->n, file);
    fwrite(self->theta, sizeof *self->theta, self->n, file);
    fwrite(self->rate, sizeof *self->rate, self->n, file);
    fwrite(self->mean_p, sizeof *self->mean_p, self->n, file);
    fwrite(self->value, sizeof *self->value * self->d_sae, self->n, file);
}

bool importance_save(importance *self, atmsae_trainer *trainer, const char *path)
{
    const size_t n = self->n;
    const uint64_t done = atmsae_trainer_steps_done(trainer);
    file_writer out;
    if (!file_begin(&out, path, true)) return false;
    if (done > 0 && (n == 0 || self->step[n - 1] != (int64_t)done - 1)) take(self, trainer, done - 1);
    write_tensors(self, out.file);
    self->n = n;
    return file_end(&out, true);
}

/* [n] floats of a tensor of that name; [n, d_sae] if rank is 2. */
static bool read_floats(const importance *self, const atmsae_tensors *file, const char *name, uint64_t rank, uint64_t n, float *to)
{
    uint64_t index;
    atmsae_tensor_info info = {.size = sizeof info};
    return atmsae_tensors_find(file, name, &index) >= 0 && atmsae_tensors_info(file, index, &info) >= 0 && info.rank == rank &&
           info.shape[0] == n && (rank < 2 || info.shape[1] == self->d_sae) &&
           atmsae_tensors_read_f32(file, index, to, rank < 2 ? n : n * self->d_sae) >= 0;
}

static bool read_tensors(importance *self, const atmsae_tensors *file)
{
    uint64_t step;
    atmsae_tensor_info info = {.size = sizeof info};
    if (atmsae_tensors_find(file, "step", &step) < 0 || atmsae_tensors_info(file, step, &info) < 0 || info.rank != 1) return false;
    const uint64_t n = self->n = info.shape[0];
    return n >= 1 && n <= self->capacity + 1 && atmsae_tensors_read_i64(file, step, self->step, n) >= 0 &&
           read_floats(self, file, "theta", 1, n, self->theta) && read_floats(self, file, "rate", 1, n, self->rate) &&
           read_floats(self, file, "mean_p", 1, n, self->mean_p) && read_floats(self, file, "importance", 2, n, self->value);
}

static bool in_order(const importance *self)
{
    for (size_t i = 1; i < self->n; i++)
        if (self->step[i] <= self->step[i - 1]) return false;
    return self->step[0] >= 0;
}

bool importance_load(importance *self, atmsae_context *context, const char *path)
{
    atmsae_tensors *file;
    if (atmsae_tensors_open(context, path, &file) < 0) return false;
    importance *loaded = importance_create(self->d_sae);
    const bool good = read_tensors(loaded, file) && in_order(loaded);
    atmsae_tensors_close(file);
    if (good) {
        const importance was = *self;
        *self = *loaded;
        *loaded = was;
    }
    importance_destroy(loaded);
    return good;
}

/* The last point may be importance_save's, not one of 0, stride, 2 stride, ..; those from `end` on come again. */
bool importance_resume(importance *self, atmsae_context *context, const char *path, uint64_t end)
{
    if (!importance_load(self, context, path)) return false;
    if (self->n > 2) self->stride = (uint64_t)(self->step[1] - self->step[0]);
    while (self->n > 0 && ((uint64_t)self->step[self->n - 1] >= end || (uint64_t)self->step[self->n - 1] % self->stride != 0))
        self->n--;
    if (self->n > self->capacity) self->n = self->capacity;
    return true;
}
