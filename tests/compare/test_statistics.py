import math

import numpy as np
import pytest
from scipy import stats

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference


def test_the_interval_is_that_of_the_paired_t_test():
    draw = np.random.default_rng(0)
    first, second = draw.normal(2, 1, 7), draw.normal(1, 1, 7)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(first - second), interval.low, interval.high))
    assert found.pairs == 7
    assert found.excludes_zero == (expected.pvalue < 0.05)


def test_only_seeds_of_both_count():
    found = paired_difference({0: 5.0, 1: 1.0, 2: 3.0}, {1: 0.0, 2: 2.0, 7: 9.0})
    assert (found.mean, found.low, found.high, found.pairs) == (1.0, 1.0, 1.0, 2)
    assert found.excludes_zero
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("values", [{0: 3.0}, {0: math.inf, 1: 2.0}, {0: math.nan, 1: 2.0}])
def test_one_pair_or_a_diverged_run_gives_no_interval(values):
    found = paired_difference(values, {0: 1.0, 1: 1.0})
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.excludes_zero


def test_mean_and_sd_of_few_values():
    assert mean_and_sd([1.0, 2.0, 6.0]) == pytest.approx((3, 7**0.5))
    assert np.isnan(mean_and_sd([1.0])[1])
    assert np.isnan(mean_and_sd([])).all()
