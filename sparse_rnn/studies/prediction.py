"""How well properties of graphs predict what networks reach: correlations, and regressions by cross-validation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import RepeatedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sparse_rnn.compare.statistics import CONFIDENCE

FOREST = "random forest"
REGRESSIONS = {
    "Bayesian ridge": BayesianRidge,
    FOREST: lambda: RandomForestRegressor(random_state=0),
    "AdaBoost": lambda: AdaBoostRegressor(random_state=0),
}
FOLDS, REPEATS = 5, 10
FEWEST = 10  # graphs: 2 in each test set


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % confidence interval; nan where there is none."""

    value: float
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        interval = "" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return "none" if np.isnan(self.value) else f"{self.value:.2f}{interval}"


@dataclass(frozen=True)
class Correlation:
    """How a property goes with what the networks reach.

    Args:
        pearson: Pearson's correlation.
        spearman: Spearman's.
        beyond: Pearson's among networks of the same baseline: the partial correlation, given each of its values.
    """

    pearson: Estimate
    spearman: Estimate
    beyond: Estimate


def correlations(
    features: Mapping[str, Sequence[float]], reached: Sequence[float], base: str
) -> dict[str, Correlation]:
    """Correlate each feature with what was reached; intervals by Fisher's transformation.

    Args:
        features: Name to a value for each network.
        reached: What each network reached.
        base: The feature that the partial correlations take out, whatever the shape of what goes with it: a number of
            few different values, such as a count.

    Example:
        >>> found = correlations({"a": [1, 2, 3, 4, 5], "b": [1, 0, 1, 0, 0]}, [1, 2, 3, 4, 6], base="b")
        >>> print(found["a"].pearson, found["a"].beyond)
        0.99 [0.80, 1.00] 0.98 [0.32, 1.00]
    """
    y = np.asarray(reached, dtype=float)
    given, groups = np.unique(features[base], return_inverse=True)
    found = {}
    for name, values in features.items():
        x = np.asarray(values, dtype=float)
        pearson = _fisher(_correlation(x, y), len(y) - 3)
        rank = _correlation(stats.rankdata(x), stats.rankdata(y))
        spearman = _fisher(rank, (len(y) - 3) / (1 + rank**2 / 2))  # Bonett and Wright, 2000
        partial = _correlation(_within(x, groups), _within(y, groups))
        found[name] = Correlation(pearson, spearman, _fisher(partial, len(y) - len(given) - 2))  # a mean a value
    return found


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float(np.clip((x * y).sum() / size, -1, 1)) if size > 1e-12 else np.nan


def _within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Take the mean of its group out of each value."""
    means = np.bincount(groups, values) / np.bincount(groups)
    left = values - means[groups]
    # What is left by rounding only would be correlated with whatever.
    return np.zeros_like(left) if np.abs(left).max() < 1e-9 * (1 + np.abs(values).max()) else left


def _fisher(value: float, freedom: float) -> Estimate:
    if np.isnan(value) or freedom <= 0 or abs(value) == 1:
        return Estimate(value)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) / freedom**0.5
    return Estimate(value, *np.tanh(np.arctanh(value) + np.array([-half, half])).tolist())


@dataclass(frozen=True)
class Explained:
    """R² of a regression on networks that it was not fitted to.

    Args:
        every: By all features.
        base: By one feature alone, whose regression follows any curve: a random forest for all of them.
        gain: How much more all of them explain, on the same networks.
        importance: Mean importance of each feature, where the regression tells one.
    """

    every: Estimate
    base: Estimate
    gain: Estimate
    importance: Mapping[str, float]


def explained(features: Mapping[str, Sequence[float]], reached: Sequence[float], base: str) -> dict[str, Explained]:
    """Predict what was reached from all features and from one alone, by 10 times five-fold cross-validation.

    R² is 1 minus the mean squared error over the variance of all networks, not of those of a fold, which in small folds
    is an accident. The splits are the same for all. Intervals are Student's t with the variance of Nadeau and Bengio
    (2003), who allow for the overlap of the training sets.

    Args:
        features: Name to a value for each network.
        reached: What each network reached.
        base: The feature to be compared with.

    Returns:
        For each regression (Bayesian ridge, random forest, AdaBoost, on features scaled to 0 … 1) its R²; nothing where
        there are fewer than ten networks, or all of them reached the same.
    """
    y = np.asarray(reached, dtype=float)
    if len(y) < FEWEST or np.ptp(y) == 0:
        return {}
    every, alone = np.column_stack(list(features.values())), np.asarray(features[base], dtype=float)[:, None]
    of_alone = np.array([score for score, _ in _cross_validated(REGRESSIONS[FOREST], alone, y)])
    found = {}
    for name, make in REGRESSIONS.items():
        scores, importances = zip(*_cross_validated(make, every, y), strict=True)
        of_every = np.array(scores)
        importance = dict(zip(features, np.mean(importances, axis=0).tolist(), strict=True))
        found[name] = Explained(_corrected(of_every), _corrected(of_alone), _corrected(of_every - of_alone), importance)
    return found


def _cross_validated(make: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Yield R² and the features' importances, split by split."""
    for train, test in RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(x):
        fitted = make_pipeline(MinMaxScaler(), make()).fit(x[train], y[train])
        error = np.mean((y[test] - fitted.predict(x[test])) ** 2)
        with np.errstate(invalid="ignore"):  # where all trees of AdaBoost are stumps without a branch
            importances = getattr(fitted[-1], "feature_importances_", np.full(x.shape[1], np.nan))
        yield float(1 - error / y.var()), importances


def _corrected(scores: np.ndarray) -> Estimate:
    share = 1 / (FOLDS - 1)  # networks tested on to those trained on
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(scores) - 1) * np.sqrt(scores.var(ddof=1) * (1 / len(scores) + share))
    return Estimate(float(scores.mean()), float(scores.mean() - half), float(scores.mean() + half))
