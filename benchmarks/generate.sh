#!/usr/bin/env bash
# Trains an LSTM on Python's own help texts, word by word, dense and 95 % sparse (the paper's criterion, before training), and lets
# both go on with a prompt; the sparse one over its kept weights, and the same text once more by PyTorch's dense layer. Prints the
# texts and the words per second of one stream, sampling and printing included. UNITS, EPOCHS, FOLDER, PROMPT and TOKENS can be
# set. Models that are there are not trained again. What it printed is in benchmarks/results/generate.txt.
set -euo pipefail
units=${UNITS:-1024} epochs=${EPOCHS:-5} folder=${FOLDER:-generate} prompt=${PROMPT:-The function} tokens=${TOKENS:-120}

train() { # name, further arguments of fit
  local run=$folder/$1
  shift
  if [ ! -e "$run/done" ]; then
    python -m sparse_rnn fit --config lstm_pydoc.yaml "$@" --model.hidden_size "$units" --model.embedding_size 256 \
      --model.embedding tied --trainer.max_epochs "$epochs" --trainer.default_root_dir "$run" \
      --trainer.accelerator cpu --trainer.enable_progress_bar false
    touch "$run/done"
  fi
}

show() { # name, engine
  printf '\n== %s, --engine %s\n' "$1" "$2"
  python -m sparse_rnn generate --checkpoint "$folder/$1/lightning_logs/version_0/checkpoints/last.ckpt" \
    --prompt "$prompt" --tokens "$tokens" --top_k 40 --seed 0 --engine "$2" 2>&1
}

train dense --pruning null >&2
train sparse --pruning.sparsity 0.95 >&2
echo "LSTM of $units units, $epochs epochs, prompt '$prompt', $tokens words, --top_k 40, --temperature 0.8, --seed 0"
PYTHONPATH="$(dirname "$0")${PYTHONPATH:+:$PYTHONPATH}" python -c 'from machine import describe; print(describe())'
for run in dense sparse; do
  python -m sparse_rnn test --config "$folder/$run/lightning_logs/version_0/config.yaml" --trainer.logger false \
    --ckpt_path "$folder/$run/lightning_logs/version_0/checkpoints/last.ckpt" | grep test/ppl | sed "s/^/$run: /"
done
show dense dense
show sparse sparse
show sparse dense
