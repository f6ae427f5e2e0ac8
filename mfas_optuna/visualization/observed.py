"""What pictures are made of: a study's trials as they were stored, read once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter, ValidationError

from mfas_optuna import trials as records
from mfas_optuna.errors import PictureError
from mfas_optuna.search.steps import SearchStep
from mfas_optuna.space import IS_SET, NOTHING
from mfas_optuna.spec import DatasetSettings
from mfas_optuna.target import METRIC_TITLES, METRICS
from mfas_optuna.trials import LayerWeights, Plan

_DATASETS: TypeAdapter[Any] = TypeAdapter(DatasetSettings)


@dataclass(frozen=True, slots=True)
class Observation:
    """A complete trial with a finite score.

    Attributes:
        number: Of the trial.
        score: As stored.
        step: Of the schedule; None outside it.
        slot: In the step; -1 outside the schedule.
        predicted: The surrogate's prediction; None where there was none.
        temperature: By which the network was drawn; None where it was drawn without.
        architecture: In the paper's notation; empty where the trial records none.
        n_parameters: Of the fusion layers; None where the trial records none.
        parameters: Of the trial.
        weights: Lineage of each layer's weights.
    """

    number: int
    score: float
    step: SearchStep | None
    slot: int
    predicted: float | None
    temperature: float | None
    architecture: str
    n_parameters: int | None
    parameters: Mapping[str, Any]
    weights: tuple[LayerWeights, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A search.

    Attributes:
        measure: What a score is called.
        is_metric: Whether scores are a metric of which 1 is the best, so that 1 less the score is an error.
        minimize: Whether smaller scores are better.
        complete: Its complete trials, by number.
        n_failed: Failed trials.
        plans: By step; of several, that of the lowest number.
        columns: Features of each modality, in order, as far as the trials know them.
        activations: Those to choose from.
    """

    measure: str
    is_metric: bool
    minimize: bool
    complete: tuple[Observation, ...]
    n_failed: int
    plans: Mapping[SearchStep, Plan]
    columns: Mapping[str, tuple[str, ...]]
    activations: tuple[str, ...]

    @property
    def steps(self) -> dict[SearchStep, int]:
        """Steps of which a trial is complete, in order, with their numbers from 1."""
        found = sorted({each.step for each in self.complete if each.step is not None})
        return {step: number for number, step in enumerate(found, start=1)}

    @property
    def nothing(self) -> str:
        """Why there is nothing to draw; empty where there is something."""
        if self.complete:
            return ""
        if self.n_failed:
            return f"No trial is complete; {self.n_failed} failed."
        return "No trial is complete yet."

    def best_first(self) -> list[Observation]:
        """Return the best trial of each network, best first; the earlier trial first among equals."""
        sign = 1.0 if self.minimize else -1.0
        ranked: dict[object, Observation] = {}
        for each in sorted(self.complete, key=lambda each: (sign * each.score, each.number)):
            ranked.setdefault(each.architecture or tuple(sorted(each.parameters.items())), each)
        return list(ranked.values())

    def running_best(self) -> list[float]:
        """Return the best score so far after each complete trial."""
        choose = min if self.minimize else max
        best: list[float] = []
        for each in self.complete:
            best.append(each.score if not best else choose(best[-1], each.score))
        return best


def observe(study: optuna.Study) -> Observed:
    """Read a search.

    Raises:
        PictureError: The study has more than one objective.
    """
    if len(study.directions) > 1:
        raise PictureError(
            f"Study {study.study_name!r}: pictures need one objective, found {len(study.directions)}. "
            "Give a study of one."
        )
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    settings = records.read_scientific(study)
    columns, activations = choices_of(trials)
    plans: dict[SearchStep, Plan] = {}
    for trial in trials:
        plan = records.read_plan(trial.system_attrs)
        if plan is not None:
            plans.setdefault(SearchStep(plan.iteration, plan.depth), plan)
    return Observed(
        measure="score" if settings is None else f"validation {_metric(settings)}",
        is_metric=settings is not None,
        minimize=study.direction == StudyDirection.MINIMIZE,
        complete=tuple(_observations(trials)),
        n_failed=sum(trial.state == TrialState.FAIL for trial in trials),
        plans=dict(sorted(plans.items())),
        columns=columns,
        activations=activations,
    )


def without_sets(names: Sequence[str]) -> tuple[str, ...]:
    """Return the features among what may be taken of a modality, without the sets of them in an extended space."""
    return tuple(name for name in names if NOTHING not in names or not IS_SET.fullmatch(name))


def _metric(settings: Mapping[str, Any]) -> str:
    """Return the metric's title; `score` where a data set's settings are of another version of this program."""
    metric = settings["objective"]["metric"]
    try:
        metric = metric or METRICS[_DATASETS.validate_python(settings["dataset"]).target_kind][0]
    except ValidationError:
        return "score"
    return METRIC_TITLES[metric]


def _observations(trials: Iterable[FrozenTrial]) -> Iterable[Observation]:
    for trial in trials:
        if trial.state != TrialState.COMPLETE or not math.isfinite(trial.values[0]):
            continue
        proposal, shown = records.read_proposal(trial.system_attrs), trial.user_attrs
        scheduled = proposal if proposal is not None and proposal.is_scheduled else None
        yield Observation(
            number=trial.number,
            score=float(trial.values[0]),
            step=None if scheduled is None else SearchStep(scheduled.iteration, scheduled.depth),
            slot=-1 if scheduled is None else scheduled.slot,
            predicted=None if proposal is None else proposal.predicted_score,
            temperature=None if proposal is None else proposal.temperature,
            architecture=str(shown.get(records.ARCHITECTURE, "")),
            n_parameters=shown.get(records.N_PARAMETERS),
            parameters=trial.params,
            weights=tuple(records.read_weights(shown)),
        )


def choices_of(trials: Sequence[FrozenTrial]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return features by modality and activations, of the first trial that has a first layer."""
    for trial in trials:
        found = {
            name.removeprefix("layer1."): tuple(map(str, distribution.choices))
            for name in trial.params
            if name.startswith("layer1.")
            and isinstance(distribution := trial.distributions[name], optuna.distributions.CategoricalDistribution)
        }
        activations = found.pop("activation", ())
        found.pop("operator", ())
        if found:
            return found, activations
    return {}, ()
