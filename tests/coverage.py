# SPDX-License-Identifier: MIT
"""usage: coverage.py SOURCE GCOVR.json: coverage by folder, limits, and exceptions; for check_coverage.sh"""
import json
import sys

source, report = sys.argv[1:]
# lines, branches in percent: folder or file
LIMITS = {"lib": (98, 94), "lib/atm": (100, 95), "lib/base": (99, 95), "lib/eval": (99, 92), "lib/format": (99.9, 96),
          "lib/train/checkpoint.c": (100, 95), "lib/train/checkpoint_settings.c": (100, 95)}
# Where what is not taken must be listed.
STRICT = {"lib/base", "lib/train/checkpoint.c", "lib/train/checkpoint_settings.c"} | {f"lib/format/{name}.c" for name in ("file", "json", "safetensors", "sort")}


def parts(name):
    """The names under which a file is counted."""
    return {"lib", "/".join(name.split("/")[:2]), name}


listed = {}  # (file, text of the line) -> seen, or need not be
for row in open(f"{source}/tests/coverage-exceptions.txt", encoding="utf-8"):
    if row.strip() and not row.startswith("#"):
        name, text, reason = (field.strip() for field in row.split(" | ", 2))
        listed[name, text] = reason.startswith("here: ") and text in open(f"{source}/{name}", encoding="utf-8").read()

sums = {}  # name -> [lines, covered, branches, taken]
failed = []
for file in json.load(open(report, encoding="utf-8"))["files"]:
    name = file["file"]
    text = open(f"{source}/{name}", encoding="utf-8").read().split("\n")
    strict = parts(name) & STRICT
    for line in file["lines"]:
        if line.get("gcovr/noncode"):
            continue
        taken = [branch["count"] > 0 for branch in line["branches"]]
        for part in parts(name):
            s = sums.setdefault(part, [0, 0, 0, 0])
            for i, n in enumerate((1, line["count"] > 0, len(taken), sum(taken))):
                s[i] += n
        if strict and (line["count"] == 0 or not all(taken)):
            code = text[line["line_number"] - 1]
            keys = [key for key in listed if key[0] == name and key[1] in code]
            for key in keys:
                listed[key] = True
            if not keys:
                failed.append(f"{name}:{line['line_number']}: not taken, not listed: {code.strip()}")

for name in sorted(name for name in sums if not name.endswith((".c", ".h")) or name in LIMITS):
    lines, covered, branches, taken = sums[name]
    print(f"{name:24} lines {100 * covered / lines:5.1f} %   branches {100 * taken / max(branches, 1):5.1f} %   of {lines}, {branches}")
for name, (least_lines, least_branches) in LIMITS.items():
    lines, covered, branches, taken = sums.get(name, (1, 0, 1, 0))
    if 100 * covered < least_lines * lines or 100 * taken < least_branches * branches:
        failed.append(f"{name}: below its limit of {least_lines} % of lines, {least_branches} % of branches")
failed += [f"coverage-exceptions.txt: {name}: taken now, or gone: {text}" for (name, text), seen in listed.items() if not seen]
print("\n".join(failed))
print(f"{len(LIMITS)} passed, 0 failed" if not failed else f"0 passed, {len(failed)} failed")
sys.exit(bool(failed))
