/* SPDX-License-Identifier: MIT
 *
 * libatmsae: the field's measures of a sparse autoencoder, beside the few in atmsae.h. The conventions
 * of atmsae.h hold here too. Formulas and sources are in doc/evaluation.md.
 *
 *   1. Absorption    three published forms, per class and per word
 *   2. Probing       how much a few latents, or all of them, tell of a label
 *   3. Core          more of reconstruction, densities, nearest latents, top rows, a language model's loss
 *   4. Stability     do two runs find the same latents; hedging
 *   5. Known truth   generators of rows with known features, and scores against them
 *
 * All measures take activations and labels that the caller has; none of them runs a language model,
 * except through a callback.
 */
#ifndef ATMSAE_EVAL_H
#define ATMSAE_EVAL_H

#include <atmsae/atmsae.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================
 * 1. Absorption
 * ============================================================================================ */

/* Shares and F1 are 0 .. 1. "Words that count" of a class: its test rows on which its probe is right.
 * Split latents: the latents that stand for a class; the main latent is the first of them. A word has a latent of its own
 * if one of the three largest latents that are not split latents fires on at most 1 % of all rows given to create. */
typedef struct atmsae_absorption_entry {
    size_t size;
    uint64_t words;         /* that count */
    uint64_t absorbed;      /* fully */
    uint64_t n_split;
    uint64_t split[10];     /* the first of them, the main latent at 0 */
    double full_rate;       /* absorbed / words */
    double fraction_v060;   /* mean over words, as of SAEBench 0.6.0 */
    double fraction_v032;   /* mean over words, as of SAEBench 0.3.2 */
    double probe_f1;        /* of the probe, on test rows */
    double sparse_f1;       /* of the main latent alone, through a logistic regression */
    double split_f1;        /* of all split latents, likewise */
    double split_recall;    /* share of words on which a split latent fires */
    double main_recall;     /* share of words on which the main latent fires */
    double main_precision;  /* share of the test rows on which the main latent fires that are of the
                               class; 0 if it never fires */
    int32_t used;           /* 1: probe_f1 is above min_probe_f1 */
    int32_t pad0_;
    uint64_t train_rows, test_rows; /* of the class; none of either: why it is not used */
    double main_f1;         /* of the main latent's firing as a sign of the class, on all test rows */
    double main_rate;       /* share of all test rows on which the main latent fires */
    uint64_t own_words;     /* words that count which have a latent of their own */
    double own_recall, other_recall; /* main_recall on those words, and on the other ones; NaN if there are none */
} atmsae_absorption_entry;

/* Means over classes, unweighted; sd: sample standard deviation over the same classes (NaN for fewer
 * than two). The means are NaN where no class counts. */
typedef struct atmsae_absorption_measures {
    size_t size;
    uint64_t classes;       /* used ones: all means but fraction_v032 are over these */
    uint64_t words, absorbed; /* sums over them */
    double full_rate, full_rate_sd;
    double fraction_v060, fraction_v060_sd;
    uint64_t classes_v032;  /* with at least one word that counts, whatever the probe's F1 */
    double fraction_v032, fraction_v032_sd; /* over those, as that version did */
    double mean_split, probe_f1, sparse_f1, split_f1, split_recall, main_recall, main_precision;
    double main_f1, main_rate;
    uint64_t own_words;     /* sum over the used classes */
    double own_recall, other_recall; /* over used classes with both kinds of words, a class weighing
                               own words * other words / words; NaN without such a class, like the next two */
    double gap;             /* other_recall - own_recall: above 0 where latents of a word's own take over; may be negative */
    double gap_error;       /* standard error of gap, words taken as draws */
} atmsae_absorption_measures;

