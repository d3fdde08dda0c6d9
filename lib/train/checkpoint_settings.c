/* SPDX-License-Identifier: MIT
 *
 * The settings and counters of a trainer as metadata of a checkpoint: one table for both directions.
 *
 * A key of the metadata with a dot in it is a setting. Settings that came after the first release of checkpoints
 * have a value that stood for them before they existed: a file that lacks one means that value, and a file in
 * which it has that value does not hold it, so that older versions go on reading what they understand. What they
 * do not, they refuse by the setting's name.
 */
#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { U64, I32, F64 };
typedef struct field {
    const char *key;
    int type;
    void *value;
    const char *stood; /* as such text is written (a double with 17 digits); NULL: the setting was there from the first release on */
} field;

static unsigned list_fields(ams_settings *s, field out[AMS_MOST_SETTINGS])
{
#define FIRST(key, type, member) {key, type, &s->member, NULL}
#define LATER(key, type, member, stood) {key, type, &s->member, stood}
    const field table[] = {
        FIRST("model.d_in", U64, model.d_in),
        FIRST("model.d_out", U64, model.d_out),
        FIRST("model.d_sae", U64, model.d_sae),
        FIRST("model.seed", U64, model.seed),
        FIRST("model.activation", I32, model.activation),
        FIRST("model.decoder_norm", I32, model.decoder_norm),
        FIRST("model.input_norm", I32, model.input_norm),
        FIRST("model.b_dec_init", I32, model.b_dec_init),
        FIRST("model.transcoder", I32, model.transcoder),
        FIRST("model.k", F64, model.k),
        FIRST("model.sparsity_coef", F64, model.sparsity_coef),
        FIRST("model.target_l0", F64, model.target_l0),
        FIRST("model.bandwidth", F64, model.bandwidth),
        FIRST("model.init_threshold", F64, model.init_threshold),
        FIRST("model.tanh_scale", F64, model.tanh_scale),
        FIRST("model.pre_act_coef", F64, model.pre_act_coef),
        FIRST("model.decoder_init_norm", F64, model.decoder_init_norm),
        FIRST("model.aux_coef", F64, model.aux_coef),
        FIRST("model.aux_k", U64, model.aux_k),
        FIRST("model.n_prefixes", U64, model.n_prefixes),
        FIRST("optimizer.lr", F64, optimizer.lr),
        FIRST("optimizer.beta1", F64, optimizer.beta1),
        FIRST("optimizer.beta2", F64, optimizer.beta2),
        FIRST("optimizer.eps", F64, optimizer.eps),
        FIRST("optimizer.clip", F64, optimizer.clip),
        FIRST("optimizer.warmup_steps", U64, optimizer.warmup_steps),
        FIRST("optimizer.decay_steps", U64, optimizer.decay_steps),
        FIRST("optimizer.freeze_masked", I32, optimizer.freeze_masked),
        FIRST("optimizer.steps", U64, optimizer_steps),
        FIRST("optimizer.cooldown_from", U64, optimizer_cooldown_from),
        FIRST("optimizer.cooldown_steps", U64, optimizer_cooldown_steps),
        FIRST("tracker.decay", F64, tracker.decay),
        FIRST("tracker.weight_magnitude", F64, tracker.weight_magnitude),
        FIRST("tracker.weight_frequency", F64, tracker.weight_frequency),
        FIRST("tracker.weight_contribution", F64, tracker.weight_contribution),
        FIRST("tracker.combine", I32, tracker.combine),
        FIRST("tracker.observed_only", I32, tracker.observed_only),
        FIRST("tracker.dead_window", U64, tracker.dead_window),
        FIRST("masker.seed", U64, masker.seed),
        FIRST("masker.kind", I32, masker.kind),
        FIRST("masker.per_row", I32, masker.per_row),
        FIRST("masker.c", F64, masker.c),
        FIRST("masker.r", F64, masker.r),
        FIRST("masker.warmup_steps", U64, masker.warmup_steps),
        FIRST("masker.cooldown_start", F64, masker.cooldown_start),
        FIRST("masker.cooldown_end", F64, masker.cooldown_end),
        FIRST("masker.cooldown_from", U64, masker_cooldown_from),
        FIRST("masker.cooldown_steps", U64, masker_cooldown_steps),
        FIRST("trainer.total_rows", U64, total_rows),
        FIRST("trainer.batch_rows", U64, batch_rows),
        FIRST("trainer.steps", U64, steps),
        FIRST("trainer.sparsity_warmup", F64, sparsity_warmup),
        LATER("trainer.skip_bad_rows", U64, skip_bad_rows, "0"),
        LATER("trainer.bad_rows", U64, bad_rows, "0"),
        LATER("trainer.log_coef", F64, log_coef, "0"),
        LATER("model.uncentred", I32, model.uncentred, "0"),
        LATER("masker.effect", I32, masker.effect, "0"),
        LATER("masker.alpha", F64, masker.alpha, "0.29999999999999999"),
        LATER("trainer.max_norm", F64, max_norm, "0"),
        LATER("trainer.norm_limit", F64, norm_limit[0], "0"),
        LATER("trainer.target_norm_limit", F64, norm_limit[1], "0"),
        LATER("trainer.outlier_rows", U64, outlier_rows, "0"),
    };
    _Static_assert(sizeof table / sizeof *table <= AMS_MOST_SETTINGS, "room for all fields");
    memcpy(out, table, sizeof table);
    return sizeof table / sizeof *table;
}

