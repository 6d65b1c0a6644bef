import csv
from pathlib import Path

import pytest

from sparse_rnn.cli.pruning_study import parse

ARGS = ["study", "pruning", "--config", "gru_digits.yaml"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sparsities", "0.5,1.5"], ["--sparsities 1.5", "at most 1"]),
        (["--sparsities", "0"], ["--sparsities 0.0", "above 0"]),
        (["--scopes", "both,output"], ["no scope 'output'", "input-to-hidden"]),
        (["--criterion", "Magnitud"], ["no criterion 'Magnitud'", "Magnitude"]),
        (["--epochs", "0"], ["--epochs", "'0'"]),
        (["--cells", "model.cell"], ["'model.cell'", "an argument of fit"]),
        (["--cells", "model.cell=gru,gruu"], ["cannot run", "gruu"]),
        (["--pruning.kernels", "[a]"], ["--pruning.kernels is set", "--scopes"]),
        (["--seed_everything=3"], ["use --seeds"]),
        (["--config", "gru_digts.yaml"], ["'gru_digts.yaml'", "gru_digits.yaml"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said):
    line = refused(*ARGS, *args)
    assert all(part in line for part in said), line


def test_the_defaults_are_those_of_the_thesis():
    study = parse(["--config", "reber.yaml"])
    assert study.sparsities == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert study.scopes == ["both", "input-to-hidden", "hidden-to-hidden"]
    assert [len(axis.values) for axis in study.vary] == [4]
    assert (study.epochs, study.seeds, study.output) == (10, 3, Path("study/pruning/reber"))


@pytest.mark.slow
def test_a_study_of_digits(run, capsys):
    args = [*ARGS, "--cells", "model.cell=gru", "--sparsities", "0.5,1", "--scopes", "hidden-to-hidden"]
    args += ["--epochs", "2", "--seeds", "1", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"]
    args += ["--trainer.accelerator", "cpu", "--model.hidden_size", "6", "--trainer.log_every_n_steps", "1"]
    run(*args)
    out = capsys.readouterr().out
    with Path("study/pruning/gru_digits/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    places = [(line["scope"], line["sparsity"], line["epoch"], line["step"]) for line in lines]
    pruned = [("hidden-to-hidden", s, f"{e}.0", str(3 * e)) for s in ("0.5", "1.0") for e in range(3)]
    assert places == [("dense", "0.0", "1.0", "3"), *pruned]
    assert "| cell gru |" in out
    run(*args)  # finished, all of it
    assert capsys.readouterr().out == out
