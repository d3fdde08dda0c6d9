/* SPDX-License-Identifier: MIT
 *
 * A trainer in one file: parameters, Adam's moments, moving averages, settings, counters, and the
 * source's position. Random draws need no state: they are functions of the counters. The file is a
 * safetensors file with a checksum at its end, so that any reader of tensors can look inside.
 */
#include "data/data.h"
#include "format/tensors.h"
#include "train/train.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1 /* raised when an older library could misread a file */

/* ---- settings: one table for both directions ---------------------------------------------------------- */

/* A key of the metadata with a dot in it is a setting. Settings that came after the first release of checkpoints
 * have a value that stood for them before they existed: a file that lacks one means that value, and a file in
 * which it has that value does not hold it, so that older versions go on reading what they understand. What they
 * do not, they refuse by the setting's name. */
enum { U64, I32, F64 };
typedef struct field {
    const char *key;
    int type;
    void *value;
    const char *stood; /* as text; NULL: the setting was there from the first release on */
} field;

typedef struct settings {
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    uint64_t total_rows, batch_rows, steps, optimizer_steps;
    uint64_t optimizer_cooldown_from, optimizer_cooldown_steps, masker_cooldown_from, masker_cooldown_steps;
    double sparsity_warmup, log_coef;
    uint64_t skip_bad_rows, bad_rows;
} settings;

enum { FIELDS = 56 };

static unsigned list_fields(settings *s, field out[FIELDS])
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
    };
    _Static_assert(sizeof table / sizeof *table < FIELDS, "room for all fields");
    memcpy(out, table, sizeof table);
    return sizeof table / sizeof *table;
}

static void collect(const atmsae_trainer *t, settings *s)
{
    *s = (settings){
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
    };
}

enum { TEXT = 32 };

