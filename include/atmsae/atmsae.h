/* SPDX-License-Identifier: MIT
 *
 * libatmsae: sparse autoencoders (SAEs) with Adaptive Temporal Masking, in C.
 *
 * This header is the manual. It goes from simple to explicit:
 *
 *   1. Conventions                 read this part once
 *   2. Status, version, context    every program needs a context
 *   3. Model                       parameters, encode, decode
 *   4. Trainer                     the ready training step, checkpoints
 *   5. Sources                     rows from memory, files, callbacks
 *   6. The loop by hand            forward, backward, tracker, masker, optimizer
 *   7. Evaluation                  reconstruction, absorption, synthetic truth
 *   8. Tensor files                read single tensors of .npy, .npz, .safetensors and .pt
 *
 * The smallest program that trains an SAE on rows in memory:
 *
 *     atmsae_context *ctx;
 *     atmsae_context_create(NULL, &ctx);
 *
 *     atmsae_model_config model;
 *     atmsae_model_config_init(&model, sizeof model);
 *     model.d_in = 768;  model.d_sae = 16384;  model.k = 32;
 *
 *     atmsae_trainer_config config;
 *     atmsae_trainer_config_init(&config, sizeof config);
 *     config.model = &model;  config.total_rows = n_batches * 4096;
 *
 *     atmsae_trainer *trainer;
 *     if (atmsae_trainer_create(ctx, &config, &trainer) < 0)
 *         fail(atmsae_last_error(ctx));
 *
 *     atmsae_batch batch;
 *     atmsae_batch_init(&batch, sizeof batch);
 *     batch.n_rows = 4096;  batch.x = rows;
 *     atmsae_trainer_prepare(trainer, &batch);              (scale and b_dec from the data)
 *     for each batch:  atmsae_trainer_step(trainer, &batch, NULL);
 *     atmsae_trainer_calibrate(trainer, &batch);            (threshold for inference)
 *     atmsae_model_save(atmsae_trainer_model(trainer), "out", NULL);
 *
 *     atmsae_trainer_destroy(trainer);
 *     atmsae_context_destroy(ctx);
 *
 * 1. Conventions
 * ==============
 *
 * Symbols. n rows in a batch, d_in the width of an input row, d_out the width of an output row
 * (d_out = d_in for an autoencoder), F = d_sae latents. Matrices are row-major and latent-major:
 * W_enc [F, d_in] and W_dec [F, d_out], so row i of either belongs to latent i.
 *
 *     x~ = input_scale * x - b_dec        (uncentred, as transcoders are: x~ = input_scale * x)
 *     z  = W_enc x~ + b_enc               pre-activations
 *     f  = activation(z)                  latents, f >= 0
 *     x^ = W_dec^T f + b_dec              reconstruction, in scaled units
 *     e  = output_scale * y - x^          residual (autoencoder: y = x; transcoder: y is its target,
 *                                         the output of an MLP whose input is x, say)
 *
 * Losses are sums over the d_out dimensions and weighted means over rows:
 *     L = sum_r w_r (|e_r|^2 + penalties of row r) / sum_r w_r.
 *
 * Handles are opaque. create copies its configuration; destroy(NULL) does nothing; handles that
 * belong to a context keep it alive, so destroy them in any order. On failure a create writes
 * NULL to *out.
 *
 * Structs start with `size`. Those of settings have an init function, which writes the size and the
 * defaults; results have none: set size = sizeof yourself.
 *     atmsae_x_config c;  atmsae_x_config_init(&c, sizeof c);
 * Fields are only ever appended, so a program built against an older header keeps working.
 * `_init` does nothing for a NULL pointer. A size that is none of ours gives ATMSAE_E_ABI.
 *
 * Errors. Functions that can fail return atmsae_status: 0 or a negative code. The text of the last
 * failure on a context, with the values and the allowed range, is atmsae_last_error(). After a
 * failure the handle is as it was before the call and stays usable; codes and gradients that a
 * failed call was filling hold nothing then. The library never prints, exits, aborts, installs
 * signal handlers or changes process-wide settings. One exception is not ours: BLIS aborts (and
 * the OpenMP runtime under it exits) when its own allocation fails. context_create takes what BLIS
 * needs in advance; small blocks for each product remain in its OpenMP and pthread builds.
 *
 * Threads. Different handles may be used from different threads at the same time. One handle: one
 * thread at a time, except that functions taking it as `const` may run concurrently while no other
 * function uses it. A context may be shared by all of them; its worker threads serve one call at a
 * time. The text of the last failure is shared too: atmsae_copy_error takes it whole, but it may be that
 * of another thread's failure. Threads that need their own text need their own context.
 * Callbacks run on the calling thread and must not use the handle that called them. Breaking these
 * rules gives ATMSAE_E_STATE and changes nothing (destroy and the functions that lend or return a
 * value without a status do not look). A C++ exception may leave a callback: it goes on through the call,
 * which gives its handles back; memory that the call had taken for itself is lost. longjmp may not.
 *
 * Processes. After fork a child may destroy the handles it inherited; other calls on them give
 * ATMSAE_E_STATE. It may create a context of its own, whatever the flavour of BLIS, if no thread was
 * inside a call at the fork (BLIS's locks stay as they were). The parent goes on as before.
 *
 * Floating point. Calls compute in the default environment (round to nearest, denormals kept, no
 * traps), whatever the caller's, which they give back as it was, flags included. Callbacks run in
 * the default one.
 *
 * Results. Same inputs, same bits: whatever the number of threads, the split of rows into encode
 * calls, the x86 vector level, the C library (exp, log and the like are the library's own), and
 * across a checkpoint. Matrix products only propose candidates; every reported pre-activation is
 * one dot product in a fixed order of additions. Ties in any top-k go to the lower index.
 */
#ifndef ATMSAE_H
#define ATMSAE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ATMSAE_API __attribute__((visibility("default")))
#define ATMSAE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ATMSAE_API
#define ATMSAE_MUST_CHECK
#endif

/* ============================================================================================
 * 2. Status, version, context
 * ============================================================================================ */

#define ATMSAE_VERSION_MAJOR 0
#define ATMSAE_VERSION_MINOR 1
#define ATMSAE_VERSION_PATCH 0

typedef int32_t atmsae_status;
enum {
    ATMSAE_OK = 0,
    ATMSAE_E_ARG = -1,         /* an argument or setting is out of range */
    ATMSAE_E_NOMEM = -2,       /* an allocation failed */
    ATMSAE_E_STATE = -3,       /* right call, wrong time: e.g. encode before a threshold exists */
    ATMSAE_E_UNSUPPORTED = -4, /* well-formed, but not something this version does */
    ATMSAE_E_ABI = -5,         /* a struct's size field is none this library knows */
    ATMSAE_E_NONFINITE = -6,   /* NaN or Inf in the data, the loss or a gradient */
    ATMSAE_E_LIMIT = -7,       /* a size overflows or exceeds a documented limit */
    ATMSAE_E_IO = -10,         /* the operating system refused; the text has its reason */
    ATMSAE_E_FORMAT = -11,     /* a file is malformed or its checksum is wrong */
    ATMSAE_E_TRUNCATED = -12,  /* a file ends too early */
    ATMSAE_E_VERSION = -13,    /* a file was written by a newer version */
    ATMSAE_E_CALLBACK = -20,   /* a caller's callback returned a failure */
    ATMSAE_E_STOPPED = -21     /* atmsae_request_stop was called */
};

/* major * 10000 + minor * 100 + patch of the library that is loaded. */
ATMSAE_API uint32_t atmsae_version_number(void);
ATMSAE_API const char *atmsae_version_string(void);
/* "ATMSAE_E_ARG" and so on; a static string for any value, also unknown ones. */
ATMSAE_API const char *atmsae_status_name(atmsae_status status);

