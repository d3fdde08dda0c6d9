# SPDX-License-Identifier: MIT
"""Which runs the study consists of, in the order in which they are worth doing, and what follows from those
that are done: the tuned settings of a method, the next guess of a search for L0."""

METHODS = ["topk", "batchtopk", "jumprelu", "matryoshka", "uniform", "permuted", "atm"]
KS = {"synthetic": [3, 3.5, 2.5], "real": [32, 64, 16, 128]}  # most important first
TUNING_K = {"synthetic": 3, "real": 32}
TUNING_SEED = 901
MISSES = {"synthetic": "parent_miss", "real": "absorption_full"}
# Rows seen are batch x steps. `small` takes one CPU some two hours, `full` is what a paper would want.
SIZES = {
    "small": {"synthetic": {"F": 168, "batch": 512, "steps": 2000}, "real": {"F": 2048, "batch": 1024, "steps": 500}},
    "medium": {"synthetic": {"F": 168, "batch": 512, "steps": 4000}, "real": {"F": 2048, "batch": 1024, "steps": 2000}},
    "full": {"synthetic": {"F": 168, "batch": 512, "steps": 4000}, "real": {"F": 4096, "batch": 1024, "steps": 2000}},
    "tiny": {"synthetic": {"F": 168, "batch": 128, "steps": 40}, "real": {"F": 64, "batch": 128, "steps": 40}},
}
# What is tried before: learning rates, and values of the method's own setting; a method without one gets as many
# trials by more learning rates.
RATES = {"synthetic": [4e-3, 8e-3], "real": [4e-3, 8e-3]}
MORE_RATES = {"synthetic": [1e-3, 2e-3, 4e-3, 8e-3], "real": [4e-3, 8e-3]}
KNOBS = {"synthetic": {"jumprelu": ("bandwidth", [0.25, 0.5]), "matryoshka": ("widths", [0, 1]), "uniform": ("r", [1, 2]),
                       "permuted": ("r", [1, 2]), "atm": ("r", [1, 2])},
         "real": {}}
FVU_LIMIT = 1.03  # of BatchTopK's on real activations: what a method may pay for fewer misses
# What a search changes to reach an L0, where it starts as a share of k, and the power of L0 / k by which it moves.
SEARCH = {"jumprelu": ("target", {"synthetic": 1.0, "real": 0.9}, -1)}
CLOSE, ATTEMPTS = 0.01, 4

ABLATIONS = [  # of ATM on known features, one thing at a time
    ("r", [0.1, 0.25, 0.5, 1, 2]), ("c", [0, 0.5, 2, 4]), ("decay", [0.9, 0.999]), ("per_row", [1]), ("geometric", [1]),
    ("freeze", [1]), ("warm", [0, 400]),
]
ONE_RATE = 4e-3  # learning rate at which methods are also compared on real activations, with other r for ATM
AT_ONE_RATE = [("batchtopk", {}), ("atm", {"r": 0.25}), ("atm", {"r": 1}), ("matryoshka", {}), ("atm", {"r": 0.5}), ("jumprelu", {})]
STATISTICS = ["magnitude", "frequency", "contribution"]
SCHEDULES = [{"cool_start": 1, "cool_end": 1}, {"cool_start": 0.5, "cool_end": 0.95}, {"cool_start": 0.5, "cool_end": 0.7}]
RELU_LAMBDA = [0.25, 0.5, 1]  # the formula as published, over ReLU + L1, beside ReLU + L1 at the same penalty


def number(value):
    return format(value, ".10g")


def name_of(run):
    """The run as a line for the program, without what a search sets; also its key."""
    return " ".join([run["data"], run["method"]] + [f"{key}={number(value)}" for key, value in sorted(run["settings"].items())])


def make(part, data, method, size, **settings):
    return {"part": part, "data": data, "method": method, "settings": {**SIZES[size][data], **settings}}


def trials(data, method, size):
    knob, values = KNOBS[data].get(method, (None, [None]))
    grid = [(rate, value) for rate in (RATES if knob else MORE_RATES)[data] for value in values]
    return [make("tuning", data, method, size, k=TUNING_K[data], seed=TUNING_SEED, tune=1, lr=rate, **({knob: value} if knob else {}))
            for rate, value in grid]


