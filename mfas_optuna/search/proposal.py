"""From predicted scores to an order in which candidates are tried (Algorithm 1, lines 18 to 21).

Symbols: C candidates; P_l probabilities; T temperature.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCORE = 1e-6
"""Predictions are clipped to [SMALLEST_SCORE, 1] before the paper's power is taken."""


def seed_from(*parts: int | str) -> int:
    """Return a 63-bit seed hashed from its parts; the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def log_weights_paper(predicted_C: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return log p up to a constant with p proportional to A^(1/T), predictions clipped to [1e-6, 1].

    Source: MFAS leaves computeProbs open; docs/decisions/0001-sampling-probability.md.
    """
    return np.asarray(np.log(np.clip(predicted_C, SMALLEST_SCORE, 1.0)) / temperature)


def log_weights_calibrated(predicted_C: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return log p up to a constant: a softmax of the standardised predictions at temperature T.

    Predictions that do not differ give equal weights.
    """
    deviation = float(predicted_C.std())
    if not deviation > 1e-12:
        return np.zeros_like(predicted_C)
    return np.asarray((predicted_C - predicted_C.mean()) / deviation / temperature)


def probabilities(log_weights_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P_l: weights normalised to sum to 1."""
    shifted = np.exp(log_weights_C - log_weights_C.max())
    return np.asarray(shifted / shifted.sum())


def effective_choices(log_weights_C: NDArray[np.float64]) -> float:
    """Return exp of the entropy of P_l: among how many candidates the choice is really made, 1 to C."""
    p = probabilities(log_weights_C)
    positive = p[p > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def sampling_order(log_weights_C: NDArray[np.float64], seed: int, length: int) -> list[int]:
    """Return the first `length` positions of a draw without replacement with P_l (sampleK).

    Gumbel-top-k: adding independent Gumbel noise to log p and sorting gives exactly the order of successive draws
    without replacement (Vieira 2014; Kool et al. 2019).
    """
    noise = np.random.default_rng(seed).gumbel(size=len(log_weights_C))
    order = np.argsort(-(log_weights_C + noise), kind="stable")
    return [int(position) for position in order[:length]]
