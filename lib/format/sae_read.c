/* SPDX-License-Identifier: MIT
 *
 * Readers of the other formats: eai-sparsify, Gemma Scope (.npz), Gemma Scope 2 (.safetensors) and
 * dictionary_learning (.pt). Each says what its tensors are called and what its own package does with
 * them at inference; sae_build.c does the rest.
 */
#include "format/sae_formats.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define END_TENSORS {NULL, 0, false, 0, NULL}
#define END_KEYS {NULL, 0, false, 0, 0, NULL}

/* Opens the weights and builds. */
static atmsae_status build(atmsae_context *ctx, const ams_sae_parts *parts, const ams_sae_place *place, atmsae_model **out)
{
    atmsae_tensors *file;
    AMS_TRY(atmsae_tensors_open(ctx, place->weights, &file));
    atmsae_status status = ams_sae_build(ctx, parts, place->weights, file, out);
    atmsae_tensors_close(file);
    return status;
}

/* ---- eai-sparsify: cfg.json, sae.safetensors; sparsify/sparse_coder.py ------------------------------- */

typedef struct sparsify_config {
    const char *activation;
    uint64_t d_in, num_latents, expansion_factor, k;
    bool is_signed, skip, transcode;
} sparsify_config;

static const ams_config_key sparsify_keys[] = {
    {"activation", 's', false, offsetof(sparsify_config, activation), 0, NULL},
    {"d_in", 'u', true, offsetof(sparsify_config, d_in), 1 << 24, NULL},
    {"num_latents", 'u', false, offsetof(sparsify_config, num_latents), INT32_MAX, NULL},
    {"expansion_factor", 'u', false, offsetof(sparsify_config, expansion_factor), INT32_MAX, NULL},
    {"k", 'u', true, offsetof(sparsify_config, k), INT32_MAX, NULL},
    {"signed", 'b', false, offsetof(sparsify_config, is_signed), 0, NULL}, /* before version 1 */
    {"skip_connection", 'b', false, offsetof(sparsify_config, skip), 0, NULL},
    {"transcode", 'b', false, offsetof(sparsify_config, transcode), 0, NULL},
    {"normalize_decoder", '-', false, 0, 0, NULL}, /* of training, as the next: inference does not look */
    {"multi_topk", '-', false, 0, 0, NULL},
    END_KEYS,
};
static const ams_sae_tensor sparsify_tensors[] = {
    {"encoder.weight", ATMSAE_W_ENC, false, AMS_ALL_KINDS, NULL},
    {"encoder.bias", ATMSAE_B_ENC, false, AMS_ALL_KINDS, NULL},
    {"W_dec", ATMSAE_W_DEC, false, AMS_ALL_KINDS, NULL},
    {"b_dec", ATMSAE_B_DEC, false, AMS_ALL_KINDS, NULL},
    {"W_skip", AMS_TENSOR_REFUSED, false, 0, "a linear path around the latents, which a model here has no place for"},
    END_TENSORS,
};

static atmsae_status check_sparsify(atmsae_context *ctx, const sparsify_config *c)
{
    if (strcmp(c->activation, "topk") != 0)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "activation \"%.80s\" is not read: topk is", c->activation);
    if (c->is_signed) return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "signed: its latents may be negative");
    if (c->skip)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "skip_connection: a linear path around the latents, which a model here has no place for");
    return ATMSAE_OK;
}

atmsae_status ams_read_sparsify(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out)
{
    char *text = NULL, *path = ams_path_join(ctx, place->folder, "cfg.json");
    if (!path) return ATMSAE_E_NOMEM;
    sparsify_config c = {.activation = "topk", .expansion_factor = 32};
    atmsae_status status = ams_config_read(ctx, path, sparsify_keys, true, &c, &text);
    if (status < 0) goto end;
    status = check_sparsify(ctx, &c);
    if (status < 0) {
        status = ams_fail_in(ctx, status, path);
        goto end;
    }
    const ams_sae_parts parts = {
        .format = "sparsify", .architecture = "topk", .config = "cfg.json", .config_path = path, .tensors = sparsify_tensors,
        .activation = ATMSAE_TOPK, .centred = !c.transcode, .transcoder = c.transcode, .d_in = c.d_in, .d_out = c.d_in,
        .d_sae = c.num_latents ? c.num_latents : c.d_in * c.expansion_factor, .k = (double)c.k,
    };
    status = build(ctx, &parts, place, out);
end:
    ams_free(ctx, text);
    ams_free(ctx, path);
    return status;
}

