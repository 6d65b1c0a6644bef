#!/usr/bin/env bash
# Runs what is missing of a table (its name, then arguments of python -m sparse_rnn compare), in compare/<name>, and keeps the
# figures of every run that has finished beside this script, also when it is stopped. A NAME in the environment goes before the
# table's. With COUNTS=1 no table is made, but <name>_counts.csv: how many weights of each gate its masks keep.
set -uo pipefail
here=$(dirname "$0")
name=${NAME:+${NAME}_}$1
config=${CONFIG:-gru_mnist.yaml}
shift
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} # of the callback in exchanged_gates.py, which some methods name
if [ -n "${COUNTS:-}" ]; then
  counts=$here/${name}_counts.csv
  python "$here/counts.py" --config "$config" "$@" > "$counts.part" && exec mv "$counts.part" "$counts"
  rm "$counts.part"
  exit 1
fi
python -m sparse_rnn compare --config "$config" --output "compare/$name" "$@"
status=$?
if [ -f "compare/$name/results.csv" ]; then cp "compare/$name/results.csv" "$here/$name.csv"; fi
exit $status
