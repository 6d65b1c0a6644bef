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
    found = paired_difference({0: 5.0, 1: 1.0, 2: 3.5}, {1: 0.0, 2: 2.0, 7: 9.0})
    reach = stats.t.ppf(0.975, 1) * 0.25
    assert (found.mean, found.pairs) == (1.25, 2)
    assert (found.low, found.high) == pytest.approx((1.25 - reach, 1.25 + reach))
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("values", [{0: 3.0}, {0: math.inf, 1: 2.0}, {0: math.nan, 1: 2.0}])
def test_one_pair_or_a_diverged_run_gives_no_interval(values):
    found = paired_difference(values, {0: 1.0, 1: 1.0})
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.excludes_zero
    assert not found.is_without_spread


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("images", [1, 0])
def test_equal_differences_have_no_interval_however_their_values_were_rounded(seeds, images):
    """Errors of 270 images, in percent and single precision, and a loss that was summed in another order."""
    wrong = np.arange(seeds) * 7 + 3
    reference = (100 * wrong.astype(np.float32) / 270).astype(np.float32)
    values = 100 * (wrong + images).astype(np.float32) / np.float32(270) * np.float32(1 + 2e-7)
    found = paired_difference(*(dict(enumerate(map(float, of))) for of in (values, reference)))
    assert found.mean == pytest.approx(images / 2.7, abs=1e-4)
    assert (math.isnan(found.low), math.isnan(found.high), found.pairs) == (True, True, seeds)
    assert found.is_without_spread
    assert not found.excludes_zero


def test_two_pairs_have_the_wide_interval_of_one_degree_of_freedom():
    """An image more or less of 10,000 is a spread."""
    for other, differs in ((1.01, True), (1.2, False)):
        found = paired_difference({0: 2.0, 1: 1 + other}, {0: 1.0, 1: 1.0})
        assert found.high - found.low == pytest.approx(stats.t.ppf(0.975, 1) * (other - 1))
        assert (found.excludes_zero, found.is_without_spread) == (differs, False)


def test_mean_and_sd_of_few_values():
    assert mean_and_sd([1.0, 2.0, 6.0]) == pytest.approx((3, 7**0.5))
    assert np.isnan(mean_and_sd([1.0])[1])
    assert np.isnan(mean_and_sd([])).all()
