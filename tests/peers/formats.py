# SPDX-License-Identifier: MIT
"""SAEs written by their own packages, live: `formats.py WRITE_FOLDERS_PROGRAM`.

tests/reference/make_formats.py makes them anew with other seeds than the committed ones. The library must
give the same latents and reconstructions, SAELens must give them again for what the library saves, numpy
must read its .npz and the gguf package its .gguf. Packages that are not installed are left out.
"""
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parents[1] / 'reference'))
import make_formats

TOLERANCE = 1e-5 # of the largest value
failures, checks = [], 0


def report(name, what, good, detail=''):
    global checks
    checks += 1
    if not good:
        failures.append(name)
        print(f'FAIL {name}: {what} {detail}')


def close(name, what, got, want):
    got, want = np.asarray(got), np.asarray(want)
    far = np.abs(got - want).max() / np.abs(want).max() if got.shape == want.shape else np.inf
    report(name, what, far <= TOLERANCE, f'{far:.1e}')


def raw(path, width):
    return np.fromfile(path, '<f4').reshape(-1, width)


def check_saelens(name, folder, x, codes, decoded):
    try:
        from sae_lens import SAE
    except ImportError:
        return
    sae = SAE.load_from_disk(str(folder), device='cpu')
    with torch.no_grad():
        got = sae.encode(x)
        got = got.to_dense() if got.is_sparse else got
        close(name, 'codes of SAELens', got, codes)
        close(name, 'output of SAELens', sae.decode(got), decoded)


def check_npz(name, program, folder, path, x, codes, decoded):
    done = subprocess.run([program, 'export', folder, path], capture_output=True, text=True)
    cfg = json.loads((folder / 'cfg.json').read_text())
    if 'topk' in cfg['architecture'] or cfg['architecture'] == 'gated':
        report(name, '.npz', done.returncode == 3 and 'gemma-scope holds' in done.stderr, done.stderr)
        return
    report(name, '.npz', done.returncode == 0, done.stderr)
    with np.load(path) as arrays:
        p = {k: torch.from_numpy(arrays[k]) for k in arrays.files}
    report(name, '.npz arrays', set(p) == {'W_enc', 'W_dec', 'b_enc', 'b_dec', 'threshold'})
    got_codes, got = make_formats.jumprelu(p, x)
    close(name, '.npz codes', got_codes, codes)
    close(name, '.npz output', got, decoded)


def check_gguf(name, program, folder, path):
    try:
        from gguf import GGUFReader
    except ImportError:
        return
    subprocess.run([program, 'export', folder, path], check=True)
    reader = GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items()}
    report(name, '.gguf fields', fields['general.architecture'] == 'controlvector' and fields['controlvector.layer_count'] == 1)
    report(name, '.gguf tensor', [t.name for t in reader.tensors] == ['direction.7'])
    w_dec = load_file(folder / 'sae_weights.safetensors')['W_dec']
    close(name, '.gguf direction', reader.tensors[0].data, 2 * w_dec[1] - w_dec[3])


# ---- SAEBench ----------------------------------------------------------------------------------------------

def saebench_scores(sae):
    """SAEBench's k-sparse probing of synthetic texts: accuracies and the columns it picks."""
    from sae_bench.evals.sparse_probing import probe_training
    from sae_bench.sae_bench_utils import activation_collection, dataset_info
    gen = torch.Generator().manual_seed(9)
    texts, length, d = 240, 6, sae.cfg.d_in
    label = (torch.rand(texts, generator=gen) < 0.5)
    tokens = torch.randn(texts, length, d, generator=gen) + label[:, None, None] * torch.randn(d, generator=gen)
    tokens[torch.arange(length)[None].expand(texts, -1) >= torch.randint(2, length + 1, (texts, 1), generator=gen)] = 0
    with torch.no_grad():
        features = activation_collection.get_sae_meaned_activations({'t': tokens}, sae, 64)['t']
    y = torch.where(label, dataset_info.POSITIVE_CLASS_LABEL, dataset_info.NEGATIVE_CLASS_LABEL).to(torch.int32)
    scores = []
    for k in 1, 2, 5:
        mask = probe_training.get_top_k_mean_diff_mask(features[:160], y[:160], k)
        kept = probe_training.apply_topk_mask_reduce_dim(features, mask)
        _, accuracy = probe_training.train_sklearn_probe(kept[:160], y[:160], kept[160:], y[160:])
        scores += [float(accuracy), (~mask).nonzero().flatten().tolist()]
    return scores


def check_saebench(program, out):
    """Ours, loaded by SAELens, against what SAELens saves of it and loads again."""
    try:
        from sae_bench.sae_bench_utils.general_utils import check_decoder_norms
        from sae_lens import SAE
    except ImportError as error:
        print(f'SAEBench: left out: {error}')
        return
    subprocess.run([program, 'write', out], check=True)
    for name in 'standard', 'batchtopk', 'jumprelu', 'jumprelu_tanh', 'gated':
        ours, theirs = out / f'{name}_folded', out / f'{name}_resaved'
        subprocess.run([program, 'export', out / name, ours], check=True)
        sae = SAE.load_from_disk(str(ours), device='cpu')
        report(name, 'SAEBench: decoder norms', check_decoder_norms(sae.W_dec))
        sae.save_model(theirs)
        scores, again = saebench_scores(sae), saebench_scores(SAE.load_from_disk(str(theirs), device='cpu'))
        report(name, 'SAEBench: the same scores', scores == again, f'{scores} {again}')
        report(name, 'SAEBench: better than chance', scores[4] > 0.6, f'{scores}')
        print(f'SAEBench: {name}: k-sparse probing accuracy {scores[0]:.3f} {scores[2]:.3f} {scores[4]:.3f}, both ways')


def check(program, out, name):
    expected = load_file(f'{out / name}.expected.safetensors')
    x, codes, decoded = expected['x'], expected['codes'], expected['decoded']
    rows, again = out / f'{name}.x', out / f'{name}.again'
    x.numpy().astype('<f4').tofile(rows)
    done = subprocess.run([program, 'read', out / name, rows, again], capture_output=True, text=True)
    report(name, 'is read', done.returncode == 0, done.stderr)
    if done.returncode:
        return
    close(name, 'codes', raw(f'{again}.codes', codes.shape[1]), codes)
    close(name, 'output', raw(f'{again}.decoded', decoded.shape[1]), decoded)
    check_saelens(name, again, x, codes, decoded)
    check_npz(name, program, again, out / f'{name}.npz', x, codes, decoded)
    check_gguf(name, program, again, out / f'{name}.gguf')


def main(program):
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore', module='sklearn') # of SAEBench's settings
    names = 0
    for seed in 2, 3:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            make_formats.main(out, seed)
            for name in sorted(p.name for p in out.iterdir() if p.is_dir()):
                check(program, out, name)
                names += 1
    with tempfile.TemporaryDirectory() as scratch:
        check_saebench(program, Path(scratch))
    print(f'formats: {names} SAEs, {checks} checks, {len(failures)} failures')
    return 1 if failures or not names else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
