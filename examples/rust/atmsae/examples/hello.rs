// SPDX-License-Identifier: MIT
//! The smallest program: train an SAE on rows in memory.

fn main() -> atmsae::Result<()> {
    let context = atmsae::Context::new(0)?;
    let synth = atmsae::Synth::new(&context, &Default::default())?; // stands for your rows of 96 numbers
    let mut config = atmsae::TrainerConfig { batch_rows: 512, total_rows: 1000 * 512, ..Default::default() };
    (config.model.d_in, config.model.d_sae, config.model.k) = (96, 168, 3.0);
    let mut trainer = atmsae::Trainer::new(&context, &config)?;
    trainer.prepare(&synth.rows(0, 8192)?)?;
    for step in 0..1000 {
        let stats = trainer.step(&synth.rows(step * 512, 512)?)?;
        if step == 999 {
            println!("FVU {:.3} at {:.2} latents a row", stats.fvu, stats.l0);
        }
    }
    trainer.calibrate(&synth.rows(0, 8192)?)
}
