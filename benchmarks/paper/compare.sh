#!/usr/bin/env bash
# Runs what is missing of a table (its name, then arguments of python -m sparse_rnn compare), in compare/<name>, and keeps the
# figures of every run that has finished beside this script, also when it is stopped. A NAME in the environment goes before the
# table's.
set -uo pipefail
name=${NAME:+${NAME}_}$1
shift
python -m sparse_rnn compare --config "${CONFIG:-gru_mnist.yaml}" --output "compare/$name" "$@"
status=$?
if [ -f "compare/$name/results.csv" ]; then cp "compare/$name/results.csv" "$(dirname "$0")/$name.csv"; fi
exit $status
