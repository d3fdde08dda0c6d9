/* SPDX-License-Identifier: MIT
 *
 * The inside of an open tensor file, shared by its formats.
 */
#ifndef AMS_TENSORS_H
#define AMS_TENSORS_H

#include "format/format.h"

typedef struct ams_dtype {
    const char *name;
    uint8_t bits;
    char kind; /* f, i, u, b (BOOL): what read_f32 and read_i64 take; 0: raw only */
} ams_dtype;

typedef struct ams_tensor {
    const char *name; /* NUL behind name_length bytes, which may hold NULs too */
    size_t name_length;
    const ams_dtype *dtype;
    uint64_t rank, shape[8];
    uint64_t count, bytes; /* elements, size */
    uint64_t at;           /* in the file */
    bool column_major;     /* of rank 2, stored column by column (.npy, .npz, .pt) */
} ams_tensor;

/* Bytes of the file with a CRC-32 of their own: entries of a ZIP. */
typedef struct ams_span {
    uint64_t at, bytes;
    uint32_t crc;
} ams_span;

struct atmsae_tensors {
    atmsae_context *ctx;
    char *path;
    int fd;
    uint64_t size; /* of the file */
    char *header;  /* names and metadata point into it */
    ams_tensor *items;
    uint64_t count, capacity;
    ams_metadata_out *metadata;
    uint64_t n_metadata, metadata_capacity;
    ams_span *spans;
    uint64_t n_spans;
};

/* NULL if unknown. */
const ams_dtype *ams_dtype_find(const char *name, size_t length);
/* Position in the order of the safetensors package: greater is stored first. */
uint64_t ams_dtype_rank(const ams_dtype *dtype);
/* Fills count and bytes from dtype and shape; E_LIMIT if they overflow, be it that a later dimension
 * is 0; E_FORMAT if the bits do not fill whole bytes. */
atmsae_status ams_tensor_size(atmsae_context *ctx, ams_tensor *tensor);

/* foreign.c: E_UNSUPPORTED and what the file is, if its first bytes are those of another kind that is known; at least
 * 16 bytes can be read at `start`. */
atmsae_status ams_foreign_file(const atmsae_tensors *tensors, const unsigned char *start, uint64_t bytes);
/* Read and check the header of an open file. */
atmsae_status ams_safetensors_header(atmsae_tensors *tensors);
atmsae_status ams_npy_header(atmsae_tensors *tensors);
atmsae_status ams_npz_header(atmsae_tensors *tensors);
atmsae_status ams_torch_header(atmsae_tensors *tensors);

#endif