/* ---- Gemma Scope and Gemma Scope 2: JumpReLU, the input is not centred ------------------------------- */

#define SKIP "a linear path around the latents, which a model here has no place for"
static const ams_sae_tensor gemma_tensors[] = {
    {"W_enc", ATMSAE_W_ENC, true, AMS_ALL_KINDS, NULL},
    {"W_dec", ATMSAE_W_DEC, false, AMS_ALL_KINDS, NULL},
    {"b_enc", ATMSAE_B_ENC, false, AMS_ALL_KINDS, NULL},
    {"b_dec", ATMSAE_B_DEC, false, AMS_ALL_KINDS, NULL},
    {"threshold", ATMSAE_THRESHOLD, false, AMS_ALL_KINDS, NULL},
    {"scaling_factor", AMS_TENSOR_ONES, false, 0, NULL},
    END_TENSORS,
};
static const ams_sae_tensor gemma_2_tensors[] = { /* and of the first releases of Gemma Scope */
    {"w_enc", ATMSAE_W_ENC, true, AMS_ALL_KINDS, NULL},
    {"w_dec", ATMSAE_W_DEC, false, AMS_ALL_KINDS, NULL},
    {"b_enc", ATMSAE_B_ENC, false, AMS_ALL_KINDS, NULL},
    {"b_dec", ATMSAE_B_DEC, false, AMS_ALL_KINDS, NULL},
    {"threshold", ATMSAE_THRESHOLD, false, AMS_ALL_KINDS, NULL},
    {"scaling_factor", AMS_TENSOR_ONES, false, 0, NULL},
    {"affine_skip_connection", AMS_TENSOR_REFUSED, false, 0, SKIP},
    END_TENSORS,
};

/* No file says the sizes: the two matrices do. */
static atmsae_status build_gemma(atmsae_context *ctx, ams_sae_parts *p, const ams_sae_place *place, atmsae_model **out)
{
    atmsae_tensors *file;
    uint64_t enc[8] = {0}, dec[8] = {0}, index;
    AMS_TRY(atmsae_tensors_open(ctx, place->weights, &file));
    p->tensors = gemma_tensors;
    if (ams_tensors_index(file, gemma_tensors[0].name) == UINT64_MAX) p->tensors = gemma_2_tensors;
    p->architecture = "jumprelu";
    p->config = "W_enc and W_dec";
    p->config_path = place->weights;
    p->activation = ATMSAE_JUMPRELU;
    atmsae_tensor_info info = {.size = sizeof info};
    atmsae_status status = ams_sae_shape(ctx, file, p->tensors[0].name, 2, enc);
    index = ams_tensors_index(file, p->tensors[1].name);
    if (status == ATMSAE_OK && index < UINT64_MAX && atmsae_tensors_info(file, index, &info) == ATMSAE_OK && info.rank == 3)
        status = ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "tensor \"%s\" has 3 dimensions: cross-layer transcoders are not read", info.name);
    if (status == ATMSAE_OK) status = ams_sae_shape(ctx, file, p->tensors[1].name, 2, dec);
    if (status < 0) {
        status = ams_fail_in(ctx, status, place->weights);
    } else {
        p->d_in = enc[0];
        p->d_sae = enc[1];
        p->d_out = dec[1];
        p->transcoder = p->transcoder || p->d_in != p->d_out;
        status = ams_sae_build(ctx, p, place->weights, file, out);
    }
    atmsae_tensors_close(file);
    return status;
}

atmsae_status ams_read_gemma_scope(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out)
{
    ams_sae_parts parts = {.format = "gemma-scope", .unsaid = true};
    return build_gemma(ctx, &parts, place, out);
}

/* config.json, which not all releases have: architecture must be "jump_relu"; SAEs name one hook point, or one twice,
 * transcoders two. */
typedef struct gemma_config {
    const char *architecture, *model_name, *type, *hook_in, *hook_out;
    bool affine;
} gemma_config;

