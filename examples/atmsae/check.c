/* SPDX-License-Identifier: MIT
 *
 * atmsae info --check: what rows are like, as a run would meet them. Rows are numbered from 0.
 */
#include "check.h"
#include "program.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOATS_AT_ONCE (UINT64_C(1) << 22)
#define MOST_NAMED 8
#define MOST_NORMS 65536

typedef struct tally {
    uint64_t d, rows;
    uint64_t bad, named[MOST_NAMED]; /* rows with NaN or Inf; the first of them */
    uint64_t zero;                   /* rows of zeros */
    float *first;                    /* [d] the first good row */
    bool *varies;                    /* [d] columns in which a good row differs from it */
    double *norm;                    /* of every `stride`-th row, so that at most MOST_NORMS are kept */
    uint64_t n_norms, stride;
    double least, most;
    uint64_t longest; /* row of norm `most` */
} tally;

static void keep_norm(tally *t, double norm)
{
    if (t->rows % t->stride) return;
    if (t->n_norms == MOST_NORMS) { /* every second one from here on */
        for (uint64_t i = 0; i < MOST_NORMS / 2; i++) t->norm[i] = t->norm[2 * i];
        t->n_norms /= 2;
        t->stride *= 2;
    }
    t->norm[t->n_norms++] = norm;
}

static void add_row(tally *t, const float *row)
{
    if (row_is_bad(row, t->d)) {
        if (t->bad < MOST_NAMED) t->named[t->bad] = t->rows;
        t->bad++;
    } else {
        if (t->bad == t->rows) memcpy(t->first, row, t->d * sizeof *row);
        double squares = 0;
        for (uint64_t j = 0; j < t->d; j++) {
            squares += (double)row[j] * (double)row[j];
            t->varies[j] |= row[j] != t->first[j];
        }
        const double norm = sqrt(squares);
        t->zero += norm == 0;
        if (!(norm >= t->least)) t->least = norm;
        if (!(norm <= t->most)) t->most = norm, t->longest = t->rows;
        keep_norm(t, norm);
    }
    t->rows++;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void tally_fields(tally *t, fields *out)
{
    fields_count(out, "bad-rows", t->bad);
    if (t->bad) {
        char *list = NULL;
        size_t size;
        FILE *text = program_text_open(&list, &size);
        for (uint64_t i = 0; i < t->bad && i < MOST_NAMED; i++)
            fprintf(text, "%s%llu", i ? ", " : "[", (unsigned long long)t->named[i]);
        fputs("]", text);
        fields_json(out, "first-bad-rows", program_text_close(text, &list));
        out->all[out->n - 1].json_only = false; /* a list of numbers is good to read as it is */
    }
    fields_count(out, "zero-rows", t->zero);
    if (t->bad == t->rows) return; /* nothing to measure */
    uint64_t constant = 0;
    for (uint64_t j = 0; j < t->d; j++) constant += !t->varies[j];
    qsort(t->norm, t->n_norms, sizeof *t->norm, ascending);
    fields_count(out, "constant-columns", constant);
    fields_real(out, "norm-min", t->least);
    if (t->n_norms) fields_real(out, "norm-median", t->norm[t->n_norms / 2]);
    fields_real(out, "norm-max", t->most);
    fields_count(out, "norm-max-row", t->longest);
}

/* The type of the tensor that a source took, see atmsae_source_add_file. */
static void type_field(atmsae_context *context, const char *path, const char *tensor, bool as_bf16, fields *out)
{
    atmsae_tensors *file;
    const char *dtype = NULL;
    bool plain = false; /* 2-D, and not F64: others are taken only where there is none */
    if (atmsae_tensors_open(context, path, &file) < 0) return;
    const uint64_t count = atmsae_tensors_count(file);
    for (uint64_t i = 0; i < count; i++) {
        atmsae_tensor_info info = {.size = sizeof info};
        if (atmsae_tensors_info(file, i, &info) < 0) continue;
        const bool named = strcmp(info.name, tensor ? tensor : "activations") == 0;
        const bool rows = count == 1 || (info.rank >= 2 && strstr("F16 BF16 F32 F64", info.dtype));
        const bool plainer = info.rank == 2 && strcmp(info.dtype, "F64") != 0 && !plain;
        if (named || (!tensor && rows && (!dtype || plainer))) dtype = info.dtype, plain = plainer;
        if (named) break;
    }
    if (dtype) fields_text(out, "type", as_bf16 && strcmp(dtype, "U16") == 0 ? "BF16" : dtype);
    atmsae_tensors_close(file);
}

static bool read_all(atmsae_source *source, tally *t)
{
    const uint64_t most = t->d < FLOATS_AT_ONCE ? FLOATS_AT_ONCE / t->d : 1;
    float *rows = program_alloc(most * t->d, sizeof *rows);
    uint64_t got = most;
    bool good = true;
    while (good && got == most) {
        good = atmsae_source_next(source, most, rows, &got) >= 0;
        for (uint64_t r = 0; good && r < got; r++) add_row(t, rows + r * t->d);
    }
    free(rows);
    return good;
}

bool check_rows(atmsae_context *context, const char *path, const char *tensor, bool as_bf16, fields *out, bool *bad)
{
    const setting file = {.n = 1, .texts = &path};
    atmsae_source *source = open_files(context, &(row_files){.rows = &file, .tensor = tensor, .as_bf16 = as_bf16});
    if (!source) return false;
    tally t = {.d = atmsae_source_d(source), .stride = 1, .least = NAN, .most = NAN};
    t.first = program_alloc(t.d, sizeof *t.first);
    t.varies = program_alloc(t.d, sizeof *t.varies);
    t.norm = program_alloc(MOST_NORMS, sizeof *t.norm);
    const bool good = read_all(source, &t);
    if (good) {
        fields_text(out, "path", path);
        fields_text(out, "kind", "rows");
        fields_count(out, "rows", t.rows);
        fields_count(out, "width", t.d);
        type_field(context, path, tensor, as_bf16, out);
        tally_fields(&t, out);
    } else {
        command_failed(context);
    }
    *bad = t.bad > 0;
    if (good && *bad)
        program_error("%s: %llu of %llu rows with a NaN or infinite value, row %llu the first: train fails there, or "
                      "leaves them out with --skip-bad-rows N", path, (unsigned long long)t.bad, (unsigned long long)t.rows,
                      (unsigned long long)t.named[0]);
    free(t.first);
    free(t.varies);
    free(t.norm);
    atmsae_source_destroy(source);
    return good;
}
