#!/usr/bin/env bash
# Everything that only a GPU can tell, in under five minutes, on a machine that has PyTorch 2.11.0 and a driver and reaches
# nothing else: kernels and whole training steps against their references and this machine's own ceilings, a recipe on CPU and
# GPU, the kernels' tests there, and compute-sanitizer over them.
#
#   scripts/device_check.sh --pack            here: build what is carried into .device_check/ (under 64 MiB, ignored by git)
#   scripts/device_check.sh [PART...]         there: run all parts, or those named, and print one Markdown table a part
#   scripts/device_check.sh --build [PART...] there, before it: compile the kernels anew by that machine's nvcc
#   scripts/device_check.sh --pretend         here, without a GPU: the same by emulated kernels, from build/release
#
#   LIMIT=290    seconds for all parts together; what does not fit is left out, and named
#   PACK=DIR     where the pack is                                   (default: .device_check)
# Exits with 1 when a part failed, and a part whose tests were skipped has failed. A target that is missed is told and is no
# failure. What it prints goes to bench/results/ with the machine's name and the commit.
set -euo pipefail
cd "$(dirname "$0")/.."
PACK=${PACK:-.device_check}
LIMIT=${LIMIT:-290}
MOST=$((64 << 20))
SCALE=1  # of the parts' own limits
export PRETENDS=  # not empty: without a GPU, so that tests may be skipped
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
results=()  # a line of the last table for each part
left() { echo $((LIMIT - (SECONDS - started))); }

# Codes of parts that ran whole and failed in nothing, or could not.
export SKIPPED=77 CUT_OFF=75
outcome() {
  case $1 in
    0) echo passed ;;
    "$SKIPPED") echo SKIPPED ;;
    "$CUT_OFF") echo "CUT OFF, nothing wrong until then" ;;
    124) echo "FAILED (more than $2 s)" ;;
    *) echo "FAILED ($1)" ;;
  esac
}

# part NAME MOST COMMAND...: runs it for MOST seconds at most and prints its output and how it ended.
part() {
  local name=$1 most=$(($2 * SCALE)) code=0 begin=$SECONDS how
  shift 2
  (($(left) < most)) && most=$(left)
  printf '\n## %s\n\n' "$name"
  if ((most < 5)); then
    how="LEFT OUT: $((SECONDS - started)) s of $LIMIT are gone"
    failed=1
  else
    MOST=$most timeout "$most" "$@" 2>&1 || code=$?
    how=$(outcome "$code" "$most")
    [[ $how == FAILED* ]] && failed=1
  fi
  printf '\n%s: %s in %s s\n' "$name" "$how" "$((SECONDS - begin))"
  results+=("| $name | $how | $((SECONDS - begin)) |")
}

# What retort finds here: a GPU and the kernels, unless none is wanted.
devices() {
  local found
  found=$("$1" devices) || return
  printf '%s\n' "$found"
  [[ -n $PRETENDS ]] || { grep -q '^cuda:0' <<<"$found" && grep -q '^kernels.*are there' <<<"$found"; } ||
    { echo "failed: there is no GPU, or its kernels cannot be loaded"; return 1; }
}

# tests FILTER COMMAND...: runs tests that only a device can decide. What gtest says in the end, how many there were, and
# failure where one was skipped: nothing may be where there is a GPU. One thread: what the CPU makes beside them is small.
tests() {
  local filter=$1 report code=0
  shift
  report=$(mktemp)
  OMP_NUM_THREADS=1 RETORT_ONLY_DEVICE=1 timeout $((MOST - 2)) "$@" --gtest_filter="$filter" --gtest_output="json:$report" \
    >"$report.log" 2>&1 || code=$?
  ((code != 124)) || { echo "cut off, within the last of these:"; grep '^\[ RUN' "$report.log" | tail -n 3; }
  # Each reason once, and not how each test went.
  grep -v -E '^(Note: |Running main|$|\[( RUN| +OK|-----|  SKIPPED \] Cuda))|: Skipped$' "$report.log" | awk '!seen[$0]++' | tail -n 25
  ((code == 0)) || return "$code"
  python3 - "$report" "$PRETENDS" "$SKIPPED" <<'PYTHON'
import json, sys
tests = [(f"{suite['name']}.{test['name']}", test) for suite in json.load(open(sys.argv[1]))["testsuites"] for test in suite["testsuite"]]
skipped = [name for name, test in tests if test["result"] == "SKIPPED"]
print(f"{len(tests)} tests: {len(tests) - len(skipped)} passed, {len(skipped)} skipped")
if not tests or skipped and not sys.argv[2]:
    print("failed, as there was no such test" if not tests else f"failed, as tests were skipped: {', '.join(skipped[:4])}{', ...' if len(skipped) > 4 else ''}")
    sys.exit(1)
sys.exit(int(sys.argv[3]) if skipped else 0)
PYTHON
}

