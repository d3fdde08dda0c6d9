# SPDX-License-Identifier: MIT
"""usage: migration.py SOURCE

The names of other packages' options in doc/migration.md are fields or arguments of the installed packages.
"""
import ast
import importlib.util
import pathlib
import re
import sys

SECTIONS = {"SAELens": "sae_lens", "sparsify": "sparsify", "dictionary_learning": "dictionary_learning"}


def names_of(package):
    """Fields, arguments, and strings of a package's sources, which are not run."""
    found = set()
    for path in pathlib.Path(importlib.util.find_spec(package).origin).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


passed = failed = 0
text = (pathlib.Path(sys.argv[1]) / "doc/migration.md").read_text()
for title, package in SECTIONS.items():
    if importlib.util.find_spec(package) is None:
        print(f"not checked: {package} is not installed")
        continue
    known = names_of(package)
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    cells = re.findall(r"^\|([^|]*)\|[^|]*\|", section, re.M) + re.findall(r"^(`.*):$|^(`.*?);", section, re.M)
    for name in re.findall(r"`(\w+)[^`]*`", " ".join(" ".join(c) if isinstance(c, tuple) else c for c in cells)):
        passed, failed = passed + (name in known), failed + (name not in known)
        if name not in known:
            print(f"failed: {package} has no {name}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
