// SPDX-License-Identifier: MIT
#include "atmsae.hpp"
#include <cstdio>
#include <vector>
int main() {
    atmsae::context ctx;
    atmsae::synth synth(ctx, atmsae::defaults<atmsae_synth_config>()); // stands for your rows of 96 numbers
    auto model = atmsae::defaults<atmsae_model_config>();
    model.d_in = 96, model.d_sae = 168, model.k = 3;
    auto config = atmsae::defaults<atmsae_trainer_config>();
    config.model = &model, config.batch_rows = 512, config.total_rows = 1000 * 512;
    atmsae::trainer trainer(ctx, config);
    std::vector<float> x(512 * 96);
    for (uint64_t step = 0; step < 1000; step++) {
        synth.rows(step * 512, 512, x.data());
        if (step == 0) trainer.prepare(atmsae::rows(x.data(), 512));
        if (auto s = trainer.step(atmsae::rows(x.data(), 512)); step % 250 == 249) std::printf("FVU %.3f\n", s.fvu);
    }
}
