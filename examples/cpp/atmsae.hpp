/* SPDX-License-Identifier: MIT
 *
 * libatmsae for C++17: move-only handles that free themselves, failures as exceptions, also those that a
 * source's callback throws. A handle that was moved from throws. What a trainer or a model lends keeps
 * it alive; other lent memory is valid as long as its handle, which must be a variable. The header
 * atmsae.h is the manual; what is not wrapped here is called as in C with get().
 *
 *     atmsae::context ctx;
 *     auto config = atmsae::defaults<atmsae_model_config>();
 *     config.d_in = 768; config.d_sae = 16384;
 *     atmsae::model model(ctx, config);
 */
#ifndef ATMSAE_HPP
#define ATMSAE_HPP

#include <atmsae/atmsae.h>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace atmsae {

struct error : std::runtime_error {
    atmsae_status status;
    error(atmsae_status s, const std::string &text) : std::runtime_error(atmsae_status_name(s) + (": " + text)), status(s) {}
};

/* What a callback threw in the call that this thread is in. Nothing flies through C: the callback keeps
 * it here and fails, the call ends as it does on a failure, and check throws it. */
inline thread_local std::exception_ptr thrown;

inline void check(atmsae_status status, const atmsae_context *context)
{
    if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
    if (status >= 0) return;
    char text[1024];
    atmsae_copy_error(context, text, sizeof text);
    throw error(status, text);
}

/* A path as C takes it: up to the first 0. */
inline const char *path(const std::string &text)
{
    if (text.find('\0') != std::string::npos) throw error(ATMSAE_E_ARG, "a path with a NUL byte");
    return text.c_str();
}

inline void init(atmsae_context_config &c) { atmsae_context_config_init(&c, sizeof c); }
inline void init(atmsae_model_config &c) { atmsae_model_config_init(&c, sizeof c); }
inline void init(atmsae_batch &c) { atmsae_batch_init(&c, sizeof c); }
inline void init(atmsae_save_options &c) { atmsae_save_options_init(&c, sizeof c); }
inline void init(atmsae_optimizer_config &c) { atmsae_optimizer_config_init(&c, sizeof c); }
inline void init(atmsae_tracker_config &c) { atmsae_tracker_config_init(&c, sizeof c); }
inline void init(atmsae_masker_config &c) { atmsae_masker_config_init(&c, sizeof c); }
inline void init(atmsae_trainer_config &c) { atmsae_trainer_config_init(&c, sizeof c); }
inline void init(atmsae_source_config &c) { atmsae_source_config_init(&c, sizeof c); }
inline void init(atmsae_forward_options &c) { atmsae_forward_options_init(&c, sizeof c); }
inline void init(atmsae_synth_config &c) { atmsae_synth_config_init(&c, sizeof c); }
template <class Struct> Struct defaults()
{
    Struct s{};
    init(s);
    return s;
}
template <class Struct> Struct sized() /* for results: atmsae_step_stats and the like */
{
    Struct s{};
    s.size = sizeof s;
    return s;
}

/* n rows of f32; ld: elements between two rows, 0 if they follow each other. Nothing is copied. */
inline atmsae_batch rows(const float *x, uint64_t n, uint64_t ld = 0)
{
    auto batch = defaults<atmsae_batch>();
    batch.x = x;
    batch.n_rows = n;
    batch.ld_x = ld;
    return batch;
}
struct floats { /* of a model, which they keep; they change with it */
    const float *data;
    uint64_t size;
    std::shared_ptr<const atmsae_model> owner;
    const float *begin() const { return data; }
    const float *end() const { return data + size; }
    float operator[](uint64_t i) const { return data[i]; }
};

/* Owns a handle, alone or, of a part of another handle, together with that one. */
template <class T, void (*Destroy)(T *)> class handle {
public:
    handle(handle &&other) noexcept = default;
    handle &operator=(handle &&other) noexcept = default;
    T *get() const { return pointer.get(); } /* NULL: moved from */
    T *live() const { return shared().get(); } /* that throws then */
    atmsae_context *context() const { return live() ? ctx : nullptr; }

protected:
    handle(atmsae_context *context, std::shared_ptr<T> part) : ctx(context), pointer(std::move(part)) {}
    template <class Create, class... Args> handle(atmsae_context *context, Create create, Args... args) : ctx(context)
    {
        T *made = nullptr;
        const atmsae_status status = create(args..., &made);
        if (made) pointer.reset(made, Destroy); /* before anything is thrown */
        atmsae::check(status, context);
    }
    const std::shared_ptr<T> &shared() const
    {
        if (!pointer) throw error(ATMSAE_E_STATE, "this handle was moved from");
        return pointer;
    }
    void check(atmsae_status status) const { atmsae::check(status, ctx); }

private:
    atmsae_context *ctx; /* kept alive by the handle; not to be read without one */
    std::shared_ptr<T> pointer;
};

class context : public handle<atmsae_context, atmsae_context_destroy> {
public:
    context() : handle(nullptr, atmsae_context_create, nullptr) {}
    explicit context(const atmsae_context_config &config) : handle(nullptr, atmsae_context_create, &config) {}
    operator atmsae_context *() const { return live(); }
};

struct codes : handle<atmsae_codes, atmsae_codes_destroy> {
    explicit codes(atmsae_context *c) : handle(c, atmsae_codes_create, c) {}
    atmsae_codes_view view() const & /* lent until the codes are filled again */
    {
        auto v = sized<atmsae_codes_view>();
        check(atmsae_codes_get(live(), &v));
        return v;
    }
    atmsae_codes_view view() && = delete;
};