static void print_field(const field *f, char out[TEXT])
{
    if (f->type == U64)
        ams_format(out, TEXT, "%" PRIu64, *(uint64_t *)f->value);
    else if (f->type == I32)
        ams_format(out, TEXT, "%" PRId32, *(int32_t *)f->value);
    else
        ams_format(out, TEXT, "%.17g", *(double *)f->value);
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

/* ---- tensors: likewise ------------------------------------------------------------------------------------ */

enum { TENSORS = 3 * AMS_MAX_PARAMS + 16 };
typedef struct tensor {
    char name[32];
    const char *dtype;
    uint64_t count;
    void *data;
    double low; /* F32, F64: smallest value allowed. All are finite; batch_threshold may be NaN */
} tensor;

static void add(tensor *list, unsigned *n, const char *prefix, const char *name, const char *dtype, uint64_t count,
                void *data, double low)
{
    tensor *t = &list[(*n)++];
    ams_format(t->name, sizeof t->name, "%s%s", prefix, name);
    t->dtype = dtype;
    t->count = count;
    t->data = data;
    t->low = low;
}

static unsigned list_tensors(const atmsae_trainer *t, tensor list[TENSORS])
{
    unsigned n = 0;
    const atmsae_model *m = t->model;
    const uint64_t F = m->d_sae;
    for (unsigned p = 0; p < m->n_params; p++) {
        add(list, &n, "", m->params[p].name, "F32", t->optimizer->counts[p], m->params[p].value, -INFINITY);
        add(list, &n, "adam_m.", m->params[p].name, "F32", t->optimizer->counts[p], t->optimizer->m[p], -INFINITY);
        add(list, &n, "adam_v.", m->params[p].name, "F32", t->optimizer->counts[p], t->optimizer->v[p], 0);
    }
    if (m->threshold) add(list, &n, "", "threshold", "F32", F, m->threshold, 0);
    add(list, &n, "", "batch_threshold", "F32", 1, &t->model->batch_threshold, 0);
    add(list, &n, "", "input_scale", "F32", 1, &t->model->input_scale, FLT_TRUE_MIN);
    add(list, &n, "", "output_scale", "F32", 1, &t->model->output_scale, FLT_TRUE_MIN);
    add(list, &n, "", "prefixes", "U64", m->config.n_prefixes, t->model->prefixes, 0);
    add(list, &n, "tracker.", "magnitude", "F64", F, t->tracker->average[0], 0);
    add(list, &n, "tracker.", "frequency", "F64", F, t->tracker->average[1], 0);
    add(list, &n, "tracker.", "contribution", "F64", F, t->tracker->average[2], 0);
    add(list, &n, "tracker.", "clock", "F64", F, t->tracker->clock, 0);
    add(list, &n, "tracker.", "observed", "U8", F, t->tracker->observed, 0);
    return n;
}

/* ---- save -------------------------------------------------------------------------------------------------- */

static void out_tensor(ams_tensor_out *out, uint64_t *n, const char *name, const char *dtype, uint64_t count,
                       const void *data)
{
    static const uint64_t nothing = 0; /* an empty tensor still has a place */
    if (!data) return;
    out[(*n)++] = (ams_tensor_out){.name = name, .dtype = dtype, .rank = 1, .shape = {count},
                                   .data = count ? data : &nothing};
}

/* All that goes into a file, by name; too large for a small stack. */
typedef struct contents {
    settings s;
    field fields[FIELDS];
    char text[FIELDS][TEXT];
    ams_metadata_out metadata[FIELDS + 2];
    tensor list[TENSORS];
    ams_tensor_out out[TENSORS + 4];
} contents;

static atmsae_status write_contents(const atmsae_trainer *t, const atmsae_source *source, const char *path, contents *c)
{
    c->metadata[0] = (ams_metadata_out){"format", "libatmsae checkpoint 1"};
    c->metadata[1] = (ams_metadata_out){"version", atmsae_version_string()};
    collect(t, &c->s);
    uint64_t n_metadata = 2;
    unsigned n_fields = list_fields(&c->s, c->fields);
    for (unsigned i = 0; i < n_fields; i++) {
        const field *f = &c->fields[i];
        print_field(f, c->text[i]);
        if (!f->stood || strcmp(f->stood, c->text[i]) != 0)
            c->metadata[n_metadata++] = (ams_metadata_out){f->key, c->text[i]};
    }

    ams_tensor_out *out = c->out;
    uint64_t n_out = 0;
    unsigned n = list_tensors(t, c->list);
    for (unsigned i = 0; i < n; i++)
        out_tensor(out, &n_out, c->list[i].name, c->list[i].dtype, c->list[i].count, c->list[i].data);
    ams_source_state state = {0};
    if (source) {
        AMS_TRY(ams_source_state_save(source, &state));
        uint64_t d = atmsae_source_d(source);
        out_tensor(out, &n_out, "source.position", "U64", state.n_position, state.position);
        out_tensor(out, &n_out, "source.ids", "U64", state.n_ids, state.ids);
        out_tensor(out, &n_out, "source.rows", "F32", state.n_rows * d, state.rows);
        out_tensor(out, &n_out, "source.held", "F32", state.n_held * d, state.held);
    }
    atmsae_status status = ams_safetensors_write(t->ctx, path, out, n_out, c->metadata, n_metadata, true);
    if (source) ams_source_state_free(source, &state);
    return status;
}

static atmsae_status save(const atmsae_trainer *t, const atmsae_source *source, const char *path)
{
    if (!path) return ams_fail(t->ctx, ATMSAE_E_ARG, "trainer_save: path is NULL");
    contents *c = ams_alloc(t->ctx, 1, sizeof *c);
    if (!c) return ams_nomem(t->ctx, "a checkpoint's contents");
    atmsae_status status = write_contents(t, source, path, c);
    ams_free(t->ctx, c);
    return status;
}

atmsae_status atmsae_trainer_save(const atmsae_trainer *t, const atmsae_source *source, const char *path)
{
    if (!t) return ATMSAE_E_ARG;
    if (!source) AMS_CALL(t->ctx, save(t, NULL, path), AMS_TRAINER(AMS_READS, t));
    AMS_CALL(t->ctx, save(t, source, path), AMS_TRAINER(AMS_READS, t), {"source", ams_source_use(source), false});
}

/* ---- load -------------------------------------------------------------------------------------------------- */

static atmsae_status find(const atmsae_tensors *file, atmsae_context *ctx, const char *name, const char *dtype,
                          uint64_t *index, uint64_t *count)
{
    atmsae_tensor_info info = {.size = sizeof info};
    if (atmsae_tensors_find(file, name, index) < 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "the checkpoint has no tensor %s", name);
    AMS_TRY(atmsae_tensors_info(file, *index, &info));
    if (info.rank != 1 || strcmp(info.dtype, dtype) != 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor %s is %s of rank %llu, expected %s of rank 1", name, info.dtype,
                        (unsigned long long)info.rank, dtype);
    *count = info.shape[0];
    return ATMSAE_OK;
}

/* The checksum says that nothing was damaged, not who wrote it: what training could not have left is
 * refused here, where it has a name. */
static atmsae_status check_values(atmsae_context *ctx, const tensor *t)
{
    bool wide = strcmp(t->dtype, "F64") == 0, may_be_nan = strcmp(t->name, "batch_threshold") == 0;
    if (!wide && strcmp(t->dtype, "F32") != 0) return ATMSAE_OK;
    for (uint64_t i = 0; i < t->count; i++) {
        double value = wide ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
        if ((isfinite(value) && value >= t->low) || (may_be_nan && isnan(value))) continue;
        return ams_fail(ctx, isfinite(value) ? ATMSAE_E_FORMAT : ATMSAE_E_NONFINITE,
                        "tensor %s: element %llu = %g, allowed: finite, at least %g", t->name, (unsigned long long)i,
                        value, t->low);
    }
    return ATMSAE_OK;
}

static atmsae_status read_tensor(const atmsae_tensors *file, atmsae_context *ctx, const tensor *t)
{
    uint64_t index, count = 0;
    AMS_TRY(find(file, ctx, t->name, t->dtype, &index, &count));
    if (count != t->count)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor %s has %llu elements, expected %llu", t->name,
                        (unsigned long long)count, (unsigned long long)t->count);
    if (count) AMS_TRY(ams_tensors_read_raw(file, index, 0, count, t->data));
    return check_values(ctx, t);
}

