#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the original packages on small random problems: `make_measures.py PACKAGE SEED OUT [LIBATMSAE.so]`.

PACKAGE: saebench (sae-bench 0.6.0), saelens (sae-lens 6.54.12; needs the library, for rows of its generator),
saeprobes (sae-probes 0.4.2) or words (absorption from rows to scores, by scikit-learn and NumPy). OUT.safetensors holds the problem and the package's own results, which
tests/test_measures.c holds the library to. The files in tests/fixtures were written with seed 1:

    for p in saebench saelens saeprobes words; do
        make_measures.py $p 1 tests/fixtures/measures_$p.safetensors build/lib/libatmsae.so
    done

tests/peers/measures.sh runs it with other seeds.
"""
import ctypes
import os
import sys
import warnings
from types import SimpleNamespace

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TRANSFORMERS_OFFLINE', '1')
import numpy as np
import torch
from safetensors.numpy import save_file

f32 = lambda a: np.ascontiguousarray(a, dtype=np.float32)
tensor = lambda a: torch.from_numpy(f32(a))


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


class Relu:
    """A ReLU SAE with the attributes that the packages ask for."""

    def __init__(self, rng, d, f, bias, w_dec=None):
        self.W_dec = tensor(unit(rng.normal(size=(f, d))) if w_dec is None else w_dec)
        self.W_enc = tensor(self.W_dec.numpy() + 0.1 * rng.normal(size=(f, d)))
        self.b_enc = tensor(np.full(f, bias) + 0.1 * rng.normal(size=f))
        self.b_dec = tensor(0.1 * rng.normal(size=d))
        self.device, self.dtype = torch.device('cpu'), torch.float32

    def eval(self):
        return self

    def encode(self, x):
        return torch.relu((x - self.b_dec) @ self.W_enc.T + self.b_enc)

    def decode(self, a):
        return a @ self.W_dec + self.b_dec

    def tensors(self, name):
        return {f'{name}.{k}': getattr(self, k).numpy() for k in ('W_enc', 'b_enc', 'W_dec', 'b_dec')}


# ---- sae-bench -----------------------------------------------------------------------------------------

def saebench(rng):
    """Absorption of given words, and k-sparse probing of texts of up to six tokens."""
    from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator
    from sae_bench.evals.sparse_probing import probe_training
    from sae_bench.sae_bench_utils import activation_collection, dataset_info
    from sklearn.linear_model import LogisticRegression
    out = {}

    n, d, f = 300, 10, 24
    probe = unit(rng.normal(size=d))
    dec = rng.normal(size=(f, d))
    dec[:8] += 2.5 * probe  # latents that point along the probe
    sae = Relu(rng, d, f, 0.0, w_dec=unit(dec))
    acts = np.maximum(rng.normal(size=(n, f)) - 0.8, 0) * (rng.random((n, f)) < 0.5)
    acts[:, :2] *= rng.random((n, 2)) < 0.4  # the split latents are often silent
    x = acts @ sae.W_dec.numpy() + 0.3 * rng.normal(size=(n, d)) + 0.5 * probe
    words = [f'w{i}' for i in range(n)]
    number = {w: i for i, w in enumerate(words)}

    class Model:  # "activations" of a prompt are the row of its word
        batch = None

        def to_tokens(self, _):
            return [[0]]

        def run_with_cache(self, prompts, names_filter):
            Model.batch = [number[p.rsplit('\n', 1)[-1].split(':')[0]] for p in prompts]
            return None, {names_filter[0]: tensor(x[Model.batch])[:, None].expand(-1, 3, -1)}

    stub = SimpleNamespace(W_dec=sae.W_dec, device='cpu', encode=lambda _: tensor(acts[Model.batch]))
    calculator = FeatureAbsorptionCalculator(Model(), icl_word_list=['a', 'b'], max_icl_examples=1)
    split = [0, 1]
    results = calculator.calculate_absorption(stub, words, tensor(probe), split, layer=0, show_progress=False)
    out |= {'words.acts': f32(acts), 'words.W_dec': sae.W_dec.numpy(), 'words.probe': f32(probe),
            'words.split': np.array(split, np.int32),
            'words.projection': f32([r.probe_projection for r in results.word_results]),
            'words.fraction': f32([r.absorption_fraction for r in results.word_results]),
            'words.full': np.array([r.is_full_absorption for r in results.word_results], np.int32)}

    texts, length, d, f, tasks, ks = 240, 6, 12, 40, 2, [1, 2, 5]
    label = (rng.random((texts, tasks)) < 0.5).astype(np.int8)
    is_train = (np.arange(texts) < 160).astype(np.uint8)
    tokens = rng.normal(size=(texts, length, d)) + 0.7 * (label @ rng.normal(size=(tasks, d)))[:, None]
    tokens[np.arange(length)[None] >= rng.integers(2, length + 1, texts)[:, None]] = 0  # padding
    sae = Relu(rng, d, f, -0.3)
    pooled = {'x': activation_collection.create_meaned_model_activations({'t': tensor(tokens)})['t'],
              'sae': activation_collection.get_sae_meaned_activations({'t': tensor(tokens)}, sae, 64)['t']}
    out |= sae.tensors('texts.sae') | {'texts.tokens': f32(tokens), 'texts.label': label, 'texts.is_train': is_train}
    train = is_train == 1
    for name, features in pooled.items():
        rows = []
        for t in range(tasks):
            y = torch.from_numpy(np.where(label[:, t] == 1, dataset_info.POSITIVE_CLASS_LABEL,
                                          dataset_info.NEGATIVE_CLASS_LABEL).astype(np.int32))
            row = []
            for k in ks + [features.shape[1]]:
                mask = probe_training.get_top_k_mean_diff_mask(features[train], y[train], k)
                kept = probe_training.apply_topk_mask_reduce_dim(features, mask)
                _, theirs = probe_training.train_sklearn_probe(kept[train], y[train], kept[~train], y[~train])
                tight = LogisticRegression(tol=1e-12, max_iter=100000).fit(kept[train].double(), y[train])
                row.append([theirs, tight.score(kept[~train].double(), y[~train]),
                            int((~mask).nonzero()[0]) if k == 1 else -1])
            rows.append(row)
        out[f'texts.{name}.results'] = f32(rows)  # [task, k, (theirs, tight tolerance, best column)]
    return out


# ---- absorption, from rows to scores --------------------------------------------------------------------

def firsts(wide, train, y, lam):
    """Columns by the weight of the L1 probe; of those without weight, the one that would get some first."""
    from sklearn.linear_model import LogisticRegression
    a, t = wide[train].astype(np.float64), y[train]
    weight = np.where(t, (~t).sum() / t.sum(), 1.0)
    fit = LogisticRegression(l1_ratio=1.0, C=1 / (len(a) * lam), tol=1e-11, max_iter=100_000, solver='saga', random_state=0)
    fit.fit(a, t, sample_weight=weight)
    w = fit.coef_[0]
    pull = (weight * (t - fit.predict_proba(a)[:, 1])) @ a
    return np.lexsort((-pull, -w))


def f1(said, y):
    return 2 * (said & y).sum() / (said.sum() + y.sum()) if (said & y).any() else 0.0


def share(part, whole):
    return part.sum() / whole if whole else np.nan


def judge(parts, cosine, acts, split, along):
    """SAEBench's rules for the words of one class: full, and the fractions of 0.6.0 and 0.3.2."""
    out = []
    for p, a, whole in zip(parts, acts, along):
        main, other = p[split].sum(), np.delete(np.arange(len(p)), split)
        top = p.argmax()
        full = (a[split] < 1e-8).all() and cosine[top] >= 0.025 and p[top] / whole >= 0.4
        near = sorted([p[j] for j in other if cosine[j] >= 0.1 and p[j] > 0])[-3:]
        taken = sum(near)
        if main >= whole or taken / whole < 0.4:
            v060 = 0.0
        else:
            v060 = 1.0 if main <= 0 else min(taken, whole - main) / (min(taken, whole - main) + main)
        v032 = 0.0 if main >= whole or p.sum() <= 0 else min(max((p.sum() - main) / p.sum(), 0.0), 1.0)
        out.append([full, v060, v032])
    return np.array(out).mean(0)


