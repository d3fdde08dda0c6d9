/* SPDX-License-Identifier: MIT
 *
 * Reads a SAELens folder, cfg.json and sae_weights.safetensors: of version 6, and those of versions 2 to 5 as version 6
 * reads them.
 */
#include "format/sae_formats.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- cfg.json ----------------------------------------------------------------------------------- */

typedef struct folder_config {
    const char *architecture, *dtype, *normalize, *reshape, *activation_fn; /* NULL: not there */
    const char *weights_crc, *model_name, *hook_name, *hook_name_out, *version;
    uint64_t d_in, d_sae, d_out; /* 0: not there */
    double k, old_k; /* NAN: not there */
    bool apply_b_dec, rescale, transcoder;
} folder_config;

static const ams_config_key metadata_keys[] = {
    {AMS_FOLDER_CRC, 't', false, offsetof(folder_config, weights_crc), 0, NULL},
    {"model_name", 't', false, offsetof(folder_config, model_name), 0, NULL},
    {"hook_name", 't', false, offsetof(folder_config, hook_name), 0, NULL},
    {"hook_name_out", 't', false, offsetof(folder_config, hook_name_out), 0, NULL},
    {"sae_lens_version", 't', false, offsetof(folder_config, version), 0, NULL},
    {AMS_FOLDER_TRANSCODER, 'b', false, offsetof(folder_config, transcoder), 0, NULL},
    {NULL, 0, false, 0, 0, NULL},
};
static const ams_config_key activation_keys[] = {
    {"k", 'd', false, offsetof(folder_config, old_k), 0, NULL},
    {NULL, 0, false, 0, 0, NULL},
};
static const ams_config_key keys[] = {
    {"architecture", 's', false, offsetof(folder_config, architecture), 0, NULL},
    {"d_in", 'u', true, offsetof(folder_config, d_in), 1 << 24, NULL},
    {"d_sae", 'u', true, offsetof(folder_config, d_sae), INT32_MAX, NULL},
    {"dtype", 's', true, offsetof(folder_config, dtype), 0, NULL},
    {"d_out", 'u', false, offsetof(folder_config, d_out), 1 << 24, NULL},
    {"k", 'd', false, offsetof(folder_config, k), 0, NULL}, /* others than topk may leave any number */
    {"apply_b_dec_to_input", 'b', false, offsetof(folder_config, apply_b_dec), 0, NULL},
    {"rescale_acts_by_decoder_norm", 'b', false, offsetof(folder_config, rescale), 0, NULL},
    {"normalize_activations", 'w', false, offsetof(folder_config, normalize), 0, NULL},
    {"reshape_activations", 's', false, offsetof(folder_config, reshape), 0, NULL},
    {"matryoshka_widths", '-', false, 0, 0, NULL}, /* of training; inference takes all */
    {"device", '-', false, 0, 0, NULL},
    {"metadata", 'o', false, 0, 0, metadata_keys},
    /* Before version 6: */
    {"sae_lens_version", 't', false, offsetof(folder_config, version), 0, NULL},
    {"model_name", 't', false, offsetof(folder_config, model_name), 0, NULL},
    {"hook_name", 't', false, offsetof(folder_config, hook_name), 0, NULL},
    {"hook_point", 't', false, offsetof(folder_config, hook_name), 0, NULL},
    {"activation_fn", 's', false, offsetof(folder_config, activation_fn), 0, NULL},
    {"activation_fn_str", 's', false, offsetof(folder_config, activation_fn), 0, NULL},
    {"activation_fn_kwargs", 'o', false, 0, 0, activation_keys},
    {"finetuning_scaling_factor", '-', false, 0, 0, NULL}, /* the tensor of that name decides */
    {NULL, 0, false, 0, 0, NULL},
};

/* The two batchtopk forms are of SAELens's training classes: its own inference would write jumprelu. */
const ams_architecture ams_architectures[] = {
    {"standard", ATMSAE_RELU, false},      {"topk", ATMSAE_TOPK, false},
    {"jumprelu", ATMSAE_JUMPRELU, false},  {"gated", ATMSAE_GATED, false},
    {"transcoder", ATMSAE_RELU, true},     {"jumprelu_transcoder", ATMSAE_JUMPRELU, true},
    {"batchtopk", ATMSAE_BATCHTOPK, false}, {"matryoshka_batchtopk", ATMSAE_BATCHTOPK, false},
    {NULL, 0, false},
};

static const struct {
    const char *architecture, *reason;
} refused[] = {
    {"skip_transcoder", "it adds a linear path W_skip x to the output, which a model here has no place for"},
    {"jumprelu_skip_transcoder", "it adds a linear path W_skip x to the output, which a model here has no place for"},
    {"abstopk", "its latents may be negative"},
    {"matching_pursuit", "it encodes in several dependent passes"},
    {"temporal", "its latents depend on other rows"},
};