typedef struct atmsae_context atmsae_context;

/* Memory hook. alloc returns memory aligned to `align` (a power of two) or NULL; free takes what
 * alloc returned. Both may be called from any thread that uses the context and from its workers;
 * they must not call the library. BLIS allocates outside of it. */
typedef struct atmsae_allocator {
    void *opaque;
    void *(*alloc)(void *opaque, size_t align, size_t bytes);
    void (*free)(void *opaque, void *memory);
} atmsae_allocator;

enum { ATMSAE_LOG_ERROR = 1, ATMSAE_LOG_WARNING = 2, ATMSAE_LOG_INFO = 3 };

enum { ATMSAE_PRECISION_F32 = 0, ATMSAE_PRECISION_BF16 = 1 };

typedef struct atmsae_context_config {
    size_t size;
    uint32_t threads; /* threads that compute, the caller's included; 0 (default): one for each CPU that this
                         process may use (affinity mask, cgroup v2's cpu.max) */
    int32_t log_level; /* most verbose level passed to `log`; default ATMSAE_LOG_INFO */
    const atmsae_allocator *allocator; /* NULL (default): malloc */
    void (*log)(void *opaque, int32_t level, const char *message); /* NULL (default): silent */
    void *log_opaque;
    int32_t precision; /* of the matrix product that proposes latents. Results are the same to the bit,
                          since every value is computed again in f32 and selection allows for the
                          product's error. ATMSAE_PRECISION_F32 (default): in 16-bit integers, whose sums
                          are exact, on CPUs with AVX512-VNNI or with AVX2 and no AVX-512, else by BLIS
                          in f32. BF16: by AMX, else the same. It asks Linux for the tile registers, for
                          the whole process and for good (signal stacks must then have 8 KB more).
                          Others: E_ARG */
    int32_t pad0_;
} atmsae_context_config;

ATMSAE_API void atmsae_context_config_init(atmsae_context_config *config, size_t size);
/* config NULL: the defaults. Fewer threads than asked for are no error. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_context_create(const atmsae_context_config *config, atmsae_context **out);
ATMSAE_API void atmsae_context_destroy(atmsae_context *context);
/* Text of the last failure on this context, "" if none. Valid until the next failure. A call without a handle has no
 * context to leave a text on: its status says ATMSAE_E_ARG. */
ATMSAE_API const char *atmsae_last_error(const atmsae_context *context);
/* Copies that text to out, cut to room - 1 bytes and a 0 (out may be NULL if room is 0), and returns its
 * full length, at most 1023. Any thread may call it at any time and gets a whole text: that of the last
 * failure on the context, of whichever thread. */
ATMSAE_API size_t atmsae_copy_error(const atmsae_context *context, char *out, size_t room);
ATMSAE_API uint32_t atmsae_context_threads(const atmsae_context *context);
/* Asks training to stop. It is one atomic store: a signal handler may do it. From then on
 * atmsae_trainer_step returns ATMSAE_E_STOPPED before it does anything; all else works, so that the
 * program can save a checkpoint. clear takes the request back. */
ATMSAE_API void atmsae_request_stop(atmsae_context *context);
ATMSAE_API void atmsae_clear_stop(atmsae_context *context);
ATMSAE_API int32_t atmsae_stop_requested(const atmsae_context *context); /* 1 or 0 */
/* One line for logs: vector level in use, BLIS version and kernel set. Static for the context. */
ATMSAE_API const char *atmsae_context_cpu(const atmsae_context *context);

/* ============================================================================================
 * 3. Model
 * ============================================================================================ */

typedef struct atmsae_model atmsae_model;

/* Element types of rows. */
enum { ATMSAE_F32 = 1, ATMSAE_F16 = 2, ATMSAE_BF16 = 3 };

/* Activation functions. "theta" is the per-latent threshold. Sources in doc/method.md. */
enum {
    ATMSAE_RELU = 1,     /* f = max(z, 0); penalty sparsity_coef * sum f_i |d_i| */
    ATMSAE_TOPK = 2,     /* the k largest positive z of each row */
    ATMSAE_BATCHTOPK = 3, /* the k*n largest positive z of the batch; inference: z > one threshold */
    ATMSAE_JUMPRELU = 4, /* DeepMind: f = z [z > theta]; penalty on L0, straight-through to theta */
    ATMSAE_JUMPRELU_TANH = 5, /* Anthropic: tanh penalty, pre-activation loss, gradient also to z */
    ATMSAE_GATED = 6     /* gate on b_enc, magnitude on (r_mag, b_mag), auxiliary reconstruction */
};

enum { ATMSAE_AUTO = 0 };
/* decoder_norm */
enum { ATMSAE_DECODER_FREE = 1, ATMSAE_DECODER_UNIT = 2 };
/* input_norm */
enum { ATMSAE_INPUT_RAW = 1, ATMSAE_INPUT_SQRT_D = 2 };
/* b_dec_init */
enum { ATMSAE_B_DEC_ZERO = 1, ATMSAE_B_DEC_MEAN = 2, ATMSAE_B_DEC_MEDIAN = 3 };

typedef struct atmsae_model_config {
    size_t size;
    uint64_t d_in;  /* required, 1 .. 2^22 */
    uint64_t d_out; /* 0 (default): d_in; another width than d_in makes a transcoder */
    uint64_t d_sae; /* required, 1 .. 2^31 - 1 */
    uint64_t seed;  /* of the initial weights; default 0 */
    int32_t activation;   /* default ATMSAE_BATCHTOPK */
    int32_t decoder_norm; /* ATMSAE_AUTO: free for RELU and JUMPRELU_TANH, else unit rows, kept by
                             projecting the gradient and renormalising after every step */
    int32_t input_norm;   /* ATMSAE_INPUT_SQRT_D (default): prepare scales rows so that their mean
                             norm is sqrt(d); ATMSAE_INPUT_RAW leaves them */
    int32_t b_dec_init;   /* set by prepare; ATMSAE_B_DEC_MEAN (default), MEDIAN (geometric) or ZERO */
    int32_t transcoder;   /* 1: what is reconstructed is another tensor than the input, so every batch that is
                             trained on or measured needs its targets y. Default 0; 1 if d_out differs from d_in */
    int32_t pad0_;
    double k;             /* latents a row, TOPK (whole number) and BATCHTOPK; default 32; 0 < k <= d_sae */
    double sparsity_coef; /* lambda of RELU, JUMPRELU, JUMPRELU_TANH, GATED; default NaN: the
                             activation's own (5, 1, 10, 1), see doc/method.md */
    double target_l0;     /* > 0 (default 0), of the same four: prepare starts thresholds, or b_enc, where L0 is the
                             target on its rows, and the trainer moves the coefficient, which starts at
                             sparsity_coef, and the thresholds so that L0 stays there; calibrate ends at it */
    double bandwidth;     /* eps of the JumpReLU kernels, in units of pre-activations (scaled rows);
                             default NaN: 0.5 (JUMPRELU), 2 (JUMPRELU_TANH). Entries in the band are
                             stored, about 40 bytes each in a step: with 2, nearly all n * F at first */
    double init_threshold; /* initial theta of both JumpReLU forms, of no account with target_l0; default NaN:
                              0.5 and 0.1 */
    double tanh_scale;    /* c of JUMPRELU_TANH; default 4 */
    double pre_act_coef;  /* lambda_P of JUMPRELU_TANH; default 3e-6 */
    double decoder_init_norm; /* norm of initial W_dec rows where they are free; default 0.1 */
    double aux_coef;      /* weight of AuxK, the reconstruction of the residual by dead latents;
                             0 turns it off; default 1/32 */
    uint64_t aux_k;       /* dead latents a row in AuxK; 0 (default): max(1, d_in / 2) */
    uint64_t n_prefixes;  /* Matryoshka: number of widths below d_sae; 0 (default): none; <= 63 */
    const uint64_t *prefixes; /* strictly increasing widths, the last < d_sae; copied */
    int32_t uncentred;    /* 1: b_dec is not subtracted from the input (SAELens: apply_b_dec_to_input false).
                             Default 0; 1 for a transcoder, whose b_dec is the centre of its targets */
    int32_t pad1_;
} atmsae_model_config;

