#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: cpp.sh SOURCE BUILD REFERENCE
# The C++ header, with every compiler that is there and the warnings of a careful project.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
reference=$3
here=$source/tests/bindings examples=$source/examples/cpp
compile() { # COMPILER SOURCE PROGRAM [OPTION...]
    compiler=$1 file=$2 program=$3
    shift 3
    # shellcheck disable=SC2046  # flags are words
    "$compiler" -std=c++17 -O1 -Wall -Wextra -Wconversion -Wshadow -pedantic -Werror "$@" "-I$examples" $(pkg-config --cflags atmsae) \
        "$file" -o "$program" $(pkg-config --libs atmsae)
}
same_as_c() { "$reference" c.bin && compile "$1" "$here/reference.cpp" reference && ./reference cpp.bin && cmp c.bin cpp.bin; }
hello() { compile "$1" "$examples/hello.cpp" hello && ./hello | grep -q 'FVU 0\.[01]'; }
# -g1: reports name lines. What the handles do with memory is in the header, which is compiled here.
memory() { compile "$1" "$here/memory.cpp" memory -g1 -fsanitize=address,undefined -fno-sanitize-recover=all && ./memory; }

for compiler in g++ clang++; do
    command -v "$compiler" >/dev/null || continue
    try "$compiler: same bits as C, errors, moves" same_as_c "$compiler"
    try "$compiler: memory, callbacks, under sanitizers" memory "$compiler"
    try "$compiler: hello" hello "$compiler"
done
[ $tried -gt 0 ] || skip "no C++ compiler"
try "hello in under 20 lines" short "$examples/hello.cpp"
finish