static const struct {
    const char *normalize, *reason;
} refused_norms[] = {
    {"constant_norm_rescale", "each row is scaled by its own norm"},
    {"layer_norm", "each row is centred and scaled by itself"},
    {"covariance_whitening", "the whitening matrix is not part of the folder"},
};

#define GATED (1u << ATMSAE_GATED)
#define BATCHTOPK (1u << ATMSAE_BATCHTOPK)
const ams_sae_tensor ams_saelens_tensors[] = {
    {"W_enc", ATMSAE_W_ENC, true, AMS_ALL_KINDS, NULL},
    {"W_dec", ATMSAE_W_DEC, false, AMS_ALL_KINDS, NULL},
    {"b_dec", ATMSAE_B_DEC, false, AMS_ALL_KINDS, NULL},
    {"b_enc", ATMSAE_B_ENC, false, ~GATED, NULL},
    {"b_gate", ATMSAE_B_ENC, false, GATED, NULL},
    {"r_mag", ATMSAE_R_MAG, false, GATED, NULL},
    {"b_mag", ATMSAE_B_MAG, false, GATED, NULL},
    {"threshold", ATMSAE_THRESHOLD, false, 1u << ATMSAE_JUMPRELU, NULL},
    {"topk_threshold", ATMSAE_BATCH_THRESHOLD, false, BATCHTOPK, NULL},
    {"scaling_factor", AMS_TENSOR_ONES, false, 0, NULL}, /* SAELens drops it if so */
    {NULL, 0, false, 0, NULL},
};

static bool one_of(const char *text, const char *const *list)
{
    while (*list && strcmp(*list, text) != 0)
        list++;
    return *list != NULL;
}

static atmsae_status check_architecture(atmsae_context *ctx, const char *name, const ams_architecture **kind)
{
    for (const ams_architecture *a = ams_architectures; a->name; a++)
        if (strcmp(a->name, name) == 0) {
            *kind = a;
            return ATMSAE_OK;
        }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(refused[i].architecture, name) == 0)
            return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "architecture \"%s\" is not read: %s", name, refused[i].reason);
    return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "architecture \"%.80s\"; standard, topk, jumprelu, gated, transcoder, jumprelu_transcoder, "
                    "batchtopk and matryoshka_batchtopk are read", name);
}

static atmsae_status check_normalize(atmsae_context *ctx, const char *name)
{
    if (strcmp(name, "none") == 0 || strcmp(name, "false") == 0) return ATMSAE_OK;
    if (strcmp(name, "true") == 0) name = "expected_average_only_in"; /* before it had other values than the two */
    for (size_t i = 0; i < sizeof refused_norms / sizeof *refused_norms; i++)
        if (strcmp(refused_norms[i].normalize, name) == 0)
            return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "normalize_activations \"%s\" is not read: %s", name, refused_norms[i].reason);
    if (strcmp(name, "expected_average_only_in") != 0)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "normalize_activations \"%.80s\"; none and expected_average_only_in are read", name);
    ams_log(ctx, ATMSAE_LOG_WARNING, "cfg.json: normalize_activations is %s without a factor: rows are used as they come, "
            "as SAELens does", name);
    return ATMSAE_OK;
}

/* Before version 6 a folder need not say its architecture, which is standard then, and topk is standard with another
 * activation function. */
static atmsae_status find_architecture(atmsae_context *ctx, const folder_config *c, const char **name)
{
    *name = c->architecture ? c->architecture : "standard";
    if (!c->architecture && (!isnan(c->k) || (c->version && strtol(c->version, NULL, 10) >= 6)))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "\"architecture\" is missing; only a folder from before SAELens 6 is standard without it: add it");
    if (!c->activation_fn || strcmp(c->activation_fn, "relu") == 0) return ATMSAE_OK;
    bool topk = strcmp(*name, "standard") == 0 || strcmp(*name, "topk") == 0;
    if (!topk || strcmp(c->activation_fn, "topk") != 0)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "activation_fn \"%.80s\" of architecture \"%.80s\" is not read: relu is, and topk of "
                        "standard and topk", c->activation_fn, *name);
    *name = "topk";
    return ATMSAE_OK;
}

