/* SPDX-License-Identifier: MIT
 *
 * Saves a model as Gemma Scope's params.npz, which numpy.load reads: JumpReLU on rows that are not
 * centred, so the centring goes into b_enc. A ZIP of stored .npy arrays, without ZIP64.
 */
#include "format/sae_formats.h"
#include "sae/sae.h"

#include <string.h>

enum { N_ARRAYS = 5, NPY_HEADER = 128, LOCAL_SIZE = 30, ENTRY_SIZE = 46, END_SIZE = 22, NAME_ROOM = 24 };

typedef struct array {
    ams_sae_matrix matrix;
    ams_tensor_out tensor;
    char name[NAME_ROOM], header[NPY_HEADER];
    uint64_t bytes, rows, row_bytes, at; /* bytes: with the header; at: of the local header */
    uint32_t crc;
} array;

static void put(char *bytes, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < n; i++)
        bytes[i] = (char)(value >> 8 * i & 255);
}

/* Version 1.0, padded with spaces and a newline to a multiple of 64, as numpy does. */
static void make_header(array *a)
{
    char shape[48], text[NPY_HEADER];
    const uint64_t *s = a->tensor.shape;
    if (a->tensor.rank == 2) ams_format(shape, sizeof shape, "(%llu, %llu)", (unsigned long long)s[0], (unsigned long long)s[1]);
    else ams_format(shape, sizeof shape, "(%llu,)", (unsigned long long)s[0]);
    ams_format(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    memset(a->header, ' ', NPY_HEADER);
    memcpy(a->header, "\x93NUMPY\1\0", 8);
    put(a->header + 8, 2, NPY_HEADER - 10);
    memcpy(a->header + 10, text, strlen(text));
    a->header[NPY_HEADER - 1] = '\n';
}

/* Local header and entry of the directory have these fields in common. */
static void put_fields(char *bytes, const array *a)
{
    put(bytes, 2, 20);         /* version needed */
    put(bytes + 2, 4, 0);      /* no flags, stored */
    put(bytes + 6, 2, 0);      /* 1 January 1980: the same bytes whenever it is written */
    put(bytes + 8, 2, 0x21);
    put(bytes + 10, 4, a->crc);
    put(bytes + 14, 4, a->bytes);
    put(bytes + 18, 4, a->bytes);
    put(bytes + 22, 2, strlen(a->name));
    put(bytes + 24, 2, 0);
}

/* Makes the array block by block: for its CRC (writer NULL), then for the file. */
static void pass_over(array *a, ams_writer *writer, float *block, uint64_t block_rows)
{
    uint32_t crc = ams_crc32(0, a->header, NPY_HEADER);
    if (writer) ams_writer_append(writer, a->header, NPY_HEADER);
    for (uint64_t first = 0; first < a->rows && (!writer || writer->status == ATMSAE_OK); first += block_rows) {
        uint64_t n = ams_min(block_rows, a->rows - first);
        a->tensor.fill(a->tensor.arg, first, n, block);
        if (writer) ams_writer_append(writer, block, n * a->row_bytes);
        else crc = ams_crc32(crc, block, (size_t)(n * a->row_bytes));
    }
    if (!writer) a->crc = crc;
}

static void append_local(array *a, ams_writer *writer)
{
    char local[LOCAL_SIZE] = "PK\3\4";
    put_fields(local + 4, a);
    ams_writer_append(writer, local, sizeof local);
    ams_writer_append(writer, a->name, strlen(a->name));
}

static void append_directory(const array *arrays, uint64_t at, ams_writer *writer)
{
    char end[END_SIZE] = "PK\5\6";
    uint64_t bytes = 0;
    for (int i = 0; i < N_ARRAYS; i++) {
        char entry[ENTRY_SIZE] = "PK\1\2";
        put(entry + 4, 2, 20);
        put_fields(entry + 6, &arrays[i]);
        put(entry + 42, 4, arrays[i].at);
        ams_writer_append(writer, entry, sizeof entry);
        ams_writer_append(writer, arrays[i].name, strlen(arrays[i].name));
        bytes += ENTRY_SIZE + strlen(arrays[i].name);
    }
    put(end + 8, 2, N_ARRAYS);
    put(end + 10, 2, N_ARRAYS);
    put(end + 12, 4, bytes);
    put(end + 16, 4, at);
    ams_writer_append(writer, end, sizeof end);
}

/* Fills the arrays; *bytes: up to the directory. */
static atmsae_status lay_out(const ams_sae_plan *p, array *arrays, uint64_t *bytes, uint64_t *block_bytes)
{
    static const struct {
        int32_t parameter;
        const char *name;
        bool latents_last;
    } names[N_ARRAYS] = {{ATMSAE_W_ENC, "W_enc", true}, {ATMSAE_W_DEC, "W_dec", false}, {ATMSAE_B_ENC, "b_enc", false},
                         {ATMSAE_B_DEC, "b_dec", false}, {ATMSAE_THRESHOLD, "threshold", false}};
    *bytes = *block_bytes = 0;
    for (int i = 0; i < N_ARRAYS; i++) {
        array *a = &arrays[i];
        *a = (array){0};
        (void)ams_sae_plan_tensor(p, names[i].parameter, names[i].name, names[i].latents_last, &a->matrix, &a->tensor);
        ams_format(a->name, sizeof a->name, "%s.npy", names[i].name);
        make_header(a);
        a->rows = a->tensor.shape[0];
        a->row_bytes = (a->tensor.rank == 2 ? a->tensor.shape[1] : 1) * sizeof(float);
        a->bytes = NPY_HEADER + a->rows * a->row_bytes; /* the model has as many floats: no overflow */
        a->at = *bytes;
        *bytes += LOCAL_SIZE + strlen(a->name) + a->bytes;
        *block_bytes = ams_max(*block_bytes, ams_min(a->rows, ams_max(16, (1 << 20) / a->row_bytes)) * a->row_bytes);
    }
    if (*bytes < UINT32_MAX) return ATMSAE_OK;
    return ams_fail(p->model->ctx, ATMSAE_E_LIMIT, "model_save: the .npz would have %llu bytes, at most 2^32 - 1 are written; "
                    "the saelens format has no limit", (unsigned long long)*bytes);
}

static atmsae_status write_arrays(const ams_sae_plan *p, const char *path)
{
    atmsae_context *ctx = p->model->ctx;
    uint64_t bytes, block_bytes;
    ams_writer writer;
    array *arrays = ams_alloc(ctx, N_ARRAYS, sizeof *arrays);
    if (!arrays) return ams_nomem(ctx, path);
    float *block = NULL;
    atmsae_status status = lay_out(p, arrays, &bytes, &block_bytes);
    if (status == ATMSAE_OK && !(block = ams_alloc(ctx, block_bytes, 1))) status = ams_nomem(ctx, path);
    if (status < 0) goto end;
    for (int i = 0; i < N_ARRAYS; i++)
        pass_over(&arrays[i], NULL, block, block_bytes / arrays[i].row_bytes);
    status = ams_writer_begin(&writer, ctx, path, false);
    if (status < 0) goto end;
    ams_writer_reserve(&writer, bytes);
    for (int i = 0; i < N_ARRAYS; i++) {
        append_local(&arrays[i], &writer);
        pass_over(&arrays[i], &writer, block, block_bytes / arrays[i].row_bytes);
    }
    append_directory(arrays, bytes, &writer);
    status = ams_writer_commit(&writer);
end:
    ams_free(ctx, block);
    ams_free(ctx, arrays);
    return status;
}

atmsae_status ams_write_gemma_scope(const atmsae_model *model, const char *path, const atmsae_save_options *options)
{
    ams_sae_plan p;
    atmsae_status status = ams_sae_plan_make(&p, model, AMS_FOLD_CENTRE | (options->fold_decoder_norm ? AMS_FOLD_NORMS : 0));
    if (status == ATMSAE_OK && p.activation != ATMSAE_RELU && p.activation != ATMSAE_JUMPRELU)
        status = ams_fail(model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: gemma-scope holds JumpReLU and ReLU models, not %s",
                          p.activation == ATMSAE_TOPK ? "TOPK" : "GATED");
    if (status == ATMSAE_OK) status = write_arrays(&p, path);
    ams_sae_plan_end(&p);
    return status;
}
