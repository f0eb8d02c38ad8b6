#!/bin/bash
# Runs a recipe under mpirun and starts it again while it was preempted (75) or lost a rank (76; 137: killed):
#
#   launch/mpirun_loop.sh -n 8 --hostfile hosts -- recipe.yaml --set run.dir=runs/big
#
# What comes before `--` goes to mpirun. A run continues from its newest checkpoint, with the same bits under any number
# of ranks. It ends with retort's exit code, or after RETORT_MAX_RESTARTS (3) lost ranks in a row.
set -u
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
[ "${1-}" = -- ] && [ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
shift

lost=0
while :; do
  # mpirun kills 1 s after SIGTERM unless it is told otherwise: too soon for a checkpoint.
  mpirun --mca odls_base_sigkill_timeout 60 "${options[@]}" "${RETORT:-retort}" run "$@" && exit 0
  code=$?
  case $code in
    75) lost=0 ;;
    76 | 137) lost=$((lost + 1)); [ "$lost" -le "${RETORT_MAX_RESTARTS:-3}" ] || exit "$code" ;;
    *) exit "$code" ;;
  esac
  echo "retort ended with $code: starting again" >&2
  sleep "${RETORT_RESTART_DELAY:-10}"
done
