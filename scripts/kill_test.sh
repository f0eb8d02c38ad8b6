#!/usr/bin/env bash
# Kills a run at random moments and holds what it comes to to the bytes of an undisturbed one: docs/reliability.md.
#   scripts/kill_test.sh [KILLS [SEED]]             by default 200 and 1
#   scripts/kill_test.sh --soak [SECONDS [SEED]]    stops ranks too, by default for 600 s
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh release retort test_recipes
export OMP_WAIT_POLICY=passive RETORT_SOURCE_DIR=$PWD RETORT_BINARY_DIR=$PWD/build/release
if [[ ${1-} == --soak ]]; then
  suite=SlowSoak
  export RETORT_SOAK_SECONDS=${2:-600} RETORT_KILL_SEED=${3:-1}
else
  suite=SlowRandomKills
  export RETORT_KILLS=${1:-200} RETORT_KILL_SEED=${2:-1}
fi
exec build/release/tests/recipes/test_recipes --gtest_filter="$suite.*"
