#!/usr/bin/env bash
# Written by `nlp-finetune launch torchrun`. Run it on each of @{nodes} machine(s):
#   @{how}
# SIGUSR1, SIGTERM and Ctrl-C to this script save a checkpoint; the same script goes on.
set -euo pipefail
cd @{directory}

program=(@{program})
arguments=(@{arguments})
@{seeds}
node_rank=${NODE_RANK:-0}
master=${MASTER_ADDR:-127.0.0.1}
port=${MASTER_PORT:-29500}
mkdir -p "$logs"

# Caches that many processes read go to the disk of each machine; checkpoints go to the shared `run`.
local_disk=@{local_disk}
export HF_DATASETS_CACHE="$local_disk/datasets" TRITON_CACHE_DIR="$local_disk/triton" TORCHINDUCTOR_CACHE_DIR="$local_disk/inductor"
@{environment}
@{setup}
launch() {
  # In the place of a shell: what signals are handed to are the children of this process.
  exec "@{python}" -m torch.distributed.run --nnodes @{nodes} --node_rank "$node_rank" --nproc_per_node @{tasks} \
    --master_addr "$master" --master_port "$1" --log_dir "$logs" --redirects "$2" --tee "$3" "${program[@]:1}" "${@:4}"
}

(launch "$port" 0 0 doctor --output-dir "$run" --timeout 60)

touch "$logs/.started"
launch "$((port + 1))" 3 0:3 train "${arguments[@]}" --timeout @{timeout_s} "output_dir=$run" &
launcher=$!
# Signals go to the processes that train: SIGUSR1 would kill torchrun and never reach them.
forward() { pkill "-$1" -P "$launcher" || true; }
trap 'forward USR1' USR1
trap 'forward TERM' TERM INT
code=0
wait "$launcher" || code=$?
# `wait` comes back at each signal: wait for the end.
while kill -0 "$launcher" 2>/dev/null; do code=0; wait "$launcher" || code=$?; done

# torchrun ends with 1 for every code: status.json says how the run ended. 75: stopped with a checkpoint.
ended=$code
if [ "$run/status.json" -nt "$logs/.started" ]; then  # and not one that an earlier attempt left
  ended=$("@{python}" -c 'import json, sys; print(json.load(open(sys.argv[1]))["exit_code"])' "$run/status.json")
  [ "$ended" != None ] || ended=1  # killed before it could say more
fi
echo "training ended with $ended; logs of the ranks are in $logs" >&2
exit "$ended"
