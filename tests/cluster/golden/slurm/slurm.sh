#!/bin/bash
#SBATCH --job-name=cells
#SBATCH --output=cells-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --time=1-00:00:00
#SBATCH --partition=cpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4096M
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH hetjob
#SBATCH --time=1-00:00:00
#SBATCH --partition=cpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32768M
#SBATCH --no-kill
#SBATCH hetjob
#SBATCH --time=1-00:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=65536M
#SBATCH --gpus-per-node=2
#SBATCH --no-kill
#SBATCH hetjob
#SBATCH --time=1-00:00:00
#SBATCH --partition=cpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=4096M
#SBATCH --no-kill
#SBATCH --exclusive

# Made by `python -m cluster render`; see docs/cluster-render.md. Submit it from the repository: sbatch slurm.sh
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?this script runs by sbatch}"
module load python/3.11
source "$HOME/envs/yolo/bin/activate"
set -u  # the scripts above may use names that are not set
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0
export NOTE='two words'
OPTUNA_STORAGE="$(cat "$HOME/secrets/optuna")"
export OPTUNA_STORAGE
: "${AWS_SECRET_ACCESS_KEY:?set it where you call sbatch}"
export AWS_SECRET_ACCESS_KEY

stop() {
    status=$?
    trap - EXIT TERM
    running=$(jobs -p)
    [ -z "$running" ] || kill $running 2>/dev/null || true
    wait || true
    [ -z "${private:-}" ] || rm -rf -- "$private"
    exit "$status"
}
trap stop EXIT
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0" | awk 'NR == 1')
head_ip=$(srun --het-group=0 --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address |
    awk '{for (i = 1; i <= NF; i++) if ($i !~ /^127\./ && $i !~ /:/) {print $i; exit}}')
[ -n "$head_ip" ] || { echo "error: $head has no address that other nodes can reach" >&2; exit 1; }
# A port and folders of this job's own: other jobs, and other parts of this one, may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
temporary="/tmp/ray-$SLURM_JOB_ID"
export RAY_ADDRESS="$head_ip:$port"
# head
srun --het-group=0 --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --head --include-dashboard=false --node-ip-address="$head_ip" --port="$port" --temp-dir="$temporary-0" --block --num-cpus=0 --num-gpus=0 &

for attempt in $(seq 60); do
    ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1 && break
    [ "$attempt" -lt 60 ] || { echo "error: the head did not start" >&2; exit 1; }
    sleep 2
done
# cpu
srun --het-group=1 --nodes=4 --ntasks-per-node=1 --cpus-per-task=16 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --address="$RAY_ADDRESS" --temp-dir="$temporary-1" --block --num-cpus=16 --num-gpus=0 &
# gpu
srun --het-group=2 --nodes=1 --ntasks-per-node=1 --cpus-per-task=8 --gpus-per-node=2 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --address="$RAY_ADDRESS" --temp-dir="$temporary-2" --block --num-cpus=8 --num-gpus=2 &
# bench
srun --het-group=3 --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --address="$RAY_ADDRESS" --temp-dir="$temporary-3" --block --num-cpus=0 --num-gpus=0 '--resources={"bench:onnxruntime-cpu": 1}' &

python - 7 <<'END'
import sys
import time

import ray

ray.init(log_to_driver=False, logging_level="ERROR")
deadline = time.monotonic() + 600
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit("error: some nodes did not join within 10 minutes")
    time.sleep(2)
END

sh -c 'if [ -f /scratch/lab/cells-1/study.yaml ]; then exec python -m search resume /scratch/lab/cells-1; else exec python -m search run /scratch/lab/cells.yaml --out /scratch/lab/cells-1; fi' &
study=$!
trap 'kill -TERM "$study" 2>/dev/null || true' TERM
wait "$study"
