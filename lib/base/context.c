/* SPDX-License-Identifier: MIT
 *
 * The context: memory hook, log hook, error text, life of the worker threads.
 */
#include "context.h"
#include "kernels/panels.h"
#include "kernels/kernels.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x

uint32_t atmsae_version_number(void)
{
    return ATMSAE_VERSION_MAJOR * 10000 + ATMSAE_VERSION_MINOR * 100 + ATMSAE_VERSION_PATCH;
}

const char *atmsae_version_string(void)
{
    return TEXT(ATMSAE_VERSION_MAJOR) "." TEXT(ATMSAE_VERSION_MINOR) "." TEXT(ATMSAE_VERSION_PATCH);
}

const char *atmsae_status_name(atmsae_status status)
{
    static const struct {
        atmsae_status status;
        const char *name;
    } table[] = {
        {ATMSAE_OK, "ATMSAE_OK"},
        {ATMSAE_E_ARG, "ATMSAE_E_ARG"},
        {ATMSAE_E_NOMEM, "ATMSAE_E_NOMEM"},
        {ATMSAE_E_STATE, "ATMSAE_E_STATE"},
        {ATMSAE_E_UNSUPPORTED, "ATMSAE_E_UNSUPPORTED"},
        {ATMSAE_E_ABI, "ATMSAE_E_ABI"},
        {ATMSAE_E_NONFINITE, "ATMSAE_E_NONFINITE"},
        {ATMSAE_E_LIMIT, "ATMSAE_E_LIMIT"},
        {ATMSAE_E_IO, "ATMSAE_E_IO"},
        {ATMSAE_E_FORMAT, "ATMSAE_E_FORMAT"},
        {ATMSAE_E_TRUNCATED, "ATMSAE_E_TRUNCATED"},
        {ATMSAE_E_VERSION, "ATMSAE_E_VERSION"},
        {ATMSAE_E_CALLBACK, "ATMSAE_E_CALLBACK"},
        {ATMSAE_E_STOPPED, "ATMSAE_E_STOPPED"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].status == status) return table[i].name;
    return "unknown status";
}

/* Rows of large matrices are read in no order: with pages of 4 KB most of their addresses would have to
 * be looked up in memory too. */
enum { HUGE_PAGE = 2 << 20 };

