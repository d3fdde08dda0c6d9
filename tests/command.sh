# SPDX-License-Identifier: MIT
#
# Sourced by the tests of the atmsae command, whose path is their first argument: they run in a folder of
# their own and report as TAP on stdout; `finish` ends them.
set -u
case $1 in /*) atmsae=$1 ;; *) atmsae=$PWD/$1 ;; esac
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
tests=0 failures=0

report() { # STATUS NAME
    tests=$((tests + 1))
    if [ "$1" -eq 0 ]; then echo "ok $tests - $2"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $2"
        sed 's/^/# /' out err 2>/dev/null | tail -n 12
    fi
}
finish() { # the exit status is 0 only if nothing failed
    echo "1..$tests"
    [ "$failures" -eq 0 ]
}
# Waits until a run in the background has written so many lines of metrics; for half a minute at most.
wait_for_lines() { # FILE NUMBER
    for _ in $(seq 600); do
        [ "$(wc -l 2>/dev/null <"$1" || echo 0)" -ge "$2" ] && break
        sleep 0.05
    done
}
skip() { tests=$((tests + 1)); echo "ok $tests - $1 # SKIP $2"; }

# Runs a command, output in the files out and err, and checks the exit code.
expect_of() { # CODE NAME COMMAND...
    want=$1 name=$2
    shift 2
    "$@" >out 2>err </dev/null
    code=$?
    [ "$code" -eq "$want" ] || echo "exit code $code, not $want" >>err
    [ "$code" -eq "$want" ]
    report $? "$name"
}
expect() { # CODE NAME ARGUMENTS...
    want=$1 name=$2
    shift 2
    expect_of "$want" "$name" "$atmsae" "$@"
}

says() { # FILE TEXT
    grep -q -- "$2" "$1"
    report $? "... and $1 says: $2"
}
same() { # NAME FILE FILE
    cmp "$2" "$3" >out 2>err
    report $? "$1"
}

# A .npy file of COUNT rows of the validation sample from row FIRST on: version 1.0 header, 128 bytes. The caller
# says where $data is.
npy() { # FILE FIRST COUNT
    {
        printf '\223NUMPY\001\000\166\000'
        printf '%-117s\n' "{'descr': '<f2', 'fortran_order': False, 'shape': ($3, 576), }"
        tail -c +"$((129 + $2 * 1152))" "$data/activations-valid.npy" | head -c "$(($3 * 1152))"
    } >"$1"
}
