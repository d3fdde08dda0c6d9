#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_study.sh SOURCE PROGRAM
# The study's driver on tiny runs: stopped and resumed; the committed results' schema; doc/study.md and its figures
# are what the generator makes of them. TAP on stdout.
set -u
source=$1 program=$2
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
study=$source/bench/study
tests=0 failed=0
try() { # NAME COMMAND...
    name=$1
    shift
    tests=$((tests + 1))
    if "$@" >"$work/log" 2>&1; then echo "ok $tests - $name"
    else
        failed=1
        echo "not ok $tests - $name"
        sed 's/^/# /' "$work/log" | tail -n 12
    fi
}
drive() { python3 "$study/drive.py" --program "$program" --results "$work/results.json" --tiny --only synthetic "$@"; }
count() { python3 -c "import json; print(len(json.load(open('$work/results.json'))))"; }

two_runs() { drive --runs 2 --jobs 2 && [ "$(count)" = 2 ]; }
resumed() { cp "$work/results.json" "$work/before.json" && drive --runs 1 && [ "$(count)" = 3 ] && python3 - "$work" <<'END'
import json, sys
before, after = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("before", "results"))
assert after[:2] == before, "results changed"
assert len({r["run"] for r in after}) == 3, "a run was done twice"
END
}
# Killed in the middle of a run: the file stays whole, and the run is done again.
killed() {
    python3 "$study/drive.py" --program "$program" --results "$work/results.json" --only synthetic >"$work/killed" 2>&1 &
    driver=$!
    sleep 1
    kill -9 "$driver"
    wait "$driver" 2>/dev/null
    [ "$(count)" = 3 ] && drive --runs 1 && [ "$(count)" = 4 ]
}
same_numbers() { # a run by hand gives what the driver wrote
    python3 - "$work/results.json" "$program" <<'END'
import json, subprocess, sys
result = json.load(open(sys.argv[1]))[0]
again = json.loads(subprocess.run([sys.argv[2]], input=result["run"] + "\n", stdout=subprocess.PIPE, text=True, check=True).stdout)
differing = [key for key in again if key != "seconds" and again[key] != result[key]]
assert not differing, differing
END
}
refuses() { echo "synthetic nonsense k=3" | "$program" && return 1; echo "synthetic atm nonsense=3" | "$program" && return 1; echo "layer9 atm k=3" | "$program" && return 1; return 0; }
schema() { python3 - "$study/results.json" <<'END'
import json, sys
results = json.load(open(sys.argv[1]))
assert isinstance(results, list) and results
for r in results:
    assert r["part"] in ("search", "study") and isinstance(r["arm"], str) and isinstance(r["run"], str), r["run"]
    for name in ("k", "seed", "l0", "fvu"):
        assert isinstance(r[name], (int, float)), (r["run"], name)
    for name in ("parent_miss", "absorption_full", "letter_f1", "probing_top1"):
        assert 0 <= r.get(name, 0) <= 1, (r["run"], name)
    assert ("parent_miss" in r) == r["data"].startswith("synth"), r["run"]
    if not r["data"].startswith("synth"):
        assert len(r["list_prompted"]) == r["absorbed_prompted"] <= r["words_prompted"] and r["absorbed_bare"] <= r["words_bare"], r["run"]
keys = [r["run"] for r in results]
assert len(keys) == len(set(keys)), "a run was done twice"
END
}
page() {
    mkdir -p "$work/doc" && "$study/page" "$study/results.json" "$work/doc" && for file in "$work"/doc/*; do
        cmp "$file" "$source/doc/$(basename "$file")" || return 1
    done
}

try "two tiny runs" two_runs
try "goes on where it was" resumed
try "killed in the middle" killed
try "the program alone gives the same numbers" same_numbers
try "unknown methods, settings and missing data are refused" refuses
try "schema of results.json" schema
try "doc/study.md is what the generator writes" page
exit $failed
