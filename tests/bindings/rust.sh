#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: rust.sh SOURCE BUILD REFERENCE
# The Rust crates: their tests (which compare with what the C program REFERENCE writes), and bindings
# made anew by bindgen where that is installed.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
reference=$3
command -v cargo >/dev/null || skip "no cargo"
cp -R "$source/examples/rust" crates
cd crates || exit 1
# Kept from run to run; nothing is written into the sources.
export CARGO_TARGET_DIR="$build/cargo" CARGO_NET_OFFLINE=true RUSTFLAGS=-Dwarnings
export ATMSAE_REFERENCE="$tmp/c.bin"
hello() { cargo run --quiet --example hello | grep 'FVU 0\.[01]'; }
generate=$source/examples/rust/atmsae-sys/generate
fresh() { # what bindgen says of the header now compiles without warnings, and its layout tests pass
    "$generate" --layout-tests >fresh.rs || return 1
    printf '#![allow(non_camel_case_types, dead_code)]\ninclude!("%s/fresh.rs");\n' "$PWD" >layout.rs
    # Its layout tests take addresses in memory that is not there, which compilers have come to refuse.
    rustc --edition 2021 --test -Dwarnings -Aunknown_lints -Aderef_nullptr layout.rs -o layout "-L$build/lib" -latmsae || return 1
    ./layout | tee /dev/stderr | grep -q 'test result: ok. [1-9][0-9] passed'
}
committed() { # no line of the committed bindings is missing in fresh ones
    "$generate" >now.rs && grep -q atmsae_encode now.rs && ! grep -vxFf now.rs atmsae-sys/src/bindings.rs
}

try "C writes the reference" "$reference" "$ATMSAE_REFERENCE"
try "tests of the crates" cargo test --quiet
try "hello" hello
try "hello in under 20 lines" short atmsae/examples/hello.rs
if command -v bindgen >/dev/null; then
    try "generated bindings and their layout tests" fresh
    case $(bindgen --version) in *" 0.60"*) try "bindings.rs is what bindgen generates" committed ;; esac
fi
finish
