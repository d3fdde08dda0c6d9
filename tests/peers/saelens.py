# SPDX-License-Identifier: MIT
"""Folders exchanged with SAELens, both ways: `saelens.py WRITE_FOLDERS_PROGRAM`.

Ours: SAE.load_from_disk must take what the library saved and give the same latents and
reconstructions. Theirs: the library must read what SAELens saved, agree with it, and save it again so
that SAELens still agrees. What the library cannot represent it must refuse, not misread.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TRANSFORMERS_OFFLINE', '1')
import numpy as np
import torch
from safetensors.torch import load_file, save_file
import sae_lens
from sae_lens import SAE, TrainingSAE

TOLERANCE = 1e-5  # of the largest value
ROWS, D, D_OUT, F = 40, 20, 26, 70
failures = []


def report(name, what, good, detail=''):
    print(f'{"ok  " if good else "FAIL"} {name}: {what} {detail}'.rstrip())
    if not good:
        failures.append(name)


def close(name, what, got, want):
    got, want = np.asarray(got), np.asarray(want)
    far = np.abs(got - want).max() / np.abs(want).max() if got.shape == want.shape else np.inf
    report(name, what, far <= TOLERANCE, f'{far:.1e}')


def raw(path, width):
    return torch.from_numpy(np.fromfile(path, '<f4').reshape(-1, width))


@torch.no_grad()
def results(sae, x):
    codes = sae.encode(x)
    return codes.to_dense() if codes.is_sparse else codes, sae.decode(codes)


def compare(name, what, sae, x, prefix):
    """sae's results on x against the library's raw files."""
    codes, decoded = results(sae, x)
    close(name, f'{what}, encode (L0 {(codes > 0).float().sum(1).mean():.1f})', raw(f'{prefix}.codes', F), codes)
    close(name, f'{what}, decode', raw(f'{prefix}.decoded', decoded.shape[1]), decoded)


def load(folder, **more):
    return SAE.load_from_disk(str(folder), device='cpu', **more)


# ---- what the library wrote -------------------------------------------------------------------------------

ARCHITECTURES = dict(standard='standard', topk='topk', topk_free='topk', batchtopk='jumprelu', jumprelu='jumprelu',
                     jumprelu_tanh='jumprelu', gated='gated', transcoder='transcoder',
                     jumprelu_transcoder='jumprelu_transcoder')


def check_ours(program, folder):
    subprocess.run([program, 'write', folder], check=True)
    for name, architecture in ARCHITECTURES.items():
        try:
            sae = load(folder / name)
        except Exception as error:
            report(name, 'SAELens loads ours', False, repr(error))
            continue
        cfg = json.loads((folder / name / 'cfg.json').read_text())
        report(name, 'architecture', sae.cfg.architecture() == architecture == cfg['architecture'], cfg['architecture'])
        report(name, 'metadata', sae.cfg.metadata.hook_name == 'blocks.4.hook_resid_pre'
               and sae.cfg.metadata.model_name == 'gpt2')
        x = raw(folder / f'{name}.x', D)
        compare(name, 'ours in SAELens', sae, x, folder / name)
        if architecture != 'topk':
            _, folded = results(load(folder / name, fold_W_dec_norm=True), x)
            close(name, 'folded decoder norms', folded, results(sae, x)[1])


# ---- what SAELens wrote -------------------------------------------------------------------------------------

def randomise(sae):
    gen = torch.Generator().manual_seed(11)
    uniform = lambda p, low, high: p.data.copy_(low + (high - low) * torch.rand(p.shape, generator=gen))
    for name, p in sae.named_parameters():
        low, high = {'W_enc': (-.5, .5), 'W_dec': (-.5, .5), 'b_dec': (-.6, .6), 'threshold': (.1, .9),
                     'r_mag': (-.4, .4)}.get(name, (-.3, .3))
        uniform(p, low, high)
    if hasattr(sae, 'topk_threshold'):
        sae.topk_threshold.fill_(0.7)
    return sae


def cases():
    """(name, saved by SAELens through the training or the inference class, settings)."""
    common = dict(d_in=D, d_sae=F, device='cpu', dtype='float32', normalize_activations='none',
                  apply_b_dec_to_input=True)
    training = lambda arch, **more: TrainingSAE.from_dict(common | dict(architecture=arch) | more)
    inference = lambda arch, **more: SAE.from_dict(common | dict(architecture=arch) | more)
    for arch in ('standard', 'gated', 'jumprelu'):
        yield f'{arch}', inference(arch)
        yield f'{arch}_trained', training(arch)
        yield f'{arch}_b_dec_not_subtracted', inference(arch, apply_b_dec_to_input=False)
    for rescale in (False, True):
        yield f'topk_rescale_{rescale}', inference('topk', k=6, rescale_acts_by_decoder_norm=rescale)
        yield f'topk_trained_rescale_{rescale}', training('topk', k=6, rescale_acts_by_decoder_norm=rescale)
        yield f'batchtopk_rescale_{rescale}', training('batchtopk', k=6.5, rescale_acts_by_decoder_norm=rescale)
    yield 'matryoshka', training('matryoshka_batchtopk', k=6, matryoshka_widths=[10, 30, F])
    yield 'transcoder', inference('transcoder', d_out=D_OUT, apply_b_dec_to_input=False)
    yield 'jumprelu_transcoder', inference('jumprelu_transcoder', d_out=D_OUT, apply_b_dec_to_input=False)


def check_theirs(program, folder):
    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(5))
    rows = folder / 'rows.x'
    x.numpy().astype('<f4').tofile(rows)
    for name, sae in cases():
        name = f'saelens_{name}'
        randomise(sae)
        theirs = folder / name
        (sae.save_inference_model if isinstance(sae, TrainingSAE) else sae.save_model)(theirs)
        check_read(program, name, theirs, x, rows, folder / f'{name}_again')
        if name == 'saelens_standard':
            halves = {k: v.half() for k, v in load_file(theirs / 'sae_weights.safetensors').items()}
            bent = copy_with(theirs, folder / 'saelens_float16_weights')
            save_file(halves, bent / 'sae_weights.safetensors')
            check_read(program, 'saelens_float16_weights', bent, x, rows, folder / 'float16_again')
    # What changes the meaning of the weights must be refused.
    for name, key, value in (('layer_norm', 'normalize_activations', 'layer_norm'),
                             ('constant_norm', 'normalize_activations', 'constant_norm_rescale'),
                             ('temporal', 'architecture', 'temporal'),
                             ('no_dtype', 'dtype', None), ('no_d_sae', 'd_sae', None)):
        bent = copy_with(folder / 'saelens_standard', folder / f'refused_{name}', key, value)
        done = subprocess.run([program, 'read', bent, rows, folder / f'refused_{name}_again'], capture_output=True, text=True)
        report(f'refused_{name}', f'exit {done.returncode}:', done.returncode == 3 and key in done.stderr, done.stderr.strip())


def copy_with(source, target, key=None, value=None):
    target.mkdir()
    (target / 'sae_weights.safetensors').write_bytes((source / 'sae_weights.safetensors').read_bytes())
    cfg = json.loads((source / 'cfg.json').read_text())
    if key:
        cfg.pop(key, None)
    if value is not None:
        cfg[key] = value
    (target / 'cfg.json').write_text(json.dumps(cfg))
    return target


def check_read(program, name, theirs, x, rows, again):
    done = subprocess.run([program, 'read', theirs, rows, again], capture_output=True, text=True)
    if done.returncode:
        report(name, 'the library reads theirs', False, done.stderr.strip())
        return
    sae = load(theirs)
    compare(name, 'theirs in the library', sae, x, again)
    close(name, 'saved again', results(load(again), x)[1], results(sae, x)[1])


def main(program):
    print(f'sae-lens {sae_lens.__version__}, torch {torch.__version__}')
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        check_ours(program, Path(scratch))
        check_theirs(program, Path(scratch))
    print(f'{len(failures)} failures' if failures else 'all agree')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
