"""How far a stored study is, read from its database alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.errors import StorageError
from mfas_optuna.search.health import NEAR_UNIFORM_FRACTION, StepHealth, remedy
from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.search.steps import SearchStep
from mfas_optuna.target import Metric
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.samplers import is_over, make_sampler
from mfas_optuna.worker.watch import count_failures


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One step of the schedule.

    Attributes:
        iteration: From 1.
        depth: Fusion layers of its networks.
        temperature: At which they were drawn; None at depth 1.
        n_finished: Its complete and pruned trials.
        n_running: Its running trials.
        mean: Mean score of its complete trials, or None.
        best: Best score of its complete trials, or None.
        surrogate: How the surrogate did in it; None where none chose its networks.
    """

    iteration: int
    depth: int
    temperature: float | None
    n_finished: int
    n_running: int
    mean: float | None
    best: float | None
    surrogate: StepHealth | None


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        study_name: Its name in the database.
        metric: What its scores are.
        is_finished: Whether there is nothing left to do.
        n_planned: Trials that the search takes.
        n_by_state: Number of trials in each state that occurs.
        n_by_failure: Number of failed trials for each reason.
        steps: The steps begun so far; empty for the samplers random and tpe.
        best: Its best networks.
        backbones: Unimodal scores and weight digests, by modality.
        timings_s: Seconds spent in each stage.
        warnings: What the user should look at, with what to do about it.
        stand_in: What the generated data stand in for; empty for real data.
        card: The data card; empty before the data are there.
        workers: Those that live now, as far as their leases tell.
        ledger: Everything that was read of the test split, oldest first.
    """

    study_name: str
    metric: Metric
    is_finished: bool
    n_planned: int
    n_by_state: dict[str, int]
    n_by_failure: dict[str, int]
    steps: list[StepStatus]
    best: list[records.RankedNetwork]
    backbones: dict[str, Any]
    timings_s: dict[str, float]
    warnings: list[str]
    stand_in: str
    card: str
    workers: list[database.LeasedWorker]
    ledger: list[finals.TestRead]


def status(request: SearchRequest) -> StudyStatus:
    """Read how far a study is.

    Raises:
        StorageError: The database or the study cannot be found.
    """
    with database.clear_errors(request.storage_url), _Reader(request) as reader:
        return reader.read()


def watch_status(
    request: SearchRequest, every_s: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[StudyStatus]:
    """Yield how far a study is, now and then until it is over; wait for a database that is away meanwhile.

    Args:
        request: Which study; `patience_s` is how long the database is waited for.
        every_s: Seconds between two readings.
        sleep: Waits.

    Raises:
        StorageError: The database or the study cannot be found, or stays away.
    """
    patience = database.Patience(request.patience_s)
    with database.clear_errors(request.storage_url), _Reader(request, patience) as reader:
        while True:
            found = reader.read()
            yield found
            if found.is_finished:
                return
            sleep(every_s)


class _Reader:
    """A study that was opened to be read."""

    def __init__(self, request: SearchRequest, patience: database.Patience | None = None) -> None:
        database.check_exists(request.storage_url)
        self._request = request
        self._opened = database.open_storage(request.storage_url, patience)
        self._study = database.load_study(self._opened, request.study_name)
        if records.read_scientific(self._study) is None:
            raise StorageError(
                f"Study {request.study_name!r} in this database was not begun by mfas-optuna. Choose another --name."
            )
        self._study.sampler = self._sampler = make_sampler(request.spec)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.engine.dispose()

    def read(self) -> StudyStatus:
        """Return how far the study is; read again as a whole when the database goes away meanwhile."""
        return self._opened.patience.run(self._read)

    def _read(self) -> StudyStatus:
        request, study = self._request, self._study
        trials = study.get_trials(deepcopy=False)
        health = self._sampler.health(study) if isinstance(self._sampler, MFASSampler) else {}
        return StudyStatus(
            study_name=request.study_name,
            metric=request.spec.metric,
            is_finished=is_over(study, request.spec),
            n_planned=request.spec.n_trials_planned(),
            n_by_state=dict(Counter(trial.state.name for trial in trials)),
            n_by_failure=count_failures(trials),
            workers=database.living(self._opened, study._study_id),
            steps=_steps(trials, health),
            best=records.best_networks(trials, request.spec.search.n_finalists),
            backbones=records.read_backbones(study) or {},
            timings_s=records.read_timings(study),
            warnings=_warnings(health, request.spec.search.mode),
            stand_in=records.read_stand_in(study),
            card=records.read_card(study),
            ledger=_ledger(study),
        )


def _ledger(study: optuna.Study) -> list[finals.TestRead]:
    """Return what was read of the test split for the search and for the final trainings."""
    ledger = finals.read_ledger(study)
    name = finals.final_name(study.study_name)
    if name in optuna.get_all_study_names(study._storage):
        ledger += finals.read_ledger(optuna.load_study(study_name=name, storage=study._storage))
    return sorted(ledger, key=lambda entry: entry.time)


def _warnings(health: Mapping[SearchStep, StepHealth], mode: Literal["calibrated", "paper"]) -> list[str]:
    n_near_uniform = sum(of_step.is_near_uniform for of_step in health.values())
    if n_near_uniform == 0:
        return []
    return [
        f"near-uniform choice in {n_near_uniform} of {len(health)} steps: more than {NEAR_UNIFORM_FRACTION:.0%} of the "
        f"candidates were in effect, so that networks were drawn almost at random. {remedy(mode)}"
    ]


def _steps(trials: Sequence[FrozenTrial], health: Mapping[SearchStep, StepHealth]) -> list[StepStatus]:
    by_step: dict[SearchStep, list[FrozenTrial]] = {}
    temperatures: dict[SearchStep, float | None] = {}
    for trial in trials:
        proposal = records.read_proposal(trial.system_attrs)
        if proposal is not None and proposal.is_scheduled:
            step = SearchStep(proposal.iteration, proposal.depth)
            by_step.setdefault(step, []).append(trial)
            temperatures[step] = proposal.temperature
    result = []
    for step in sorted(by_step):
        members = by_step[step]
        scores = [trial.values[0] for trial in members if trial.state == TrialState.COMPLETE]
        result.append(
            StepStatus(
                iteration=step.iteration + 1,
                depth=step.depth,
                temperature=temperatures[step],
                n_finished=sum(records.is_finished(trial) for trial in members),
                n_running=sum(trial.state == TrialState.RUNNING for trial in members),
                mean=sum(scores) / len(scores) if scores else None,
                best=max(scores, default=None),
                surrogate=health.get(step),
            )
        )
    return result