ATMSAE_API void atmsae_model_config_init(atmsae_model_config *config, size_t size);
/* Creates a model with initial weights: W_dec rows uniform on the sphere, W_enc = W_dec or, of a transcoder,
 * its own random rows, biases 0. E_ARG names the setting and its range. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_create(atmsae_context *context, const atmsae_model_config *config, atmsae_model **out);
ATMSAE_API void atmsae_model_destroy(atmsae_model *model);
/* The configuration with every default resolved. `prefixes` points into the model. */
ATMSAE_API atmsae_status
atmsae_model_get_config(const atmsae_model *model, atmsae_model_config *config);

/* Parameters. Shapes: W_ENC [F, d_in], W_DEC [F, d_out], B_DEC [d_out], all others [F].
 * GATED: B_ENC is b_gate. THRESHOLD is theta, of both JumpReLU forms; what is trained is its
 * logarithm, and gradients are with respect to that. BATCHTOPK's one inference threshold, the
 * input scale and the output scale are [1] and not trained. */
enum {
    ATMSAE_W_ENC = 1,
    ATMSAE_B_ENC = 2,
    ATMSAE_W_DEC = 3,
    ATMSAE_B_DEC = 4,
    ATMSAE_THRESHOLD = 5,
    ATMSAE_R_MAG = 6,
    ATMSAE_B_MAG = 7,
    ATMSAE_BATCH_THRESHOLD = 8, /* NaN until calibrated or trained */
    ATMSAE_INPUT_SCALE = 9,
    ATMSAE_OUTPUT_SCALE = 10
};
/* Lends the values of one parameter: *count floats at the returned pointer, valid until the next
 * non-const call on the model. NULL (count 0) if the model does not have it. */
ATMSAE_API const float *atmsae_model_view(const atmsae_model *model, int32_t parameter, uint64_t *count);
/* Copies values in. count must be the parameter's; values must be finite (thresholds and scales
 * > 0 or >= 0 as their meaning asks). */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_set(atmsae_model *model, int32_t parameter, const float *values, uint64_t count);

/* A block of rows that the caller owns. `ld` counts elements between the starts of two rows. */
typedef struct atmsae_batch {
    size_t size;
    uint64_t n_rows;
    const void *x;   /* [n_rows, d_in] */
    uint64_t ld_x;   /* 0 (default): d_in */
    const void *y;   /* [n_rows, d_out] targets. NULL (default): y = x; E_ARG for a transcoder, except where
                        only latents are wanted: encode, calibrate */
    uint64_t ld_y;   /* 0: d_out */
    const float *row_weights; /* [n_rows] >= 0, finite; NULL (default): 1. A row of weight 0 takes no
                                 part in anything, selection included */
    int32_t x_type;  /* ATMSAE_F32 (default), F16, BF16 */
    int32_t y_type;
} atmsae_batch;
ATMSAE_API void atmsae_batch_init(atmsae_batch *batch, size_t size);

/* How long rows are, and what hangs on the longest of them. Language models have rows, attention sinks and those of BOS
 * tokens, that are tens or hundreds of times as long as the others. A few of them decide scales, b_dec and every sum of squares, FVU
 * included. A trainer leaves them out with max_norm. Elsewhere atmsae_batch_limit gives them weight 0. */
typedef struct atmsae_row_norms {
    size_t size;
    uint64_t rows;     /* of non-zero weight, without NaN and infinite values: the others count nowhere here */
    double median;     /* of the norms |x_r|; of an even number of rows the mean of the two in the middle */
    double largest;    /* norm */
    uint64_t top_rows; /* the longest 1 % of the rows, or those above 10 times the median norm where these are more */
    double top_share;  /* their share of sum_r |x_r - mean row|^2, 0 .. 1; 0 where that sum is 0. Above 0.5 prepare logs a
                          warning: sums of squares say more of these rows than of all others */
} atmsae_row_norms;
/* Measures x, [n_rows, d], d up to 2^22; targets are measured as the x of a batch of their own. All fields are 0 where no row
 * counts. norms' size must be set. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_batch_norms(atmsae_context *context, const atmsae_batch *batch, uint64_t d, atmsae_row_norms *norms);
/* Fills weights [n_rows] with those of the batch, or 0 for rows of x with |x_r| above `norm`, which must be above 0; what has a
 * NaN or infinite value keeps its weight, so that the call that uses it can refuse it. Set batch->row_weights to `weights` then;
 * it may be that array already. left_out, if not NULL, gets the number of rows that had another weight than 0 before. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_batch_limit(atmsae_context *context, const atmsae_batch *batch, uint64_t d, double norm, float *weights,
                   uint64_t *left_out);

/* Sets input_scale, output_scale and b_dec from rows of the data, as input_norm and b_dec_init
 * say. Any number of rows >= 1; 32768 are plenty. Call it before training. Logs warnings of rows that will
 * not train well, see atmsae_row_norms. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_prepare(atmsae_model *model, const atmsae_batch *batch);

/* Sparse latents of a batch, row by row: compressed rows. A codes handle also holds the working
 * memory of the calls that fill it; once it has seen a batch of some size, forwards of at most that
 * size allocate nothing for TOPK and BATCHTOPK, nor does encode for TOPK. Where the number of
 * entries is open it grows geometrically. */
typedef struct atmsae_codes atmsae_codes;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_codes_create(atmsae_context *context, atmsae_codes **out);
ATMSAE_API void atmsae_codes_destroy(atmsae_codes *codes);

typedef struct atmsae_codes_view {
    size_t size;
    uint64_t n_rows;
    uint64_t d_sae;
    const uint64_t *row_start; /* [n_rows + 1]; entries of row r: row_start[r] .. row_start[r+1]-1 */
    const uint32_t *latent;    /* ascending within a row */
    const float *value;        /* f >= 0. After a training forward some may be 0: the entries of
                                  JUMPRELU within half a bandwidth under theta, of GATED with an
                                  open gate and no magnitude. After encode all are > 0. */
} atmsae_codes_view;
/* Lends the entries until the next call that fills or destroys `codes`. */
ATMSAE_API atmsae_status atmsae_codes_get(const atmsae_codes *codes, atmsae_codes_view *view);

