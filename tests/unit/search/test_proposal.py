"""Probabilities, and the draw without replacement."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mfas_optuna.search import proposal
from mfas_optuna.search.temperature import TemperatureSchedule


def test_paper_probabilities_are_the_power_of_clipped_scores() -> None:
    predicted = np.array([0.5, 0.25, -0.1, 1.7])
    weights = [0.5**0.5, 0.25**0.5, 1e-6**0.5, 1.0]
    found = proposal.probabilities(proposal.log_weights_paper(predicted, 2.0))
    assert found == pytest.approx([weight / sum(weights) for weight in weights])


def test_paper_probabilities_hardly_differ_at_a_high_temperature() -> None:
    """Why mode calibrated exists: scores of 0.6 to 0.9 are nearly alike to the power 1/9.4."""
    log_weights = proposal.log_weights_paper(np.linspace(0.6, 0.9, 900), 9.4)
    best_tenth = proposal.probabilities(log_weights)[-90:].sum()
    assert 0.100 < best_tenth < 0.105


def test_calibrated_probabilities_know_neither_scale_nor_offset() -> None:
    predicted = np.array([0.1, 0.5, 0.4, 0.9])
    found = proposal.log_weights_calibrated(predicted, 0.5)
    assert proposal.log_weights_calibrated(1000 * predicted - 7, 0.5) == pytest.approx(found)
    assert found[3] - found[0] == pytest.approx(0.8 / predicted.std() / 0.5)


def test_calibrated_probabilities_of_equal_predictions_are_equal() -> None:
    assert proposal.log_weights_calibrated(np.full(5, 0.7), 0.1).tolist() == [0.0] * 5


@pytest.mark.parametrize(("log_weights", "expected"), [([0.0] * 8, 8.0), ([0.0, -1e9, -1e9], 1.0)])
def test_effective_choices(log_weights: list[float], expected: float) -> None:
    assert proposal.effective_choices(np.array(log_weights)) == pytest.approx(expected)


def test_order_is_a_permutation_and_follows_the_seed() -> None:
    log_weights = np.log(np.arange(1, 21) / 210)
    order = proposal.sampling_order(log_weights, seed=3, length=50)
    assert sorted(order) == list(range(20))
    assert proposal.sampling_order(log_weights, seed=3, length=5) == order[:5]
    assert proposal.sampling_order(log_weights, seed=4, length=50) != order


def test_order_is_that_of_successive_draws() -> None:
    """Chi-squared test of all 20 ordered pairs of 5 unequal candidates, 19 degrees of freedom.

    4,000 fixed seeds. The critical value 43.8 has a false-alarm rate of 0.1 % (the seeds are fixed, so the test
    either always passes or never). An order that ignored the weights would score above 1,000; one whose second draw
    ignored them, above 100.
    """
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    n = 4000
    counts = dict.fromkeys(itertools.permutations(range(5), 2), 0)
    for seed in range(n):
        first, second = proposal.sampling_order(np.log(p), seed=seed, length=2)
        counts[first, second] += 1
    chi_squared = 0.0
    for (first, second), count in counts.items():
        expected = n * p[first] * p[second] / (1 - p[first])
        chi_squared += (count - expected) ** 2 / expected
    assert chi_squared < 43.8


def test_seed_from_is_the_same_in_every_process() -> None:
    assert proposal.seed_from(0, "plan", 1, 2) == 5_375_133_016_621_980_251
    assert proposal.seed_from(1, "2") != proposal.seed_from(12)


def test_temperature_falls_from_maximum_to_minimum() -> None:
    schedule = TemperatureSchedule(10.0, 0.2, 4.0)
    assert schedule.at(0) == 10.0
    assert schedule.at(4) == pytest.approx(9.8 / math.e + 0.2)
    values = [schedule.at(step) for step in range(30)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.2)
