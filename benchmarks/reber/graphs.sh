#!/usr/bin/env bash
# The graph study of Darji (arXiv 2407.20601) for tanh and GRU, with the masks of the arcs, and the GRU with his wrong ones, too. It goes
# on where it stopped.
#   bash benchmarks/reber/graphs.sh folder; COUNT, EPOCHS and JOBS in the environment make it smaller or faster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?give a folder for the runs}
options=(--count "${COUNT:-200}" --jobs "${JOBS:-1}" --trainer.max_epochs "${EPOCHS:-15}" --trainer.accelerator cpu)
python -m sparse_rnn study graphs --output "$folder/graphs" "${options[@]}" \
  --cells "model={cell: rnn, nonlinearity: tanh},{cell: gru},{cell: gru, gate_masks: repeated}"
cp "$folder/graphs/results.csv" "$here/graphs.csv"