static const ams_config_key gemma_keys[] = {
    {"architecture", 's', true, offsetof(gemma_config, architecture), 0, NULL},
    {"model_name", 't', false, offsetof(gemma_config, model_name), 0, NULL},
    {"type", 't', false, offsetof(gemma_config, type), 0, NULL},
    {"hf_hook_point_in", 't', false, offsetof(gemma_config, hook_in), 0, NULL},
    {"hf_hook_point_out", 't', false, offsetof(gemma_config, hook_out), 0, NULL},
    {"affine_connection", 'b', false, offsetof(gemma_config, affine), 0, NULL},
    END_KEYS,
};

static bool is_gemma_transcoder(const gemma_config *c)
{
    if (c->type && strcmp(c->type, "transcoder") == 0) return true;
    return c->hook_out && (!c->hook_in || strcmp(c->hook_in, c->hook_out) != 0);
}

static atmsae_status check_gemma(atmsae_context *ctx, const gemma_config *c)
{
    if (strcmp(c->architecture, "jump_relu") != 0)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "architecture \"%.80s\" is not read: jump_relu is", c->architecture);
    return c->affine ? ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "affine_connection: " SKIP) : ATMSAE_OK;
}

atmsae_status ams_read_gemma_scope_2(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out)
{
    char *text = NULL, *path = ams_path_join(ctx, place->folder, "config.json");
    if (!path) return ATMSAE_E_NOMEM;
    gemma_config c = {.architecture = "jump_relu"};
    atmsae_status status = ATMSAE_OK;
    if (ams_path_exists(path)) {
        status = ams_config_read(ctx, path, gemma_keys, false, &c, &text);
        if (status < 0) goto end;
        status = check_gemma(ctx, &c);
        if (status < 0) {
            status = ams_fail_in(ctx, status, path);
            goto end;
        }
    }
    ams_sae_parts parts = {.format = "gemma-scope-2", .model_name = c.model_name, .transcoder = is_gemma_transcoder(&c),
                           .unsaid = !c.type && !c.hook_out};
    status = build_gemma(ctx, &parts, place, out);
end:
    ams_free(ctx, text);
    ams_free(ctx, path);
    return status;
}

/* ---- dictionary_learning: config.json, ae.pt; dictionary.py and trainers/ ---------------------------- */

typedef struct dictionary_config {
    const char *dict_class, *lm_name;
    uint64_t activation_dim, dict_size;
    double k;
} dictionary_config;

static const ams_config_key trainer_keys[] = {
    {"dict_class", 's', true, offsetof(dictionary_config, dict_class), 0, NULL},
    {"lm_name", 't', false, offsetof(dictionary_config, lm_name), 0, NULL},
    {"activation_dim", 'u', true, offsetof(dictionary_config, activation_dim), 1 << 24, NULL},
    {"dict_size", 'u', true, offsetof(dictionary_config, dict_size), INT32_MAX, NULL},
    {"k", 'd', false, offsetof(dictionary_config, k), 0, NULL},
    END_KEYS,
};
static const ams_config_key dictionary_keys[] = {
    {"trainer", 'o', true, 0, 0, trainer_keys},
    END_KEYS,
};

/* Its classes; the place in the list is the kind. */
enum { PLAIN = 1, NEW = 2, TOPK = 4, BATCHTOPK = 8, MATRYOSHKA = 16, JUMPRELU = 32, GATED = 64 };
static const struct {
    const char *name;
    int32_t activation;
    bool centred;
} classes[] = {
    {"AutoEncoder", ATMSAE_RELU, true},          {"AutoEncoderNew", ATMSAE_RELU, false},
    {"AutoEncoderTopK", ATMSAE_TOPK, true},      {"BatchTopKSAE", ATMSAE_BATCHTOPK, true},
    {"MatryoshkaBatchTopKSAE", ATMSAE_BATCHTOPK, true}, {"JumpReluAutoEncoder", ATMSAE_JUMPRELU, false},
    {"GatedAutoEncoder", ATMSAE_GATED, true},
};
enum { CLASSES = sizeof classes / sizeof *classes };

