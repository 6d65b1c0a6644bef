#!/usr/bin/env bash
# Which variant of the Jacobian's score keeps the best weights, each with its mask shuffled beside it: sequential MNIST, 95 %,
# Adam, its rate falling to 0 in a straight line, gradients clipped at norm 1. Its arguments: a number of units, a number of
# epochs, learning rates, of which every row takes its best on training images that are held out, then those of compare.
#
#   benchmarks/paper/variants.sh 100 5 1e-2,2e-2
#   benchmarks/paper/variants.sh 400 4 5e-3,1e-2
#
# Stopped, the same command goes on with the runs that are missing. The figures of every run stand in variants_<units>.csv.
set -uo pipefail
units=$1 epochs=$2 rates=$3 here=$(dirname "$0")
methods=$here/methods
shift 3
name=variants_$units
python -m sparse_rnn compare --config gru_mnist.yaml --output "compare/$name" --sparsity 0.95 \
  --criteria Random,SNIP \
  --methods "$methods/jacobian_paper.yaml,$methods/jacobian_author.yaml,$methods/jacobian_author_averaged.yaml" \
  --control shuffle --tune "model.optimizer.init_args.lr=$rates" --model.hidden_size "$units" \
  --model.lr_scheduler LinearDecay --trainer.gradient_clip_val 1.0 --trainer.max_epochs "$epochs" "$@"
status=$?
if [ -f "compare/$name/results.csv" ]; then cp "compare/$name/results.csv" "$here/$name.csv"; fi
exit $status
