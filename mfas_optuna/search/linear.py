"""The surrogate's linear partner: ridge regression on what an architecture is made of.

An architecture's traits are: each index at its place (layer 2 reads audio feature 3), each index in any layer (some
layer reads audio feature 3), every pair of the former, every pair of the latter, and its depth. Of two architectures
that share m traits of the first kind and s of the second, the inner product over all traits is
m + m (m - 1) / 2 + s + s (s - 1) / 2, and 2 more for equal depth. Where something is known beforehand of what layers
read (`Prior`), its value at each place is a trait too. So the traits need not be written down, and the regression is
solved with one matrix of the size of the data. docs/decisions/0021-what-calibrated-does.md says why it is
there.

Shapes: N architectures with scores; C candidates; Q places, depth times indices a layer; V values of all indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mfas_optuna.space import Architecture, SearchSpace

RIDGE = 1.0
"""Variance of a score's noise, in units of the prior variance of one trait's weight."""


class LinearSurrogate:
    """Predicts scores of architectures of any depth by ridge regression; exact, without a seed."""

    def __init__(self, space: SearchSpace, prior_V: NDArray[np.float64] | None = None) -> None:
        """Keep the space whose architectures are read.

        Args:
            space: The space.
            prior_V: What is known of each value beforehand (`Prior.values`): a further trait of each place.
        """
        self._space = space
        self._radices = space.layer_radices
        self._max_depth = space.max_depth
        self._prior_V = prior_V

    def fit(self, architectures: Sequence[Architecture], scores_N: NDArray[np.float64]) -> None:
        """Fit the regression to the scores, of which there is at least one."""
        self._known = self._traits(architectures)
        self._mean = float(scores_N.mean())
        gram_NN = _inner(self._known, self._known)
        gram_NN[np.diag_indices_from(gram_NN)] += RIDGE
        self._weights_N = np.linalg.solve(gram_NN, scores_N - self._mean)

    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return the predicted score of every architecture, (C,)."""
        return np.asarray(_inner(self._traits(architectures), self._known) @ self._weights_N + self._mean)

    def _traits(self, architectures: Sequence[Architecture]) -> _Traits:
        """Return where each architecture has which value, and which values it has at all."""
        n, n_indices = len(architectures), len(self._radices)
        first_values = np.cumsum([0, *self._radices[:-1]])
        n_values = sum(self._radices)
        placed = np.zeros((n, self._max_depth, n_values), dtype=np.float32)
        depths_N = np.array([architecture.depth for architecture in architectures])
        values = [of_layer for architecture in architectures for of_layer in self._space.layer_values(architecture)]
        rows_R = np.repeat(np.arange(n), depths_N)
        layers_R = np.concatenate([np.arange(depth) for depth in depths_N])
        for index in range(n_indices):
            placed[rows_R, layers_R, np.array(values)[:, index] + first_values[index]] = 1
        known = np.zeros((n, 0)) if self._prior_V is None else self._known_before(placed, self._prior_V)
        return placed.reshape(n, -1), placed.max(axis=1), depths_N, known

    def _known_before(self, placed: NDArray[np.float32], prior_V: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for each place the prior of the value there, (N, Q)."""
        ends = np.cumsum(self._radices)
        weighted = placed * prior_V
        of_indices = [part.sum(axis=2) for part in np.split(weighted, ends[:-1], axis=2)]
        return np.concatenate(of_indices, axis=1)


_Traits = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]


def _inner(one: _Traits, other: _Traits) -> NDArray[np.float64]:
    """Return the inner products over all traits of every architecture with every other."""
    m = (one[0] @ other[0].T).astype(np.float64)
    s = (one[1] @ other[1].T).astype(np.float64)
    same_depth = one[2][:, None] == other[2][None, :]
    return np.asarray(m + m * (m - 1) / 2 + s + s * (s - 1) / 2 + 2.0 * same_depth + one[3] @ other[3].T)
