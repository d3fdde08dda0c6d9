// SPDX-License-Identifier: MIT
//
// The C++ header's handles and callbacks, run under the address sanitizer: handles that were moved from,
// parts and arrays that outlive their owner, callbacks that throw.
#include "atmsae.hpp"
#include <cstdio>
#include <cstdlib>
#include <optional>

#define CHECK(condition) \
    ((condition) ? void() : (std::fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition), std::exit(1)))

static constexpr uint64_t D = 4, F = 8, N = 16;

static atmsae_model_config model_config()
{
    auto config = atmsae::defaults<atmsae_model_config>();
    config.d_in = D;
    config.d_sae = F;
    config.k = 2;
    config.activation = ATMSAE_TOPK;
    return config;
}

template <class Call> static std::string failure(atmsae_status status, Call call)
{
    try {
        call();
    } catch (const atmsae::error &e) {
        CHECK(e.status == status);
        return e.what();
    }
    return "no failure";
}

// Every call of a handle that was moved from is an error, also once its context is no more.
static void moved()
{
    std::optional<atmsae::model> model;
    std::optional<atmsae::codes> codes;
    std::optional<atmsae::trainer> trainer;
    {
        atmsae::context ctx;
        const auto config = model_config();
        auto training = atmsae::defaults<atmsae_trainer_config>();
        training.model = &config;
        const atmsae::model m(std::move(model.emplace(ctx, config)));
        const atmsae::codes c(std::move(codes.emplace(ctx)));
        const atmsae::trainer t(std::move(trainer.emplace(ctx, training)));
        const atmsae::context other(std::move(ctx));
        const std::string text = failure(ATMSAE_E_STATE, [&] { atmsae::codes none(ctx); });
        CHECK(text.find("moved from") != std::string::npos);
    }
    float v[D * F] = {0};
    const auto batch = atmsae::rows(v, 1);
    const std::string texts[] = {
        failure(ATMSAE_E_STATE, [&] { model->set(ATMSAE_W_ENC, v, D * F); }),
        failure(ATMSAE_E_STATE, [&] { (void)(*model)[ATMSAE_W_ENC]; }),
        failure(ATMSAE_E_STATE, [&] { (void)model->config(); }),
        failure(ATMSAE_E_STATE, [&] { (void)model->context(); }),
        failure(ATMSAE_E_STATE, [&] { model->save("nowhere"); }),
        failure(ATMSAE_E_STATE, [&] { (void)codes->view(); }),
        failure(ATMSAE_E_STATE, [&] { (void)trainer->step(batch); }),
        failure(ATMSAE_E_STATE, [&] { (void)trainer->model(); }),
    };
    for (const auto &text : texts) CHECK(text == "ATMSAE_E_STATE: this handle was moved from");
    CHECK(!model->get() && !codes->get() && !trainer->get());
}

// A model of a trainer keeps the trainer, a parameter its model.
static void outlived()
{
    std::optional<atmsae::model> model;
    atmsae::floats lent{};
    {
        atmsae::context ctx;
        const auto config = model_config();
        auto training = atmsae::defaults<atmsae_trainer_config>();
        training.model = &config;
        atmsae::trainer trainer(ctx, training);
        model.emplace(trainer.model());
        lent = atmsae::model(ctx, config)[ATMSAE_W_DEC];
    }
    CHECK(model->config().d_sae == F && lent.size == D * F);
    const auto own = (*model)[ATMSAE_W_DEC];
    model.reset();
    for (uint64_t i = 0; i < D * F; i++) CHECK(own[i] == lent[i]); /* the same seed */
}

// What a callback throws comes out of the call; the source stays usable, and no row is lost.
static void throwing()
{
    struct end_of_stream {
        int after;
    };
    const atmsae::context ctx;
    auto config = atmsae::defaults<atmsae_source_config>();
    config.shuffle_rows = 0;
    std::vector<float> out(N * D);
    for (int fails = 0; fails < 3; fails++) {
        atmsae::source made(ctx, config);
        int calls = 0;
        made.add_callback(D, [&calls, fails](float *x, uint64_t max_rows) -> uint64_t {
            if (calls++ == fails) throw end_of_stream{fails};
            for (uint64_t i = 0; i < D; i++) x[i] = static_cast<float>(calls);
            return max_rows > 0 && calls <= 4;
        });
        atmsae::source source(std::move(made));
        int caught = -1;
        try {
            source.next(out.data(), N);
        } catch (const end_of_stream &e) {
            caught = e.after;
        }
        CHECK(caught == fails);
        CHECK(source.next(out.data(), N) == 3); /* calls 1 .. 4 but the one that threw */
        CHECK(out[0] == (fails == 0 ? 2 : 1));
        CHECK(source.next(out.data(), N) == 0);
    }
    atmsae::source pairs(ctx, config);
    const std::vector<float> x(3 * D, 1), y(3 * 2, 2);
    pairs.add_memory(x.data(), 3, D);
    CHECK(failure(ATMSAE_E_ARG, [&] { pairs.add_target_memory(y.data(), 2, 2); }).find("2 targets") != std::string::npos);
    pairs.add_target_memory(y.data(), 3, 2);
    CHECK(pairs.next(out.data(), 1) == 1);
    CHECK(out[D - 1] == 1 && out[D] == 2);
    atmsae::source source(ctx, config);
    source.add_callback(D, [](float *, uint64_t) { return UINT64_MAX; });
    CHECK(failure(ATMSAE_E_CALLBACK, [&] { source.next(out.data(), N); }) != "no failure");
    CHECK(failure(ATMSAE_E_ARG, [&] { source.add_file(std::string("a\0b", 3)); }).find("NUL") != std::string::npos);
}

// Lending from a handle that ends with the expression does not compile.
template <class T, class = void> struct lends_from_temporary : std::false_type {};
template <class T> struct lends_from_temporary<T, std::void_t<decltype(std::declval<T>().view())>> : std::true_type {};
static_assert(lends_from_temporary<atmsae::codes &>::value && !lends_from_temporary<atmsae::codes>::value, "view");
static_assert(!std::is_copy_constructible_v<atmsae::model> && std::is_nothrow_move_constructible_v<atmsae::model>, "move-only");

int main()
{
    moved();
    outlived();
    throwing();
}
