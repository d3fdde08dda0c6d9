/* SPDX-License-Identifier: MIT
 *
 * Formats of trained SAEs: what their readers and writers share. A reader says which tensors hold which
 * parameter (ams_sae_parts) and sae_build.c makes the model; a writer takes the model's tensors as they
 * stand in a file, with scales folded in, from sae_plan.c. The table of formats is in sae_formats.c.
 */
#ifndef AMS_SAE_FORMATS_H
#define AMS_SAE_FORMATS_H

#include "format/format.h"
#include "format/json.h"

/* ---- reading ---------------------------------------------------------------------------------------- */

/* Where an SAE lies: the file of its weights, and the folder that this is in. */
typedef struct ams_sae_place {
    char *folder, *weights;
} ams_sae_place;

/* Keys of a JSON file, and where in a struct their values go. */
typedef struct ams_config_key {
    const char *name;
    char kind; /* string, u64, double, bool; word: a string, or true or false as such; text: a string, other
                  values are passed over; object with `inner` keys, likewise; -: of no meaning here */
    bool required; /* if not, null is as if the key were not there */
    size_t offset;
    uint64_t max;                       /* u64: allowed 1 .. max (0 too where it is not required) */
    const struct ams_config_key *inner; /* object: ends with a name of NULL; same struct */
} ams_config_key;
/* Reads path into *config, which holds the defaults. `keys` ends with a name of NULL. *text, to be freed
 * by the caller whatever comes back, holds the strings. Keys of the outer object that are not in the list
 * are logged if log_unknown. Errors begin with the path. */
atmsae_status ams_config_read(atmsae_context *ctx, const char *path, const ams_config_key *keys, bool log_unknown,
                              void *config, char **text);
enum { AMS_MAX_CONFIG = 1 << 24 }; /* bytes that are read */

/* A tensor of a format. */
typedef struct ams_sae_tensor {
    const char *name;
    int32_t parameter;    /* or one of AMS_TENSOR_.. */
    bool latents_last;    /* [d, F], not [F, d] */
    uint32_t kinds;       /* bit per kind: those that need it; it is an error with the others */
    const char *refusal;  /* AMS_TENSOR_REFUSED: what it stands for */
} ams_sae_tensor;
enum {
    AMS_TENSOR_KNOWN = 0,    /* may be there and says nothing of use */
    AMS_TENSOR_ONES = -1,    /* may be there and must hold ones */
    AMS_TENSOR_REFUSED = -2, /* makes the SAE one that cannot be represented */
    AMS_TENSOR_K = -3,       /* may be there: k, which is the configuration's if that has one */
};
#define AMS_ALL_KINDS (~0u)

typedef struct ams_sae_parts {
    const char *format, *architecture, *config, *config_path; /* for texts: its name, what it calls itself,
                                                                 what says the sizes, and where that is */
    const ams_sae_tensor *tensors;              /* ends with a name of NULL */
    unsigned kind;                              /* which bit of `kinds` */
    int32_t activation;
    bool centred;    /* b_dec is subtracted from the input */
    bool transcoder; /* of two kinds of rows, of equal width or not */
    bool unsaid;     /* the format does not say which: one that is not centred may be a transcoder */
    bool weigh_by_norm; /* latents are selected by z |d_i|: the norms go into the encoder */
    uint64_t d_in, d_out, d_sae;
    double k;        /* NAN: not known, an error where latents are selected by it */
    const char *model_name, *hook_name, *hook_name_out; /* NULL: not known */
} ams_sae_parts;
/* Checks every tensor of the open file against the parts, then makes the model. Errors begin with `path`. */
atmsae_status ams_sae_build(atmsae_context *ctx, const ams_sae_parts *parts, const char *path,
                            const atmsae_tensors *file, atmsae_model **out);
/* Shape of a tensor of the file; E_FORMAT if it is missing or has another rank. */
atmsae_status ams_sae_shape(atmsae_context *ctx, const atmsae_tensors *file, const char *name, uint64_t rank, uint64_t shape[8]);

atmsae_status ams_read_saelens(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);
atmsae_status ams_read_sparsify(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);
atmsae_status ams_read_gemma_scope(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);
atmsae_status ams_read_gemma_scope_2(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);
atmsae_status ams_read_dictionary_learning(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);

/* foreign.c: `status` and its text of a reader that failed; or E_UNSUPPORTED and what the weights are, if their tensors
 * are those of a package that is known. */
atmsae_status ams_foreign_sae(atmsae_context *ctx, const char *weights, atmsae_status status);

