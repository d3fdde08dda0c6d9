# SPDX-License-Identifier: MIT
"""usage: reference.py FILE: what reference.c writes, through the Python binding."""
import ctypes
import sys

import atmsae
import numpy as np

BATCH, STEPS, F = 512, 60, 8


def synth_rows(context):
    """The generator is not wrapped: as in C."""
    config, synth = (ctypes.c_uint64 * 64)(), ctypes.c_void_p()
    atmsae._lib.atmsae_synth_config_init(config, ctypes.c_size_t(96))
    atmsae._call(context, "synth_create", context, config, ctypes.byref(synth))

    def rows(first):
        x = np.empty((BATCH, 96), np.float32)
        atmsae._call(context, "synth_rows", synth, first, BATCH, x.ctypes.data, None)
        return x

    return rows


with open(sys.argv[1], "wb") as out, atmsae.Context() as context:
    rows = synth_rows(context)
    trainer = atmsae.Trainer(
        context,
        dict(d_in=96, d_sae=168, k=3, seed=7, activation="batchtopk"),
        dict(lr=1e-3),
        masker=dict(r=0.5),
        batch_rows=BATCH,
        total_rows=STEPS * BATCH,
    )
    for step in range(STEPS):
        x = rows(step * BATCH)
        if step == 0:
            trainer.prepare(x)
        trainer.step(x)
    trainer.calibrate(x)
    model = trainer.model
    codes = model.encode(x)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "batch_threshold"):
        out.write(model[name].tobytes())
    for array in (codes.row_start, codes.latent, codes.value, model.decode(codes)):
        out.write(array.tobytes())

    tracker, masker = atmsae.Tracker(context, F), atmsae.Masker(context, F, seed=11, c=0.5, effect="hard")
    for step in range(300):
        masked = masker.draw(step)
        out.write(masked.tobytes())
        seen = np.where(masked, 0.0, 1000.0)
        frequency = seen / (np.arange(F) + 2)
        tracker.observe(seen, 1.5 * frequency, frequency, 2 * frequency)
        masker.update(tracker.importance)
    out.write(masker.p.tobytes() + tracker.importance.tobytes())
