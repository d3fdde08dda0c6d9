/* SPDX-License-Identifier: MIT
 *
 * Runs on activations of a language model, from a folder of files as dump_activations.py writes them.
 */
#include "study.h"
#include "letters.h"
#include "program.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { FORMS = 2, SAMPLE = 32768, MAX_SHARDS = 256 };
static const char *const forms[FORMS] = {"prompted", "bare"};

typedef struct table {
    uint64_t n, d;
    float *values;
} table;

/* One half of the data: what the study is made of, or what settings are chosen on. They share no training row, no word and
 * no validation row; thresholds come from the other's validation rows, since on documents that were not trained on L0 is some
 * percent higher. Fitting the probes of its words takes a minute or two, so a half is opened by the first run that wants it. */
typedef struct half {
    int first, count; /* of the training files */
    table sample;
    table valid, calibration; /* both parts of real_data's valid */
    table words[FORMS];
    letters *letters[FORMS];
} half;

struct real_data {
    atmsae_context *context;
    char *train[MAX_SHARDS]; /* paths, in the order of their names */
    int n_train;
    uint64_t d;
    table valid;
    half halves[2]; /* [0]: the study, [1]: tuning; count 0: not opened yet */
    atmsae_probing *texts;
    uint64_t n_tasks;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends(const char *name, const char *end)
{
    const size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

/* Files are named PREFIX-train-00.npy, PREFIX-valid.npy and so on, with one prefix. */
static void find_train(real_data *r, const char *folder)
{
    DIR *files = opendir(folder);
    for (const struct dirent *f; files && (f = readdir(files));)
        if (strstr(f->d_name, "-train-") && f->d_name[0] != '.' && ends(f->d_name, ".npy") && r->n_train < MAX_SHARDS)
            r->train[r->n_train++] = program_path(folder, f->d_name);
    if (files) closedir(files);
    qsort(r->train, (size_t)r->n_train, sizeof *r->train, by_name);
    if (r->n_train < 4) {
        fprintf(stderr, "study: %d files ...-train-NN.npy in %s, needs 4 or more (bench/study/data makes them)\n", r->n_train, folder);
        exit(1);
    }
}

static char *file_path(const real_data *r, const char *name)
{
    const char *first = r->train[0], *at = strstr(strrchr(first, '/'), "-train-");
    const int length = (int)(at - first) + 1;
    const size_t size = (size_t)length + strlen(name) + 1;
    char *path = program_alloc(size, 1);
    snprintf(path, size, "%.*s%s", length, first, name);
    return path;
}

/* At most `most` rows; takes the path over. */
static table read_table(atmsae_context *context, char *path, const char *tensor, uint64_t most)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 0;
    config.epochs = 1;
    atmsae_source *source;
    study_check(context, atmsae_source_create(context, &config, &source));
    study_check(context, atmsae_source_add_file(source, path, tensor, 0));
    table t = {.n = atmsae_source_rows(source), .d = atmsae_source_d(source)};
    if (t.n > most) t.n = most;
    t.values = program_alloc(t.n * t.d, sizeof *t.values);
    uint64_t got;
    study_check(context, atmsae_source_next(source, t.n, t.values, &got));
    atmsae_source_destroy(source);
    free(path);
    return t;
}

/* Takes the path over. */
static int64_t *read_integers(atmsae_context *context, char *path, const char *tensor, uint64_t *count)
{
    atmsae_tensors *file;
    uint64_t at;
    atmsae_tensor_info info = {.size = sizeof info};
    study_check(context, atmsae_tensors_open(context, path, &file));
    study_check(context, atmsae_tensors_find(file, tensor, &at));
    study_check(context, atmsae_tensors_info(file, at, &info));
    *count = 1;
    for (uint64_t a = 0; a < info.rank; a++)
        *count *= info.shape[a];
    int64_t *values = program_alloc(*count, sizeof *values);
    study_check(context, atmsae_tensors_read_i64(file, at, values, *count));
    atmsae_tensors_close(file);
    free(path);
    return values;
}

/* The study has the first training files, tuning those that follow. */
enum { STUDY_FILES = 27 };
static const half *open_half(real_data *r, bool tune)
{
    half *h = &r->halves[tune];
    if (h->count > 0) return h;
    const int study = r->n_train < STUDY_FILES ? r->n_train : STUDY_FILES;
    if (tune && study == r->n_train) {
        fprintf(stderr, "study: tune=1: %d training files, needs more than %d\n", r->n_train, STUDY_FILES);
        exit(1);
    }
    const int first = tune ? study : 0, end = tune ? r->n_train : study;
    const char *words = tune ? "first-letter-2.safetensors" : "first-letter.safetensors";
    h->first = first;
    h->count = end - first;
    const uint64_t middle = r->valid.n / 2;
    const table parts[2] = {{middle, r->d, r->valid.values}, {r->valid.n - middle, r->d, r->valid.values + middle * r->d}};
    h->valid = parts[tune];
    h->calibration = parts[!tune];
    h->sample = read_table(r->context, strdup(r->train[first]), NULL, SAMPLE);
    uint64_t n;
    int64_t *letter = read_integers(r->context, file_path(r, words), "letter", &n);
    int32_t *label = program_alloc(n, sizeof *label);
    for (uint64_t i = 0; i < n; i++) {
        if (letter[i] < 0 || letter[i] > 25) {
            fprintf(stderr, "study: letter %d of word %d, expected 0 to 25\n", (int)letter[i], (int)i);
            exit(1);
        }
        label[i] = (int32_t)letter[i];
    }
    for (int form = 0; form < FORMS; form++) {
        h->words[form] = read_table(r->context, file_path(r, words), forms[form], n);
        h->letters[form] = letters_open(r->context, h->words[form].values, n, r->d, label);
    }
    free(label);
    free(letter);
    return h;
}

static void open_texts(real_data *r)
{
    static const uint64_t one = 1;
    uint64_t n, count;
    int64_t *train = read_integers(r->context, file_path(r, "probing.safetensors"), "is_train", &n);
    int64_t *values = read_integers(r->context, file_path(r, "probing.safetensors"), "labels", &count);
    const table rows = read_table(r->context, file_path(r, "probing.safetensors"), "activations", n);
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
    find_train(r, folder);
    r->valid = read_table(context, file_path(r, "valid.npy"), NULL, UINT64_MAX);
    r->d = r->valid.d;
    return r;
}

void real_close(real_data *r)
{
    if (!r) return;
    for (int i = 0; i < 2; i++) {
        half *h = &r->halves[i];
        for (int form = 0; form < FORMS; form++) {
            letters_close(h->letters[form]);
            free(h->words[form].values);
        }
        free(h->sample.values);
    }
    atmsae_probing_destroy(r->texts);
    for (int i = 0; i < r->n_train; i++)
        free(r->train[i]);
    free(r->valid.values);
    free(r);
}

static void next(void *opaque, uint64_t step, uint64_t n, float *rows)
{
    (void)step;
    uint64_t got;
    if (atmsae_source_next(opaque, n, rows, &got) < 0 || got != n) exit(1);
}

/* Each seed begins with another file. */
static atmsae_source *open_rows(const real_data *r, const half *h, uint64_t seed)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 65536;
    config.seed = seed;
    atmsae_source *source;
    study_check(r->context, atmsae_source_create(r->context, &config, &source));
    for (int i = 0; i < h->count; i++)
        study_check(r->context, atmsae_source_add_file(source, r->train[h->first + (int)((5 * seed + (uint64_t)i) % (uint64_t)h->count)], NULL, 0));
    return source;
}

