"""Means over seeds, and paired differences with their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Of the intervals."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and deviation of some scores.

    Attributes:
        mean: Their mean.
        std: Their sample standard deviation; None of a single one.
        n: How many they are.
    """

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """One method minus another, pair by pair.

    Attributes:
        mean: Mean of the differences.
        low: Lower end of the interval of the mean; None of a single pair.
        high: Its upper end.
        seeds: Of the pairs.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

    @property
    def is_above(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0.0

    @property
    def is_below(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high is not None and self.high < 0.0

    def reversed(self) -> PairedDifference:
        """Return the other method minus the one."""
        if self.low is None or self.high is None:
            return PairedDifference(-self.mean, None, None, self.seeds)
        return PairedDifference(-self.mean, -self.high, -self.low, self.seeds)


def spread(scores: Iterable[float]) -> Spread | None:
    """Return mean and deviation of scores; None of none."""
    values = list(scores)
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(ours: Mapping[int, float], other: Mapping[int, float]) -> PairedDifference | None:
    """Return one method's scores minus another's over the seeds that both have, with Student's interval of the mean.

    Source: docs/decisions/0030-report.md.

    Args:
        ours: Scores by seed.
        other: Scores by seed.

    Returns:
        The difference; without an interval where there is one common seed. None where there is none.
    """
    seeds = sorted(ours.keys() & other.keys())
    differences = spread(ours[seed] - other[seed] for seed in seeds)
    if differences is None:
        return None
    if differences.std is None:
        return PairedDifference(differences.mean, None, None, tuple(seeds))
    quantile = float(stdtrit(differences.n - 1, 0.5 + CONFIDENCE / 2))
    margin = quantile * differences.std / math.sqrt(differences.n)
    return PairedDifference(differences.mean, differences.mean - margin, differences.mean + margin, tuple(seeds))
