import copy
import pickle
from datetime import timedelta

import pytest

from sparse_rnn.callbacks import (
    DynamicEvaluation,
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
    PredictionFile,
    PruningCallback,
    RateByFanIn,
    SparseCheckpoint,
    SparsityMonitor,
    StructuredPruning,
    UnitLasso,
)
from sparse_rnn.pruning.schedules import CosineDecay, Cubic
from sparse_rnn.scores import SNIP, GraSP, JacobianSpectrum
from sparse_rnn.scores.graph import Graph

CALLS = {
    "OneShotPruning(sparsity=0.95, criterion='jacobian')": OneShotPruning(),
    "OneShotPruning(sparsity=0.9, criterion=SNIP(gamma='author'), allocation='erk')": OneShotPruning(
        0.9, SNIP(gamma="author"), allocation="erk"
    ),
    "GradualPruning(sparsity=0.95, schedule=Cubic(begin=0, end=0.7, frequency=100, initial_sparsity=0.0), "
    "criterion='magnitude')": GradualPruning(schedule=Cubic(end=0.7)),
    "IterativePruning(sparsity=0.95, every=3, criterion='magnitude')": IterativePruning(every=3),
    "LotteryTicket(sparsity=0.95, rounds=2, criterion='magnitude')": LotteryTicket(rounds=2),
    "DynamicSparsity(growth='random', schedule=CosineDecay(drop=0.3, every=5, end=0.75), sparsity=0.95, "
    "criterion='jacobian')": DynamicSparsity("random", CosineDecay(every=5)),
    "NarangPruning(q=0.2)": NarangPruning(q=0.2),
    "SparsityMonitor()": SparsityMonitor(),
    "SparsityMonitor(every_n_steps=5, histograms=True)": SparsityMonitor(5, histograms=True),
    "SparseCheckpoint(monitor='val/error', mode='max', save_last=False, every_n_train_steps=5)": SparseCheckpoint(
        monitor="val/error", mode="max", save_last=False, every_n_train_steps=5
    ),
    "SparseCheckpoint(train_time_interval=datetime.timedelta(seconds=60))": SparseCheckpoint(
        train_time_interval=timedelta(minutes=1)
    ),
    "UnitLasso(strength=0.1)": UnitLasso(0.1),
    "PredictionFile(path='a.csv')": PredictionFile("a.csv"),
    "DynamicEvaluation(lr=0.1, decay=0.2)": DynamicEvaluation(0.1, decay=0.2),
    "RateByFanIn()": RateByFanIn(),
    "SNIP()": SNIP(),
    "GraSP(temperature=1.0)": GraSP(1.0),
    "JacobianSpectrum()": JacobianSpectrum(),
    "JacobianSpectrum(draws=8, variant='paper')": JacobianSpectrum.paper(draws=8),
    "Graph(family='ring', k=4)": Graph("ring", k=4),
}


@pytest.mark.parametrize(("call", "made"), CALLS.items(), ids=CALLS)
def test_callbacks_and_criteria_say_what_they_do_and_so_do_their_copies(call, made):
    def spaceless(text):
        return sorted(text.replace(")", "").replace("(", ", ").split(", "))

    assert spaceless(repr(made)) == spaceless(call)  # options of a parent class may come in its order
    assert repr(copy.deepcopy(made)) == repr(pickle.loads(pickle.dumps(made))) == repr(made)


def test_a_criterion_for_units_is_shown_with_its_options():
    assert repr(StructuredPruning(0.25)).startswith("StructuredPruning(criterion=Spectral(units=0.25, ")


class Threshold(PruningCallback):
    """Somebody's own."""

    def __init__(self, threshold, **options):
        super().__init__(**options)

    def find_masks(self, trainer, pl_module):
        raise NotImplementedError


def test_a_callback_of_one_s_own_is_shown_with_what_it_hands_on():
    made = Threshold(0.1, kernels=["*hh*"])
    assert made.kernels == ["*hh*"]
    assert sorted(repr(made)[:-1].partition("(")[2].split(", ")) == ["kernels=['*hh*']", "threshold=0.1"]
    with pytest.raises(TypeError, match="threshold"):
        Threshold()
