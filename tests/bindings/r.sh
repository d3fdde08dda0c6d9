#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: r.sh SOURCE BUILD REFERENCE
# The R package: installed into a folder of its own, compared with C, and its hello-world.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
reference=$3
command -v Rscript >/dev/null || skip "no R"
mkdir library && cp -R "$source/examples/r/atmsae" package
export R_LIBS="$tmp/library"
install() { R CMD INSTALL --no-docs -l library package && ! grep -i warning log; }
same_as_c() { "$reference" c.bin && Rscript "$source/tests/bindings/reference.R" r.bin && cmp c.bin r.bin; }
hello() { Rscript "$source/examples/r/hello.R" && [ -e hello-sae/cfg.json ]; }

try "the package installs" install
try "same bits as C, errors" same_as_c
try "handles, settings, garbage collection at every allocation" Rscript "$source/tests/bindings/memory.R"
try "hello" hello
try "hello in under 20 lines" short "$source/examples/r/hello.R"
finish
