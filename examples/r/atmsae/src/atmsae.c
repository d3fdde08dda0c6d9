/* SPDX-License-Identifier: MIT
 *
 * What .Call reaches: handles as external pointers, R's column-major doubles as row-major floats.
 */
#include <R.h>
#include <R_ext/Rdynload.h>
#include <Rinternals.h>
#include <atmsae/atmsae.h>
#include <math.h>
#include <string.h>

/* ---- handles -------------------------------------------------------------------------------- */

/* The tag names the type; the protected value is a pair of the context, which also has the error text, and
 * the number of latents where arrays of that length are lent. R code can change a handle's attributes but
 * not these. A handle that was saved and restored has no address. */
#define FINALIZER(type)                                                        \
    static void free_##type(SEXP handle)                                       \
    {                                                                          \
        atmsae_##type##_destroy((atmsae_##type *)R_ExternalPtrAddr(handle));   \
        R_ClearExternalPtr(handle);                                            \
    }
FINALIZER(context)
FINALIZER(trainer)
FINALIZER(model)
FINALIZER(codes)
FINALIZER(tracker)
FINALIZER(masker)

/* An empty handle, made before what it will own, so that a failing allocation of R's loses nothing. */
static SEXP handle_for(const char *type, SEXP context, uint64_t d_sae, R_CFinalizer_t finalizer)
{
    SEXP keep = PROTECT(Rf_cons(context, Rf_ScalarReal((double)d_sae)));
    SEXP handle = PROTECT(R_MakeExternalPtr(NULL, Rf_install(type), keep));
    R_RegisterCFinalizerEx(handle, finalizer, TRUE);
    UNPROTECT(2);
    return handle;
}

static int is(SEXP handle, const char *type)
{
    return TYPEOF(handle) == EXTPTRSXP && R_ExternalPtrTag(handle) == Rf_install(type) && R_ExternalPtrAddr(handle);
}

static void *get(SEXP handle, const char *type)
{
    if (!is(handle, type)) Rf_error("expected a %s of this session", type);
    return R_ExternalPtrAddr(handle);
}

static size_t latents_of(SEXP handle) { return (size_t)Rf_asReal(CDR(R_ExternalPtrProtected(handle))); }

static atmsae_model *model_of(SEXP handle)
{
    if (is(handle, "trainer")) return atmsae_trainer_model(R_ExternalPtrAddr(handle));
    return get(handle, "model");
}

static void check(atmsae_status status, SEXP handle)
{
    if (status >= 0) return;
    SEXP context = is(handle, "context") ? handle : CAR(R_ExternalPtrProtected(handle));
    char text[1024];
    atmsae_copy_error(R_ExternalPtrAddr(context), text, sizeof text);
    Rf_error("%s: %s", atmsae_status_name(status), text);
}

/* ---- settings --------------------------------------------------------------------------------- */

typedef struct setting {
    const char *name;
    char type; /* u uint64_t, i int32_t, d double */
    size_t offset;
} setting;
#define AT(config, type, field) {#field, type, offsetof(atmsae_##config##_config, field)}
static const setting model_settings[] = {
    AT(model, 'u', d_in), AT(model, 'u', d_out), AT(model, 'u', d_sae), AT(model, 'u', seed), AT(model, 'i', activation),
    AT(model, 'i', decoder_norm), AT(model, 'i', input_norm), AT(model, 'i', b_dec_init), AT(model, 'd', k),
    AT(model, 'd', sparsity_coef), AT(model, 'd', target_l0), AT(model, 'd', bandwidth), AT(model, 'd', init_threshold),
    AT(model, 'd', decoder_init_norm), AT(model, 'd', aux_coef), AT(model, 'u', aux_k), {0}};
static const setting optimizer_settings[] = {
    AT(optimizer, 'd', lr), AT(optimizer, 'd', beta1), AT(optimizer, 'd', beta2), AT(optimizer, 'd', eps),
    AT(optimizer, 'd', clip), AT(optimizer, 'u', warmup_steps), AT(optimizer, 'u', decay_steps), {0}};
