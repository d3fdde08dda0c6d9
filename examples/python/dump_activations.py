# SPDX-License-Identifier: MIT
"""Activations of a causal language model on your text: files to train and to score sparse autoencoders with.

    python dump_activations.py --model HuggingFaceTB/SmolLM2-135M-Instruct --layer 9 --rows 1000000 --out DIR TEXT...

Needs torch, transformers, numpy and safetensors (and accelerate and gguf for GGUF weights). MODEL is whatever
transformers opens, or a .gguf file. TEXT: files of text; in a .jsonl file each line is a document (a string, or an
object with a key "text"), another file is cut at blank lines into documents of about 20,000 characters.

For each layer L, DIR gets (f16, one row a token, neither centred nor scaled, in random order):

    MODEL-layerL-train-00.npy ...              [about 100,000, d] each
    MODEL-layerL-valid.npy                     rows of documents that no training row is of (1 document in 32)
    MODEL-layerL-probing.safetensors           `activations` [texts, d], means over a text of 127 tokens of documents
                                               not trained on; `labels` [texts, files], "is it of this file";
                                               `is_train`; MODEL-layerL-probing.tasks.json names the files
    MODEL-layerL-first-letter.safetensors      with --words: `prompted` and `bare` [words, d], rows of single tokens
                                               a..z inside a spelling prompt and alone; `letter`, `is_train`; the
                                               words are in ...first-letter.words.txt. What is over N words goes
                                               into ...first-letter-2.safetensors, for tuning
    MODEL-train-00.tokens.npz ...              token, source (number of the file) and document of each row

A row is the output of block L (from 0) at one position of a sequence of 128 tokens: a start token and 127 of one or
several documents of a file. All files give equally many rows until they are used up. Left out are the first position
and attention sinks: positions whose norm, after some block up to the last one asked for, is over --sink times the
median of that block. (After a later block a sink may no longer stand out.) On a CPU, products are computed in
bfloat16 and sums over blocks in f32, in --jobs processes of one thread each. Files that are there already are not
made again: a stopped run goes on. The same settings give the same rows, but for roundings that differ between CPUs.
"""
import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

LENGTH, BATCH, SHARD, DOCUMENT = 127, 16, 800, 20000  # tokens, sequences at a time, sequences a file, characters


class Model:
    """The first blocks of a language model, and what a sink is after each of them."""

    def __init__(self, model, layers, sink=3.0, device="cpu"):
        self.body, self.device, self.sink, self.limits = model.base_model.to(device).eval(), device, sink, None
        # The longest list of modules is the blocks; those after the last layer wanted are not computed.
        owner, name, blocks = max(((m, n, c) for m in self.body.modules() for n, c in m.named_children()
                                   if isinstance(c, torch.nn.ModuleList)), key=lambda found: len(found[2]))
        if max(layers) >= len(blocks):
            raise SystemExit(f"layer {max(layers)}: the model has blocks 0 to {len(blocks) - 1}")
        setattr(owner, name, blocks[:max(layers) + 1])
        self.layers, self.blocks = layers, getattr(owner, name)

    @torch.no_grad()
    def __call__(self, tokens):
        """{layer: f32 [n, length, d]} for tokens [n, length], and the norms after each block [blocks, n, length]."""
        rows, norms = {layer: [] for layer in self.layers}, [[] for _ in self.blocks]

        def hook(block):
            def keep(_module, _inputs, output):
                x = (output[0] if isinstance(output, tuple) else output).float()
                norms[block].append(x.norm(dim=-1).cpu().numpy())
                if block in rows:
                    rows[block].append(x.cpu().numpy())
            return keep

        handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(self.blocks)]
        try:
            for i in range(0, len(tokens), BATCH):
                with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.device == "cpu"):
                    self.body(torch.as_tensor(tokens[i:i + BATCH].astype(np.int64)).to(self.device))
        finally:
            for handle in handles:
                handle.remove()
        return {layer: np.concatenate(x) for layer, x in rows.items()}, np.stack([np.concatenate(x) for x in norms])

    def learn_sinks(self, tokens):
        """Sets the norm above which a position is a sink, for each block, from the medians on some sequences."""
        _, norms = self(tokens)
        self.limits = self.sink * np.median(norms[:, :, 1:], axis=(1, 2))

    def rows(self, tokens):
        """({layer: f32 [n, length, d]}, keep [n, length]): keep is False for the first position and for sinks."""
        rows, norms = self(tokens)
        keep = (norms <= self.limits[:, None, None]).all(0)
        keep[:, 0] = False
        return rows, keep


