#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Transcoders on the command line: test_command_transcoder.py PATH/TO/atmsae"""
import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

atmsae = os.path.abspath(sys.argv[1])
passed = failed = 0
D_IN, D_OUT, F = 8, 6, 24


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok:", name, why)


def run(*arguments, code=0, says=()):
    p = subprocess.run([atmsae, *arguments], capture_output=True, stdin=subprocess.DEVNULL, text=True)
    name = " ".join(arguments)[:110]
    check(name, p.returncode == code, f"exit code {p.returncode}, not {code}: {p.stderr[-400:]}")
    for text in says:
        check(f"{name} says: {text}", text in p.stderr, p.stderr[-400:])
    return p.stdout


def result(*arguments):
    out = run(*arguments, "--json")
    return json.loads(out) if out else {}


# ---- rows whose targets are known: y = ReLU(x W + b) D + c ----

random.seed(5)
gauss = lambda n, scale: [random.gauss(0, scale) for _ in range(n)]
single = lambda values: array.array("f", values).tolist()  # rounded as the file has them
W, D = [single(gauss(F, 0.4)) for _ in range(D_IN)], [single(gauss(D_OUT, 0.5)) for _ in range(F)]
b, c = single(random.uniform(-0.8, 0.1) for _ in range(F)), single(gauss(D_OUT, 1))


def target(x):
    f = [max(0, b[i] + sum(x[j] * W[j][i] for j in range(D_IN))) for i in range(F)]
    return [c[j] + sum(f[i] * D[i][j] for i in range(F)) for j in range(D_OUT)]


def npy(name, rows):
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (len(rows), len(rows[0]))
    with open(name, "wb") as f:
        f.write(b"\x93NUMPY\1\0\x76\0" + head.encode().ljust(117) + b"\n")
        array.array("f", [v for row in rows for v in row]).tofile(f)


