/* SPDX-License-Identifier: MIT
 *
 * Runs on activations of a language model, from a folder laid out as doc/study.md says.
 */
#include "study.h"
#include "letters.h"
#include "program.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { FORMS = 2, SAMPLE = 32768 };
static const char *const forms[FORMS] = {"prompted", "bare"};

typedef struct table {
    uint64_t n, d;
    float *values;
} table;

/* Rows of the three training files, in order: what the study trains on, its thresholds, then the same two and
 * validation rows for tuning. */
enum { TRAIN = 54000, HELD = 6000, TUNE_TRAIN = 20000, TUNE_HELD = 5000, TUNE_VALID = 5000 };

struct real_data {
    atmsae_context *context;
    table train, valid;
    table words[FORMS];
    int32_t *label;
    letters *letters[FORMS];
    atmsae_probing *texts;
    uint64_t n_tasks;
};

/* Files are named PREFIX-train-0.npy and so on: the prefix is that of the file which ends so. */
static char *file_path(const char *folder, const char *name)
{
    static const char first[] = "train-0.npy";
    char full[512] = "";
    DIR *files = opendir(folder);
    for (const struct dirent *f; files && (f = readdir(files));) {
        const size_t length = strlen(f->d_name);
        if (length >= strlen(first) && strcmp(f->d_name + length - strlen(first), first) == 0)
            snprintf(full, sizeof full, "%.*s%s", (int)(length - strlen(first)), f->d_name, name);
    }
    if (files) closedir(files);
    if (!full[0]) {
        fprintf(stderr, "study: no ...-%s in %s\n", first, folder);
        exit(1);
    }
    return program_path(folder, full);
}

typedef struct opened {
    char *path;
    atmsae_tensors *file;
    uint64_t tensor;
    atmsae_tensor_info info;
} opened;

static opened open_tensor(atmsae_context *context, const char *folder, const char *name, const char *tensor)
{
    opened o = {.path = file_path(folder, name), .info = {.size = sizeof o.info}};
    study_check(context, atmsae_tensors_open(context, o.path, &o.file));
    study_check(context, atmsae_tensors_find(o.file, tensor, &o.tensor));
    study_check(context, atmsae_tensors_info(o.file, o.tensor, &o.info));
    return o;
}

static void close_tensor(opened *o)
{
    atmsae_tensors_close(o->file);
    free(o->path);
}

static void read_table(atmsae_context *context, const char *folder, const char *name, const char *tensor, table *t)
{
    opened o = open_tensor(context, folder, name, tensor);
    if (o.info.rank != 2 || (t->d && t->d != o.info.shape[1])) {
        fprintf(stderr, "study: %s: not [rows, %llu]\n", o.path, (unsigned long long)t->d);
        exit(1);
    }
    t->d = o.info.shape[1];
    t->values = realloc(t->values, (t->n + o.info.shape[0]) * t->d * sizeof *t->values);
    if (!t->values) exit(1);
    study_check(context, atmsae_tensors_read_f32(o.file, o.tensor, t->values + t->n * t->d, o.info.shape[0] * t->d));
    t->n += o.info.shape[0];
    close_tensor(&o);
}

static int64_t *read_integers(atmsae_context *context, const char *folder, const char *name, const char *tensor, uint64_t *count)
{
    opened o = open_tensor(context, folder, name, tensor);
    *count = 1;
    for (uint64_t a = 0; a < o.info.rank; a++)
        *count *= o.info.shape[a];
    int64_t *values = program_alloc(*count, sizeof *values);
    study_check(context, atmsae_tensors_read_i64(o.file, o.tensor, values, *count));
    close_tensor(&o);
    return values;
}

static void open_words(real_data *r, const char *folder)
{
    uint64_t n;
    int64_t *letter = read_integers(r->context, folder, "first-letter.safetensors", "letter", &n);
    r->label = program_alloc(n, sizeof *r->label);
    for (uint64_t i = 0; i < n; i++) {
        if (letter[i] < 0 || letter[i] > 25) {
            fprintf(stderr, "study: letter %d of word %d, expected 0 to 25\n", (int)letter[i], (int)i);
            exit(1);
        }
        r->label[i] = (int32_t)letter[i];
    }
    free(letter);
    for (int form = 0; form < FORMS; form++) {
        r->words[form] = (table){.d = r->train.d};
        read_table(r->context, folder, "first-letter.safetensors", forms[form], &r->words[form]);
        r->letters[form] = letters_open(r->context, r->words[form].values, n, r->words[form].d, r->label);
    }
}

