#!/usr/bin/env bash
# Table 1 of Zhang and Stadie (ICLR 2020, arXiv 1912.00120): random and Jacobian pruning of four cells of 400 units to 95 %,
# sequential MNIST. Published, validation error %: GRU random 1.50 ± 0.08, Jacobian 1.46 ± 0.05, dense 0.77 ± 0.14.
#
# All tables of benchmarks/paper hold the settings of gru_mnist.yaml: 50 epochs, Adam at 1e-3, batches of 64, N(0, 0.1).
# Stopped, the same command goes on with the runs that are missing, and with the one that was under way. Further arguments
# are those of python -m sparse_rnn compare, as in --seeds 5, --jobs 2 or --trainer.max_epochs 8 (which takes an --output of its
# own). CELLS=rnn,lstm,peephole_lstm leaves out GRU, whose runs are those of 400 units in table2.sh, too, and has results of its
# own, table1_rnn_lstm_peephole_lstm.csv.
set -euo pipefail
exec "$(dirname "$0")/compare.sh" "table1${CELLS:+_${CELLS//,/_}}" --sparsity 0.95 \
  --criteria Random --methods "$(dirname "$0")/methods/jacobian_paper.yaml" \
  --vary "model.cell=${CELLS:-rnn,gru,lstm,peephole_lstm}" "$@"