static void *default_alloc(void *opaque, size_t align, size_t bytes)
{
    (void)opaque;
    void *memory = NULL;
    const bool large = bytes >= (size_t)2 * HUGE_PAGE;
    if (posix_memalign(&memory, large && align < HUGE_PAGE ? HUGE_PAGE : align, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (large) (void)madvise(memory, bytes - bytes % HUGE_PAGE, MADV_HUGEPAGE); /* a wish */
#endif
    return memory;
}

static void default_free(void *opaque, void *memory)
{
    (void)opaque;
    free(memory);
}

void atmsae_context_config_init(atmsae_context_config *config, size_t size)
{
    static const atmsae_context_config defaults = {.log_level = ATMSAE_LOG_INFO};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static void choose_product(atmsae_context *ctx, int32_t precision)
{
    ctx->product = precision == ATMSAE_PRECISION_BF16 ? ams_product_request_amx() : NULL;
    if (precision == ATMSAE_PRECISION_BF16 && !ctx->product)
        ams_log(ctx, ATMSAE_LOG_WARNING, "no AMX for bf16 here: latents are searched as they are without this setting");
    if (!ctx->product) ctx->product = ams_product_fastest();
    if (!ctx->product) return;
    size_t used = strlen(ctx->cpu);
    ams_format(ctx->cpu + used, sizeof ctx->cpu - used, ", search in %s", ams_product_name(ctx->product));
}

const ams_product *ams_product_of(const atmsae_context *ctx) { return ctx->product; }

static atmsae_status create(const atmsae_context_config *caller, atmsae_context **out)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    if (caller)
        AMS_TRY(ams_struct_in(NULL, atmsae_context_config, &config, caller));

    atmsae_allocator allocator = {NULL, default_alloc, default_free};
    if (config.allocator) allocator = *config.allocator;
    if (!allocator.alloc || !allocator.free) return ATMSAE_E_ARG;
    if (config.precision != ATMSAE_PRECISION_F32 && config.precision != ATMSAE_PRECISION_BF16) return ATMSAE_E_ARG;
    atmsae_context *ctx = allocator.alloc(allocator.opaque, 64, sizeof *ctx);
    if (!ctx) return ATMSAE_E_NOMEM;
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = allocator;
    ctx->log = config.log;
    ctx->log_opaque = config.log_opaque;
    ctx->log_level = config.log_level;
    atomic_init(&ctx->references, 1);
    ctx->pid = getpid();
    if (pthread_mutex_init(&ctx->text_lock, NULL) != 0) {
        allocator.free(allocator.opaque, ctx);
        return ATMSAE_E_NOMEM;
    }

    ctx->threads = config.threads;
    ctx->pool = ams_pool_create(ctx, &ctx->threads);
    ams_kernels_describe(ctx->cpu, sizeof ctx->cpu);
    choose_product(ctx, config.precision);
    ams_gemm_check(ctx);
    ams_gemm_warm_up(ctx);
    *out = ctx;
    return ATMSAE_OK;
}

atmsae_status atmsae_context_create(const atmsae_context_config *caller, atmsae_context **out)
{
    if (!out) return ATMSAE_E_ARG;
    *out = NULL;
    fenv_t environment; /* BLIS sets itself up in the default one, too */
    ams_float_begin(&environment);
    atmsae_status status = create(caller, out);
    ams_float_end(&environment);
    return status;
}

atmsae_context *ams_context_ref(atmsae_context *ctx)
{
    atomic_fetch_add(&ctx->references, 1);
    return ctx;
}

void atmsae_context_destroy(atmsae_context *ctx)
{
    if (!ctx || atomic_fetch_sub(&ctx->references, 1) != 1) return;
    ams_pool_destroy(ctx, ctx->pool);
    pthread_mutex_destroy(&ctx->text_lock);
    atmsae_allocator allocator = ctx->allocator;
    allocator.free(allocator.opaque, ctx);
}

/* Lock-free, so that a signal handler may call them. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a stop request must be one store");
void atmsae_request_stop(atmsae_context *ctx)
{
    if (ctx) atomic_store(&ctx->stop, 1);
}
void atmsae_clear_stop(atmsae_context *ctx)
{
    if (ctx) atomic_store(&ctx->stop, 0);
}
int32_t atmsae_stop_requested(const atmsae_context *ctx) { return ctx ? atomic_load(&ctx->stop) : 0; }

uint32_t atmsae_context_threads(const atmsae_context *ctx) { return ctx ? ctx->threads : 0; }
const char *atmsae_context_cpu(const atmsae_context *ctx) { return ctx ? ctx->cpu : ""; }
unsigned ams_workers(const atmsae_context *ctx) { return ctx->threads; }
void ams_context_set_io(atmsae_context *ctx, const struct ams_io *io) { ctx->io = io; }
const struct ams_io *ams_context_io(const atmsae_context *ctx) { return ctx->io; }

void ams_context_time_parallel(atmsae_context *ctx, double *seconds) { ctx->parallel_seconds = seconds; }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void ams_parallel(atmsae_context *ctx, uint64_t jobs, ams_job *job, void *arg)
{
    if (ctx->pool && jobs > 1) {
        const double start = ctx->parallel_seconds ? now() : 0;
        ams_pool_run(ctx->pool, jobs, job, arg);
        if (ctx->parallel_seconds) *ctx->parallel_seconds += now() - start;
        return;
    }
    for (uint64_t i = 0; i < jobs; i++)
        job(arg, i, 0);
}

/* ---- text ---------------------------------------------------------------------------------- */

/* A comma instead of a decimal point in a message or a file is a bug that only some users see, so
 * numbers are always formatted in the C locale. glibc's "C" object is static: nothing is freed. */
static locale_t c_locale(void) { return newlocale(LC_ALL_MASK, "C", (locale_t)0); }

static int format_list(char *out, size_t capacity, const char *format, va_list list)
{
    locale_t c = c_locale();
    locale_t old = c ? uselocale(c) : (locale_t)0;
    int length = vsnprintf(out, capacity, format, list);
    if (c) {
        uselocale(old);
        freelocale(c);
    }
    return length;
}

/* Length of the character at `c` if a terminal would obey it instead of showing it: control characters, of ASCII and
 * the C1 set of Unicode, and those that turn the direction of writing; else 0. */
static size_t commands(const unsigned char *c)
{
    if (*c < 0x20 || *c == 0x7f) return 1;
    if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) return 2;
    if (c[0] != 0xe2) return 0;
    return (c[1] == 0x80 && c[2] >= 0xaa && c[2] <= 0xae) || (c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9) ? 3 : 0;
}

/* Messages quote names and texts of files that anyone may have written, and end up on terminals: what commands
 * one is written as \xNN. */
static void format_message(char *out, size_t room, const char *format, va_list list)
{
    char text[sizeof ((atmsae_context *)NULL)->error];
    format_list(text, sizeof text, format, list);
    size_t used = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c;) {
        size_t n = commands(c);
        if (used + (n ? 4 * n : 1) >= room) break;
        if (n == 0) out[used++] = (char)*c++;
        for (; n > 0; n--, used += 4)
            ams_format(out + used, room - used, "\\x%02x", *c++);
    }
    out[used] = '\0';
}

