"""What is known of the features before any network was trained: how well linear probes predict from them.

It goes into the surrogate as numbers beside what an architecture is made of, and it orders candidates where there are
too many to predict, or no scores to predict from. It never rules a network out.

Shapes: V values of all indices of a layer (`SearchSpace.layer_radices`); C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfas_optuna.space import Architecture, SearchSpace


@dataclass(frozen=True)
class Prior:
    """Scores of linear probes.

    Attributes:
        scores: For each modality, the score of the probe of each choice of the space, in its order.
    """

    scores: Mapping[str, Sequence[float]]

    def values(self, space: SearchSpace) -> NDArray[np.float64]:
        """Return the score of each value, (V,): standardised over the choices of all modalities, 0 of other indices."""
        of_choices = np.concatenate([np.asarray(self.scores[modality], dtype=np.float64) for modality in space.choices])
        deviation = float(of_choices.std())
        standard = (of_choices - of_choices.mean()) / deviation if deviation > 0 else np.zeros_like(of_choices)
        return np.concatenate([standard, np.zeros(sum(space.layer_radices) - len(standard))])

    def of_architectures(self, space: SearchSpace, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return for each architecture the highest standardised score of what any layer takes of a modality, its mean
        over modalities, (C,)."""
        values_V, first = self.values(space), np.cumsum([0, *(len(choices) for choices in space.choices.values())])
        return np.array([
            np.mean([
                max(values_V[first[position] + layer.features[position]] for layer in architecture.layers)
                for position in range(len(space.choices))
            ])
            for architecture in architectures
        ])  # fmt: skip
