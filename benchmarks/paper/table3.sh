#!/usr/bin/env bash
# Table 3 of Zhang and Stadie (ICLR 2020, arXiv 1912.00120): random and Jacobian pruning of a GRU of 400 units by sparsity,
# sequential MNIST. Published, validation error % at 90, 95, 98 %: random 1.12, 1.50, 1.82; Jacobian 1.05, 1.46, 1.77.
#
# All tables of benchmarks/paper hold the settings of gru_mnist.yaml: 50 epochs, Adam at 1e-3, batches of 64, N(0, 0.1).
# Stopped, the same command goes on with the runs that are missing, and with the one that was under way. Further arguments
# are those of python -m sparse_rnn compare, as in --seeds 5, --jobs 2 or --trainer.max_epochs 8 (which takes an --output of its
# own). SPARSITIES=0.9,0.98 leaves out 95 %, whose runs are those of 400 units in table2.sh, too, and has results of its own,
# table3_0.9_0.98.csv.
set -euo pipefail
exec "$(dirname "$0")/compare.sh" "table3${SPARSITIES:+_${SPARSITIES//,/_}}" --sparsity "${SPARSITIES:-0.9,0.95,0.98}" \
  --criteria Random --methods "$(dirname "$0")/methods/jacobian_paper.yaml" "$@"
