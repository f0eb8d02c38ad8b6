#!/usr/bin/env bash
# Holds launch/slurm.sbatch to a real Slurm of one node, started here and stopped at the end (docs/launching.md):
# ranks over TCP and over PMIx, a save at Slurm's own warning (USR1), a job that is queued again on 75, and the bytes of
# an undisturbed run on one rank. Wants root and Debian's slurmctld, slurmd, slurm-client and munge.
#   scripts/slurm_check.sh [RETORT]      by default build/release/launch/retort
set -euo pipefail
cd "$(dirname "$0")/.."
export RETORT
RETORT=$(realpath "${1:-build/release/launch/retort}")
export OMP_WAIT_POLICY=passive
ranks=4
for program in munged slurmctld slurmd sbatch srun scontrol; do
  command -v "$program" >/dev/null || { echo "slurm_check: $program is missing: apt-get install slurmctld slurmd slurm-client munge"; exit 1; }
done
((EUID == 0)) || { echo "slurm_check: run it as root: slurmd and munged want it"; exit 1; }

home=$(mktemp -d /tmp/retort-slurm.XXXXXX)
export SLURM_CONF=$home/slurm.conf
end() {
  for daemon in slurmctld slurmd munged; do
    [[ -s $home/$daemon.pid ]] || continue
    local pid
    pid=$(cat "$home/$daemon.pid")
    kill "$pid" 2>/dev/null || continue
    while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
  done
  rm -rf "$home"
}
trap end EXIT

start_slurm() {
  local node
  node=$(hostname -s)
  dd if=/dev/urandom of="$home/munge.key" bs=1024 count=1 status=none
  chmod 400 "$home/munge.key"
  chmod 755 "$home"
  cat >"$SLURM_CONF" <<CONF
ClusterName=retort
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$home/munge.socket
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
SlurmctldPort=46817
SlurmdPort=46818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
MpiDefault=none
SchedulerParameters=sched_interval=2
KillWait=10
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=$ranks State=UNKNOWN
PartitionName=all Nodes=$node OverSubscribe=FORCE:1 Default=YES MaxTime=INFINITE State=UP
SlurmdParameters=config_overrides
CONF
  mkdir "$home/state" "$home/spool"
  munged --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" \
    --log-file="$home/munged.log" --seed-file="$home/munged.seed" --force
  slurmctld
  slurmd
  for _ in {1..60}; do
    [[ $(sinfo -h -o %t 2>/dev/null) == idle* ]] && return
    sleep 1
  done
  echo "slurm_check: the node did not come up"; tail "$home"/*.log; exit 1
}

# Whether a job has ended; its state goes to $state.
ended() {
  state=$(scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
  case $state in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) return 0 ;; *) return 1 ;; esac
}

# A job by launch/slurm.sbatch whose ranks meet as $2 says. Slurm warns it between 5 and 65 s after its start.
check() {
  local name=$1 options=$2 run=$home/$1 job restarted= state=
  job=$(RETORT_SRUN_OPTIONS=$options sbatch --parsable --ntasks "$ranks" --overcommit --time 3 --signal USR1@175 \
    --output "$home/$name.log" launch/slurm.sbatch "$recipe" "${sets[@]}" --set "run.dir=$run")
  for _ in {1..900}; do
    ended "$job" && break
    # Slurm waits two minutes before it starts a job again; this one may start at once, and run without a limit.
    if [[ ! $restarted && $(scontrol show job "$job") == *"JobState=PENDING"*"Restarts=1"* ]]; then
      restarted=1
      scontrol update "JobId=$job" StartTime=now TimeLimit=UNLIMITED
    fi
    sleep 1
  done
  if [[ $state != COMPLETED ]]; then echo "slurm_check: $name ended as $state"; cat "$home/$name.log"; exit 1; fi
  grep -q "retort ended with 75; job $job is queued again (restart 1)" "$home/$name.log" ||
    { echo "slurm_check: $name was not queued again"; cat "$home/$name.log"; exit 1; }
  for file in weights optimizer; do
    cmp "$home/alone/$last/$file.safetensors" "$run/$last/$file.safetensors"
  done
  echo "$name: $ranks ranks, warned by Slurm, queued again, the bytes of one rank"
}

recipe=$home/recipe.yaml
cat >"$recipe" <<'RECIPE'
run: { name: slurm, seed: 5, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 512, micro_batch: 4 }
model: { context: 64, layers: 2, width: 64, heads: 2, ffn_width: 128 }
train: { precision: fp32, schedule: { warmup: 5 }, checkpoint_every: 0 }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0.2 } }
  - { name: model, kind: train }
RECIPE
bible -f gen1:1-gen50:26 >"$home/text"
steps=${RETORT_SLURM_STEPS:-3000}
sets=(--set "run.text=$home/text" --set "train.steps=$steps")
start_slurm
srun --version
last=model/checkpoints/step_$(printf %08d "$steps")
"$RETORT" run "$recipe" "${sets[@]}" --set "run.dir=$home/alone" 2>"$home/alone.log"
check tcp ""
check pmix --mpi=pmix
