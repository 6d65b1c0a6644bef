"""Correlations and regressions, on numbers whose relations are known."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import BayesianRidge

from sparse_rnn.studies import prediction
from sparse_rnn.studies.prediction import correlations, explained

RNG = np.random.default_rng(0)
BASE = RNG.integers(1, 9, size=80) / 3.0
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


def test_what_goes_with_the_baseline_alone_has_nothing_beyond_it_whatever_its_shape():
    found = correlations(FEATURES, REACHED, "base")
    assert found["own"].beyond.low > 0.8
    for name in ("base", "scaled", "constant"):
        assert np.isnan(found[name].beyond.value)
    curve = 1 - 1 / BASE + 0.05 * RNG.normal(size=80)
    found = correlations({"base": BASE, "bent": BASE**3 + RNG.normal(size=80)}, curve, "base")
    assert found["bent"].pearson.low > 0.3
    assert found["bent"].beyond.low < 0 < found["bent"].beyond.high


def test_a_partial_correlation_is_that_of_the_regressions_on_a_column_a_value():
    found = correlations(FEATURES, REACHED, "base")["own"].beyond
    values = np.unique(BASE)
    columns = (BASE[:, None] == values).astype(float)
    x, y = (v - columns @ np.linalg.lstsq(columns, v, rcond=None)[0] for v in (FEATURES["own"], REACHED))
    expected = stats.pearsonr(x, y).statistic
    half = stats.norm.ppf(0.975) / np.sqrt(80 - (len(values) - 1) - 3)
    assert found.value == pytest.approx(expected)
    assert (found.low, found.high) == pytest.approx(tuple(np.tanh(np.arctanh(expected) + np.array([-half, half]))))


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
    assert importance["own"] > 0.2 > importance["constant"] == 0


def test_a_baseline_that_bends_is_no_gain_of_the_other_features():
    curve = 1 - 1 / (0.2 + BASE) + 0.02 * RNG.normal(size=80)
    found = explained({"base": BASE, "bent": 1 / (0.2 + BASE)}, curve, "base")
    for each in found.values():
        assert each.base.value > 0.95
        assert each.gain.high < 0.05


def test_r_squared_is_of_the_variance_of_all_networks():
    # Two groups far apart: within a fold of few networks the variance is an accident, and R² would have no bound below.
    far = np.repeat([0.0, 1.0], [38, 2]) + 0.01 * RNG.normal(size=40)
    found = explained({"base": far, "noise": RNG.normal(size=40)}, far + 0.01 * RNG.normal(size=40), "base")
    for each in found.values():
        assert 0 < each.base.value < each.base.high <= 1.2


def test_the_interval_of_a_gain_narrows_with_repetitions_but_not_to_nothing(monkeypatch):
    monkeypatch.setattr(prediction, "REGRESSIONS", {prediction.FOREST: BayesianRidge})
    widths = []
    for repeats in (1, 3, 30):
        monkeypatch.setattr(prediction, "REPEATS", repeats)
        gain = explained(FEATURES, REACHED, "base")[prediction.FOREST].gain
        widths.append(gain.high - gain.low)
    assert gain.low > 0
    assert widths[0] > widths[1] > widths[2] > 0.7 * widths[1]


def test_few_networks_and_equal_ones_are_not_fitted():
    assert explained({"base": [1, 2, 3]}, [1, 2, 3], "base") == {}
    assert explained({"base": range(20)}, [0.5] * 20, "base") == {}