# Those of the kernels' tests that run each kernel on the device, beside the plain version on the CPU.
REFERENCES='Cuda*:-CudaRowPairs.HaveTheValuesOfEachAlone'
# Of every kernel, memory that is not its own. Without LibTorch's cache each tensor has memory of its own, so that a read past
# its end is seen.
SANITIZED='CudaAdamW*:CudaEmbedding*:CudaFakeQuantize*:CudaGate*:CudaLayerNorm*:CudaLearnedScales*:CudaPackedCodes*:CudaRmsNorm*:CudaRope*:CudaRowLosses*:CudaSparseLosses*:CudaSumParts*:CudaTreeSum*'
# What it says of the tests, and of itself where it cannot run at all, as in some containers.
export WRONG='^========= (Invalid|Error|Uninit|Out)|^\[  FAILED' UNSUPPORTED='^========= (Error: )?Device not supported'
sanitizer() {
  local tests=$1 tool log code=0
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
  if [[ -n $PRETENDS ]]; then
    echo "skipped: without a GPU there are no kernels of a device's to watch"
    return "$SKIPPED"
  elif [[ -z $tool ]]; then
    echo "skipped: there is no compute-sanitizer on the PATH or in /usr/local/cuda/bin"
    return "$SKIPPED"
  fi
  log=$(mktemp)
  OMP_NUM_THREADS=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1 RETORT_ONLY_DEVICE=1 timeout $((MOST - 3)) "$tool" --tool memcheck --error-exitcode 9 \
    "$tests" --gtest_filter="$SANITIZED" >"$log" 2>&1 || code=$?
  grep -E '^(\[       OK|\[  FAILED|\[  PASSED|\[  SKIPPED|=========)' "$log" | tail -n 40
  if grep -q -E "$UNSUPPORTED" "$log" && ! grep -v -E "$UNSUPPORTED" "$log" | grep -q -E "$WRONG"; then
    echo "skipped: compute-sanitizer cannot run on this machine: $(grep -m1 -E "$UNSUPPORTED" "$log")"
    return "$SKIPPED"
  elif grep -q '^\[  SKIPPED' "$log"; then
    echo "failed: tests were skipped, so that nothing was watched"
    return 1
  elif ((code == 124)) && ! grep -q -E "$WRONG" "$log"; then
    echo "cut off after $((MOST - 3)) s: the tests above are all that were watched"
    return "$CUT_OFF"
  fi
  return "$code"
}

export STEPS=20  # of each of its stages
RECIPE='
run: { name: check, seed: 5 }
data: { train: stage:text, validation: stage:text, sequence: 64, batch_tokens: 1024, micro_batch: 8 }
model: { context: 64, layers: 2, width: 128, heads: 4, ffn_width: 256 }
train: { steps: STEPS, precision: PRECISION, log_every: 1, checkpoint_every: 0, schedule: { warmup: 2 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.1 } }
  - { name: teacher, kind: train }
  - { name: student, kind: train,
      distill: { teacher: { model: stage:teacher, precision: PRECISION }, losses: [ { fn: cross_entropy }, { fn: forward_kl } ] } }
'

# The losses of one recipe on two devices, in f32 and in bf16, side by side. In f32 they part by rounding alone; bf16 on the
# device is off from f32 by no more than twice what the CPU's bf16 is. Where there is a GPU, micro-batches must be graphs.
recipe() {
  local retort=$1 device=$2 work precision on
  work=$(mktemp -d)
  for i in $(seq 400); do echo "verse $i of a small text of verses that go on"; done >"$work/text.txt"
  for precision in fp32 bf16; do
    printf '%s' "${RECIPE//PRECISION/$precision}" | sed "s/STEPS/$STEPS/" >"$work/$precision.yaml"
    for on in cpu device; do
      "$retort" run "$work/$precision.yaml" run.text="$work/text.txt" run.dir="$work/$precision-$on" \
        run.device="${on/device/$device}" >"$work/$precision-$on.log" 2>&1 || { tail -n 20 "$work/$precision-$on.log"; return 1; }
      printf '%s: %s; %s\n' "$precision" "$(grep -o -m1 'device .*' "$work/$precision-$on.log" || echo "device $device")" \
        "$(grep -h -o '[0-9.]*k\? tok/s' "$work/$precision-$on.log" | tail -n 1)"
    done
    if grep -F '(train.graph)' "$work/$precision-device.log"; then
      echo "failed: micro-batches were not repeated as graphs"
      return 1
    fi
  done
  python3 - "$work" "$STEPS" <<'PYTHON'
import json, pathlib, sys
def losses(run, stage):
    lines = (pathlib.Path(sys.argv[1]) / run / stage / "metrics.jsonl").read_text().splitlines()
    found = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert len(found) == int(sys.argv[2]), (run, stage, len(found))
    return found
def apart(a, b):
    return max(abs(x - y) / abs(x) for x, y in zip(a, b))
print("\n| stage | precision | first loss, CPU | there | last loss, CPU | there | largest difference | allowed |\n|---|---|---|---|---|---|---|---|")
wrong = False
for stage in ("teacher", "student"):
    exact, own = losses("fp32-cpu", stage), losses("bf16-cpu", stage)
    for precision, usual, allowed in (("fp32", exact, 2e-3), ("bf16", own, 2 * apart(exact, own) + 2**-8)):
        got = losses(f"{precision}-device", stage)
        difference = apart(exact, got)
        wrong |= not difference <= allowed
        print(f"| {stage} | {precision} | {usual[0]:.5f} | {got[0]:.5f} | {usual[-1]:.5f} | {got[-1]:.5f} | {difference:.1e} of f32 | {allowed:.1e} |")
sys.exit(wrong)
PYTHON
}
export -f devices tests recipe sanitizer
export RECIPE REFERENCES SANITIZED

