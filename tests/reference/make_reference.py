# SPDX-License-Identifier: MIT
"""Writes tests/fixtures/reference_*.safetensors: training runs computed in float64 by PyTorch's
autograd, from the formulas of doc/method.md and none of the library's code. test_reference.c runs
the same steps with the library and compares.

    python3 tests/reference/make_reference.py tests/fixtures

Deterministic: a run takes the first seed whose selections and masks are clear cuts, so that float32
and float64 must agree on them. Needs torch and numpy. The last columns printed say how far the same
program in float32 is from float64, which is what the test's tolerances are made from.
"""
import json
import struct
import sys

import numpy as np
import torch

RELU, TOPK, BATCHTOPK, JUMPRELU, JUMPRELU_TANH, GATED = range(1, 7)
FREE, UNIT = 1, 2
ARITHMETIC, GEOMETRIC = 1, 2
NONE, ATM, PAPER, UNIFORM = 1, 2, 3, 4
SECOND_LOSS = 1
DRAW_MASK, DRAW_ROW_MASK = 2, 3
MARGIN = 1e-4      # between a pre-activation and the cut, threshold or band edge that decides on it
MASK_MARGIN = 1e-5  # between a uniform draw and p; smaller, for there are many more of them


class Borderline(Exception):
    pass


# ---- random numbers of the masks ------------------------------------------------------------------

