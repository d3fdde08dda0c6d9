#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: c-engineer.sh SOURCE BUILD
# A C engineer: builds and installs as doc/getting-started.md says, compiles the program of README.md with what
# pkg-config says, trains on the shipped rows, reads a row back.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
section='C: train inside a program'

install_it() { run_block "$guide" Install sh 1; }
try "meson setup, meson install" install_it
eval "$(block "$guide" Install sh 1 | grep '^export')"
installed() { [ "$(command -v atmsae)" = "$HOME/.local/bin/atmsae" ] && atmsae --version && pkg-config --modversion atmsae; }
try "... and command and library are found" installed

block "$source/README.md" 'The library' c 1 >train.c
compile() { # without a warning
    # shellcheck disable=SC2046  # flags are words
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror "$1.c" -o "$1" $(pkg-config --cflags --libs atmsae)
}
try "the README's program compiles without a warning" compile train
train() { run_block "$guide" "$section" sh 1 && cp "$tmp/log" trained; }
try "... and trains on 25,000 real rows, and the command measures what it saved" train
grep '^FVU' trained
try "... FVU under 0.5" between trained fvu 0.05 0.5
try "... L0 near 32" between trained l0 24 45

block "$guide" "$section" c 1 >encode.c
try "the program that encodes a row compiles" compile encode
encode() { ./encode | tee encoded && grep -q '^latent [0-9]*: [0-9.]*$' encoded; }
try "... and prints its latents" encode
finish
