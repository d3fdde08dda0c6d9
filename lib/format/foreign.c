/* SPDX-License-Identifier: MIT
 *
 * Files that are known and not read: what each is, and the line that makes one of it that is.
 */
#include "format/sae_formats.h"
#include "format/tensors.h"

#include <string.h>

/* ---- tensor files, by their first bytes --------------------------------------------------------------- */

#define SAVE ": not read; save its rows with NumPy: numpy.save(\"rows.npy\", "
#define COLUMN "[\"COLUMN\"].to_pylist(), \"f4\"))"
static const struct {
    char start[16];
    size_t length, zero; /* bytes of `start`; which byte is 0 too, if not the first */
    const char *what;
} kinds[] = {
    {"PAR1", 4, 0, "a Parquet file" SAVE "numpy.array(pyarrow.parquet.read_table(FILE)" COLUMN},
    {"ARROW1", 6, 0, "an Arrow file" SAVE "numpy.array(pyarrow.feather.read_table(FILE)" COLUMN},
    {"\xff\xff\xff\xff", 4, 7, "an Arrow stream" SAVE "numpy.array(pyarrow.ipc.open_stream(FILE).read_all()" COLUMN},
    {"\x89HDF\r\n\x1a\n", 8, 0, "an HDF5 file" SAVE "h5py.File(FILE)[\"NAME\"][:])"},
    {"MATLAB 5.0", 10, 0, "a MATLAB file" SAVE "scipy.io.loadmat(FILE)[\"NAME\"])"},
    {"\x80\x04\x95", 3, 0, "a Python pickle, which is a program: not read; save its rows with NumPy: numpy.save(\"rows.npy\", ROWS)"},
    {"\x80\x05\x95", 3, 0, "a Python pickle, which is a program: not read; save its rows with NumPy: numpy.save(\"rows.npy\", ROWS)"},
    {"GGUF", 4, 0, "a GGUF file, which holds a language model or a control vector, no rows and no SAE: not read"},
    {"\x1f\x8b", 2, 0, "compressed with gzip: not read; unpack it first: gunzip -k FILE"},
    {"\x28\xb5\x2f\xfd", 4, 0, "compressed with zstd: not read; unpack it first: zstd -d FILE"},
    {"version https:/", 15, 0, "a pointer of Git LFS, not the file itself: fetch that with git lfs pull"},
};

/* Tensor files begin with binary lengths, so they never pass for text. */
static bool is_text(const unsigned char *start, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        if (start[i] != '\t' && start[i] != '\n' && start[i] != '\r' && (start[i] < 0x20 || start[i] > 0x7e)) return false;
    return bytes >= 8;
}

atmsae_status ams_foreign_file(const atmsae_tensors *t, const unsigned char *start, uint64_t bytes)
{
    if (start[7] == 0 && start[8] == '{') return ATMSAE_OK; /* safetensors, whose length may be any of those bytes */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (bytes >= sizeof kinds[i].start && memcmp(start, kinds[i].start, kinds[i].length) == 0 &&
            (kinds[i].zero == 0 || start[kinds[i].zero] == 0))
            return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "%s: %s", t->path, kinds[i].what);
    if (!is_text(start, bytes)) return ATMSAE_OK;
    return ams_fail(t->ctx, ATMSAE_E_UNSUPPORTED, "%s: a text file" SAVE "numpy.loadtxt(FILE, \"f4\", delimiter=\",\")), with "
                    "skiprows=1 after a line of names", t->path);
}

/* ---- SAEs, by their tensors ----------------------------------------------------------------------------- */

#define BY_SAELENS "; SAELens loads it by its release (SAE.from_pretrained), and what its save_model writes is read"
static const struct {
    const char *ending;
    uint64_t count;         /* of all tensors; 0: any */
    const char *tensors[5]; /* all of them are there */
    const char *what;
} others[] = {
    {".pt", 0, {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight"},
     "an SAE of OpenAI's sparse_autoencoder: not read, as it takes rows that are each centred and scaled by themselves (layer norm), "
     "which a model here has no place for"},
    {".pt", 4, {"W_enc", "W_dec", "b_enc", "b_dec"},
     "an SAE of Qwen-Scope: not read, as its k stands in the name of its release alone" BY_SAELENS},
    {".pt", 0, {"encoder_linear.weight", "decoder_linear.weight"}, "an SAE of Goodfire: not read" BY_SAELENS},
    {".safetensors", 0, {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"},
     "an SAE of Llama Scope: not read, as the factor of its rows stands in hyperparams.json" BY_SAELENS},
    {".safetensors", 0, {"W_E", "W_D", "b_E", "b_D"}, "an SAE of llamascopium: not read" BY_SAELENS},
};

static bool has_all(const atmsae_tensors *file, const char *const *names)
{
    while (*names && ams_tensors_index(file, *names) < UINT64_MAX)
        names++;
    return !*names;
}

atmsae_status ams_foreign_sae(atmsae_context *ctx, const char *weights, atmsae_status status)
{
    char text[1024];
    atmsae_tensors *file;
    if (status == ATMSAE_E_NOMEM) return status;
    atmsae_copy_error(ctx, text, sizeof text);
    const bool opened = atmsae_tensors_open(ctx, weights, &file) == ATMSAE_OK;
    const char *what = NULL;
    for (size_t i = 0; opened && i < sizeof others / sizeof *others && !what; i++)
        if (ams_ends_with(weights, others[i].ending) && (!others[i].count || others[i].count == file->count) &&
            has_all(file, others[i].tensors))
            what = others[i].what;
    if (opened) atmsae_tensors_close(file);
    return what ? ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "%s: %s", weights, what) : ams_fail(ctx, status, "%s", text);
}
