/* SPDX-License-Identifier: MIT
 *
 * The inside of lib/sae: parameters, the codes and tape of a batch, gradients.
 */
#ifndef AMS_SAE_H
#define AMS_SAE_H

#include "base/base.h"
#include "kernels/kernels.h"

enum { AMS_MAX_PARAMS = 7, AMS_MAX_PREFIXES = 63 };

/* A trained parameter. `per_latent` ones have F rows of `cols`; the other one is b_dec, one row. */
typedef struct ams_param {
    int32_t id; /* ATMSAE_W_ENC .. */
    const char *name;
    bool per_latent;
    bool matrix; /* W_enc, W_dec: a gradient has rows only for latents with entries */
    uint64_t rows, cols;
    float *value;
} ams_param;

/* Of a loaded model: its file's format, and the names that were in it. */
typedef struct ams_model_origin {
    const char *format; /* static */
    char *model_name, *hook_name, *hook_name_out;
    bool unsaid; /* the format does not say whether it is a transcoder, and it may be one */
} ams_model_origin;

struct atmsae_model {
    atmsae_context *ctx;
    ams_use use;
    atmsae_model_config config; /* resolved */
    uint64_t prefixes[AMS_MAX_PREFIXES];
    uint64_t d_in, d_out, d_sae;
    ams_param params[AMS_MAX_PARAMS];
    unsigned n_params;
    float *w_enc, *b_enc, *w_dec, *b_dec; /* = params[..].value, by name */
    float *log_threshold, *r_mag, *b_mag; /* NULL where the activation has none */
    float *threshold;                     /* exp(log_threshold), or as set or loaded */
    float batch_threshold, input_scale, output_scale;
    /* Derived from the parameters by ams_model_refresh. */
    float *enc_norm, *dec_norm; /* [F] */
    double enc_norm_max;
    float b_enc_max;
    bool target_told; /* that target_l0 is missed, or its cause */
    bool rows_warned; /* prepare found the rows to be at fault for what will go wrong */
    ams_model_origin origin;
};

/* As atmsae_model_create, with all parameters zero (thresholds as configured). */
atmsae_status ams_model_create_blank(atmsae_context *ctx, const atmsae_model_config *config, atmsae_model **out);
/* Checks a caller's config and resolves its defaults. `out->prefixes` points to `prefixes`. */
atmsae_status ams_model_config_resolve(atmsae_context *ctx, const atmsae_model_config *caller,
                                       atmsae_model_config *out, uint64_t prefixes[AMS_MAX_PREFIXES]);
/* threshold = exp(log_threshold) for latents first .. last-1. */
void ams_model_exp_thresholds(atmsae_model *model, uint64_t first, uint64_t last);
/* Norms of latents first .. last-1, then (once) their maxima. */
void ams_model_refresh_latents(atmsae_model *model, uint64_t first, uint64_t last);
void ams_model_refresh_max(atmsae_model *model);
void ams_model_refresh(atmsae_model *model);

/* ---- what stands behind public functions of these names, see AMS_CALL -------------------------- */

atmsae_status ams_model_prepare(atmsae_model *model, const atmsae_batch *batch);
struct ams_rows;
/* Of checked rows; y: targets, NULL without any. */
void ams_advise_rows(atmsae_model *model, const struct ams_rows *x, const struct ams_rows *y, const float *weights);
void ams_advise_norms(atmsae_model *model, const struct ams_rows *x, const struct ams_rows *y, const float *weights);
atmsae_status ams_encode(const atmsae_model *model, const atmsae_batch *batch, atmsae_codes *codes);
/* Activations whose sparsity is a number of latents, k. */
static inline bool ams_takes_k(int32_t activation) { return activation == ATMSAE_TOPK || activation == ATMSAE_BATCHTOPK; }
/* Whether there is something that calibrate sets: BATCHTOPK's threshold, or the cuts that meet a target. */
static inline bool ams_calibrates(const atmsae_model *model)
{
    return model->config.activation == ATMSAE_BATCHTOPK || model->config.target_l0 > 0;
}
atmsae_status ams_model_calibrate(atmsae_model *model, const atmsae_batch *batch);
atmsae_status ams_forward(const atmsae_model *model, const atmsae_batch *batch, const atmsae_forward_options *options,
                          atmsae_codes *codes, atmsae_loss *loss);
atmsae_status ams_backward(const atmsae_model *model, atmsae_codes *codes, atmsae_gradients *gradients);
atmsae_status ams_optimizer_step(atmsae_optimizer *optimizer, atmsae_model *model, atmsae_gradients *gradients,
                                 double *grad_norm);
