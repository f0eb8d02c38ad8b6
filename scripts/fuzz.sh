#!/usr/bin/env bash
# Feeds the readers of foreign bytes with files that libFuzzer makes up, under AddressSanitizer and UBSan:
# docs/reliability.md. As many at a time as there are processors. Exit code 1 when one found a fault.
#
#   scripts/fuzz.sh [SECONDS [READER...]]      60 seconds each; all readers, or those (folders of tests/fuzz/corpus)
#
#   RETORT_FUZZ_SEED           of what is made up; the same one from the same corpus tries the same; 0: another each time
#   build/fuzz/inputs/READER   inputs that reached new code; the next run goes on from them
#   build/fuzz/found/READER-*  inputs that showed a fault: such a file belongs into tests/fuzz/corpus/READER
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
scripts/setup.sh --fuzz
scripts/build.sh release retort_recipes >/dev/null  # what the fuzzer takes from there
scripts/build.sh fuzz fuzzer
fuzzer=build/fuzz/tests/fuzz/fuzzer
readers=("$@")
((${#readers[@]})) || mapfile -t readers < <("$fuzzer")
memory=$([[ -w /dev/shm ]] && echo /dev/shm || echo /tmp)
scratch=$(mktemp -d "$memory/retort-fuzz.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p build/fuzz/found build/fuzz/logs

# A file of a few KB may not make one allocation of 100 MB; what many take together is for the test fuzz.
fuzz() {
  local reader=$1 inputs=build/fuzz/inputs/$1 log=build/fuzz/logs/$1 status=0
  mkdir -p "$inputs" "$scratch/$reader"
  TMPDIR=$scratch/$reader RETORT_FUZZ_READER=$reader OMP_NUM_THREADS=1 \
    ASAN_OPTIONS=quarantine_size_mb=16 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    "$fuzzer" "$inputs" "tests/fuzz/corpus/$reader" -max_total_time="$seconds" -seed="${RETORT_FUZZ_SEED:-0}" -max_len=16384 -timeout=10 \
    -malloc_limit_mb=100 -rss_limit_mb=1500 -artifact_prefix="build/fuzz/found/$reader-" -print_final_stats=1 \
    >"$log" 2>&1 || status=$?
  awk -v reader="$reader" -v status="$status" '
    /stat::number_of_executed_units/ { tried = $2 } /stat::average_exec_per_sec/ { rate = $2 }
    / cov: / { for (i = 1; i < NF; ++i) if ($i == "cov:") edges = $(i + 1) }
    END { printf "%-16s %10d inputs %7d a second %7d edges  %s\n", reader, tried, rate, edges,
                 status ? "FAULT, see build/fuzz/logs/" reader : "" }' "$log"
  return "$((status != 0))"
}
export -f fuzz
export seconds scratch fuzzer
printf '%s\n' "${readers[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}' || exit 1
