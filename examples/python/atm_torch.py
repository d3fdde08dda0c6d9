# SPDX-License-Identifier: MIT
"""Adaptive temporal masking for an SAE that lives in PyTorch: the library's tracker and masker.

    atm = Atm(context, d_sae, total_steps)
    for step, x in enumerate(batches):
        masked = atm.mask(step)                       bool [d_sae], the library's memory
        pre = (x @ W_enc + b_enc).masked_fill(masked, MASKED)
        ...
        atm.observe(f, x - x_hat, W_dec)              after the backward pass or before it
"""
import atmsae
import torch

# Stands for -infinity: 0 after every activation function, and 0 times it is no NaN.
MASKED = -1e30


class Atm:
    def __init__(self, context, d_sae, total_steps=0, tracker=None, masker=None):
        self.tracker = atmsae.Tracker(context, d_sae, **(tracker or {}))
        self.masker = atmsae.Masker(context, d_sae, total_steps=total_steps, **(masker or {}))

    def mask(self, step):
        """The latents that sit out this step; valid until the next one."""
        self.masked = atmsae.tensor(self.masker.draw(step)).view(torch.bool)
        return self.masked

    @torch.no_grad()
    def observe(self, f, error, W_dec):
        """f [n, d_sae]: latents under the mask; error [n, d]: x - x_hat; W_dec [d_sae, d]."""
        norm2 = (W_dec * W_dec).sum(1, dtype=torch.float64)
        f_sum = f.sum(0, dtype=torch.float64)
        along = (f * (error @ W_dec.T)).sum(0, dtype=torch.float64)
        self.tracker.observe(
            rows=(~self.masked).double() * f.shape[0],
            magnitude=f_sum * norm2.sqrt(),
            frequency=(f > 0).sum(0, dtype=torch.float64),
            contribution=2 * along + (f * f).sum(0, dtype=torch.float64) * norm2,
        )
        self.masker.update(self.tracker.importance)