/* Inference: fills codes with the latents of x (y and row_weights are ignored). No mask is
 * involved; a row's result does not depend on the other rows. BATCHTOPK needs its threshold
 * (calibrate, or at least one training step): E_STATE before. E_NONFINITE names the first bad row,
 * one whose pre-activations overflow included. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_encode(const atmsae_model *model, const atmsae_batch *batch, atmsae_codes *codes);
/* Writes the reconstruction of each row, [n_rows, d_out] f32 in the units of y. ld 0: d_out. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_decode(const atmsae_model *model, const atmsae_codes *codes, float *out, uint64_t ld);

/* Row weights only say which rows count (weight 0: not).
 * BATCHTOPK: sets the inference threshold to the (k*N + 1)-th largest positive pre-activation of
 * N rows of training data (65536 are plenty; never use validation rows), without a mask; 0 if there
 * are fewer. Where target_l0 is set: shifts thresholds, or b_enc, all by the same, so that these rows have it; a target
 * out of reach is told in the log. Others have nothing to calibrate and return ATMSAE_OK; a loaded SAE is one of them, so
 * calibrate before saving. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_calibrate(atmsae_model *model, const atmsae_batch *batch);

/* Formats of files, by name:
 *   "saelens"             SAELens v6: a folder with cfg.json, sae_weights.safetensors      read, written
 *   "gemma-scope"         Gemma Scope: params.npz                                          read, written
 *   "gemma-scope-2"       Gemma Scope 2: params.safetensors, config.json                   read
 *   "sparsify"            eai-sparsify: a folder with cfg.json, sae.safetensors            read
 *   "dictionary-learning" dictionary_learning: ae.pt, config.json (its classes AutoEncoder,
 *                         AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE,
 *                         JumpReluAutoEncoder, GatedAutoEncoder); in builds with -Dtorch  read
 *   "gguf"                llama.cpp's control vector of chosen latents                     written
 * doc/formats.md says what of each is represented and how.
 *
 * save writes temporary files, which it syncs and renames: whatever fails, also in several saves one after the
 * other, the old or the new SAE can be loaded. A file keeps its access rights, and a symbolic link stays one; one of
 * another user in a folder that anyone may write to is refused. E_IO with a text that says "in place": the new SAE
 * can be loaded; what failed is a step after that, which the text names and the next save makes up for. Scales are
 * folded into the weights.
 *   saelens: path is the folder, made if its parent exists; load refuses two files that are not of the same save.
 *     A save that does not end may leave sae_weights.staged.safetensors, which load knows (doc/formats.md).
 *     BATCHTOPK and both JumpReLU forms are written as "jumprelu", Matryoshka likewise; transcoders as "transcoder" and
 *     "jumprelu_transcoder". SAELens has no TOPK or GATED transcoder: where d_out = d_in they are written as SAEs that do
 *     not centre, and a key of the metadata, which load looks at, says what they are.
 *   gemma-scope: JumpReLU, BATCHTOPK and RELU models. The centring of the input is folded into b_enc.
 *     At most 4 GiB.
 *   gguf: one direction, sum of strength_i W_dec_i in the units of the rows: what the latents add to the
 *     reconstruction when their values are strength_i. llama.cpp adds it to the output of block `layer`.
 * E_UNSUPPORTED: the model cannot be written so that the format's readers compute the same, for example because a
 * value, with the scales folded in, is beyond single precision; the text names it, and nothing is written. */
typedef struct atmsae_save_options {
    size_t size;
    const char *model_name; /* of the language model; NULL: as in the file the model was loaded from, if any */
    const char *hook_name;  /* where its rows were taken; NULL: likewise */
    const char *format;     /* NULL (default): by the path's ending: .npz gemma-scope, .gguf gguf, else saelens */
    int32_t fold_decoder_norm; /* 1: W_dec gets rows of norm 1, as SAEBench wants them; latents grow by
                                  the norm, reconstructions stay. Twice is once. TOPK: only where it changes
                                  nothing. 0 (default): W_dec as it is. gguf: no meaning */
    uint32_t layer;         /* gguf: block whose output is steered, from 0; >= 1 */
    const uint32_t *latents; /* gguf: [n_latents] */
    const float *strengths;  /* gguf: [n_latents]; NULL (default): 1 */
    uint64_t n_latents;
    const char *hook_name_out; /* saelens, of a transcoder: where its targets were taken; NULL: as in the file the model was
                                  loaded from. Given for a loaded SAE whose format does not say what it is (gemma-scope,
                                  dictionary-learning) it says that it is a transcoder; E_ARG for any other SAE */
} atmsae_save_options;
ATMSAE_API void atmsae_save_options_init(atmsae_save_options *options, size_t size);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_save(const atmsae_model *model, const char *path, const atmsae_save_options *options);
/* Reads a folder or file of any format that can be read; which one, its name and the names of the files in
 * it tell. What the model then computes is what the format's own package computes at inference; E_UNSUPPORTED
 * says what it is that cannot be represented. Scales are 1. Nothing of a file is ever executed. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_load(atmsae_context *context, const char *path, atmsae_model **out);
/* Where a loaded model came from. Strings are lent by the model; NULL: not known, or not loaded. */
typedef struct atmsae_model_origin {
    size_t size;
    const char *format;     /* one of the names above */
    const char *model_name;
    const char *hook_name;
    const char *hook_name_out; /* of a transcoder: where its targets were taken */
    int32_t may_transcode;     /* 1: a transcoder, or one for all that its file says: the input is not centred, and the format does
                                  not tell the two apart (gemma-scope, gemma-scope-2 without config.json, some classes of
                                  dictionary-learning) */
    int32_t pad0_;
} atmsae_model_origin;
ATMSAE_API atmsae_status
atmsae_model_get_origin(const atmsae_model *model, atmsae_model_origin *origin);

/* ============================================================================================
 * 4. Trainer
 * ============================================================================================ */

typedef struct atmsae_trainer atmsae_trainer;
typedef struct atmsae_tracker atmsae_tracker;
typedef struct atmsae_masker atmsae_masker;
typedef struct atmsae_optimizer atmsae_optimizer;
typedef struct atmsae_gradients atmsae_gradients;
typedef struct atmsae_source atmsae_source;

typedef struct atmsae_optimizer_config {
    size_t size;
    double lr;     /* peak learning rate; default NaN: 2e-4 / sqrt(F / 2^14) */
    double beta1;  /* 0 .. <1; default 0.9 */
    double beta2;  /* 0 .. <1; default 0.999 */
    double eps;    /* > 0; default 1e-8 */
    double clip;   /* limit of the gradient's global norm, after projection; 0: none; default 1 */
    uint64_t total_steps;  /* 0: unknown, the rate stays at its peak. The trainer fills it in */
    uint64_t warmup_steps; /* linear from 0; default UINT64_MAX: 5 % of total_steps */
    uint64_t decay_steps;  /* linear to 0 at the end; default UINT64_MAX: the last 20 % */
    int32_t freeze_masked; /* 1: parameters and moments of latents that a hard mask leaves out stand still.
                              0 (default): Adam goes on with a gradient of 0, as PyTorch's would */
    int32_t pad0_;
} atmsae_optimizer_config;
ATMSAE_API void atmsae_optimizer_config_init(atmsae_optimizer_config *config, size_t size);

/* Importance tracker, doc/method.md section 3. */
enum { ATMSAE_MEAN_ARITHMETIC = 1, ATMSAE_MEAN_GEOMETRIC = 2 };
typedef struct atmsae_tracker_config {
    size_t size;
    uint64_t d_sae;  /* required when used alone; the trainer fills it in */
    double decay;    /* of the moving averages, 0 .. <1; default 0.99 */
    double weight_magnitude, weight_frequency, weight_contribution; /* 0 .. 1e100, not all 0; default 1 */
    int32_t combine; /* ATMSAE_MEAN_ARITHMETIC (default) or GEOMETRIC */
    int32_t observed_only; /* 1: means run over latents observed at least once; 0 (default): all F */
    uint64_t dead_window;  /* rows unmasked without firing after which a latent is dead; 0: never.
                              Default UINT64_MAX: 10,000,000, in a trainer of known length at most
                              10 % of total_rows */
} atmsae_tracker_config;
ATMSAE_API void atmsae_tracker_config_init(atmsae_tracker_config *config, size_t size);

