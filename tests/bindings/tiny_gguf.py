# SPDX-License-Identifier: MIT
"""usage: tiny_gguf.py MODEL.gguf TEXT.txt: a llama of 4 blocks with random weights whose tokens are single
letters, and prompts for it. Prints how many tokens those are."""
import struct
import sys

import numpy as np

D, LAYERS, HEADS, FF = 64, 4, 4, 128
rng = np.random.default_rng(0)
LETTERS = "▁abcdefghijklmnopqrstuvwxyz"
tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + list(LETTERS)
kinds = [2, 3, 3] + [6] * 256 + [1] * len(LETTERS)  # unknown, control, byte, normal


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    """A GGUF value with its type number."""
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    number = {str: 8, float: 6, int: 5}[type(v[0])]
    items = [string(x) if number == 8 else struct.pack("<f" if number == 6 else "<i", x) for x in v]
    return struct.pack("<IIQ", 9, number, len(v)) + b"".join(items)


settings = {
    "general.architecture": "llama",
    "llama.context_length": 512,
    "llama.embedding_length": D,
    "llama.block_count": LAYERS,
    "llama.feed_forward_length": FF,
    "llama.attention.head_count": HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.scores": [0.0] * len(tokens),
    "tokenizer.ggml.token_type": kinds,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def matrix(rows, columns, scale=1.0):
    return (rng.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype("<f4")


ones = np.ones(D, "<f4")
tensors = {"token_embd.weight": matrix(len(tokens), D, 8), "output_norm.weight": ones, "output.weight": matrix(len(tokens), D)}
for i in range(LAYERS):
    block = {"attn_norm": ones, "ffn_norm": ones, "ffn_gate": matrix(FF, D), "ffn_up": matrix(FF, D), "ffn_down": matrix(D, FF)}
    block.update({"attn_" + name: matrix(D, D) for name in ("q", "k", "v", "output")})
    tensors.update({f"blk.{i}.{name}.weight": t for name, t in block.items()})

with open(sys.argv[1], "wb") as out:
    out.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings)))
    for key, v in settings.items():
        out.write(string(key) + value(v))
    offset = 0
    for name, t in tensors.items():
        out.write(string(name) + struct.pack("<I", t.ndim) + struct.pack(f"<{t.ndim}Q", *t.shape[::-1]))
        out.write(struct.pack("<IQ", 0, offset))  # f32
        offset += -(-t.nbytes // 32) * 32
    for t in tensors.values():
        out.write(b"\0" * (-out.tell() % 32) + t.tobytes())

total = 0
with open(sys.argv[2], "w") as text:
    for _ in range(150):
        line = "".join(rng.choice(list("etaoinshrdlu "), size=rng.integers(60, 120))).strip()
        text.write(line + "\n")
        total += len(line) + 2  # and <s>, and the space that comes first
print(total)
