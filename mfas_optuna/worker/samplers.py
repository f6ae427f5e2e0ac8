"""Samplers and pruners by the names that study files give them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import trials as records
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


class _AmongTheLiving(optuna.pruners.BasePruner):
    """A pruner that does not see failed trials.

    Successive halving compares a trial with all that reached its rung, failed ones among them; so a search that was
    killed and resumed would compare a network with its own lost trial.
    """

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner, with a study that has no failed trials."""
        view = copy.copy(study)

        def get_trials(deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
            found = study.get_trials(deepcopy=deepcopy, states=states)
            return [other for other in found if other.state != TrialState.FAIL]

        view.get_trials = get_trials  # type: ignore[method-assign]
        return self._pruner.prune(view, trial)


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Return the pruner that a study names."""
    if spec.search.pruner == "median":
        return optuna.pruners.MedianPruner()
    if spec.search.pruner == "successive_halving":
        return _AmongTheLiving(optuna.pruners.SuccessiveHalvingPruner())
    return optuna.pruners.NopPruner()


class ReseededSampler(BaseSampler):
    """One of Optuna's own samplers, seeded anew for each trial by its ordinal: the number of its draw.

    A trial takes the smallest ordinal that is free. One that died, or was given back, frees its own; one that failed
    for a recorded reason does not, since it would fail again. So a search that was killed and resumed proposes what an
    uninterrupted one would have.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._of_trial: dict[int, BaseSampler] = {}

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        return self._of_trial.get(trial._trial_id) or self._make(self._seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed a sampler for this trial; one that was enqueued needs none, and takes no ordinal."""
        if records.is_enqueued(trial.system_attrs):
            return
        ordinal = _free_ordinal(study, trial.number)
        records.write_ordinal(study, trial, ordinal)
        sampler = self._make(seed_from(self._seed, "sampler", ordinal) % 2**32)
        self._of_trial[trial._trial_id] = sampler
        sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the trial's sampler."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Ask the trial's sampler."""
        return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Tell the trial's sampler, and forget it."""
        self._sampler(trial).after_trial(study, trial, state, values)
        self._of_trial.pop(trial._trial_id, None)


def _free_ordinal(study: optuna.Study, number: int) -> int:
    """Return the smallest ordinal that no trial of a smaller number holds, or is presumed to be about to take."""
    taken: set[int] = set()
    n_unrecorded = 0
    for trial in study.get_trials(deepcopy=False):
        is_lost = trial.state == TrialState.FAIL and records.read_failure(trial.system_attrs) in records.LOST
        if trial.number >= number or is_lost:
            continue
        ordinal = records.read_ordinal(trial.system_attrs)
        if ordinal is not None:
            taken.add(ordinal)
        elif trial.state == TrialState.RUNNING and not records.is_enqueued(trial.system_attrs):
            n_unrecorded += 1
    free = (ordinal for ordinal in itertools.count() if ordinal not in taken)
    return next(itertools.islice(free, n_unrecorded, None))


def n_finished_trials(study: optuna.Study) -> int:
    """Return how many trials are complete or pruned."""
    return sum(records.is_finished(trial) for trial in study.get_trials(deepcopy=False))


def is_over(study: optuna.Study, spec: StudySpec) -> bool:
    """Return whether the study has all its trials: by its budget, or because the schedule is done."""
    sampler = study.sampler
    is_limited = spec.search.n_trials is not None or not isinstance(sampler, MFASSampler)
    if is_limited and n_finished_trials(study) >= spec.n_trials_planned():
        return True
    return isinstance(sampler, MFASSampler) and sampler.is_finished(study)
