# SPDX-License-Identifier: MIT
"""The library's masks inside a plain PyTorch SAE: BatchTopK, Adam, unit decoder rows.

The model and its loop are PyTorch's; the library says which latents are masked, and learns
from per-latent sums. Trains with and without masks on rows with a hierarchy (a parent feature with
exclusive children) and prints how often the parents' latents are off although the parent is on: without
masks, with masked latents sitting out (a hard mask), and with a second reconstruction without them, which is the default.
"""
import atmsae
import torch
from atm_torch import MASKED, Atm

PARENTS, CHILDREN, SINGLES, D, K, BATCH, STEPS = 8, 8, 40, 64, 3, 512, 1500
D_SAE = PARENTS * (1 + CHILDREN) + SINGLES
ALPHA = 0.3  # weight of the second loss

torch.manual_seed(0)
directions = torch.nn.functional.normalize(torch.randn(D_SAE, D), dim=1)


def features(n):
    """0/1 [n, D_SAE]: parents, children (parent-major), singles."""
    parent = torch.rand(n, PARENTS) < 0.06
    weight = torch.arange(1, CHILDREN + 1) ** -0.7
    which = torch.multinomial(weight, n * PARENTS, replacement=True).view(n, PARENTS)
    child = torch.nn.functional.one_hot(which, CHILDREN).bool() & (parent & (torch.rand(n, PARENTS) < 0.8))[..., None]
    return torch.cat([parent, child.flatten(1), torch.rand(n, SINGLES) < 0.03], dim=1).float()


class SAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        W = torch.nn.functional.normalize(torch.randn(D_SAE, D), dim=1)
        self.W_dec, self.W_enc = torch.nn.Parameter(W), torch.nn.Parameter(W.T.clone())
        self.b_enc, self.b_dec = torch.nn.Parameter(torch.zeros(D_SAE)), torch.nn.Parameter(torch.zeros(D))

    def forward(self, x, masked):
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        f = pre.masked_fill(masked, MASKED).relu()  # the one line that masks
        f = f * (f >= f.flatten().topk(K * len(x)).values[-1])
        return f, f @ self.W_dec + self.b_dec


def train(atm):
    sae, nobody = SAE(), torch.zeros(D_SAE, dtype=torch.bool)
    adam = torch.optim.Adam(sae.parameters(), lr=1e-3)
    for step in range(STEPS):
        x = features(BATCH) @ directions
        f, x_hat = sae(x, atm.mask(step) if atm and atm.hard else nobody)
        loss = (x - x_hat).pow(2).sum(1).mean()
        if atm and not atm.hard:
            without = x - ((f * ~atm.hidden(step, f)) @ sae.W_dec + sae.b_dec)
            loss = loss + ALPHA * without.pow(2).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        if atm:
            atm.observe(f, x - x_hat, sae.W_dec)
        adam.step()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return score(sae.W_dec, lambda x: sae(x, nobody))


@torch.no_grad()
def score(W_dec, run):
    """FVU, and the share of rows with a parent on in which the parent's latent is off. run: x -> f, x_hat."""
    truth = features(20_000)
    x = truth @ directions
    f, x_hat = run(x)
    fvu = ((x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item()
    latents = (torch.nn.functional.normalize(W_dec, dim=1) @ directions[:PARENTS].T).abs().argmax(0)
    on = truth[:, :PARENTS] > 0
    return fvu, ((on & (f[:, latents] == 0)).sum() / on.sum()).item()


if __name__ == "__main__":
    for name, masker in ("without masks", None), ("with a hard mask", dict(effect="hard", r=0.5)), ("with a second loss", {}):
        with atmsae.Context() as context:
            fvu, missed = train(None if masker is None else Atm(context, D_SAE, STEPS, masker=masker))
        print(f"{name}: FVU {fvu:.3f}, parent latent off in {100 * missed:.1f} % of its rows")