double ams_optimizer_lr(const atmsae_optimizer *optimizer);
double ams_optimizer_usual_lr(uint64_t d_sae); /* the default of lr */

/* ---- norms of rows (norms.c) -------------------------------------------------------------------- */

#define AMS_LONG_ROW 10.0 /* times the median norm: attention sinks are longer, other rows are not */
/* Of checked rows. shares: false leaves out top_rows and top_share, which take most of the time. False: no memory. */
bool ams_row_norms(atmsae_context *ctx, const struct ams_rows *rows, const float *weights, bool shares, atmsae_row_norms *out);
/* Sets the weight of finite rows above the norm to 0; returns how many had another. room: [workers, d]. */
uint64_t ams_limit_rows(atmsae_context *ctx, const struct ams_rows *rows, double norm, float *weights, float *room);

/* ---- a batch in the library's own form -------------------------------------------------------- */

/* A checked copy of a caller's batch struct, with every default filled in. targets: false where they play no part; they are
 * not looked at then, and out->y is NULL. */
atmsae_status ams_batch_check(atmsae_context *ctx, const atmsae_model *model, const atmsae_batch *caller, bool targets,
                              atmsae_batch *out);
/* E_ARG for a transcoder, which the batch has no targets for; the text begins with `what`. */
atmsae_status ams_needs_no_targets(atmsae_context *ctx, const atmsae_model *model, const char *what);
/* Sparse rows. `start` has n + 1 entries. */
typedef struct ams_sparse {
    uint64_t n;
    uint64_t *start;
    uint32_t *latent;
    float *value;
    uint64_t start_capacity, latent_capacity, value_capacity;
} ams_sparse;
void ams_sparse_free(atmsae_context *ctx, ams_sparse *sparse);
atmsae_status ams_sparse_reserve(atmsae_context *ctx, ams_sparse *sparse, uint64_t n, uint64_t entries);

/* The entries of sparse rows by latent: those of latent i are start[i] .. start[i+1]-1, rows ascending. */
typedef struct ams_index {
    uint64_t *start; /* [F + 1] */
    uint32_t *row;
    uint32_t *at;    /* an entry's place in the rows, */
    float *value;    /* or, of an index of values, its value */
    uint32_t *ends;  /* working memory of build */
    uint64_t start_capacity, row_capacity, at_capacity, value_capacity, ends_capacity;
} ams_index;
enum { AMS_INDEX_PLACES, AMS_INDEX_VALUES };
void ams_index_free(atmsae_context *ctx, ams_index *index);
/* As much memory as n such rows have room for, so that later batches with more entries need no more. */
atmsae_status ams_index_reserve(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *sparse, uint64_t n, uint64_t F);
atmsae_status ams_index_build(atmsae_context *ctx, ams_index *index, int kind, const ams_sparse *sparse, uint64_t F);
/* The first p of from .. to-1 with ascending[p] >= value; else to. */
uint64_t ams_lower_bound(const uint32_t *ascending, uint64_t from, uint64_t to, uint64_t value);
/* Have these latents, on average, an entry in more than one of 16 rows? Then some rows for all of them,
 * which stay in cache, come before other rows. */
static inline bool ams_index_dense(uint64_t entries, uint64_t latents, uint64_t n) { return entries / latents > n / 16; }

/* ---- sums of many rows (gather.c) --------------------------------------------------------------- */

/* Row i of out += sum over its entries, in their order, of value * dense row `at`, for i < n. */
typedef struct ams_gather {
    const uint64_t *start; /* [n + 1] entries of sum i: start[i] .. start[i+1]-1, `at` ascending */
    const uint32_t *at;
    const float *value;
    uint64_t n, d;
    const float *rows;      /* dense row j is rows[row_of[j]] (NULL: rows[j]), */
    const uint32_t *row_of;
    uint64_t n_rows;
    double factor;          /* times factor * weights[j] (NULL: factor), rounded before the sum */
    const float *weights;
    float *out;             /* sum i goes to row out_of[out_names[i]] (NULL: row i) */
    const uint32_t *out_of, *out_names;
} ams_gather;
typedef struct ams_gather_memory ams_gather_memory; /* of each thread */
atmsae_status ams_gather_reserve(atmsae_context *ctx, ams_gather_memory **memory, uint64_t *capacity);
void ams_gather_run(atmsae_context *ctx, ams_gather_memory *memory, const ams_gather *gather);

/* ---- search: which latents have a pre-activation above their cut ------------------------------- */

