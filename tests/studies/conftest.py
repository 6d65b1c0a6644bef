from functools import partial

import pytest
from sklearn.ensemble import RandomForestRegressor

from sparse_rnn.cli import graph_study, pruning_study
from sparse_rnn.compare.grid import DENSE
from sparse_rnn.compare.results import Result
from sparse_rnn.sparsity.graphs import LayeredGraph
from sparse_rnn.studies import prediction


@pytest.fixture
def invented(tmp_path):
    """Gives a study on digits, and a result for each run, from a function of run and epoch to the error."""

    def invented(error, *args, name="val/error"):
        args = ["--config", "gru_digits.yaml", "--cells", "model.cell=gru,lstm", "--output", str(tmp_path), *args]
        study = pruning_study.parse(args)

        def result(run):
            epochs = range(1, 3) if run.cell.method == DENSE else range(study.epochs + 1)
            history = [{"epoch": float(epoch), "step": 10 * epoch, name: error(run, epoch)} for epoch in epochs]
            return Result(run, {name: history[-1][name]}, 2.0, [], f"commit {run.seed}", 20, "last.ckpt", history)

        return study, [result(run) for run in study.runs()]

    return invented


@pytest.fixture
def invented_graphs(tmp_path):
    """Gives a graph study, and a result for each run, from a function of run and number of sources to the error."""

    def invented(error, *args):
        study = graph_study.parse(["--count", "24", "--cells", "model.cell=gru,lstm", "--output", str(tmp_path), *args])

        def result(run):
            metrics = {"val/error": error(run, LayeredGraph.of(study.graph(run)).sizes[0])}
            return Result(run, metrics, 2.0, [], f"commit {run.seed}", 20, "last.ckpt", [{"epoch": 1.0, **metrics}])

        return study, [result(run) for run in study.runs()]

    return invented


@pytest.fixture(autouse=True)
def _quick_regressions(monkeypatch):
    monkeypatch.setattr(prediction, "REPEATS", 1)
    small = partial(RandomForestRegressor, n_estimators=20, random_state=0)
    monkeypatch.setitem(prediction.REGRESSIONS, prediction.FOREST, small)
