# SPDX-License-Identifier: MIT
"""Writes small SAEs in the formats of other packages, each by that package's own code where it has any,
and beside them what that code makes of some rows: NAME/ and NAME.expected.safetensors with x, codes and
decoded.

    python3 tests/reference/make_formats.py tests/fixtures/formats [SEED] [PACKAGE...]

PACKAGE: dictionary_learning (0.1.0), sparsify (eai-sparsify 1.3.3), gemma (numpy alone), saelens
(sae-lens 6.54.12); all that are installed by default. tests/peers/formats.py runs the same with other
seeds. What the packages import for training and downloads only is replaced by mocks.
"""
import importlib.abc
import importlib.util
import json
import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from safetensors.torch import save_file

ROWS, D, D_OUT, F, K = 12, 6, 5, 16, 4
MOCKED = {'nnsight', 'wandb', 'transformers', 'accelerate', 'datasets', 'schedulefree', 'bitsandbytes',
          'huggingface_hub', 'torchvision', 'zstandard', 'circuitsvis', 'umap', 'plotly', 'pandas', 'peft'}


class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for modules that inference does not use, installed or not."""

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self, is_package=True) if name.split('.')[0] in MOCKED else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__spec__, module.__path__ = spec, []
        return module

    def exec_module(self, module):
        pass


def randomise(module, generator):
    """Values of ordinary size; decoder rows of any norm."""
    for name, p in list(module.named_parameters()) + list(module.named_buffers()):
        if not p.dtype.is_floating_point:
            continue
        low, high = (.2, .9) if 'threshold' in name else (-.6, .6)
        p.data.copy_(low + (high - low) * torch.rand(p.shape, generator=generator))


def expect(folder, x, codes, decoded):
    values = dict(x=x, codes=codes, decoded=decoded)
    save_file({k: v.detach().to(torch.float32).contiguous() for k, v in values.items()},
              f'{folder}.expected.safetensors')


def rows(generator):
    return 1.5 * torch.randn(ROWS, D, generator=generator)


# ---- dictionary_learning ----------------------------------------------------------------------------------

def dictionary_learning(out, generator):
    sys.meta_path.insert(0, Mocks())
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    for make in (lambda: AutoEncoder(D, F), lambda: AutoEncoderNew(D, F), lambda: GatedAutoEncoder(D, F),
                 lambda: JumpReluAutoEncoder(D, F), lambda: AutoEncoderTopK(D, F, K), lambda: BatchTopKSAE(D, F, K),
                 lambda: MatryoshkaBatchTopKSAE(D, F, K, [4, F - 4])):
        ae = make()
        randomise(ae, generator)
        name = type(ae).__name__
        folder = out / f'dictionary_{name}'
        folder.mkdir(parents=True)
        torch.save(ae.state_dict(), folder / 'ae.pt')
        trainer = dict(trainer_class='Trainer', dict_class=name, lr=1e-4, steps=100, layer=8, activation_dim=D, dict_size=F,
                       lm_name='EleutherAI/pythia-70m-deduped', device='cuda:0', submodule_name='resid_post_layer_8')
        if hasattr(ae, 'k'):
            trainer['k'] = int(ae.k)
        (folder / 'config.json').write_text(json.dumps(dict(trainer=trainer, buffer=dict(d_submodule=D, ctx_len=128)), indent=4))
        x = rows(generator)
        codes = ae.encode(x)
        expect(folder, x, codes, ae.decode(codes))


# ---- eai-sparsify ------------------------------------------------------------------------------------------

def sparsify(out, generator):
    os.environ['SPARSIFY_DISABLE_TRITON'] = '1' # its GPU kernels
    sys.meta_path.insert(0, Mocks())
    from sparsify import SparseCoder, SparseCoderConfig
    for name, settings in dict(topk=dict(num_latents=F), multi=dict(expansion_factor=3, multi_topk=True),
                               transcode=dict(num_latents=F, transcode=True)).items():
        coder = SparseCoder(D, SparseCoderConfig(k=K, **settings))
        randomise(coder, generator)
        folder = out / f'sparsify_{name}'
        coder.save_to_disk(folder)
        x = rows(generator)
        top_acts, top_indices, _ = coder.encode(x)
        codes = torch.zeros(ROWS, coder.num_latents).scatter(1, top_indices, top_acts)
        expect(folder, x, codes, coder.decode(top_acts, top_indices))


# ---- Gemma Scope: published arrays and the formula of its tutorial -----------------------------------------

def jumprelu(p, x):
    pre = x @ p['W_enc'] + p['b_enc']
    codes = (pre > p['threshold']) * torch.relu(pre)
    return codes, codes @ p['W_dec'] + p['b_dec']


def gemma(out, generator):
    for name, d_out in (('scope', D), ('scope_transcoder', D_OUT), ('scope_2', D), ('scope_2_transcoder', D)):
        shapes = dict(W_enc=(D, F), W_dec=(F, d_out), b_enc=(F,), b_dec=(d_out,), threshold=(F,))
        p = {k: (-.6 if k != 'threshold' else .2) + (1.2 if k != 'threshold' else .7) * torch.rand(s, generator=generator)
             for k, s in shapes.items()}
        folder = out / f'gemma_{name}'
        folder.mkdir(parents=True)
        if 'scope_2' in name:
            save_file({k.replace('W_', 'w_'): v for k, v in p.items()}, folder / 'params.safetensors')
            config = dict(architecture='jump_relu', model_name='gemma-v3-270m-pt', type='sae', width=F, l0=20,
                          hf_hook_point_in='model.layers.5.output', affine_connection=False)
            if 'transcoder' in name:
                config['hf_hook_point_out'] = 'model.layers.5.post_feedforward_layernorm.output'
            (folder / 'config.json').write_text(json.dumps(config, indent=2))
        else:
            np.savez(folder / 'params.npz', **{k: v.numpy() for k, v in p.items()})
        x = rows(generator)
        expect(folder, x, *jumprelu(p, x))


# ---- SAELens: checkpoints of training classes, and the rarer inference forms ---------------------------------

def saelens(out, generator):
    from sae_lens import SAE, TrainingSAE
    common = dict(d_in=D, d_sae=F, device='cpu', dtype='float32', normalize_activations='none',
                  metadata=dict(model_name='gpt2', hook_name='blocks.8.hook_resid_pre'))
    forms = dict(
        batchtopk=TrainingSAE.from_dict(common | dict(architecture='batchtopk', k=3.5, rescale_acts_by_decoder_norm=False)),
        matryoshka=TrainingSAE.from_dict(common | dict(architecture='matryoshka_batchtopk', k=3, matryoshka_widths=[5, 9, F],
                                                       rescale_acts_by_decoder_norm=True)),
        topk=SAE.from_dict(common | dict(architecture='topk', k=K, rescale_acts_by_decoder_norm=True)),
        uncentred=SAE.from_dict(common | dict(architecture='jumprelu', apply_b_dec_to_input=False)),
        transcoder=SAE.from_dict(common | dict(architecture='jumprelu_transcoder', d_out=D_OUT, apply_b_dec_to_input=False)))
    for name, sae in forms.items():
        randomise(sae, generator)
        if hasattr(sae, 'topk_threshold'):
            sae.topk_threshold.fill_(0.45)
        folder = out / f'saelens_{name}'
        sae.save_model(folder)
        reader = sae
        if isinstance(sae, TrainingSAE): # what they compute at inference
            sae.save_inference_model(f'{folder}.inference')
            reader = SAE.load_from_disk(f'{folder}.inference', device='cpu')
            for part in Path(f'{folder}.inference').iterdir():
                part.unlink()
            Path(f'{folder}.inference').rmdir()
        x = rows(generator)
        codes = reader.encode(x)
        codes = codes.to_dense() if codes.is_sparse else codes
        expect(folder, x, codes, reader.decode(codes))


PACKAGES = dict(dictionary_learning=dictionary_learning, sparsify=sparsify, gemma=gemma, saelens=saelens)


def main(out, seed=1, *wanted):
    for name in wanted or PACKAGES:
        generator = torch.Generator().manual_seed(int(seed))
        torch.manual_seed(int(seed))
        try:
            with torch.no_grad():
                PACKAGES[name](Path(out), generator)
        except ModuleNotFoundError as error:
            if wanted:
                raise
            print(f'{name}: left out: {error}')
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Mocks)]
        for module in [m for m, v in sys.modules.items() if isinstance(v, MagicMock)]:
            del sys.modules[module] # the next may need the real one


if __name__ == '__main__':
    main(*sys.argv[1:])
