"""Who searches: samplers by name, each made anew for a search space and a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from mfas_optuna import MFASSampler, SearchSpace


class UniformSampler(BaseSampler):
    """Draws networks uniformly without repetition: the honest random search."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._order = random.Random(seed).sample(range(space.size), space.size)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters of the trial's network."""
        choices = self._space.parameter_choices()
        return {
            name: optuna.distributions.IntDistribution(values[0], values[-1])
            if isinstance(values, range)
            else optuna.distributions.CategoricalDistribution(list(values))
            for name, values in choices.items()
            if name in self._parameters(trial)
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the trial's network."""
        return self._parameters(trial)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: every parameter of the space is drawn at once."""
        raise ValueError(f"{param_name} is not of the space {self._space}.")

    def _parameters(self, trial: FrozenTrial) -> dict[str, Any]:
        network = self._order[trial.number % len(self._order)]
        return dict(self._space.parameters(self._space.architecture(network)))


def _mfas(mode: Any) -> Callable[[SearchSpace, int], BaseSampler]:
    return lambda space, seed: MFASSampler(space, n_iterations=None, mode=mode, seed=seed)


def _gp(space: SearchSpace, seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


CONTESTANTS: dict[str, Callable[[SearchSpace, int], BaseSampler]] = {
    "calibrated": _mfas("calibrated"),
    "paper": _mfas("paper"),
    "uniform": UniformSampler,
    "random": lambda space, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda space, seed: optuna.samplers.TPESampler(seed=seed),
    "tpe-distinct": lambda space, seed: optuna.samplers.TPESampler(seed=seed),
    "gp": _gp,
    "nsga2": lambda space, seed: optuna.samplers.NSGAIISampler(seed=seed),
}
"""What each contestant is called, and how it is made."""

DISTINCT = frozenset({"tpe-distinct"})
"""Contestants whose repeats cost nothing: such a trial is failed, which TPE does not look at, and another asked for."""
MAX_REPEATS = 10
"""Repeats in a row after which such a contestant is given a network that it has not tried, drawn uniformly."""