def safetensors(name, tensors):
    head, data = {}, b""
    for key, rows in tensors.items():
        flat = rows if not isinstance(rows[0], list) else [v for row in rows for v in row]
        shape = [len(rows)] + ([len(rows[0])] if isinstance(rows[0], list) else [])
        head[key] = dict(dtype="F32", shape=shape, data_offsets=[len(data), len(data) + 4 * len(flat)])
        data += array.array("f", flat).tobytes()
    text = json.dumps(head).encode()
    with open(name, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def folder(name, transpose=lambda m: m, **more):
    os.mkdir(name)
    cfg = dict(d_in=D_IN, d_sae=F, dtype="float32", apply_b_dec_to_input=False, metadata=dict(sae_lens_version="6.0.0"))
    json.dump(dict(cfg, **more), open(name + "/cfg.json", "w"))
    wide = more.get("d_out", D_IN) - D_OUT  # zeros make the targets as wide as the inputs
    safetensors(name + "/sae_weights.safetensors", dict(W_enc=W, b_enc=b, W_dec=[row + [0.0] * wide for row in D], b_dec=c + [0.0] * wide))


work = tempfile.mkdtemp()
os.chdir(work)
rows = [single(gauss(D_IN, 1)) for _ in range(3000)]
targets = [target(x) for x in rows]
npy("x.npy", rows[:2400])
npy("y.npy", targets[:2400])
npy("vx.npy", rows[2400:])
npy("vy.npy", targets[2400:])
npy("vy8.npy", [y + [0.0, 0.0] for y in targets[2400:]])
safetensors("v.safetensors", {"mlp_in": rows[2400:], "mlp_out": targets[2400:]})
for i, (first, last) in enumerate(((0, 900), (900, 2400))):
    npy(f"x{i}.npy", rows[first:last])
    npy(f"y{i}.npy", targets[first:last])

# ---- measured against its targets, and never against its input ----

folder("tc", architecture="transcoder", d_out=D_OUT)
folder("tc8", architecture="transcoder", d_out=D_IN)
folder("sae8", architecture="standard")
exact = result("eval", "--sae", "tc", "--input", "vx.npy", "--target", "vy.npy")
check("the exact transcoder has FVU 0", 0 <= exact.get("fvu", 1) < 1e-10 and abs(exact.get("cosine", 0) - 1) < 1e-9, exact)
check("its d_out", exact.get("d_out") == D_OUT and exact.get("d_in") == D_IN, exact)
same = result("eval", "--sae", "tc", "--input", "v.safetensors", "--tensor", "mlp_in", "--target", "v.safetensors", "--target-tensor", "mlp_out")
check("tensors of one file", {k: v for k, v in same.items()} == exact, same)
check("of equal widths", result("eval", "--sae", "tc8", "--input", "vx.npy", "--target", "vy8.npy").get("fvu", 1) < 1e-10)
for sae in ("tc", "tc8"):
    run("eval", "--sae", sae, "--input", "vx.npy", code=1, says=["is a transcoder", "--target FILE"])
    run("compare", sae, sae, "--input", "vx.npy", code=1, says=["--target FILE"])
plain = result("eval", "--sae", "sae8", "--input", "vx.npy")
run("eval", "--sae", "sae8", "--input", "vx.npy", "--target", "vy8.npy", code=1, says=["this SAE is none", "leave --target out"])
run("eval", "--sae", "tc8", "--input", "vx.npy", "--target", "vy.npy", code=1, says=["targets of 6 numbers, but the transcoder gives 8"])
run("eval", "--sae", "tc", "--input", "vx.npy", "--target", "y.npy", code=1, says=["y.npy has 2400 targets, but", "vx.npy has 600 rows"])
run("eval", "--sae", "tc", "--input", "x0.npy", "x1.npy", "--target", "y0.npy", code=1, says=["2 files of rows, but 1 of targets"])
table = run("compare", "tc", "tc", "--input", "vx.npy", "--target", "vy.npy", "--html", "c.html")
check("compare shows FVU 0", table.count(" 0.0000") >= 2, table)
check("its page names the targets", "vy.npy" in open("c.html").read())
both = json.loads(run("compare", "tc", "--input", "vx.npy", "--target", "vy.npy", "--json") or "{}")
check("its JSON names the targets", both.get("target") == ["vy.npy"] and both["saes"][0]["fvu"] == exact["fvu"], both)
run("features", "--sae", "tc", "--input", "vx.npy", "--json", "f.json", "--quiet")  # latents need no targets
check("features", json.load(open("f.json"))["rows"] == 600)

words = dict(prompted=rows[:40])
head = json.dumps(dict(prompted=dict(dtype="F32", shape=[40, D_IN], data_offsets=[0, 160 * D_IN]),
                       letter=dict(dtype="U8", shape=[40], data_offsets=[160 * D_IN, 160 * D_IN + 40]),
                       is_train=dict(dtype="U8", shape=[40], data_offsets=[160 * D_IN + 40, 160 * D_IN + 80]))).encode()
with open("words.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(head)) + head + array.array("f", [v for row in rows[:40] for v in row]).tobytes())
    f.write(bytes(i % 2 for i in range(40)) + bytes(i % 4 < 2 for i in range(40)))
run("eval", "--sae", "tc", "--input", "vx.npy", "--target", "vy.npy", "--words", "words.safetensors", code=1, says=["leave --words out"])

# ---- what info says, and convert writes ----

kinds = {sae: json.loads(run("info", sae, "--json")) for sae in ("tc", "tc8", "sae8")}
check("info: transcoder", [kinds[s].get("transcoder") for s in kinds] == [True, True, False], kinds)
check("info: centred", [kinds[s].get("centred") for s in kinds] == [False, False, False], kinds)
run("convert", "tc8", "tc8.npz")
check("params.npz does not say so", json.loads(run("info", "tc8.npz", "--json")).get("transcoder") is False)
check("so it may have targets", result("eval", "--sae", "tc8.npz", "--input", "vx.npy", "--target", "vy8.npy").get("fvu", 1) < 1e-10)
run("convert", "tc8.npz", "again", "--hook-name-out", "blocks.0.hook_mlp_out")
again = json.load(open("again/cfg.json"))
check("convert --hook-name-out", again["architecture"] == "jumprelu_transcoder" and again["metadata"]["hook_name_out"] == "blocks.0.hook_mlp_out", again)
run("convert", "sae8", "no", "--hook-name-out", "blocks.0.hook_mlp_out", code=1, says=["no transcoder"])

# ---- training ----

small = ["--d-sae", "48", "--k", "10", "--batch", "100", "--rows", "60k", "--lr", "3e-3", "--shuffle-rows", "500", "--threads", "2", "--quiet"]
trained = result("train", "x.npy", "--target", "y.npy", "--valid", "vx.npy", "--valid-target", "vy.npy", "--out", "out", *small,
                 "--hook-name", "in", "--hook-name-out", "out")  # fmt: skip
check("it learns", trained.get("fvu", 1) < 0.1, trained)
cfg = json.load(open("out/cfg.json"))
check("its folder", (cfg["architecture"], cfg["d_out"], cfg["apply_b_dec_to_input"], cfg["metadata"]["hook_name_out"]) == ("jumprelu_transcoder", D_OUT, False, "out"), cfg)
saved = result("eval", "--sae", "out", "--input", "vx.npy", "--target", "vy.npy")
check("eval of the folder agrees", abs(saved.get("fvu", 9) - trained.get("fvu", 0)) < 1e-5, saved)
# Targets of other rows cannot be learnt: the order matters.
npy("yy.npy", targets[1:2400] + targets[:1])
mixed = result("train", "x.npy", "--target", "yy.npy", "--valid", "vx.npy", "--valid-target", "vy.npy", "--out", "mixed", *small)
check("other rows' targets", mixed.get("fvu", 0) > 0.5, mixed)
weights = lambda name: open(name + "/sae_weights.safetensors", "rb").read()
run("train", "x0.npy", "x1.npy", "--target", "y0.npy", "y1.npy", "--out", "shards", *small)
check("shards are the same rows", weights("shards") == weights("out"))
run("train", "x.npy", "--target", "y.npy", "--valid", "vx.npy", "--out", "no", *small, code=1, says=["--valid-target FILE"])
run("train", "x.npy", "--valid", "vx.npy", "--valid-target", "vy.npy", "--out", "no2", *small, code=1, says=["leave --valid-target out"])
run("train", "x.npy", "--target", "y0.npy", "--out", "no3", *small, code=1, says=["y0.npy has 900 targets, but", "x.npy has 2400 rows"])
run("train", "x.npy", "--out", "no4", "--hook-name-out", "out", *small, code=2, says=["which --target makes"])
run("train", "--config", "out/run.json", "--out", "config")
check("run.json makes the same run again", weights("config") == weights("out"))
run("train", "x1.npy", "--config", "out/run.json", "--out", "no5", code=2, says=["--target is of the file's --input"])

# A run that ends early goes on to the same bits, with its own targets only.
run("train", "x.npy", "--target", "y.npy", "--out", "part", *small[:4], "--batch", "100", "--rows", "30k", *small[8:])
run("train", "x.npy", "--target", "y.npy", "--out", "whole", *small[:4], "--batch", "100", "--rows", "30k", "--checkpoint-every", "7k", *small[8:])
check("checkpoints change nothing", weights("part") == weights("whole"))
os.remove("whole/sae_weights.safetensors")
os.remove("whole/cfg.json")
os.replace("whole/checkpoint.previous.safetensors", "whole/checkpoint.safetensors")  # of 28k rows
steps = json.loads(run("info", "whole/checkpoint.safetensors", "--json"))
check("a checkpoint before the end", steps["steps-done"] == 280 and steps["d-out"] == D_OUT, steps)
shutil.copytree("whole", "elsewhere")
run("resume", "whole", "--quiet")
check("resume gives the bits of a run without a break", weights("whole") == weights("part"))
os.rename("y.npy", "moved.npy")
run("resume", "elsewhere", "--quiet", code=1, says=["y.npy"])
run("resume", "elsewhere", "--quiet", "--target", "yy.npy", code=1, says=["yy.npy) is not what it was: its targets' checksum"])
run("resume", "elsewhere", "--quiet", "--target", "moved.npy")
check("targets may move", weights("elsewhere") == weights("part"))
os.rename("moved.npy", "y.npy")

# ---- a bad target ----

bad = [list(y) for y in targets[:2400]]
bad[1234][3] = float("nan")
npy("bad.npy", bad)
run("train", "x.npy", "--target", "bad.npy", "--out", "bad", *small, code=1, says=["bad.npy: row 1234 (from 0) has a NaN", "--skip-bad-rows N"])
run("train", "x.npy", "--target", "bad.npy", "--out", "skip", *small, "--skip-bad-rows", "30", says=["25 rows with a NaN"])
run("eval", "--sae", "tc", "--input", "x.npy", "--target", "bad.npy", code=1, says=["bad.npy: row 1234 (from 0)"])

os.chdir("/")
shutil.rmtree(work)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
