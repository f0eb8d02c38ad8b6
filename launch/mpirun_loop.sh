#!/bin/bash
# Runs a recipe under mpirun and starts it again while it was preempted (75) or lost a rank (76; 137: killed):
#
#   launch/mpirun_loop.sh -n 8 --hostfile hosts -- recipe.yaml --set run.dir=runs/big
#
# What comes before `--` goes to mpirun. A run continues from its newest checkpoint, with the same bits under any number
# of ranks. It ends with retort's exit code, or after RETORT_MAX_RESTARTS (3) lost ranks in a row. SIGTERM, SIGINT and SIGHUP
# to this script save the run and end it with 75: mpirun hands SIGUSR1 on at once, and SIGTERM only when its own time is up.
set -u
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
[ "${1-}" = -- ] && [ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
shift

lost=0 job='' stopping=''
trap 'stopping=1; [ -z "$job" ] || kill -USR1 "$job" 2>/dev/null' TERM INT HUP
while :; do
  # Once a rank has ended, mpirun waits this long, ends the others by SIGTERM, and waits as long again before SIGKILL; 1 s when left
  # out.
  mpirun --mca odls_base_sigkill_timeout 10 "${options[@]}" "${RETORT:-retort}" run "$@" </dev/null &
  job=$!
  wait "$job"
  code=$?
  # A signal has ended the wait, not mpirun; 127: it has told its code already.
  while [ "$code" -gt 128 ] && [ -n "$stopping" ]; do
    wait "$job"
    again=$?
    [ "$again" -ne 127 ] || break
    code=$again
  done
  [ "$code" -ne 0 ] && [ -z "$stopping" ] || exit "$code"
  case $code in
    75) lost=0 ;;
    76 | 137) lost=$((lost + 1)); [ "$lost" -le "${RETORT_MAX_RESTARTS:-3}" ] || exit "$code" ;;
    *) exit "$code" ;;
  esac
  echo "retort ended with $code: starting again" >&2
  sleep "${RETORT_RESTART_DELAY:-10}"
  [ -z "$stopping" ] || exit "$code"
done
