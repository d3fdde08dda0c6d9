# SPDX-License-Identifier: MIT
"""Which runs the study consists of, in the order in which they are worth doing.

An arm is a method with settings; a table compares arms on one kind of data at one width and L0, over the same seeds. The
search, from which the arms' settings came, ran on rows, words and seeds of its own."""

LAYERS = ["layer9", "layer16"]
# Rows seen are batch x steps: 1.5 M of a layer's activations, 1 M synthetic rows, 20 M of SynthSAEBench-16k.
SIZES = {
    "synthetic": {"F": 168, "batch": 512, "steps": 2000, "lr": 8e-3},
    "layer9": {"F": 4096, "batch": 1024, "steps": 1465, "lr": 2e-3},
    "layer16": {"F": 4096, "batch": 1024, "steps": 1465, "lr": 2e-3},
    "synth16k": {"F": 4096, "batch": 1024, "steps": 19532, "lr": 3e-4},
}
TINY = {"synthetic": {"batch": 128, "steps": 40}, "layer9": {"F": 64, "batch": 128, "steps": 40}}  # to test the driver

SECOND = {"effect": 1, "per_row": 1, "r": 2, "alpha": 0.3}  # the second loss, a mask for each row
HARD = {"effect": 0, "per_row": 0, "r": 0.25}

# name: (title, method of train.c, settings)
ARMS = {
    "topk": ("TopK", "topk", {}),
    "batchtopk": ("BatchTopK", "batchtopk", {}),
    "matryoshka": ("Matryoshka, doubling widths", "matryoshka", {}),
    "matryoshka-2": ("Matryoshka, 1/16 and 1/4", "matryoshka", {"widths": 1}),
    "matryoshka-even": ("Matryoshka, even widths", "matryoshka", {"widths": 2}),
    "matryoshka-bench": ("Matryoshka, 128, 512 and 2048", "matryoshka", {"widths": 3}),
    "jumprelu": ("JumpReLU", "jumprelu", {}),
    "jumprelu-narrow": ("JumpReLU, half the bandwidth", "jumprelu", {"bandwidth": 0.5}),
    "jumprelu-wide": ("JumpReLU, twice the bandwidth", "jumprelu", {"bandwidth": 2}),
    "hard": ("ATM, hard mask", "atm", HARD),
    "atm-0.1": ("ATM, alpha 0.1", "atm", {**SECOND, "alpha": 0.1}),
    "atm": ("ATM", "atm", SECOND),
    "atm-1": ("ATM, alpha 1", "atm", {**SECOND, "alpha": 1}),
    "atm-jumprelu": ("ATM over JumpReLU", "atm_jumprelu", SECOND),
    "uniform": ("control: uniform p", "uniform", SECOND),
    "permuted": ("control: p permuted", "permuted", SECOND),
}

# What was tried: changes of the arm `atm` and of others.
SEARCH_SEEDS = {"synthetic": [901, 902, 903], "layer9": [901, 902]}
SEARCH = [("batchtopk", {}), ("atm", {}), ("jumprelu", {}), ("matryoshka", {}), ("hard", {}), ("permuted", {}), ("uniform", {}), ("atm-jumprelu", {}),
          ("atm", {"alpha": 0.1}), ("atm", {"alpha": 1}), ("atm", {"alpha": 0.03}), ("atm", {"alpha": 3}),
          ("atm", {"r": 0.5}), ("atm", {"r": 1}), ("atm", {"r": 4}), ("atm", {"r": 8}),
          ("atm", {"c": 0}), ("atm", {"c": 0.5}), ("atm", {"c": 2}), ("atm", {"per_row": 0}),
          ("atm", {"cool_start": 1, "cool_end": 1}), ("atm", {"cool_start": 0.5, "cool_end": 0.95}), ("atm", {"warm": 0}), ("atm", {"warm": 300}),
          ("atm-jumprelu", {"alpha": 0.1}), ("atm-jumprelu", {"alpha": 1}), ("topk", {}), ("matryoshka-2", {}), ("matryoshka-even", {}),
          ("jumprelu-narrow", {}), ("jumprelu-wide", {}),
          ("batchtopk", {"lr": 0.5}), ("batchtopk", {"lr": 2}), ("jumprelu", {"lr": 0.5}), ("jumprelu", {"lr": 2}), ("atm", {"lr": 0.5}), ("atm", {"lr": 2})]
