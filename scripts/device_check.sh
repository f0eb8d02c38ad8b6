#!/usr/bin/env bash
# Everything that only a GPU can tell, in under five minutes, on a machine that has PyTorch 2.11.0 and a driver and reaches
# nothing else: kernels against their references, kernels against this machine's own ceilings, a recipe on CPU and GPU.
#
#   scripts/device_check.sh --pack       here: build what is carried into .device_check/ (under 64 MiB, ignored by git)
#   scripts/device_check.sh              there: run it and print one Markdown table a part
#   scripts/device_check.sh --build      there, before it: compile the kernels anew by that machine's nvcc
#   scripts/device_check.sh --pretend    here, without a GPU: the same by emulated kernels, from build/release
#
#   LIMIT=280    seconds for all parts together; what does not fit is left out, and named
#   PACK=DIR     where the pack is                                   (default: .device_check)
# Exits with 1 when a part failed. What it prints goes to bench/results/ with the machine's name and the commit.
set -euo pipefail
cd "$(dirname "$0")/.."
PACK=${PACK:-.device_check}
LIMIT=${LIMIT:-280}
MOST=$((64 << 20))
SCALE=1  # of the parts' own limits
PLUGIN=  # in place of libretort_cuda.so, for the benchmark: tests would take its kernels for a device's
PROGRAMS=(launch/retort launch/libretort_cuda.so bench/bench_device tests/kernels/test_kernels
  tests/cuda_emulation/test_cuda_emulation)

say() { printf 'device_check: %s\n' "$*" >&2; }

# --- here: the pack

# Libraries of Debian's that a bare machine may lack. The C library and the compiler's are everywhere; LibTorch's are there.
lacking() {
  ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -v -E '/(torch|nvidia)/|/lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|resolv|gomp|z)\.so'
}