static const setting tracker_settings[] = {
    AT(tracker, 'u', d_sae), AT(tracker, 'd', decay), AT(tracker, 'd', weight_magnitude), AT(tracker, 'd', weight_frequency),
    AT(tracker, 'd', weight_contribution), AT(tracker, 'i', combine), AT(tracker, 'u', dead_window), {0}};
static const setting masker_settings[] = {
    AT(masker, 'u', d_sae), AT(masker, 'u', seed), AT(masker, 'i', kind), AT(masker, 'd', c), AT(masker, 'd', r),
    AT(masker, 'u', total_steps), AT(masker, 'u', warmup_steps), AT(masker, 'd', cooldown_start),
    AT(masker, 'd', cooldown_end), AT(masker, 'i', effect), AT(masker, 'i', per_row), AT(masker, 'd', alpha), {0}};

/* One number; NA is none, and neither is NaN: a setting that is left out has its default. */
static double number(SEXP value, const char *name)
{
    if (!(Rf_isNumeric(value) || Rf_isLogical(value)) || Rf_xlength(value) != 1 || ISNAN(Rf_asReal(value)))
        Rf_error("%s must be one number", name);
    return Rf_asReal(value);
}

static double whole(SEXP value, const char *name, double least, double most)
{
    const double n = number(value, name);
    if (!(n >= least && n <= most && n == floor(n)))
        Rf_error("%s = %g must be a whole number, %.0f .. %.0f", name, n, least, most);
    return n;
}

static const double MOST = 0x1p53; /* up to here doubles are whole numbers without gaps */

static uint64_t count(SEXP value, const char *name) { return (uint64_t)whole(value, name, 0, MOST); }

static void fill(void *config, const setting *settings, SEXP list)
{
    if (TYPEOF(list) != VECSXP) Rf_error("settings must be a list, as list(d_in = 768)");
    SEXP names = PROTECT(Rf_getAttrib(list, R_NamesSymbol));
    for (R_xlen_t i = 0; i < Rf_xlength(list); i++) {
        const char *name = names == R_NilValue ? "" : CHAR(STRING_ELT(names, i));
        const setting *s = settings;
        while (s->name && strcmp(s->name, name) != 0) s++;
        if (!s->name) Rf_error("no setting named '%s'", name);
        SEXP value = VECTOR_ELT(list, i);
        char *field = (char *)config + s->offset;
        if (s->type == 'd') *(double *)field = number(value, name);
        else if (s->type == 'i') *(int32_t *)field = (int32_t)whole(value, name, INT32_MIN, INT32_MAX);
        else *(uint64_t *)field = count(value, name);
    }
    UNPROTECT(1);
}

/* One string that is there, as a path in R's own encoding; lent until the call ends. */
static const char *path(SEXP value)
{
    if (!Rf_isString(value) || Rf_xlength(value) != 1 || STRING_ELT(value, 0) == NA_STRING) Rf_error("a path must be one string");
    return R_ExpandFileName(Rf_translateChar(STRING_ELT(value, 0)));
}

/* ---- rows --------------------------------------------------------------------------------------- */

/* Memory of R_alloc, which R frees when the call ends. */
static atmsae_batch batch_of(SEXP x, uint64_t d_in)
{
    if (!Rf_isMatrix(x) || !Rf_isReal(x)) Rf_error("rows must be a numeric matrix");
    size_t n = (size_t)Rf_nrows(x), d = (size_t)Rf_ncols(x);
    if (d != d_in) Rf_error("rows of %d columns, expected %d", (int)d, (int)d_in);
    const double *values = REAL(x);
    float *rows = (float *)R_alloc(n * d, sizeof *rows);
    for (size_t r = 0; r < n; r++)
        for (size_t j = 0; j < d; j++) rows[r * d + j] = (float)values[j * n + r];
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = rows;
    return batch;
}

static SEXP matrix_of(const float *rows, size_t n, size_t d)
{
    if (n > INT32_MAX || d > INT32_MAX) Rf_error("a matrix of R has at most 2147483647 rows and columns");
    SEXP x = Rf_allocMatrix(REALSXP, (int)n, (int)d);
    for (size_t r = 0; r < n; r++)
        for (size_t j = 0; j < d; j++) REAL(x)[j * n + r] = (double)rows[r * d + j];
    return x;
}

