/* SPDX-License-Identifier: MIT
 *
 * Saves a model as a SAELens v6 folder: cfg.json and sae_weights.safetensors, with exactly the
 * tensors that SAELens's loader demands.
 */
#include "format/sae_formats.h"
#include "sae/sae.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- weights ------------------------------------------------------------------------------------ */

static const ams_architecture *find(int32_t activation, bool transcoder)
{
    for (const ams_architecture *a = ams_architectures; a->name; a++)
        if (a->activation == activation && a->transcoder == transcoder) return a;
    return NULL;
}

/* A transcoder of equal widths that has no form of its own is written as an SAE that does not centre, with a word
 * in the metadata (AMS_FOLDER_TRANSCODER). */
static const ams_architecture *choose(const ams_sae_plan *p)
{
    const ams_architecture *own = p->config.transcoder ? find(p->activation, true) : NULL;
    return own || p->config.d_in != p->config.d_out ? own : find(p->activation, false);
}

static atmsae_status append_weights(const ams_sae_plan *p, ams_writer *writer)
{
    enum { ROOM = 12 };
    ams_tensor_out out[ROOM];
    ams_sae_matrix matrices[ROOM];
    uint64_t n = 0;
    for (const ams_sae_tensor *tensor = ams_saelens_tensors; tensor->name; tensor++)
        if (tensor->parameter > 0 && tensor->kinds >> p->activation & 1 &&
            ams_sae_plan_tensor(p, tensor->parameter, tensor->name, tensor->latents_last, &matrices[n], &out[n]))
            n++;
    const ams_metadata_out mark = {AMS_FOLDER_MARK, AMS_FOLDER_MARK_TEXT};
    return ams_safetensors_append(writer, out, n, &mark, 1, false);
}

/* ---- cfg.json ----------------------------------------------------------------------------------- */

static void pair(ams_text *text, const char *indent, const char *key, const char *string)
{
    if (!string) return;
    ams_text_add(text, indent);
    ams_text_string(text, key);
    ams_text_add(text, ": ");
    ams_text_string(text, string);
}

static void pair_u64(ams_text *text, const char *key, uint64_t value)
{
    ams_text_add(text, ",\n  ");
    ams_text_string(text, key);
    ams_text_add(text, ": ");
    ams_text_u64(text, value);
}

static void compose_config(const ams_sae_plan *p, const ams_architecture *architecture, const atmsae_save_options *options,
                           uint64_t weights_crc, ams_text *text)
{
    static const char *const trained_as[] = {
        [ATMSAE_RELU] = "standard", [ATMSAE_TOPK] = "topk", [ATMSAE_BATCHTOPK] = "batchtopk",
        [ATMSAE_JUMPRELU] = "jumprelu", [ATMSAE_JUMPRELU_TANH] = "jumprelu", [ATMSAE_GATED] = "gated",
    };
    const atmsae_model_config *c = &p->config;
    char trained[48], crc[AMS_FOLDER_CRC_TEXT];
    ams_folder_crc_text(crc, weights_crc);
    ams_format(trained, sizeof trained, "%s%s", c->n_prefixes ? "matryoshka_" : "", trained_as[c->activation]);
    pair(text, "{\n  ", "architecture", architecture->name);
    pair_u64(text, "d_in", c->d_in);
    pair_u64(text, "d_sae", c->d_sae);
    if (architecture->transcoder) pair_u64(text, "d_out", c->d_out);
    if (p->activation == ATMSAE_TOPK) {
        pair_u64(text, "k", (uint64_t)c->k);
        ams_text_add(text, ",\n  \"rescale_acts_by_decoder_norm\": false");
    }
    pair(text, ",\n  ", "dtype", "float32");
    pair(text, ",\n  ", "device", "cpu");
    ams_text_add(text, ",\n  \"apply_b_dec_to_input\": ");
    ams_text_add(text, c->uncentred ? "false" : "true");
    pair(text, ",\n  ", "normalize_activations", "none");
    pair(text, ",\n  ", "reshape_activations", "none");
    /* The version decides how SAELens reads the rest, so it is one of SAELens's; ours has its own key. */
    pair(text, ",\n  \"metadata\": {\n    ", "sae_lens_version", "6.0.0");
    pair(text, ",\n    ", "libatmsae_version", atmsae_version_string());
    pair(text, ",\n    ", AMS_FOLDER_CRC, crc);
    pair(text, ",\n    ", "training_architecture", trained);
    pair(text, ",\n    ", "model_name", options->model_name);
    pair(text, ",\n    ", "hook_name", options->hook_name);
    pair(text, ",\n    ", "hook_name_out", c->transcoder ? options->hook_name_out : NULL);
    if (c->transcoder && !architecture->transcoder) ams_text_add(text, ",\n    \"" AMS_FOLDER_TRANSCODER "\": true");
    ams_text_add(text, "\n  }\n}\n");
}

