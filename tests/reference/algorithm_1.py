"""Algorithm 1 of the paper as plain nested loops: the oracle of `mfas_optuna.search` in mode paper.

An architecture is a tuple of layers, a layer a tuple of 0-based indices, the activation's last. What the paper leaves
open is given by the caller: the surrogate, of which two functions are needed, and the noise of sampleK. The formulas of
computeProbs and updateTemperature are those of docs/decisions 0001 and 0002; the temperature is updated after every
step, depth 1 among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

Layer = tuple[int, ...]
Network = tuple[Layer, ...]


class Step(NamedTuple):
    """What one pass through lines 11 to 16, or 18 to 27, worked with.

    Attributes:
        iteration: e, from 0.
        depth: l.
        candidates: S'_l; None at depth 1, as everything that is about choosing among them.
        predicted: A'_l, one for each candidate.
        temperature: T.
        probabilities: P_l, one for each candidate.
        order: All candidates in the order in which they were drawn.
        trained: S_l in the order of training.
        scores: A_l.
    """

    iteration: int
    depth: int
    candidates: list[Network] | None
    predicted: list[float] | None
    temperature: float | None
    probabilities: list[float] | None
    order: list[Network] | None
    trained: list[Network]
    scores: list[float]


class SurrogateLike(Protocol):
    """What Algorithm 1 needs of pi."""

    def update(self, networks: Sequence[Network], scores: Sequence[float]) -> None: ...

    def predict(self, networks: Sequence[Network]) -> list[float]: ...


def temperature_after(n_updates: int, t_max: float, t_min: float, sigma: float) -> float:
    """Return T after a number of updates."""
    return t_min + (t_max - t_min) / math.exp(n_updates**2 / sigma**2)


def search(
    gamma: Sequence[Layer],
    evaluate: Callable[[int, Network], float],
    surrogate: SurrogateLike,
    gamma_1_order: Callable[[int], Sequence[int]],
    noise: Callable[[int, int, int], Sequence[float]],
    *,
    n_iterations: int,
    max_depth: int,
    k: int,
    t_max: float,
    t_min: float,
    sigma: float,
) -> list[Step]:
    """Run lines 8 to 29 and return every step, in order.

    Args:
        gamma: All fusion layers.
        evaluate: Lines 12 to 14 and 22 to 24 for one network, given how many were trained before it.
        surrogate: pi.
        gamma_1_order: In which order iteration e trains the networks of depth 1, as positions in `gamma`.
        noise: Gumbel noise for (iteration, depth, number of candidates).
        n_iterations: E_search.
        max_depth: L.
        k: K.
        t_max: T_max.
        t_min: T_min.
        sigma: Decay of the temperature, in updates.
    """
    n_trained = 0
    steps: list[Step] = []
    for e in range(n_iterations):
        sampled: list[Network] = [(gamma[position],) for position in gamma_1_order(e)]
        for depth in range(1, max_depth + 1):
            candidates = predicted = temperature = probabilities = order = None
            if depth > 1:
                candidates = [(*network, layer) for network in sorted(sampled) for layer in gamma]
                predicted = surrogate.predict(candidates)
                temperature = temperature_after(len(steps), t_max, t_min, sigma)
                powers = [min(max(score, 1e-6), 1.0) ** (1.0 / temperature) for score in predicted]
                probabilities = [power / sum(powers) for power in powers]
                gumbel = noise(e, depth, len(candidates))
                keys = [math.log(p) + g for p, g in zip(probabilities, gumbel, strict=True)]
                order = [candidates[i] for i in sorted(range(len(candidates)), key=lambda i: -keys[i])]
                sampled = order[:k]
            scores = []
            for network in sampled:
                scores.append(evaluate(n_trained, network))
                n_trained += 1
            surrogate.update(sampled, scores)
            steps.append(
                Step(e, depth, candidates, predicted, temperature, probabilities, order, list(sampled), scores)
            )
    return steps


def top_k(steps: Sequence[Step], k: int) -> list[tuple[Network, float]]:
    """Return the best K of all trained networks with their scores, best first (line 29, return).

    A network that was trained in several iterations counts once, with its best score (docs/decisions 0005).
    """
    best: dict[Network, float] = {}
    for step in steps:
        for network, score in zip(step.trained, step.scores, strict=True):
            best[network] = max(score, best.get(network, -math.inf))
    return sorted(best.items(), key=lambda item: -item[1])[:k]
