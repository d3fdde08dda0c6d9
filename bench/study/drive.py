# SPDX-License-Identifier: MIT
"""Does the study's runs, a few at a time, and keeps their results; what is in the file of results is not done again.
Several drivers may share that file."""
import argparse
import fcntl
import json
import os
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import plan  # noqa: E402


class Results:
    """A JSON array in a file, one result a line. Written anew to a temporary file and renamed, under a lock."""

    def __init__(self, path):
        self.path = path

    def read(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return []

    def add(self, result):
        with open(self.path + ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            results = self.read() + [result]
            temporary = self.path + ".new"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)


class Queue:
    def __init__(self, options, kinds):
        self.options, self.kinds = options, kinds
        self.results, self.lock, self.running = Results(options.results), threading.Lock(), set()
        self.end = time.monotonic() + 60 * options.budget
        self.left = options.runs

    def take(self, kind):
        """The next run of this kind, as (run, line for the program); None: nothing that can be started now."""
        with self.lock:
            if time.monotonic() >= self.end or self.left == 0:
                return None
            done = plan.Done(self.results.read())
            for run in plan.plan(done, kind, self.options.size, self.options.seeds):
                name = plan.name_of(run)
                if name in self.running or done.best(run):
                    continue
                line = name
                if run["method"] in plan.SEARCH:
                    line += f" {plan.SEARCH[run['method']][0]}={plan.number(done.guess(run))}"
                self.running.add(name)
                self.left -= 1
                return run, line
            return None

    def put(self, run, result):
        with self.lock:
            self.running.discard(plan.name_of(run))
            self.results.add(result)


def complete(run, result):
    result = {"run": plan.name_of(run), "part": run["part"], **result}
    if run["data"] == "real":
        words = result["words_prompted"] + result["words_bare"]
        result["absorption_full"] = round((result["absorbed_prompted"] + result["absorbed_bare"]) / words, 6)
        result["letter_f1"] = round((result["f1_prompted"] + result["f1_bare"]) / 2, 4)
    for name in ("parent_miss", "absorption_full", "letter_f1", "probing_top1"):
        result.setdefault(name, None)
    return result


def work(queue, kind, failures):
    """One process of the program, which keeps its data from run to run."""
    process = None
    while True:
        taken = queue.take(kind)
        if taken is None:
            with queue.lock:
                waiting = bool(queue.running) and queue.left != 0 and time.monotonic() < queue.end
            if not waiting:
                break
            time.sleep(0.5)  # what others are doing may bring more
            continue
        run, line = taken
        if process is None:
            data = [queue.options.data] + queue.options.models if kind == "real" else []
            process = subprocess.Popen([queue.options.program] + data, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            failures.append(line)
            break
        result = complete(run, json.loads(answer))
        queue.put(run, result)
        misses = result[plan.MISSES[kind]]
        print(f"{result['part']:8s} {line}: L0 {result['l0']:.2f} FVU {result['fvu']:.4f} missed {misses:.4f}", flush=True)
    if process is not None:
        process.stdin.close()
        process.wait()


def main():
    parser = argparse.ArgumentParser(prog="bench/study/run", description="The runs of doc/study.md; resumes where it stopped.")
    parser.add_argument("--data", metavar="DIR", help="folder with the real activations (doc/study.md says which files)")
    parser.add_argument("--models", nargs=1, default=[], metavar="DIR", help="keep SAEs trained on them in this folder, and take those there are")
    parser.add_argument("--only", choices=["real", "synthetic"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each; default 1")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES", help="start no run after this time")
    parser.add_argument("--runs", type=int, default=-1, help="do at most so many runs")
    parser.add_argument("--size", choices=list(plan.SIZES), default="small", help="of a run, see plan.py; default small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results.json"))
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)  # run fills it in
    options = parser.parse_args()
    kinds = [kind for kind in ("synthetic", "real") if options.only in (None, kind)]
    if options.only == "real" and not options.data:
        parser.error("--only real needs --data")
    if not options.data and "real" in kinds:
        kinds.remove("real")
    failures = []
    for kind in kinds:
        queue = Queue(options, kinds)
        workers = [threading.Thread(target=work, args=(queue, kind, failures)) for _ in range(options.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        options.runs = queue.left
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