enum { AMS_ABOVE = 1, AMS_ROW_TOPK = 2, AMS_BATCH_TOPK = 3 };
typedef struct ams_query {
    int kind;
    uint64_t k;             /* ROW_TOPK: a row; BATCH_TOPK: in all */
    const float *low;       /* [F] ABOVE: z > low[i]; NULL: z > limit */
    float limit;
    const float *x;         /* [n, d] x~ */
    uint64_t n;
    const float *weights;   /* [n] rows of weight 0 have no entries; NULL: none such */
    const uint32_t *list;   /* eligible latents, ascending; NULL: all */
    uint64_t n_list;
    const atmsae_mask *row_mask; /* with p; NULL: no per-row mask */
} ams_query;
typedef struct ams_search ams_search; /* working memory, kept between calls */
atmsae_status ams_search_create(atmsae_context *ctx, ams_search **out);
void ams_search_destroy(ams_search *search);
/* Fills `out` with the selected entries, value = pre-activation z, latents ascending in each row. */
atmsae_status ams_search_run(ams_search *search, const atmsae_model *model, const ams_query *query, ams_sparse *out);
/* The smallest value that the last BATCH_TOPK search took; there was one that took any. */
float ams_search_smallest(const ams_search *search);
/* Takes the memory that run will need for queries like this one (ABOVE grows as it finds more). */
atmsae_status ams_search_reserve(ams_search *search, const atmsae_model *model, const ams_query *query, ams_sparse *out);

/* ---- codes: the sparse latents, and what backward needs of the batch --------------------------- */

/* Columns of codes->row_sums. */
enum {
    AMS_SUM_MSE, AMS_SUM_PREFIX, AMS_SUM_PENALTY, AMS_SUM_COUNT, AMS_SUM_GATE, AMS_SUM_AUX, AMS_SUM_HIDDEN, AMS_SUM_BAD,
    AMS_ROW_SUMS
};
enum { AMS_CODES_EMPTY = 0, AMS_CODES_ENCODED = 1, AMS_CODES_FORWARD = 2 };
struct atmsae_codes {
    atmsae_context *ctx;
    ams_use use;
    ams_search *search;
    int state;
    uint64_t n, d_in, d_out, d_sae;
    int32_t activation;
    ams_sparse main;   /* value: f */
    float *pre;        /* z of each entry of main (GATED) */
    uint64_t pre_capacity;
    float *x;          /* [n, d_in] x~ */
    uint64_t x_capacity;
    /* What follows is set by forward only. */
    uint64_t n_residuals; /* 1, or 1 + prefixes */
    uint64_t prefixes[AMS_MAX_PREFIXES];
    bool uncentred;
    float *residual;   /* [n_residuals, n, d_out]; the last is e; the others are suffix sums: the
                          sum of e^(g) and of all residuals after it */
    uint64_t residual_capacity;
    float *gate_residual; /* [n, d_out] of GATED's auxiliary reconstruction */
    uint64_t gate_capacity;
    /* Of the second loss, see atmsae_mask: alpha |e'|^2, where e' is the residual without a row's masked entries. */
    double alpha;      /* 0: there is none, and what follows is not used */
    uint8_t *hidden;   /* of each entry of main: it is masked */
    float *teacher;    /* [n, d_out] e + alpha e', by which the entries that are not masked are trained; with prefixes,
                          alpha e' is in all residuals but the last, too */
    float *gate_teacher; /* [n, d_out] the same of gate_residual */
    uint64_t hidden_capacity, teacher_capacity, gate_teacher_capacity;
    float *weights;    /* [n] */
    uint64_t weights_capacity;
    double weight_sum;
    uint8_t *masked;   /* [F] of the step: latents that a hard mask leaves out; all 0 without one */
    uint64_t masked_capacity;
    double *row_p;     /* [F] probabilities of a hard mask per row */
    uint64_t row_p_capacity;
    bool has_row_p;
    uint32_t *list;    /* latents that are not masked */
    uint64_t list_capacity;
    uint32_t *aux_list; /* dead latents that are not masked */
    uint64_t aux_list_capacity, n_aux;
    uint32_t *position; /* [F] of a latent in aux_list */
    uint64_t position_capacity;
    ams_index by_latent;
    ams_sparse aux;    /* AuxK: value a; its "latents" are positions in aux_list */
    ams_index aux_by_latent; /* of values, in aux's sense; backward puts d loss / d a in their place */
    ams_gather_memory *gather;
    uint64_t gather_capacity;
    float *aux_residual; /* [n, d_out] e - sum a d */
    uint64_t aux_capacity;
    double aux_scale;  /* aux_coef * min(1, n_dead / aux_k); 0: no AuxK in this batch */
    float *x_sum;      /* [d_in] sum_r w_r x~_r (JUMPRELU_TANH) */
    uint64_t x_sum_capacity;
    double *columns;   /* [max(d_in, d_out)] column sums */
    uint64_t columns_capacity;
    double *row_sums;  /* [n, AMS_ROW_SUMS] per-row partial losses */
    uint64_t row_sums_capacity;
    float *low;        /* [F] search limits */
    uint64_t low_capacity;
    double lambda;     /* sparsity_coef * scale */
    double l0;
    float min_kept;    /* smallest value kept by BATCHTOPK; NaN: none */
};
static inline float *ams_residual(const atmsae_codes *codes, uint64_t g) { return codes->residual + g * codes->n * codes->d_out; }
/* Residuals, which start as the targets, and the sums of their rows (residuals.c). */
atmsae_status ams_take_out_latents(const atmsae_model *model, atmsae_codes *codes);
/* x~ of a checked batch into codes->x; E_NONFINITE names the first bad row. */
atmsae_status ams_codes_load_rows(atmsae_codes *codes, const atmsae_model *model, const atmsae_batch *batch);
/* Turns pre-activations into latents, in place: main.value (z on entry) becomes f. */
void ams_activate(const atmsae_model *model, atmsae_codes *codes);

