"""Whether the surrogate guides the search: how it ranked networks it had not seen, and how sharply it chose.

Source: not in the paper; docs/decisions/0020-surrogate-health.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MIN_PAIRS = 4
"""Of fewer networks no rank correlation is given: even of four, chance alone gives a perfect one in 24 cases."""
NEAR_UNIFORM_FRACTION = 0.8
"""A choice is near uniform when more than this part of the candidates is in effect; uniform is 1."""


@dataclass(frozen=True, slots=True)
class StepHealth:
    """How the surrogate did in one step.

    Attributes:
        rank_correlation: Spearman's, between predicted and measured scores of the step's networks that nobody had
            evaluated before, -1 to 1; None for fewer than MIN_PAIRS, or where either does not differ.
        n_unseen: How many networks it is measured on.
        predicted_std: Standard deviation of the predictions over all candidates, in units of the score.
        n_candidates: Among how many networks the step chose.
        n_effective: exp of the entropy of the probabilities: among how many it chose in effect, 1 to `n_candidates`.
        is_near_uniform: Whether it might almost as well have drawn at random.
    """

    rank_correlation: float | None
    n_unseen: int
    predicted_std: float
    n_candidates: int
    n_effective: float
    is_near_uniform: bool


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation of predicted and measured scores; equal values share their mean rank.

    Args:
        pairs: Predicted and measured score of each network.

    Returns:
        The correlation, -1 to 1; None for fewer than MIN_PAIRS networks, or where one of the two does not differ.
    """
    if len(pairs) < MIN_PAIRS:
        return None
    predicted_N, measured_N = (_centred_ranks(values) for values in zip(*pairs, strict=True))
    scale = math.sqrt(float(predicted_N @ predicted_N) * float(measured_N @ measured_N))
    return float(predicted_N @ measured_N) / scale if scale else None


def _centred_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return ranks less their mean; equal values get the mean of the ranks that they take up."""
    _, which_N, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[which_N] - (len(values) + 1) / 2)


def is_near_uniform(n_effective: float, n_candidates: int, n_sampled: int) -> bool:
    """Return whether a choice of `n_sampled` networks is near uniform; it is none where all candidates are taken."""
    return n_candidates > n_sampled and n_effective > NEAR_UNIFORM_FRACTION * n_candidates


def remedy(mode: Literal["calibrated", "paper"]) -> str:
    """Return what a user can do about a near-uniform choice."""
    if mode == "paper":
        return "Mode paper is known for it (docs/decisions/0001-sampling-probability.md): use mode calibrated."
    return "Lower temperature_max; where predictions do not differ at all, see whether the scores do."
