#!/usr/bin/env bash
# Table 4 of Zhang and Stadie (ICLR 2020, arXiv 1912.00120), WikiText-2: training perplexity of a 95 % sparse LSTM of 2,000 units,
# random pruning, and the paper's criterion by its eq. 7 and as its author's code scores, beside the dense network. Published:
# random 22.66, Jacobian 20.54, dense 10.479.
#
# The metric is the perplexity of a random share of the training text (SHARE, 0.01 as in the paper), the same windows in every
# run, logged beside every validation. The settings are those of lstm_wikitext2.yaml. UNITS, STEPS and VALIDATE_EVERY make the
# runs of a size that a CPU takes, as in UNITS=200 STEPS=2000 VALIDATE_EVERY=500. DECODER=sampled trains on the softmax over
# SAMPLES words (1,000) by RowAdam, which steps on the rows of these alone; the metric stays that of the full softmax.
#
# Stopped, the same command goes on with the runs that are missing, and with the one that was under way. Further arguments
# are those of python -m sparse_rnn compare, as in --seeds 5, --jobs 2 or --data.batch_size 32.
set -euo pipefail
methods=$(dirname "$0")/methods
softmax=()
if [ "${DECODER:-full}" = sampled ]; then
  softmax=(--model.decoder sampled --model.num_samples "${SAMPLES:-1000}"
    --model.optimizer sparse_rnn.modules.RowAdam --model.optimizer.init_args.lr 0.001)
fi
CONFIG=lstm_wikitext2.yaml exec "$(dirname "$0")/compare.sh" table4 --sparsity 0.95 \
  --criteria Random --methods "$methods/jacobian_paper.yaml,$methods/jacobian_author.yaml" \
  --metric train/ppl_sample --data.train_sample "${SHARE:-0.01}" \
  --model.hidden_size "${UNITS:-2000}" --trainer.max_steps "${STEPS:-20000}" \
  --trainer.val_check_interval "${VALIDATE_EVERY:-1000}" "${softmax[@]}" "$@"
