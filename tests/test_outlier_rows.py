#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rows of very large norm in train, resume, eval and compare, against sums made here: test_outlier_rows.py PATH/TO/atmsae"""
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

atmsae = os.path.abspath(sys.argv[1])
D, TRAIN, VALID = 16, 3000, 500
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok:", name, why)


def run(*arguments, code=0):
    p = subprocess.run([atmsae, *map(str, arguments)], capture_output=True, stdin=subprocess.DEVNULL, text=True)
    check(" ".join(map(str, arguments))[:120], p.returncode == code, f"exit code {p.returncode}, not {code}: {p.stderr[-400:]}")
    return p.stdout, p.stderr


# ---- rows: sums of few directions, whose numbers are whole 64ths, so that f16 holds them; and rows 300 times as long --------

random.seed(1)
directions = [[random.gauss(0, 1) for _ in range(D)] for _ in range(40)]
long_row = [0.0] * D
long_row[3], long_row[9] = 900.0, -300.0


def ordinary():
    x = [0.1 * random.gauss(0, 1) + (j == 5) for j in range(D)]
    for direction in random.sample(directions, 3):
        x = [a + b for a, b in zip(x, direction)]
    return [round(64 * a) / 64 for a in x]


def with_long(rows, every):
    """Beside them, one before each `every` rows."""
    return [row for i, r in enumerate(rows) for row in ([long_row, r] if i % every == 0 else [r])]


def npy(path, rows, letter="f"):
    head = "{'descr': '<f%d', 'fortran_order': False, 'shape': (%d, %d), }" % (struct.calcsize(letter), len(rows), len(rows[0]))
    head = head.ljust(117) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head.encode())
        f.write(b"".join(struct.pack("<%d%s" % (len(r), letter), *r) for r in rows))


def safetensors(path, rows):
    head = json.dumps({"activations": {"dtype": "F32", "shape": [len(rows), D], "data_offsets": [0, 4 * D * len(rows)]}}).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(struct.pack("<%df" % D, *r) for r in rows))


def norm(row):
    return math.sqrt(sum(a * a for a in row))


