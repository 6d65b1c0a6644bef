#!/usr/bin/env bash
# pruning/recipe.yaml for a training of fifty epochs, which learns the images by heart: 95 % sparse within the first epoch, by
# magnitude (granet.yaml), and dropout; sequential MNIST. Its arguments: a number of units, then those of fit.
#
#   for seed in 0 1 2; do benchmarks/recipe/long.sh 100 --seed_everything "$seed" --data.seed "$seed"; done
#   python benchmarks/recipe/ended.py benchmarks/recipe/long_100.csv lightning_logs/version_{0,1,2}
set -euo pipefail
units=$1
shift
exec python -m sparse_rnn fit --config gru_mnist.yaml --config pruning/recipe.yaml --config "$(dirname "$0")/granet.yaml" \
  --model.hidden_size "$units" --model.dropout 0.5 --model.input_dropout 0.1 --trainer.max_epochs 50 "$@"