static SEXP vector_of(const double *values, size_t n)
{
    SEXP v = Rf_allocVector(REALSXP, (R_xlen_t)n);
    if (n) memcpy(REAL(v), values, n * sizeof *values);
    return v;
}

static atmsae_model_config shape(SEXP handle)
{
    atmsae_model_config config = {.size = sizeof config};
    check(atmsae_model_get_config(model_of(handle), &config), handle);
    return config;
}

/* ---- context, trainer, model ------------------------------------------------------------------------ */

static SEXP r_context(SEXP threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = (uint32_t)whole(threads, "threads", 0, 1024);
    SEXP handle = PROTECT(handle_for("context", R_NilValue, 0, free_context));
    atmsae_context *context;
    if (atmsae_context_create(&config, &context) < 0) Rf_error("no context could be made");
    R_SetExternalPtrAddr(handle, context);
    UNPROTECT(1);
    return handle;
}

static SEXP r_trainer(SEXP context, SEXP model, SEXP optimizer, SEXP tracker, SEXP masker, SEXP batch_rows, SEXP total_rows)
{
    atmsae_model_config m;
    atmsae_optimizer_config o;
    atmsae_tracker_config t;
    atmsae_masker_config k;
    atmsae_trainer_config config;
    atmsae_model_config_init(&m, sizeof m);
    atmsae_optimizer_config_init(&o, sizeof o);
    atmsae_tracker_config_init(&t, sizeof t);
    atmsae_masker_config_init(&k, sizeof k);
    atmsae_trainer_config_init(&config, sizeof config);
    fill(&m, model_settings, model);
    fill(&o, optimizer_settings, optimizer);
    fill(&t, tracker_settings, tracker);
    fill(&k, masker_settings, masker);
    config.model = &m;
    config.optimizer = &o;
    config.tracker = &t;
    config.masker = &k;
    config.batch_rows = count(batch_rows, "batch_rows");
    config.total_rows = count(total_rows, "total_rows");
    atmsae_context *c = get(context, "context");
    SEXP handle = PROTECT(handle_for("trainer", context, m.d_sae, free_trainer));
    atmsae_trainer *trainer;
    check(atmsae_trainer_create(c, &config, &trainer), context);
    R_SetExternalPtrAddr(handle, trainer);
    UNPROTECT(1);
    return handle;
}

static SEXP r_prepare(SEXP trainer, SEXP x)
{
    atmsae_trainer *t = get(trainer, "trainer");
    atmsae_batch batch = batch_of(x, shape(trainer).d_in);
    check(atmsae_trainer_prepare(t, &batch), trainer);
    return R_NilValue;
}

static SEXP r_calibrate(SEXP trainer, SEXP x)
{
    atmsae_trainer *t = get(trainer, "trainer");
    atmsae_batch batch = batch_of(x, shape(trainer).d_in);
    check(atmsae_trainer_calibrate(t, &batch), trainer);
    return R_NilValue;
}

static SEXP r_step(SEXP trainer, SEXP x)
{
    static const char *names[] = {"step", "loss", "fvu", "l0", "dead", "masked", "mean_p", "lr", "grad_norm"};
    enum { N = sizeof names / sizeof *names };
    atmsae_trainer *t = get(trainer, "trainer");
    atmsae_batch batch = batch_of(x, shape(trainer).d_in);
    atmsae_step_stats s = {.size = sizeof s};
    check(atmsae_trainer_step(t, &batch, &s), trainer);
    const double values[N] = {(double)s.step, s.loss, s.fvu, s.l0, (double)s.dead, (double)s.masked, s.mean_p, s.lr, s.grad_norm};
    SEXP result = PROTECT(vector_of(values, N)), labels = PROTECT(Rf_allocVector(STRSXP, N));
    for (int i = 0; i < N; i++) SET_STRING_ELT(labels, i, Rf_mkChar(names[i]));
    Rf_setAttrib(result, R_NamesSymbol, labels);
    UNPROTECT(2);
    return result;
}