void ams_settings_of(const atmsae_trainer *t, ams_settings *s)
{
    *s = (ams_settings){
        .model = t->model->config,
        .optimizer = t->optimizer->config,
        .tracker = t->tracker->config,
        .masker = t->masker->config,
        .total_rows = t->total_rows,
        .batch_rows = t->batch_rows,
        .steps = t->steps,
        .optimizer_steps = t->optimizer->steps,
        .optimizer_cooldown_from = t->optimizer->cooldown_from,
        .optimizer_cooldown_steps = t->optimizer->cooldown_steps,
        .masker_cooldown_from = t->masker->cooldown_from,
        .masker_cooldown_steps = t->masker->cooldown_steps,
        .sparsity_warmup = t->sparsity_warmup,
        .log_coef = t->log_coef,
        .skip_bad_rows = t->skip_bad_rows,
        .bad_rows = t->bad_rows,
        .max_norm = t->max_norm,
        .norm_limit = {t->norm_limit[0], t->norm_limit[1]},
        .outlier_rows = t->outlier_rows,
    };
    if (s->model.transcoder) s->model.uncentred = 0; /* it follows, and older versions have no such setting */
}

static void print_field(const field *f, char out[AMS_SETTING_TEXT])
{
    if (f->type == U64)
        ams_format(out, AMS_SETTING_TEXT, "%" PRIu64, *(uint64_t *)f->value);
    else if (f->type == I32)
        ams_format(out, AMS_SETTING_TEXT, "%" PRId32, *(int32_t *)f->value);
    else
        ams_format(out, AMS_SETTING_TEXT, "%.17g", *(double *)f->value);
}

uint64_t ams_settings_write(ams_settings *s, ams_settings_text *text, ams_metadata_out *out)
{
    field fields[AMS_MOST_SETTINGS];
    uint64_t n = 0;
    const unsigned n_fields = list_fields(s, fields);
    for (unsigned i = 0; i < n_fields; i++) {
        const field *f = &fields[i];
        print_field(f, text->of[n]);
        if (!f->stood || strcmp(f->stood, text->of[n]) != 0) {
            out[n] = (ams_metadata_out){f->key, text->of[n]};
            n++;
        }
    }
    return n;
}

static atmsae_status parse_field(atmsae_context *ctx, const field *f, const char *text)
{
    if (!text) text = f->stood;
    if (!text) return ams_fail(ctx, ATMSAE_E_FORMAT, "the checkpoint has no setting %s", f->key);
    char *end = NULL;
    bool in_range = true;
    if (f->type == U64) {
        errno = 0;
        *(uint64_t *)f->value = strtoull(text, &end, 10);
        in_range = errno == 0 && *text >= '0' && *text <= '9'; /* strtoull turns -1 into 2^64 - 1 */
    } else if (f->type == I32) {
        long value = strtol(text, &end, 10);
        *(int32_t *)f->value = (int32_t)value;
        in_range = value >= INT32_MIN && value <= INT32_MAX;
    } else {
        *(double *)f->value = ams_strtod(text, &end);
    }
    if (end == text || *end || !in_range)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "setting %s = \"%s\" is not a number", f->key, text);
    return ATMSAE_OK;
}

/* What we do not know would be left out of the run without a word. */
atmsae_status ams_fail_newer(const atmsae_tensors *file, atmsae_context *ctx, const char *kind, const char *name, const char *value)
{
    const char *writer = ams_tensors_metadata(file, "version");
    return ams_fail(ctx, ATMSAE_E_VERSION, "%s %.80s%s%.80s is not known to this library (%s); version %.40s, which wrote the "
                    "file, can read it", kind, name, *value ? " = " : "", value, atmsae_version_string(), writer ? writer : "unknown");
}

static atmsae_status check_known(const atmsae_tensors *file, atmsae_context *ctx, const field *fields, unsigned n_fields)
{
    for (uint64_t i = 0; i < file->n_metadata; i++) {
        const ams_metadata_out *m = &file->metadata[i];
        unsigned known = 0;
        while (known < n_fields && strcmp(fields[known].key, m->key) != 0)
            known++;
        if (known < n_fields || !strchr(m->key, '.')) continue;
        return ams_fail_newer(file, ctx, "setting", m->key, m->value);
    }
    return ATMSAE_OK;
}

atmsae_status ams_settings_read(const atmsae_tensors *file, atmsae_context *ctx, ams_settings *s)
{
    memset(s, 0, sizeof *s);
    atmsae_model_config_init(&s->model, sizeof s->model);
    atmsae_optimizer_config_init(&s->optimizer, sizeof s->optimizer);
    atmsae_tracker_config_init(&s->tracker, sizeof s->tracker);
    atmsae_masker_config_init(&s->masker, sizeof s->masker);
    field fields[AMS_MOST_SETTINGS];
    unsigned n_fields = list_fields(s, fields);
    for (unsigned i = 0; i < n_fields; i++)
        AMS_TRY(parse_field(ctx, &fields[i], ams_tensors_metadata(file, fields[i].key)));
    return check_known(file, ctx, fields, n_fields);
}
