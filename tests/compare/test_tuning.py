import math

import pytest
import yaml

from sparse_rnn.cli import main
from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.grid import TUNING_SEED, Cell
from sparse_rnn.compare.notes import notes
from sparse_rnn.compare.tuning import at_edge, choose, diverged
from sparse_rnn.data import SequentialDigits

LR = "model.optimizer.init_args.lr"
TUNE = ["--tune", f"{LR}=1e-3,3e-3,1e-2", "--tune", "model.forget_bias=0,1"]
ARGS = ["--criteria", "Random,SNIP", "--vary", "model.cell=gru,lstm", *TUNE]


def error(run):
    """The best of Random is in the middle of the rates, that of others the largest."""
    rate, bias = (float(value) for _, value in run.tuned)
    best = 0.003 if run.cell.method == "Random" else 0.01
    return abs(math.log(rate / best)) + abs(bias - 1) + 1000 * (run.stage == "final")


def test_every_cell_gets_the_values_with_the_smallest_error(invented):
    grid, results = invented(error, *ARGS)
    chosen = choose(grid, results)
    assert set(chosen) == set(grid.cells())
    for cell, tuned in chosen.items():
        assert dict(tuned) == {LR: "0.003" if cell.method == "Random" else "0.01", "model.forget_bias": "1"}
        assert at_edge(grid, tuned) == ([] if cell.method == "Random" else [LR]) + ["model.forget_bias"]


def test_a_cell_that_diverged_with_every_value_has_no_choice_and_the_notes_say_so(invented):
    grid, results = invented(lambda run: math.nan if run.cell.method == "SNIP" else error(run), *ARGS)
    lost = {cell for cell in grid.cells() if cell.method == "SNIP"}
    chosen = choose(grid, results)
    assert set(grid.cells()) - set(chosen) == set(diverged(grid, results)) == lost
    assert {run.cell for run in grid.runs(chosen)} == set(chosen)
    [note] = [note for note in notes(results, grid) if "none was chosen" in note]
    assert all(str(cell) in note for cell in lost)


def test_a_cell_that_lacks_a_run_has_no_choice_and_no_run_to_report(invented):
    grid, results = invented(error, *ARGS)
    lost = results[0].run.cell
    chosen = choose(grid, results[1:])
    assert set(grid.cells()) - set(chosen) == {lost}
    assert {run.cell for run in grid.runs(chosen)} == set(chosen)


def test_a_diverged_run_is_not_the_best(invented):
    grid, results = invented(
        lambda run: {"0.001": math.nan, "0.003": math.inf}.get(dict(run.tuned)[LR], 5.0), *ARGS[:2], *TUNE[:2]
    )
    assert {dict(tuned)[LR] for tuned in choose(grid, results).values()} == {"0.01"}


def test_what_tunes_has_a_seed_of_its_own_and_validates_on_training_data():
    grid = parse(["--config", "gru_digits.yaml", "--sparsity", "0.9", *ARGS])
    assert len(grid.tuning_runs()) == 3 * 2 * 6
    for run in grid.tuning_runs():
        words = grid.fit_arguments(run)
        assert words[words.index("--seed_everything") + 1] == str(TUNING_SEED)
        assert words[words.index("--data.hold_out") + 1] == "0.1"
    final = grid.runs(dict.fromkeys(grid.cells(), ()))
    assert all(run.seed < TUNING_SEED and "--data.hold_out" not in grid.fit_arguments(run) for run in final)


def test_no_fit_that_tunes_sees_what_is_reported_on(capsys):
    def data_of(run):
        with pytest.raises(SystemExit):
            main([*grid.fit_arguments(run), "--print_config"])
        return SequentialDigits(**yaml.safe_load(capsys.readouterr().out)["data"]["init_args"])

    def images(*splits):
        return {tuple(x.flatten().tolist()) for split in splits for x, _ in split}

    grid = parse(["--config", "gru_digits.yaml", "--sparsity", "0.9", "--seeds", "2", *ARGS[:2], *TUNE[:2]])
    tuning = data_of(grid.tuning_runs()[0])
    reported = [data_of(run) for run in grid.runs({Cell("dense", 0.0): ()})]
    assert (tuning.seed, *(data.seed for data in reported)) == (TUNING_SEED, 0, 1)
    seen = images(tuning.splits.train, tuning.splits.val)
    for data in reported:
        assert seen == images(data.splits.train)
        assert not seen & images(data.splits.val, data.splits.test)


def test_the_dense_network_is_not_tuned_by_what_prunes():
    grid = parse(["--config", "gru_digits.yaml", "--sparsity", "0.9", *ARGS[:2], "--tune", "pruning.num_samples=8,64"])
    assert {run.cell.method for run in grid.tuning_runs()} == {"Random", "SNIP"}
    assert {run.cell.method for run in grid.runs()} == {"dense"}