#define MODULES (PLAIN | NEW | TOPK | BATCHTOPK | GATED) /* with encoder and decoder as nn.Linear */
static const ams_sae_tensor dictionary_tensors[] = {
    {"encoder.weight", ATMSAE_W_ENC, false, MODULES, NULL},
    {"encoder.bias", ATMSAE_B_ENC, false, MODULES & ~GATED, NULL},
    {"decoder.weight", ATMSAE_W_DEC, true, MODULES, NULL},
    {"bias", ATMSAE_B_DEC, false, PLAIN, NULL},
    {"decoder.bias", ATMSAE_B_DEC, false, NEW, NULL},
    {"decoder_bias", ATMSAE_B_DEC, false, GATED, NULL},
    {"b_dec", ATMSAE_B_DEC, false, TOPK | BATCHTOPK | MATRYOSHKA | JUMPRELU, NULL},
    {"W_enc", ATMSAE_W_ENC, true, MATRYOSHKA | JUMPRELU, NULL},
    {"W_dec", ATMSAE_W_DEC, false, MATRYOSHKA | JUMPRELU, NULL},
    {"b_enc", ATMSAE_B_ENC, false, MATRYOSHKA | JUMPRELU, NULL},
    {"threshold", ATMSAE_BATCH_THRESHOLD, false, BATCHTOPK | MATRYOSHKA, NULL},
    {"threshold", ATMSAE_THRESHOLD, false, JUMPRELU, NULL},
    {"gate_bias", ATMSAE_B_ENC, false, GATED, NULL},
    {"r_mag", ATMSAE_R_MAG, false, GATED, NULL},
    {"mag_bias", ATMSAE_B_MAG, false, GATED, NULL},
    {"k", AMS_TENSOR_K, false, 0, NULL},
    {"group_sizes", AMS_TENSOR_KNOWN, false, 0, NULL}, /* of training */
    END_TENSORS,
};
/* AutoEncoderTopK keeps a threshold for other uses: its encode does not look at it. */
static const ams_sae_tensor topk_tensors[] = {
    {"encoder.weight", ATMSAE_W_ENC, false, AMS_ALL_KINDS, NULL}, {"encoder.bias", ATMSAE_B_ENC, false, AMS_ALL_KINDS, NULL},
    {"decoder.weight", ATMSAE_W_DEC, true, AMS_ALL_KINDS, NULL},  {"b_dec", ATMSAE_B_DEC, false, AMS_ALL_KINDS, NULL},
    {"k", AMS_TENSOR_K, false, 0, NULL},                          {"threshold", AMS_TENSOR_KNOWN, false, 0, NULL},
    END_TENSORS,
};

static atmsae_status read_trainer(atmsae_context *ctx, const char *path, dictionary_config *c, char **text, unsigned *kind)
{
    AMS_TRY(ams_config_read(ctx, path, dictionary_keys, false, c, text));
    if (!c->dict_class) return ams_fail(ctx, ATMSAE_E_FORMAT, "%s: \"trainer\" is no object", path);
    for (*kind = 0; *kind < CLASSES; ++*kind)
        if (strcmp(classes[*kind].name, c->dict_class) == 0) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "%s: dict_class \"%.80s\"; AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, "
                    "MatryoshkaBatchTopKSAE, JumpReluAutoEncoder and GatedAutoEncoder are read", path, c->dict_class);
}

atmsae_status ams_read_dictionary_learning(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out)
{
    /* Checkpoints lie in a folder of their own beside config.json. */
    char *text = NULL, *path = ams_path_join(ctx, place->folder, "config.json"), *above = ams_path_join(ctx, place->folder, "../config.json");
    dictionary_config c = {.k = NAN};
    unsigned kind;
    atmsae_status status = path && above ? ATMSAE_OK : ATMSAE_E_NOMEM;
    if (status < 0) goto end;
    if (!ams_path_exists(path) && ams_path_exists(above)) {
        char *swap = path;
        path = above;
        above = swap;
    }
    status = read_trainer(ctx, path, &c, &text, &kind);
    if (status < 0) goto end;
    const ams_sae_parts parts = {
        .format = "dictionary-learning", .architecture = classes[kind].name, .config = "config.json", .config_path = path,
        .tensors = classes[kind].activation == ATMSAE_TOPK ? topk_tensors : dictionary_tensors, .kind = kind,
        .activation = classes[kind].activation, .centred = classes[kind].centred, .unsaid = true,
        .d_in = c.activation_dim, .d_out = c.activation_dim, .d_sae = c.dict_size, .k = c.k, .model_name = c.lm_name,
    };
    status = build(ctx, &parts, place, out);
end:
    ams_free(ctx, text);
    ams_free(ctx, path);
    ams_free(ctx, above);
    return status;
}
