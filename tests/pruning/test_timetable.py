"""Moments and intervals of schedules, in steps and in shares of the training."""

from math import inf

import numpy as np
import pytest

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.schedules import Cubic, IterativeSteps, NarangRamp


def test_shares_of_the_training_become_steps_and_steps_stay():
    assert Cubic(0.1, 0.5, 0.01).over(1000) == Cubic(100, 500, 10)
    assert Cubic(7, 1.0, 3).over(1000) == Cubic(7, 1000, 3)
    assert IterativeSteps(every=0.001).over(100).every == 1
    assert NarangRamp().over(10_000) == NarangRamp(500, 2500, 5000, 100)
    assert Cubic(1, 2, 3).over(inf) == Cubic(1, 2, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cubic(end=1.5), r"end=1.5: give a whole number of steps, at least 0, or a share"),
        (lambda: Cubic(begin=-1), r"begin=-1: give"),
        (lambda: Cubic(frequency=0), r"frequency=0: give a whole number of steps, at least 1,"),
        (lambda: Cubic(begin=0.6, end=0.5), r"begin=0.6 lies after end=0.5"),
        (lambda: Cubic(begin=60, end=0.5).over(100), r"begin=60 lies after end=50"),
        (lambda: Cubic(end=0.5).over(inf), r"end=0.5 is a share of the training, which has no end"),
    ],
)
def test_moments_that_make_no_sense_are_refused_in_a_sentence(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_whole_numbers_of_numpy_are_steps():
    steps = Cubic(begin=np.int64(0), end=np.int64(500), frequency=np.int32(100)).over(1000)
    assert steps == Cubic(begin=0, end=500, frequency=100)
    with pytest.raises(UsageError, match="lies after"):
        Cubic(begin=np.int64(600), end=500)
