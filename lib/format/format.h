/* SPDX-License-Identifier: MIT
 *
 * Files: tensor files in and out, atomic writing, SAE folders. json.h has the JSON reader.
 */
#ifndef AMS_FORMAT_H
#define AMS_FORMAT_H

#include "base/base.h"

#include <sys/stat.h>
#include <sys/types.h>

typedef struct ams_writer ams_writer; /* below */

/* ---- tensor files in: the public atmsae_tensors handle, plus raw access ------------------------ */

/* Bytes of an element of a safetensors dtype ("F16" 2, "I64" 8, ...); 0 if unknown or below a byte. */
size_t ams_dtype_size(const char *dtype);
/* UINT64_MAX if there is none. */
uint64_t ams_tensors_index(const atmsae_tensors *tensors, const char *name);
/* Elements first .. first+count-1 of a tensor as they are in the file (little-endian, in its order), by
 * pread. */
atmsae_status ams_tensors_read_raw(const atmsae_tensors *tensors, uint64_t index, uint64_t first,
                                   uint64_t count, void *out);
/* The same, converted: the float types to f32. */
atmsae_status ams_tensors_read_part(const atmsae_tensors *tensors, uint64_t index, uint64_t first,
                                    uint64_t count, float *out);
/* The same of rows first .. first+rows-1, a row being all elements along the last dimension, row by row however
 * they are stored: F64 as F32, others as they are. Of rank 1 and more. */
atmsae_status ams_tensors_read_rows(const atmsae_tensors *tensors, uint64_t index, uint64_t first, uint64_t rows,
                                    void *out);
/* Stored column by column, which read_raw and read_part show and atmsae_tensors_read_f32 does not? */
bool ams_tensors_column_major(const atmsae_tensors *tensors, uint64_t index);
/* Compares the CRC-32 of every entry of a ZIP archive (.npz, .pt) with the archive's own. */
atmsae_status ams_tensors_check_spans(const atmsae_tensors *tensors);
/* Value of a string in __metadata__; NULL if there is none. Lent until close. */
const char *ams_tensors_metadata(const atmsae_tensors *tensors, const char *key);

/* ---- safetensors out ---------------------------------------------------------------------------- */

typedef struct ams_tensor_out {
    const char *name;
    const char *dtype; /* "F32", "U64", ... */
    uint64_t rank, shape[4];
    const void *data;  /* little-endian elements; or NULL and: */
    /* Makes rows first .. first+rows-1 (a row: all elements at one index of shape[0]), so that a
     * transposed or scaled copy never exists whole. */
    void (*fill)(const void *arg, uint64_t first, uint64_t rows, void *out);
    const void *arg;
} ams_tensor_out;
typedef struct ams_metadata_out {
    const char *key, *value; /* UTF-8; escaped by the writer */
} ams_metadata_out;
/* Writes atomically. With `checksum`, tensors are stored in the order given, and a last one named
 * "checksum" (U64 [1]) holds the CRC-64 of all bytes before it. Without, they are stored in the
 * order of the safetensors package, so that the file has the bytes that it would write. */
atmsae_status ams_safetensors_write(atmsae_context *ctx, const char *path, const ams_tensor_out *tensors,
                                    uint64_t n_tensors, const ams_metadata_out *metadata,
                                    uint64_t n_metadata, bool checksum);
/* The same into a writer that was begun, without the commit. */
atmsae_status ams_safetensors_append(ams_writer *writer, const ams_tensor_out *tensors, uint64_t n_tensors,
                                     const ams_metadata_out *metadata, uint64_t n_metadata, bool checksum);
/* CRC-64 of the whole file. */
atmsae_status ams_tensors_crc(const atmsae_tensors *tensors, uint64_t *crc);
/* Verifies that checksum; E_FORMAT if it is wrong or missing. */
atmsae_status ams_tensors_verify(const atmsae_tensors *tensors);

/* ---- whole files: all or nothing ------------------------------------------------------------------ */

/* The system calls of writing. Tests of what happens when one fails, is cut short or is the last
 * before a power cut put their own in (ams_context_set_io). */
typedef struct ams_io {
    int (*openat)(int dir, const char *path, int flags, ...);
    int (*flock)(int fd, int operation);
    int (*fallocate)(int fd, int mode, off_t offset, off_t length);
    ssize_t (*write)(int fd, const void *data, size_t bytes);
    int (*fsync)(int fd);
    int (*renameat)(int old_dir, const char *old_path, int new_dir, const char *new_path);
    int (*unlinkat)(int dir, const char *path, int flags);
    int (*close)(int fd);
} ams_io;

