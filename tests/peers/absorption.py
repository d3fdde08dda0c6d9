# SPDX-License-Identifier: MIT
"""First-letter absorption by SAEBench's own code and by the library, from the same words: `absorption.py PROGRAM SOURCE`.

PROGRAM is the atmsae command, SOURCE the project's folder. Both sides get the words of examples/data, each with its
activations, and an SAE in a folder; only numbers are compared. Four SAEs: three that PROGRAM trains, and one that
SAELens trains, whose decoder rows are of different norms. A stub stands for the language model, because the
activations are there already; all else is SAEBench's code, called as its main.run_eval calls it: it trains the probe,
ranks latents, chooses those of each letter, judges every word and takes the means. It draws random numbers, so it runs
eight times (the suite: as often as ATMSAE_PEERS_ABSORPTION says, and not without it); the library's full rate and fraction must be within two standard
deviations and 10 % of their mean. That wants all words: with half of them SAEBench's probe, in its 50 epochs, stops so far
short of its optimum that its fractions are a fifth smaller (doc/evaluation.md, section 1).

Options for trying more: --runs N; --every N (every N-th word; 1: all); --max-k N; --steps N, of the k-sparse probe (100
are SAEBench's default for the 6400 training words, and too few); --epochs N, of the probe (50); --sae DIR (instead of the
four; may be repeated).
"""
import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