# What runs, in the order of its worth on a GPU that may be taken away, with the seconds that each may take.
PARTS=(what:30 kernels:55 steps:60 recipe:50 operations:25 references:40 sanitizer:25)
run_part() {
  local bin=$1 device=$2 key=$3 most=$4
  local bench=(env ${PLUGIN:+RETORT_CUDA_PLUGIN="$PLUGIN"} "$bin/bench_device" ${PRETENDS:+--pretend})
  case $key in
    what) part "what there is" "$most" bash -c "devices $bin/retort" ;;
    kernels) part "kernels and loss layers beside this run's ceilings" "$most" "${bench[@]}" kernels losses ;;
    steps) part "training steps beside this run's ceilings" "$most" "${bench[@]}" steps ;;
    recipe) part "a recipe on both devices, in f32 and bf16" "$most" bash -c "recipe $bin/retort $device" ;;
    operations) part "operations on the device" "$most" bash -c "tests 'Cuda.*' $bin/test_kernels" ;;
    references) part "kernels beside their references" "$most" bash -c "tests '$REFERENCES' $bin/test_cuda_emulation" ;;
    sanitizer) part "compute-sanitizer" "$most" bash -c "sanitizer $bin/test_cuda_emulation" ;;
  esac
}

# check BIN DEVICE MODE [PART...]
check() {
  local bin=$1 device=$2 mode=$3 entry wanted
  shift 3
  wanted=" ${*:-${PARTS[*]%%:*}} "
  printf '# Device check: %s, commit %s\n' "$mode" "$(cat "$PACK/commit" 2>/dev/null || git rev-parse --short HEAD)"
  printf 'seconds that parts may take: %s; all together %s\n' "${PARTS[*]}" "$LIMIT"
  for entry in "${PARTS[@]}"; do
    [[ $wanted != *" ${entry%%:*} "* ]] || run_part "$bin" "$device" "${entry%%:*}" "${entry##*:}"
  done
  printf '\n## all parts\n\n| part | result | seconds |\n|---|---|---|\n'
  printf '%s\n' "${results[@]}"
  printf '\n%s s in all\n' "$((SECONDS - started))"
  exit "$failed"
}

known_parts() {
  local name
  for name in "$@"; do
    [[ " ${PARTS[*]%%:*} " == *" $name "* ]] || { say "unknown argument $name; known: --pack, --build, --pretend, ${PARTS[*]%%:*}"; exit 2; }
  done
}

mode=
[[ ${1:-} == --* ]] && { mode=$1; shift; }
known_parts "$@"
case $mode in
  --pack) pack ;;
  --pretend)
    # The programs of the build, gathered as a pack would be. Emulated kernels take longer than their device does.
    LIMIT=1150 SCALE=4 PRETENDS=yes STEPS=3
    PACK=$(mktemp -d)
    trap 'rm -rf "$PACK"' EXIT
    mkdir "$PACK/bin"
    build=${RETORT_BINARY_DIR:-$PWD/build/release}
    for program in "${PROGRAMS[@]}"; do
      [[ -e $build/$program ]] && ln -s "$build/$program" "$PACK/bin/"
    done
    PLUGIN=$build/tests/cuda_emulation/libretort_emulated_plugin.so
    check "$PACK/bin" cpu "pretended, without a GPU: no figure below means anything" "$@"
    ;;
  "" | --build)
    torch=$(torch_folder)
    PACK=$(realpath "$PACK")
    cmp -s "$PACK/torch_version.py" "$torch/version.py" ||
      { say "PyTorch here is $(grep -m1 '__version__' "$torch/version.py"), and the pack was built with $(grep -m1 '__version__' "$PACK/torch_version.py")"; }
    site=$(dirname "$torch")
    wheels=$(printf '%s:' "$site"/nvidia/*/lib)
    export LD_LIBRARY_PATH="$PACK/lib:$torch/lib:$wheels${LD_LIBRARY_PATH:-}"
    if [[ $mode == --build ]]; then build_kernels "$torch"; fi
    check "$PACK/bin" cuda "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU that nvidia-smi knows")" "$@"
    ;;
  *) known_parts "$mode" ;;
esac