int ams_format(char *out, size_t capacity, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = format_list(out, capacity, format, list);
    va_end(list);
    return length;
}

double ams_strtod(const char *text, char **end)
{
    locale_t c = c_locale();
    double value = c ? strtod_l(text, end, c) : strtod(text, end);
    if (c) freelocale(c);
    return value;
}

/* After fork the lock may be held by a thread that the child does not have. */
static void lock_text(atmsae_context *ctx)
{
    if (!ams_forked(ctx)) pthread_mutex_lock(&ctx->text_lock);
}

static void unlock_text(atmsae_context *ctx)
{
    if (!ams_forked(ctx)) pthread_mutex_unlock(&ctx->text_lock);
}

static void copy_text(atmsae_context *ctx, char text[static sizeof ctx->error])
{
    lock_text(ctx);
    memcpy(text, ctx->error, sizeof ctx->error);
    unlock_text(ctx);
}

const char *atmsae_last_error(const atmsae_context *ctx) { return ctx ? ctx->error : ""; }

size_t atmsae_copy_error(const atmsae_context *ctx, char *out, size_t room)
{
    char text[sizeof ctx->error] = "";
    if (ctx) copy_text((atmsae_context *)ctx, text); /* the lock changes, the context does not */
    const size_t length = strlen(text), n = ams_min(length, room ? room - 1 : 0);
    if (room) {
        memcpy(out, text, n);
        out[n] = 0;
    }
    return length;
}

atmsae_status (ams_fail)(atmsae_context *ctx, atmsae_status status, const char *format, ...)
{
    if (!ctx) return status;
    va_list list;
    va_start(list, format);
    char text[sizeof ctx->error];
    format_message(text, sizeof text, format, list);
    va_end(list);
    lock_text(ctx);
    memcpy(ctx->error, text, sizeof text);
    unlock_text(ctx);
    return status;
}

atmsae_status (ams_fail_in)(atmsae_context *ctx, atmsae_status status, const char *prefix)
{
    char text[sizeof ctx->error];
    copy_text(ctx, text);
    return ams_fail(ctx, status, "%s: %s", prefix, text);
}

atmsae_status (ams_fail_errno)(atmsae_context *ctx, const char *path, const char *what, int error)
{
    char reason[128];
    locale_t c = c_locale();
    const char *text = c ? strerror_l(error, c) : "unknown error";
    ams_format(reason, sizeof reason, "%s", text);
    if (c) freelocale(c);
    return ams_fail(ctx, error == ENOMEM ? ATMSAE_E_NOMEM : ATMSAE_E_IO, "%s: %s: %s", path, what, reason);
}

bool ams_logs(const atmsae_context *ctx, int32_t level)
{
    return ctx->log && level <= ctx->log_level;
}

void ams_log(atmsae_context *ctx, int32_t level, const char *format, ...)
{
    if (!ams_logs(ctx, level)) return;
    char text[512];
    va_list list;
    va_start(list, format);
    format_message(text, sizeof text, format, list);
    va_end(list);
    ctx->log(ctx->log_opaque, level, text);
}

/* ---- memory -------------------------------------------------------------------------------- */

void *ams_alloc(atmsae_context *ctx, uint64_t count, size_t size)
{
    uint64_t bytes;
    if (!ams_mul(count, size, &bytes) || bytes > PTRDIFF_MAX - 64) return NULL;
    return ctx->allocator.alloc(ctx->allocator.opaque, 64, bytes ? (size_t)bytes : 1);
}

void *ams_calloc(atmsae_context *ctx, uint64_t count, size_t size)
{
    void *memory = ams_alloc(ctx, count, size);
    if (memory) memset(memory, 0, (size_t)(count * size));
    return memory;
}

void ams_free(atmsae_context *ctx, void *memory)
{
    if (memory) ctx->allocator.free(ctx->allocator.opaque, memory);
}

atmsae_status ams_grow(atmsae_context *ctx, void *array, uint64_t *capacity, uint64_t need,
                       uint64_t keep, size_t size)
{
    if (need <= *capacity) return ATMSAE_OK;
    void **slot = array;
    uint64_t room = ams_max(need, *capacity <= UINT64_MAX / 2 ? *capacity * 2 : need);
    void *memory = ams_alloc(ctx, room, size);
    if (!memory) {
        room = need;
        memory = ams_alloc(ctx, room, size);
    }
    if (!memory) return ams_nomem(ctx, "a growing array");
    if (keep) memcpy(memory, *slot, (size_t)(keep * size));
    ams_free(ctx, *slot);
    *slot = memory;
    *capacity = room;
    return ATMSAE_OK;
}

atmsae_status (ams_nomem)(atmsae_context *ctx, const char *what)
{
    return ams_fail(ctx, ATMSAE_E_NOMEM, "out of memory for %s", what);
}
