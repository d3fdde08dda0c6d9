#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: engine.sh SOURCE BUILD DIRECT_LOOP
# Hidden states from an engine's callback into training steps, and steering by a trained latent.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
direct=$3
same_as_direct() { "$direct" direct && "$build/examples/04_stream_from_engine" && diff -r direct engine-sae; }
try "an engine's tokens train the SAE that the rows alone train" same_as_direct
try "a steered latent rises as its weights say" "$build/examples/05_steer"
finish