static void open_texts(real_data *r, const char *folder)
{
    static const uint64_t one = 1;
    uint64_t n, count;
    int64_t *train = read_integers(r->context, folder, "probing.safetensors", "is_train", &n);
    int64_t *values = read_integers(r->context, folder, "probing.safetensors", "labels", &count);
    table rows = {.d = r->train.d};
    read_table(r->context, folder, "probing.safetensors", "activations", &rows);
    int8_t *label = program_alloc(count, 1);
    uint8_t *is_train = program_alloc(n, 1);
    for (uint64_t i = 0; i < n; i++)
        is_train[i] = (uint8_t)train[i];
    for (uint64_t i = 0; i < count; i++)
        label[i] = (int8_t)values[i];
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = n, .x = rows.values, .x_type = ATMSAE_F32};
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = r->n_tasks = n > 0 ? count / n : 0;
    config.ks = &one;
    config.n_ks = 1;
    study_check(r->context, atmsae_probing_create(r->context, &config, &batch, rows.d, label, is_train, &r->texts));
    free(train);
    free(values);
    free(label);
    free(is_train);
    free(rows.values);
}

/* Mean test accuracy over tasks of the one latent that is ranked first. */
static double top1(const real_data *r, const atmsae_model *model)
{
    atmsae_probing_entry *entries = program_alloc(2 * r->n_tasks, sizeof *entries); /* of one latent, and of all */
    double sum = 0;
    study_check(r->context, atmsae_probing_score(r->texts, model, entries));
    for (uint64_t k = 0; k < r->n_tasks; k++)
        sum += entries[2 * k].accuracy;
    free(entries);
    return sum / (double)r->n_tasks;
}

real_data *real_open(atmsae_context *context, const char *folder)
{
    real_data *r = program_alloc(1, sizeof *r);
    r->context = context;
    read_table(context, folder, "train-0.npy", "", &r->train);
    read_table(context, folder, "train-1.npy", "", &r->train);
    read_table(context, folder, "train-2.npy", "", &r->train);
    read_table(context, folder, "valid.safetensors", "activations", &r->valid);
    if (r->train.n < TRAIN + HELD + TUNE_TRAIN + TUNE_HELD + TUNE_VALID) {
        fprintf(stderr, "study: %s has %llu training rows, needs 90000\n", folder, (unsigned long long)r->train.n);
        exit(1);
    }
    open_words(r, folder);
    open_texts(r, folder);
    return r;
}

void real_close(real_data *r)
{
    if (!r) return;
    for (int form = 0; form < FORMS; form++) {
        letters_close(r->letters[form]);
        free(r->words[form].values);
    }
    free(r->label);
    atmsae_probing_destroy(r->texts);
    free(r->train.values);
    free(r->valid.values);
    free(r);
}

static void next(void *opaque, uint64_t step, uint64_t n, float *rows)
{
    (void)step;
    uint64_t got;
    if (atmsae_source_next(opaque, n, rows, &got) < 0 || got != n) exit(1);
}

void real_run(real_data *r, const study_method *method, const settings *s, const char *kept, FILE *out)
{
    const bool tune = s->tune != 0;
    const uint64_t d = r->train.d, n = tune ? TUNE_TRAIN : TRAIN;
    const float *train = r->train.values + (tune ? (TRAIN + HELD) * d : 0);
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 16384;
    config.seed = (uint64_t)s->seed;
    atmsae_source *source;
    study_check(r->context, atmsae_source_create(r->context, &config, &source));
    study_check(r->context, atmsae_source_add_memory(source, train, n, d, 0, ATMSAE_F32));
    const study_rows rows = {.d = d, .input_norm = ATMSAE_INPUT_SQRT_D, .b_dec_init = ATMSAE_B_DEC_MEAN, .next = next, .opaque = source,
                             .sample = train, .n_sample = n < SAMPLE ? n : SAMPLE, .calibration = train + n * d,
                             .n_calibration = tune ? TUNE_HELD : HELD,
                             .dead_window = (uint64_t)(s->steps * s->batch / 10)};
    study_trained trained;
    if (!kept || !keep_load(r->context, kept, &trained)) {
        trained = study_train(r->context, method, s, &rows);
        if (kept) keep_save(r->context, kept, &trained);
    }
    atmsae_metrics_result m, held;
    study_reconstruction(r->context, trained.model, tune ? rows.calibration + TUNE_HELD * d : r->valid.values,
                         tune ? TUNE_VALID : r->valid.n, d, &m);
    study_reconstruction(r->context, trained.model, rows.calibration, rows.n_calibration, d, &held);
    fprintf(out, ", \"l0\": %.3f, \"fvu\": %.5f, \"l0_held\": %.3f, \"l0_train\": %.3f, \"mean_p\": %.4f, \"dead\": %d", m.l0, m.fvu,
            held.l0, trained.l0_train, trained.mean_p, (int)m.dead);
    for (int form = 0; form < FORMS; form++)
        letters_score(r->letters[form], trained.model, forms[form], out);
    if (s->probing != 0) fprintf(out, ", \"probing_top1\": %.4f", top1(r, trained.model));
    fprintf(out, ", \"training_seconds\": %.1f", trained.seconds);
    atmsae_model_destroy(trained.model);
    atmsae_source_destroy(source);
}
