# SPDX-License-Identifier: MIT
"""examples/python/dump_activations.py without the network: a tiny Llama with random weights, a tokenizer made on the spot."""
import json
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import dump_activations as dump

WORDS = ["ab", "bat", "cat", "dog", "egg", "fig", "gnu", "hen", "ice", "jar", "kit", "log"]


def tokenizer():
    vocabulary = {"<s>": 0, "?": 1}
    for word in WORDS + ["tree", "has", "the", "first", "letter:", "T\n", "house", "H\n", "Up", "x1", "z"]:
        vocabulary["\u0120" + word] = len(vocabulary)
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    from tokenizers import decoders
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="?")


def main():
    torch.manual_seed(0)
    t = tokenizer()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=24, intermediate_size=32, num_hidden_layers=3,
                                         num_attention_heads=2, num_key_value_heads=2)).eval()

    # The rows are the model's own hidden states: output of block 1 = hidden_states[2], up to bfloat16's products.
    tokens = np.array([[2, 3, 4, 5], [5, 4, 3, 2]])
    with torch.no_grad():
        states = [h.numpy() for h in model(torch.as_tensor(tokens), output_hidden_states=True).hidden_states]
    shortened = dump.Model(model, [0, 1])
    rows, norms = shortened(tokens)
    assert len(shortened.blocks) == 2
    for layer in (0, 1):
        assert rows[layer].shape == (2, 4, 24) and np.allclose(rows[layer], states[layer + 1], atol=0.02 * np.abs(states[layer + 1]).max())
        assert np.allclose(norms[layer], np.linalg.norm(rows[layer], axis=-1), rtol=1e-5)

    # A position whose norm is far above the median after any block is left out, and the first always.
    shortened.limits = np.array([np.inf, np.sort(norms[1][:, 1:].ravel())[-2]])
    _, keep = shortened.rows(tokens)
    assert not keep[:, 0].any() and keep.sum() == 5 and not keep.ravel()[norms[1].ravel() > shortened.limits[1]].any()
    shortened.learn_sinks(tokens)
    assert np.allclose(shortened.limits, 3 * np.median(norms[:, :, 1:], axis=(1, 2)))

    # Words: a space and two or more small letters, nothing else.
    found = [word for _, word in dump.words(t)]
    assert found == sorted(WORDS + ["tree", "has", "the", "first", "house"]), found

    # Files are used up from the smallest on.
    assert dump.shares([5, 100, 7], 30) == [5, 18, 7] and dump.shares([4, 4, 4], 10) == [3, 3, 4]

    generator = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        # 600 documents of 130 different words each in two files, one of them with objects.
        vocabulary = list(t.get_vocab())
        paths, texts = [], []
        for i in range(2):
            paths.append(os.path.join(folder, f"{i}.jsonl"))
            texts.append([" ".join(generator.choice(WORDS, 130)) for _ in range(600)])
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": text} if i else text) + "\n" for text in texts[-1])
        start = os.path.join(folder, "tiny")
        dump.dump(shortened, t, paths, start, n_rows=3000, n_valid=500, n_texts=8, n_words=10)
        parts = [np.load(f"{start}-layer{layer}-{part}.npy") for layer in (0, 1) for part in ("train-00", "valid")]
        assert len(parts[0]) == len(parts[2]) >= 3000 and len(parts[1]) >= 500
        assert all(p.dtype == np.float16 and p.shape[1] == 24 for p in parts)

        # A row's token is in the document that its side file names, and validation rows are of documents held back.
        kinds = {}
        for part in ("train-00", "valid"):
            side = np.load(f"{start}-{part}.tokens.npz")
            assert len(side["token"]) == len(np.load(f"{start}-layer1-{part}.npy"))
            kinds[part] = set(zip(side["source"].tolist(), side["document"].tolist()))
            for token, file, document in list(zip(side["token"], side["source"], side["document"]))[:200]:
                text = texts[file][document]
                assert vocabulary and (t.convert_ids_to_tokens(int(token)).lstrip("\u0120") in text.split() or token == t.unk_token_id)
        held = {(i, j) for i in range(2) for j in range(600) if dump.held_back(texts[i][j])}
        assert kinds["valid"] <= held and not kinds["train-00"] & held

        # Words for the study and others for tuning.
        lists = []
        for part in ("", "-2"):
            letters = load_file(f"{start}-layer1-first-letter{part}.safetensors")
            with open(f"{start}-layer1-first-letter{part}.words.txt", encoding="utf-8") as file:
                lists.append([line.strip() for line in file])
            assert letters["letter"].dtype == np.int32 and [ord(word[0]) - 97 for word in lists[-1]] == letters["letter"].tolist()
            assert letters["bare"].shape == letters["prompted"].shape == (len(lists[-1]), 24)
            assert not np.array_equal(letters["bare"], letters["prompted"])
        assert len(lists[0]) == 10 and sorted(lists[0] + lists[1]) == found
        means = load_file(f"{start}-layer1-probing.safetensors")
        assert means["activations"].shape == (8, 24) and means["labels"].shape == (8, 2) and (means["labels"].sum(1) == 1).all()

        # What is there is not made again; the rest of a stopped run is, with the same rows.
        before = np.load(f"{start}-layer1-train-00.npy")
        os.remove(f"{start}-layer1-train-00.npy")
        time = os.stat(f"{start}-layer1-valid.npy").st_mtime_ns
        dump.dump(shortened, t, paths, start, n_rows=3000, n_valid=500, n_texts=8, n_words=10)
        assert np.array_equal(np.load(f"{start}-layer1-train-00.npy"), before) and os.stat(f"{start}-layer1-valid.npy").st_mtime_ns == time

        settings = os.path.join(folder, "settings.json")
        dump.settle(settings, {"rows": 1})
        dump.settle(settings, {"rows": 1})
        refused(lambda: dump.settle(settings, {"rows": 2}), "rows 1, now 2")
        refused(lambda: dump.dump(shortened, t, paths, start + "2", n_rows=10**6, n_valid=10, n_texts=8), "more text")
        with open(paths[0], "a", encoding="utf-8") as file:
            file.write("no JSON\n")
        refused(lambda: list(dump.documents(paths[0])), "0.jsonl:601")
        plain = os.path.join(folder, "plain.txt")
        with open(plain, "w", encoding="utf-8") as file:
            file.write("\n\n".join("p" * 9000 for _ in range(5)))
        assert [len(d) for d in dump.documents(plain)] == [27004, 18002]


def refused(call, message):
    try:
        call()
    except SystemExit as stop:
        assert message in str(stop), stop
    else:
        raise AssertionError("accepted: " + message)


if __name__ == "__main__":
    main()