static atmsae_status check_config(atmsae_context *ctx, const folder_config *c, ams_sae_parts *p)
{
    static const char *const dtypes[] = {"float32", "float64", "float16", "bfloat16", NULL};
    static const char *const shapes[] = {"none", "hook_z", NULL}; /* hook_z: rows come flattened */
    const ams_architecture *kind = NULL;
    const char *name;
    AMS_TRY(find_architecture(ctx, c, &name));
    AMS_TRY(check_architecture(ctx, name, &kind));
    if (!one_of(c->dtype + (strncmp(c->dtype, "torch.", 6) == 0 ? 6 : 0), dtypes))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "dtype \"%.80s\", allowed: float32, float64, float16, bfloat16", c->dtype);
    AMS_TRY(check_normalize(ctx, c->normalize));
    if (!one_of(c->reshape, shapes))
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "reshape_activations \"%.80s\"; none and hook_z are read", c->reshape);
    if (!isnan(c->k) && !isnan(c->old_k) && c->k != c->old_k)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "k = %g, but activation_fn_kwargs has k = %g: take out the wrong one", c->k, c->old_k);
    if (kind->transcoder && !c->d_out) return ams_fail(ctx, ATMSAE_E_FORMAT, "\"d_out\" is missing");
    p->architecture = kind->name;
    p->kind = (unsigned)kind->activation;
    p->activation = kind->activation;
    p->transcoder = kind->transcoder || (c->transcoder && !c->apply_b_dec);
    p->centred = !p->transcoder && c->apply_b_dec;
    p->weigh_by_norm = c->rescale && (kind->activation == ATMSAE_TOPK || kind->activation == ATMSAE_BATCHTOPK);
    p->d_in = c->d_in;
    p->d_out = kind->transcoder ? c->d_out : c->d_in;
    p->d_sae = c->d_sae;
    p->k = isnan(c->k) ? c->old_k : c->k;
    p->model_name = c->model_name;
    p->hook_name = c->hook_name;
    p->hook_name_out = p->transcoder ? c->hook_name_out : NULL; /* elsewhere it has no meaning, though it may be there */
    return ATMSAE_OK;
}

/* ---- the folder --------------------------------------------------------------------------------- */

/* Are the two files of one save? (sae_formats.h) */
static atmsae_status check_pair(atmsae_context *ctx, const folder_config *c, const atmsae_tensors *file)
{
    if (!ams_folder_is_marked(file)) return ATMSAE_OK;
    uint64_t crc;
    char text[AMS_FOLDER_CRC_TEXT];
    AMS_TRY(ams_tensors_crc(file, &crc));
    if (ams_folder_crc_is(crc, c->weights_crc)) return ATMSAE_OK;
    ams_folder_crc_text(text, crc);
    return ams_fail(ctx, ATMSAE_E_FORMAT, "cfg.json is not of the same save, or the weights were damaged: their CRC-64 is %s, "
                    "cfg.json's metadata." AMS_FOLDER_CRC " %.80s", text, c->weights_crc ? c->weights_crc : "is missing");
}

/* cfg.json was read already. A save that goes on now renames the staged weights last: they are looked at first. That
 * they cannot be read is no error where the others are those that cfg.json names. */
static atmsae_status open_weights(const ams_folder *f, const folder_config *c, const char **path, atmsae_tensors **file)
{
    *path = f->staged;
    if (ams_folder_open_staged(f, c->weights_crc, file) == ATMSAE_E_NOMEM) return ATMSAE_E_NOMEM;
    if (*file) {
        ams_log(f->ctx, ATMSAE_LOG_INFO, "%s: these are the weights of cfg.json: the save that wrote them did not end", *path);
        return ATMSAE_OK;
    }
    *path = f->weights;
    AMS_TRY(atmsae_tensors_open(f->ctx, *path, file));
    atmsae_status status = check_pair(f->ctx, c, *file);
    return status < 0 ? ams_fail_in(f->ctx, status, *path) : ATMSAE_OK;
}

static atmsae_status read_weights(const ams_folder *f, const folder_config *c, const ams_sae_parts *parts, atmsae_model **out)
{
    const char *path;
    atmsae_tensors *file = NULL;
    atmsae_status status = open_weights(f, c, &path, &file);
    if (status == ATMSAE_OK) status = ams_sae_build(f->ctx, parts, path, file, out);
    atmsae_tensors_close(file);
    return status;
}

static atmsae_status read_folder(const ams_folder *f, atmsae_model **out)
{
    char *text = NULL;
    folder_config config = {.k = NAN, .old_k = NAN, .apply_b_dec = true, .normalize = "none", .reshape = "none"};
    ams_sae_parts parts = {.format = "saelens", .config = "cfg.json", .config_path = f->config, .tensors = ams_saelens_tensors};
    atmsae_status status = ams_config_read(f->ctx, f->config, keys, true, &config, &text);
    if (status == ATMSAE_OK) {
        status = check_config(f->ctx, &config, &parts);
        status = status < 0 ? ams_fail_in(f->ctx, status, f->config) : read_weights(f, &config, &parts, out);
    }
    ams_free(f->ctx, text);
    return status;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Where the two files do not fit because a save came in between, cfg.json is another now. */
static atmsae_status read_steadily(const ams_folder *f, atmsae_model **out)
{
    enum { MOST_TRIES = 100 };
    for (int tries = 1;; tries++) {
        struct stat before, after;
        bool there = stat(f->config, &before) == 0;
        atmsae_status status = read_folder(f, out);
        if (status >= 0 || tries == MOST_TRIES || !there || stat(f->config, &after) < 0 || is_same(&before, &after)) return status;
    }
}

atmsae_status ams_read_saelens(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out)
{
    ams_folder folder;
    atmsae_status status = ams_folder_find(&folder, ctx, place->folder);
    if (status == ATMSAE_OK) status = read_steadily(&folder, out);
    ams_folder_end(&folder);
    return status;
}
