#!/usr/bin/env bash
# Configures (once) and builds a preset: scripts/build.sh PRESET [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
cmake --preset "$preset" ${RETORT_DEPS:+-DRETORT_DEPS="$RETORT_DEPS"} >"/tmp/retort-configure-$$.log" 2>&1 ||
  { cat "/tmp/retort-configure-$$.log" >&2; exit 1; }
rm -f "/tmp/retort-configure-$$.log"
targets=()
for target in "$@"; do targets+=(--target "$target"); done
cmake --build "build/$preset" --parallel "$(nproc)" ${targets[@]+"${targets[@]}"}
