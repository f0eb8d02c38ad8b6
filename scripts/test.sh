#!/usr/bin/env bash
# Sets up, builds a release, and runs the tests. Says at the end what was built with, and what was skipped and why.
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
status=0
ctest --test-dir "build/$preset" --parallel "$(nproc)" --output-on-failure ${fast:+--label-regex fast} || status=$?
sed -n -e '/^-- retort /,/sanitizers/p' -e '/is left out$/p' "build/$preset/configure.log"
# gtest prints the reason in the line after "FILE:LINE: Skipped", then the case with its time.
awk '/^[0-9]+\/[0-9]+ Testing: / { test = $3 }
  /: Skipped$/ { getline reason }
  /^\[  SKIPPED \] .*ms\)$/ { ++count[test ": " reason]; ++all }
  END { printf "-- %d cases skipped\n", all; for (key in count) printf "--   %4d  %s\n", count[key], key | "sort -k3" }' \
  "build/$preset/Testing/Temporary/LastTest.log"
if ((status != 0)); then
  # Briefly, at the end: logs are cut in the middle.
  printf -- '-- what failed:\n'
  awk '/: Failure$/ { shown = 12 } /^\[  FAILED  \] .*ms\)$/ { print; shown = 0 } shown-- > 0' \
    "build/$preset/Testing/Temporary/LastTest.log"
  # Tests of faults have deadlines, which a machine that others use may miss; one that fails twice has failed.
  printf -- '-- once more:\n'
  status=0
  ctest --test-dir "build/$preset" --rerun-failed --output-on-failure || status=$?
  ((status == 0)) || exit "$status"
  printf -- '-- passed the second time; see above what failed the first\n'
fi
if [[ $clients ]]; then tests/clients/run.sh "build/$preset/launch/retort"; fi
