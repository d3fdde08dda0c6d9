/* SPDX-License-Identifier: MIT
 *
 * See words.h.
 */
#include "words.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST_CLASSES 100000

static bool print_error(const atmsae_context *context)
{
    program_error("%s", atmsae_last_error(context));
    return false;
}

void words_free(words *w)
{
    free(w->rows);
    free(w->labels);
    free(w->is_train);
}

/* Values of an integer tensor of n elements; NULL after a message. */
static int64_t *read_integers(atmsae_context *context, const atmsae_tensors *file, const char *name, uint64_t n)
{
    uint64_t index;
    int64_t *values = program_alloc(n, sizeof *values);
    if (atmsae_tensors_find(file, name, &index) >= 0 && atmsae_tensors_read_i64(file, index, values, n) >= 0)
        return values;
    print_error(context);
    free(values);
    return NULL;
}

static bool read_rows(atmsae_context *context, const char *path, const atmsae_tensors *file, const char *name, words *w)
{
    uint64_t index;
    atmsae_tensor_info info = {.size = sizeof info};
    if (atmsae_tensors_find(file, name, &index) < 0 || atmsae_tensors_info(file, index, &info) < 0)
        return print_error(context);
    if (info.rank != 2) {
        program_error("%s: tensor \"%s\" has rank %llu, not 2", path, name, (unsigned long long)info.rank);
        return false;
    }
    w->n = info.shape[0];
    w->d = info.shape[1];
    w->rows = program_alloc(w->n * w->d, sizeof *w->rows);
    if (atmsae_tensors_read_f32(file, index, w->rows, w->n * w->d) >= 0) return true;
    return print_error(context);
}

bool words_read(atmsae_context *context, const char *path, const char *tensor, words *w)
{
    atmsae_tensors *file;
    if (atmsae_tensors_open(context, path, &file) < 0) return print_error(context);
    int64_t *letter = NULL, *train = NULL;
    bool good = read_rows(context, path, file, tensor, w) && (letter = read_integers(context, file, "letter", w->n)) &&
                (train = read_integers(context, file, "is_train", w->n));
    if (good) {
        w->labels = program_alloc(w->n, sizeof *w->labels);
        w->is_train = program_alloc(w->n, sizeof *w->is_train);
        for (uint64_t i = 0; i < w->n && good; i++) {
            good = letter[i] >= 0 && letter[i] < MOST_CLASSES;
            if (!good)
                program_error("%s: letter[%llu] is %lld, outside 0 .. %d", path,
                        (unsigned long long)i, (long long)letter[i], MOST_CLASSES - 1);
            w->labels[i] = (int32_t)letter[i];
            w->is_train[i] = train[i] != 0;
            if ((uint64_t)letter[i] >= w->n_classes) w->n_classes = (uint64_t)letter[i] + 1;
        }
    }
    free(letter);
    free(train);
    atmsae_tensors_close(file);
    return good;
}
