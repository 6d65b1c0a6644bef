"""Correlations and regressions, on numbers whose relations are known."""

import numpy as np
import pytest
from scipy import stats

from sparse_rnn.studies import prediction
from sparse_rnn.studies.prediction import correlations, explained

RNG = np.random.default_rng(0)
BASE = RNG.normal(size=80)
FEATURES = {
    "base": BASE,
    "follows": BASE + 0.3 * RNG.normal(size=80),
    "own": RNG.normal(size=80),
    "constant": np.full(80, 0.1),
    "scaled": 3 * BASE + 1,
}
REACHED = BASE + FEATURES["own"] + 0.2 * RNG.normal(size=80)


def test_correlations_and_their_intervals_are_those_of_scipy():
    found = correlations(FEATURES, REACHED, "base")
    for name in ("base", "follows", "own"):
        expected = stats.pearsonr(FEATURES[name], REACHED)
        low, high = expected.confidence_interval(0.95)
        assert found[name].pearson.value == pytest.approx(expected.statistic)
        assert (found[name].pearson.low, found[name].pearson.high) == pytest.approx((low, high))
        assert found[name].spearman.value == pytest.approx(stats.spearmanr(FEATURES[name], REACHED).statistic)
    assert np.isnan(found["constant"].pearson.value)
    assert str(found["constant"].pearson) == "none"


def test_what_goes_with_the_baseline_alone_has_nothing_beyond_it():
    found = correlations(FEATURES, REACHED, "base")
    assert found["follows"].pearson.low > 0.3
    assert found["follows"].beyond.low < 0 < found["follows"].beyond.high
    assert found["own"].beyond.low > 0.8
    assert np.isnan(found["base"].beyond.value)
    assert np.isnan(found["scaled"].beyond.value)


def test_a_partial_correlation_is_that_of_the_inverse_of_the_correlations():
    found = correlations(FEATURES, REACHED, "base")
    inverse = np.linalg.inv(np.corrcoef([FEATURES["own"], REACHED, FEATURES["base"]]))
    assert found["own"].beyond.value == pytest.approx(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))


def test_regressions_tell_what_a_baseline_leaves():
    found = explained(FEATURES, REACHED, "base")
    assert list(found) == ["Bayesian ridge", "random forest", "AdaBoost"]
    for each in found.values():
        assert each.every.value > 0.7
        assert each.base.value < 0.6
        assert each.gain.value == pytest.approx(each.every.value - each.base.value)
        assert each.gain.low < each.gain.value < each.gain.high
    linear = found["Bayesian ridge"]
    assert linear.every.value == pytest.approx(1 - 0.04 / np.var(REACHED), abs=0.05)
    assert linear.every.high > linear.every.value > linear.every.low
    importance = found["random forest"].importance
    assert importance["own"] > 0.3 > importance["constant"] == 0


def test_the_interval_of_a_gain_narrows_with_repetitions_but_not_to_nothing(monkeypatch):
    monkeypatch.setattr(prediction, "REGRESSIONS", {"Bayesian ridge": prediction.REGRESSIONS["Bayesian ridge"]})
    widths = []
    for repeats in (1, 3, 30):
        monkeypatch.setattr(prediction, "REPEATS", repeats)
        gain = explained(FEATURES, REACHED, "base")["Bayesian ridge"].gain
        widths.append(gain.high - gain.low)
    assert gain.low > 0
    assert widths[0] > widths[1] > widths[2] > 0.7 * widths[1]


def test_few_networks_and_equal_ones_are_not_fitted():
    assert explained({"base": [1, 2, 3]}, [1, 2, 3], "base") == {}
    assert explained({"base": range(20)}, [0.5] * 20, "base") == {}