/* Bytes go to a temporary file beside the real file that `path` names (a symbolic link stays one), which then
 * takes its place, and its access rights. Errors are kept: what follows the first does nothing, and returns it. */
struct ams_writer {
    atmsae_context *ctx;
    const ams_io *io;
    const char *path; /* lent by the caller; for messages */
    char *file, *names;
    const char *base;   /* last part of `file` */
    const char *temp;   /* name of the temporary file now */
    const char *staged; /* name that it gets with ams_writer_stage */
    int dir, fd;
    int left; /* the staged file of an earlier writer, claimed; -1: none */
    bool with_crc, synced;
    bool placed; /* the new file has its name */
    bool kept;   /* the temporary file is to stay */
    uint64_t crc; /* of all bytes so far */
    atmsae_status status;
};
/* On failure there is nothing to end. */
atmsae_status ams_writer_begin(ams_writer *writer, atmsae_context *ctx, const char *path, bool with_crc);
/* The size to come, to learn early of a full disk. */
void ams_writer_reserve(ams_writer *writer, uint64_t bytes);
void ams_writer_append(ams_writer *writer, const void *data, uint64_t bytes);
/* fsync ahead of the rest, for more than one file that should appear together. */
atmsae_status ams_writer_sync(ams_writer *writer);
/* fsync, rename, fsync of the folder. On failure the old file stands, unless `placed` is set: then the fsync of the
 * folder is all that failed. */
atmsae_status ams_writer_place(ams_writer *writer);
/* Removes the temporary file, if it has not taken its place and is not to be kept. Twice is once. */
void ams_writer_end(ams_writer *writer);
/* place and end. */
atmsae_status ams_writer_commit(ams_writer *writer);

/* For two files of one save (sae_folder.c). Stage: the temporary file gets the staged name, for good: fsync of file
 * and folder, rename, fsync of the folder. A later place goes on from there. */
atmsae_status ams_writer_stage(ams_writer *writer);
atmsae_status ams_writer_sync_folder(ams_writer *writer);
/* Is there a staged file of an earlier writer? It is locked until the end; E_IO if that writer is still at it. */
atmsae_status ams_writer_claim_staged(ams_writer *writer, bool *there);
/* Puts that file in place. */
atmsae_status ams_writer_place_staged(ams_writer *writer);

atmsae_status ams_write_file(atmsae_context *ctx, const char *path, const void *data, uint64_t bytes);
/* Opens a regular file for reading; anything else (a folder, a pipe) is E_IO. */
atmsae_status ams_open_read(atmsae_context *ctx, const char *path, int *fd, uint64_t *bytes);
/* Reads all `bytes` at `offset`; E_TRUNCATED at the end of the file. */
atmsae_status ams_pread(atmsae_context *ctx, const char *path, int fd, void *out, uint64_t bytes, uint64_t offset);
/* CRC-64 of the first `bytes` bytes. */
atmsae_status ams_file_crc(atmsae_context *ctx, const char *path, int fd, uint64_t bytes, uint64_t *crc);
/* Reads a file of at most `limit` bytes into new memory (ams_free), NUL-terminated. */
atmsae_status ams_read_file(atmsae_context *ctx, const char *path, uint64_t limit, char **data, uint64_t *bytes);

/* ---- paths ------------------------------------------------------------------------------------------ */

/* "dir/name" in new memory; NULL and E_NOMEM set if there is none. */
char *ams_path_join(atmsae_context *ctx, const char *dir, const char *name);
bool ams_path_exists(const char *path);
bool ams_ends_with(const char *text, const char *end);
/* The file that `path` names when symbolic links in its last part are followed, also to a file that does not exist
 * yet, in new memory; `st`: what lstat says of it, all 0 if it does not exist. A link of somebody else in a folder that
 * anyone may write to is refused, and with `writing` so is a file of somebody else there. */
atmsae_status ams_path_resolve(atmsae_context *ctx, const char *path, bool writing, char **file, struct stat *st);
/* "NAME.staged.END" for "NAME.END". */
#define AMS_STAGED ".staged"
void ams_staged_name(char *out, size_t size, const char *name);

/* ---- sorting ---------------------------------------------------------------------------------------- */

/* Heapsort of records of at most 32 bytes: the C library's qsort allocates. */
void ams_sort(void *records, uint64_t count, size_t size, int (*compare)(const void *, const void *));

#endif