enum { ATMSAE_ROW_NOT_COUNTED = 0, ATMSAE_ROW_KEPT = 1, ATMSAE_ROW_ABSORBED = 2 };
/* Like atmsae_absorption_score, with the other forms. classes [n_classes] or NULL; the size of the
 * first one must be set, and is that of all. rows or NULL: what became of each row given to create,
 * ATMSAE_ROW_.. (a word of a class that is not used is NOT_COUNTED). */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_absorption_measure(const atmsae_absorption *absorption, const atmsae_model *model,
                          atmsae_absorption_measures *result, atmsae_absorption_entry *classes,
                          uint8_t *rows);

/* ============================================================================================
 * 2. Probing
 * ============================================================================================ */

/* k-sparse probing of binary tasks over texts. A text's features are the means over its rows of the
 * latents (in units in which decoder rows have norm 1) or of x itself. One handle probes any number
 * of SAEs on the same texts and labels. */
typedef struct atmsae_probing atmsae_probing;
enum {
    ATMSAE_PROBING_SAEBENCH = 1,  /* columns ranked by |mean of positives - mean of negatives|; C = c */
    ATMSAE_PROBING_SAE_PROBES = 2 /* each column divided by its mean |value| where it is not 0 before
                                     ranking; C of 10^5 .. 10^-5 by the AUC on the last min(n / 5, 100)
                                     training texts; c below 128 of them */
};
typedef struct atmsae_probing_config {
    size_t size;
    uint64_t n_tasks;      /* required; 1 .. 10^6 */
    const uint64_t *ks;    /* numbers of columns to probe with, each 1 .. 1024; default 1, 2, 5 */
    uint64_t n_ks;         /* 0 .. 16 */
    const uint64_t *texts; /* [n_rows] text of each row: 0, 0, .., 1, ..; NULL (default): one row each */
    double c;              /* of the logistic regression |w|^2 / 2 + C sum log(1 + exp(-t z)); default 1 */
    int32_t protocol;      /* default ATMSAE_PROBING_SAEBENCH */
    int32_t pad0_;
} atmsae_probing_config;
ATMSAE_API void atmsae_probing_config_init(atmsae_probing_config *config, size_t size);
/* batch: the rows, [n_rows, d]; those of weight 0 are left out of the means. labels [texts, n_tasks]: 1,
 * 0, or -1 for texts that are not part of the task; is_train [texts]. All are copied. A task without training texts
 * of both labels or without a test text is not probed; the others are. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_probing_create(atmsae_context *context, const atmsae_probing_config *config, const atmsae_batch *batch,
                      uint64_t d, const int8_t *labels, const uint8_t *is_train, atmsae_probing **out);
ATMSAE_API void atmsae_probing_destroy(atmsae_probing *probing);
/* What a task has to learn from, the same for every SAE. */
typedef struct atmsae_probing_task {
    size_t size;
    uint64_t train[2], test[2]; /* its training and test texts, by label */
    double majority; /* accuracy of the better one of two probes that say always 0 or always 1; NaN without test texts */
    int32_t probed;  /* 0: train[0], train[1] or both of test are 0 */
    int32_t pad0_;
} atmsae_probing_task;
/* tasks [n_tasks]; the size of the first one must be set, and is that of all. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_probing_tasks(const atmsae_probing *probing, atmsae_probing_task *tasks);
/* Of one probe, on the test texts; label 1 is said where the score is > 0. Of a task that is not probed all is NaN
 * and best UINT64_MAX. */
typedef struct atmsae_probing_entry {
    double accuracy;
    double f1;     /* of label 1; 0 where undefined */
    double auc;    /* NaN if the test texts are all of one label */
    double c;      /* used */
    uint64_t best; /* the column ranked first; UINT64_MAX for the probe on all columns */
} atmsae_probing_entry;
/* entries [n_tasks, n_ks + 1]: the ks in order, then all columns. Fits the probes to a relative gradient of
 * 1e-9 (a warning where data do not allow it). */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_probing_score(const atmsae_probing *probing, const atmsae_model *model, atmsae_probing_entry *entries);
