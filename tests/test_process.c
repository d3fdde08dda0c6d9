/* SPDX-License-Identifier: MIT
 *
 * What a process does around the library: fork, floating-point settings of its own, threads with a
 * stack of 64 KB. None of it may change results, hang, or leave a trace in the caller's state.
 */
#include "handles.h"

#include <fenv.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- one of everything ------------------------------------------------------------------------------ */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *level)
{
    (void)st;
    (void)type;
    (void)level;
    return remove(path);
}

static void make_folder(char folder[64])
{
    strcpy(folder, "/tmp/atmsae-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(const char *folder) { nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

static uint64_t hash_file(uint64_t hash, const char *folder, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    int c;
    while ((c = getc(file)) != EOF)
        hash = (hash ^ (unsigned char)c) * 1099511628211u;
    fclose(file);
    return hash;
}

/* A .npy file of doubles that no float holds: reading them has to round. */
static void write_doubles(const char *path)
{
    char header[128] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }";
    const double values[3] = {0.1, 1e-39, 1.0000000298023224};
    for (size_t i = 10 + strlen(header + 10); i < 127; i++)
        header[i] = ' ';
    header[127] = '\n';
    FILE *file = fopen(path, "wb");
    if (!file) return;
    fwrite(header, 1, sizeof header, file);
    fwrite(values, 1, sizeof values, file);
    fclose(file);
}

/* What a caller looks like from the library: `enter` before each call, `leave` after it. */
typedef struct caller {
    void (*enter)(const struct caller *);
    bool (*leave)(const struct caller *);
    int rounding;
    unsigned csr;
    const char *failed; /* the first call that went wrong */
    atmsae_status status;
} caller;

/* Makes a call in the caller's state; on failure the rest is skipped. */
#define CALL(call)                                                   \
    do {                                                             \
        if (c->failed) break;                                        \
        if (c->enter) c->enter(c);                                   \
        c->status = (call);                                          \
        bool kept_ = !c->leave || c->leave(c);                       \
        if (c->status < 0 || !kept_) c->failed = kept_ ? #call : "the caller's state was changed by " #call; \
    } while (0)

static uint64_t train_and_measure(caller *c, int32_t activation, uint32_t threads, const float *x, const char *folder)
{
    char checkpoint[128], sae[128], doubles[128];
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", folder);
    snprintf(sae, sizeof sae, "%s/sae", folder);
    snprintf(doubles, sizeof doubles, "%s/doubles.npy", folder);
    write_doubles(doubles);
    uint64_t hash = 14695981039346656037u;
    const atmsae_batch batch = batch_of(x, N);

    atmsae_context *ctx = NULL;
    atmsae_trainer *trainer = NULL, *loaded = NULL;
    atmsae_model *model = NULL;
    atmsae_codes *codes = NULL;
    atmsae_metrics *metrics = NULL;
    atmsae_source *source = NULL;
    atmsae_synth *synth = NULL;
    atmsae_absorption *absorption = NULL;
    atmsae_tensors *tensors = NULL;

    atmsae_context_config context_config;
    atmsae_context_config_init(&context_config, sizeof context_config);
    context_config.threads = threads;
    CALL(atmsae_context_create(&context_config, &ctx));
    atmsae_model_config model_config;
    atmsae_model_config_init(&model_config, sizeof model_config);
    model_config.d_in = D;
    model_config.d_sae = F;
    model_config.k = 6;
    model_config.activation = activation;
    model_config.b_dec_init = ATMSAE_B_DEC_MEDIAN;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model_config;
    config.batch_rows = N;
    config.total_rows = 100 * N;
    CALL(atmsae_trainer_create(ctx, &config, &trainer));
    CALL(atmsae_trainer_prepare(trainer, &batch));

    float rows[N * D];
    uint64_t got = 0;
    atmsae_source_config source_config;
    atmsae_source_config_init(&source_config, sizeof source_config);
    CALL(atmsae_source_create(ctx, &source_config, &source));
    CALL(atmsae_source_add_memory(source, x, N, D, 0, ATMSAE_F32));
    atmsae_batch shuffled = batch_of(rows, N);
    double lr[3] = {0};
    for (int step = 0; step < 3; step++) {
        atmsae_step_stats stats = {.size = sizeof stats};
        CALL(atmsae_source_next(source, N, rows, &got));
        CALL((lr[step] = atmsae_optimizer_lr(atmsae_trainer_optimizer(trainer)), ATMSAE_OK));
        CALL(atmsae_trainer_step(trainer, &shuffled, &stats));
        if (!c->failed) hash = hash_bytes(hash, &stats, sizeof stats);
    }
    hash = hash_bytes(hash, lr, sizeof lr);
    CALL(atmsae_trainer_calibrate(trainer, &batch));
    CALL(atmsae_trainer_save(trainer, source, checkpoint));
    CALL(atmsae_trainer_load(ctx, checkpoint, source, &loaded));
    CALL(atmsae_trainer_step(loaded, &batch, NULL));
    CALL(atmsae_model_save(atmsae_trainer_model(loaded), sae, NULL));
    CALL(atmsae_model_load(ctx, sae, &model));

    CALL(atmsae_codes_create(ctx, &codes));
    CALL(atmsae_encode(model, &batch, codes));
    float out[N * D] = {0};
    CALL(atmsae_decode(model, codes, out, 0));
    CALL(atmsae_metrics_create(model, &metrics));
    CALL(atmsae_metrics_add(metrics, &batch));
    atmsae_metrics_result result = {.size = sizeof result};
    CALL(atmsae_metrics_get(metrics, &result));

    atmsae_absorption_config absorption_config;
    atmsae_absorption_config_init(&absorption_config, sizeof absorption_config);
    absorption_config.n_classes = 5;
    absorption_config.min_probe_f1 = 0.1;
    int32_t labels[N];
    uint8_t is_train[N];
    for (int r = 0; r < N; r++) {
        labels[r] = r % 5;
        is_train[r] = r % 3 != 0;
    }
    CALL(atmsae_absorption_create(ctx, &absorption_config, &batch, D, labels, is_train, &absorption));
    atmsae_absorption_result score = {.size = sizeof score};
    CALL(atmsae_absorption_score(absorption, model, &score, NULL));

    atmsae_synth_config synth_config;
    atmsae_synth_config_init(&synth_config, sizeof synth_config);
    synth_config.d = D;
    CALL(atmsae_synth_create(ctx, &synth_config, &synth));
    CALL(atmsae_synth_rows(synth, 7, N, rows, NULL));
    atmsae_synth_result known = {.size = sizeof known};
    CALL(atmsae_synth_score(synth, model, 0, 100, &known));

    float read[3] = {0};
    CALL(atmsae_tensors_open(ctx, doubles, &tensors));
    CALL(atmsae_tensors_read_f32(tensors, 0, read, 3));

    if (!c->failed) {
        hash = hash_bytes(hash, &(uint64_t){hash_model(atmsae_trainer_model(loaded))}, sizeof(uint64_t));
        hash = hash_bytes(hash, &(uint64_t){hash_model(model)}, sizeof(uint64_t));
        hash = hash_bytes(hash, &(uint64_t){hash_codes(codes)}, sizeof(uint64_t));
        hash = hash_bytes(hash, out, sizeof out);
        hash = hash_bytes(hash, &result, sizeof result);
        hash = hash_bytes(hash, &score, sizeof score);
        hash = hash_bytes(hash, &known, sizeof known);
        hash = hash_bytes(hash, rows, sizeof rows);
        hash = hash_bytes(hash, read, sizeof read);
        hash = hash_file(hash, folder, "checkpoint");
        hash = hash_file(hash, folder, "sae/cfg.json");
        hash = hash_file(hash, folder, "sae/sae_weights.safetensors");
    }
    atmsae_tensors_close(tensors);
    atmsae_synth_destroy(synth);
    atmsae_absorption_destroy(absorption);
    atmsae_metrics_destroy(metrics);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
    atmsae_source_destroy(source);
    atmsae_trainer_destroy(loaded);
    atmsae_trainer_destroy(trainer);
    if (c->failed && ctx) fprintf(stderr, "%s: %s\n", c->failed, atmsae_last_error(ctx));
    atmsae_context_destroy(ctx);
    return hash;
}

/* Rows with denormal numbers among the others, so that FTZ and DAZ have something to spoil. */
static void delicate_rows(float *x)
{
    fill_rows(x, N, 9);
    for (uint64_t i = 0; i < N * D; i += 7)
        x[i] = (i % 2 ? -3e-41f : 5e-39f);
}

/* ---- floating-point settings ------------------------------------------------------------------------ */

#if defined(__x86_64__)
static void set_floats(const caller *c)
{
    fesetround(c->rounding);
    _mm_setcsr(c->csr);
}
static bool floats_kept(const caller *c) { return _mm_getcsr() == c->csr && fegetround() == c->rounding; }

enum { FTZ = 0x8000, DAZ = 0x0040, MASKS = 0x1f80, NO_TRAPS = 0x1f80, FLAGS = 0x003f };
/* _i: the activation. Rounding modes x FTZ x DAZ, with and without traps and raised flags. */
START_TEST(floating_point)
{
    static const int rounding[4] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    static const unsigned flush[4] = {0, FTZ, DAZ, FTZ | DAZ};
    char folder[64];
    float x[N * D];
    delicate_rows(x);
    uint64_t expected = 0;
    for (unsigned j = 0; j < 16; j++)
        for (unsigned trapping = 0; trapping < 2; trapping++) {
            const unsigned i = (j + 3 * (unsigned)_i) % 16; /* whichever is first sets BLIS up */
            /* MXCSR has the rounding mode three bits higher than the x87 control word. */
            caller c = {set_floats, floats_kept, .rounding = rounding[i / 4]};
            c.csr = (unsigned)c.rounding << 3 | flush[i % 4] | (trapping ? 0 : NO_TRAPS | FLAGS);
            make_folder(folder);
            uint64_t hash = train_and_measure(&c, _i, 1 + i % 3, x, folder);
            fesetenv(FE_DFL_ENV);
            remove_folder(folder);
            ck_assert_msg(!c.failed, "%s", c.failed);
            if (j == 0 && !trapping) expected = hash;
            ck_assert_msg(hash == expected, "results differ with MXCSR %x", c.csr);
        }
}
END_TEST

/* The settings that the test above makes do change what the same arithmetic gives in the caller. */
START_TEST(floating_point_matters)
{
    volatile float denormal = 5e-39f, one = 1, three = 3;
    const float third = one / three, kept = denormal * one;
    const caller down = {.rounding = FE_DOWNWARD, .csr = NO_TRAPS | (unsigned)FE_DOWNWARD << 3};
    const caller flushed = {.rounding = FE_TONEAREST, .csr = NO_TRAPS | FTZ | DAZ};
    set_floats(&down);
    const float less = one / three;
    set_floats(&flushed);
    const float lost = denormal * one;
    fesetenv(FE_DFL_ENV);
    ck_assert_float_lt(less, third);
    ck_assert_float_gt(kept, 0);
    ck_assert_float_eq(lost, 0);
}
END_TEST
#endif

/* ---- fork ----------------------------------------------------------------------------------------------- */

/* Runs in a child; the number of the first check that failed, or 0. */
static int child_uses(atmsae_context *ctx, atmsae_trainer *trainer, atmsae_codes *codes, atmsae_metrics *metrics,
                      atmsae_source *source, const float *x, uint64_t expected)
{
    const atmsae_batch batch = batch_of(x, N);
    float out[N * D];
    uint64_t got;
    atmsae_model *model = atmsae_trainer_model(trainer);
    atmsae_codes *new_codes;
    atmsae_tensors *tensors;
    const atmsae_status refused[] = {
        atmsae_encode(model, &batch, codes),
        atmsae_decode(model, codes, out, 0),
        atmsae_model_calibrate(model, &batch),
        atmsae_model_save(model, "unreachable/folder", NULL),
        atmsae_trainer_step(trainer, &batch, NULL),
        atmsae_trainer_save(trainer, source, "unreachable/file"),
        atmsae_metrics_add(metrics, &batch),
        atmsae_source_next(source, 4, out, &got),
        atmsae_codes_create(ctx, &new_codes),
        atmsae_tensors_open(ctx, "unreachable/file", &tensors),
        atmsae_masker_draw(atmsae_trainer_masker(trainer), 1),
    };
    int number = 1;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++, number++)
        if (refused[i] != ATMSAE_E_STATE) return number;
    if (!strstr(atmsae_last_error(ctx), "before fork")) return number;
    atmsae_metrics_destroy(metrics);
    atmsae_codes_destroy(codes);
    atmsae_source_destroy(source);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
    number++;

    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 3;
    if (atmsae_context_create(&config, &ctx) < 0) return number;
    trainer = new_trainer(ctx, ATMSAE_BATCHTOPK);
    train(ctx, trainer, 5, x);
    number++;
    if (hash_trainer(trainer) != expected) return number;
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
    return 0;
}