static SEXP r_parameter(SEXP model, SEXP name)
{
    static const char *names[] = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold", "r_mag", "b_mag", "batch_threshold",
                                  "input_scale", "output_scale"};
    atmsae_model_config c = shape(model);
    if (!Rf_isString(name) || Rf_xlength(name) != 1) Rf_error("a parameter's name must be one string");
    for (int32_t i = 0; i < (int32_t)(sizeof names / sizeof *names); i++) {
        if (strcmp(names[i], CHAR(Rf_asChar(name))) != 0) continue;
        uint64_t n;
        const float *values = atmsae_model_view(model_of(model), i + 1, &n);
        if (!values) Rf_error("this model has no %s", names[i]);
        if (i == 0 || i == 2) return matrix_of(values, c.d_sae, n / c.d_sae);
        SEXP v = Rf_allocVector(REALSXP, (R_xlen_t)n);
        for (uint64_t j = 0; j < n; j++) REAL(v)[j] = (double)values[j];
        return v;
    }
    Rf_error("no parameter is named '%s'", CHAR(Rf_asChar(name)));
}

/* A handle of the codes of rows. */
static SEXP encode(SEXP model, SEXP x)
{
    atmsae_model *m = model_of(model);
    SEXP context = CAR(R_ExternalPtrProtected(model));
    atmsae_batch batch = batch_of(x, shape(model).d_in);
    SEXP handle = PROTECT(handle_for("codes", context, 0, free_codes));
    atmsae_codes *codes;
    check(atmsae_codes_create(get(context, "context"), &codes), context);
    R_SetExternalPtrAddr(handle, codes);
    check(atmsae_encode(m, &batch, codes), model);
    UNPROTECT(1);
    return handle;
}

static SEXP r_encode(SEXP model, SEXP x)
{
    SEXP codes = PROTECT(encode(model, x));
    atmsae_codes_view v = {.size = sizeof v};
    check(atmsae_codes_get(R_ExternalPtrAddr(codes), &v), model);
    static const char *names[] = {"row", "latent", "value", ""};
    SEXP result = PROTECT(Rf_mkNamed(VECSXP, names));
    R_xlen_t n = (R_xlen_t)v.row_start[v.n_rows];
    SET_VECTOR_ELT(result, 0, Rf_allocVector(INTSXP, n));
    SET_VECTOR_ELT(result, 1, Rf_allocVector(INTSXP, n));
    SET_VECTOR_ELT(result, 2, Rf_allocVector(REALSXP, n));
    for (uint64_t r = 0; r < v.n_rows; r++)
        for (uint64_t i = v.row_start[r]; i < v.row_start[r + 1]; i++) {
            INTEGER(VECTOR_ELT(result, 0))[i] = (int)r + 1;
            INTEGER(VECTOR_ELT(result, 1))[i] = (int)v.latent[i] + 1;
            REAL(VECTOR_ELT(result, 2))[i] = (double)v.value[i];
        }
    UNPROTECT(2);
    return result;
}

static SEXP r_decode(SEXP model, SEXP x)
{
    SEXP codes = PROTECT(encode(model, x));
    size_t n = (size_t)Rf_nrows(x), d = shape(model).d_out;
    float *out = (float *)R_alloc(n * d, sizeof *out);
    check(atmsae_decode(model_of(model), R_ExternalPtrAddr(codes), out, 0), model);
    UNPROTECT(1);
    return matrix_of(out, n, d);
}

static SEXP r_save(SEXP model, SEXP folder)
{
    atmsae_model *m = model_of(model);
    check(atmsae_model_save(m, path(folder), NULL), model);
    return R_NilValue;
}

static SEXP r_load(SEXP context, SEXP folder)
{
    atmsae_context *c = get(context, "context");
    SEXP handle = PROTECT(handle_for("model", context, 0, free_model));
    atmsae_model *model;
    check(atmsae_model_load(c, path(folder), &model), context);
    R_SetExternalPtrAddr(handle, model);
    UNPROTECT(1);
    return handle;
}

/* ---- tracker and masker ------------------------------------------------------------------------------ */

static const double *doubles(SEXP values, size_t n)
{
    if (!Rf_isReal(values) || (size_t)Rf_xlength(values) != n) Rf_error("expected %d doubles", (int)n);
    return REAL(values);
}

