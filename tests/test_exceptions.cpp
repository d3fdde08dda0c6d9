// SPDX-License-Identifier: MIT
//
// A C++ callback that throws: the exception reaches the caller, the handles can be used again, and the caller's
// floating-point environment is as it was.
#include <atmsae/eval.h>

#include <cfenv>
#include <cstdio>
#include <stdexcept>
#include <vector>

static int checks, failures;
static void expect(bool good, const char *what)
{
    checks++;
    if (good) return;
    failures++;
    std::printf("failed: %s\n", what);
}

static bool broken;
static void fail_if_broken()
{
    if (broken) throw std::runtime_error("the caller's own");
}

template <class call> static void throws(const char *what, call c)
{
    broken = true;
    std::fesetround(FE_UPWARD);
    bool caught = false;
    try {
        (void)c();
    } catch (const std::runtime_error &) {
        caught = true;
    }
    expect(caught, what);
    expect(std::fegetround() == FE_UPWARD, "the rounding mode is the caller's");
    std::fesetround(FE_TONEAREST);
    broken = false;
    expect(c() == ATMSAE_OK, "the same call again");
}

static int64_t read_rows(void *opaque, float *out, uint64_t rows)
{
    float *next = static_cast<float *>(opaque);
    if (*next >= 64) fail_if_broken(); // in the middle of a batch
    for (uint64_t i = 0; i < rows; i++, ++*next)
        for (int j = 0; j < 4; j++) out[i * 4 + j] = *next;
    return static_cast<int64_t>(rows);
}

static int32_t run_model(void *, uint64_t, const float *, atmsae_lm_output *)
{
    fail_if_broken();
    return 0;
}

static void log_line(void *, int32_t, const char *) { fail_if_broken(); }

int main()
{
    atmsae_context_config cc;
    atmsae_context_config_init(&cc, sizeof cc);
    cc.threads = 2;
    cc.log = log_line;
    atmsae_context *ctx;
    if (atmsae_context_create(&cc, &ctx) < 0) return 1;

    atmsae_source_config sc;
    atmsae_source_config_init(&sc, sizeof sc);
    sc.shuffle_rows = 0;
    float next = 0;
    atmsae_source *source;
    if (atmsae_source_create(ctx, &sc, &source) < 0 || atmsae_source_add_callback(source, 4, read_rows, &next) < 0) return 1;
    std::vector<float> rows(600000 * 4);
    uint64_t got = 0;
    expect(atmsae_source_next(source, 32, rows.data(), &got) == ATMSAE_OK && got == 32, "the first rows");
    // More than a callback is asked for at once: it throws after some of the rows were there.
    throws("source_next", [&] { return atmsae_source_next(source, 600000, rows.data(), &got); });
    expect(got == 600000 && rows[0] == 32 && rows[4 * 599999] == 32 + 599999, "no row is lost");

    atmsae_model_config mc;
    atmsae_model_config_init(&mc, sizeof mc);
    mc.d_in = 4;
    mc.d_sae = 8;
    mc.k = 2;
    atmsae_model *model;
    if (atmsae_model_create(ctx, &mc, &model) < 0) return 1;
    atmsae_language_model lm = {};
    lm.size = sizeof lm;
    lm.n_batches = 1;
    lm.run = run_model;
    atmsae_lm_result result = {};
    result.size = sizeof result;
    throws("model_language", [&] { return atmsae_model_language(model, &lm, &result); });

    // A new length is told in the log.
    atmsae_trainer_config tc;
    atmsae_trainer_config_init(&tc, sizeof tc);
    tc.model = &mc;
    tc.total_rows = 1 << 20;
    atmsae_trainer *trainer;
    if (atmsae_trainer_create(ctx, &tc, &trainer) < 0) return 1;
    throws("trainer_set_total_rows", [&, n = uint64_t(1) << 21]() mutable { return atmsae_trainer_set_total_rows(trainer, n *= 2); });

    atmsae_trainer_destroy(trainer);
    atmsae_model_destroy(model);
    atmsae_source_destroy(source);
    atmsae_context_destroy(ctx);
    std::printf("%d passed, %d failed\n", checks - failures, failures);
    return failures != 0;
}
