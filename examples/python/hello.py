# SPDX-License-Identifier: MIT
"""The smallest program: train an SAE on rows in memory, encode some, save it for SAELens."""
import atmsae
import numpy as np

rng = np.random.default_rng(0)
active = rng.random((100_000, 200), dtype=np.float32) < 0.015
rows = active.astype(np.float32) @ rng.standard_normal((200, 96), dtype=np.float32)

with atmsae.Context() as context, atmsae.Source(context, epochs=5) as source:
    source.add(rows)
    trainer = atmsae.Trainer(context, dict(d_in=96, d_sae=200, k=3), dict(lr=1e-3), total_rows=500_000, batch_rows=512)
    trainer.prepare(rows[:8192])
    for stats in trainer.train(source.batches(512)):  # or tqdm(trainer.train(...))
        pass
    trainer.calibrate(rows[:65536])
    print(f"after {trainer.steps_done} steps: FVU {stats.fvu:.3f} at {stats.l0:.2f} latents a row")
    print("latents of five rows:", trainer.model.encode(rows[:5]).latent)
    trainer.model.save("hello-sae")
