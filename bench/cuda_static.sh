#!/usr/bin/env bash
# What can be known of the CUDA kernels without a GPU: compiles kernels/cuda for each architecture and prints
# registers, shared memory, spills, the widths of global loads and stores, occupancy by formula, and the time that
# follows from the bytes at 3.0 and 4.3 TB/s (what streams reach on an H100 and an H200). Nothing here is measured
# on a device. Fails where a kernel spills or a row of bench/cuda_kernels.txt is not kept; exits with 77 without nvcc.
#
#   bench/cuda_static.sh [--all] [ARCH...]     default: 80 90a 100; --all: also every kernel without a row
set -euo pipefail
cd "$(dirname "$0")/.."
all=
if [[ ${1:-} == --all ]]; then all=--all; shift; fi
architectures=("${@:-80}")
(($#)) || architectures=(80 90a 100)
PATH=$PATH:/usr/local/cuda/bin:${RETORT_DEPS:-$PWD/.deps}/nvidia/cu13/bin
for tool in nvcc nvdisasm c++filt python3; do  # scripts/setup.sh brings nvdisasm where there is an nvcc
  command -v "$tool" >/dev/null || { printf 'skipped: no %s\n' "$tool"; exit 77; }
done
nvcc --version | tail -n 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() {
  local cubin=$3/$(basename "$1" .cu).$2.cubin
  nvcc -cubin -std=c++17 -O3 -arch="sm_$2" -DRETORT_CUDA_PROVIDER=device -I. -Xptxas -v -o "$cubin" "$1" 2>"$cubin.usage" ||
    { cat "$cubin.usage"; return 255; }
  nvdisasm "$cubin" >"$cubin.sass"
}
export -f compile
for architecture in "${architectures[@]}"; do
  for source in kernels/cuda/*.cu; do printf '%s %s %s\n' "$source" "$architecture" "$work"; done
done | xargs -P "$(nproc)" -L 1 bash -c 'compile "$@"' compile
python3 bench/cuda_static.py $all "$work" "${architectures[@]}"
