#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""atmsae eval and compare: their JSON, HTML and tables agree: test_report.py PATH/TO/atmsae"""
import html.parser
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

atmsae = os.path.abspath(sys.argv[1])
data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "data")
odd = "x<b>&\"'é"  # a name of a folder
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok:", name, why)


def run(*arguments, code=0):
    p = subprocess.run([atmsae, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    check(" ".join(arguments)[:100], p.returncode == code, f"exit code {p.returncode}, not {code}: {p.stderr.decode()[-300:]}")
    return p.stdout.decode(), p.stderr.decode()


# ---- small inputs, from the sample of activations ---------------------------------------------------------

def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        body = f.read()
    return {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in header.items() if k != "__metadata__"}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for k, (dtype, shape, raw) in tensors.items():
        header[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def make_inputs():
    with open(os.path.join(data, "activations-valid.npy"), "rb") as f:
        rows = f.read()[128:]
    size = 576 * 2
    head = "{'descr': '<f2', 'fortran_order': False, 'shape': (%d, 576), }"
    for name, first, n in (("a.npy", 0, 2000), ("v.npy", 2000, 700)):
        with open(name, "wb") as f:
            f.write(b"\x93NUMPY\x01\x00\x76\x00" + (head % n).ljust(117).encode() + b"\n" + rows[first * size:(first + n) * size])
    words = read_safetensors(os.path.join(data, "words.safetensors"))
    letters = struct.unpack("<8000i", words["letter"][2])
    chosen = [i for i in range(8000) if letters[i] in (2, 15, 18)][:900]
    write_safetensors("w.safetensors", {
        "prompted": ("F16", [len(chosen), 576], b"".join(words["prompted"][2][i * size:(i + 1) * size] for i in chosen)),
        "letter": ("I32", [len(chosen)], struct.pack(f"<{len(chosen)}i", *(letters[i] for i in chosen))),
        "is_train": ("U8", [len(chosen)], bytes(words["is_train"][2][i] for i in chosen))})
    texts = [f"{'abcdefghijklmnopqrstuvwxyz'[letters[i]]}<i>{i}&\"" for i in chosen]
    for name, lines in (("w.words.txt", texts), ("short.txt", texts[1:])):
        with open(name, "w", encoding="utf-8") as f:
            f.write("".join(t + "\n" for t in lines))
    write_safetensors("t.safetensors", {"activations": ("F16", [80, 576], rows[:80 * size]),
                                        "labels": ("I8", [80, 4], b"".join(bytes((i // 2 % 2, i % 2, i % 2 and not i // 4 % 2, 1)) for i in range(80))),
                                        "is_train": ("U8", [80], bytes(i // 4 % 2 for i in range(80)))})
    with open("t.tasks.json", "w", encoding="utf-8") as f:
        f.write('["plain", "<b>&\\"\\u00e9\\ud83d\\ude00", "never 1", "never 0"]')
    return texts, [letters[i] for i in chosen]


# ---- a page -------------------------------------------------------------------------------------------------

class Page(html.parser.HTMLParser):
    """Balance of tags, cells of tables, <title>s of charts."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tables, self.notes, self.texts, self.faults = [], [], [], [], []
        with open(path, encoding="utf-8") as f:
            self.source = f.read()
        self.feed(self.source)
        self.close()
        if self.open:
            self.faults.append(f"left open: {self.open}")

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.faults += [f"{tag} {k}={v}" for k, v in attributes if k in ("src", "href", "xlink:href", "onclick", "onload")]
        if tag in ("table", "tr", "th", "td"):
            if tag == "table":
                self.tables.append([])
            elif tag == "tr":
                self.tables[-1].append([])
            else:
                self.tables[-1][-1].append("")
        if tag == "title":
            self.notes.append("")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, text):
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += text
        elif self.open and self.open[-1] == "title":
            self.notes[-1] += text
        self.texts.append(text)

    def table(self, head):
        return next((t for t in self.tables if t[0][0] == head), [[]])


def check_page(name, page):
    check(f"{name}: tags are balanced, nothing comes from elsewhere", not page.faults, page.faults[:3])
    check(f"{name}: no address and no script", not re.search(r"https?:|//[a-z]|url\(|@import|<script", page.source))
    check(f"{name}: names are escaped", "<b>" not in page.source and "<i>" not in page.source)


def rounded(value, form):
    return "–" if value is None else form % value


# ---- checks -----------------------------------------------------------------------------------------------

def check_eval(sae, letters, texts):
    common = ["eval", "--sae", sae, "--input", "v.npy", "--words", "w.safetensors", "--probing", "t.tasks.json"]
    text, _ = run(*common, "--html", "eval.html")
    result = json.loads(run(*common, "--json")[0])
    page = Page("eval.html")
    check_page("eval", page)
    shown = {row[0]: row[1] for row in page.table("result")[1:]}
    printed = dict(re.findall(r"^  (\w+)\s+(\S.*)$", text, re.M))
    for key, value in result.items():
        if key.endswith("_interval"):
            value = "[%.4f, %.4f]" % tuple(value)
        if isinstance(value, (list, dict)):
            continue
        said = value if isinstance(value, str) else "%.7g" % value if isinstance(value, float) else str(value)
        check(f"{key} on the page", shown.get(key) == said, (shown.get(key), said))
        check(f"{key} on the terminal", printed.get(key, "").strip() == said, (printed.get(key), said))
    check("densities", sum(result["density_histogram"]["latents"]) + result["dead"] == result["d_sae"] == sum(result["densities"].values()))
    classes = {c["name"]: c for c in result["classes"] if c["used"]}
    rows = {row[0]: row for row in page.table("class")[1:]}
    check("classes", classes and set(classes) == set(rows), (list(classes), list(rows)))
    for name, c in classes.items():
        want = [str(c["true_positives"]), str(c["absorbed"])] + ["%.4f" % c[k] for k in ("full_rate", "fraction_v060", "fraction_v032")]
        check(f"class {name} on the page", rows.get(name, [])[1:6] == want, (rows.get(name), want))
        check(f"absorbed words of {name}", len(c["absorbed_words"]) == c["absorbed"] and all(w[0] == name for w in c["absorbed_words"]))
        check(f"companions of {name}", all(c[k] is None or 0 <= c[k] <= 1 for k in ("main_f1", "main_rate", "own_recall", "other_recall")) and
              c["own_words"] <= c["true_positives"], c)
        check(f"rate of {name}", math.isclose(c["full_rate"], c["absorbed"] / c["true_positives"]))
    weights = {n: c["own_words"] * (c["true_positives"] - c["own_words"]) / c["true_positives"] for n, c in classes.items()}
    pairs = [(w, classes[n]["other_recall"] - classes[n]["own_recall"]) for n, w in weights.items() if w > 0]
    if pairs:
        gap = sum(w * g for w, g in pairs) / sum(w for w, _ in pairs)
        check("the gap is the weighted mean over classes", math.isclose(result["gap"], gap, abs_tol=1e-6) and result["gap_error"] > 0, (result["gap"], gap))
    else:
        check("no gap without words of both kinds", result["gap"] is result["gap_error"] is None, result["gap"])
    check("absorption is the mean over classes", math.isclose(result["absorption"], sum(c["full_rate"] for c in classes.values()) / len(classes)))
    for t in result["top_words"]:
        values = [w["value"] for w in t["words"]]
        check("top words descend", values == sorted(values, reverse=True) and all(w["word"] == texts[w["row"]] for w in t["words"]))
    check("the main latents have top words", {c["main_latent"] for c in classes.values()} <= {t["latent"] for t in result["top_words"]})
    check_top_words(sae, max(result["top_words"], key=lambda t: len(t["words"])))
    check("a task's name", [t["task"] for t in result["tasks"][:2]] == ["plain", '<b>&"é😀'] and page.table("task")[2][0] == '<b>&"é😀')
    for ending in ("", "_auc", "_f1"):
        for column in ("top1", "top2", "top5", "all"):
            mean = sum(t[column + ending] for t in result["tasks"][:2]) / 2
            check(f"probing {column}{ending} is the mean over tasks", math.isclose(result[f"probing_{column}{ending}"], mean, rel_tol=1e-6))
    check("what a constant answer gets", result["probing_majority"] == 0.5 == result["tasks"][0]["majority"])
    check_left_out(result, text, page)
    check_intervals(result, classes)
    return result


def check_left_out(result, text, page):
    """Two of four tasks have one label only among their training texts."""
    for task, label in ((2, 1), (3, 0)):
        t = result["tasks"][task]
        why = f"no training text has label {label}"
        check("a task that is not probed", t["reason"] == why and t["top1"] is t["all_auc"] is t["raw_top1"] is t["latent"] is None, t)
        check("... on the page", page.table("task")[task + 1][:2] == [f"never {label}", why], page.table("task")[task + 1])
        note = f"1 of 4 tasks are not probed: {why} (never {label})"
        check("... in a note", note in result["notes"] and f"note: {note}\n" in text and note in page.texts, result.get("notes"))
    check("tasks that are probed", result["probing_tasks"] == 2 and all("reason" not in t for t in result["tasks"][:2]))
    out = [c for c in result["classes"] if not c["used"]]
    check("classes that take no part", len(out) > 10 and all(c["reason"] == "no training words" for c in out if c["name"] not in "cps"), out)
    check("... in a note", any("classes take no part in absorption: no training words (a, b, d, " in n for n in result["notes"]), result["notes"])


def wilson(p, n, z=1.959963984540054):
    middle, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def check_intervals(result, classes):
    """From each class's, or task's, Wilson interval."""
    tests = [sum(t["test"]) for t in result["tasks"][:2]]
    for key, shares in (("absorption", [(c["full_rate"], c["true_positives"]) for c in classes.values()]),
                        ("main_recall", [(c["main_recall"], c["true_positives"]) for c in classes.values()]),
                        ("probing_all", [(t["all"], n) for t, n in zip(result["tasks"], tests)])):
        limits = [wilson(p, n) for p, n in shares]
        low = result[key] - math.sqrt(sum((p - l) ** 2 for (p, _), (l, _) in zip(shares, limits))) / len(shares)
        high = result[key] + math.sqrt(sum((u - p) ** 2 for (p, _), (_, u) in zip(shares, limits))) / len(shares)
        got = result[key + "_interval"]
        check(f"interval of {key}", math.isclose(got[0], max(low, 0), abs_tol=6e-5) and math.isclose(got[1], min(high, 1), abs_tol=6e-5), (got, low, high))


def check_orders(result, text, page):
    """Which SAE is best, and which are not told from it."""
    saes = {s["name"]: s for s in result["saes"]}
    check("orders", [o["key"] for o in result["orders"]] == ["absorption", "main_recall", "probing_top1", "probing_top2", "probing_top5", "probing_all"])
    for o in result["orders"]:
        key = o["key"]
        best = (min if key == "absorption" else max)(s[key] for s in saes.values())
        low, high = saes[o["best"]][key + "_interval"]
        near = [n for n, s in saes.items() if n != o["best"] and s[key + "_interval"][0] <= high and low <= s[key + "_interval"][1]]
        check(f"{key}: the best one", saes[o["best"]][key] == best and o["within_noise"] == near, o)
        line = f"{key}: {o['best']} is {'lowest' if key == 'absorption' else 'highest'}"
        line += f", but within noise of {', '.join(near)}" if near else ", by more than noise"
        check(f"{key}: the line", line + "\n" in text and line in page.texts, line)
    check("texts of 40 rows decide little", any(o["within_noise"] for o in result["orders"][2:]))


def check_no_values():
    """Rows and words that are all the same: null, and a line that says why; the rest is measured."""
    words = read_safetensors("w.safetensors")
    n, d = words["prompted"][1]
    row = words["prompted"][2][:2 * d]
    write_safetensors("same.safetensors", words | {"prompted": ("F16", [n, d], row * n)})
    write_safetensors("rows.safetensors", {"activations": ("F16", [50, d], row * 50)})
    out, _ = run("eval", "--sae", "bare", "--input", "rows.safetensors", "--words", "same.safetensors", "--probing", "t.tasks.json", "--json")
    result = json.loads(out)
    check("values that do not exist", result["fvu"] is result["absorption"] is result["absorption_interval"] is None and result["rows"] == 50)
    check("... are explained", any(n.startswith("fvu has no value: the rows are all the same") for n in result["notes"])
          and any("the rows of all words are the same (c, p, s)" in n for n in result["notes"]), result["notes"])
    check("... and the rest is there", result["l0"] >= 0 and result["probing_tasks"] == 2)


def check_top_words(sae, top):
    """One latent's values on all words, from the weights in the SAE's file."""
    tensors = read_safetensors(os.path.join(sae, "sae_weights.safetensors"))
    w = {k: struct.unpack(f"<{len(raw) // 4}f", raw) for k, (_, _, raw) in tensors.items()}
    with open(os.path.join(sae, "cfg.json"), encoding="utf-8") as f:
        centred = json.load(f).get("apply_b_dec_to_input", True)
    words = read_safetensors("w.safetensors")["prompted"]
    n, d = words[1]
    x = struct.unpack(f"<{n * d}e", words[2])
    j, d_sae = top["latent"], len(w["b_enc"])
    column = w["W_enc"][j::d_sae]
    shift = w["b_enc"][j] - (sum(a * b for a, b in zip(w["b_dec"], column)) if centred else 0)
    z = [shift + sum(a * b for a, b in zip(x[r * d:(r + 1) * d], column)) for r in range(n)]
    best = sorted((v for v in z if v > w["threshold"][j]), reverse=True)[:len(top["words"])]
    got = [t["value"] for t in top["words"]]
    check("top words have the highest values", len(got) > 0 and all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(got, best)), (got[:3], best[:3]))


def check_compare(saes, alone):
    common = ["compare", *saes, "--input", "v.npy", "--words", "w.safetensors", "--probing", "t.tasks.json"]
    text, _ = run(*common, "--html", "compare.html")
    result = json.loads(run(*common, "--json")[0])
    page = Page("compare.html")
    check_page("compare", page)
    check("an SAE has the results that eval gives it", {k: v for k, v in result["saes"][-1].items() if k not in ("name", "method")} == alone)
    check("names", [s["name"] for s in result["saes"]] == [os.path.basename(s) for s in saes])
    check("methods", [s["method"] for s in result["saes"]] == ["batchtopk", "batchtopk", "batchtopk + atm"], [s["method"] for s in result["saes"]])
    columns = {"L0": ("l0", "%.2f"), "FVU": ("fvu", "%.4f"), "EV": ("explained_variance", "%.4f"), "dead": ("dead", "%.0f"),
               "k": ("k", "%g"), "seed": ("seed", "%g"), "absorbed": ("absorption", "%.4f"), "frac060": ("absorption_fraction_v060", "%.4f"),
               "frac032": ("absorption_fraction_v032", "%.4f"), "F1": ("sparse_f1", "%.4f"), "recall": ("main_recall", "%.4f"),
               "majority": ("probing_majority", "%.4f"), "top1 AUC": ("probing_top1_auc", "%.4f"), "top1 F1": ("probing_top1_f1", "%.4f"),
               "top1": ("probing_top1", "%.4f"), "top2": ("probing_top2", "%.4f"), "top5": ("probing_top5", "%.4f")}
    printed = [[re.split(r"  +", line.strip()) for line in part.splitlines()] for part in text.strip().split("\n\n")[:3]]
    seen = set()
    for where, tables in (("page", [t for t in page.tables if t[0][0] == "SAE"]), ("terminal", printed)):
        check(f"three tables on the {where}", len(tables) == 3 and all(len(t) == 4 for t in tables))
        for head, *rows in tables:
            for i, row in enumerate(rows):
                check(f"{where}: name", row[0] == result["saes"][i]["name"], row)
                for name, cell in zip(head, row):
                    if name in columns:
                        key, form = columns[name]
                        seen.add(name)
                        check(f"{where}: {name}", cell == rounded(result["saes"][i][key], form), (cell, result["saes"][i][key]))
    check_orders(result, text, page)
    check("all columns", seen == set(columns), set(columns) - seen)
    for s in result["saes"]:
        for heading, key in (("FVU", "fvu"), ("absorbed", "absorption")):
            note = "%s: L0 %.2f, %s %.4f" % (s["name"], s["l0"], heading, s[key])
            check("a point of the chart", note in page.notes, note)
    check("curves are named", sum(t == "batchtopk + atm" for t in page.texts) >= 3)
    check("masks over time", "Importance and masks over time" in page.texts)


def check_seeds(small):
    """What reseeding alone does: mean and standard deviation over SAEs that differ in nothing else."""
    for seed in "7", "8":
        run("train", *small, "--k", "16", "--mask", "none", "--seed", seed, "--out", "out/s" + seed)
    common = ["compare", "out/s7", "out/k8", "out/s8", "--input", "v.npy", "--words", "w.safetensors"]
    text = run(*common)[0]
    both = [s for s in json.loads(run(*common, "--json")[0])["saes"] if s["seed"] > 1]
    lines = [line for line in text.split("\n") if line.startswith("seeds of")]
    check("one pair of seeds", len(lines) == 1 and lines[0].startswith("seeds of batchtopk, 16: 2, mean +- sd:"), lines)
    for key in ("fvu", "absorption", "main_rate"):
        a, b = (s[key] for s in both)
        said = f" {key} {(a + b) / 2:.4f} +- {abs(a - b) / math.sqrt(2):.4f}"
        check(f"seeds: {key}", lines and said in lines[0], (said, lines))
    check("the seeds differ", both[0]["fvu"] != both[1]["fvu"])


def main():
    texts, letters = make_inputs()
    small = ["--input", "a.npy", "--d-sae", "128", "--batch", "200", "--rows", "12k", "--lr", "2e-3", "--threads", "1", "--quiet"]
    os.mkdir("out")
    saes = ["out/k8", "out/k16", "out/" + odd]
    for sae, more in zip(saes, (["--k", "8", "--mask", "none"], ["--k", "16", "--mask", "none"], ["--k", "16", "--seed", "3"])):
        run("train", *small, *more, "--out", sae)
    alone = check_eval(saes[-1], letters, texts)
    check("settings of the run", (alone["arch"], alone["mask"], alone["k"], alone["seed"]) == ("batchtopk", "atm", 16, 3))
    check_compare(saes, alone)
    check_seeds(small)

    shutil.copytree(saes[0], "bare")
    for name in ("run.json", "importance.safetensors"):
        os.remove(os.path.join("bare", name))
    result = json.loads(run("eval", "--sae", "bare", "--input", "v.npy", "--html", "bare.html", "--json")[0])
    check("an SAE of which nothing is known", "mask" not in result and result["arch"] == "jumprelu")
    page = Page("bare.html")
    check_page("bare", page)
    check("... has no masks over time", "training step" not in page.texts)
    os.rename("w.words.txt", "elsewhere.txt")
    result = json.loads(run("eval", "--sae", "bare", "--input", "v.npy", "--words", "w.safetensors", "--json")[0])
    check("words without a text are numbers", all(re.fullmatch(r"#\d+", w["word"]) for t in result["top_words"] for w in t["words"]))
    check_no_values()
    _, err = run("eval", "--sae", "bare", "--input", "v.npy", "--words", "w.safetensors", "--words-text", "short.txt", code=1)
    check("too few words", "899 lines" in err, err)
    _, err = run("eval", "--sae", "bare", "--input", "v.npy", "--html", "nowhere/x.html", code=1)
    check("a page that cannot be written", "nowhere/x.html" in err, err)
    _, err = run("compare", "bare", "nowhere", "--input", "v.npy", code=1)
    check("an SAE that is none", "nowhere" in err, err)
    run("compare", "--input", "v.npy", code=2)


with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    main()
    os.chdir("/")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
