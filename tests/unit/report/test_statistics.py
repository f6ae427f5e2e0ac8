"""Paired differences and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mfas_optuna.report.statistics import PairedDifference, Spread, paired_difference, spread


def test_spread() -> None:
    assert spread([]) is None
    assert spread([0.5]) == Spread(0.5, None, 1)
    of_two = spread([0.4, 0.6])
    assert of_two is not None
    assert of_two.mean == pytest.approx(0.5)
    assert of_two.std == pytest.approx(0.02**0.5)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    ours, other = generator.normal(0.8, 0.01, 10), generator.normal(0.79, 0.01, 10)
    found = paired_difference(dict(enumerate(ours)), {**dict(enumerate(other)), 99: 0.1})
    expected = stats.ttest_rel(ours, other).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(float(np.mean(ours - other)))
    assert found.seeds == tuple(range(10))


def test_two_pairs_and_fewer() -> None:
    two = paired_difference({0: 0.6, 1: 0.8}, {0: 0.5, 1: 0.6})
    assert two is not None
    # The quantile of one degree of freedom is 12.706; the deviation of 0.1 and 0.2, over the root of 2, is 0.05.
    assert two.low == pytest.approx(0.15 - 12.7062 * 0.05, abs=1e-5)
    assert two.high == pytest.approx(0.15 + 12.7062 * 0.05, abs=1e-5)
    assert paired_difference({0: 0.6, 1: 0.8}, {1: 0.5}) == PairedDifference(pytest.approx(0.3), None, None, (1,))
    assert paired_difference({0: 0.6}, {1: 0.5}) is None


def test_where_an_interval_lies() -> None:
    above, below = PairedDifference(0.2, 0.1, 0.3, (0, 1)), PairedDifference(-0.2, -0.3, -0.1, (0, 1))
    around, of_one = PairedDifference(0.2, 0.0, 0.4, (0, 1)), PairedDifference(0.2, None, None, (0,))
    assert [each.is_above for each in (above, below, around, of_one)] == [True, False, False, False]
    assert [each.is_below for each in (above, below, around, of_one)] == [False, True, False, False]
    assert above.reversed() == below
    assert of_one.reversed() == PairedDifference(-0.2, None, None, (0,))
