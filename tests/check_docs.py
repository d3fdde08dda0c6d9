#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: check_docs.py SOURCE BUILD

Holds README.md and doc/*.md to the library: commands in them run, C and Python in them compile, names and
options exist, links lead somewhere, and doc/api.md is what doc/api/generate writes.

A fenced block of c, python or sh has a comment on the line before it:
    <!-- run by tests/walkthrough/X.sh -->   that script takes it out of the document and runs it
    <!-- not run: REASON -->
Other commands, `atmsae ...` indented or in a fence, are run here, in a folder with small files under the names
that documents use (stand_ins), and with sizes that are small (shrink). Ends with "N passed, N failed".
"""
import glob
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

SOURCE, BUILD = (pathlib.Path(p) for p in sys.argv[1:3])
ATMSAE = str(BUILD / "examples/atmsae")
LANGUAGES = ["", "text", "json", "c", "python", "sh"]
FOREIGN_OPTIONS = ["--help", "--prefix", "--libdir", "--control-vector", "--cflags", "--libs", "--wrap", "--static", "--buildtype"]
passed, failed = 0, 0


def check(good, what):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("failed:", what)


def run(arguments, **more):
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, **more)


# ---- documents ----


class Block:
    def __init__(self, document, line, language, marker, text):
        self.where, self.language, self.marker, self.text = f"{document}:{line}", language, marker, text

    def lines(self):
        return [line.strip() for line in re.sub(r"\\\n\s*", " ", self.text).splitlines()]


def blocks(document, text):
    """Fenced blocks, and runs of indented lines; and the text without them."""
    out, prose, lines, i = [], [], text.splitlines(), 0
    while i < len(lines):
        fence = re.match(r"```(\w*)$", lines[i])
        if fence or lines[i].startswith("    "):
            start, inside = i, []
            marker = prose[-1] if prose and prose[-1].startswith("<!--") else ""
            i += bool(fence)
            while i < len(lines) and (lines[i] != "```" if fence else lines[i].startswith("    ")):
                inside.append(lines[i])
                i += 1
            i += bool(fence)
            out.append(Block(document, start + 1, fence[1] if fence else "", marker, "\n".join(inside) + "\n"))
        else:
            prose.append(lines[i])
            i += 1
    return out, "\n".join(prose)


def slugs(text):
    """Anchors of a document, as forges make them of headings."""
    heads = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h) for h in re.findall(r"^#+ (.*)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads} | set(re.findall(r'<a id="(\w+)"', text))


def check_links(document, prose):
    folder = (SOURCE / document).parent
    prose = re.sub(r"`[^`]*`", "", prose)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[^]]+\]: (\S+)", prose, re.M):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else SOURCE / document
        check(file.exists(), f"{document}: link to {target}: no such file")
        if anchor and file.is_file():
            check(anchor in slugs(file.read_text()), f"{document}: link to {target}: no such heading")


# ---- names and options ----

HEADERS = "".join((SOURCE / "include/atmsae" / h).read_text() for h in ("atmsae.h", "eval.h"))
helps = {}


def help_of(command):
    if command not in helps:
        helps[command] = run([ATMSAE, command, "--help"]).stdout
    return helps[command]


def commands():
    return re.findall(r"^  (\w+) +\w", run([ATMSAE, "--help"]).stdout.split("--version")[0], re.M)


def has_option(text, option):
    return re.search(rf"(?<![\w-]){option}(?![\w-])", text)


def everywhere():
    """Text of the scripts and sources in which variables are read."""
    files = [p for folder in ("tests", "bench", "examples", "lib", ".ci") for p in (SOURCE / folder).rglob("*") if p.suffix in ("", ".sh", ".py", ".c")]
    return "".join(p.read_text(errors="replace") for p in files if p.is_file() and p.stat().st_size < 200000)


def check_names(document, text, scripts):
    # R's and other bindings' names are in examples.
    for name in sorted(set(re.findall(r"\batmsae_\w+", text))):
        check(re.search(rf"\b{name}\b", HEADERS) or name in scripts, f"{document}: no function or type {name}")
    for name in sorted(set(re.findall(r"\bATMSAE_\w+", text))):
        known = re.search(rf"\b{name}" + ("" if name.endswith("_") else r"\b"), HEADERS)
        check(known or name in scripts, f"{document}: no constant or variable {name}")


def check_options(document, prose, all_help, scripts):
    build_options = (SOURCE / "meson_options.txt").read_text()
    for span in re.findall(r"`([^`]+)`", prose.replace("\n", " ")):
        words = span.split()
        text = all_help + " ".join(FOREIGN_OPTIONS)
        if words[0] == "atmsae" and len(words) > 1 and not words[1].startswith("--"):
            check(words[1] in commands() or words[1].isupper(), f"{document}: no command in `{span}`")
            text = help_of(words[1]) + " --help"
        elif re.fullmatch(r"(\./)?[\w/]+/\w+", words[0]) and (SOURCE / words[0]).is_file():
            text = (SOURCE / words[0]).read_text()
        elif not words[0].startswith("-"):
            text += scripts  # a program of the tests or the benchmark
        for word in words:
            if re.fullmatch(r"--[a-z][\w-]*", word):
                check(has_option(text, word), f"{document}: no option {word} in `{span}`")
            if name := re.match(r"-D([a-z_]+)", word):
                check(re.search(rf"option\('{name[1]}'", build_options) or name[1].startswith("b_"), f"{document}: no build option {span}")


# ---- commands ----


def sample(first, rows):
    """Rows of the shipped sample, f16 [rows, 576]."""
    data = (SOURCE / "examples/data/activations-valid.npy").read_bytes()[128:]
    return data[first * 1152 : (first + rows) * 1152]


def npy(path, first, rows):
    head = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, 576), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + head.encode() + sample(first, rows))


def safetensors(path, **tensors):
    """tensors: (dtype, shape, bytes)."""
    head, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        head[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(data), len(data) + len(values)])
        data += values
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def some_words(path, n):
    """The first n of the shipped words."""
    whole = (SOURCE / "examples/data/words.safetensors").read_bytes()
    start, tensors = 8 + int.from_bytes(whole[:8], "little"), {}
    for name, tensor in json.loads(whole[8:start]).items():
        first, end = tensor["data_offsets"]
        size = (end - first) // tensor["shape"][0] * n
        tensors[name] = tensor["dtype"], [n] + tensor["shape"][1:], whole[start + first : start + first + size]
    safetensors(path, **tensors)


def stand_ins(folder):
    """The files that documents speak of: a few hundred rows each; an SAE of 1300 latents, trained for two steps."""
    for i, name in enumerate(("acts.npy", "acts-0.npy", "acts-1.npy", "rows.npy", "valid.npy")):
        npy(folder / name, 300 * i, 600)
    safetensors(folder / "valid.safetensors", activations=("F16", [600, 576], sample(2000, 600)))
    safetensors(folder / "t.safetensors", activations=("F16", [40, 576], sample(0, 40)), labels=("I8", [40, 2], b"\1\0\0\1" * 20),
                is_train=("U8", [40], b"\0\0\1\1" * 10))  # fmt: skip
    (folder / "t.tasks.json").write_text('["odd", "even"]')
    for name, first in (("mlp-in.npy", 0), ("mlp-out.npy", 600), ("mlp-in-valid.npy", 1200), ("mlp-out-valid.npy", 1800)):
        npy(folder / name, first, 600)
    safetensors(folder / "mlp.safetensors", mlp_in=("F16", [600, 576], sample(0, 600)), mlp_out=("F16", [600, 576], sample(600, 600)))
    some_words(folder / "words.safetensors", 600)
    (folder / "words.txt").write_text("word\n" * 600)
    (folder / "tokens.txt").write_text("token\n" * 600)
    os.symlink(SOURCE / "tests/fixtures/formats/gemma_scope", folder / "gemma-scope")
    os.symlink(SOURCE / "tests/fixtures/formats/dictionary_BatchTopKSAE", folder / "trainer_0")
    os.symlink(SOURCE / "examples", folder / "examples")
    result = run([ATMSAE, *shrink(["train", "acts.npy", "--out", "sae"])], cwd=folder)
    check(result.returncode == 0, f"stand-in sae: {result.stdout}")
    for sae in ("sae-without-masks", "out/atm", "out/topk"):
        shutil.copytree(folder / "sae", folder / sae)


def shrink(words):
    """Sizes of real runs become those of the stand-ins."""
    small = {"train": {"--d-sae": "1300", "--rows": "600", "--batch": "300"}, "resume": {"--rows": "900"},
             "bench": {"--d-in": "64", "--d-sae": "128", "--batch": "64", "--seconds": "0.1", "--k": "4"}, "synth": {"--rows": "100"}}  # fmt: skip
    sizes, out, i = small.get(words[0], {}), [], 0
    while i < len(words):
        if words[i] in sizes:
            i += 2
        else:
            out.append(words[i])
            i += 1
    if words[0] == "resume" and "--rows" not in words:
        return out
    flags = ["--force"] if words[0] in ("train", "convert") else []
    return out + [word for pair in sizes.items() for word in pair] + flags


def run_command(where, line, folder):
    words = shlex.split(line, comments=True)[1:]
    words = [match for word in words for match in (sorted(glob.glob(word, root_dir=folder)) or [word])]
    if not words or "COMMAND" in words or any(w.isupper() and len(w) > 1 for w in words):
        return  # atmsae COMMAND --help
    words = shrink(words)
    result = run([ATMSAE, *words], cwd=folder, timeout=300)
    check(result.returncode == 0, f"{where}: {line}\n  atmsae {' '.join(words)}\n  exit code {result.returncode}: {result.stdout[-600:]}")


def check_block(block, folder, scripts):
    check(block.language in LANGUAGES, f"{block.where}: nothing runs blocks of {block.language}")
    by, reason = re.match(r"<!-- run by (\S+) -->", block.marker), re.match(r"<!-- not run: \S.* -->", block.marker)
    if by:
        script = SOURCE / by[1]
        document = block.where.split(":")[0]
        check(script.is_file() and document in script.read_text(), f"{block.where}: {by[1]} does not run blocks of {document}")
    if block.language == "c":
        (folder / "block.c").write_text(block.text)
        result = run([os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{SOURCE}/include", "block.c"], cwd=folder)
        check(result.returncode == 0, f"{block.where}: {result.stdout}")
    if block.language == "python":
        try:
            compile(block.text, block.where, "exec")
        except SyntaxError as error:
            check(False, f"{block.where}: {error}")
    if block.language in ("c", "python", "sh"):
        check(by or reason, f"{block.where}: says neither what runs it nor why nothing does")
        return
    for line in block.lines():
        word = (line.split() or [""])[0]
        if word == "atmsae":
            if not reason:
                run_command(block.where, line, folder)
        elif re.match(r"(\./|tests/|bench/|examples/)\w[\w./]*$", word):
            check((SOURCE / word).exists() or glob.glob(str(SOURCE / word)), f"{block.where}: no {word}")


def main():
    documents = ["README.md"] + sorted(f"doc/{p.name}" for p in (SOURCE / "doc").glob("*.md"))
    scripts = everywhere()
    all_help = "".join(help_of(c) for c in commands()) + run([ATMSAE, "--help"]).stdout
    programs = [*SOURCE.glob("*/run"), *SOURCE.glob("*/*/run"), *SOURCE.glob("examples/python/*.py")]
    all_help += "".join(p.read_text() for p in programs if p.is_file())
    for document in documents:
        text = (SOURCE / document).read_text()
        found, prose = blocks(document, text)
        check_links(document, prose)
        if document == "doc/api.md":
            continue
        check_names(document, text, scripts)
        if document == "doc/migration.md":  # the second column has our names
            for cell in re.findall(r"^\|[^|]*\|([^|]*)\|", prose, re.M):
                check_options(document, cell, all_help, scripts)
                for name in re.findall(r"`([a-z]\w+)`", cell):
                    check(re.search(rf"\b{name};|\b{name},", HEADERS), f"{document}: no field {name}")
        else:
            check_options(document, prose, all_help, scripts)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            if any(line.startswith("atmsae ") for block in found if block.language != "sh" for line in block.lines()):
                stand_ins(folder)
            for block in found:
                check_block(block, folder, scripts)

    fresh = run([sys.executable, str(SOURCE / "doc/api/generate")]).stdout
    api = (SOURCE / "doc/api.md").read_text()
    check(fresh == api, "doc/api.md is not what doc/api/generate writes: run doc/api/generate >doc/api.md")
    for name in re.findall(r"^ *(atmsae_\w+);$", (SOURCE / "lib/libatmsae.map").read_text(), re.M):
        check(f'<a id="{name}">' in api, f"doc/api.md: no {name}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
