#!/usr/bin/env bash
# Table 2 of Zhang and Stadie (ICLR 2020, arXiv 1912.00120): methods by the size of a 95 % sparse GRU, sequential MNIST; beside
# the paper, its criterion as its author's code scores, and SNIP and GraSP ("Foresight") with and without the normalisation by
# γ. Published, validation error % at 400 units: random 1.50, Jacobian 1.46, norm. SNIP 1.52, norm. Foresight 1.62, L2 0.71.
#
# All tables of benchmarks/paper hold the settings of gru_mnist.yaml: 50 epochs, Adam at 1e-3, batches of 64, N(0, 0.1).
# Stopped, the same command goes on with the runs that are missing, and with the one that was under way. Further arguments
# are those of python -m sparse_rnn compare, as in --seeds 5, --jobs 2 or --trainer.max_epochs 8 (which takes an --output of its
# own). SIZES=100 runs the column of 100 units alone, whose results are table2_100.csv, and an empty CRITERIA leaves out those
# that --criteria takes. Arguments that make it another comparison have a NAME in the environment, which goes before:
#
#   NAME=glorot SIZES=100 benchmarks/paper/table2.sh --model.init glorot --model.init_scale 1
#   NAME=dense SIZES=400 CRITERIA= benchmarks/paper/table2.sh --methods pruning/l2.yaml
set -euo pipefail
methods=$(dirname "$0")/methods
criteria=${CRITERIA-Random,SNIP,GraSP}
exec "$(dirname "$0")/compare.sh" "table2${SIZES:+_${SIZES//,/_}}" --sparsity 0.95 \
  ${criteria:+--criteria "$criteria"} \
  --methods "$methods/jacobian_paper.yaml,$methods/jacobian_author.yaml,$methods/snip_gamma.yaml,$methods/grasp_gamma.yaml,pruning/l2.yaml" \
  --vary "model.hidden_size=${SIZES:-100,400,1600}" "$@"
