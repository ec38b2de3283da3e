#!/bin/bash
#SBATCH --job-name=yolo-front
#SBATCH --output=yolo-front-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --time=08:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4096M
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH hetjob
#SBATCH --time=08:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8192M
#SBATCH --no-kill
#SBATCH hetjob
#SBATCH --time=08:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4096M
#SBATCH --no-kill

# Made by `python -m cluster render`; see docs/cluster-render.md. Submit it from the repository: sbatch slurm.sh
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?this script runs by sbatch}"
source .venv/bin/activate
set -u  # the scripts above may use names that are not set
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0

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
# A folder of this job's own, mode 700, which all nodes see. The token lives as long as the job.
private=$(mktemp -d "$HOME/.yolo-front.XXXXXXXX")
(umask 077; head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$private/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token"

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
# workers
srun --het-group=1 --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --address="$RAY_ADDRESS" --temp-dir="$temporary-1" --block --num-cpus=4 --num-gpus=0 &
# bench
srun --het-group=2 --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --no-kill --kill-on-bad-exit=0 --wait=0 \
    ray start --address="$RAY_ADDRESS" --temp-dir="$temporary-2" --block --num-cpus=0 --num-gpus=0 '--resources={"bench:onnxruntime-cpu": 1}' &

python - 3 <<'END'
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

sh -c 'if [ -f results/demo/study.yaml ]; then exec python -m search resume results/demo; else exec python -m search demo --out results/demo; fi' &
study=$!
trap 'kill -TERM "$study" 2>/dev/null || true' TERM
wait "$study"
