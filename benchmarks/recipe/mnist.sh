#!/usr/bin/env bash
# pruning/recipe.yaml beside a random mask, one that SET moves, and the dense network, all by the recipe's optimizer, decay,
# clipping and first biases, each at its own best rate: sequential MNIST, 95 %. Rates are divided by the root of the weights that
# a unit keeps, for all of them. Its arguments: a number of units, a number of epochs, then those of compare.
#
#   benchmarks/recipe/mnist.sh 100 5    # also 400 4, and with --methods "$LONG" 100 50 and 400 50, where
#   LONG=pruning/recipe.yaml,benchmarks/recipe/first_epoch.yaml,benchmarks/recipe/set.yaml
#
# RATES in the environment says which rates are tried, CELL=lstm takes an LSTM, and an empty CRITERIA leaves out the random
# mask. Stopped, the same command goes on with the runs that are missing. The figures of every run stand in
# mnist_<units>_<epochs>.csv, of an LSTM in lstm_mnist_<units>_<epochs>.csv; arguments that make it another comparison have a
# NAME in the environment, which goes before. RigL and criteria, the Jacobian with γ the mean of 16 draws, and the long recipe of
# long.sh:
#
#   M=benchmarks/paper/methods
#   NAME=criteria CRITERIA=SNIP benchmarks/recipe/mnist.sh 100 5 --seeds 3 --without_dense \
#     --methods $M/jacobian_author.yaml,$M/jacobian_paper.yaml,pruning/rigl.yaml
#   NAME=averaged CRITERIA= RATES=0.032,0.064 benchmarks/recipe/mnist.sh 400 4 --seeds 3 --without_dense \
#     --methods $M/jacobian_author_averaged.yaml
#   NAME=dropout benchmarks/recipe/mnist.sh 100 50 --methods benchmarks/recipe/granet.yaml \
#     --model.dropout 0.5 --model.input_dropout 0.1
set -uo pipefail
criteria=${CRITERIA-Random}
units=$1 epochs=$2 here=$(dirname "$0")
shift 2
cell=${CELL:-gru}
name=mnist_${units}_${epochs}
[ "$cell" = gru ] || name=${cell}_$name
[ -z "${NAME:-}" ] || name=${NAME}_$name
python -m sparse_rnn compare --config "${cell}_mnist.yaml" --output "compare/recipe_$name" --sparsity 0.95 \
  ${criteria:+--criteria "$criteria"} --methods "pruning/recipe.yaml,$here/set.yaml" \
  --model.hidden_size "$units" --trainer.max_epochs "$epochs" \
  --tune "model.optimizer.init_args.lr=${RATES:-0.016,0.032,0.064,0.128}" --model.update_bias 1.0 \
  --model.lr_scheduler LinearDecay --trainer.gradient_clip_val 1.0 --trainer.callbacks+=RateByFanIn "$@"
status=$?
if [ -f "compare/recipe_$name/results.csv" ]; then cp "compare/recipe_$name/results.csv" "$here/$name.csv"; fi
exit $status
