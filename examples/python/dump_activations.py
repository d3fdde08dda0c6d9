# SPDX-License-Identifier: MIT
"""Dumps activations of a causal language model into the folder that `bench/study/run --data` reads (doc/study.md
has the layout). Needs torch, transformers, numpy and safetensors.

    python dump_activations.py --model HuggingFaceTB/SmolLM2-135M-Instruct --layer 9 --out DIR TEXT...

TEXT: plain text files, UTF-8. Rows are the outputs of block LAYER (from 0) on sequences of 127 tokens, without the
first position and without attention sinks (rows whose norm is over ten times the median's). Sequences of each
tenth block of the text go to the validation rows. Probing tasks are "is this text from file i". Words are the
tokenizer's single tokens of lower-case letters with a space before them.
"""
import argparse
import os

import numpy as np
import torch
from safetensors.numpy import save_file

LENGTH, BATCH = 127, 16


def blocks(model):
    """The list of transformer blocks: the longest list of modules that the model has."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


@torch.no_grad()
def activations(model, layer, tokens):
    """Outputs of a block for tokens [n, length], as f32 [n, length, d]."""
    caught = []

    def hook(_module, _inputs, output):
        caught.append((output[0] if isinstance(output, tuple) else output).float())

    handle = blocks(model)[layer].register_forward_hook(hook)
    try:
        for i in range(0, len(tokens), BATCH):
            model(torch.as_tensor(tokens[i:i + BATCH]).to(model.device))
    finally:
        handle.remove()
    return torch.cat(caught).cpu().numpy()


def sequences(tokenizer, path, length=LENGTH):
    """The tokens of a file, cut into [n, length]; the rest is left out."""
    with open(path, encoding="utf-8") as file:
        tokens = tokenizer(file.read(), add_special_tokens=False)["input_ids"]
    n = len(tokens) // length
    return np.array(tokens[:n * length], dtype=np.int64).reshape(n, length)


def without_sinks(rows):
    norms = np.linalg.norm(rows, axis=1)
    return norms <= 10 * np.median(norms)


def split(n, generator):
    """True for validation: each tenth of the blocks of eight neighbouring sequences, drawn at random."""
    n_blocks = max(2, -(-n // 8))
    chosen = generator.permutation(n_blocks)[:max(1, n_blocks // 10)]
    return np.isin(np.arange(n) // 8, chosen)


def words(tokenizer):
    """(token, word) of single tokens that are a space and two or more letters a..z, sorted by word."""
    found = {}
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        word = text[1:]
        if text[:1] == " " and len(word) > 1 and word.isascii() and word.isalpha() and word.islower():
            found.setdefault(word, token)
    return [(token, word) for word, token in sorted(found.items())]


def word_rows(model, tokenizer, layer, found):
    """Rows at the word's token: alone after a token that starts a text, and in a prompt with two examples."""
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    start = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id or 0]
    prompt = start + ids(" tree has the first letter: T\n house has the first letter: H\n")
    after = ids(" has the first letter:")
    prompted = activations(model, layer, np.array([prompt + [token] + after for token, _ in found]))[:, len(prompt)]
    bare = activations(model, layer, np.array([start + [token] for token, _ in found]))[:, 1]
    return prompted, bare


def half(rows):
    if not np.isfinite(rows.astype(np.float16)).all():
        raise SystemExit("activations do not fit into float16")
    return rows.astype(np.float16)


def dump(model, tokenizer, layer, paths, out, name, n_train=90000, n_valid=10000, n_texts=6000, n_words=8000, seed=0):
    generator = np.random.default_rng(seed)
    os.makedirs(out, exist_ok=True)
    rows = {False: [], True: []}
    means, source = [], []
    for i, path in enumerate(paths):
        tokens = sequences(tokenizer, path)
        if not len(tokens):
            continue
        valid = split(len(tokens), generator)
        for kind in (False, True):
            if not (valid == kind).any():
                continue
            x = activations(model, layer, tokens[valid == kind])[:, 1:]
            flat = x.reshape(-1, x.shape[-1])
            keep = without_sinks(flat)
            rows[kind].append(flat[keep])
            weights = keep.reshape(x.shape[:2])[..., None]
            means.append((x * weights).sum(1) / np.maximum(1, weights.sum(1)))
            source += [i] * len(x)
    train, valid = (generator.permutation(np.concatenate(rows[kind])) for kind in (False, True))
    if len(train) < n_train or len(valid) < n_valid:
        raise SystemExit(f"{len(train)} training and {len(valid)} validation rows, wanted {n_train} and {n_valid}: give more text")
    start = os.path.join(out, name)
    for part, piece in enumerate(np.array_split(train[:n_train], 3)):
        np.save(f"{start}-train-{part}.npy", half(piece))
    save_file({"activations": half(valid[:n_valid])}, start + "-valid.safetensors")

    order = generator.permutation(len(source))[:n_texts]
    labels = (np.array(source)[order][:, None] == np.arange(len(paths))).astype(np.int8)
    save_file({"activations": half(np.concatenate(means)[order]), "labels": labels,
               "is_train": (generator.random(len(order)) < 0.8).astype(np.uint8)}, start + "-probing.safetensors")

    found = words(tokenizer)
    if len(found) > n_words:
        found = [found[i] for i in sorted(generator.permutation(len(found))[:n_words])]
    prompted, bare = word_rows(model, tokenizer, layer, found)
    save_file({"prompted": half(prompted), "bare": half(bare), "letter": np.array([ord(w[0]) - 97 for _, w in found], dtype=np.int32),
               "is_train": (generator.random(len(found)) < 0.8).astype(np.uint8)}, start + "-first-letter.safetensors")
    with open(start + "-first-letter.words.txt", "w", encoding="utf-8") as file:
        file.writelines(word + "\n" for _, word in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("text", nargs="+")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, torch_dtype=torch.float32).eval()
    name = f"{options.model.rsplit('/', 1)[-1].lower()}-layer{options.layer}"
    dump(model, tokenizer, options.layer, options.text, options.out, name, seed=options.seed)


if __name__ == "__main__":
    main()