/* Masking scheduler, doc/method.md section 3. Who is masked: */
enum {
    ATMSAE_MASK_NONE = 1,
    ATMSAE_MASK_ATM = 2,      /* p_i = 1 - exp(-r (theta - I_i) / theta) below theta, else 0 */
    ATMSAE_MASK_PAPER = 3,    /* the same with r constant from the first step, no cool-down */
    ATMSAE_MASK_UNIFORM = 4,  /* control: every latent gets the mean of ATM's p */
    ATMSAE_MASK_PERMUTED = 5  /* control: ATM's p, dealt to the latents by a fixed permutation */
};
/* What masking does: */
enum {
    ATMSAE_EFFECT_HARD = 0,       /* masked latents are absent from the activation function */
    ATMSAE_EFFECT_SECOND_LOSS = 1 /* codes are those without a mask; a second reconstruction, without the masked
                                     entries, is added to the loss: alpha |e'|^2 */
};
typedef struct atmsae_masker_config {
    size_t size;
    uint64_t d_sae;  /* required when used alone; the trainer fills it in */
    uint64_t seed;   /* of the draws; default 0: in a trainer, the model's */
    int32_t kind;    /* default ATMSAE_MASK_ATM */
    int32_t per_row; /* 1: a fresh mask for every row; 0: one for the whole step; default -1: 1 for SECOND_LOSS, 0 for HARD */
    double c;        /* theta = mu + c sigma; 0 .. 1e9; default 1 */
    double r;        /* 0 .. 30; default NaN: 2 for SECOND_LOSS, 0.25 for HARD */
    uint64_t total_steps;  /* 0 (default): unknown, no cool-down until asked for. Trainer fills it */
    uint64_t warmup_steps; /* r = 0 before this step; default UINT64_MAX: 50, or 10 % of total_steps
                              where that is under 500 */
    double cooldown_start; /* share of total_steps at which r begins to fall; default 0.80 */
    double cooldown_end;   /* share at which it reaches 0; default 0.95; start <= end <= 1 */
    int32_t effect;  /* ATMSAE_EFFECT_SECOND_LOSS (default) or HARD; PAPER as published is HARD */
    int32_t pad0_;
    double alpha;    /* weight of the second loss; 0 .. 1e9; 0: none. Default 0.3 */
} atmsae_masker_config;
ATMSAE_API void atmsae_masker_config_init(atmsae_masker_config *config, size_t size);

typedef struct atmsae_trainer_config {
    size_t size;
    const atmsae_model_config *model;         /* required */
    const atmsae_optimizer_config *optimizer; /* NULL: defaults */
    const atmsae_tracker_config *tracker;     /* NULL: defaults */
    const atmsae_masker_config *masker;       /* NULL: defaults, that is ATM */
    uint64_t total_rows;  /* rows that training will see; 0 (default): unknown, see the schedules */
    uint64_t batch_rows;  /* rows a step; default 4096. Sets total_steps = total_rows / batch_rows, so give the rows
                             that your batches have, or schedules end too early or never */
    double sparsity_warmup; /* share of total_steps over which sparsity_coef grows linearly from 0;
                               0 .. 1; default 0.05; JUMPRELU_TANH: 1 unless set; with target_l0: 0 unless set.
                               NaN: that default */
    uint64_t skip_bad_rows; /* most rows with a NaN or infinite value in x or y that the whole run may meet: they get
                               weight 0 instead of failing the step. One that comes again in a later pass counts
                               again. Default 0: the first one fails the step */
    double max_norm; /* rows whose norm is above max_norm times the median norm of the rows given to prepare get weight 0, in
                        prepare, step and calibrate. Of rows with targets, those whose target is above max_norm times
                        the targets' median too. 0 (default): all take part; else 1 .. 1e9. 10 leaves out attention
                        sinks and BOS rows, and nothing of clean activations */
} atmsae_trainer_config;
ATMSAE_API void atmsae_trainer_config_init(atmsae_trainer_config *config, size_t size);

/* What one step did. All figures are of this batch, before the update. */
typedef struct atmsae_step_stats {
    size_t size;
    uint64_t step;        /* 0 for the first */
    uint64_t rows;        /* rows of non-zero weight */
    double loss;          /* the sum that is minimised: mse + sparsity + aux (+ prefixes + masked_loss) */
    double mse;           /* mean over rows of |e|^2, scaled units */
    double sparsity;      /* penalties, coefficients included */
    double aux;           /* AuxK, coefficient included */
    double fvu;           /* sum |e|^2 / sum |y - batch mean|^2; NaN if undefined */
    double l0;            /* mean number of f > 0 a row */
    uint64_t dead;        /* latents dead before this step */
    uint64_t masked;      /* latents masked in this step (per_row: 0) */
    double mean_p;        /* mean masking probability over latents */
    double r;             /* the masker's rate in this step */
    double lr;
    double grad_norm;     /* before clipping */
    uint64_t bad_rows;    /* rows of this batch that got weight 0, see skip_bad_rows */
    double sparsity_coef; /* of this step: warm-up, and what target_l0 made of it, included */
    double masked_loss;   /* the second loss of a mask, alpha included */
    uint64_t outlier_rows; /* rows of this batch that got weight 0, see max_norm */
} atmsae_step_stats;

ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_create(atmsae_context *context, const atmsae_trainer_config *config, atmsae_trainer **out);
ATMSAE_API void atmsae_trainer_destroy(atmsae_trainer *trainer);
/* = atmsae_model_prepare on the trainer's model, on the rows that max_norm leaves; E_STATE after the first step. Here and in
 * calibrate, up to skip_bad_rows rows of the batch may be bad; neither they nor those above the norm limit are counted, since
 * they are met again in training. With max_norm, E_ARG if the median norm is 0, and step and calibrate need it (E_STATE). */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_prepare(atmsae_trainer *trainer, const atmsae_batch *batch);
/* One training step; exactly the loop of section 6. stats may be NULL, else its `size` must be
 * set. E_NONFINITE: a bad input row (named; atmsae_source_locate says where it comes from) beyond those that
 * skip_bad_rows allows, no other row in the batch, or a non-finite loss or gradient; nothing changed. A step
 * with bad rows, or with rows above the norm limit, is that of a caller who gave them weight 0, to the bit; rows that have it
 * are not looked at. E_ARG: all rows are above the limit. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_step(atmsae_trainer *trainer, const atmsae_batch *batch, atmsae_step_stats *stats);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_calibrate(atmsae_trainer *trainer, const atmsae_batch *batch);
/* For streams of unknown length: from the next step on, r and the learning rate fall linearly to 0
 * over `steps` steps. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_begin_cooldown(atmsae_trainer *trainer, uint64_t steps);
ATMSAE_API uint64_t atmsae_trainer_steps_done(const atmsae_trainer *trainer);
/* How many bad rows all steps so far gave weight 0. Part of a checkpoint. */
ATMSAE_API uint64_t atmsae_trainer_bad_rows(const atmsae_trainer *trainer);
/* How many rows above the norm limit all steps so far gave weight 0. Part of a checkpoint. */
ATMSAE_API uint64_t atmsae_trainer_outlier_rows(const atmsae_trainer *trainer);
/* The norm above which a row (targets 0) or a target (1) is left out: max_norm times the median that prepare found, in the
 * units of the rows. 0: none, without max_norm, before prepare, and of targets where prepare had none. Part of a checkpoint.
 * atmsae_batch_limit holds rows to be measured on to the same number. */
ATMSAE_API double atmsae_trainer_norm_limit(const atmsae_trainer *trainer, int32_t targets);
/* Changes skip_bad_rows (rows met before count), so that a run which a bad row has ended can go on from its
 * checkpoint. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_set_skip_bad_rows(atmsae_trainer *trainer, uint64_t skip_bad_rows);
/* The parts, lent; they live as long as the trainer. */
ATMSAE_API atmsae_model *atmsae_trainer_model(atmsae_trainer *trainer);
ATMSAE_API atmsae_tracker *atmsae_trainer_tracker(atmsae_trainer *trainer);
ATMSAE_API atmsae_masker *atmsae_trainer_masker(atmsae_trainer *trainer);
ATMSAE_API atmsae_optimizer *atmsae_trainer_optimizer(atmsae_trainer *trainer);

