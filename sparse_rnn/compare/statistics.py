"""What several seeds tell: means, and paired differences with their confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95
_ROUNDING = 1e-5  # of a metric, which is a mean of many batches in single precision


@dataclass(frozen=True)
class Difference:
    """A mean difference over pairs of runs of the same seed, and its confidence interval.

    Args:
        mean: The mean.
        low: The lower end; nan where there are fewer than two pairs, or all of them differ by the same.
        high: The upper end.
        pairs: Number of pairs.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.low > 0 or self.high < 0

    @property
    def is_without_spread(self) -> bool:
        """Whether several pairs differ by the same, which says nothing of how much others would differ by."""
        return self.pairs > 1 and math.isfinite(self.mean) and math.isnan(self.low)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and sample standard deviation, nan where there are too few values.

    Example:
        >>> mean_and_sd([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    if not values:
        return np.nan, np.nan
    with np.errstate(invalid="ignore"):  # a diverged run logs inf
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def half_width(pairs: int) -> float:
    """Give how many standard deviations of the differences an interval reaches to either side of their mean.

    Example:
        >>> [round(half_width(pairs), 1) for pairs in (2, 3, 5, 10)]
        [9.0, 2.5, 1.2, 0.7]
    """
    return float(t.ppf((1 + CONFIDENCE) / 2, pairs - 1)) / pairs**0.5


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare two sets of runs, seed by seed, by Student's t of their differences.

    Equal differences, as a metric of few values has by chance, would give an interval of no width, which is none.

    Args:
        values: Seed to value.
        reference: What is subtracted; seeds that one of both lacks do not count.

    Returns:
        The difference; None where no seed is in both.

    Example:
        >>> paired_difference({0: 2.0, 1: 4.0, 2: 9.0}, {0: 1.0, 1: 2.0})
        Difference(mean=1.5, low=-4.853102368087347, high=7.853102368087347, pairs=2)
    """
    seeds = [seed for seed in values if seed in reference]
    if not seeds:
        return None
    mean, sd = mean_and_sd([values[seed] - reference[seed] for seed in seeds])
    largest = max(abs(value) for seed in seeds for value in (values[seed], reference[seed]))
    half = half_width(len(seeds)) * sd if sd > _ROUNDING * largest else np.nan
    return Difference(mean, float(mean - half), float(mean + half), len(seeds))