struct model : handle<atmsae_model, atmsae_model_destroy> {
    model(atmsae_context *c, const atmsae_model_config &config) : handle(c, atmsae_model_create, c, &config) {}
    model(atmsae_context *c, const std::string &folder) : handle(c, atmsae_model_load, c, path(folder)) {}
    model(atmsae_context *c, std::shared_ptr<atmsae_model> part) : handle(c, std::move(part)) {}
    atmsae_model_config config() const
    {
        auto c = sized<atmsae_model_config>();
        check(atmsae_model_get_config(live(), &c));
        return c;
    }
    floats operator[](int32_t parameter) const /* model[ATMSAE_W_DEC] */
    {
        floats f{};
        f.data = atmsae_model_view(live(), parameter, &f.size);
        f.owner = shared();
        return f;
    }
    void set(int32_t parameter, const float *values, uint64_t n) { check(atmsae_model_set(live(), parameter, values, n)); }
    void prepare(const atmsae_batch &b) { check(atmsae_model_prepare(live(), &b)); }
    void calibrate(const atmsae_batch &b) { check(atmsae_model_calibrate(live(), &b)); }
    // cppcheck-suppress constParameter ; what `out` holds is filled
    void encode(const atmsae_batch &b, codes &out) const { check(atmsae_encode(live(), &b, out.live())); }
    void decode(const codes &in, float *out, uint64_t ld = 0) const { check(atmsae_decode(live(), in.live(), out, ld)); }
    void save(const std::string &folder) const { check(atmsae_model_save(live(), path(folder), nullptr)); }
};

struct tracker : handle<atmsae_tracker, atmsae_tracker_destroy> {
    tracker(atmsae_context *c, const atmsae_tracker_config &config) : handle(c, atmsae_tracker_create, c, &config) {}
    void observe(const atmsae_latent_sums &sums) { check(atmsae_tracker_observe(live(), &sums)); }
    const double *importance() const & { return atmsae_tracker_importance(live()); }
    const double *importance() && = delete;
};

struct masker : handle<atmsae_masker, atmsae_masker_destroy> {
    masker(atmsae_context *c, const atmsae_masker_config &config) : handle(c, atmsae_masker_create, c, &config) {}
    const atmsae_mask &draw(uint64_t step) & /* lent until the next draw */
    {
        check(atmsae_masker_draw(live(), step));
        return *atmsae_masker_mask(live());
    }
    void update(const double *importance, uint64_t d_sae) { check(atmsae_masker_update(live(), importance, d_sae)); }
    const double *p() const & { return atmsae_masker_p(live()); }
    const double *p() && = delete;
};

struct trainer : handle<atmsae_trainer, atmsae_trainer_destroy> {
    trainer(atmsae_context *c, const atmsae_trainer_config &config) : handle(c, atmsae_trainer_create, c, &config) {}
    void prepare(const atmsae_batch &b) { check(atmsae_trainer_prepare(live(), &b)); }
    void calibrate(const atmsae_batch &b) { check(atmsae_trainer_calibrate(live(), &b)); }
    atmsae_step_stats step(const atmsae_batch &b)
    {
        auto stats = sized<atmsae_step_stats>();
        check(atmsae_trainer_step(live(), &b, &stats));
        return stats;
    }
    atmsae::model model() const /* keeps the trainer */
    {
        return {context(), std::shared_ptr<atmsae_model>(shared(), atmsae_trainer_model(live()))};
    }
    void save(const std::string &file) const { check(atmsae_trainer_save(live(), nullptr, path(file))); }
};

class source : public handle<atmsae_source, atmsae_source_destroy> {
public:
    /* Writes up to max_rows rows to out and returns how many; 0: the end. It may throw. */
    using reader = std::function<uint64_t(float *out, uint64_t max_rows)>;

    source(atmsae_context *c, const atmsae_source_config &config) : handle(c, atmsae_source_create, c, &config) {}
    void add_memory(const float *rows, uint64_t n, uint64_t d, uint64_t ld = 0) /* which must stay */
    {
        check(atmsae_source_add_memory(live(), rows, n, d, ld, ATMSAE_F32));
    }
    void add_file(const std::string &file) { check(atmsae_source_add_file(live(), path(file), nullptr, 0)); }
    /* Targets of a transcoder, for the rows that were added last. */
    void add_target_memory(const float *rows, uint64_t n, uint64_t d, uint64_t ld = 0) /* which must stay */
    {
        check(atmsae_source_add_target_memory(live(), rows, n, d, ld, ATMSAE_F32));
    }
    void add_target_file(const std::string &file) { check(atmsae_source_add_target_file(live(), path(file), nullptr, 0)); }
    void add_callback(uint64_t d, reader read)
    {
        live();
        readers.push_back(std::make_unique<reader>(std::move(read)));
        check(atmsae_source_add_callback(live(), d, call, readers.back().get()));
    }
    uint64_t next(float *out, uint64_t n_rows) /* [n_rows, d + d_target]; fewer rows at the end */
    {
        uint64_t got = 0;
        check(atmsae_source_next(live(), n_rows, out, &got));
        return got;
    }

private:
    static int64_t call(void *opaque, float *out, uint64_t max_rows) noexcept
    {
        try {
            return static_cast<int64_t>((*static_cast<reader *>(opaque))(out, max_rows));
        } catch (...) {
            thrown = std::current_exception();
            return -1;
        }
    }
    std::vector<std::unique_ptr<reader>> readers;
};

struct synth : handle<atmsae_synth, atmsae_synth_destroy> {
    synth(atmsae_context *c, const atmsae_synth_config &config) : handle(c, atmsae_synth_create, c, &config) {}
    void rows(uint64_t first, uint64_t n, float *x) const { check(atmsae_synth_rows(live(), first, n, x, nullptr)); }
};

} // namespace atmsae
#endif