/* Checkpoints: one file, a safetensors file whose last tensor is a checksum of all before it.
 * Written to a temporary file, synced, renamed: path holds the old or the new state, whole.
 * source may be NULL; else its position and shuffle buffer are saved too. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_save(const atmsae_trainer *trainer, const atmsae_source *source, const char *path);
/* Makes a trainer from a checkpoint. A step after it gives the same bits as one before. source,
 * if given, must have been set up with the same inputs: E_STATE if its rows differ. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_load(atmsae_context *context, const char *path, atmsae_source *source, atmsae_trainer **out);
/* Changes the planned length of a run, so that all schedules move; logs what that changes. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_trainer_set_total_rows(atmsae_trainer *trainer, uint64_t total_rows);
/* The configuration with every default resolved; pointers lend from the trainer. */
ATMSAE_API atmsae_status
atmsae_trainer_get_config(const atmsae_trainer *trainer, atmsae_trainer_config *config);

/* ============================================================================================
 * 5. Sources
 * ============================================================================================ */

/* A stream of rows, shuffled through a bounded buffer: the buffer fills from the inputs in order;
 * each row handed out is drawn from it uniformly and replaced by the next one of the inputs. A source
 * with a callback makes one pass, whatever `epochs` says. */
typedef struct atmsae_source_config {
    size_t size;
    uint64_t shuffle_rows; /* capacity of the buffer; 0: no shuffling; default 65536 */
    uint64_t seed;         /* default 0 */
    uint64_t epochs;       /* passes over the inputs; 0 (default): for ever */
} atmsae_source_config;
ATMSAE_API void atmsae_source_config_init(atmsae_source_config *config, size_t size);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_create(atmsae_context *context, const atmsae_source_config *config, atmsae_source **out);
ATMSAE_API void atmsae_source_destroy(atmsae_source *source);
/* Inputs are read one after the other; all must have the same row width. No input can be added
 * after the first row was taken (E_STATE). */
/* Rows in memory, lent: they must stay until the source is destroyed. ld 0: d. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_add_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d,
                         uint64_t ld, int32_t type);
/* A .npy file (little-endian f2, f4, f8, or u2/V2 holding bf16 when `as_bf16` is 1) or a .safetensors,
 * .npz or .pt file (F16, BF16, F32, F64). `tensor` NULL: the one named "activations", else the only 2-D
 * one of F16, BF16 or F32, else the only one that can be read. A row is what lies along the last
 * dimension; those before it, one or more, are flattened: [sequences, tokens, d] are sequences * tokens
 * rows, numbered in that order. F64 is rounded to f32, so that more than f32 holds becomes infinite.
 * Tensors stored column by column (Fortran order) are read 32 MiB of rows at a time: slower, above all
 * from disks that seek. Opened and checked now, read in blocks later. E_UNSUPPORTED for other types
 * (integers, big-endian numbers) and for files of other programs (CSV, Parquet, HDF5, ...); the text
 * has the line of NumPy that makes one that is read. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_add_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16);
/* Rows from the caller: read() writes up to `max_rows` rows [*, d] f32 to out, and returns how many:
 * 0 at the end, negative to fail (the next call then returns E_CALLBACK). One pass only. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_add_callback(atmsae_source *source, uint64_t d,
                           int64_t (*read)(void *opaque, float *out, uint64_t max_rows), void *opaque);
/* Targets of a transcoder for the input that was added last, row by row: as many rows as it has, else E_ARG. All inputs of
 * a source have targets of one width, or none has; a callback's have none (E_UNSUPPORTED), it may give rows of both side by
 * side. Otherwise as the functions above. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_add_target_memory(atmsae_source *source, const void *rows, uint64_t n_rows, uint64_t d,
                                uint64_t ld, int32_t type);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_add_target_file(atmsae_source *source, const char *path, const char *tensor, int32_t as_bf16);
ATMSAE_API uint64_t atmsae_source_d(const atmsae_source *source);    /* width of a row; 0: no input yet */
ATMSAE_API uint64_t atmsae_source_d_target(const atmsae_source *source); /* of its targets; 0: it has none */
ATMSAE_API uint64_t atmsae_source_rows(const atmsae_source *source); /* of one pass; 0: unknown */
/* The next rows as f32 [n_rows, d]; with targets [n_rows, d + d_target], each row followed by its target, so that for a
 * batch x = out, y = out + d, ld_x = ld_y = d + d_target. *got < n_rows only at the end of the last pass. A call that failed
 * can be repeated: no row is lost. E_STATE: a file, which the text names, was written to or replaced since it was
 * added, and a sample of its rows, the first and the last among them, is not what it was. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_next(atmsae_source *source, uint64_t n_rows, float *out, uint64_t *got);
/* Puts the rows of the last atmsae_source_next back, so that the next call hands out the same ones: after a step that
 * failed, atmsae_trainer_save then saves a state that goes on with its batch. They are read again; if that fails,
 * nothing has changed. E_STATE: there are none, or the source was rewound or restored since. E_UNSUPPORTED: a callback,
 * which cannot give a row twice. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status atmsae_source_unread(atmsae_source *source);
/* Back to the state before the first row. E_UNSUPPORTED once a callback was read. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status atmsae_source_rewind(atmsae_source *source);
/* Where a row comes from, see atmsae_source_locate. */
typedef struct atmsae_row_origin {
    size_t size;
    const char *path; /* of the file, as resolved when it was added; lent by the source. NULL: memory or a callback */
    uint64_t input;   /* number of the input, in the order of the add calls, from 0 */
    uint64_t row;     /* of that input, from 0; of a callback's, counted from the first it ever gave */
    const char *target_path; /* as path, of its targets; NULL: memory, or none */
} atmsae_row_origin;
/* Says where row `row`, from 0, of the last atmsae_source_next that succeeded comes from, so that a bad row of a
 * shuffled batch can be found in its file. origin's size must be set. E_ARG if that call gave no such row. Rewinding
 * changes nothing here; a checkpoint loaded into the source leaves no row to locate. E_UNSUPPORTED: a callback's row
 * that came out of a checkpoint of version 0.1.0, which does not hold its number. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_source_locate(const atmsae_source *source, uint64_t row, atmsae_row_origin *origin);

/* ============================================================================================
 * 6. The loop by hand
 *
 *     atmsae_masker_draw(masker, step);
 *     atmsae_forward(model, &batch, &options, codes, &loss);    options.mask, options.dead
 *     atmsae_backward(model, codes, gradients);
 *     atmsae_optimizer_step(optimizer, model, gradients, NULL);
 *     atmsae_gradients_sums(gradients, &sums);
 *     atmsae_tracker_observe(tracker, &sums);
 *     atmsae_masker_update(masker, atmsae_tracker_importance(tracker), d_sae);
 *
 * atmsae_trainer_step is this and nothing else, to the bit. Tracker and masker know nothing of the
 * model: a loop written in another framework can feed them its own per-latent sums and use the
 * mask (examples/03_mask_only.c).
 * ============================================================================================ */

/* A mask over latents. Make one by hand or take the masker's.
 *
 * ATMSAE_EFFECT_HARD: masked latents are absent from the activation function, as if their pre-activation were
 * -infinity, and from AuxK.
 * ATMSAE_EFFECT_SECOND_LOSS: codes f, e and all that is reported of them are those without a mask. With M the masked
 * latents of a row, e' = e + sum over i in M of f_i d_i is what their absence would leave, and alpha |e'|^2 is added to
 * the row's loss. So latents that are not masked learn to do without those that are, while the masked ones are trained by
 * e alone. Of GATED the same is done to the gate's reconstruction (doc/method.md, section 3). */