def median(values):
    v = sorted(values)
    return (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2


def near(a, b, tolerance=1e-5):
    return abs(a - b) <= tolerance * abs(b)


# ---- an SAE by its files -------------------------------------------------------------------------------------------------------

def fvu(folder, rows):
    with open(folder + "/sae_weights.safetensors", "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        body = f.read()
    w = {k: struct.unpack("<%df" % ((v["data_offsets"][1] - v["data_offsets"][0]) // 4), body[slice(*v["data_offsets"])])
         for k, v in head.items() if k != "__metadata__"}
    with open(folder + "/cfg.json") as f:
        centred = json.load(f)["apply_b_dec_to_input"]
    n_latents = len(w["b_enc"])
    mean = [sum(column) / len(rows) for column in zip(*rows)]
    error = variance = 0
    for x in rows:
        inner = [a - b for a, b in zip(x, w["b_dec"])] if centred else x
        y = list(w["b_dec"])
        for i in range(n_latents):
            z = w["b_enc"][i] + sum(a * w["W_enc"][j * n_latents + i] for j, a in enumerate(inner))
            if z > w["threshold"][i] and z > 0:
                y = [a + z * w["W_dec"][i * D + j] for j, a in enumerate(y)]
        error += sum((a - b) ** 2 for a, b in zip(x, y))
        variance += sum((a - b) ** 2 for a, b in zip(x, mean))
    return error / variance


def weights(folder):
    with open(folder + "/sae_weights.safetensors", "rb") as f:
        return f.read()


os.chdir(tempfile.mkdtemp())
here = os.getcwd()
train, valid = [ordinary() for _ in range(TRAIN)], [ordinary() for _ in range(VALID)]
dirty, dirty_valid = with_long(train, 50), with_long(valid, 40)
npy("clean.npy", train)
npy("dirty.npy", dirty)
npy("dirty16.npy", dirty, "e")
safetensors("dirty.safetensors", dirty)
npy("valid.npy", valid)
npy("dirty_valid.npy", dirty_valid)
n_long, n_long_valid = len(dirty) - TRAIN, len(dirty_valid) - VALID
settings = ("--d-sae", 48, "--k", 4, "--batch", 60, "--rows", 4 * len(dirty), "--lr", 3e-3, "--quiet", "--threads", 1)

# ---- training --------------------------------------------------------------------------------------------------------------------

_, err = run("train", "dirty.npy", *settings, "--out", "with")
check("a warning says who decides, and what to do", "of the rows hold 9" in err and ("max_norm 10" in err or "--max-norm 10" in err), err)
_, err = run("train", "clean.npy", *settings, "--out", "clean")
check("... not of clean rows", "hold" not in err, err)

out, err = run("train", "dirty.npy", *settings, "--out", "without", "--max-norm", "auto", "--valid", "dirty_valid.npy", "--json",
               "--checkpoint-every", 4000, "--metrics", "without/m.csv")
check("... nor where they are left out", "hold" not in err, err)
result = json.loads(out)
limit = 10 * median(map(norm, dirty))
check("norm-limit is ten times the median of rows drawn from the file", near(result["norm-limit"], limit, 0.02), (result["norm-limit"], limit))
seen = 4 * len(dirty) // 60 * 60
check("outlier-rows counts each time that one came", abs(result["outlier-rows"] - 4 * n_long) <= n_long and result["outlier-rows"] > 3 * n_long, result)
with open("without/m.csv") as f:
    head, *lines = [line.strip().split(",") for line in f]
column = {name: [float(line[i]) for line in lines] for i, name in enumerate(head)}
check("... as --metrics does step by step", sum(column["outlier_rows"]) == result["outlier-rows"])
check("... and the others are the rows of the steps", sum(column["rows"]) + result["outlier-rows"] == seen)
check("--valid leaves them out too", (result["rows"], result["rows_left_out"]) == (VALID, n_long_valid), result)
check("FVU is that of the rows left", near(result["fvu"], fvu("without", valid), 1e-4), (result["fvu"], fvu("without", valid)))
with open("without/run.json") as f:
    told = json.load(f)
check("run.json has the settings and what came of them", told["max-norm"] == 10 and told["facts"]["norm-limit"] == result["norm-limit"] and
      told["facts"]["outlier-rows"] == result["outlier-rows"], told)
check("leaving them out is what makes the SAE good", fvu("without", valid) < 0.8 * fvu("with", valid), (fvu("without", valid), fvu("with", valid)))

for name, more in (("formats, f16", ["dirty16.npy"]), ("formats, safetensors", ["dirty.safetensors"]), ("threads", ["dirty.npy", "--threads", 3]),
                   ("a number", ["dirty.npy", "--max-norm", 10])):
    run("train", *settings, "--max-norm", "auto", *more[1:], "--input", more[0], "--out", "again", "--force")
    check(name + ": the same SAE", weights("again") == weights("without"))
out, _ = run("train", "dirty.npy", *settings, "--out", "again", "--force", "--max-norm", 7, "--shuffle-rows", 0, "--json")
check("norm-limit is seven times the median of the first rows", near(json.loads(out)["norm-limit"], 0.7 * limit, 1e-6), out)
run("train", "--config", "without/run.json", "--out", "again", "--force", "--quiet")
check("run.json makes the same run again", weights("again") == weights("without"))
run("train", "clean.npy", *settings, "--out", "again", "--force", "--max-norm", "auto")
check("clean rows: the same SAE with the option and without", weights("again") == weights("clean"))

# The checkpoint before the last is of the middle of the run.
shutil.copytree("without", "part")
shutil.move("part/checkpoint.previous.safetensors", "part/checkpoint.safetensors")
for name in ("sae_weights.safetensors", "cfg.json"):
    os.remove("part/" + name)
out, _ = run("info", "part/checkpoint.safetensors", "--json")
check("... in which it is", 0 < json.loads(out)["steps-done"] < seen // 60 and json.loads(out)["max-norm"] == 10, out)
_, err = run("resume", "part", "--max-norm", 20, code=1)
check("another limit in the middle is refused", "--max-norm is 2e+01, but the run to resume has 1e+01" in err, err)
out, _ = run("resume", "part", "--json", "--quiet", "--metrics", "part/m.csv")
check("resumed: the same SAE", weights("part") == weights("without"))
check("... and result", {**json.loads(out), "sae": ""} == {**result, "sae": ""}, (out, result))

# ---- measuring ---------------------------------------------------------------------------------------------------------------------

clean = json.loads(run("eval", "--sae", "without", "--input", "valid.npy", "--json")[0])
check("eval: clean rows have no note and no limit", "notes" not in clean and "norm_limit" not in clean, clean)
check("eval: the limit of the training is there", clean["training_norm_limit"] == result["norm-limit"])
measured = ("rows", "fvu", "mse", "cosine", "l0", "dead", "explained_variance", "norm_ratio", "densities")
for arguments in (["--max-norm", "auto"], ["--max-norm", "10"], ["--norm-limit", repr(result["norm-limit"])]):
    left = json.loads(run("eval", "--sae", "without", "--input", "dirty_valid.npy", "--json", *arguments)[0])
    check(f"eval {arguments}: as of the file without them", all(left[k] == clean[k] for k in measured), [(left[k], clean[k]) for k in measured])
    check("... with their number", left["rows_left_out"] == n_long_valid and "notes" not in left, left)
    want = result["norm-limit"] if arguments[0] == "--norm-limit" else 10 * median(map(norm, dirty_valid))
    check("... and the limit", near(left["norm_limit"], want, 1e-6), left)
check("eval: FVU", near(clean["fvu"], fvu("without", valid), 1e-4))
all_of_them = json.loads(run("eval", "--sae", "without", "--input", "dirty_valid.npy", "--json")[0])
check("eval: all rows, and a note of them", all_of_them["rows"] == len(dirty_valid) and "--norm-limit" in all_of_them["notes"][0] and
      "hold 9" in all_of_them["notes"][0], all_of_them)
check("... FVU of all", near(all_of_them["fvu"], fvu("without", dirty_valid), 1e-4))
out, _ = run("eval", "--sae", "with", "--input", "dirty_valid.npy")
check("... for a reader", "% of the rows hold 9" in out and "--max-norm auto" in out, out)
saes = json.loads(run("compare", "without", "with", "--input", "dirty_valid.npy", "--max-norm", "auto", "--json")[0])["saes"]
check("compare", all(saes[0][k] == clean[k] for k in measured) and near(saes[1]["fvu"], fvu("with", valid), 1e-4) and
      all(s["rows_left_out"] == n_long_valid for s in saes), saes)

# ---- transcoders: a row, its target, or both may be long ----------------------------------------------------------------------------

D_OUT = 6
long_target = [0.0, 4000.0, 0.0, 0.0, 800.0, 0.0]


def target(x):
    return [x[j] - 2 * x[j + 3] + 0.5 for j in range(D_OUT)]


def pairs(rows, long_x, long_y, both=0):
    """A long row before each long_x rows, and so on; 0: none of these."""
    out = []
    for i, x in enumerate(rows):
        out += [(long_row, target(x))] * (long_x > 0 and i % long_x == 0) + [(x, long_target)] * (long_y > 0 and i % long_y == 1)
        out += [(long_row, long_target)] * (both > 0 and i % both == 2) + [(x, target(x))]
    return out


for name, kinds in (("", (40, 25, 80)), ("long_y_", (0, 25, 0)), ("long_x_", (40, 0, 0)), ("clean_", (0, 0, 0))):
    xs, ys = zip(*pairs(valid, *kinds))
    npy(name + "x.npy", xs)
    npy(name + "y.npy", ys)
npy("zero_targets.npy", [[0.0] * D_OUT] * VALID)
x_train, y_train = zip(*pairs(train, 50, 50, 100))
npy("train_x.npy", x_train)
npy("train_y.npy", y_train)
n_x, n_y, n_both = 13, 20, 7  # of 500 rows, one before each 40, 25, 80
medians = [median(map(norm, side)) for side in zip(*pairs(valid, 40, 25, 80))]
out, err = run("train", "train_x.npy", "--target", "train_y.npy", *settings, "--out", "tc", "--max-norm", "auto", "--json",
               "--valid", "x.npy", "--valid-target", "y.npy")
result = json.loads(out)
check("transcoder: limits of rows, and of targets by their own median", near(result["norm-limit"], 10 * median(map(norm, x_train)), 0.02) and
      near(result["target-norm-limit"], 10 * median(map(norm, y_train)), 0.02), result)
check("... in run.json too", json.load(open("tc/run.json"))["facts"]["target-norm-limit"] == result["target-norm-limit"])
check("... no warning", "hold" not in err, err)
check("--valid leaves out both, and a row that is both once", (result["rows"], result["rows_left_out"]) == (VALID, n_x + n_y + n_both), result)


def of(name, *arguments):
    return json.loads(run("eval", "--sae", "tc", "--input", name + "x.npy", "--target", name + "y.npy", "--json", *arguments)[0])


limits = [("--norm-limit", repr(result["norm-limit"])), ("--target-norm-limit", repr(result["target-norm-limit"]))]
clean_pairs, only_y, only_x, everything = of("clean_"), of("long_y_"), of("long_x_"), of("")
check("eval: the limits of the training", (clean_pairs["training_norm_limit"], clean_pairs["training_target_norm_limit"]) ==
      (result["norm-limit"], result["target-norm-limit"]), clean_pairs)
for arguments, want, n in ((limits[0] + limits[1], clean_pairs, n_x + n_y + n_both), (("--max-norm", "auto"), clean_pairs, n_x + n_y + n_both),
                           (limits[0], only_y, n_x + n_both)):
    left = of("", *arguments)
    check(f"eval --target {arguments}: as of files without them", all(left[k] == want[k] for k in measured), [(left[k], want[k]) for k in measured])
    check("... with their number", left["rows_left_out"] == n, left)
left = of("", *limits[1])
check("eval --target: the targets' limit alone", all(left[k] == only_x[k] for k in measured) and left["rows_left_out"] == n_y + n_both, left)
left = of("", "--max-norm", 7)
check("... and --max-norm has a median for each", near(left["norm_limit"], 7 * medians[0], 1e-6) and near(left["target_norm_limit"], 7 * medians[1], 1e-6), left)
check("a note of the targets names both options", "of the targets hold 9" in everything["notes"][0] and
      f"--norm-limit {result['norm-limit']:.6g}"[:16] in everything["notes"][0] and "--target-norm-limit" in everything["notes"][0], everything)
check("... long rows with ordinary targets have one as well", "of the rows hold 9" in only_x["notes"][0] and "FVU may be about" in only_x["notes"][0], only_x)
check("... and none of rows left out", "notes" not in clean_pairs and "notes" not in of("", *limits[0], *limits[1]))
saes = json.loads(run("compare", "tc", "--input", "x.npy", "--target", "y.npy", "--max-norm", "auto", "--json")[0])["saes"]
check("compare --target", all(saes[0][k] == clean_pairs[k] for k in measured), saes)

# ---- what is refused -----------------------------------------------------------------------------------------------------------------

npy("zeros.npy", [[0.0] * D] * 60 + train[:40])
for arguments, code, text in (
        (["eval", "--sae", "without", "--input", "valid.npy", "--max-norm", "auto", "--norm-limit", 5], 2, "give one"),
        (["eval", "--sae", "without", "--input", "valid.npy", "--max-norm", "0.5"], 2, "--max-norm 0.5: expected auto or a number >= 1"),
        (["compare", "without", "--input", "valid.npy", "--max-norm", "otto"], 2, "--max-norm otto: expected auto or a number >= 1"),
        (["eval", "--sae", "without", "--input", "valid.npy", "--target-norm-limit", 5], 2, "--target, which is not given"),
        (["eval", "--sae", "tc", "--input", "x.npy", "--target", "y.npy", "--max-norm", 5, "--target-norm-limit", 5], 2,
         "--max-norm and --target-norm-limit both"),
        (["eval", "--sae", "tc", "--input", "x.npy", "--target", "y.npy", "--norm-limit", 30, "--target-norm-limit", 1e-3], 1,
         f"all {VALID + 40} rows are above the norm limit 30, or their targets above 0.001"),
        (["eval", "--sae", "tc", "--input", "x.npy", "--target", "y.npy", "--target-norm-limit", 1e-3], 1,
         f"all {VALID + 40} targets are above the norm limit 0.001"),
        (["eval", "--sae", "tc", "--input", "clean_x.npy", "--target", "zero_targets.npy", "--max-norm", 5], 1,
         "the median norm of the first 500 targets is 0, of which no number of times is a limit: give --target-norm-limit"),
        (["eval", "--sae", "without", "--input", "valid.npy", "--norm-limit", 0], 2, "--norm-limit 0: expected a number > 0"),
        (["train", "clean.npy", "--max-norm", "0.5", "--out", "new"], 2, "--max-norm 0.5: expected auto or a number >= 1"),
        (["eval", "--sae", "without", "--input", "valid.npy", "--norm-limit", 1e-3], 1, "all 500 rows are above the norm limit 0.001"),
        (["eval", "--sae", "without", "--input", "zeros.npy", "--max-norm", "auto"], 1, "the median norm of the first 100 rows is 0"),
        (["train", "zeros.npy", "--max-norm", "auto", "--out", "new", "--rows", 100, "--batch", 50], 1, "the median norm is 0")):
    out, err = run(*arguments, code=code)
    check(f"{arguments} says {text}", text in err, err)
out, err = run("train", "dirty.npy", *settings, "--out", "again", "--force", "--max-norm", 1)
check("half of the rows are not a few", "warning: --max-norm 1 has left out" in err, err)
check("... which a resumed run counts as well", json.load(open("again/run.json"))["facts"]["outlier-rows"] > seen // 3)

os.chdir("/")
shutil.rmtree(here)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