/* ---- cuts (cuts.c): what a pre-activation must exceed, of the activations that target_l0 is for ---------- */

/* All cuts start where target_l0 latents a row fire on these rows. */
atmsae_status ams_cuts_start(atmsae_model *model, const atmsae_batch *checked);
/* Shifts them once more so that it is so after training. */
atmsae_status ams_cuts_settle(atmsae_model *model, const atmsae_batch *checked);
/* Raises all cuts by the same amount; of JumpReLU, their logarithms. */
void ams_cuts_shift(atmsae_model *model, double by);
/* How far above their cuts the entries of a forward are on average: a shift by that much divides L0 by about e, as it does
 * where pre-activations have an exponential tail. */
double ams_cuts_margin(const atmsae_model *model, const atmsae_codes *codes);
/* The cut above which k positive pre-activations a row lie on average; 0 where there are fewer. */
atmsae_status ams_find_cut(const atmsae_model *model, const atmsae_batch *checked, double k, float *cut);

/* ---- gradients ---------------------------------------------------------------------------------- */

/* none yet; of the last backward; used by the optimiser (W_dec's are projected, sums still hold) */
enum { AMS_GRADIENTS_NONE = 0, AMS_GRADIENTS_READY = 1, AMS_GRADIENTS_USED = 2 };
#define AMS_NO_SLOT UINT32_MAX
struct atmsae_gradients {
    atmsae_context *ctx;
    ams_use use;
    uint64_t d_in, d_out, d_sae;
    unsigned n_params;
    struct {
        int32_t id;
        uint64_t count;
        float *value; /* W_enc, W_dec: row slot[i] is latent i's */
    } params[AMS_MAX_PARAMS];
    uint32_t *slot;    /* [F] rows are packed, so memory beyond the most that a step needs is never touched;
                          AMS_NO_SLOT: the gradient is 0 */
    uint8_t *masked;   /* [F] of the step */
    double *sums;      /* [4, F]: rows, magnitude, frequency, contribution */
    double *pre_sum;   /* [F] gradient summed over a_i, for b_dec through x~ */
    double *norms;     /* [F] squared norms, for clipping */
    struct ams_latent *latents; /* backward's working memory, */
    float *row;                 /* one row for each worker, */
    double *pieces;             /* and its sums for b_dec */
    int state;         /* AMS_GRADIENTS_.. */
    float min_kept;
};
bool ams_backward_memory(atmsae_gradients *gradients); /* false: there is none */
/* The gradient array of a parameter; NULL if the model does not train it. */
float *ams_gradient(const atmsae_gradients *gradients, int32_t parameter);

/* ---- optimiser ---------------------------------------------------------------------------------- */

struct atmsae_optimizer {
    atmsae_context *ctx;
    ams_use use;
    atmsae_optimizer_config config; /* resolved */
    uint64_t d_sae;
    unsigned n_params;
    uint64_t counts[AMS_MAX_PARAMS];
    float *m[AMS_MAX_PARAMS], *v[AMS_MAX_PARAMS]; /* Adam's moments, shapes as the parameters */
    uint64_t steps;                               /* done */
    uint64_t cooldown_from, cooldown_steps;       /* 0 steps: none asked for */
};
/* The settings, with steps in place of defaults that follow the run's length. */
atmsae_optimizer_config ams_optimizer_resolved(const atmsae_optimizer *optimizer);

#endif
