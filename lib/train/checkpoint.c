/* SPDX-License-Identifier: MIT
 *
 * A trainer in one file: parameters, Adam's moments, moving averages, settings, counters, and the
 * source's position. Random draws need no state: they are functions of the counters. The file is a
 * safetensors file with a checksum at its end, so that any reader of tensors can look inside.
 */
#include "train/checkpoint.h"

#include "data/data.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1 /* raised when an older library could misread a file */

/* ---- tensors: one table for both directions ---------------------------------------------------------------- */

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
    ams_settings settings;
    ams_settings_text text;
    ams_metadata_out metadata[2 + AMS_MOST_SETTINGS];
    tensor list[TENSORS];
    ams_tensor_out out[TENSORS + 4];
} contents;

static atmsae_status write_contents(const atmsae_trainer *t, const atmsae_source *source, const char *path, contents *c)
{
    c->metadata[0] = (ams_metadata_out){"format", "libatmsae checkpoint 1"};
    c->metadata[1] = (ams_metadata_out){"version", atmsae_version_string()};
    ams_settings_of(t, &c->settings);
    const uint64_t n_metadata = 2 + ams_settings_write(&c->settings, &c->text, c->metadata + 2);

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
    if (atmsae_tensors_find(file, name, index) < 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "the checkpoint has no tensor %s", name);
    const ams_tensor *t = &file->items[*index];
    if (t->rank != 1 || strcmp(t->dtype->name, dtype) != 0)
        return ams_fail(ctx, ATMSAE_E_FORMAT, "tensor %s is %s of rank %llu, expected %s of rank 1", name, t->dtype->name,
                        (unsigned long long)t->rank, dtype);
    *count = t->shape[0];
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

static atmsae_status check_tensors_known(const atmsae_tensors *file, atmsae_context *ctx, const tensor *list, unsigned n)
{
    for (uint64_t i = 0; i < file->count; i++) {
        const char *name = file->items[i].name;
        unsigned known = 0;
        while (known < n && strcmp(list[known].name, name) != 0)
            known++;
        if (known < n || strncmp(name, "source.", 7) == 0 || strcmp(name, "checksum") == 0) continue;
        return ams_fail_newer(file, ctx, "tensor", name, "");
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
        uint64_t index, count = 0, expected;
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
    ams_settings s;
    AMS_TRY(ams_settings_read(file, ctx, &s));
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
                                          s.total_rows, s.batch_rows, s.sparsity_warmup, s.skip_bad_rows, s.max_norm};
    if (!ams_target_allows(s.log_coef))
        return ams_fail(ctx, ATMSAE_E_FORMAT, "setting trainer.log_coef = %g is beyond what training leaves", s.log_coef);
    static const char *const limits[] = {"norm_limit", "target_norm_limit"};
    for (int i = 0; i < 2; i++)
        if (!(s.norm_limit[i] >= 0 && isfinite(s.norm_limit[i])))
            return ams_fail(ctx, ATMSAE_E_FORMAT, "setting trainer.%s = %g, allowed: finite, at least 0", limits[i], s.norm_limit[i]);
    AMS_TRY(ams_trainer_build(ctx, &config, true, out));

    atmsae_trainer *t = *out;
    AMS_TRY(read_state(file, t));
    t->steps = s.steps;
    t->bad_rows = s.bad_rows;
    t->outlier_rows = s.outlier_rows;
    t->norm_limit[0] = s.norm_limit[0];
    t->norm_limit[1] = s.norm_limit[1];
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
