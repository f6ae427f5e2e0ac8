"""Mode calibrated with one thing changed each: what it is made of, and what was tried and left out.

python -m benchmarks.table replay avmnist-transfer --contestants calibrated lstm-alone linear-alone
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from scipy.stats import norm, rankdata

from mfas_optuna import Architecture, MFASSampler, SearchSpace
from mfas_optuna.search.linear import LinearSurrogate
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.surrogate import Surrogate

Scores = NDArray[np.float64]
Target = Callable[[Scores], Scores]
Model = Callable[[SearchSpace, int, Sequence[Architecture], Scores, Sequence[Architecture]], Scores]
"""Gives predictions from a space, a seed, architectures with their targets, and candidates."""


def standardised(scores_N: Scores) -> Scores:
    """Return scores with mean 0 and deviation 1."""
    return np.asarray((scores_N - scores_N.mean()) / (scores_N.std() or 1.0))


def normal_scores(scores_N: Scores) -> Scores:
    """Return the normal quantiles of the scores' ranks."""
    return np.asarray(norm.ppf((rankdata(scores_N) - 0.5) / len(scores_N)))


def squashed(scores_N: Scores) -> Scores:
    """Return scores about their median in units of the spread above it, bad ones cut off at -2."""
    median = float(np.median(scores_N))
    above = float((scores_N[scores_N >= median] - median).std()) or 1.0
    return np.clip((scores_N - median) / above, -2.0, None)


def lstm(n: int = 1) -> Model:
    """Return the mean of n LSTMs that start from different weights."""

    def predict(
        space: SearchSpace, seed: int, known: Sequence[Architecture], y_N: Scores, candidates: Sequence[Architecture]
    ) -> Scores:
        predicted = []
        for member in range(n):
            surrogate = Surrogate(space, seed=seed_from(seed, member), bounded=False)
            surrogate.update(known, y_N)
            predicted.append(surrogate.predict(candidates))
        return np.asarray(np.mean(predicted, axis=0))

    return predict


def linear(
    space: SearchSpace, seed: int, known: Sequence[Architecture], y_N: Scores, candidates: Sequence[Architecture]
) -> Scores:
    """Return what the ridge regression predicts."""
    surrogate = LinearSurrogate(space)
    surrogate.fit(known, y_N)
    return surrogate.predict(candidates)


def together(*models: Model) -> Model:
    """Return the mean of models."""

    def predict(
        space: SearchSpace, seed: int, known: Sequence[Architecture], y_N: Scores, candidates: Sequence[Architecture]
    ) -> Scores:
        return np.asarray(np.mean([model(space, seed, known, y_N, candidates) for model in models], axis=0))

    return predict


def calibrated_with(
    model: Model, target: Target = standardised, temperatures: tuple[float, float] | None = None
) -> Callable[[SearchSpace, int], BaseSampler]:
    """Return what makes a calibrated sampler with another model, target or temperatures."""

    def make(space: SearchSpace, seed: int) -> BaseSampler:
        highest, lowest = temperatures or (None, None)
        sampler = MFASSampler(space, n_iterations=None, seed=seed, temperature_max=highest, temperature_min=lowest)

        def predict(evaluations, candidates, step):  # type: ignore[no-untyped-def]
            known = [evaluation.architecture for evaluation in evaluations]
            scores_N = np.array([evaluation.score for evaluation in evaluations])
            step_seed = seed_from(seed, "surrogate", step.iteration, step.depth)
            return model(space, step_seed, known, target(scores_N), candidates)

        sampler._planner._predict = predict  # type: ignore[method-assign]
        return sampler

    return make


_both = together(lstm(), linear)

ABLATIONS: dict[str, Callable[[SearchSpace, int], BaseSampler]] = {
    "lstm-hot": calibrated_with(lstm(), temperatures=(1.0, 0.2)),
    "lstm-alone": calibrated_with(lstm()),
    "linear-alone": calibrated_with(linear),
    "linear-hot": calibrated_with(linear, temperatures=(1.0, 0.2)),
    "both-hot": calibrated_with(_both, temperatures=(1.0, 0.2)),
    "both-greedy": calibrated_with(_both, temperatures=(2e-3, 1e-3)),
    "both-ranks": calibrated_with(_both, normal_scores),
    "both-squashed": calibrated_with(_both, squashed),
    "five-lstms": calibrated_with(lstm(5)),
    "five-lstms-linear": calibrated_with(together(lstm(5), linear)),
}
"""`hot`: temperature 1 falling to 0.2, as calibrated was before; the others have its present 0.1 to 0.05."""
