# SPDX-License-Identifier: MIT
#
# usage: features.py FOLDER [PAGE.dom LATENT]
# For test_features.sh: prints a line "0 NAME" (good) or "1 NAME" for each check. Without a page, the JSON and the
# importance files in FOLDER against plain sums; with one, what a browser made of a page. Standard library only.
import html.parser
import json
import math
import os
import re
import struct
import sys
from array import array

folder = sys.argv[1]


def check(name, good):
    print(0 if good else 1, name)


def path(name):
    return os.path.join(folder, name)


def safetensors(name):
    with open(path(name), "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for key, info in json.loads(data[8:8 + n]).items():
        if key != "__metadata__" and info["dtype"] in ("F32", "I64"):
            a, b = info["data_offsets"]
            values = array({"F32": "f", "I64": "q"}[info["dtype"]])
            values.frombytes(data[8 + n + a:8 + n + b])
            out[key] = values, info["shape"]
    return out


def near(a, b, tolerance):
    return abs(a - b) <= tolerance * max(1, abs(a), abs(b))


def check_results():
    words = json.load(open(path("words.json"), encoding="utf-8"))
    labels = open(path("words2.txt"), encoding="utf-8", errors="replace").read().split("\n")
    d, f, n = words["d_in"], words["d_sae"], words["rows"]
    w = safetensors("sae/sae_weights.safetensors")
    w_enc, w_dec = w["W_enc"][0], w["W_dec"][0]
    b_enc, b_dec, threshold = w["b_enc"][0], w["b_dec"][0], w["threshold"][0]
    x = struct.unpack("<%de" % (n * d), open(path("v.npy"), "rb").read()[128:])
    columns = [w_enc[i::f] for i in range(f)]
    pre = [[0.0] * n for _ in range(f)]
    for r in range(n):
        row = [x[r * d + j] - b_dec[j] for j in range(d)]
        for i in range(f):
            pre[i][r] = sum(map(float.__mul__, row, columns[i])) + b_enc[i]

    latents = {l["latent"]: l for l in words["latents"]}
    good = dict.fromkeys(["fired", "density", "mean", "rows", "order", "largest", "text"], True)
    total = dead = 0
    for i in range(f):
        least = max(0.0, threshold[i])
        on = sorted((v for v in pre[i] if v > least), reverse=True)
        doubtful = sum(abs(v - least) < 1e-4 for v in pre[i])
        total += len(on)
        dead += not on
        if i not in latents:
            good["fired"] &= len(on) <= doubtful
            continue
        l = latents[i]
        good["fired"] &= abs(l["fired"] - len(on)) <= doubtful
        good["density"] &= near(l["density"], l["fired"] / n, 1e-8)
        good["mean"] &= doubtful > 0 or near(l["mean"], sum(on) / len(on), 1e-4)
        good["rows"] &= len(l["rows"]) == min(12, l["fired"]) == len(set(l["rows"])) and l["max"] == l["values"][0]
        good["order"] &= all(a > b or (a == b and p < q) for a, b, p, q in
                             zip(l["values"], l["values"][1:], l["rows"], l["rows"][1:]))
        good["largest"] &= all(near(v, pre[i][r], 1e-4) and near(v, e, 1e-4) for v, r, e in zip(l["values"], l["rows"], on))
        good["text"] &= l["text"] == [labels[r] for r in l["rows"]]
    names = {"fired": "how often each latent fires", "density": "densities", "mean": "mean activations",
             "rows": "twelve rows each", "order": "largest first, lower rows first", "largest": "these rows are the largest",
             "text": "with their words"}
    for key, value in good.items():
        check(names[key], value)
    check("L0 and how many never fired", near(words["l0"], total / n, 1e-3) and abs(words["never_fired"] - dead) <= 1)
    h = words["histogram"]
    bins = [0] * len(h["bins"])
    for l in words["latents"]:
        bins[min(len(bins) - 1, max(0, math.floor((math.log10(l["fired"] / n) - h["low"]) / h["step"])))] += 1
    check("the histogram adds up", sum(abs(a - b) for a, b in zip(bins, h["bins"])) <= 2 and sum(h["bins"]) == len(latents))

    unit = []
    for i in range(f):
        row = w_dec[i * d:(i + 1) * d]
        norm = math.sqrt(sum(v * v for v in row))
        unit.append([v / norm for v in row])
    neighbours = True
    for i in list(latents)[:20]:
        cosines = sorted((-sum(map(float.__mul__, unit[i], unit[k])), k) for k in range(f) if k != i)[:8]
        l = latents[i]
        neighbours &= all(near(-c, v, 1e-5) for (c, _), v in zip(cosines, l["cosines"])) and len(l["neighbours"]) == 8
        neighbours &= all(near(sum(map(float.__mul__, unit[i], unit[k])), v, 1e-5) for k, v in zip(l["neighbours"], l["cosines"]))
    check("neighbours by cosine", neighbours)

    record = safetensors("sae/importance.safetensors")
    steps, (values, shape) = list(record["step"][0]), record["importance"]
    check("the record has at most 65 points, the first and the last step among them",
          len(steps) <= 65 and steps[0] == 0 and steps[-1] == 199 and shape == [len(steps), f])
    check("its last point is the importance at the end: mean 1", near(sum(values[-f:]) / f, 1, 1e-3))
    check("the JSON has it", words["steps"] == steps and len(words["theta"]) == len(steps) and all(
        near(v, values[k * f + i], 1e-6) for i, l in latents.items() for k, v in enumerate(l["importance"])))

    tokens = json.load(open(path("tokens.json"), encoding="utf-8"))
    lines = open(path("words.txt"), encoding="utf-8").read().split("\n")[:-1]
    context = True
    for l in tokens["latents"]:
        for r, (before, token, after) in zip(l["rows"], l["text"]):
            first, last = r // 20 * 20, r // 20 * 20 + 20
            context &= token == "\u0120" + lines[r]
            context &= before == "".join("\u0120" + t for t in lines[max(first, r - 12):r])
            context &= after == "".join("\u0120" + t for t in lines[r + 1:min(last, r + 7)])
    check("tokens have their context, within their document", context)
    some = json.load(open(path("some.json")))["latents"]
    check("--latents, --examples and --neighbours", [l["latent"] for l in some] == [5, 2] and
          all(len(l["neighbours"]) == 2 and len(l["rows"]) <= 3 for l in some))
    top = json.load(open(path("top.json")))["latents"]
    often = sorted(words["latents"], key=lambda l: (-l["fired"], l["latent"]))[:4]
    check("--top", [l["latent"] for l in top] == [l["latent"] for l in often])

    page = open(path("words.html"), encoding="utf-8").read()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))
    check("the page holds the same", [l["rows"] for l in data["latents"]] == [l["rows"] for l in words["latents"]] and
          [l["text"] for l in data["latents"]] == [l["text"] for l in words["latents"]])
    check("its elements are closed", well_formed(page))


