"""Algorithm 1 of the paper as plain nested loops: the oracle of `mfas_optuna.search` in mode paper.

An architecture is a tuple of layers, a layer a tuple of 0-based indices, the activation's last. What the paper leaves
open is given by the caller: the temperature, the noise of sampleK, and the surrogate, of which two functions are
needed. The temperature is updated after every step, depth 1 among them (docs/decisions/0002-temperature.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

Layer = tuple[int, ...]
Network = tuple[Layer, ...]


class Trained(NamedTuple):
    """One trained network: 0-based iteration, depth, network, score."""

    iteration: int
    depth: int
    network: Network
    score: float


class SurrogateLike(Protocol):
    """What Algorithm 1 needs of pi."""

    def update(self, networks: Sequence[Network], scores: Sequence[float]) -> None: ...

    def predict(self, networks: Sequence[Network]) -> list[float]: ...


def search(
    gamma: Sequence[Layer],
    evaluate: Callable[[Network], float],
    surrogate: SurrogateLike,
    temperature: Callable[[int], float],
    gamma_1_order: Callable[[int], Sequence[int]],
    noise: Callable[[int, int, int], Sequence[float]],
    *,
    n_iterations: int,
    max_depth: int,
    k: int,
) -> list[Trained]:
    """Run lines 8 to 29 and return everything that was trained, in order.

    Args:
        gamma: All fusion layers.
        evaluate: Lines 12 to 14 and 22 to 24 for one network.
        surrogate: pi.
        temperature: T after a number of updates.
        gamma_1_order: In which order iteration e trains the networks of depth 1, as positions in `gamma`.
        noise: Gumbel noise for (iteration, depth, number of candidates).
        n_iterations: E_search.
        max_depth: L.
        k: K.
    """
    n_updates = 0
    everything: list[Trained] = []
    for e in range(n_iterations):
        sampled: list[Network] = [(gamma[position],) for position in gamma_1_order(e)]
        for depth in range(1, max_depth + 1):
            if depth > 1:
                candidates = [(*network, layer) for network in sorted(sampled) for layer in gamma]
                predicted = surrogate.predict(candidates)
                t = temperature(n_updates)
                weights = [min(max(score, 1e-6), 1.0) ** (1.0 / t) for score in predicted]
                total = sum(weights)
                keys = [
                    math.log(weight / total) + g
                    for weight, g in zip(weights, noise(e, depth, len(candidates)), strict=True)
                ]
                best = sorted(range(len(candidates)), key=lambda i: -keys[i])[:k]
                sampled = [candidates[i] for i in best]
            scores = [evaluate(network) for network in sampled]
            everything += [Trained(e, depth, network, score) for network, score in zip(sampled, scores, strict=True)]
            surrogate.update(sampled, scores)
            n_updates += 1
    return everything
