#!/usr/bin/env bash
# Written by `nlp-finetune launch slurm`. Submit with: sbatch @{file}
#SBATCH --job-name=@{job_name}
#SBATCH --nodes=@{nodes}
#SBATCH --ntasks-per-node=@{tasks}
@{resources}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=@{logs}/@{log_name}.log
# Before the time is up the processes that train get SIGUSR1 and save. Slurm sends it to the tasks of `srun`,
# which are those processes themselves: no launcher stands between, and this shell does not get it.
#SBATCH --signal=USR1@@{signal_s}
set -euo pipefail
cd @{directory}

program=(@{program})
arguments=(@{arguments})
@{seeds}
mkdir -p "$logs"

# Where processes meet: the first node, and a port of this job's own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
port=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=@{tasks}

# Caches that many processes read go to the disk of each node; checkpoints go to the shared `run`.
local_disk=@{local_disk}
export HF_DATASETS_CACHE="$local_disk/datasets" TRITON_CACHE_DIR="$local_disk/triton" TORCHINDUCTOR_CACHE_DIR="$local_disk/inductor"
@{environment}
@{setup}
# One task is one process of the training: Slurm's numbers are its rank. `exec` leaves no shell for signals to get lost in.
task='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$@"'

echo "doctor: $(date), attempt $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"
MASTER_PORT=$port srun --wait=90 bash -c "$task" doctor "${program[@]}" doctor --output-dir "$run" --timeout 60

code=0
touch "$logs/.started"
MASTER_PORT=$((port + 1)) srun --wait=@{wait_s} --open-mode=append --output="$logs/rank-%t.log" \
  bash -c "$task" train "${program[@]}" train "${arguments[@]}" --timeout @{timeout_s} "output_dir=$run" || code=$?

# Exit codes get lost on the way through srun: status.json says how the run ended. 75: stopped with a checkpoint.
ended=$code
if [ "$run/status.json" -nt "$logs/.started" ]; then  # and not one that an earlier attempt left
  ended=$("@{python}" -c 'import json, sys; print(json.load(open(sys.argv[1]))["exit_code"])' "$run/status.json")
  [ "$ended" != None ] || ended=1  # killed before it could say more
fi
echo "training ended with $ended: $(date)"
if [ "$ended" = 75 ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt @{max_requeues} ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  echo "requeued @{max_requeues} times already: submit the script again to go on" >&2
fi
tail -n 20 "$logs/rank-0.log" >&2 || true
exit "$ended"