pack() {
  local build=build/device
  mkdir -p build
  say "building in $build, for sm_90 and later"
  cmake -S . -B "$build" -G Ninja -DRETORT_CUDA=ON -DRETORT_MPI=OFF -DRETORT_PARQUET=OFF -DRETORT_NCCL=OFF \
    -DRETORT_CUDA_ARCHITECTURES="90a-real;80-virtual" ${RETORT_DEPS:+-DRETORT_DEPS="$RETORT_DEPS"} >"$build.log" 2>&1 ||
    { cat "$build.log" >&2; exit 1; }
  cmake --build "$build" --target retort retort_cuda bench_device test_kernels test_cuda_emulation
  rm -rf "$PACK"
  mkdir -p "$PACK/bin" "$PACK/lib"
  for program in "${PROGRAMS[@]}"; do
    strip -o "$PACK/bin/$(basename "$program")" "$build/$program"
  done
  lacking "$PACK"/bin/* | xargs -I{} cp -L {} "$PACK/lib/"
  git rev-parse --short HEAD >"$PACK/commit"
  cp "${RETORT_DEPS:-.deps}/torch/version.py" "$PACK/torch_version.py"
  local bytes
  bytes=$(du -sb "$PACK" | cut -f1)
  say "$PACK has $((bytes >> 20)) MiB; carry it with the working tree"
  ((bytes < MOST)) || { say "that is more than the 64 MiB that can be carried"; exit 1; }
}

# --- there

torch_folder() {
  python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])'
}

# The kernels by this machine's nvcc, in place of those that were carried.
build_kernels() {
  local torch=$1 objects
  objects=$(mktemp -d)
  local flags=(-std=c++17 -O3 -arch=sm_90a -Xcompiler -fPIC -DRETORT_CUDA_PROVIDER=device -I.)
  printf '%s\n' kernels/cuda/*.cu kernels/cuda/table.cpp |
    xargs -P "$(nproc)" -I{} sh -c 'nvcc "$@" -c {} -o '"$objects"'/$(basename {}).o' nvcc "${flags[@]}"
  nvcc -std=c++20 -O2 -arch=sm_90a -Xcompiler -fPIC -I. -I"$torch/include" -I"$torch/include/torch/csrc/api/include" \
    -DRETORT_PLUGIN_STAMP="\"$(strings "$PACK/bin/libretort_cuda.so" | grep -m1 '^retort [0-9.]* (')\"" \
    -c kernels/cuda/plugin.cpp -o "$objects/plugin.o"
  nvcc -shared -cudart shared -o "$PACK/bin/libretort_cuda.so" "$objects"/*.o -L"$torch/lib" -lc10_cuda -lc10 -ltorch_cpu
}

started=$SECONDS
failed=0
left() { echo $((LIMIT - (SECONDS - started))); }

# part NAME MOST COMMAND...: runs it for MOST seconds at most and prints its output and how it ended.
part() {
  local name=$1 most=$(($2 * SCALE)) code=0 begin=$SECONDS
  shift 2
  (($(left) < most)) && most=$(left)
  printf '\n## %s\n\n' "$name"
  if ((most < 5)); then
    printf 'left out: %s s of %s are gone\n' "$((SECONDS - started))" "$LIMIT"
    failed=1
    return
  fi
  timeout "$most" "$@" 2>&1 || code=$?
  ((code == 0)) || failed=1
  printf '\n%s: %s in %s s\n' "$name" "$( ((code == 0)) && echo passed || echo "FAILED ($code)")" "$((SECONDS - begin))"
}

# What gtest says in the end, and the tests that failed.
tests() {
  set -o pipefail
  "$@" --gtest_brief=1 | tail -n 25
}

RECIPE='
run: { name: check, seed: 5 }
data: { train: stage:text, validation: stage:text, sequence: 64, batch_tokens: 2048, micro_batch: 8 }
model: { context: 64, layers: 2, width: 128, heads: 4, ffn_width: 256 }
train: { steps: 20, precision: fp32, log_every: 1, checkpoint_every: 0, schedule: { warmup: 4 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: teacher, kind: train }
  - { name: student, kind: train,
      distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: cross_entropy }, { fn: forward_kl } ] } }
'

# The losses of one recipe on two devices, side by side: they part by rounding alone.
recipe() {
  local retort=$1 device=$2 work
  work=$(mktemp -d)
  printf '%s' "$RECIPE" >"$work/check.yaml"
  for i in $(seq 400); do echo "verse $i of a small text of verses that go on"; done >"$work/text.txt"
  for on in cpu "$device"; do
    [[ -d $work/$on ]] && on=again
    "$retort" run "$work/check.yaml" run.text="$work/text.txt" run.dir="$work/$on" run.device="${on/again/cpu}" >"$work/$on.log" 2>&1 ||
      { tail -n 20 "$work/$on.log"; return 1; }
    grep -o -m1 'device .*' "$work/$on.log" || true
    grep -h -o '[0-9.]*k\? tok/s.*' "$work/$on.log" | tail -n 1 || true
  done
  local other=$device
  [[ $device == cpu ]] && other=again
  python3 - "$work/cpu" "$work/$other" <<'PYTHON'
import json, pathlib, sys
worst = 0.0
for stage in ("teacher", "student"):
    lines = [[json.loads(line) for line in (pathlib.Path(run) / stage / "metrics.jsonl").read_text().splitlines()] for run in sys.argv[1:]]
    a, b = ([line["loss"] for line in run if "loss" in line] for run in lines)
    assert len(a) == len(b) == 20, (len(a), len(b))
    worst = max([worst] + [abs(x - y) / abs(x) for x, y in zip(a, b)])
    print(f"| {stage} | {a[0]:.5f} | {b[0]:.5f} | {a[-1]:.5f} | {b[-1]:.5f} |")
print(f"largest difference of a loss: {worst:.1e} of it")
sys.exit(worst > 2e-3)
PYTHON
}
export -f tests recipe
export RECIPE

check() {
  local bin=$1 device=$2 mode=$3
  printf '# Device check: %s, commit %s\n' "$mode" "$(cat "$PACK/commit" 2>/dev/null || git rev-parse --short HEAD)"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
  part "what there is" 30 "$bin/retort" devices
  part "kernels beside their references, emulated and on the device" 100 bash -c "tests $bin/test_cuda_emulation --gtest_filter=-*Fault*:*Found*:Slow*"
  part "operations on the device" 60 bash -c "tests $bin/test_kernels --gtest_filter=Cuda.*"
  part "kernels beside this run's ceilings" 100 env ${PLUGIN:+RETORT_CUDA_PLUGIN="$PLUGIN"} "$bin/bench_device" "${@:4}"
  part "a recipe on both devices" 90 bash -c "recipe $bin/retort $device"
  if command -v compute-sanitizer >/dev/null && (($(left) > 60)); then
    part "compute-sanitizer" 60 compute-sanitizer --error-exitcode 1 "$bin/test_kernels" '--gtest_filter=Cuda.RmsNorm*:Cuda.Gate*'
  fi
  printf '\n%s s in all\n' "$((SECONDS - started))"
  exit "$failed"
}

case ${1:-} in
  --pack) pack ;;
  --pretend)
    # The programs of the build, gathered as a pack would be. Emulated kernels take longer than their device does.
    LIMIT=1000 SCALE=6
    PACK=$(mktemp -d)
    trap 'rm -rf "$PACK"' EXIT
    mkdir "$PACK/bin"
    build=${RETORT_BINARY_DIR:-$PWD/build/release}
    for program in "${PROGRAMS[@]}"; do
      [[ -e $build/$program ]] && ln -s "$build/$program" "$PACK/bin/"
    done
    PLUGIN=$build/tests/cuda_emulation/libretort_emulated_plugin.so
    check "$PACK/bin" cpu "pretended, without a GPU: no figure below means anything" --pretend
    ;;
  "" | --build)
    torch=$(torch_folder)
    cmp -s "$PACK/torch_version.py" "$torch/version.py" ||
      { say "PyTorch here is $(grep -m1 '__version__' "$torch/version.py"), and the pack was built with $(grep -m1 '__version__' "$PACK/torch_version.py")"; }
    site=$(dirname "$torch")
    wheels=$(printf '%s:' "$site"/nvidia/*/lib)
    export LD_LIBRARY_PATH="$PWD/$PACK/lib:$torch/lib:$wheels${LD_LIBRARY_PATH:-}"
    if [[ ${1:-} == --build ]]; then build_kernels "$torch"; fi
    check "$PWD/$PACK/bin" cuda "on a GPU"
    ;;
  *) say "unknown argument $1; known: --pack, --build, --pretend"; exit 2 ;;
esac