typedef struct atmsae_mask {
    size_t size;
    uint64_t d_sae;
    const uint8_t *masked; /* [F], 1: masked in all rows; or NULL */
    const double *p;       /* [F] masking probability of each row on its own; or NULL */
    uint64_t seed, step;   /* of the per-row draws */
    int32_t effect;        /* ATMSAE_EFFECT_.. */
    int32_t pad0_;
    double alpha;          /* of SECOND_LOSS; 0 .. 1e9; 0: as without a mask */
} atmsae_mask;

typedef struct atmsae_forward_options {
    size_t size;
    const atmsae_mask *mask; /* NULL (default): none */
    const uint32_t *dead;    /* [n_dead] ascending: the latents of AuxK; NULL (default): no AuxK */
    uint64_t n_dead;
    double sparsity_scale;   /* multiplies sparsity_coef; 0 .. 1e9; default 1 */
} atmsae_forward_options;
ATMSAE_API void atmsae_forward_options_init(atmsae_forward_options *options, size_t size);

typedef struct atmsae_loss {
    size_t size;
    double total, mse, sparsity, aux, prefix; /* prefix: the sum of the Matryoshka terms below F */
    double fvu, l0;
    uint64_t rows; /* of non-zero weight */
    double masked; /* the second loss, alpha included; total contains it */
} atmsae_loss;

/* Training forward: codes, residual and loss. options NULL: defaults. loss may be NULL, else its
 * size must be set. `model` is not changed. What backward needs is kept in codes; rows, targets
 * and weights are copied, so the batch may be reused. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_forward(const atmsae_model *model, const atmsae_batch *batch,
               const atmsae_forward_options *options, atmsae_codes *codes, atmsae_loss *loss);

ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_gradients_create(const atmsae_model *model, atmsae_gradients **out);
ATMSAE_API void atmsae_gradients_destroy(atmsae_gradients *gradients);
/* Gradients of the loss of the last forward into codes; E_STATE if there was none or the model's
 * shape is another. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_backward(const atmsae_model *model, atmsae_codes *codes, atmsae_gradients *gradients);
/* Copies the gradient of one trained parameter, shape as the parameter. E_STATE once optimizer_step
 * has used it. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_gradients_get(const atmsae_gradients *gradients, int32_t parameter, float *out, uint64_t count);

/* Per-latent sums of one step. w are row weights (1 by default). */
typedef struct atmsae_latent_sums {
    size_t size;
    uint64_t d_sae;
    const double *rows;         /* [F] n_i: sum of w over rows in which latent i was not left out by a hard mask */
    const double *magnitude;    /* [F] sum w f_i |d_i| */
    const double *frequency;    /* [F] sum w [f_i > 0] */
    const double *contribution; /* [F] sum w f_i (2 e.d_i + f_i |d_i|^2): the rise of the squared
                                   error if latent i were removed */
} atmsae_latent_sums;
/* Lends the sums of the last backward. */
ATMSAE_API atmsae_status
atmsae_gradients_sums(const atmsae_gradients *gradients, atmsae_latent_sums *sums);

ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_optimizer_create(const atmsae_model *model, const atmsae_optimizer_config *config,
                        atmsae_optimizer **out);
ATMSAE_API void atmsae_optimizer_destroy(atmsae_optimizer *optimizer);
/* Projects W_dec's gradient (unit decoder), clips, applies Adam, renormalises W_dec, updates the
 * interim threshold of BATCHTOPK. E_NONFINITE if a gradient is not finite: nothing is changed.
 * grad_norm may be NULL. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_optimizer_step(atmsae_optimizer *optimizer, atmsae_model *model,
                      atmsae_gradients *gradients, double *grad_norm);
/* Learning rate of the next step. */
ATMSAE_API double atmsae_optimizer_lr(const atmsae_optimizer *optimizer);

ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tracker_create(atmsae_context *context, const atmsae_tracker_config *config, atmsae_tracker **out);
ATMSAE_API void atmsae_tracker_destroy(atmsae_tracker *tracker);
/* Takes the sums of one step. A latent with rows[i] = 0 keeps its averages; the first observation
 * sets them. E_NONFINITE or E_ARG (negative rows, magnitude or frequency, a size above 1e200): nothing
 * is changed. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tracker_observe(atmsae_tracker *tracker, const atmsae_latent_sums *sums);
/* Lends, until the next observe: importance [F] (0 before any observation), the three moving
 * averages [F] (which: 0 magnitude, 1 frequency, 2 contribution; else NULL), and the dead latents,
 * ascending. */
ATMSAE_API const double *atmsae_tracker_importance(const atmsae_tracker *tracker);
ATMSAE_API const double *atmsae_tracker_average(const atmsae_tracker *tracker, int32_t which);
ATMSAE_API const uint32_t *atmsae_tracker_dead(const atmsae_tracker *tracker, uint64_t *n_dead);
/* The dead window in rows, resolved. */
ATMSAE_API uint64_t atmsae_tracker_dead_window(const atmsae_tracker *tracker);

ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_masker_create(atmsae_context *context, const atmsae_masker_config *config, atmsae_masker **out);
ATMSAE_API void atmsae_masker_destroy(atmsae_masker *masker);
/* New mu, sigma, theta from importances [F], all finite and >= 0. Probabilities follow at the next
 * draw, which knows r. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_masker_update(atmsae_masker *masker, const double *importance, uint64_t d_sae);
/* Computes r(step), p, and the mask of this step. The same (seed, step, importances) give the same
 * mask, on any machine. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status atmsae_masker_draw(atmsae_masker *masker, uint64_t step);
/* Lends the mask of the last draw, for forward; NULL before the first. */
ATMSAE_API const atmsae_mask *atmsae_masker_mask(const atmsae_masker *masker);
/* Would latent i be masked in row r of this step? For per-row masks in a loop of one's own. */
ATMSAE_API int32_t atmsae_mask_test(const atmsae_mask *mask, uint64_t row, uint64_t latent);
ATMSAE_API double atmsae_masker_mu(const atmsae_masker *masker);
ATMSAE_API double atmsae_masker_sigma(const atmsae_masker *masker);
ATMSAE_API double atmsae_masker_theta(const atmsae_masker *masker);
ATMSAE_API double atmsae_masker_rate(const atmsae_masker *masker);   /* r of the last draw */
ATMSAE_API double atmsae_masker_mean_p(const atmsae_masker *masker); /* of the last draw */
ATMSAE_API const double *atmsae_masker_p(const atmsae_masker *masker); /* [F], lent until the next draw */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_masker_begin_cooldown(atmsae_masker *masker, uint64_t first_step, uint64_t steps);

/* ============================================================================================
 * 7. Evaluation
 * ============================================================================================ */

/* Reconstruction and sparsity over any number of batches, in the units of the data, accumulated in
 * double precision. Formulas: doc/method.md section 5. */
typedef struct atmsae_metrics atmsae_metrics;
typedef struct atmsae_metrics_result {
    size_t size;
    uint64_t rows;
    double mse;     /* sum |y - y^|^2 / rows */
    double fvu;     /* sum |y - y^|^2 / (sum |y|^2 - |sum y|^2 / rows); NaN if the data are constant */
    double cosine;  /* mean over rows of cos(y, y^); rows with a zero vector are left out */
    double l0;      /* mean number of latents > 0 */
    double l1;      /* mean sum of latents */
    uint64_t dead;  /* latents that never fired on these rows */
    uint64_t dense; /* latents that fired on more than 10 % of them */
    double bias;    /* sum |y^|^2 / sum y.y^, 1 if unbiased; NaN if sum y.y^ is 0 */
} atmsae_metrics_result;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_metrics_create(const atmsae_model *model, atmsae_metrics **out);
ATMSAE_API void atmsae_metrics_destroy(atmsae_metrics *metrics);
/* Encodes and decodes the batch with the model given at create, which must still exist. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_metrics_add(atmsae_metrics *metrics, const atmsae_batch *batch);
ATMSAE_API atmsae_status
atmsae_metrics_get(const atmsae_metrics *metrics, atmsae_metrics_result *result);
/* Lends how often each latent fired, [F]. */
ATMSAE_API const uint64_t *atmsae_metrics_counts(const atmsae_metrics *metrics);

