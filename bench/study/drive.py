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
    """Runs of one kind of data that are not done, handed out to workers."""

    def __init__(self, options, data):
        self.results, self.lock = Results(options.results), threading.Lock()
        done = {result["run"] for result in self.results.read()}
        named = {plan.name_of(run): run for run in plan.PARTS[options.part](data, options.tiny)}
        self.runs = [run for name, run in named.items() if name not in done]
        self.end = time.monotonic() + 60 * options.budget

    def take(self):
        with self.lock:
            return self.runs.pop(0) if self.runs and time.monotonic() < self.end else None

    def put(self, run, result):
        with self.lock:
            self.results.add(complete(run, result))


def complete(run, result):
    result = {"run": plan.name_of(run), "part": run["part"], "arm": run["arm"], **result}
    result.pop("list_bare", None)  # nothing is drawn over them, and they are long
    if "words_prompted" in result:
        words = result["words_prompted"] + result["words_bare"]
        result["absorption_full"] = round((result["absorbed_prompted"] + result["absorbed_bare"]) / words, 6)
        result["letter_f1"] = round((result["f1_prompted"] + result["f1_bare"]) / 2, 4)
    return result


def work(queue, command, failures):
    """One process of the program, which keeps its data from run to run."""
    process = None
    while (run := queue.take()) is not None:
        line = plan.name_of(run)
        if process is None:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer.endswith("\n"):
            failures.append(line)
            break
        result = json.loads(answer)
        queue.put(run, result)
        missed = result.get("parent_miss", result.get("absorbed_prompted"))
        print(f"{run['arm']:16s} {line}: L0 {result['l0']:.2f} FVU {result['fvu']:.4f} missed {missed} ({result['seconds']:.0f} s)", flush=True)
    if process is not None:
        process.stdin.close()
        process.wait()


def main():
    parser = argparse.ArgumentParser(prog="bench/study/run", description="The runs of doc/study.md; resumes where it stopped.")
    parser.add_argument("--data", metavar="DIR", help="folder with the real activations, made by bench/study/data")
    parser.add_argument("--models", metavar="DIR", help="keep SAEs trained on them in this folder, and take those there are")
    parser.add_argument("--part", choices=list(plan.PARTS), default="study", help="default study; search: what its settings were chosen by")
    parser.add_argument("--only", choices=list(plan.SIZES))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each; default 1")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES", help="start no run after this time")
    parser.add_argument("--runs", type=int, help="do at most so many runs")
    parser.add_argument("--tiny", action="store_true", help="runs of no use that take no time, to test this program")
    parser.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results.json"))
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)  # run fills it in
    options = parser.parse_args()
    if options.only in plan.LAYERS and not options.data:
        parser.error(f"--only {options.only} needs --data")
    failures, left = [], options.runs
    for data in plan.SIZES:
        if options.only not in (None, data) or (data in plan.LAYERS and not options.data):
            continue
        queue = Queue(options, data)
        if left is not None:
            del queue.runs[left:]
            left -= len(queue.runs)
        command = [options.program] + ([options.data] if options.data else []) + ([options.models] if options.data and options.models else [])
        workers = [threading.Thread(target=work, args=(queue, command, failures)) for _ in range(options.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
