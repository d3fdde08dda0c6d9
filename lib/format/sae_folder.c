/* SPDX-License-Identifier: MIT
 *
 * The two files of a SAELens folder, cfg.json and sae_weights.safetensors, as one: nothing can replace both at
 * once, so a save takes steps, and whatever comes between two of them, the old or the new SAE can be loaded.
 *
 *   1. The new weights are written, under a temporary name, and synced; so is the new cfg.json.
 *   2. The new weights get a name that loading knows: sae_weights.staged.safetensors.
 *   3. The new cfg.json takes its place. It holds the checksum of its weights: from here on the SAE is the new one.
 *   4. The staged weights take theirs.
 *
 * Loading takes cfg.json, and of the two files of weights the one that has its checksum. It changes nothing. A save
 * that finds that an earlier one got no further than step 3 does step 4 first, as its own step 2 would take the
 * staged name away.
 */
#include "format/sae_formats.h"

#include <stddef.h>
#include <string.h>

void ams_folder_end(ams_folder *f)
{
    ams_free(f->ctx, f->config);
    ams_free(f->ctx, f->weights);
    ams_free(f->ctx, f->staged);
    *f = (ams_folder){.ctx = f->ctx};
}

/* Where the weights are a symbolic link, a save replaces what it leads to: the staged file is beside that. */
atmsae_status ams_folder_find(ams_folder *f, atmsae_context *ctx, const char *dir)
{
    char *real;
    struct stat st;
    *f = (ams_folder){.ctx = ctx, .config = ams_path_join(ctx, dir, "cfg.json"), .weights = ams_path_join(ctx, dir, AMS_FOLDER_WEIGHTS)};
    if (!f->config || !f->weights) return ATMSAE_E_NOMEM;
    AMS_TRY(ams_path_resolve(ctx, f->weights, false, &real, &st));
    size_t size = strlen(real) + sizeof AMS_STAGED;
    f->staged = ams_alloc(ctx, size, 1);
    if (f->staged) {
        size_t folder = (size_t)(strrchr(real, '/') + 1 - real);
        memcpy(f->staged, real, folder);
        ams_staged_name(f->staged + folder, size - folder, real + folder);
    }
    ams_free(ctx, real);
    return f->staged ? ATMSAE_OK : ams_nomem(ctx, "a path");
}

/* cfg.json's checksum of its weights; NULL if it has none, is not there, or is none of ours. */
static atmsae_status read_crc(const ams_folder *f, const char **crc, char **text)
{
    static const ams_config_key metadata[] = {{AMS_FOLDER_CRC, 't', false, 0, 0, NULL}, {NULL, 0, false, 0, 0, NULL}};
    static const ams_config_key keys[] = {{"metadata", 'o', false, 0, 0, metadata}, {NULL, 0, false, 0, 0, NULL}};
    *crc = NULL;
    *text = NULL;
    if (!ams_path_exists(f->config)) return ATMSAE_OK;
    atmsae_status status = ams_config_read(f->ctx, f->config, keys, false, crc, text);
    if (status < 0) *crc = NULL;
    return status == ATMSAE_E_IO || status == ATMSAE_E_NOMEM ? status : ATMSAE_OK;
}

bool ams_folder_is_marked(const atmsae_tensors *file)
{
    const char *mark = ams_tensors_metadata(file, AMS_FOLDER_MARK);
    return mark && strcmp(mark, AMS_FOLDER_MARK_TEXT) == 0;
}

atmsae_status ams_folder_open_staged(const ams_folder *f, const char *wanted, atmsae_tensors **file)
{
    *file = NULL;
    if (!wanted || !ams_path_exists(f->staged)) return ATMSAE_OK;
    uint64_t crc;
    atmsae_status status = atmsae_tensors_open(f->ctx, f->staged, file);
    if (status == ATMSAE_OK) status = ams_tensors_crc(*file, &crc);
    if (status == ATMSAE_OK && ams_folder_is_marked(*file) && ams_folder_crc_is(crc, wanted)) return ATMSAE_OK;
    atmsae_tensors_close(*file);
    *file = NULL;
    return status == ATMSAE_E_NOMEM || status == ATMSAE_E_IO ? status : ATMSAE_OK;
}

atmsae_status ams_folder_pending(const ams_folder *f, bool *pending)
{
    const char *wanted;
    char *text = NULL;
    atmsae_tensors *file = NULL;
    atmsae_status status = ams_path_exists(f->staged) ? read_crc(f, &wanted, &text) : ATMSAE_OK;
    if (status == ATMSAE_OK && text) status = ams_folder_open_staged(f, wanted, &file);
    *pending = file != NULL;
    atmsae_tensors_close(file);
    ams_free(f->ctx, text);
    return status;
}

bool ams_folder_crc_is(uint64_t crc, const char *text)
{
    char own[AMS_FOLDER_CRC_TEXT];
    ams_folder_crc_text(own, crc);
    return text && strcmp(own, text) == 0;
}

void ams_folder_crc_text(char out[AMS_FOLDER_CRC_TEXT], uint64_t crc)
{
    ams_format(out, AMS_FOLDER_CRC_TEXT, "%016llx", (unsigned long long)crc);
}

/* Step 4 of an earlier save. Its step 3 may not be on the disk yet. */
static atmsae_status complete(const ams_folder *f, ams_writer *weights, ams_writer *config)
{
    bool there, pending;
    AMS_TRY(ams_writer_claim_staged(weights, &there));
    if (!there) return ATMSAE_OK;
    AMS_TRY(ams_folder_pending(f, &pending));
    if (!pending) return ATMSAE_OK;
    AMS_TRY(ams_writer_sync_folder(config));
    return ams_writer_place_staged(weights);
}

atmsae_status ams_folder_begin(const ams_folder *f, ams_writer *weights, ams_writer *config)
{
    /* The lock of the weights' temporary file comes first: who has it may look at the staged name. */
    AMS_TRY(ams_writer_begin(weights, f->ctx, f->weights, true));
    atmsae_status status = ams_writer_begin(config, f->ctx, f->config, false);
    if (status == ATMSAE_OK) {
        status = complete(f, weights, config);
        if (status < 0) ams_writer_end(config);
    }
    if (status < 0) ams_writer_end(weights);
    return status;
}

atmsae_status ams_folder_commit(ams_writer *weights, ams_writer *config)
{
    atmsae_status status = ams_writer_sync(weights);
    if (status == ATMSAE_OK) status = ams_writer_sync(config);
    if (status == ATMSAE_OK) status = ams_writer_stage(weights);
    if (status == ATMSAE_OK) status = ams_writer_place(config);
    weights->kept = config->placed;
    if (status == ATMSAE_OK) status = ams_writer_place(weights);
    if (status < 0 && weights->kept && !weights->placed)
        status = ams_fail_in(weights->ctx, status, "the new SAE is in place, but its weights still have the name of a staged file, which other "
                             "programs do not know (save it again)");
    return status;
}
