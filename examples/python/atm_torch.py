# SPDX-License-Identifier: MIT
"""Adaptive temporal masking for an SAE that lives in PyTorch: the library's tracker and masker.

With a hard mask, masked latents sit out a step:

    atm = Atm(context, d_sae, total_steps)
    for step, x in enumerate(batches):
        masked = atm.mask(step)                       bool [d_sae], the library's memory
        pre = (x @ W_enc + b_enc).masked_fill(masked, MASKED)
        ...
        atm.observe(f, x - x_hat, W_dec)              after the backward pass or before it

With a second loss they stay, and what is left without them is a second reconstruction to learn from:

        f = ...                                       as without a mask
        rest = f * ~atm.hidden(step, f)               bool [n, d_sae], drawn for every row
        error, without = x - (f @ W_dec + b_dec), x - (rest @ W_dec + b_dec)
        loss = (error ** 2).sum(1).mean() + alpha * (without ** 2).sum(1).mean()
        atm.observe(f, error, W_dec)
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

    def hidden(self, step, f):
        """Which entries of f [n, d_sae] the second reconstruction is without; drawn by torch's generator."""
        self.masked = torch.zeros(f.shape[1], dtype=torch.bool)  # none sits out
        self.masker.draw(step)
        return torch.rand_like(f) < atmsae.tensor(self.masker.p)

    @torch.no_grad()
    def observe(self, f, error, W_dec):
        """f [n, d_sae]: latents, under a hard mask; error [n, d]: x - x_hat; W_dec [d_sae, d]."""
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