/* The same on x: single dimensions, and all of them. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_probing_baseline(const atmsae_probing *probing, atmsae_probing_entry *entries);

/* ============================================================================================
 * 3. Core
 * ============================================================================================ */

/* Further results of a metrics handle; nothing is encoded again. Values of no rows are NaN. */
typedef struct atmsae_metrics_details {
    size_t size;
    uint64_t rows;
    double mse_per_dim;                /* mse / d_out */
    double explained_variance;         /* 1 - fvu */
    double explained_variance_centred; /* the same with the mean error taken off, as in dictionary_learning */
    double error_norm;                 /* mean |y - y^| */
    double norm_ratio;                 /* mean |y^| / |y| over rows with |y| > 1e-6 */
    double alive;                      /* share of latents that fired. Needs millions of rows to settle */
    double over_1_percent, over_10_percent;  /* share of latents that fired on more than that of the rows */
    double firings_over_1_percent, firings_over_10_percent; /* share of all firings that are theirs */
    double saebench_mse;               /* mean over batches (calls of add) of sum |y - y^|^2 / rows^2 */
    double saebench_explained_variance; /* mean over rows of 1 - |y - y^|^2 / |y - batch mean|^2, as SAEBench's
                                          until March 2025; for comparison with published figures only */
} atmsae_metrics_details;
ATMSAE_API atmsae_status
atmsae_metrics_get_details(const atmsae_metrics *metrics, atmsae_metrics_details *details);
/* Numbers of latents by log10 of the share of rows on which they fire: bins [n_bins] equal steps from low to
 * high, the first and last taking what lies outside. Latents that never fired are in none. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_metrics_histogram(const atmsae_metrics *metrics, double low, double high, uint64_t n_bins, uint64_t *bins);
/* Adds what `other` has seen, as if its batches had been added here: for rows split over threads,
 * processes or files, a handle each. `other` stays as it is. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_metrics_merge(atmsae_metrics *metrics, const atmsae_metrics *other);

/* Largest cosine of each latent's row (ATMSAE_W_DEC or ATMSAE_W_ENC) with any other latent's: nearest [F]
 * or NULL; NaN for zero rows, which are left out of all. mean: over latents, or NULL. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_similarity(const atmsae_model *model, int32_t parameter, float *nearest, double *mean);

/* The n nearest latents of each latent by the same cosine, nearest first, the lower latent on ties: latents [F, n] and
 * cosines [F, n]; UINT32_MAX and NaN where there are fewer. n 1 .. 256. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_neighbours(const atmsae_model *model, int32_t parameter, uint64_t n, uint32_t *latents, float *cosines);

/* The rows on which each latent is largest, over any number of batches of codes. Which rows come out does not
 * depend on the cut into batches or their order: largest value first, the lower row number on ties. */
typedef struct atmsae_top_rows atmsae_top_rows;
/* n_top: rows to keep for each latent, 1 .. 1024. Takes (16 n_top + 8) d_sae bytes. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_top_rows_create(atmsae_context *context, uint64_t d_sae, uint64_t n_top, atmsae_top_rows **out);
ATMSAE_API void atmsae_top_rows_destroy(atmsae_top_rows *top);
/* Row r of codes counts as number first_row + r; only values > 0 count. E_ARG if the codes have another d_sae. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_top_rows_add(atmsae_top_rows *top, const atmsae_codes *codes, uint64_t first_row);
/* As if the batches of `other` had been added here; both of the same d_sae and n_top. `other` stays as it is. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_top_rows_merge(atmsae_top_rows *top, const atmsae_top_rows *other);
/* rows [n_top], values [n_top], either may be NULL: of one latent. *n: how many there are, 0 if it never fired. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_top_rows_get(const atmsae_top_rows *top, uint64_t latent, uint64_t *rows, float *values, uint64_t *n);

/* What one run of the language model gave; all arrays are the callback's own and must stay until
 * its next call. */
