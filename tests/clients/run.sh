#!/usr/bin/env bash
# Checks what Retort writes and computes with other people's software: llama.cpp, transformers, tokenizers, safetensors,
# gguf, TensorBoard and lm-evaluation-harness, from PyPI, in a virtual environment of their own. A check that needs what
# is not there (the model of scripts/setup.sh --models) says so and ends with 77.
#   tests/clients/run.sh RETORT_BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
retort=$(realpath "$1")
venv=${RETORT_VENV:-$PWD/.venv}
if ! cmp -s tests/clients/requirements.txt "$venv/requirements.installed"; then
  printf 'clients: making %s\n' "$venv" >&2
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$venv/requirements.installed"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bible -f gen1:1-gen50:26 >"$work/text.txt"
"$retort" run tests/clients/clients.yaml --set run.dir="$work/run" --set run.text="$work/text.txt"
passed=0 failed=0 skipped=0
for check in tests/clients/*_check.py; do
  code=0
  HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES= "$venv/bin/python" "$check" "$retort" "$work/run" || code=$?
  case $code in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *)
      failed=$((failed + 1))
      printf 'clients: FAILED %s\n' "$check" >&2
      ;;
  esac
done
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