def words(rng):
    """Words of six classes far from the origin, some with a latent of their own that has taken over the class's part."""
    from sklearn.linear_model import LogisticRegression
    n, d, classes, tokens, more = 1500, 32, 6, 24, 12
    label = rng.integers(0, classes, n).astype(np.int32)
    is_train = (rng.random(n) < 0.7).astype(np.uint8)
    token = np.where(rng.random(n) < 0.18, label * 4 + rng.integers(0, 4, n), -1)
    parents, own, rest = unit(rng.normal(size=(classes, d))), unit(rng.normal(size=(tokens, d))), unit(rng.normal(size=(more, d)))
    x = 12 * unit(rng.normal(size=d)) + 2.2 * parents[label] + 0.35 * rng.normal(size=(n, d))
    x += np.where(token[:, None] >= 0, 2.6 * own[token], 0) + 1.2 * (rng.random((n, more)) < 0.2) @ rest
    x = f32(x)
    f = classes + tokens + more
    sae = Relu(rng, d, f, -0.9)
    dec = np.concatenate([parents, unit(own + parents[np.arange(tokens) // 4]), rest])
    sae.W_enc = tensor(np.concatenate([parents - 0.25 * own.reshape(classes, 4, d).sum(1), own, rest]) + 0.03 * rng.normal(size=(f, d)))
    sae.b_enc[classes:classes + tokens] -= 0.8
    sae.b_dec = tensor(x.mean(0))
    sae.W_dec = tensor(dec * rng.uniform(0.5, 2, (f, 1)))
    norm = np.linalg.norm(sae.W_dec.numpy().astype(np.float64), axis=1)
    acts, unit_dec = sae.encode(tensor(x)).numpy() * norm, sae.W_dec.numpy() / norm[:, None]
    train, wide = is_train == 1, x.astype(np.float64)
    deviation = np.sqrt(((wide[train] - wide[train].mean(0)) ** 2).mean())
    rare, rows = (acts > 0).sum(0) <= 0.01 * n, []
    for penalised in True, False:
        for c in range(classes):
            y = label == c
            if penalised:
                columns = np.concatenate([wide, np.full((n, 1), deviation)], 1)
                probe = LogisticRegression(C=1 / deviation ** 2, class_weight='balanced', fit_intercept=False, tol=1e-12,
                                           max_iter=1000, solver='newton-cholesky').fit(columns[train], y[train])
                w, z = probe.coef_[0][:d], probe.decision_function(columns)
            else:
                probe = LogisticRegression(C=0.1 / deviation ** 2, class_weight='balanced', tol=1e-12, max_iter=1000,
                                           solver='newton-cholesky').fit(wide[train], y[train])
                w, z = probe.coef_[0], probe.decision_function(wide)
            size = np.linalg.norm(w)
            ranked, best, split = firsts(acts, train, y, 0.01 * deviation), -1.0, []
            scores = []
            for k in range(1, 11):
                sparse = LogisticRegression(C=1 / deviation ** 2, class_weight='balanced', tol=1e-12, max_iter=1000,
                                            solver='newton-cholesky').fit(acts[train][:, ranked[:k]].astype(np.float64), y[train])
                scores.append(f1(sparse.predict(acts[~train][:, ranked[:k]].astype(np.float64)), y[~train]))
                if k > 1 and scores[-1] <= best + 0.03:
                    break
                best, split = scores[-1], ranked[:k]
            counts = ~train & y & (z > 0)
            cosine = unit_dec @ (w / size)
            fires, others = acts[:, split[0]] > 0, acts.copy()
            others[:, split] = 0
            three = np.argsort(-others, axis=1)[:, :3]
            has = (rare[three] & (np.take_along_axis(others, three, 1) > 0)).any(1) & counts
            full, v060, v032 = judge((acts * cosine)[counts], cosine, acts[counts], split, z[counts] / size)
            rows.append([counts.sum(), len(split), split[0], has.sum(), full, v060, v032, f1(z[~train] > 0, y[~train]), scores[0],
                         share(fires & counts, counts.sum()), share(fires & y & ~train, (fires & ~train).sum()), f1(fires[~train], y[~train]),
                         fires[~train].mean(), share(fires & has, has.sum()), share(fires & counts & ~has, (counts & ~has).sum())])
    return sae.tensors('words.sae') | {'words.x': x, 'words.label': label, 'words.is_train': is_train,
                                       'words.results': f32(rows).reshape(2, classes, -1)}


# ---- sae-lens ------------------------------------------------------------------------------------------

def library_rows(path, seed, n):
    """Rows of the library's Matryoshka toy: x, which features are on, directions."""
    lib = ctypes.CDLL(path)
    context, synth = ctypes.c_void_p(), ctypes.c_void_p()
    assert lib.atmsae_context_create(None, ctypes.byref(context)) == 0
    lib.atmsae_synth_create_preset.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64, ctypes.c_void_p]
    assert lib.atmsae_synth_create_preset(context, 3, seed, ctypes.byref(synth)) == 0
    lib.atmsae_synth_directions.restype = ctypes.POINTER(ctypes.c_float)
    lib.atmsae_synth_directions.argtypes = [ctypes.c_void_p]
    directions = np.ctypeslib.as_array(lib.atmsae_synth_directions(synth), (20, 20)).copy()
    x, on = np.zeros((n, 20), np.float32), np.zeros((n, 20), np.uint8)
    lib.atmsae_synth_rows.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
    assert lib.atmsae_synth_rows(synth, 0, n, x.ctypes.data, on.ctypes.data) == 0
    return x, on, directions


def saelens(rng, seed, library):
    """Synthetic ground truth, reconstruction, matches of two dictionaries, compensated probabilities."""
    from sae_lens.synthetic import FeatureDictionary, HierarchyNode
    from sae_lens.synthetic.evals import eval_sae_on_synthetic_data, mean_correlation_coefficient
    from sae_lens.synthetic.hierarchy.hierarchy import Hierarchy
    from sae_lens.util import cosine_similarities
    from scipy.optimize import linear_sum_assignment

    n = 3000
    x, on, directions = library_rows(library, seed, n)
    near = directions[rng.integers(0, 20, 26)]
    sae = Relu(rng, 20, 26, -0.2, w_dec=unit(near + 0.25 * rng.normal(size=near.shape)))
    # SynthSAEBench's evaluation as it is called, from directions and magnitudes; these are what the rows are made of.
    features = FeatureDictionary(20, 20, bias=False, initializer=None)
    features.feature_vectors.data = tensor(directions)
    magnitudes = np.where(on, np.linalg.solve(directions.T.astype(np.float64), x.T.astype(np.float64)).T, 0)
    parts = iter(np.split(magnitudes, 6))
    r = eval_sae_on_synthetic_data(sae, features, SimpleNamespace(sample=lambda _: tensor(next(parts))), n, batch_size=n // 6)
    metrics = r.classification
    out = sae.tensors('truth.sae') | {
        'truth.seed_rows': np.array([seed, n], np.int32),
        'truth.results': np.array([
            r.mcc, r.uniqueness, metrics.precision, metrics.recall, metrics.f1_score, metrics.accuracy, r.sae_l0, r.true_l0,
            r.dead_latents, r.explained_variance, r.shrinkage], np.float32)}

    a, b = rng.normal(size=(30, 7)), rng.normal(size=(45, 7))
    b[:20] = a[:20] + 0.3 * rng.normal(size=(20, 7))
    a[4] = 0
    cosine = cosine_similarities(tensor(a), tensor(b)).numpy()
    pairs = linear_sum_assignment(1 - cosine)
    out |= {'match.a': f32(a), 'match.b': f32(b),
            'match.results': f32([cosine[pairs].mean(), mean_correlation_coefficient(tensor(a), tensor(b))])}

    # Trees: feature i of 30 has parent (i - 6) // 4, so that six are roots.
    p = np.sort(rng.uniform(0.01, 0.2, 30))[::-1].copy()
    exclusive = rng.integers(0, 2, 30).astype(np.int32)
    nodes = [HierarchyNode(i, mutually_exclusive_children=False) for i in range(30)]
    for i in range(6, 30):
        nodes[(i - 6) // 4].children = [*nodes[(i - 6) // 4].children, nodes[i]]
    for i, node in enumerate(nodes):
        exclusive[i] &= len(node.children) > 1
        node.mutually_exclusive_children = bool(exclusive[i])
    factors = Hierarchy(nodes[:6], None).compute_probability_correction_factors(torch.from_numpy(p))
    out |= {'tree.p': f32(p), 'tree.exclusive': exclusive, 'tree.compensated': f32((torch.from_numpy(p) * factors).clamp(max=1))}
    return out


# ---- sae-probes ----------------------------------------------------------------------------------------

def saeprobes(rng):
    """Its ranking of latents and its choice of C, on texts of one row."""
    from sae_probes.run_sae_evals import get_sorted_indices, mean_act_normalization
    from sae_probes.utils_training import find_best_reg
    n, d, f, ks = 420, 12, 36, [1, 2, 4, 16]
    y = (rng.random(n) < 0.5).astype(np.int8)
    x = rng.normal(size=(n, d)) + 0.9 * y[:, None] * unit(rng.normal(size=d))
    is_train = (np.arange(n) < 240).astype(np.uint8)
    sae = Relu(rng, d, f, -0.3)
    acts, train, labels = sae.encode(tensor(x)), is_train == 1, torch.from_numpy(y.astype(np.int64))
    order = get_sorted_indices(acts[train], labels[train], mean_act_normalization)
    rows = []
    for k in ks:
        part = acts[:, order[:k]].numpy()
        m = find_best_reg(part[train], y[train], part[~train], y[~train], seed=42).metrics
        rows.append([m.test_acc, m.test_auc, int(order[0])])
    return sae.tensors('probe.sae') | {'probe.x': f32(x), 'probe.label': y, 'probe.is_train': is_train,
                                       'probe.ks': np.array(ks, np.int32), 'probe.results': f32(rows)}


def main(package, seed, path, library=None):
    warnings.simplefilter('ignore')
    torch.manual_seed(int(seed))
    rng = np.random.default_rng(int(seed))
    with torch.no_grad():
        out = {'saebench': lambda: saebench(rng), 'saelens': lambda: saelens(rng, int(seed), os.path.abspath(library)),
               'saeprobes': lambda: saeprobes(rng), 'words': lambda: words(rng)}[package]()
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, path)


if __name__ == '__main__':
    main(*sys.argv[1:])