typedef struct atmsae_lm_output {
    size_t size;
    uint64_t n_tokens;        /* of the batch; may be 0 */
    const float *activations; /* [n_tokens, d_in] what the SAE reads; original run only */
    const float *outputs;     /* [n_tokens, d_out] what is replaced; NULL: activations */
    const uint8_t *keep;      /* [n_tokens] 1: never replaced (special tokens); NULL: none; original run only */
    const float *ce;          /* [n_tokens] cross-entropy of the next token; NaN: does not count */
    const float *logits;      /* [n_tokens, vocab]; NULL: no KL */
    uint64_t vocab;
} atmsae_lm_output;
typedef struct atmsae_language_model {
    size_t size;
    uint64_t n_batches;
    void *opaque;
    /* Runs batch number `batch` and fills *out; 0 or a failure. replacement NULL: as it is; else
     * [n_tokens, d_out] goes in place of the activations (first the reconstruction, then zeros). */
    int32_t (*run)(void *opaque, uint64_t batch, const float *replacement, atmsae_lm_output *out);
} atmsae_language_model;
/* Means over tokens that count. Scores are 1 where nothing is lost, 0 where as much as with zeros; NaN if
 * zeros lose nothing. KL is KL(original || replaced). */
typedef struct atmsae_lm_result {
    size_t size;
    uint64_t tokens;
    double ce_original, ce_reconstruction, ce_zero;
    double ce_score; /* (ce_zero - ce_reconstruction) / (ce_zero - ce_original) */
    double kl_reconstruction, kl_zero; /* NaN without logits */
    double kl_score; /* (kl_zero - kl_reconstruction) / kl_zero */
} atmsae_lm_result;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_language(const atmsae_model *model, const atmsae_language_model *lm, atmsae_lm_result *result);

/* ============================================================================================
 * 4. Stability
 * ============================================================================================ */

/* An optimal one-to-one match (exact assignment) of the latents of two models by the cosine of their
 * W_DEC or W_ENC rows: PW-MCC. absolute 0: signed cosines, as in its paper; 1: their absolute values, as SAELens
 * takes them. min(F_a, F_b) pairs; a zero row's cosine is 0. partner [F_a] or NULL: each latent's
 * partner, UINT32_MAX for none. Needs 4 F_a F_b bytes; for 16384 latents 1 GiB. The costs are a matrix product's:
 * of two matches whose sums are equal to a float's rounding either may come back. */
typedef struct atmsae_match_result {
    size_t size;
    uint64_t pairs;
    double mcc;    /* mean cosine over pairs */
    double shared; /* share of pairs above 0.7 */
} atmsae_match_result;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_match(const atmsae_model *a, const atmsae_model *b, int32_t parameter, int32_t absolute,
                   uint32_t *partner, atmsae_match_result *result);

/* control: an SAE of h latents. extended: the same training run with m < d_out more latents, from h on, added
 * to it. projection: mean length of the moves of the first h decoder rows within the span of the
 * new ones, by the mean length of a decoder row; random_projection: the same for random subspaces (50, drawn
 * from seed); score: max(0, (projection - random) / (1 - random)). */
typedef struct atmsae_hedging_result {
    size_t size;
    double projection, random_projection, score;
} atmsae_hedging_result;
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_model_hedging(const atmsae_model *control, const atmsae_model *extended, uint64_t seed,
                     atmsae_hedging_result *result);

/* ============================================================================================
 * 5. Known truth
 * ============================================================================================ */

/* A generator in which every feature has its own probability and magnitude, and may have a parent without which
 * it is off. It is an atmsae_synth handle: atmsae_synth_rows, _features, _directions, _score and
 * _destroy take it; rows are again functions of (seed, row).
 *
 * A feature is drawn with its probability, independently or by a Gaussian copula of low rank; children whose
 * parent is off go off; children that exclude each other leave one; magnitudes are max(0, mean + sd N(0,1)),
 * a child's times its parent's magnitude / mean if asked for; x = bias + sum of magnitude * direction. */