RELATIVE = ("lr", "bandwidth")  # settings that are given as a multiple of the usual value
BANDWIDTH = {"synthetic": 0.5, "layer9": 0.5, "layer16": 0.5, "synth16k": 0.5}
SEARCH_KS = {"synthetic": [3.5, 3], "layer9": [32]}

# The tables: data, changes of its size, L0, seeds, arms. First things first.
PRIMARY = ["batchtopk", "atm", "jumprelu"]
OTHERS = ["topk", "matryoshka", "matryoshka-2", "jumprelu-narrow", "jumprelu-wide", "hard", "atm-0.1", "atm-1", "atm-jumprelu", "uniform", "permuted"]
BENCH = ["topk", "batchtopk", "jumprelu", "matryoshka-bench", "atm"]  # what SynthSAEBench compares, and ATM
TABLES = [
    ("layer9", {}, 32, 10, PRIMARY),
    ("layer9", {}, 32, 5, OTHERS),
    ("synthetic", {}, 3.5, 5, PRIMARY + OTHERS),
    ("synthetic", {}, 3, 5, PRIMARY + OTHERS),
    ("layer16", {}, 32, 5, PRIMARY + ["topk", "matryoshka", "hard", "permuted"]),
    ("layer9", {}, 16, 5, PRIMARY + ["topk", "matryoshka", "jumprelu-wide", "atm-1", "permuted"]),
    ("layer9", {}, 64, 5, PRIMARY + ["topk", "matryoshka", "jumprelu-wide", "atm-1", "permuted"]),
    ("layer9", {"F": 16384}, 32, 5, PRIMARY + ["topk", "matryoshka", "permuted"]),
    ("synth16k", {}, 25, 1, BENCH),
    ("synth16k", {}, 35, 1, BENCH),
    ("synth16k", {}, 15, 1, BENCH),
    ("synth16k", {}, 45, 1, BENCH),
    ("synth16k", {"steps": 195313}, 25, 1, BENCH),
]


def number(value):
    return format(value, ".10g")


def name_of(run):
    """The run as a line for the program; also its key."""
    return " ".join([run["data"], run["method"]] + [f"{key}={number(value)}" for key, value in sorted(run["settings"].items())])


def make(part, data, arm, tiny, **settings):
    """A run; settings go before those of the arm, and these before those of the data."""
    _, method, own = ARMS[arm]
    size = {**SIZES[data], **(TINY.get(data, {}) if tiny else {})}
    usual = {"lr": size["lr"], "bandwidth": BANDWIDTH[data]}
    merged = {**own, **settings}
    merged.update({key: merged[key] * usual[key] for key in RELATIVE if key in merged})
    return {"part": part, "data": data, "arm": arm, "method": method, "settings": {**size, **merged}}


def takes(arm, k):
    return arm != "topk" or k == int(k)  # TopK takes whole numbers only


def search(data, tiny):
    for k in SEARCH_KS.get(data, []):
        for arm, changes in SEARCH:
            for seed in SEARCH_SEEDS[data] if takes(arm, k) else []:
                yield make("search", data, arm, tiny, k=k, seed=seed, tune=1, **changes)


def study(data, tiny):
    for table_data, changes, k, seeds, arms in TABLES:
        if table_data == data:
            for seed in range(1, seeds + 1):
                for arm in filter(lambda arm: takes(arm, k), arms):
                    yield make("study", data, arm, tiny, k=k, seed=seed, **changes, **({"probing": 1} if data in LAYERS else {}))


PARTS = {"search": search, "study": study}
