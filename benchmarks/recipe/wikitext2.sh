#!/usr/bin/env bash
# pruning/recipe.yaml, as it is and with weights that stay removed, beside a random mask, RigL and the dense network on WikiText-2, each
# at its own best rate: an LSTM of 200 units, 90 % sparse, two epochs, trained by sampled softmax and evaluated by the full one.
# The rate, over the root of the weights that a unit keeps, falls to 0 in a straight line, and gradients are clipped as the
# recipe clips them. The paper's windows start from the zero state, and its embedding, which is not trained, is small: here, as
# in the other comparisons of two epochs, the state is carried on, and the embedding is N(0, 1). Its arguments are those of
# compare.
#
#   benchmarks/recipe/wikitext2.sh --seeds 3
#
# RATES in the environment says which rates are tried; an empty CRITERIA leaves out the random mask, an empty METHODS all but it
# and the dense network. Stopped, the same command goes on with the runs that are missing. The figures of every run stand in
# wikitext2.csv; arguments that make it another comparison have a NAME in the environment, which goes before. Which part of the
# allocation of the Jacobian's criterion makes the difference, without a criterion:
#
#   R=benchmarks/recipe
#   METHODS=$R/input_share.yaml,$R/forget_gate.yaml,$R/input_gates.yaml,$R/recurrent_gates.yaml \
#     NAME=allocations CRITERIA= RATES=0.0225 benchmarks/recipe/wikitext2.sh --seeds 3 --without_dense
set -uo pipefail
criteria=${CRITERIA-Random}
name=${NAME:+${NAME}_}wikitext2
here=$(dirname "$0")
methods=${METHODS-pruning/recipe.yaml,pruning/rigl.yaml,$here/staying.yaml}
python -m sparse_rnn compare --config lstm_wikitext2.yaml --output "compare/recipe_$name" --sparsity 0.9 \
  ${criteria:+--criteria "$criteria"} ${methods:+--methods "$methods"} \
  --tune "model.optimizer.init_args.lr=${RATES:-0.016,0.032,0.064,0.128}" --model.hidden_size 200 --model.init he \
  --model.init_scale null --model.embedding_scale 1.0 --model.carry_state true --model.decoder sampled \
  --model.optimizer RowAdam --model.lr_scheduler LinearDecay --trainer.gradient_clip_val 1.0 --trainer.max_steps -1 \
  --trainer.callbacks+=RateByFanIn --trainer.max_epochs 2 --trainer.val_check_interval 1.0 \
  --trainer.check_val_every_n_epoch 2 "$@"
status=$?
if [ -f "compare/recipe_$name/results.csv" ]; then cp "compare/recipe_$name/results.csv" "$here/$name.csv"; fi
exit $status