os.environ.update(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', TQDM_DISABLE='1')
warnings.filterwarnings('ignore')
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

LAYER, TRAINING, SCALED_NORM = 9, 100, 24.0 # SAELens trains for some steps on rows of a mean norm of sqrt(d)
TRAIN = ['--d-sae', '512', '--batch', '1024', '--rows', '205k']
METHODS = {'batchtopk': ['--mask', 'none', '--k', '32'], 'atm': ['--mask', 'atm', '--k', '32'],
           'jumprelu': ['--mask', 'none', '--arch', 'jumprelu', '--target-l0', '32']}


# ---- the SAEs ------------------------------------------------------------------------------------------------

def train_saelens(rows, folder):
    """A BatchTopK SAE of SAELens, by its own training step, Adam and threshold."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput
    torch.manual_seed(0)
    rows = torch.from_numpy(np.load(rows).astype(np.float32))
    scale = SCALED_NORM / rows.norm(dim=1).mean()
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=rows.shape[1], d_sae=512, k=32, topk_threshold_lr=0.1))
    sae.b_dec.data = scale * rows.mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-3)
    for step in range(TRAINING):
        batch = scale * rows[torch.randint(len(rows), (256,))]
        dead = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
        out = sae.training_forward_pass(TrainStepInput(batch, {}, dead, step, False))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    sae.fold_activation_norm_scaling_factor(float(scale))
    norms = sae.W_dec.norm(dim=1)
    assert norms.std() > 0.05 * norms.mean(), 'the decoder norms are even'
    sae.save_inference_model(folder)


def make_saes(program, data, out):
    for name, options in METHODS.items():
        subprocess.run([program, 'train', data / 'activations-train.npy', '--out', out / name, '--threads', '2', '--quiet', *TRAIN, *options],
                       check=True)
    train_saelens(data / 'activations-train.npy', out / 'saelens')
    return [out / name for name in (*METHODS, 'saelens')]


# ---- the words -------------------------------------------------------------------------------------------------

def take_words(source, every, out):
    """Every so many words of each letter, and names for them: their letter, then their number in letters."""
    whole = load_file(source)
    place, seen = np.zeros(len(whole['letter']), int), {}
    for i, letter in enumerate(whole['letter'].tolist()):
        place[i] = seen[letter, whole['is_train'][i]] = seen.get((letter, whole['is_train'][i]), -1) + 1
    some = {k: v[place % every == 0] for k, v in whole.items()}
    save_file(some, out)
    def name(i):
        return chr(97 + some['letter'][i]) + ''.join(chr(97 + i // 26 ** k % 26) for k in range(3))
    return some['prompted'].astype(np.float32), some['letter'], some['is_train'] == 1, [name(i) for i in range(len(some['letter']))]


class Tokenizer:
    def __init__(self, words):
        self.vocab = {w: i for i, w in enumerate(words)}

    def convert_tokens_to_string(self, tokens):
        return tokens[0]


class Model:
    """Gives the stored row of a prompt's word, at every position."""

    def __init__(self, rows, words):
        self.rows, self.tokenizer = torch.from_numpy(rows), Tokenizer(words)
        self.cfg = SimpleNamespace(model_name='stored', d_model=rows.shape[1])

    def to_tokens(self, _):
        return [[0]]

    def run_with_cache(self, prompts, names_filter):
        at = [self.tokenizer.vocab[p.rsplit('\n', 1)[-1].split(' has the first')[0]] for p in prompts]
        return None, {names_filter[0]: self.rows[at][:, None].expand(-1, 8, -1)}


# ---- SAEBench ----------------------------------------------------------------------------------------------------

def saebench(job):
    """One run: a probe, and with it the scores of every SAE. [(folder, results)]"""
    seed, words_file, every, folders, max_k, steps, probe_epochs = job
    from sae_bench.evals.absorption import main as benchmark
    from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig
    from sae_bench.evals.absorption.feature_absorption import run_feature_absortion_experiment
    from sae_bench.evals.absorption.k_sparse_probing import run_k_sparse_probing_experiment
    from sae_bench.evals.absorption.probing import gen_and_save_df_acts_probing, save_probe_and_data, train_linear_probe_for_task
    from sae_bench.evals.absorption.prompting import SpellingPrompt
    from sae_lens import SAE
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, 'w') # its progress
    torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
    scratch = tempfile.TemporaryDirectory()
    work = Path(scratch.name)
    rows, letter, is_train, words = take_words(words_file, every, work / 'words.safetensors')
    # A letter without training or test words ends SAEBench with a KeyError.
    have = [c for c in range(26) if (letter[is_train] == c).any() and (letter[~is_train] == c).any()]
    for module in [m for name, m in sys.modules.items() if name.startswith('sae_bench.evals.absorption') and hasattr(m, 'LETTERS')]:
        module.LETTERS = ''.join(chr(97 + c) for c in have)
    order = [i for i in random.sample(range(len(words)), len(words)) if letter[i] in have]
    config, model = AbsorptionEvalConfig(model_name='stored'), Model(rows, words)
    sets = [[(SpellingPrompt(f'\n{config.prompt_template.format(word=words[i])}', words[i][0].upper(), words[i]), have.index(letter[i]))
             for i in order if is_train[i] == train] for train in (True, False)]
    probes = work / 'probes'
    path = probes / 'stored' / f'layer_{LAYER}'
    frames = gen_and_save_df_acts_probing(model, *sets, path=path, hook_point=f'blocks.{LAYER}.hook_resid_post', batch_size=64,
                                          position_idx=config.prompt_token_pos)
    cpu = torch.device('cpu')
    probe = train_linear_probe_for_task(frames[0], frames[1], cpu, frames[2], frames[3], num_classes=len(have), batch_size=64,
                                        num_epochs=probe_epochs, lr=1e-2) # as common.train_and_save_probes sets them
    save_probe_and_data(*probe, probing_path=path)
    results = []
    for folder in folders:
        sae = SAE.load_from_disk(folder, device='cpu')
        sae.fold_W_dec_norm() # what SAEBench does to SAEs that it is given by name
        common = dict(model=model, sae=sae, layer=LAYER, sae_name='sae', force=True, max_k_value=max_k, probes_dir=probes,
                      prompt_template=config.prompt_template, prompt_token_pos=config.prompt_token_pos, device='cpu')
        epochs = config.k_sparse_probe_num_epochs
        sparse = run_k_sparse_probing_experiment(**common, f1_jump_threshold=config.f1_jump_threshold, verbose=False,
                                                 k_sparse_probe_l1_decay=config.k_sparse_probe_l1_decay,
                                                 k_sparse_probe_batch_size=-(-len(sets[0]) * epochs // steps),
                                                 k_sparse_probe_num_epochs=epochs, precalc_k_sparse_probe_sae_acts=True,
                                                 eval_batch_size=config.eval_k_sparse_probe_batch_size, experiment_dir=work / 'k')
        raw = run_feature_absortion_experiment(**common, feature_split_f1_jump_threshold=config.f1_jump_threshold, batch_size=256,
                                               experiment_dir=work / 'a', sparse_probing_experiment_dir=work / 'k')
        table, f1 = benchmark._aggregate_results_df(raw), dict(zip(sparse['letter'], sparse['f1_probe']))
        table = table[[f1[c] > config.min_GT_probe_f1 for c in table['letter']]]
        first = dict(zip(sparse['letter'], sparse['f1_sparse_sae_1']))
        results.append((folder, dict(
            full=statistics.mean(table['full_absorption_rate']), fraction=statistics.mean(table['mean_absorption_fraction']),
            words=int(table['num_probe_true_positives'].sum()), letters=len(table), probe_f1=statistics.mean(f1[c] for c in table['letter']),
            sparse_f1=statistics.mean(first[c] for c in table['letter']))))
    return results


# ---- the library ---------------------------------------------------------------------------------------------------

def library(program, folder, rows, words, max_k, probe):
    done = subprocess.run([program, 'eval', '--sae', folder, '--input', rows, '--words', words, '--absorption-max-split', str(max_k),
                           '--absorption-probe', probe, '--threads', '2', '--json'], check=True, capture_output=True, text=True)
    r = json.loads(done.stdout)
    return dict(full=r['absorption'], fraction=r['absorption_fraction_v060'], words=r['absorption_true_positives'],
                letters=r['absorption_classes'], probe_f1=r['probe_f1'], sparse_f1=r['sparse_f1'])


def line(what, r):
    print(f'  {what:24s} full {r["full"]:.4f}  fraction {r["fraction"]:.4f}  words {r["words"]:.0f}  letters {r["letters"]:.0f}'
          f'  probe F1 {r["probe_f1"]:.3f}  k = 1 F1 {r["sparse_f1"]:.3f}')


def main():
    options = argparse.ArgumentParser()
    options.add_argument('program')
    options.add_argument('source', type=Path)
    options.add_argument('--runs', type=int, default=8)
    options.add_argument('--every', type=int, default=1)
    options.add_argument('--max-k', type=int, default=3)
    options.add_argument('--steps', type=int, default=1250)
    options.add_argument('--epochs', type=int, default=50)
    options.add_argument('--sae', action='append')
    o = options.parse_args()
    torch.set_num_threads(2)
    data, failures = o.source / 'examples/data', 0
    with tempfile.TemporaryDirectory() as scratch:
        out, began = Path(scratch), time.time()
        folders = o.sae or [str(f) for f in make_saes(o.program, data, out)]
        words = out / 'words.safetensors'
        n = len(take_words(data / 'words.safetensors', o.every, words)[3])
        print(f'{n} words, {o.runs} runs of SAEBench, {o.steps} steps of its k-sparse probe; SAEs trained in {time.time() - began:.0f} s', flush=True)
        with multiprocessing.get_context('spawn').Pool(2) as pool:
            runs = pool.map(saebench, [(seed, data / 'words.safetensors', o.every, folders, o.max_k, o.steps, o.epochs) for seed in range(o.runs)], 1)
        for folder in folders:
            theirs = [dict(run)[folder] for run in runs]
            mean = {k: statistics.mean(t[k] for t in theirs) for k in theirs[0]}
            sd = {k: statistics.stdev(t[k] for t in theirs) for k in theirs[0]}
            print(f'{Path(folder).name}:')
            line('SAEBench, mean', mean)
            print(f'  {"SAEBench, sd":24s} full {sd["full"]:.4f}  fraction {sd["fraction"]:.4f}')
            for probe in 'saebench', 'free':
                ours = library(o.program, folder, data / 'activations-valid.npy', words, o.max_k, probe)
                line(f'atmsae, probe {probe}', ours)
                far = [k for k in ('full', 'fraction') if abs(ours[k] - mean[k]) > 2 * sd[k] + 0.1 * mean[k]]
                if probe == 'saebench' and far:
                    failures += 1
                print(f'  {"":24s} ' + ('near enough' if not far else 'too far: ' + ', '.join(far)))
        print(f'{len(folders)} SAEs, {failures} failures, {time.time() - began:.0f} s')
    return failures > 0


if __name__ == '__main__':
    sys.exit(main())
