// SPDX-License-Identifier: MIT
//
// usage: reference FILE
// What reference.c writes, through the C++ header.
#include "atmsae.hpp"
#include <cstdio>
#include <vector>

static constexpr uint64_t D_IN = 96, BATCH = 512, STEPS = 60, F = 8;

struct file {
    std::FILE *f;
    template <class T> void put(const T *data, uint64_t n) const
    {
        if (std::fwrite(data, sizeof *data, n, f) != n) throw std::runtime_error("cannot write");
    }
};

static void train_and_encode(const atmsae::context &ctx, const file &out)
{
    atmsae::synth synth(ctx, atmsae::defaults<atmsae_synth_config>());
    auto model_config = atmsae::defaults<atmsae_model_config>();
    model_config.d_in = D_IN;
    model_config.d_sae = 168;
    model_config.k = 3;
    model_config.seed = 7;
    auto optimizer = atmsae::defaults<atmsae_optimizer_config>();
    optimizer.lr = 1e-3;
    auto masker = atmsae::defaults<atmsae_masker_config>();
    masker.r = 0.5;
    auto config = atmsae::defaults<atmsae_trainer_config>();
    config.model = &model_config;
    config.optimizer = &optimizer;
    config.masker = &masker;
    config.batch_rows = BATCH;
    config.total_rows = STEPS * BATCH;
    atmsae::trainer trainer(ctx, config);
    std::vector<float> x(BATCH * D_IN);
    const auto batch = atmsae::rows(x.data(), BATCH);
    for (uint64_t step = 0; step < STEPS; step++) {
        synth.rows(step * BATCH, BATCH, x.data());
        if (step == 0) trainer.prepare(batch);
        trainer.step(batch);
    }
    trainer.calibrate(batch);
    const atmsae::model model = trainer.model();
    for (int32_t p : {ATMSAE_W_ENC, ATMSAE_B_ENC, ATMSAE_W_DEC, ATMSAE_B_DEC, ATMSAE_BATCH_THRESHOLD})
        out.put(model[p].data, model[p].size);
    atmsae::codes codes(ctx);
    model.encode(batch, codes);
    const auto view = codes.view();
    out.put(view.row_start, BATCH + 1);
    out.put(view.latent, view.row_start[BATCH]);
    out.put(view.value, view.row_start[BATCH]);
    model.decode(codes, x.data());
    out.put(x.data(), x.size());
}

static void mask_loop(const atmsae::context &ctx, const file &out)
{
    auto tracker_config = atmsae::defaults<atmsae_tracker_config>();
    tracker_config.d_sae = F;
    auto masker_config = atmsae::defaults<atmsae_masker_config>();
    masker_config.d_sae = F;
    masker_config.seed = 11;
    masker_config.c = 0.5;
    masker_config.effect = ATMSAE_EFFECT_HARD;
    atmsae::tracker tracker(ctx, tracker_config);
    atmsae::masker masker(ctx, masker_config);
    for (uint64_t step = 0; step < 300; step++) {
        const uint8_t *masked = masker.draw(step).masked;
        uint8_t mask[F];
        double rows[F], magnitude[F], frequency[F], contribution[F];
        for (uint64_t i = 0; i < F; i++) {
            mask[i] = masked && masked[i];
            rows[i] = mask[i] ? 0 : 1000;
            frequency[i] = rows[i] / static_cast<double>(i + 2);
            magnitude[i] = 1.5 * frequency[i];
            contribution[i] = 2 * frequency[i];
        }
        out.put(mask, F);
        auto sums = atmsae::sized<atmsae_latent_sums>();
        sums.d_sae = F;
        sums.rows = rows;
        sums.magnitude = magnitude;
        sums.frequency = frequency;
        sums.contribution = contribution;
        tracker.observe(sums);
        masker.update(tracker.importance(), F);
    }
    out.put(masker.p(), F);
    out.put(tracker.importance(), F);
}

// Failures are exceptions with the library's text, and handles survive being moved.
static bool behaves(const atmsae::context &ctx)
{
    auto config = atmsae::defaults<atmsae_model_config>();
    config.d_in = 4;
    config.d_sae = 8;
    config.k = 2;
    atmsae::model first(ctx, config);
    atmsae::model second = std::move(first);
    if (first.get() || second.config().d_sae != 8) return false;
    config.k = 9;
    try {
        atmsae::model wrong(ctx, config);
    } catch (const atmsae::error &e) {
        return e.status == ATMSAE_E_ARG && std::string(e.what()).find("k = 9") != std::string::npos;
    }
    return false;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    const file out{std::fopen(argv[1], "wb")};
    if (!out.f) return 2;
    const atmsae::context ctx;
    train_and_encode(ctx, out);
    mask_loop(ctx, out);
    return std::fclose(out.f) != 0 || !behaves(ctx);
}