START_TEST(fork_child)
{
    float x[N * D];
    fill_rows(x, N, 2);
    atmsae_context *ctx = new_context(3);
    atmsae_trainer *trainer = new_trainer(ctx, ATMSAE_BATCHTOPK);
    train(ctx, trainer, 5, x);
    const uint64_t expected = hash_trainer(trainer);
    atmsae_codes *codes;
    atmsae_metrics *metrics;
    atmsae_source *source;
    const atmsae_batch batch = batch_of(x, N);
    ok(atmsae_codes_create(ctx, &codes), ctx);
    ok(atmsae_encode(atmsae_trainer_model(trainer), &batch, codes), ctx);
    ok(atmsae_metrics_create(atmsae_trainer_model(trainer), &metrics), ctx);
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    ok(atmsae_source_create(ctx, &config, &source), ctx);
    ok(atmsae_source_add_memory(source, x, N, D, 0, ATMSAE_F32), ctx);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            alarm(60); /* a hang ends the child */
            _exit(child_uses(ctx, trainer, codes, metrics, source, x, expected));
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: wait status %x", (unsigned)status);
        train(ctx, trainer, 1, x); /* the parent goes on */
        ok(atmsae_metrics_add(metrics, &batch), ctx);
    }
    atmsae_trainer *serial = new_trainer(ctx, ATMSAE_BATCHTOPK);
    train(ctx, serial, 8, x);
    ck_assert_uint_eq(hash_trainer(trainer), hash_trainer(serial));
    atmsae_trainer_destroy(serial);
    atmsae_source_destroy(source);
    atmsae_metrics_destroy(metrics);
    atmsae_codes_destroy(codes);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- a small stack ---------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__COVERAGE__)
