#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_folders.sh SOURCE [BUILD]
# The include rules of lib/ (doc/architecture.md): which folder may include which.
set -u
cd "$1/lib" || exit 1

# folder: folders it may include. FILE+HEADER: one header for one file.
rules='
base:    base            base/context.c+kernels/kernels.h base/context.c+kernels/panels.h
kernels: kernels base
sae:     sae base kernels
atm:     atm base
train:   train base kernels sae atm data format
format:  format base kernels     format/sae_build.c+sae/sae.h format/sae_formats.c+sae/sae.h format/sae_gguf.c+sae/sae.h
format:  format/sae_npz.c+sae/sae.h format/sae_plan.c+sae/sae.h format/sae_save.c+sae/sae.h
data:    data base format kernels
eval:    eval base kernels sae data     eval/probing_fit.c+format/format.h eval/absorption.c+format/format.h
'

find . -name '*.[ch]' | sed 's|^\./||' | sort | xargs grep -nE '^[[:space:]]*#[[:space:]]*include' |
awk -v rules="$rules" '
BEGIN {
    n = split(rules, line, "\n")
    for (i = 1; i <= n; i++) {
        m = split(line[i], word, /[: ]+/)
        for (j = 2; j <= m; j++) allowed[word[j] ~ /\+/ ? word[j] : word[1] "+" word[j]] = 1
        if (m > 1) known[word[1]] = 1
    }
}
function complain(why) { print "lib/" file ":" number ": " why; bad = 1 }
{
    split($0, part, ":")
    file = part[1]; number = part[2]
    folder = file; sub(/\/.*/, "", folder)
    header = $0; sub(/^[^"<]*["<]/, "", header); sub(/[">].*/, "", header)
    checked++
    if (!(folder in known)) complain("folder without a rule")
    if (header ~ /\.\./) complain("path upwards: " header)
    if ($0 ~ /include[[:space:]]*</) {
        if (header ~ /blis/ && file != "kernels/gemm.c") complain("only kernels/gemm.c includes " header)
        if (header !~ /^atmsae\/(atmsae|eval)\.h$/ && header ~ /^atmsae\//) complain("no public header: " header)
        next
    }
    target = header
    if (target ~ /\//) sub(/\/.*/, "", target); else target = folder
    if (!((folder "+" target) in allowed) && !((file "+" header) in allowed))
        complain(folder "/ may not include " header)
}
END {
    if (!checked) { print "no includes found"; bad = 1 }
    exit bad
}' || exit 1

# Examples and benchmarks of the public interface use the public header only.
cd ../examples || exit 1
if grep -rnE --include='*.[ch]' '#[[:space:]]*include[[:space:]]*"([^"]*/)?(lib|base|kernels|sae|atm|train|format|data|eval)/' .; then
    echo "examples include headers of lib/"
    exit 1
fi
