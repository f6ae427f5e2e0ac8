"""A search from its inputs to its result: opens or joins the study, runs trials, and stops in good order."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.datasets import build_dataset
from mfas_optuna.errors import (
    CacheError,
    Interrupted,
    MfasError,
    SearchFailedError,
    StudyMismatchError,
    TrainingDiverged,
)
from mfas_optuna.objective import TrialRunner
from mfas_optuna.prepare import Preparation, Prepared, check_home, weights_folder
from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.spec import StudySpec, differences
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.request import Listener, SearchOutcome, SearchRequest, choose_device
from mfas_optuna.worker.samplers import make_pruner, make_sampler

_log = logging.getLogger(__name__)

METRIC = "validation accuracy"
MAX_FAILURES_IN_A_ROW = 20
"""After so many failed trials in a row something is wrong with more than the networks."""
_POLL_S = 0.2
_REAP_EVERY_S = 2.0


def prepare(request: SearchRequest, listener: Listener, *, force: bool = False) -> Prepared:
    """Make the data, backbones and features of a study, or find them.

    Raises:
        MfasError: Something a user can mend is wrong; the message says what.
    """
    check_home(request.home)
    with Interrupts() as interrupts, interrupts.immediate():
        return _preparation(request, listener).run(force=force)


def build_data(request: SearchRequest, listener: Listener, *, force: bool = False) -> Path:
    """Build a study's data set when it is not there, and return its folder.

    Raises:
        MfasError: Something a user can mend is wrong; the message says what.
    """
    check_home(request.home)
    with Interrupts() as interrupts, interrupts.immediate():
        try:
            return build_dataset(
                request.spec.dataset,
                home=request.home,
                data_root=request.data_root,
                progress=listener.progress,
                force=force,
            )
        except CacheError as error:
            raise CacheError(f"{error} Add --force to build it again.") from error


def search(request: SearchRequest, listener: Listener) -> SearchOutcome:
    """Run a study's search to its end, or go on with it where it stopped.

    Raises:
        Interrupted: A signal asked for the end; the running trial was given back.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    check_home(request.home)
    choose_device(request.device)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # The listener says what a user wants to know.
    opened = database.open_storage(request.storage_url)
    with (
        database.clear_errors(request.storage_url),
        Interrupts() as interrupts,
        database.WorkerLock(request.home, request.storage_url, request.study_name) as lock,
    ):
        sampler = make_sampler(request.spec)
        study, is_new = database.create_study(
            opened, request.study_name, sampler=sampler, pruner=make_pruner(request.spec), metric=METRIC
        )
        _claim(study, request)
        if not is_new:
            reaped = database.reap_dead(opened, request.study_name, is_alone=_nobody_else(request, lock.is_only_worker))
            listener.say(_resumed(study, request, len(reaped)))
        lock.share()
        n_before = n_finished_trials(study)
        if not is_over(study, request.spec):
            with interrupts.immediate():
                prepared = _preparation(request, listener).run(recorded=records.read_backbones(study))
            _record_inputs(study, prepared)
            _Worker(request, study, sampler, prepared, listener, interrupts, lock).run()
        best = records.best_networks(study.get_trials(deepcopy=False), request.spec.search.n_finalists)
        if not best:
            raise SearchFailedError(
                f"Study {request.study_name!r} ended without a single complete trial. "
                f"Run `mfas-optuna status --study {request.study_name}` to see why trials failed."
            )
        n_finished = n_finished_trials(study)
        return SearchOutcome(
            study,
            best,
            n_finished,
            n_finished - n_before,
            records.read_backbones(study) or {},
            records.read_timings(study),
        )


def _nobody_else(request: SearchRequest, is_alone_here: bool) -> bool:
    """Return whether no other worker of the study can live anywhere; other hosts cannot be looked into."""
    return is_alone_here and database.is_one_host(request.storage_url)


def _preparation(request: SearchRequest, listener: Listener) -> Preparation:
    return Preparation(
        request.spec,
        home=request.home,
        data_root=request.data_root,
        device=choose_device(request.device),
        rebuild_command=request.rebuild_command,
        progress=listener.progress,
        say=listener.say,
    )


def _claim(study: optuna.Study, request: SearchRequest) -> None:
    """Record the settings of a new study; refuse one that was begun with others."""
    given = request.spec.scientific()
    stored = records.read_scientific(study)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise StudyMismatchError(
                f"Study {request.study_name!r} in this database was not begun by mfas-optuna. Choose another --name.",
                [],
            )
        records.write_study(study, scientific=given, fingerprint=request.spec.fingerprint())
        return
    changed = list(differences(stored, given))
    if changed:
        raise StudyMismatchError(
            f"Study {request.study_name!r} was begun with other settings:\n  "
            + "\n  ".join(changed)
            + "\nRestore them, or choose another --name for a new study.",
            changed,
        )


def _resumed(study: optuna.Study, request: SearchRequest, n_reaped: int) -> str:
    n_finished, n_planned = n_finished_trials(study), request.spec.n_trials_planned()
    if is_over(study, request.spec):
        return f"Study {request.study_name} is finished: {n_finished} trials. Nothing to do; here is its result"
    left = f", {n_reaped} left running by a worker that ended" if n_reaped else ""
    return f"Study {request.study_name}: going on after {n_finished} of {n_planned} trials{left}"