/* An array of the source's state, in new memory; absent is no error. */
static atmsae_status read_array(const atmsae_tensors *file, atmsae_context *ctx, const char *name, const char *dtype,
                                void **data, uint64_t *count)
{
    uint64_t index;
    *data = NULL;
    *count = 0;
    if (atmsae_tensors_find(file, name, &index) < 0) return ATMSAE_OK;
    AMS_TRY(find(file, ctx, name, dtype, &index, count));
    *data = ams_alloc(ctx, *count, ams_dtype_size(dtype));
    if (!*data) return ams_nomem(ctx, name);
    return *count ? ams_tensors_read_raw(file, index, 0, *count, *data) : ATMSAE_OK;
}

static atmsae_status restore_source(const atmsae_tensors *file, atmsae_context *ctx, atmsae_source *source)
{
    ams_source_state state = {0};
    void *position, *ids = NULL, *rows = NULL, *held = NULL;
    uint64_t n_rows = 0, n_held = 0, d = ams_max(1, atmsae_source_d(source));
    atmsae_status status = read_array(file, ctx, "source.position", "U64", &position, &state.n_position);
    if (status == ATMSAE_OK && !position)
        status = ams_fail(ctx, ATMSAE_E_STATE, "the checkpoint was saved without a source");
    if (status == ATMSAE_OK) status = read_array(file, ctx, "source.ids", "U64", &ids, &state.n_ids);
    if (status == ATMSAE_OK) status = read_array(file, ctx, "source.rows", "F32", &rows, &n_rows);
    if (status == ATMSAE_OK) status = read_array(file, ctx, "source.held", "F32", &held, &n_held);
    if (status == ATMSAE_OK && (n_rows % d != 0 || n_held % d != 0))
        status = ams_fail(ctx, ATMSAE_E_FORMAT, "source.rows and source.held are not whole rows of %llu",
                          (unsigned long long)d);
    state.position = position;
    state.ids = ids;
    state.rows = rows;
    state.n_rows = n_rows / d;
    state.held = held;
    state.n_held = n_held / d;
    if (status == ATMSAE_OK) status = ams_source_state_restore(source, &state);
    ams_free(ctx, position);
    ams_free(ctx, ids);
    ams_free(ctx, rows);
    ams_free(ctx, held);
    return status;
}

