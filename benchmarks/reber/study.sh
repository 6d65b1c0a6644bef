#!/usr/bin/env bash
# The pruning study of Darji (arXiv 2407.20601) on his task, and on one where no letter gives a string away. Smaller than his:
# batches of 128 at 3e-3, 12 epochs before pruning and 2 after it. It goes on where it stopped.
#   bash benchmarks/reber/study.sh folder; SCOPES, SPARSITIES, SEEDS and JOBS in the environment make it larger.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?give a folder for the runs}
short=(--data.batch_size 128 --model.optimizer.init_args.lr 0.003 --trainer.max_epochs 12 --trainer.accelerator cpu)
for task in original honest; do
  data=()
  [ "$task" = original ] || data=(--data.negatives one_substitution --data.padding none)
  python -m sparse_rnn study pruning --config reber.yaml --scopes "${SCOPES:-hidden-to-hidden}" \
    --sparsities "${SPARSITIES:-1}" --epochs 2 --seeds "${SEEDS:-1}" --jobs "${JOBS:-1}" --output "$folder/$task" \
    "${short[@]}" "${data[@]}"
  cp "$folder/$task/results.csv" "$here/$task.csv"
done