static SEXP r_tracker(SEXP context, SEXP settings)
{
    atmsae_tracker_config config;
    atmsae_tracker_config_init(&config, sizeof config);
    fill(&config, tracker_settings, settings);
    atmsae_context *c = get(context, "context");
    SEXP handle = PROTECT(handle_for("tracker", context, config.d_sae, free_tracker));
    atmsae_tracker *tracker;
    check(atmsae_tracker_create(c, &config, &tracker), context);
    R_SetExternalPtrAddr(handle, tracker);
    UNPROTECT(1);
    return handle;
}

static SEXP r_observe(SEXP tracker, SEXP rows, SEXP magnitude, SEXP frequency, SEXP contribution)
{
    atmsae_tracker *t = get(tracker, "tracker");
    size_t n = latents_of(tracker);
    atmsae_latent_sums sums = {.size = sizeof sums, .d_sae = n};
    sums.rows = doubles(rows, n);
    sums.magnitude = doubles(magnitude, n);
    sums.frequency = doubles(frequency, n);
    sums.contribution = doubles(contribution, n);
    check(atmsae_tracker_observe(t, &sums), tracker);
    return R_NilValue;
}

static SEXP r_importance(SEXP tracker)
{
    const double *importance = atmsae_tracker_importance(get(tracker, "tracker"));
    return vector_of(importance, latents_of(tracker));
}

static SEXP r_masker(SEXP context, SEXP settings)
{
    atmsae_masker_config config;
    atmsae_masker_config_init(&config, sizeof config);
    fill(&config, masker_settings, settings);
    atmsae_context *c = get(context, "context");
    SEXP handle = PROTECT(handle_for("masker", context, config.d_sae, free_masker));
    atmsae_masker *masker;
    check(atmsae_masker_create(c, &config, &masker), context);
    R_SetExternalPtrAddr(handle, masker);
    UNPROTECT(1);
    return handle;
}

static SEXP r_draw(SEXP masker, SEXP step)
{
    atmsae_masker *m = get(masker, "masker");
    check(atmsae_masker_draw(m, count(step, "step")), masker);
    const uint8_t *masked = atmsae_masker_mask(m)->masked;
    const size_t n = latents_of(masker);
    SEXP result = Rf_allocVector(LGLSXP, (R_xlen_t)n);
    for (size_t i = 0; i < n; i++) LOGICAL(result)[i] = masked && masked[i];
    return result;
}

static SEXP r_update(SEXP masker, SEXP importance)
{
    atmsae_masker *m = get(masker, "masker");
    size_t n = latents_of(masker);
    check(atmsae_masker_update(m, doubles(importance, n), n), masker);
    return R_NilValue;
}

static SEXP r_p(SEXP masker)
{
    const double *p = atmsae_masker_p(get(masker, "masker"));
    return vector_of(p, latents_of(masker));
}

static SEXP r_synth_rows(SEXP context, SEXP first, SEXP n)
{
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    uint64_t from = count(first, "first"), rows = (uint64_t)whole(n, "n", 0, INT32_MAX);
    atmsae_context *c = get(context, "context");
    float *x = (float *)R_alloc(rows * config.d, sizeof *x);
    atmsae_synth *synth;
    check(atmsae_synth_create(c, &config, &synth), context);
    atmsae_status status = atmsae_synth_rows(synth, from, rows, x, NULL);
    atmsae_synth_destroy(synth);
    check(status, context);
    return matrix_of(x, rows, config.d);
}

/* R keeps functions of any signature as DL_FUNC; the way over void (*)(void) is the one compilers accept. */
#define CALL(name, arguments) {#name, (DL_FUNC)(void (*)(void))&name, arguments}
static const R_CallMethodDef calls[] = {
    CALL(r_context, 1), CALL(r_trainer, 7), CALL(r_prepare, 2), CALL(r_calibrate, 2), CALL(r_step, 2), CALL(r_parameter, 2),
    CALL(r_encode, 2), CALL(r_decode, 2), CALL(r_save, 2), CALL(r_load, 2), CALL(r_tracker, 2), CALL(r_observe, 5),
    CALL(r_importance, 1), CALL(r_masker, 2), CALL(r_draw, 2), CALL(r_update, 2), CALL(r_p, 1), CALL(r_synth_rows, 3), {0}};

void R_init_atmsae(DllInfo *info)
{
    R_registerRoutines(info, NULL, calls, NULL, NULL);
    R_useDynamicSymbols(info, FALSE);
}