class Done:
    """The results so far, by the name of their run; of a search all attempts, in order."""

    def __init__(self, results):
        self.by_name = {}
        for result in results:
            self.by_name.setdefault(result["run"], []).append(result)

    def best(self, run):
        """The result of a run; of a search the attempt that came closest on the rows held back. None: not done."""
        attempts = self.by_name.get(name_of(run), [])
        if not attempts or (run["method"] in SEARCH and self.guess(run) is not None):
            return None
        if run["method"] not in SEARCH:
            return attempts[0]
        return min(attempts, key=lambda a: abs(a["l0_held"] / run["settings"]["k"] - 1))

    def guess(self, run):
        """What to try next in a search; None: it is over."""
        setting, start, power = SEARCH[run["method"]]
        k, attempts = run["settings"]["k"], self.by_name.get(name_of(run), [])
        if not attempts:
            return start[run["data"]] * k
        last = attempts[-1]
        if abs(last["l0_held"] / k - 1) <= CLOSE or len(attempts) >= ATTEMPTS:
            return None
        return float(number(last[setting] * min(2, max(0.5, (last["l0_held"] / k) ** power))))

    def tuned(self, data, method, size):
        """Settings that won the trials. On known features the learning rate is the one with the lowest FVU (a low one leaves
        an SAE unfinished, which absorbs less), and of the other setting's values, so trained, the one with the fewest misses. On
        real activations all that stays within FVU_LIMIT of the best BatchTopK is finished enough: the fewest misses among those,
        or else the lowest FVU. None: trials are missing."""
        runs, reference = trials(data, method, size), trials(data, "batchtopk", size)
        results, base = [self.best(run) for run in runs], [self.best(run) for run in reference]
        if None in results or None in base:
            return None
        knob = KNOBS[data].get(method, ("",))[0]
        pairs = list(zip(runs, results))
        if data == "real":
            within = [pair for pair in pairs if pair[1]["fvu"] <= FVU_LIMIT * min(r["fvu"] for r in base)]
        else:
            finished = {}
            for run, result in pairs:
                value = run["settings"].get(knob)
                if value not in finished or result["fvu"] < finished[value][1]["fvu"]:
                    finished[value] = (run, result)
            within = list(finished.values())
        run, _ = (min(within, key=lambda pair: (pair[1][MISSES[data]], pair[1]["fvu"])) if within
                  else min(pairs, key=lambda pair: pair[1]["fvu"]))
        return {key: value for key, value in run["settings"].items() if key in ("lr", knob)}


def main_runs(done, data, method, k, size, seeds):
    chosen = done.tuned(data, method, size)
    if chosen is None:
        return []
    probing = {"probing": 1} if data == "real" else {}
    return [make("main", data, method, size, k=k, seed=seed, **chosen, **probing) for seed in range(1, seeds + 1)]


def ablation_runs(done, size, seeds):
    chosen = done.tuned("synthetic", "atm", size)
    if chosen is None:
        return []
    changes = [{setting: value} for setting, values in ABLATIONS for value in values if chosen.get(setting) != value]
    changes += [{other: 0 for other in STATISTICS if other != one} for one in STATISTICS] + SCHEDULES
    return [make("ablation", "synthetic", "atm", size, k=3, seed=seed, **{**chosen, **change})
            for change in changes for seed in range(1, seeds + 1)]


def one_rate_runs(size, seeds):
    return [make("ablation", "real", method, size, k=TUNING_K["real"], seed=seed, lr=ONE_RATE, probing=1, **settings)
            for method, settings in AT_ONE_RATE for seed in range(1, seeds + 1)]


def relu_runs(size, seeds):
    return [make("formula", "synthetic", method, size, k=3, seed=seed, lr=1e-3, **{"lambda": value}, **({"r": 0.5} if method == "paper" else {}))
            for value in RELU_LAMBDA for method in ("relu", "paper") for seed in range(1, min(seeds, 3) + 1)]


def plan(done, data, size, seeds):
    """All runs of a kind of data that can be named already, first things first."""
    runs = [run for method in METHODS for run in trials(data, method, size)]
    for k in KS[data]:
        runs += [run for method in METHODS if method != "topk" or k == int(k)  # it takes whole numbers only
                 for run in main_runs(done, data, method, k, size, seeds)]
    if data == "real":
        runs += one_rate_runs(size, seeds)
    if data == "synthetic":
        runs += relu_runs(size, seeds) + ablation_runs(done, size, min(seeds, 3))
    return runs
