#!/usr/bin/env bash
# Sets up, builds a release, and runs the tests.
#
#   scripts/test.sh [--fast] [--clients] [--preset NAME]
#     --fast      only the tests labelled fast (under two minutes)
#     --clients   also the checks against other people's software (llama.cpp, transformers, tokenizers),
#                 in a virtual environment made here
#     --preset    release (default), dev (ASan, UBSan) or tsan
set -euo pipefail
cd "$(dirname "$0")/.."
preset=release fast= clients=
while (($#)); do
  case $1 in
    --fast) fast=1 ;;
    --clients) clients=1 ;;
    --preset) preset=$2; shift ;;
    *) printf 'usage: scripts/test.sh [--fast] [--clients] [--preset NAME]\n' >&2; exit 2 ;;
  esac
  shift
done
scripts/setup.sh
scripts/build.sh "$preset"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
ctest --test-dir "build/$preset" --output-on-failure ${fast:+--label-regex fast}
if [[ $clients ]]; then tests/clients/run.sh "build/$preset/launch/retort"; fi