class Balance(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.good = [], True

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        self.good &= bool(self.open) and self.open.pop() == tag


def well_formed(page):
    b = Balance()
    b.feed(page)
    return b.good and not b.open


class Detail(html.parser.HTMLParser):
    """The texts of <main>, by table row, and the links there."""
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.inside, self.rows, self.text, self.links, self.curves = False, [], "", [], 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.inside |= tag == "main"
        if self.inside and tag == "tr":
            self.rows.append([])
        if self.inside and tag == "td":
            self.rows[-1].append("")
        if self.inside and tag == "a":
            self.links.append(attrs.get("href"))
        self.curves += self.inside and tag == "path" and attrs.get("class") == "line"

    def handle_endtag(self, tag):
        self.inside &= tag != "main"

    def handle_data(self, text):
        if self.inside:
            self.text += text
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += text


def check_page(dom, latent):
    name = os.path.basename(dom).replace(".dom", "")
    l = next(l for l in json.load(open(path(name + ".json"), encoding="utf-8"))["latents"] if l["latent"] == latent)
    page = Detail()
    page.feed(open(path(dom), encoding="utf-8").read())
    want = ["".join(t).replace("\u0120", " ") if isinstance(t, list) else t for t in l["text"]]
    rows = [r for r in page.rows if len(r) == 4]
    check("it shows the latent of its address", page.text.startswith("Latent %d" % latent))
    check("with its top rows in order", [r[0] for r in rows] == want and [int(r[1]) for r in rows] == l["rows"])
    check("and their activations", len(rows) == len(want) and all(near(float(r[2]), v, 0.006) for r, v in zip(rows, l["values"])))
    check("and links to its neighbours", page.links == ["#latent=%d" % k for k in l["neighbours"]] or
          len(page.links) < len(l["neighbours"]) and set(page.links) <= {"#latent=%d" % k for k in l["neighbours"]})
    check("and the curve of its importance", page.curves == 1)


if len(sys.argv) > 2:
    check_page(sys.argv[2], int(sys.argv[3]))
else:
    check_results()