static atmsae_status check_format(const atmsae_tensors *file, atmsae_context *ctx)
{
    const char *format = ams_tensors_metadata(file, "format"), prefix[] = "libatmsae checkpoint ";
    if (!format || strncmp(format, prefix, sizeof prefix - 1) != 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "not a libatmsae checkpoint");
    AMS_TRY(ams_tensors_verify(file)); /* first: a flipped bit in the version is damage, not a version */
    if (strtoull(format + sizeof prefix - 1, NULL, 10) > FORMAT_VERSION)
        return ams_fail(ctx, ATMSAE_E_VERSION, "\"%s\" is of a newer version, this library (%s) reads up to %d", format,
                        atmsae_version_string(), FORMAT_VERSION);
    return ATMSAE_OK;
}

/* What we do not know would be left out of the run without a word. */
static atmsae_status fail_newer(const atmsae_tensors *file, atmsae_context *ctx, const char *kind, const char *name, const char *value)
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
        return fail_newer(file, ctx, "setting", m->key, m->value);
    }
    return ATMSAE_OK;
}

static atmsae_status read_settings(const atmsae_tensors *file, atmsae_context *ctx, settings *s)
{
    memset(s, 0, sizeof *s);
    atmsae_model_config_init(&s->model, sizeof s->model);
    atmsae_optimizer_config_init(&s->optimizer, sizeof s->optimizer);
    atmsae_tracker_config_init(&s->tracker, sizeof s->tracker);
    atmsae_masker_config_init(&s->masker, sizeof s->masker);
    field fields[FIELDS];
    unsigned n_fields = list_fields(s, fields);
    for (unsigned i = 0; i < n_fields; i++)
        AMS_TRY(parse_field(ctx, &fields[i], ams_tensors_metadata(file, fields[i].key)));
    return check_known(file, ctx, fields, n_fields);
}

static atmsae_status check_tensors_known(const atmsae_tensors *file, atmsae_context *ctx, const tensor *list, unsigned n)
{
    for (uint64_t i = 0; i < file->count; i++) {
        const char *name = file->items[i].name;
        unsigned known = 0;
        while (known < n && strcmp(list[known].name, name) != 0)
            known++;
        if (known < n || strncmp(name, "source.", 7) == 0 || strcmp(name, "checksum") == 0) continue;
        return fail_newer(file, ctx, "tensor", name, "");
    }
    return ATMSAE_OK;
}

static atmsae_status read_state(const atmsae_tensors *file, const atmsae_trainer *t)
{
    tensor list[TENSORS];
    unsigned n = list_tensors(t, list);
    for (unsigned i = 0; i < n; i++)
        AMS_TRY(read_tensor(file, t->ctx, &list[i]));
    return check_tensors_known(file, t->ctx, list, n);
}

