#!/usr/bin/env bash
# The pruning study of Darji (arXiv 2407.20601) on his task and on one where no letter gives a string away, smaller than his:
# bash benchmarks/reber/study.sh [folder]; SEEDS=3 for more seeds, JOBS=2 for two fits at a time. It goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-reber-study}
short=(--data.batch_size 128 --model.optimizer.init_args.lr 0.003 --trainer.max_epochs 12 --trainer.accelerator cpu)
for task in original honest; do
  data=()
  [ "$task" = original ] || data=(--data.negatives one_substitution --data.padding none)
  python -m sparse_rnn study pruning --config reber.yaml --sparsities "${SPARSITIES:-0.9,1}" --epochs 2 \
    --seeds "${SEEDS:-1}" --jobs "${JOBS:-1}" --output "$folder/$task" "${short[@]}" "${data[@]}"
  cp "$folder/$task/results.csv" "$here/results/reber_$task.csv"
done
