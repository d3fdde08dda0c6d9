# SPDX-License-Identifier: MIT
"""Adaptive temporal masking for an SAE that lives in PyTorch: the library's tracker and masker.

The SAE reconstructs each row a second time without the entries that are masked, and learns from both:

    atm = Atm(context, d_sae, total_steps)
    for step, x in enumerate(batches):
        f = ...                                       as without masks
        rest = f * ~atm.hidden(step, f)               bool [n, d_sae], True: masked; drawn for every row
        error, without = x - (f @ W_dec + b_dec), x - (rest @ W_dec + b_dec)
        loss = (error ** 2).sum(1).mean() + 0.3 * (without ** 2).sum(1).mean()
        ...
        atm.observe(f, error, W_dec)                  before the optimizer's step: with the W_dec that made error

With a hard mask, Atm(..., masker=dict(effect="hard")), masked latents sit out a step instead:

        masked = atm.mask(step)                       bool [d_sae], the library's memory
        pre = (x @ W_enc + b_enc).masked_fill(masked, MASKED)

total_steps lets the masks end before the run does; without it they never do. Tensors may be of any float type and on any
device; mask() is on the CPU.
"""
import atmsae
import torch

# Stands for -infinity: 0 after every activation function, and 0 times it is no NaN. For float16 take -6e4.
MASKED = -1e30


class Atm:
    def __init__(self, context, d_sae, total_steps=0, tracker=None, masker=None):
        masker = dict(masker or {})
        for name in {"per_row", "alpha"} & set(masker):
            raise ValueError(f"{name}: mask() is one for a step, hidden() one for each row; alpha is a factor of your loss")
        self.hard = masker.get("effect") == "hard"
        self.masked = None
        self.tracker = atmsae.Tracker(context, d_sae, **(tracker or {}))
        self.masker = atmsae.Masker(context, d_sae, total_steps=total_steps, **masker)

    def mask(self, step):
        """The latents that sit out this step; valid until the next one."""
        if not self.hard:
            raise RuntimeError("mask(step) is for Atm(..., masker=dict(effect=\"hard\")), use hidden(step, f)")
        self.masked = atmsae.tensor(self.masker.draw(step)).view(torch.bool)
        return self.masked

    def hidden(self, step, f):
        """Which entries of f [n, d_sae] the second reconstruction is without; drawn by torch's generator."""
        if self.hard:
            raise RuntimeError("hidden(step, f) is not for effect=\"hard\", use mask(step)")
        self.masked = torch.zeros(f.shape[1], dtype=torch.bool)  # none sits out
        self.masker.draw(step)
        p = atmsae.tensor(self.masker.p).to(f.device, torch.float32)
        return torch.rand(f.shape, device=f.device) < p

    @torch.no_grad()
    def observe(self, f, error, W_dec):
        """f [n, d_sae]: latents, under a hard mask; error [n, d]: x - x_hat; W_dec [d_sae, d]."""
        if self.masked is None:
            raise RuntimeError("call mask(step) or hidden(step, f) before observe")
        if f.dim() != 2 or error.shape != (f.shape[0], W_dec.shape[1]) or W_dec.shape[0] != f.shape[1]:
            raise ValueError(f"f {tuple(f.shape)}, error {tuple(error.shape)}, W_dec {tuple(W_dec.shape)}: "
                             "expected [n, d_sae], [n, d], [d_sae, d]")
        f, error, W_dec = f.float(), error.float(), W_dec.float()  # sums of float16 would overflow
        norm2 = (W_dec * W_dec).sum(1, dtype=torch.float64)
        f_sum = f.sum(0, dtype=torch.float64)
        along = (f * (error @ W_dec.T)).sum(0, dtype=torch.float64)
        self.tracker.observe(
            rows=(~self.masked).double() * f.shape[0],
            magnitude=(f_sum * norm2.sqrt()).cpu(),
            frequency=(f > 0).sum(0, dtype=torch.float64).cpu(),
            contribution=(2 * along + (f * f).sum(0, dtype=torch.float64) * norm2).cpu(),
        )
        self.masker.update(self.tracker.importance)