/* The file has as many weights as its settings ask for, so that a wrong number cannot ask for memory. */
static atmsae_status check_size(const atmsae_tensors *file, atmsae_context *ctx, const atmsae_model_config *model)
{
    const struct {
        const char *name;
        uint64_t width;
    } matrices[] = {{"W_enc", model->d_in}, {"W_dec", model->d_out ? model->d_out : model->d_in}};
    for (int i = 0; i < 2; i++) {
        uint64_t index, count, expected;
        AMS_TRY(find(file, ctx, matrices[i].name, "F32", &index, &count));
        if (!ams_mul(model->d_sae, matrices[i].width, &expected) || count != expected)
            return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor %s has %llu elements, the settings ask for %llu x %llu",
                            matrices[i].name,
                            (unsigned long long)count, (unsigned long long)model->d_sae,
                            (unsigned long long)matrices[i].width);
    }
    return ATMSAE_OK;
}

static atmsae_status load(const atmsae_tensors *file, atmsae_context *ctx, atmsae_trainer **out)
{
    AMS_TRY(check_format(file, ctx));
    settings s;
    AMS_TRY(read_settings(file, ctx, &s));
    AMS_TRY(check_size(file, ctx, &s.model));

    uint64_t prefixes[AMS_MAX_PREFIXES];
    if (s.model.n_prefixes > AMS_MAX_PREFIXES)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "model.n_prefixes = %llu", (unsigned long long)s.model.n_prefixes);
    if (s.model.n_prefixes > 0) {
        const tensor t = {"prefixes", "U64", s.model.n_prefixes, prefixes, 0};
        AMS_TRY(read_tensor(file, ctx, &t));
        s.model.prefixes = prefixes;
    }
    const atmsae_trainer_config config = {sizeof config, &s.model, &s.optimizer, &s.tracker, &s.masker,
                                          s.total_rows, s.batch_rows, s.sparsity_warmup, s.skip_bad_rows};
    if (!ams_target_allows(s.log_coef))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "setting trainer.log_coef = %g is beyond what training leaves", s.log_coef);
    AMS_TRY(ams_trainer_build(ctx, &config, true, out));

    atmsae_trainer *t = *out;
    AMS_TRY(read_state(file, t));
    t->steps = s.steps;
    t->bad_rows = s.bad_rows;
    t->log_coef = s.log_coef;
    t->optimizer->steps = s.optimizer_steps;
    t->optimizer->cooldown_from = s.optimizer_cooldown_from;
    t->optimizer->cooldown_steps = s.optimizer_cooldown_steps;
    t->masker->cooldown_from = s.masker_cooldown_from;
    t->masker->cooldown_steps = s.masker_cooldown_steps;
    ams_model_refresh(t->model);
    ams_tracker_derive(t->tracker);
    return t->steps == 0 ? ATMSAE_OK
                         : ams_masker_update(t->masker, atmsae_tracker_importance(t->tracker), t->model->d_sae);
}

static atmsae_status load_file(atmsae_context *ctx, const char *path, atmsae_source *source, atmsae_trainer **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "trainer_load: out is NULL");
    if (!path) return ams_fail(ctx, ATMSAE_E_ARG, "trainer_load: path is NULL");
    atmsae_tensors *file;
    AMS_TRY(atmsae_tensors_open(ctx, path, &file));
    atmsae_trainer *t = NULL;
    atmsae_status status = load(file, ctx, &t);
    if (status == ATMSAE_OK && source) status = restore_source(file, ctx, source);
    atmsae_tensors_close(file);
    if (status == ATMSAE_OK) {
        *out = t;
        return ATMSAE_OK;
    }
    atmsae_trainer_destroy(t);
    return ams_fail_in(ctx, status, path);
}

atmsae_status atmsae_trainer_load(atmsae_context *ctx, const char *path, atmsae_source *source, atmsae_trainer **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    if (!source) AMS_CALL(ctx, load_file(ctx, path, NULL, out));
    AMS_CALL(ctx, load_file(ctx, path, source, out), {"source", ams_source_use(source), true});
}