/* Norm of a decoder row divided by `scale`; exactly 1 where it is within rounding of 1, so that folding
 * twice is folding once. */
float ams_fold_norm(const float *row, uint64_t cols, float scale);

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Architectures of SAELens by name, and the activation that each stands for at inference. */
typedef struct ams_architecture {
    const char *name;
    int32_t activation;
    bool transcoder;
} ams_architecture;
extern const ams_architecture ams_architectures[]; /* ends with a name of NULL */
extern const ams_sae_tensor ams_saelens_tensors[]; /* kinds: activations */

/* A tensor to be, which `fill` makes row by row. */
typedef struct ams_sae_matrix {
    const float *values; /* of the model, latents first; NULL: all are the factor */
    uint64_t rows, cols;
    float factor;
    bool divide;         /* by the factor */
    const float *latent; /* [F] another factor for each latent; NULL: 1 */
    const float *minus;  /* b_enc: [F] what is taken off first; NULL: nothing */
} ams_sae_matrix;

typedef struct ams_sae_plan {
    const atmsae_model *model;
    atmsae_model_config config;
    int32_t activation;  /* of the file: BATCHTOPK and JUMPRELU_TANH have become JUMPRELU */
    float s, t, threshold; /* threshold: BATCHTOPK's */
    float *norms;        /* [F] of the file's decoder rows, to be folded; NULL: they stay */
    float *centre;       /* [F] W_enc b_dec, to be folded into b_enc; NULL: it is not */
} ams_sae_plan;
enum { AMS_FOLD_NORMS = 1, AMS_FOLD_CENTRE = 2 };
/* Ends with ams_sae_plan_end, also after a failure. */
atmsae_status ams_sae_plan_make(ams_sae_plan *plan, const atmsae_model *model, unsigned folds);
void ams_sae_plan_end(ams_sae_plan *plan);
/* The tensor of one parameter; its `arg` is *matrix. False if the model does not have it (a threshold can
 * always be had). */
bool ams_sae_plan_tensor(const ams_sae_plan *plan, int32_t parameter, const char *name, bool latents_last,
                         ams_sae_matrix *matrix, ams_tensor_out *out);

atmsae_status ams_write_saelens(const atmsae_model *model, const char *path, const atmsae_save_options *options);
atmsae_status ams_write_gemma_scope(const atmsae_model *model, const char *path, const atmsae_save_options *options);
atmsae_status ams_write_gguf(const atmsae_model *model, const char *path, const atmsae_save_options *options);

/* ---- the two files of a SAELens folder (sae_folder.c) ------------------------------------------------- */

/* They belong together. The weights' metadata holds the first pair as a mark, and cfg.json's the CRC-64 of the
 * marked file: what SAELens writes has no mark, so that a CRC it carried over from a folder that it read means
 * nothing. */
#define AMS_FOLDER_MARK "checksum"
#define AMS_FOLDER_MARK_TEXT "cfg.json: metadata.weights_crc64"
#define AMS_FOLDER_CRC "weights_crc64"
#define AMS_FOLDER_TRANSCODER "libatmsae_transcoder" /* of cfg.json's metadata, where the architecture cannot say it */
#define AMS_FOLDER_WEIGHTS "sae_weights.safetensors"
enum { AMS_FOLDER_CRC_TEXT = 20 };
void ams_folder_crc_text(char out[AMS_FOLDER_CRC_TEXT], uint64_t crc);
bool ams_folder_crc_is(uint64_t crc, const char *text); /* text may be NULL */

typedef struct ams_folder {
    atmsae_context *ctx;
    char *config, *weights, *staged; /* paths */
} ams_folder;
/* Ends with ams_folder_end, also after a failure. */
atmsae_status ams_folder_find(ams_folder *folder, atmsae_context *ctx, const char *dir);
void ams_folder_end(ams_folder *folder);
bool ams_folder_is_marked(const atmsae_tensors *file);
/* The staged weights, if they have the CRC-64 `wanted`, which may be NULL; *file is NULL if not. */
atmsae_status ams_folder_open_staged(const ams_folder *folder, const char *wanted, atmsae_tensors **file);
/* Are they those that cfg.json names? */
atmsae_status ams_folder_pending(const ams_folder *folder, bool *pending);
/* Begins both files of a save, and completes an earlier one. On failure there is nothing to end. */
atmsae_status ams_folder_begin(const ams_folder *folder, ams_writer *weights, ams_writer *config);
/* Both at once. On failure the old SAE stands, unless `placed` of config says that the new one does. */
atmsae_status ams_folder_commit(ams_writer *weights, ams_writer *config);

#endif