def _record_inputs(study: optuna.Study, prepared: Prepared) -> None:
    stored = records.read_features(study)
    if stored is None:
        backbones = {modality: trained.as_record() for modality, trained in prepared.backbones.items()}
        records.write_study_inputs(study, backbones=backbones, features=prepared.fingerprint, card=prepared.card)
    elif stored != prepared.fingerprint:
        raise StudyMismatchError(
            f"The study was begun with features {stored[:12]}, those here are {prepared.fingerprint[:12]}, so that "
            "scores could not be compared. Choose another --name.",
            [f"features: was {stored[:12]}, is now {prepared.fingerprint[:12]}"],
        )
    for stage, seconds in prepared.timings_s.items():
        records.add_timing(study, stage, seconds)


def n_finished_trials(study: optuna.Study) -> int:
    """Return how many trials are complete or pruned."""
    return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.get_trials(deepcopy=False))


def is_over(study: optuna.Study, spec: StudySpec) -> bool:
    """Return whether the study has all its trials: by its budget, or because the schedule is done."""
    sampler = study.sampler
    is_limited = spec.search.n_trials is not None or not isinstance(sampler, MFASSampler)
    if is_limited and n_finished_trials(study) >= spec.n_trials_planned():
        return True
    return isinstance(sampler, MFASSampler) and sampler.is_finished(study)


class _Worker:
    """Asks, trains and tells until the study is over."""

    def __init__(
        self,
        request: SearchRequest,
        study: optuna.Study,
        sampler: BaseSampler,
        prepared: Prepared,
        listener: Listener,
        interrupts: Interrupts,
        lock: database.WorkerLock,
    ) -> None:
        self._request = request
        self._lock = lock
        self._reap_at = time.monotonic()
        self._study = study
        self._sampler = sampler
        self._listener = listener
        self._interrupts = interrupts
        self._identity = database.this_worker()
        self._runner = TrialRunner(
            request.spec, prepared.features, weights_folder(request.home), choose_device(request.device)
        )

    def run(self) -> None:
        n_planned = self._request.spec.n_trials_planned()
        self._listener.say(f"Search: {n_planned} trials")
        started = time.perf_counter()
        n_failed_in_a_row = 0
        try:
            while not is_over(self._study, self._request.spec):
                self._interrupts.check()
                if not self._may_ask():
                    self._reap_now_and_then()
                    time.sleep(_POLL_S)
                    continue
                trial = self._run_one()
                if trial is None:
                    continue
                n_failed_in_a_row = n_failed_in_a_row + 1 if trial.state == TrialState.FAIL else 0
                self._listener.trial_ended(self._study, trial, n_finished_trials(self._study), n_planned)
                if n_failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    message = trial.user_attrs.get(records.FAILURE_MESSAGE, "no reason was recorded")
                    raise SearchFailedError(f"{n_failed_in_a_row} trials failed in a row; the last because: {message}")
        finally:
            # An error of the database that ends the loop must not be replaced by one from here.
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                records.add_timing(self._study, "search", time.perf_counter() - started)

    def _reap_now_and_then(self) -> None:
        """While there is nothing to do but wait for others' trials: see to it that those others live."""
        if time.monotonic() < self._reap_at:
            return
        self._reap_at = time.monotonic() + _REAP_EVERY_S
        is_alone = _nobody_else(self._request, self._lock.is_alone_now())
        reaped = database.reap_dead(self._study._storage, self._request.study_name, is_alone=is_alone)
        if reaped:
            self._listener.say(f"Taking over {len(reaped)} trials of a worker that ended")

    def _may_ask(self) -> bool:
        """Return whether a new trial would be of use now, and would not overshoot the budget."""
        n_open = sum(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            for trial in self._study.get_trials(deepcopy=False)
        )
        limit = self._request.spec.search.n_trials
        if not isinstance(self._sampler, MFASSampler):
            return n_open < self._request.spec.n_trials_planned()
        if limit is not None and n_open >= limit:
            return False
        return self._sampler.decide(self._study).kind in ("slot", "over_draw")

    def _run_one(self) -> FrozenTrial | None:
        """Run a trial and return it; None when another worker was quicker to take the last place."""
        study = self._study
        trial = study.ask()
        try:
            records.write_worker(study, trial, self._identity)
            proposal = records.read_proposal(records.system_attributes(study, records.trial_id_of(trial)))
            if proposal is not None and proposal.is_surplus:
                self._fail(trial, "given_back", "another worker took the last place before")
                return None
            result = self._runner.run(study, trial, self._interrupts.immediate)
        except Interrupted:
            self._fail(trial, "given_back", "the worker was asked to stop")
            raise
        except optuna.TrialPruned:
            return study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        except TrainingDiverged as error:
            return self._fail(trial, "diverged", str(error))
        except (torch.OutOfMemoryError, MemoryError) as error:
            return self._fail(trial, "out_of_memory", str(error) or "out of memory")
        except optuna.exceptions.UpdateFinishedTrialError:
            _log.warning("Trial %d was ended by another worker, which took this one for dead.", trial.number)
            return None
        except Exception as error:  # The trial boundary: whatever it was is recorded with the trial.
            if database.is_database_error(error):
                raise
            if isinstance(error, MfasError) and not isinstance(error, ArithmeticError):
                self._fail(trial, "given_back", str(error))
                raise
            _log.warning("Trial %d failed.", trial.number, exc_info=True)
            return self._fail(trial, "error", f"{type(error).__name__}: {error}")
        return study.tell(trial, result.score, skip_if_finished=True)

    def _fail(self, trial: optuna.Trial, reason: records.FailureReason, message: str) -> FrozenTrial:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            records.write_failure(self._study, trial, reason, message)
        return self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
