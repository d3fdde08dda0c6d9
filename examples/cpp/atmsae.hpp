/* SPDX-License-Identifier: MIT
 *
 * libatmsae for C++17: move-only handles that free themselves, failures as exceptions. The header
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
#include <memory>
#include <stdexcept>
#include <string>

namespace atmsae {

struct error : std::runtime_error {
    atmsae_status status;
    error(atmsae_status s, const atmsae_context *context)
        : std::runtime_error(std::string(atmsae_status_name(s)) + ": " + (context ? atmsae_last_error(context) : "")), status(s)
    {
    }
};
inline void check(atmsae_status status, const atmsae_context *context)
{
    if (status < 0) throw error(status, context);
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
struct floats { /* lent until the next call that changes the model */
    const float *data;
    uint64_t size;
    const float *begin() const { return data; }
    const float *end() const { return data + size; }
    float operator[](uint64_t i) const { return data[i]; }
};

/* Owns a handle, or borrows one that belongs to a trainer and lives as long as it. */
template <class T, void (*Destroy)(T *)> class handle {
public:
    T *get() const { return pointer.get(); }
    atmsae_context *context() const { return ctx; }

protected:
    struct release {
        bool owned = true;
        void operator()(T *p) const
        {
            if (owned) Destroy(p);
        }
    };
    handle(atmsae_context *context, T *borrowed) : ctx(context), pointer(borrowed, release{false}) {}
    template <class Create, class... Args> handle(atmsae_context *context, Create create, Args... args) : ctx(context)
    {
        T *made = nullptr;
        atmsae::check(create(args..., &made), context);
        pointer.reset(made);
    }
    void check(atmsae_status status) const { atmsae::check(status, ctx); }

private:
    atmsae_context *ctx; /* kept alive by the handle */
    std::unique_ptr<T, release> pointer;
};

class context : public handle<atmsae_context, atmsae_context_destroy> {
public:
    context() : handle(nullptr, atmsae_context_create, nullptr) {}
    explicit context(const atmsae_context_config &config) : handle(nullptr, atmsae_context_create, &config) {}
    operator atmsae_context *() const { return get(); }
};

struct codes : handle<atmsae_codes, atmsae_codes_destroy> {
    explicit codes(atmsae_context *c) : handle(c, atmsae_codes_create, c) {}
    atmsae_codes_view view() const /* lent until the codes are filled again */
    {
        auto v = sized<atmsae_codes_view>();
        check(atmsae_codes_get(get(), &v));
        return v;
    }
};

struct model : handle<atmsae_model, atmsae_model_destroy> {
    model(atmsae_context *c, const atmsae_model_config &config) : handle(c, atmsae_model_create, c, &config) {}
    model(atmsae_context *c, const std::string &folder) : handle(c, atmsae_model_load, c, folder.c_str()) {}
    model(atmsae_context *c, atmsae_model *borrowed) : handle(c, borrowed) {}
    atmsae_model_config config() const
    {
        auto c = sized<atmsae_model_config>();
        check(atmsae_model_get_config(get(), &c));
        return c;
    }
    floats operator[](int32_t parameter) const /* model[ATMSAE_W_DEC] */
    {
        floats f{};
        f.data = atmsae_model_view(get(), parameter, &f.size);
        return f;
    }
    void set(int32_t parameter, const float *values, uint64_t n) { check(atmsae_model_set(get(), parameter, values, n)); }
    void prepare(const atmsae_batch &b) { check(atmsae_model_prepare(get(), &b)); }
    void calibrate(const atmsae_batch &b) { check(atmsae_model_calibrate(get(), &b)); }
    void encode(const atmsae_batch &b, codes &out) const { check(atmsae_encode(get(), &b, out.get())); }
    void decode(const codes &in, float *out, uint64_t ld = 0) const { check(atmsae_decode(get(), in.get(), out, ld)); }
    void save(const std::string &folder) const { check(atmsae_model_save(get(), folder.c_str(), nullptr)); }
};

struct tracker : handle<atmsae_tracker, atmsae_tracker_destroy> {
    tracker(atmsae_context *c, const atmsae_tracker_config &config) : handle(c, atmsae_tracker_create, c, &config) {}
    void observe(const atmsae_latent_sums &sums) { check(atmsae_tracker_observe(get(), &sums)); }
    const double *importance() const { return atmsae_tracker_importance(get()); }
};

struct masker : handle<atmsae_masker, atmsae_masker_destroy> {
    masker(atmsae_context *c, const atmsae_masker_config &config) : handle(c, atmsae_masker_create, c, &config) {}
    const atmsae_mask &draw(uint64_t step)
    {
        check(atmsae_masker_draw(get(), step));
        return *atmsae_masker_mask(get());
    }
    void update(const double *importance, uint64_t d_sae) { check(atmsae_masker_update(get(), importance, d_sae)); }
    const double *p() const { return atmsae_masker_p(get()); }
};

struct trainer : handle<atmsae_trainer, atmsae_trainer_destroy> {
    trainer(atmsae_context *c, const atmsae_trainer_config &config) : handle(c, atmsae_trainer_create, c, &config) {}
    void prepare(const atmsae_batch &b) { check(atmsae_trainer_prepare(get(), &b)); }
    void calibrate(const atmsae_batch &b) { check(atmsae_trainer_calibrate(get(), &b)); }
    atmsae_step_stats step(const atmsae_batch &b)
    {
        auto stats = sized<atmsae_step_stats>();
        check(atmsae_trainer_step(get(), &b, &stats));
        return stats;
    }
    atmsae::model model() const { return {context(), atmsae_trainer_model(get())}; }
    void save(const std::string &path) const { check(atmsae_trainer_save(get(), nullptr, path.c_str())); }
};

struct synth : handle<atmsae_synth, atmsae_synth_destroy> {
    synth(atmsae_context *c, const atmsae_synth_config &config) : handle(c, atmsae_synth_create, c, &config) {}
    void rows(uint64_t first, uint64_t n, float *x) const { check(atmsae_synth_rows(get(), first, n, x, nullptr)); }
};

} // namespace atmsae
#endif