/* ---- the folder --------------------------------------------------------------------------------- */

/* Makes the new folder's name outlast a power cut, as far as that can be asked for. */
static void sync_parent(atmsae_context *ctx, const char *dir)
{
    char *parent = ams_path_join(ctx, dir, "..");
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    ams_free(ctx, parent);
}

static atmsae_status make_folder(atmsae_context *ctx, const char *dir, bool *made)
{
    *made = mkdir(dir, 0777) == 0;
    return *made || errno == EEXIST ? ATMSAE_OK : ams_fail_errno(ctx, dir, "cannot make the folder", errno);
}

static atmsae_status write_files(const ams_sae_plan *p, const ams_architecture *architecture, const ams_folder *folder,
                                 const atmsae_save_options *options, ams_text *text)
{
    ams_writer weights, config;
    AMS_TRY(ams_folder_begin(folder, &weights, &config));
    atmsae_status status = append_weights(p, &weights);
    if (status == ATMSAE_OK) {
        text->length = 0;
        compose_config(p, architecture, options, weights.crc, text);
        status = text->status;
    }
    if (status == ATMSAE_OK) {
        ams_writer_append(&config, text->data, text->length);
        status = ams_folder_commit(&weights, &config);
    }
    ams_writer_end(&weights);
    ams_writer_end(&config);
    return status;
}

static atmsae_status write_folder(const ams_sae_plan *p, const ams_architecture *architecture, const char *dir,
                                  const atmsae_save_options *options)
{
    atmsae_context *ctx = p->model->ctx;
    bool made = false;
    ams_folder folder = {.ctx = ctx};
    ams_text text = {.ctx = ctx};
    compose_config(p, architecture, options, 0, &text); /* before anything is made: are the caller's strings UTF-8? */
    atmsae_status status = text.status;
    if (status == ATMSAE_OK && text.length > AMS_MAX_CONFIG)
        status = ams_fail(ctx, ATMSAE_E_LIMIT, "model_save: model_name and hook names make a cfg.json of %zu bytes, at most %d are read",
                          text.length, AMS_MAX_CONFIG);
    if (status == ATMSAE_OK) status = make_folder(ctx, dir, &made);
    if (status == ATMSAE_OK) status = ams_folder_find(&folder, ctx, dir);
    if (status == ATMSAE_OK) status = write_files(p, architecture, &folder, options, &text);
    if (made && status == ATMSAE_OK) sync_parent(ctx, dir);
    if (made && status < 0) (void)rmdir(dir); /* unless there is something in it */
    ams_folder_end(&folder);
    ams_free(ctx, text.data);
    return status;
}

atmsae_status ams_write_saelens(const atmsae_model *model, const char *path, const atmsae_save_options *options)
{
    ams_sae_plan p;
    atmsae_status status = ams_sae_plan_make(&p, model, options->fold_decoder_norm ? AMS_FOLD_NORMS : 0);
    if (status == ATMSAE_OK) {
        if (options->hook_name_out) p.config.transcoder = 1; /* of one whose format did not say so: save has checked that */
        const ams_architecture *architecture = choose(&p);
        status = architecture
                     ? write_folder(&p, architecture, path, options)
                     : ams_fail(model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: SAELens has no TOPK or GATED transcoder with d_out = %llu, d_in = %llu",
                                (unsigned long long)p.config.d_out, (unsigned long long)p.config.d_in);
    }
    ams_sae_plan_end(&p);
    return status;
}
