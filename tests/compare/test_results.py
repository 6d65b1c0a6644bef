import json
import math

import pytest

from sparse_rnn.compare.grid import Cell, Run
from sparse_rnn.compare.results import Result, by, by_seed, decimals_of, loss_of, metric, read_result
from sparse_rnn.errors import UsageError

RUN = Run(Cell("Random", 0.9, (("model.cell", "gru"),)), 1, (("lr", "0.1"),), "final")


def result(run=RUN, **metrics):
    history = [{"epoch": e, "step": 10 * e, "val/error": v} for e, v in ((1, 4.0), (2, math.nan), (3, 2.0), (4, 2.5))]
    return Result(run, metrics, 1.5, ["a"], "a machine", 40, "last.ckpt", history)


def test_what_is_written_is_read(tmp_path):
    assert read_result(tmp_path) is None
    result(**{"val/error": 2.5}).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    read = read_result(tmp_path)
    assert read.run == RUN
    assert {RUN: 1}[read.run] == 1  # of the same type: it finds its cell
    assert (read.metrics, read.settings, read.validated) == ({"val/error": 2.5}, ["a"], 40)


def test_a_result_of_another_version_is_said(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"run": {"method": "Random", "sparsity": 0.9, "seed": 0}, "metrics": {}}))
    with pytest.raises(UsageError, match="another version"):
        read_result(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"run": '])
def test_a_result_that_is_not_whole_is_said(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UsageError, match="is not whole: delete"):
        read_result(tmp_path)


def test_runs_that_log_nothing_in_common_are_said():
    with pytest.raises(UsageError, match=r"in common \(Random.* logs val/ppl\): give --metric"):
        metric([result(**{"val/error": 1.0}), result(**{"val/ppl": 1.0})])


def test_the_best_value_has_its_epoch():
    assert result().best("val/error") == (2.0, 3)
    assert result().curve("val/error")[0] == [1, 2, 3, 4]
    assert all(map(math.isnan, result().best("val/ppl")))


@pytest.mark.parametrize(
    ("sparsities", "best"),
    [((0.0, 0.5, 0.9, 0.95), (2.5, 4)), ((0.0, 0.5, 0.95, 0.95), (2.0, 3)), ((0.9,) * 4, (2.0, 3))],
    ids=["only the last", "the last two", "all"],
)
def test_the_best_value_is_that_of_a_network_as_sparse_as_the_last(sparsities, best):
    of_run = result()
    for at, sparsity in zip(of_run.history, sparsities, strict=True):
        at["sparsity/all"] = sparsity
    assert of_run.best("val/error") == best
    assert of_run.curve("val/error")[0] == [1, 2, 3, 4]


def test_the_metric_is_the_best_that_all_have():
    error, loss = result(**{"val/error": 1, "val/loss": 1}), result(**{"val/loss": 1})
    assert [metric(found) for found in ([error], [error, loss], [result(**{"val/ppl": 1})])] == [
        "val/error",
        "val/loss",
        "val/ppl",
    ]


def test_the_metric_that_is_asked_for_goes_before_and_is_not_written(tmp_path):
    logged = result(**{"val/error": 1, "train/ppl_sample": 7.5})
    assert metric([by(logged, "train/ppl_sample")]) == "train/ppl_sample"
    assert metric([by(logged, None)]) == "val/error"
    assert [decimals_of(name) for name in ("val/error", "train/ppl_sample", "val/bpc")] == [2, 2, 4]
    by(logged, "train/ppl_sample").write(tmp_path)
    assert read_result(tmp_path).asked is None
    assert "asked" not in (tmp_path / "result.json").read_text()
    with pytest.raises(UsageError, match=r"--metric val/ppl: Random.* has logged none, but val/error, train/ppl_s"):
        by(logged, "val/ppl")


def test_what_tunes_is_not_reported():
    tuned = result(Run(RUN.cell, 1000, RUN.tuned, "tune"))
    assert list(by_seed([tuned, result()], RUN.cell)) == [1]
    assert by_seed([result()], Cell("Random", 0.95)) == {}


def test_a_run_without_a_number_is_infinitely_bad():
    assert loss_of(result(**{"val/error": math.nan}), "val/error") == math.inf


def test_what_is_no_figure_of_a_validation_is_refused():
    run = Run(Cell("Random", 0.9), 0)
    result = Result(
        run, {"train/loss": 1.0, "val_loss": 2.0}, 1.0, [], "", history=[{"epoch": 1, "step": 3, "val_loss": 2.0}]
    )
    assert by(result, "val_loss").asked == "val_loss"
    with pytest.raises(UsageError, match="--metric train/loss: it is no figure of a validation"):
        by(result, "train/loss")