/* Absorption of labelled parents (classes), full-rate form of SAEBench; doc/method.md section 6.
 * The probe and the split of words depend on the data only, so make one handle and score any number
 * of SAEs with it. */
typedef struct atmsae_absorption atmsae_absorption;
enum {
    ATMSAE_PROBE_SAEBENCH = 1, /* the intercept is penalised like a weight, as weight decay does in SAEBench: scores agree with it */
    ATMSAE_PROBE_FREE = 2      /* the intercept is free, penalties are stronger: the probe of release 0.1 */
};
typedef struct atmsae_absorption_config {
    size_t size;
    uint64_t n_classes;    /* required; labels are 0 .. n_classes - 1 */
    double min_probe_f1;   /* only classes whose probe scores more on test rows count; default 0.6 */
    double min_f1_gain;    /* another latent joins a class's split latents for more F1 than this; 0.03 */
    uint64_t max_split;    /* most split latents a class; default 10 */
    int32_t probe;         /* default ATMSAE_PROBE_SAEBENCH */
    int32_t pad0_;
} atmsae_absorption_config;
ATMSAE_API void atmsae_absorption_config_init(atmsae_absorption_config *config, size_t size);
/* Fits the one-vs-rest probe on the training rows. batch: the rows; labels [n_rows]; is_train
 * [n_rows] 1 for training rows, 0 for test rows. All are copied. A class that lacks training rows, rows of other
 * classes to tell it from, or test rows is not used; the others are. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_absorption_create(atmsae_context *context, const atmsae_absorption_config *config,
                         const atmsae_batch *batch, uint64_t d, const int32_t *labels,
                         const uint8_t *is_train, atmsae_absorption **out);
ATMSAE_API void atmsae_absorption_destroy(atmsae_absorption *absorption);
typedef struct atmsae_absorption_result {
    size_t size;
    uint64_t classes;      /* that passed min_probe_f1 */
    double full_rate;      /* mean over them of the share of true positives that are absorbed */
    double recall;         /* mean over them: share of true positives where a split latent fires */
    double sparse_f1;      /* mean test F1 of the best single latent */
    double mean_split;     /* mean number of split latents */
    double probe_f1;       /* mean test F1 of the probe */
    uint64_t true_positives; /* test rows over all those classes */
    double main_f1, main_precision, main_rate; /* of main latents: atmsae_absorption_measures of eval.h has these and */
    double gap, gap_error; /* the recall that they lose on words with a latent of their own, with its standard error */
} atmsae_absorption_result;
/* n_classes entries of per-class results may be taken too; NULL: not wanted. */
typedef struct atmsae_absorption_class {
    double probe_f1, full_rate, recall, sparse_f1;
    uint64_t true_positives, absorbed, n_split, main_latent;
    int32_t used;
    int32_t pad0_;
} atmsae_absorption_class;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_absorption_score(const atmsae_absorption *absorption, const atmsae_model *model,
                        atmsae_absorption_result *result, atmsae_absorption_class *classes);

/* A generator of rows with known features: a hierarchy of parents with exclusive children, and
 * independent features. Row r depends on (seed, r) only. doc/method.md section 7. */
typedef struct atmsae_synth atmsae_synth;
typedef struct atmsae_synth_config {
    size_t size;
    uint64_t d;            /* default 96 */
    uint64_t n_parents;    /* default 12 */
    uint64_t n_children;   /* of each parent; default 8 */
    uint64_t n_independent; /* default 60 */
    uint64_t seed;         /* default 0 */
    double p_parent;       /* default 0.06 */
    double p_child;        /* given the parent: exactly one child with this probability; 0.8 */
    double child_power;    /* child j is drawn with weight (j+1)^-power; 0.7 */
    double p_independent_min, p_independent_max; /* log-uniform; 0.01, 0.08 */
    double magnitude_sd;   /* magnitudes max(0.1, 1 + sd N(0,1)); 0.15 */
} atmsae_synth_config;
ATMSAE_API void atmsae_synth_config_init(atmsae_synth_config *config, size_t size);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_create(atmsae_context *context, const atmsae_synth_config *config, atmsae_synth **out);
ATMSAE_API void atmsae_synth_destroy(atmsae_synth *synth);
/* Number of features: n_parents * (1 + n_children) + n_independent, in the order parents, children
 * (parent-major), independents. */
ATMSAE_API uint64_t atmsae_synth_features(const atmsae_synth *synth);
/* Rows first_row .. first_row + n_rows - 1: x [n_rows, d]; active [n_rows, features] 0 or 1, or NULL. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_rows(const atmsae_synth *synth, uint64_t first_row, uint64_t n_rows, float *x, uint8_t *active);
/* Unit directions of the features, [features, d], lent. */
ATMSAE_API const float *atmsae_synth_directions(const atmsae_synth *synth);

typedef struct atmsae_synth_result {
    size_t size;
    double true_l0;       /* mean active features a row */
    double missed;        /* share of (row, active parent) where the parent's latent is off */
    double missed_child_on, missed_child_off; /* the same, given that a child is on, or none is */
    double parent_recall, parent_precision, parent_f1; /* mean over parents of its latent's */
    double mcc;           /* mean |cos| of an optimal one-to-one match of latents and features */
} atmsae_synth_result;
/* Scores a model on the given range of rows. A parent's latent is the one whose decoder row has the
 * largest |cos| with the parent's direction. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_score(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row,
                   uint64_t n_rows, atmsae_synth_result *result);

/* ============================================================================================
 * 8. Tensor files
 * ============================================================================================ */

/* Reads a .npy (one tensor, named ""), .npz, .safetensors or .pt file (torch.save of a dict of tensors; in
 * builds with -Dtorch). The header is checked at open. */
typedef struct atmsae_tensors atmsae_tensors;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tensors_open(atmsae_context *context, const char *path, atmsae_tensors **out);
ATMSAE_API void atmsae_tensors_close(atmsae_tensors *tensors);
ATMSAE_API uint64_t atmsae_tensors_count(const atmsae_tensors *tensors);
typedef struct atmsae_tensor_info {
    size_t size;
    const char *name;  /* lent until close */
    const char *dtype; /* safetensors' names: "F32", "F16", "BF16", "I32", "U8", ... */
    uint64_t rank;     /* 0 .. 8 */
    uint64_t shape[8];
} atmsae_tensor_info;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tensors_info(const atmsae_tensors *tensors, uint64_t index, atmsae_tensor_info *info);
/* Index of a name; E_ARG if there is none. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tensors_find(const atmsae_tensors *tensors, const char *name, uint64_t *index);
/* Converts all elements of a tensor, in C order. read_f32 takes the float types, read_i64 the
 * integer types and BOOL; E_UNSUPPORTED for the others, E_ARG if count is not the element count. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tensors_read_f32(const atmsae_tensors *tensors, uint64_t index, float *out, uint64_t count);
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_tensors_read_i64(const atmsae_tensors *tensors, uint64_t index, int64_t *out, uint64_t count);

#ifdef __cplusplus
}
#endif
#endif
