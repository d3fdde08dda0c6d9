# SPDX-License-Identifier: MIT
"""examples/python/dump_activations.py without the network: a tiny Llama with random weights, a tokenizer made on the spot."""
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

    # The rows are the model's own hidden states: output of block 1 = hidden_states[2].
    tokens = np.array([[2, 3, 4, 5], [5, 4, 3, 2]])
    rows = dump.activations(model, 1, tokens)
    with torch.no_grad():
        states = model(torch.as_tensor(tokens), output_hidden_states=True).hidden_states
    assert rows.shape == (2, 4, 24) and np.allclose(rows, states[2].numpy(), atol=1e-6)

    # Words: a space and two or more small letters, nothing else.
    found = [word for _, word in dump.words(t)]
    assert found == sorted(WORDS + ["tree", "has", "the", "first", "house"]), found

    # Sinks are far rows only.
    far = np.ones((10, 24))
    far[3] *= 100
    assert dump.without_sinks(far).tolist() == [i != 3 for i in range(10)]

    # Validation rows come from whole blocks of eight sequences.
    valid = dump.split(160, np.random.default_rng(0))
    assert valid.sum() == 16 and all(len(set(valid[i:i + 8])) == 1 for i in range(0, 160, 8))

    generator = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(2):
            paths.append(os.path.join(folder, f"{i}.txt"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(" ".join(generator.choice(WORDS, 127 * 40)))
        dump.dump(model, t, 1, paths, folder, "tiny-layer1", n_train=300, n_valid=90, n_texts=50, n_words=10)
        start = os.path.join(folder, "tiny-layer1-")
        parts = [np.load(f"{start}train-{i}.npy") for i in range(3)]
        assert [p.shape for p in parts] == [(100, 24)] * 3 and all(p.dtype == np.float16 for p in parts)
        valid = load_file(start + "valid.safetensors")["activations"]
        assert valid.shape == (90, 24) and valid.dtype == np.float16
        letters = load_file(start + "first-letter.safetensors")
        assert letters["bare"].shape == letters["prompted"].shape == (10, 24) and letters["letter"].dtype == np.int32
        with open(start + "first-letter.words.txt", encoding="utf-8") as file:
            assert [ord(line[0]) - 97 for line in file] == letters["letter"].tolist()
        assert not np.array_equal(letters["bare"], letters["prompted"])
        texts = load_file(start + "probing.safetensors")
        assert texts["activations"].shape == (50, 24) and texts["labels"].shape == (50, 2)
        assert texts["labels"].dtype == np.int8 and (texts["labels"].sum(1) == 1).all() and set(texts["is_train"]) == {0, 1}

        try:
            dump.dump(model, t, 1, paths, folder, "tiny", n_train=10**6)
        except SystemExit as stop:
            assert "more text" in str(stop)
        else:
            raise AssertionError("too little text was accepted")


if __name__ == "__main__":
    main()