def philox4x32(seed, purpose, a, b):
    """Philox4x32-10 (Salmon et al. 2011) at counter (b, a with the purpose in its top byte)."""
    low = np.uint64(0xFFFFFFFF)
    b = np.asarray(b, np.uint64)
    c = [b & low, b >> np.uint64(32), np.full_like(b, a & 0xFFFFFFFF),
         np.full_like(b, a >> 32 ^ purpose << 24)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [p1 >> np.uint64(32) ^ c[1] ^ np.uint64(key[0]), p1 & low,
             p0 >> np.uint64(32) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF]
    return c


def uniform(words):
    bits = (words[0] << np.uint64(32) | words[1]) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0 ** -53


# The published known answers of Random123 for zero and for pi's digits.
assert [int(v) for v in philox4x32(0, 0, 0, 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert [int(v) for v in philox4x32(0x299F31D0A4093822, 0, 0x0370734413198A2E, 0x85A308D3243F6A88)] \
    == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


# ---- the straight-through parts --------------------------------------------------------------------

def rect(z, theta, eps):
    return (((z - theta) / eps).abs() < 0.5).to(z.dtype)


class Jump(torch.autograd.Function):
    """f = z [z > theta]; `to_z`: the kernel's gradient goes to z too (JUMPRELU_TANH)."""

    @staticmethod
    def forward(ctx, z, theta, eps, to_z):
        ctx.save_for_backward(z, theta)
        ctx.eps, ctx.to_z = eps, to_z
        return z * (z > theta)

    @staticmethod
    def backward(ctx, g):
        z, theta = ctx.saved_tensors
        kernel = theta / ctx.eps * rect(z, theta, ctx.eps)
        return g * ((z > theta) + (kernel if ctx.to_z else 0)), (-g * kernel).sum(0), None, None


class Step(torch.autograd.Function):
    """[z > theta], with a gradient to theta only."""

    @staticmethod
    def forward(ctx, z, theta, eps):
        ctx.save_for_backward(z, theta)
        ctx.eps = eps
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx, g):
        z, theta = ctx.saved_tensors
        return None, (-g * rect(z, theta, ctx.eps) / ctx.eps).sum(0), None


# ---- margins -----------------------------------------------------------------------------------------

def clear(distance, margin=MARGIN):
    if distance.numel() and float(distance.abs().min()) < margin:
        raise Borderline


def keep_largest(values, count):
    """1 where a value is among the `count` largest positive ones of a 1-D tensor."""
    order = torch.argsort(values, descending=True)
    ranked = values[order]
    kept = min(count, int((ranked > 0).sum()))
    cut = ranked[kept] if kept < len(ranked) else torch.zeros((), dtype=values.dtype)
    if kept:
        clear(ranked[kept - 1:kept] - cut.clamp(min=0))
    if kept < count:
        clear(cut.reshape(1)[cut.reshape(1).isfinite() & (cut.reshape(1) != 0)])
    chosen = torch.zeros_like(values)
    chosen[order[:kept]] = 1
    return chosen


# ---- one step's loss -----------------------------------------------------------------------------------

def forward(m, P, x, y, w, alive, share, dead, p_row, hidden, alpha):
    """m: model settings, P: parameters, alive [n, F]: 0 where a hard mask leaves a latent out, hidden [n, F]: 1 where
    the second loss, of weight alpha, does. Returns losses and detached parts."""
    act, total_w = m['activation'], w.sum()
    live = (w > 0).sum()
    mean = lambda per_row: (w * per_row).sum() / total_w
    target = m['output_scale'] * y
    x = m['input_scale'] * x
    if not m['transcoder']:
        x = x - P['b_dec']
    a = x @ P['W_enc'].T
    z = a + P['b_enc']
    norm = P['W_dec'].norm(dim=1)
    seen = torch.where((alive > 0) & (w > 0)[:, None], z.detach(), torch.tensor(-np.inf, dtype=z.dtype))
    scored = seen[seen.isfinite()]
    lam = m['sparsity_coef'] * share
    penalty = torch.zeros((), dtype=z.dtype)

    if act in (RELU, GATED):
        clear(scored)
    if act == RELU:
        f = torch.relu(z) * alive
        penalty = lam * mean((f * norm).sum(1))
    elif act == TOPK:
        f = z * torch.stack([keep_largest(row, int(m['k'])) for row in seen])
    elif act == BATCHTOPK:
        f = z * keep_largest(seen.flatten(), int(np.floor(m['k'] * int(live)))).reshape(z.shape)
    elif act in (JUMPRELU, JUMPRELU_TANH):
        eps, theta = m['bandwidth'], P['log_threshold'].exp()
        for edge in (theta, theta - eps / 2, theta + eps / 2):
            gap = seen - edge.detach()
            clear(gap[gap.isfinite()])
        f = Jump.apply(z, theta, eps, act == JUMPRELU_TANH) * alive
        if act == JUMPRELU:
            l0 = mean((Step.apply(z, theta, eps) * alive).sum(1))
            penalty = lam * l0
        else:
            penalty = lam * mean(torch.tanh(m['tanh_scale'] * f * norm).sum(1))
            if p_row is None:
                under = torch.relu(theta - z) * alive
            else:  # the expectation over masks of all rows, less what really fired
                under = (theta - z) * (1 - p_row) - (theta - z) * (z > theta) * alive
            penalty = penalty + m['pre_act_coef'] * mean((under * norm).sum(1))
    else:
        magnitude = P['r_mag'].exp() * a + P['b_mag']
        clear(torch.where(seen > 0, magnitude.detach(), torch.ones_like(seen)))
        f = (z > 0) * torch.relu(magnitude) * alive
        gate = torch.relu(z) * alive
        via_gate = target - P['b_dec'].detach() - gate @ P['W_dec'].detach()
        without = target - P['b_dec'].detach() - (gate * (1 - hidden)) @ P['W_dec'].detach()
        penalty = lam * mean((gate * norm).sum(1)) + mean((via_gate ** 2).sum(1)) + alpha * mean((without ** 2).sum(1))

    e = target - f @ P['W_dec'] - P['b_dec']
    mse = mean((e ** 2).sum(1))
    second = alpha * mean(((target - (f * (1 - hidden)) @ P['W_dec'] - P['b_dec']) ** 2).sum(1))
    prefix = torch.zeros((), dtype=z.dtype)
    for width in m['prefixes']:
        prefix = prefix + mean(((target - f[:, :width] @ P['W_dec'][:width] - P['b_dec']) ** 2).sum(1))

    # A per-row mask hides a dead latent in its rows only: it still counts.
    aux, allowed = torch.zeros((), dtype=z.dtype), dead & ((alive.max(0).values > 0) | (p_row is not None))
    n_dead = int(allowed.sum())
    if m['aux_coef'] > 0 and n_dead:
        outside = torch.tensor(-np.inf, dtype=z.dtype)
        chosen = torch.stack([keep_largest(torch.where(allowed, row, outside), m['aux_k']) for row in seen])
        rest = e.detach() - (z * chosen) @ P['W_dec']
        aux = m['aux_coef'] * min(1.0, n_dead / m['aux_k']) * mean((rest ** 2).sum(1))

    f, e, d = f.detach(), e.detach(), P['W_dec'].detach()
    f = f * (w > 0)[:, None]
    fires, cut = w[:, None] * (f > 0), P['log_threshold'].detach().exp() if 'log_threshold' in P else torch.zeros_like(z[0])
    over = (fires * (z.detach() - cut)).sum()
    margin = over / (fires * cut).sum() if 'log_threshold' in P else over / fires.sum()
    wf, centred = w[:, None] * f, target - (w[:, None] * target).sum(0) / total_w
    parts = dict(
        mse=mse, sparsity=penalty, aux=aux, prefix=prefix, masked_loss=second, total=mse + prefix + aux + penalty + second,
        l0=mean((f > 0).to(z.dtype).sum(1)), fvu=(w * (e ** 2).sum(1)).sum() / (w * (centred ** 2).sum(1)).sum(),
        magnitude=wf.sum(0) * norm.detach(), frequency=(w[:, None] * (f > 0)).sum(0),
        contribution=(wf * (2 * e @ d.T + f * norm.detach() ** 2)).sum(0),
        margin=min(1.0, float(margin)) if 'log_threshold' in P else float(margin),
        smallest=f[f > 0].min() if bool((f > 0).any()) else None)
    return parts


# ---- tracker, masker, optimiser ----------------------------------------------------------------------------

class Tracker:
    def __init__(self, t, F):
        self.t, self.F = t, F
        self.average, self.clock = np.zeros((3, F)), np.zeros(F)
        self.seen = np.zeros(F, bool)
        self.importance = np.zeros(F)

    def observe(self, rows, sums):
        t, now = self.t, rows > 0
        for avg, total in zip(self.average, sums):
            if t['combine'] == GEOMETRIC:  # a power below 1 blows up what float32 makes of a near 0
                clear(torch.from_numpy(total[total != 0] / np.abs(total).max()), 1e-3)
            value = np.maximum(total[now], 0) / rows[now]
            avg[now] = np.where(self.seen[now], t['decay'] * avg[now] + (1 - t['decay']) * value, value)
        self.seen |= now
        self.clock = np.where(sums[1] > 0, 0, self.clock + rows)
        means = self.average.mean(1)
        terms = np.array([avg / mean if mean > 0 else 0 * avg for avg, mean in zip(self.average, means)])
        weight = np.array([t['weight_magnitude'], t['weight_frequency'], t['weight_contribution']])
        if t['combine'] == ARITHMETIC:
            self.importance = (weight[:, None] * terms).sum(0) / weight.sum()
        else:
            self.importance = np.prod([term ** (v / weight.sum()) for term, v in zip(terms, weight) if v], axis=0)

    def dead(self):
        window, gap = self.t['dead_window'], torch.from_numpy(self.clock - self.t['dead_window'])
        clear(gap[gap != 0])
        return self.clock >= window if window else np.zeros(self.F, bool)


class Masker:
    def __init__(self, k, F, total_steps):
        self.k, self.F, self.total = k, F, total_steps
        self.mu = self.sigma = self.theta = 0.0
        self.importance = np.zeros(F)

    def update(self, importance):
        self.importance = importance
        self.mu, self.sigma = importance.mean(), importance.std()
        self.theta = self.mu + self.k['c'] * self.sigma

    def rate(self, step):
        k = self.k
        if k['kind'] == PAPER:
            return k['r']
        first, last = k['cooldown_start'] * self.total, k['cooldown_end'] * self.total
        if step < k['warmup_steps'] or step >= last:
            return 0.0
        return k['r'] if step <= first else k['r'] * (last - step) / (last - first)

    def draw(self, step, n):
        k, gap = self.k, np.maximum(self.theta - self.importance, 0)
        self.r = self.rate(step) if k['kind'] != NONE else 0.0
        self.p = 1 - np.exp(-self.r * gap / self.theta) if self.theta > 0 else np.zeros(self.F)
        if k['kind'] == UNIFORM:
            self.p = np.full(self.F, self.p.mean())
        latent = np.arange(self.F, dtype=np.uint64)
        if k['per_row']:
            rows = np.arange(n, dtype=np.uint64)[:, None] << np.uint64(32)
            u = uniform(philox4x32(k['seed'], DRAW_ROW_MASK, step, rows | latent))
        else:
            u = np.broadcast_to(uniform(philox4x32(k['seed'], DRAW_MASK, step, latent)), (n, self.F))
        clear(torch.from_numpy(u - self.p)[:, self.p > 0], MASK_MARGIN)
        return u < self.p


class Adam:
    def __init__(self, o, P, total_steps):
        self.o, self.total = o, total_steps
        self.m = {n: torch.zeros_like(v) for n, v in P.items()}
        self.v = {n: torch.zeros_like(v) for n, v in P.items()}

    def lr(self, t):
        o, scale = self.o, 1.0
        if o['warmup_steps']:
            scale *= min(1.0, (t + 1) / o['warmup_steps'])
        if o['decay_steps']:
            scale *= max(0.0, min(1.0, (self.total - t) / o['decay_steps']))
        return o['lr'] * scale

    def step(self, t, P, G, unit, frozen):
        o = self.o
        if unit:
            d = P['W_dec'] / P['W_dec'].norm(dim=1, keepdim=True)
            G['W_dec'] = G['W_dec'] - (G['W_dec'] * d).sum(1, keepdim=True) * d
        norm = float(sum((g ** 2).sum() for g in G.values()).sqrt())
        scale = min(1.0, o['clip'] / (norm + 1e-6)) if o['clip'] else 1.0
        for name, w in P.items():
            g, moving = scale * G[name], torch.ones_like(w)
            if frozen is not None and name != 'b_dec':
                moving[frozen] = 0
            m = o['beta1'] * self.m[name] + (1 - o['beta1']) * g
            v = o['beta2'] * self.v[name] + (1 - o['beta2']) * g * g
            down = (v / (1 - o['beta2'] ** (t + 1))).sqrt() + o['eps']
            w -= moving * (self.lr(t) / (1 - o['beta1'] ** (t + 1))) * m / down
            self.m[name] = torch.where(moving > 0, m, self.m[name])
            self.v[name] = torch.where(moving > 0, v, self.v[name])
        if unit:
            P['W_dec'] /= P['W_dec'].norm(dim=1, keepdim=True)
        return norm


class Target:
    """Holds L0: shifts all cuts, and moves the coefficient's logarithm."""

    def __init__(self, c):
        self.target, self.total, self.o = c['model']['target_l0'], c['steps'], c['optimizer']
        self.log_coef = 0.0

    def step(self, t, lr, P, sums, rows, usual, margin):
        if self.target == 0:
            return
        seen = rows > 0
        l0 = np.where(seen, sums['frequency'].numpy() / np.where(seen, rows, 1), usual).sum()
        error = np.clip(np.log(l0 / self.target), -0.7, 0.7)
        share = 1.0 if t < self.o['warmup_steps'] else lr / self.o['lr']
        shift = 0.2 * max(0.2, share) * error * margin
        if 'log_threshold' in P:
            P['log_threshold'] += shift
        else:
            P['b_enc'] -= shift
        self.log_coef += 2 / max(40, 0.05 * self.total) * share * np.clip(error / 0.2, -1, 1)


# ---- a run -----------------------------------------------------------------------------------------------

MODEL = dict(activation=BATCHTOPK, decoder_norm=UNIT, transcoder=0, d_in=12, d_out=12, d_sae=40, k=4.0, sparsity_coef=0.0,
             target_l0=0.0, bandwidth=0.5, tanh_scale=4.0, pre_act_coef=0.0, aux_coef=0.0, aux_k=5,
             prefixes=[], input_scale=1.0, output_scale=1.0)
OPTIMIZER = dict(lr=4e-3, beta1=0.9, beta2=0.999, eps=1e-8, clip=1.0, warmup_steps=3, decay_steps=4, freeze_masked=0)
TRACKER = dict(decay=0.99, weight_magnitude=1.0, weight_frequency=1.0, weight_contribution=1.0, combine=ARITHMETIC,
               dead_window=0)
MASKER = dict(kind=NONE, per_row=0, seed=7, c=1.0, r=0.25, warmup_steps=2, cooldown_start=0.5, cooldown_end=1.0)


def setup(name, steps=10, n=20, weights=False, sparsity_warmup=0.0, model={}, optimizer={}, tracker={}, masker={}):
    c = dict(name=name, steps=steps, n=n, weights=weights, sparsity_warmup=sparsity_warmup,
             model=MODEL | model, optimizer=OPTIMIZER | optimizer, tracker=TRACKER | tracker, masker=MASKER | masker)
    if 'd_out' not in model:
        c['model']['d_out'] = c['model']['d_in']
    if not c['model']['transcoder']:
        c['model']['output_scale'] = c['model']['input_scale']
    return c


EVERYTHING = dict(transcoder=1, d_in=13, d_out=11, d_sae=45, input_scale=0.8, output_scale=1.7, aux_coef=0.125, k=3.3,
                  prefixes=[9, 22])
CASES = [
    setup('relu', weights=True, sparsity_warmup=0.5, optimizer=dict(clip=2.0),
          model=dict(activation=RELU, decoder_norm=FREE, sparsity_coef=0.4, input_scale=0.7)),
    setup('topk', model=dict(activation=TOPK, input_scale=1.3), optimizer=dict(clip=0)),
    setup('batchtopk', weights=True, model=dict(k=3.3, input_scale=0.6)),
    setup('matryoshka', weights=True, model=dict(prefixes=[7, 19], input_scale=1.2)),
    setup('jumprelu', weights=True, sparsity_warmup=0.4, optimizer=dict(clip=10.0),
          model=dict(activation=JUMPRELU, sparsity_coef=0.3, input_scale=0.9)),
    setup('jumprelu_target', sparsity_warmup=0.4,
          model=dict(activation=JUMPRELU, sparsity_coef=2.0, target_l0=5.0, input_scale=0.9)),
    setup('relu_target', steps=12, weights=True, masker=dict(kind=ATM, r=1.0, warmup_steps=1),
          model=dict(activation=RELU, decoder_norm=FREE, sparsity_coef=0.4, target_l0=6.0, input_scale=0.7)),
    setup('tanh_target', weights=True, sparsity_warmup=1.0, masker=dict(kind=PAPER, r=0.8, per_row=1),
          model=dict(activation=JUMPRELU_TANH, decoder_norm=FREE, sparsity_coef=0.3, pre_act_coef=0.05, tanh_scale=2.0,
                     bandwidth=0.8, target_l0=4.0, input_scale=0.8)),
    setup('gated_target', steps=12, optimizer=dict(decay_steps=8), masker=dict(kind=ATM, r=1.0, c=2.0, warmup_steps=1),
          model=dict(activation=GATED, sparsity_coef=0.2, target_l0=5.0, input_scale=1.1)),
    setup('jumprelu_tanh', weights=True, sparsity_warmup=1.0, optimizer=dict(clip=0),
          model=dict(activation=JUMPRELU_TANH, decoder_norm=FREE, sparsity_coef=0.3, pre_act_coef=0.05, tanh_scale=2.0,
                     bandwidth=0.8, input_scale=0.8)),
    setup('gated', weights=True, sparsity_warmup=0.3,
          model=dict(activation=GATED, sparsity_coef=0.2, input_scale=1.1)),
    setup('transcoder', model=dict(activation=TOPK, transcoder=1, d_in=12, d_out=17, input_scale=0.8,
                                   output_scale=1.4, k=5.0)),
    setup('auxk', steps=12, model=dict(aux_coef=0.125, aux_k=25, input_scale=0.9, k=2.0), tracker=dict(dead_window=60)),
    setup('atm', steps=12, weights=True, model=dict(input_scale=0.9), masker=dict(kind=ATM, r=0.6)),
    setup('atm_rows', steps=12, weights=True, model=dict(input_scale=0.9, k=3.3, aux_coef=0.125),
          tracker=dict(dead_window=45), masker=dict(kind=ATM, r=0.5, per_row=1)),
    setup('atm_tanh_rows', steps=6, n=16, sparsity_warmup=0.5, masker=dict(kind=PAPER, r=0.8, per_row=1),
          model=dict(activation=JUMPRELU_TANH, decoder_norm=FREE, sparsity_coef=0.3, pre_act_coef=0.05, tanh_scale=2.0,
                     bandwidth=0.8, input_scale=0.8)),
    setup('atm_relu_paper', weights=True, optimizer=dict(clip=2.0),
          model=dict(activation=RELU, decoder_norm=FREE, sparsity_coef=0.4, input_scale=0.7),
          tracker=dict(decay=0.9, weight_magnitude=2.0, weight_contribution=0.5, combine=GEOMETRIC),
          masker=dict(kind=PAPER, c=0.5, r=1.0)),
    setup('atm_gated', steps=8, sparsity_warmup=0.3, masker=dict(kind=ATM, r=1.0, c=2.0, warmup_steps=1),
          model=dict(activation=GATED, sparsity_coef=0.2, input_scale=1.1)),
    setup('atm_frozen', steps=8, model=dict(activation=TOPK), optimizer=dict(freeze_masked=1),
          masker=dict(kind=ATM, r=1.0, warmup_steps=1)),
    setup('uniform', steps=8, model=dict(d_in=9, d_sae=33), masker=dict(kind=UNIFORM, r=0.7, warmup_steps=1)),
    setup('narrow', n=3, model=dict(activation=RELU, decoder_norm=FREE, sparsity_coef=0.4, d_in=1, d_sae=9)),
    setup('everything', steps=12, weights=True, model=EVERYTHING, tracker=dict(dead_window=50, weight_frequency=0.0),
          masker=dict(kind=ATM, r=0.6, warmup_steps=1)),
    setup('second_rows', steps=12, weights=True, model=dict(input_scale=0.9, k=3.3, aux_coef=0.125),
          tracker=dict(dead_window=45), masker=dict(kind=ATM, r=2.0, per_row=1, effect=SECOND_LOSS, alpha=0.3)),
    setup('second_jumprelu', steps=12, masker=dict(kind=ATM, r=2.0, warmup_steps=1, effect=SECOND_LOSS, alpha=1.0),
          model=dict(activation=JUMPRELU, sparsity_coef=2.0, target_l0=5.0, input_scale=0.9)),
    setup('second_tanh', steps=6, n=16, weights=True, sparsity_warmup=0.5,
          masker=dict(kind=PAPER, r=0.8, per_row=1, effect=SECOND_LOSS, alpha=0.5),
          model=dict(activation=JUMPRELU_TANH, decoder_norm=FREE, sparsity_coef=0.3, pre_act_coef=0.05, tanh_scale=2.0,
                     bandwidth=0.8, input_scale=0.8)),
    setup('second_gated', steps=8, weights=True, sparsity_warmup=0.3,
          masker=dict(kind=UNIFORM, r=1.0, warmup_steps=1, per_row=1, effect=SECOND_LOSS, alpha=0.5),
          model=dict(activation=GATED, sparsity_coef=0.2, input_scale=1.1)),
    setup('second_everything', steps=12, weights=True, model=EVERYTHING, optimizer=dict(freeze_masked=1),
          tracker=dict(dead_window=50, weight_frequency=0.0),
          masker=dict(kind=ATM, r=2.0, warmup_steps=1, effect=SECOND_LOSS, alpha=0.7)),
]


def initial(c, rng):
    """Parameters and batches, float32. Rows are sparse sums of directions that W_dec half knows."""
    m = c['model']
    F, d_in, d_out, n = m['d_sae'], m['d_in'], m['d_out'], c['n']
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)
    truth_in = unit(rng.standard_normal((F, d_in)))
    truth_out = unit(rng.standard_normal((F, d_out))) if m['transcoder'] else truth_in
    on = rng.random((c['steps'], n, F)) < 0.15 * rng.random(F) ** 2
    magnitude = on * np.maximum(0.3, 1.5 + 0.5 * rng.standard_normal(on.shape))
    noise = lambda d: 0.15 * rng.standard_normal((c['steps'], n, d)) + 0.3 * rng.standard_normal(d)
    x, y = magnitude @ truth_in + noise(d_in), magnitude @ truth_out + noise(d_out)
    W_dec = unit(truth_out + 0.6 * unit(rng.standard_normal((F, d_out))))
    W_enc = unit(truth_in + 0.6 * unit(rng.standard_normal((F, d_in))))
    if m['decoder_norm'] == FREE:
        W_dec = W_dec * rng.uniform(0.6, 1.4, (F, 1))
    P = dict(W_enc=W_enc, b_enc=0.2 * rng.standard_normal(F) - 0.1, W_dec=W_dec, b_dec=0.2 * rng.standard_normal(d_out))
    if m['activation'] in (JUMPRELU, JUMPRELU_TANH):
        P['threshold'] = rng.uniform(0.3, 0.7, F)
    if m['activation'] == GATED:
        P['r_mag'], P['b_mag'] = 0.2 * rng.standard_normal(F), 0.1 * rng.standard_normal(F)
    if m['aux_coef'] > 0:
        P['b_enc'][::3] -= 2.0  # so that some latents are silent long enough to be dead
    w = rng.choice([0.0, 0.5, 1.0, 1.0, 2.0], (c['steps'], n)) if c['weights'] else np.ones((c['steps'], n))
    data = dict(x=x, row_weights=w) | (dict(y=y) if m['transcoder'] else {})
    return {k: v.astype(np.float32) for k, v in P.items()}, {k: v.astype(np.float32) for k, v in data.items()}


def run(c, seed, dtype=torch.float64):
    m, n, F = c['model'], c['n'], c['model']['d_sae']
    init, data = initial(c, np.random.default_rng([seed, 20251008]))
    to = lambda v: torch.tensor(v, dtype=dtype)
    P = {k: to(v) for k, v in init.items()}
    if 'threshold' in P:
        P['log_threshold'] = P.pop('threshold').log()
    tracker, masker = Tracker(c['tracker'], F), Masker(c['masker'], F, c['steps'])
    second = c['masker'].get('effect') == SECOND_LOSS
    alpha = c['masker']['alpha'] if second else 0.0
    adam, target = Adam(c['optimizer'], P, c['steps']), Target(c)
    batch_threshold, out = None, {f'initial.{k}': v for k, v in init.items()} | data
    log = {}

    for t in range(c['steps']):
        masked = masker.draw(t, n)
        left_out, hidden = (0 * masked, masked) if second else (masked, 0 * masked)
        dead = tracker.dead()
        warm = c['sparsity_warmup'] * c['steps']
        share = np.exp(target.log_coef) * (min(1.0, (t + 1) / warm) if warm else 1.0)
        leaf = {k: v.clone().requires_grad_() for k, v in P.items()}
        x, w = to(data['x'][t]), to(data['row_weights'][t])
        y = to(data['y'][t]) if 'y' in data else x
        s = forward(m, leaf, x, y, w, to(1.0 - left_out), share, torch.from_numpy(dead),
                    to(masker.p) if c['masker']['per_row'] and not second else None, to(1.0 * hidden), alpha)
        grads = dict(zip(leaf, torch.autograd.grad(s['total'], list(leaf.values()))))
        if t == 0:
            out |= {f'gradient.{k.removeprefix("log_")}': g for k, g in grads.items()}
        if m['activation'] == BATCHTOPK and s['smallest'] is not None:
            new = float(s['smallest'])
            batch_threshold = new if batch_threshold is None else 0.99 * batch_threshold + 0.01 * new
        frozen = torch.from_numpy(left_out[0] > 0) if c['optimizer']['freeze_masked'] else None
        norm = adam.step(t, P, dict(grads), m['decoder_norm'] == UNIT, frozen)
        total_w = float(w.sum())
        rows = total_w * (np.ones(F) if second else (1 - masker.p) if c['masker']['per_row'] else ~masked[0])
        target.step(t, adam.lr(t), P, s, rows, tracker.average[1], s['margin'])
        tracker.observe(rows, [s[k].numpy().astype(np.float64) for k in ('magnitude', 'frequency', 'contribution')])
        r, mean_p, p = masker.r, masker.p.mean(), masker.p
        if c['masker']['kind'] != NONE:
            masker.update(tracker.importance)
        now = {k: float(s[k].detach()) for k in ('total', 'mse', 'sparsity', 'aux', 'prefix', 'l0', 'fvu') + second * ('masked_loss',)}
        now |= dict(grad_norm=norm, lr=adam.lr(t), r=r, mean_p=mean_p, mu=masker.mu, sigma=masker.sigma,
                    theta=masker.theta, dead=dead.sum(), p=p)
        now['masked'] = masked if c['masker']['per_row'] else masked[0]
        for k, v in now.items():
            log.setdefault(k, []).append(v)

    for k, v in P.items():
        out[f'final.{k.removeprefix("log_")}'] = v.exp() if k.startswith('log_') else v
    for i, k in enumerate(('magnitude', 'frequency', 'contribution')):
        out[f'final.average_{k}'] = tracker.average[i]
    out['final.importance'] = tracker.importance
    if m['activation'] == BATCHTOPK:
        out['final.batch_threshold'] = np.array([batch_threshold])
        z = (m['input_scale'] * to(data['x'][-1]) - (0 if m['transcoder'] else P['b_dec'])) @ P['W_enc'].T + P['b_enc']
        z = z[to(data['row_weights'][-1]) > 0]
        last = int(np.floor(m['k'] * len(z)))
        kept, next_one = z.flatten().sort(descending=True).values[last - 1:last + 1]
        out['final.calibrated'] = ((kept + next_one) / 2 if next_one > 0 else torch.zeros_like(kept))[None]
    out |= {f'step.{k}': np.array(v) for k, v in log.items()}
    return {k: np.asarray(v) for k, v in out.items()}


# ---- writing ---------------------------------------------------------------------------------------------

def save(path, tensors, metadata):
    """A safetensors file; our own writer, because the package writes metadata in random order."""
    header, blobs, at = {'__metadata__': metadata}, [], 0
    for name in sorted(tensors):
        v = tensors[name]
        v = v.astype(np.uint8) if v.dtype == bool else v.astype('<f4')
        blob = v.tobytes()
        header[name] = dict(dtype='U8' if v.dtype == np.uint8 else 'F32', shape=list(v.shape),
                            data_offsets=[at, at + len(blob)])
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-(8 + len(text)) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def metadata(c, seed):
    flat = {'steps': c['steps'], 'n': c['n'], 'generator_seed': seed,
            'trainer.batch_rows': c['n'], 'trainer.total_rows': c['n'] * c['steps'],
            'trainer.sparsity_warmup': c['sparsity_warmup']}
    for part in ('model', 'optimizer', 'tracker', 'masker'):
        flat |= {f'{part}.{k}': v for k, v in c[part].items() if k != 'prefixes'}
    flat |= {f'model.prefix{i}': v for i, v in enumerate(c['model']['prefixes'])}
    return {k: repr(v) for k, v in flat.items()}


def main(folder):
    torch.set_num_threads(1)
    for c in CASES:
        seed = 0
        while True:
            try:
                out = run(c, seed)
                break
            except Borderline:
                seed += 1
        save(f'{folder}/reference_{c["name"]}.safetensors', out, metadata(c, seed))
        single = run(c, seed, torch.float32)
        far = {}
        for kind in ('step.', 'gradient.', 'final.'):
            for k in (k for k in out if k.startswith(kind) and out[k].dtype != bool):
                scale = np.maximum(np.abs(out[k]), 1e-3 if kind == 'step.' else np.abs(out[k]).max() + 1e-30)
                far[kind] = max(far.get(kind, 0), float((np.abs(out[k] - single[k]) / scale).max()))
        clipped = int((out['step.grad_norm'] > c['optimizer']['clip']).sum()) if c['optimizer']['clip'] else 0
        print(f"{c['name']:16} seed {seed:4}  loss {out['step.total'][0]:.3f} -> {out['step.total'][-1]:.3f}  "
              f"L0 {out['step.l0'][-1]:.2f}  dead {int(out['step.dead'].max())}  masked {out['step.masked'].mean():.3f}  "
              f"clipped {clipped}/{c['steps']}  sparsity {out['step.sparsity'][-1]:.3f} aux {out['step.aux'].max():.4f}  "
              f"float32: {far['step.']:.0e} {far['gradient.']:.0e} {far['final.']:.0e}", flush=True)


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else 'tests/fixtures')