enum {
    ATMSAE_CHILDREN_FREE = 0,
    ATMSAE_CHILDREN_KEEP_ONE = 1,  /* of the children drawn one stays, each as likely */
    ATMSAE_CHILDREN_CHOOSE_ONE = 2 /* one child is on with its own probability, or none with the rest of 1 */
};
typedef struct atmsae_tree_config {
    size_t size;
    uint64_t d;                /* required */
    uint64_t n_features;       /* required */
    uint64_t seed;
    const double *probability; /* [n] required */
    const uint64_t *parent;    /* [n] a lower index; its own for a feature without; NULL (default): none has */
    const int32_t *children;   /* [n] ATMSAE_CHILDREN_.. of the feature's children; NULL: FREE */
    const double *mean, *sd;   /* [n] NULL: 1 and 0 */
    const float *directions;   /* [n, d] of any norm; NULL: random unit vectors */
    int32_t scale_children;    /* 1: child magnitudes follow the parent's. Default 0 */
    int32_t compensate;        /* 1: probability is the share of rows wanted, and is raised against what the parent and
                                  exclusive siblings take away. Default 0: it is that of the draw */
    uint64_t orthogonal_steps; /* of moving directions apart, each n d^2 products; default 0 */
    double orthogonal_lr;      /* default 3e-4 */
    uint64_t correlation_rank; /* 0 (default): independent draws */
    double correlation_scale;  /* of the N(0, scale) factors; default 0.1 */
    double bias_norm;          /* of one random vector added to all rows; default 0 */
} atmsae_tree_config;
ATMSAE_API void atmsae_tree_config_init(atmsae_tree_config *config, size_t size);
/* All is copied. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_create_tree(atmsae_context *context, const atmsae_tree_config *config, atmsae_synth **out);

enum {
    ATMSAE_SYNTH_BENCH_16K = 1,  /* SynthSAEBench-16k: 16384 features in 768 dimensions; takes minutes to make */
    ATMSAE_SYNTH_CHANIN = 2,     /* four features in 50 dimensions, one within another */
    ATMSAE_SYNTH_MATRYOSHKA = 3  /* twenty features in 20 dimensions, three parents with three children */
};
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_create_preset(atmsae_context *context, int32_t preset, uint64_t seed, atmsae_synth **out);

/* A latent's feature is the one whose direction has the largest |cos| with its decoder row (rows of zeros: feature
 * 0); a parent's latent, the latent with the largest |cos| with it. All shares and cosines are means;
 * shares of nothing are 0 for latents and NaN for parents. */
typedef struct atmsae_truth_result {
    size_t size;
    double true_l0, l0;
    uint64_t dead;            /* latents that never fired on these rows */
    double mcc, mcc_signed;   /* mean cosine of an optimal match of latents and features, absolute or signed */
    double uniqueness;        /* distinct features of latents / F */
    double precision, recall, f1, accuracy; /* over latents: firing as a sign of the latent's feature */
    uint64_t parents;         /* with at least 50 rows with a child on and 50 without; what follows is over these */
    double parent_recall_child_on, parent_recall_child_off;
    double absorption;        /* mean of recall without a child - recall with one */
    double decoder_leak;      /* mean cos of the decoder row of a child's latent with the parent's direction, less the
                                 cos of the two directions themselves */
    double fraction_v060, fraction_v032, full_rate; /* of section 1, with the parent's direction for the probe, its rows
                                 for the words, and its latent as the one split latent */
} atmsae_truth_result;
/* Scores a model on rows first_row .. first_row + n_rows - 1 of any generator. */
ATMSAE_API ATMSAE_MUST_CHECK atmsae_status
atmsae_synth_truth(const atmsae_synth *synth, const atmsae_model *model, uint64_t first_row, uint64_t n_rows,
                   atmsae_truth_result *result);

#ifdef __cplusplus
}
#endif
#endif