enum { STACK = 1 << 20 }; /* instrumented frames are larger */
#else
enum { STACK = 64 << 10 };
#endif

typedef struct small {
    caller caller;
    int32_t activation;
    float x[N * D];
    char folder[64];
} small;

static void *on_small_stack(void *arg)
{
    small *s = arg;
    train_and_measure(&s->caller, s->activation, 1, s->x, s->folder); /* one thread: this one does it all */
    return NULL;
}

/* _i: the activation. The page below the stack is not there, so that an overflow is a crash. */
START_TEST(small_stack)
{
    static small s;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    s.activation = _i;
    fill_rows(s.x, N, 6);
    make_folder(s.folder);
    unsigned char *memory = mmap(NULL, STACK + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(memory, page, PROT_NONE), 0);
    memset(memory + page, 0xA5, STACK);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    ck_assert_int_eq(pthread_attr_setstack(&attributes, memory + page, STACK), 0);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, &attributes, on_small_stack, &s), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    remove_folder(s.folder);
    ck_assert_msg(!s.caller.failed, "%s: %s", s.caller.failed, atmsae_status_name(s.caller.status));
    size_t unused = 0;
    while (unused < STACK && memory[page + unused] == 0xA5)
        unused++;
    printf("activation %d: %zu of %d bytes of stack used\n", _i, (size_t)STACK - unused, STACK);
    fflush(stdout);
    munmap(memory, STACK + page);
}
END_TEST

static void add(TCase *tests)
{
#if defined(__x86_64__)
    tcase_add_loop_test(tests, floating_point, ATMSAE_RELU, ACTIVATIONS + 1);
    tcase_add_test(tests, floating_point_matters);
#endif
    tcase_add_test(tests, fork_child);
    tcase_add_loop_test(tests, small_stack, ATMSAE_RELU, ACTIVATIONS + 1);
}

int main(void) { return run_suite("process", add); }
