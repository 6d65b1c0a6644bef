#!/usr/bin/env bash
# What two parts of pruning/recipe.yaml are worth: that each kernel is pruned by itself, and that rates are divided by the root of
# the weights that a unit keeps. Sequential MNIST, GRU of 100 units, five epochs, otherwise as mnist.sh. Its arguments are those of
# compare.
#
#   benchmarks/recipe/parts.sh --seeds 5
#
# Stopped, the same command goes on with the runs that are missing. The figures of every run stand in parts_fan_in.csv and
# parts_constant.csv.
set -uo pipefail
here=$(dirname "$0")
compare() {
  local name=$1 rates=$2
  shift 2
  python -m sparse_rnn compare --config gru_mnist.yaml --output "compare/recipe_parts_$name" --sparsity 0.95 --without_dense \
    --methods "$here/staying.yaml,$here/together.yaml" --model.hidden_size 100 --trainer.max_epochs 5 \
    --tune "model.optimizer.init_args.lr=$rates" --model.update_bias 1.0 --model.lr_scheduler LinearDecay \
    --trainer.gradient_clip_val 1.0 "$@"
  local status=$?
  if [ -f "compare/recipe_parts_$name/results.csv" ]; then cp "compare/recipe_parts_$name/results.csv" "$here/parts_$name.csv"; fi
  return $status
}
compare fan_in 0.032,0.064,0.128 --trainer.callbacks+=RateByFanIn "$@" && compare constant 0.005,0.01,0.02,0.04 "$@"