def documents(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        if path.endswith(".jsonl"):
            for number, line in enumerate(file, 1):
                try:
                    value = json.loads(line)
                    yield value if isinstance(value, str) else value["text"]
                except (ValueError, KeyError, TypeError):
                    raise SystemExit(f"{path}:{number}: neither a JSON string nor an object with a key \"text\"") from None
            return
        paragraphs, size = [], 0
        for paragraph in file.read().split("\n\n"):
            paragraphs.append(paragraph)
            size += len(paragraph)
            if size > DOCUMENT:
                yield "\n\n".join(paragraphs)
                paragraphs, size = [], 0
        if size:
            yield "\n\n".join(paragraphs)


def held_back(document):
    """1 document in 32, by what it says."""
    return hashlib.sha256(document[:500].encode()).digest()[0] < 8


def sequences(tokenizer, path, start, want, seed):
    """Of a file, for training and held back: tokens int32 [n, 1 + LENGTH] and the document of each position. Paragraphs that
    came before are left out; reading ends once there are `want` sequences for training and an eighth as many held back."""
    found, seen = list(documents(path)), set()
    order = list(range(len(found)))
    random.Random(seed).shuffle(order)
    between = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    tokens, number = {False: [], True: []}, {False: [], True: []}
    for chunk in range(0, len(order), 256):
        texts, names = [], []
        for i in order[chunk:chunk + 256]:
            text = "\n\n".join(p for p in found[i].split("\n\n") if p.strip() and p not in seen and not seen.add(p))
            if text:
                texts.append(text)
                names.append(i)
        if not texts:
            continue
        for name, text, ids in zip(names, texts, tokenizer(texts, add_special_tokens=False)["input_ids"]):
            tokens[held_back(text)] += ids + between
            number[held_back(text)] += [name] * (len(ids) + len(between))
        if len(tokens[False]) > want * LENGTH and len(tokens[True]) > want * LENGTH // 8:
            break

    def cut(held):
        n = len(tokens[held]) // LENGTH
        ids = np.array(tokens[held][:n * LENGTH], np.int32).reshape(n, LENGTH)
        of = np.array(number[held][:n * LENGTH], np.int32).reshape(n, LENGTH)
        return np.pad(ids, ((0, 0), (1, 0)), constant_values=start), np.pad(of, ((0, 0), (1, 0)), mode="edge")

    return cut(False), cut(True)


def shares(sizes, want):
    """How many of each to take, `want` in all: equally many until one is used up."""
    taken, left = [0] * len(sizes), want
    for done, (i, size) in enumerate(sorted(enumerate(sizes), key=lambda pair: pair[1])):
        taken[i] = min(size, left // (len(sizes) - done))
        left -= taken[i]
    if left:
        raise SystemExit(f"the text has {sum(sizes)} sequences of {LENGTH} tokens, wanted {want}: give more text or ask for fewer rows")
    return taken


def choose(files, want, generator):
    """(tokens, documents, file of each sequence) of `want` sequences in random order; files: [(tokens, documents)]"""
    picked = [generator.permutation(len(f[0]))[:n] for f, n in zip(files, shares([len(f[0]) for f in files], want))]
    parts = [np.concatenate([f[i][p] for f, p in zip(files, picked)]) for i in (0, 1)]
    parts.append(np.repeat(np.arange(len(files), dtype=np.int16), [len(p) for p in picked]))
    order = generator.permutation(want)
    return tuple(part[order] for part in parts)


def half(rows):
    if not np.isfinite(rows.astype(np.float16)).all():
        raise SystemExit("activations do not fit into float16")
    return rows.astype(np.float16)


def replace(path, write):
    """Writes a file whole or not at all."""
    temporary = os.path.join(os.path.dirname(path), ".new-" + os.path.basename(path))
    write(temporary)
    os.replace(temporary, path)


def extract(model, start, name, chosen, seed):
    """Writes the files of one part; returns its name, rows and share of positions left out as sinks."""
    tokens, of, file = chosen
    paths = {layer: f"{start}-layer{layer}-{name}.npy" for layer in model.layers}
    side = f"{start}-{name}.tokens.npz"
    if all(map(os.path.exists, [*paths.values(), side])):
        return name, len(np.load(paths[model.layers[0]], mmap_mode="r")), None
    kept, keeps = {layer: [] for layer in model.layers}, []
    for i in range(0, len(tokens), BATCH):
        rows, keep = model.rows(tokens[i:i + BATCH])
        keeps.append(keep)
        for layer in model.layers:
            kept[layer].append(half(rows[layer][keep]))
    keep = np.concatenate(keeps)
    order = np.random.default_rng(seed).permutation(int(keep.sum()))
    for layer, path in paths.items():
        rows = np.concatenate(kept[layer])[order]
        replace(path, lambda temporary, rows=rows: np.save(temporary, rows))
    at = np.broadcast_to(file[:, None], keep.shape)
    replace(side, lambda temporary: np.savez_compressed(temporary, token=tokens[keep][order], document=of[keep][order], source=at[keep][order]))
    return name, len(order), 1 - keep[:, 1:].mean()


def probing(model, start, chosen, paths, generator):
    tokens, _, file = chosen
    means = {layer: [] for layer in model.layers}
    for i in range(0, len(tokens), BATCH):
        rows, keep = model.rows(tokens[i:i + BATCH])
        for layer in model.layers:
            means[layer].append((rows[layer] * keep[..., None]).sum(1) / np.maximum(1, keep.sum(1))[:, None])
    labels = (file[:, None] == np.arange(len(paths))).astype(np.int8)
    is_train = (generator.random(len(tokens)) < 0.8).astype(np.uint8)
    for layer in model.layers:
        save_file({"activations": half(np.concatenate(means[layer])), "labels": labels, "is_train": is_train},
                  f"{start}-layer{layer}-probing.safetensors")
        with open(f"{start}-layer{layer}-probing.tasks.json", "w", encoding="utf-8") as out:
            json.dump([os.path.basename(path) for path in paths], out)


def words(tokenizer):
    """(token, word) of single tokens that are a space and two or more letters a..z, sorted by word."""
    found = {}
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        word = text[1:]
        if text[:1] == " " and len(word) > 1 and word.isascii() and word.isalpha() and word.islower():
            found.setdefault(word, token)
    return [(token, word) for word, token in sorted(found.items())]


def letters(model, tokenizer, start, begin, found, n_words, generator):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    order = generator.permutation(len(found))
    prompt = [begin] + ids(" tree has the first letter: T\n house has the first letter: H\n")
    for part, chosen in (("", order[:n_words]), ("-2", order[n_words:2 * n_words])):
        if not len(chosen):
            continue
        chosen = [found[i] for i in sorted(chosen)]
        prompted, _ = model(np.array([prompt + [token] for token, _ in chosen]))
        bare, _ = model(np.array([[begin, token] for token, _ in chosen]))
        letter = np.array([ord(word[0]) - 97 for _, word in chosen], dtype=np.int32)
        is_train = (generator.random(len(chosen)) < 0.8).astype(np.uint8)
        for layer in model.layers:
            save_file({"prompted": half(prompted[layer][:, -1]), "bare": half(bare[layer][:, -1]), "letter": letter, "is_train": is_train},
                      f"{start}-layer{layer}-first-letter{part}.safetensors")
            with open(f"{start}-layer{layer}-first-letter{part}.words.txt", "w", encoding="utf-8") as file:
                file.writelines(word + "\n" for _, word in chosen)


def dump(model, tokenizer, paths, start, n_rows, n_valid, n_texts=3000, n_words=0, seed=0, jobs=1):
    generator = np.random.default_rng(seed)
    begin = next(token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if token is not None)
    per = lambda rows: -(-rows * 26 // (25 * LENGTH))  # sequences for so many rows: a few positions are sinks
    n_shards = max(1, -(-per(n_rows) // SHARD))
    shard = min(SHARD, per(n_rows))
    want = n_shards * shard
    files = []
    for path in paths:
        files.append(sequences(tokenizer, path, begin, max(want, 8 * (per(n_valid) + n_texts)), seed))
        print(f"{path}: {len(files[-1][0][0])} sequences for training, {len(files[-1][1][0])} held back", flush=True)
    train = choose([f[0] for f in files], want, generator)
    held = choose([f[1] for f in files], per(n_valid) + n_texts, generator)
    model.learn_sinks(held[0][:4 * BATCH])
    cut = lambda chosen, a, b: tuple(part[a:b] for part in chosen)
    work = [("valid", cut(held, 0, per(n_valid)), seed)]
    work += [(f"train-{s:02d}", cut(train, s * shard, (s + 1) * shard), seed + s + 1) for s in range(n_shards)]
    if n_words:
        letters(model, tokenizer, start, begin, words(tokenizer), n_words, generator)
    if n_texts:
        probing(model, start, cut(held, per(n_valid), None), paths, generator)
    global inherited
    inherited = model, start  # processes have it from the fork: it is not sent to them
    with multiprocessing.get_context("fork").Pool(jobs) if jobs > 1 else contextlib.nullcontext() as pool:
        for name, n, sinks in (pool.imap if pool else map)(extract_one, work):
            print(f"{name}: {n} rows" + (" (was there)" if sinks is None else f", {sinks:.2%} of the positions left out as sinks"), flush=True)


def extract_one(job):
    return extract(*inherited, *job)


def settle(path, settings):
    """A folder holds the files of one set of settings."""
    try:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
    except FileNotFoundError:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=1)
        return
    for key, value in settings.items():
        if before.get(key) != value:
            raise SystemExit(f"{path}: made with {key} {before.get(key)}, now {value}: choose another --out")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name, folder or .gguf file")
    parser.add_argument("--layer", required=True, help="block, from 0; several with commas, from one pass")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=1000000, help="training rows, at least; default 1000000")
    parser.add_argument("--valid", type=int, default=20000, help="rows held back; default 20000")
    parser.add_argument("--texts", type=int, default=3000, help="texts of the probing tasks; default 3000")
    parser.add_argument("--words", type=int, default=0, metavar="N", help="first-letter files of N words each; default none")
    parser.add_argument("--sink", type=float, default=3.0, help="norm of a sink in medians; default 3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, help="processes; default one a CPU, or 1 on another device")
    parser.add_argument("text", nargs="+")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    where, more = options.model, {}
    if where.endswith(".gguf"):
        where, more["gguf_file"] = os.path.split(where)
    name = os.path.splitext(os.path.basename(options.model.rstrip("/")))[0].lower()
    os.makedirs(options.out, exist_ok=True)
    settle(os.path.join(options.out, name + ".json"),
           {key: value for key, value in vars(options).items() if key not in ("out", "jobs", "device")})
    tokenizer = AutoTokenizer.from_pretrained(where or ".", **more)
    model = AutoModelForCausalLM.from_pretrained(where or ".", dtype=torch.float32, **more)
    jobs = options.jobs or (len(os.sched_getaffinity(0)) if options.device == "cpu" else 1)
    torch.set_num_threads(1 if jobs > 1 else torch.get_num_threads())
    layers = [int(layer) for layer in options.layer.split(",")]
    dump(Model(model, layers, options.sink, options.device), tokenizer, options.text, os.path.join(options.out, name),
         options.rows, options.valid, options.texts, options.words, options.seed, jobs)


if __name__ == "__main__":
    sys.exit(main())
