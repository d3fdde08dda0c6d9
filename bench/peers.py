# SPDX-License-Identifier: MIT
"""Training steps of other libraries, as workers of bench_drive (worker.h says what a worker does).

usage: peers.py torch|saelens|sparsify|dictionary_learning [--arch NAME] [--precision fp32|bf16] ...

Whole steps as each library makes them: forward, loss, backward, clipping, Adam, decoder norm, and
its count of dead latents. The rows are the ones that the other workers see, scaled as atmsae scales
them. Scheduling, logging and loading are left out.
"""
import argparse
import contextlib
import importlib
import os
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--arch", default="topk")
parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
for name, default in [("d", 768), ("F", 16384), ("n", 4096), ("k", 32), ("threads", 0), ("warm", 0)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--serve", action="store_true")
options = parser.parse_args()

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # else it looks for a GPU
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer


def answer(text):
    print(text, file=answers, flush=True)


def memory_mb(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


def autocast(torch):
    if options.precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def saelens_step(torch):
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kinds = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": options.k}),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": options.k}),
        "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {}),
    }
    sae_class, config_class, extra = kinds[options.arch]
    sae = sae_class(config_class(d_in=options.d, d_sae=options.F, device="cpu", **extra))
    config = SAETrainerConfig(total_training_samples=1000 * options.n, train_batch_size_samples=options.n,
                              lr=2e-4, lr_end=2e-5, device="cpu", autocast=options.precision == "bf16")
    trainer = SAETrainer(config, sae, data_provider=None)
    return lambda x: trainer._train_step(sae, x)


def sparsify_step(torch):
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(options.d, SparseCoderConfig(num_latents=options.F, k=options.k))
    optimizer = torch.optim.Adam(sae.parameters(), lr=2e-4)
    since_fired = torch.zeros(options.F, dtype=torch.long)
    state = {"first": True}

    def step(x):
        # What the hook and the loop of sparsify/trainer.py do with one batch; it does not clip.
        if state.pop("first", False):
            sae.b_dec.data = x.mean(0)
        sae.set_decoder_norm_to_unit_norm()
        with autocast(torch):
            out = sae(x, dead_mask=since_fired > 10_000_000)
        (out.fvu + out.auxk_loss / 32).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            fired = torch.zeros(options.F, dtype=torch.bool)
            fired[out.latent_indices.flatten()] = True
            since_fired.add_(len(x))
            since_fired[fired] = 0

    return step


def dictionary_learning_step(torch):
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(steps=100_000, activation_dim=options.d, dict_size=options.F, k=options.k, layer=0,
                          lm_name="none", lr=2e-4, device="cpu", seed=0)
    # A step past the first, which would take the geometric median, and past the threshold's start.
    return lambda x: trainer.update(2000, x)


def torch_step(torch):
    w = torch.randn(options.F, options.d)

    def step(x):
        with torch.no_grad(), autocast(torch):
            torch.nn.functional.linear(x, w)

    return step


def main():
    import numpy
    import subprocess
    import torch

    if options.precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        answer("skip this CPU has no bf16 products; emulated ones take minutes")
        return
    threads = options.threads or os.cpu_count()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = numpy.frombuffer(subprocess.run([os.environ["ATMSAE_BENCH_ROWS"], "--d", str(options.d), "--n", str(options.n)],
                                           check=True, stdout=subprocess.PIPE).stdout, dtype=numpy.float32)
    x = torch.from_numpy(rows.copy()).reshape(-1, options.d)
    del rows
    x *= options.d**0.5 / x.norm(dim=1).mean()
    start = {"torch": torch_step, "saelens": saelens_step, "sparsify": sparsify_step,
             "dictionary_learning": dictionary_learning_step}[options.peer]
    modules = {"saelens": ["sae_lens.training.sae_trainer"], "sparsify": ["sparsify"],
               "dictionary_learning": ["dictionary_learning.trainers.top_k"]}
    for module in modules.get(options.peer, []):
        importlib.import_module(module)
    base = memory_mb("VmRSS")
    with open("/proc/self/clear_refs", "w") as forget:
        forget.write("5")
    step = start(torch)
    batches = 0

    def once():
        nonlocal batches
        first = batches * options.n % (len(x) - options.n + 1)
        batches += 1
        begin = time.perf_counter()
        step(x[first:first + options.n])
        return time.perf_counter() - begin

    once()
    once()
    answer(f"ready threads={threads}")
    for _ in sys.stdin:
        answer(f"step={once():.6f}")
    end = "end"
    if options.peer != "torch":
        parameters = (options.F * (2 * options.d + 1) + options.d) * 12 / 2**20
        end += f" peak_mb={memory_mb('VmHWM') - base:.1f} parameters_mb={parameters:.1f}"
    answer(end)


try:
    main()
except ImportError as error:
    answer(f"skip {error}")