void real_run(real_data *r, const study_method *method, const settings *s, const char *kept, FILE *out)
{
    const half *h = open_half(r, s->tune != 0);
    atmsae_source *source = open_rows(r, h, (uint64_t)s->seed);
    const study_rows rows = {.d = r->d, .input_norm = ATMSAE_INPUT_SQRT_D, .b_dec_init = ATMSAE_B_DEC_MEAN, .next = next, .opaque = source,
                             .sample = h->sample.values, .n_sample = h->sample.n,
                             .calibration = h->calibration.values, .n_calibration = h->calibration.n,
                             .dead_window = (uint64_t)(s->steps * s->batch / 10)};
    study_trained trained = {0};
    if (!kept || !keep_load(r->context, kept, &trained)) {
        trained = study_train(r->context, method, s, &rows);
        if (kept) keep_save(r->context, kept, &trained);
    }
    atmsae_metrics_result m, held;
    study_reconstruction(r->context, trained.model, h->valid.values, h->valid.n, r->d, &m);
    study_reconstruction(r->context, trained.model, rows.calibration, rows.n_calibration, r->d, &held);
    fprintf(out, ", \"l0\": %.3f, \"fvu\": %.5f, \"l0_held\": %.3f, \"l0_train\": %.3f, \"mean_p\": %.4f, \"dead\": %d", m.l0, m.fvu,
            held.l0, trained.l0_train, trained.mean_p, (int)m.dead);
    for (int form = 0; form < FORMS; form++)
        letters_score(h->letters[form], trained.model, forms[form], out);
    if (s->probing != 0) {
        if (!r->texts) open_texts(r);
        fprintf(out, ", \"probing_top1\": %.4f", top1(r, trained.model));
    }
    fprintf(out, ", \"training_seconds\": %.1f", trained.seconds);
    study_free(&trained);
    atmsae_source_destroy(source);
}
