#!/usr/bin/env bash
# Sets up, builds a release, and runs the main job end to end on real text:
# a byte-level teacher, a super-tiny student from scratch and distilled, quantized training, a GGUF.
# Stop it at any point and run it again: what is done is skipped.
#
#   scripts/quickstart.sh                                   the King James Bible
#   scripts/quickstart.sh --set run.text=a.txt              your own text
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
scripts/build.sh release retort
text=runs/text/kjv.txt
if [[ ! -s $text ]]; then
  mkdir -p "$(dirname "$text")"
  bible -f gen1:1-rev22:21 >"$text.tmp" && mv "$text.tmp" "$text"
fi
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
exec build/release/launch/retort run recipes/quickstart.yaml "$@"
