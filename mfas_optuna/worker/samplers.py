"""Samplers and pruners by the names that study files give them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna.objective import ordinal
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.spec import StudySpec


def make_sampler(spec: StudySpec) -> BaseSampler:
    """Return the sampler that a study names."""
    settings = spec.search
    if settings.sampler == "random":
        return ReseededSampler(lambda seed: optuna.samplers.RandomSampler(seed=seed), settings.seed)
    if settings.sampler == "tpe":
        return ReseededSampler(lambda seed: optuna.samplers.TPESampler(seed=seed), settings.seed)
    return MFASSampler(
        spec.search_space(),
        n_iterations=None if settings.n_iterations == "unlimited" else settings.n_iterations,
        samples_per_step=settings.samples_per_step,
        mode=settings.mode,
        seed=settings.seed,
        temperature_max=settings.temperature_max,
        temperature_min=settings.temperature_min,
        temperature_decay=settings.temperature_decay,
        quorum=settings.quorum,
    )


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    if spec.search.pruner == "median":
        return optuna.pruners.MedianPruner()
    if spec.search.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()


class ReseededSampler(BaseSampler):
    """One of Optuna's own samplers, seeded anew for each trial by its place among the trials that did not fail.

    So a search that was killed and resumed proposes what an uninterrupted one would have.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._inner = threading.local()

    def _current(self) -> BaseSampler:
        inner: BaseSampler | None = getattr(self._inner, "sampler", None)
        return inner if inner is not None else self._make(self._seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._inner.sampler = self._make(seed_from(self._seed, "sampler", ordinal(study, trial.number)) % 2**32)
        self._current().before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the sampler."""
        return self._current().infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the sampler."""
        return self._current().sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Ask the sampler."""
        return self._current().sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Tell the sampler."""
        self._current().after_trial(study, trial, state, values)
