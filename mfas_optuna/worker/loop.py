"""A worker's loop: asks for trials, trains them as a group, tells, and stops in good order."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from datetime import datetime

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.dashboard import Drawings, Showcase
from mfas_optuna.errors import MfasError, SearchFailedError, TrainingDiverged
from mfas_optuna.failpoints import reach
from mfas_optuna.objective import Outcome, TrialResult, TrialRunner, is_out_of_memory
from mfas_optuna.prepare import Prepared, artifacts_folder, blob_store
from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.worker.devices import choose_device
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.request import Listener, SearchRequest
from mfas_optuna.worker.samplers import is_over, n_finished_trials
from mfas_optuna.worker.shares import group_of_step, is_long_wait, share
from mfas_optuna.worker.watch import count_failures

_log = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 20
"""After so many failed trials in a row something is wrong with more than the networks."""
_POLL_S, _MOST_POLL_S, _GROUP_FOR_POLLING = 0.2, 2.0, 20
"""A worker that waits for others looks once in a twentieth of the time that a group takes, within these bounds."""
_REAP_EVERY_S = 2.0


def nobody_else(request: SearchRequest, is_alone_here: bool) -> bool:
    """Return whether no other worker of the study can live anywhere; other hosts cannot be looked into."""
    return is_alone_here and database.is_one_host(request.storage_url)


class Worker:
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
        opened: database.BatchStorage,
    ) -> None:
        self._request = request
        self._opened = opened
        self._n_waits = opened.patience.n_waits
        self._may_have_lost_trials = False
        self._last_group_s: float | None = None
        self._lock = lock
        self._reap_at = time.monotonic()
        self._study = study
        self._space = request.spec.search_space()
        self._sampler = sampler
        self._listener = listener
        self._interrupts = interrupts
        self._identity = database.this_worker()
        self._showcase = Showcase(request.spec, Drawings(artifacts_folder(request.home)))
        self._runner = TrialRunner(
            request.spec,
            prepared.features,
            blob_store(request.home, request.weights),
            choose_device(request.device),
            listener.progress,
            space=records.ranked_space(study, self._space),
        )

    def run(self) -> None:
        """Work until the study is over; meanwhile others see by a lease that this worker lives."""
        n_planned = self._request.spec.n_trials_planned()
        self._listener.say(f"Search: {n_planned} trials")
        self._opened.stamp = records.worker_attribute(self._identity)
        started = time.perf_counter()
        lease = database.Lease(
            self._opened,
            self._study._study_id,
            self._identity,
            beat_s=self._request.beat_s,
            grace_s=self._request.grace_s,
            patience=self._opened.patience,
        )
        try:
            with lease:
                self._work(lease, n_planned)
        finally:
            error = sys.exception()
            # An error of the database that ends the loop must not be replaced by one from here.
            if error is None or not database.is_database_error(error):
                with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                    records.add_timing(self._study, "search", time.perf_counter() - started)

    def _work(self, lease: database.Lease, n_planned: int) -> None:
        n_failed_in_a_row = 0
        while not is_over(self._study, self._request.spec):
            self._interrupts.check()
            self._reap_now_and_then(lease)
            self._give_back_lost()
            size = self._joint_size()
            if size == 0:
                time.sleep(max(_POLL_S, min(_MOST_POLL_S, (self._last_group_s or 0.0) / _GROUP_FOR_POLLING)))
                continue
            started = time.perf_counter()
            trials = self._ask(size)
            reach("after ask")
            ended = self._run_group(trials)
            self._last_group_s = time.perf_counter() - started
            self._tell_standing()
            self._showcase.after(self._study, ended, self._opened.patience)
            n_finished = n_finished_trials(self._study) - sum(records.is_finished(trial) for trial in ended)
            for trial in ended:
                n_finished += records.is_finished(trial)
                n_failed_in_a_row = n_failed_in_a_row + 1 if trial.state == TrialState.FAIL else 0
                self._listener.trial_ended(self._study, trial, n_finished, n_planned)
                if n_failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    message = trial.user_attrs.get(records.FAILURE_MESSAGE, "no reason was recorded")
                    raise SearchFailedError(f"{n_failed_in_a_row} trials failed in a row; the last because: {message}")

    def _tell_standing(self) -> None:
        n_workers = len(self._opened.patience.run(self._living))
        self._listener.standing(n_workers, count_failures(self._study.get_trials(deepcopy=False)))

    def _reap_now_and_then(self, lease: database.Lease) -> None:
        """See to it that those live whose trials are running."""
        if time.monotonic() < self._reap_at:
            return
        self._reap_at = time.monotonic() + _REAP_EVERY_S
        is_alone = nobody_else(self._request, self._lock.is_alone_now())
        reaped = self._opened.patience.run(
            lambda: database.reap_dead(
                self._opened,
                self._request.study_name,
                is_alone=is_alone,
                grace_s=self._request.grace_s,
                by_lease=lease.can_judge(),
            )
        )
        if reaped:
            self._listener.say(f"Taking over {len(reaped)} trials of a worker that ended")

    def _give_back_lost(self) -> None:
        """Give back trials that were begun while the database went away, of which this worker knows nothing."""
        n_waits = self._opened.patience.n_waits
        if not self._may_have_lost_trials and n_waits == self._n_waits:
            return

        def give_back() -> None:
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            ours = [trial for trial in running if records.read_worker(trial.system_attrs) == self._identity]
            with database.batch(self._study, ours):
                self._give_back(ours, "the database went away while it was begun")

        self._opened.patience.run(give_back)
        self._may_have_lost_trials, self._n_waits = False, n_waits

    # Asking.

    def _joint_size(self) -> int:
        """Return how many trials to ask for now; none when more would be of no use, or would overshoot the budget.

        Groups are the same blocks of slots in every run of one worker, so that a resumed search trains what an
        uninterrupted one would have trained at once, to the same bits.
        """
        most, limit, n_open = joint_size(self._request), self._budget(), self._n_open()
        n_left = most if limit is None else max(0, limit - n_open)
        if not isinstance(self._sampler, MFASSampler):
            return min(share(n_left, self._n_workers()), most - n_open % most)
        decision = self._sampler.decide(self._study)
        if decision.kind == "over_draw" and is_long_wait(self._ages_s(), self._last_group_s):
            return min(1, n_left)
        if decision.kind != "slot":
            return 0
        return group_of_step(decision, self._n_workers(), most=most, n_left=n_left)

    def _n_workers(self) -> int:
        """Return how many workers live, this one among them."""
        if nobody_else(self._request, self._lock.is_alone_now()):
            return 1
        others = {lease.worker for lease in self._opened.patience.run(self._living)}
        return len(others | {self._identity})

    def _ages_s(self) -> list[float]:
        """Return for how many seconds each running trial has run, by its worker's clock and this one's."""
        running, now = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)), datetime.now()
        return [(now - trial.datetime_start).total_seconds() for trial in running if trial.datetime_start is not None]

    def _living(self) -> list[database.LeasedWorker]:
        return database.living(self._opened, self._study._study_id)

    def _ask(self, size: int) -> list[optuna.Trial]:
        """Ask for trials of one step, and record who runs them; fewer than `size` when others were quicker.

        The first may lead its step and fit the surrogate, or wait for who does; the others are asked for in one
        transaction, within which nobody else creates a trial.
        """
        first = self._study.ask()
        try:
            with database.batch(self._study, [first]):
                return self._ask_further(first, size)
        except optuna.exceptions.UpdateFinishedTrialError:
            _log.warning("Trial %d was ended by another worker, which took this one for dead.", first.number)
            return []
        except BaseException as error:
            if not database.is_database_error(error):
                self._give_back_in_batch([first], error)
                raise
            if not database.is_away(error):
                raise
            self._may_have_lost_trials = True  # Whatever was begun; once the database is back, it is asked anew.
            return []

    def _ask_further(self, first: optuna.Trial, size: int) -> list[optuna.Trial]:
        study = self._study
        proposal = records.read_proposal(records.system_attributes(study, records.trial_id_of(first)))
        limit = self._budget()
        is_surplus = proposal is not None and proposal.is_surplus
        if is_surplus or (limit is not None and self._n_admitted() >= limit):
            self._give_back([first], "another worker took the last place before")
            return []
        trials = [first]
        while len(trials) < size and self._is_next_of(proposal) and (limit is None or self._n_open() < limit):
            trials.append(study.ask())
        return [trial for trial in trials if self._is_suggested(trial)]

    def _is_suggested(self, trial: optuna.Trial) -> bool:
        """Give a trial its parameters; one that was enqueued with parameters that are not the space's fails."""
        try:
            self._space.suggest(trial)
        except (ValueError, MfasError) as error:
            _log.warning("Trial %d failed: %s", trial.number, error)
            self._tell_failure(trial, "error", f"{type(error).__name__}: {error}")
            return False
        return True

    def _budget(self) -> int | None:
        """Return how many trials the study may have that did not fail; None: as many as its schedule."""
        spec = self._request.spec
        return spec.search.n_trials if isinstance(self._sampler, MFASSampler) else spec.n_trials_planned()

    def _n_open(self) -> int:
        """Return how many trials are running or did not fail."""
        return sum(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _n_admitted(self) -> int:
        """Return how many trials are certain of their place in the budget: finished ones, and running with parameters.

        A trial gets its parameters in the batch that admits it, and one batch comes after the other. Its number says
        nothing: that of a trial which was enqueued is older than it.
        """
        return sum(
            records.is_finished(trial) or (trial.state == TrialState.RUNNING and bool(trial.params))
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _is_next_of(self, first: records.Proposal | None) -> bool:
        """Return whether the next ask would take another slot of the same step."""
        if not isinstance(self._sampler, MFASSampler):
            return True
        decision = self._sampler.decide(self._study)
        step = decision.step
        return (
            first is not None
            and step is not None
            and decision.kind == "slot"
            and (step.iteration, step.depth) == (first.iteration, first.depth)
        )

    # Training and telling.

    def _run_group(self, trials: list[optuna.Trial]) -> list[FrozenTrial]:
        """Run trials that were asked for and return those that are stored now; all of them at once, or none."""
        if not trials:
            return []
        try:
            outcomes = self._runner.run(self._study, trials, self._interrupts.immediate)
            ended = {trial.number for trial, _ in outcomes}
            untouched = [trial for trial in trials if trial.number not in ended]

            def tell() -> list[FrozenTrial]:
                reach("before tell")
                with database.batch(self._study, trials):
                    told = self._tell_all(outcomes)
                    self._give_back(untouched, "a network before it in its step failed and comes first")
                    reach("before commit")
                reach("after commit")
                return told

            return self._opened.patience.run(tell)
        except BaseException as error:  # Interrupted among them; what concerns one trial alone is an outcome.
            if not database.is_database_error(error):
                self._give_back_in_batch(trials, error)
            raise

    def _give_back_in_batch(self, trials: Sequence[optuna.Trial], error: BaseException) -> None:
        def give_back() -> None:
            with database.batch(self._study, trials):
                self._give_back(trials, str(error) or "the worker ended")

        self._opened.patience.run(give_back)

    def _tell_all(self, outcomes: Sequence[tuple[optuna.Trial, Outcome]]) -> list[FrozenTrial]:
        """Store what became of trials; leave out those that another worker took for dead and ended."""
        told: list[FrozenTrial] = []
        lost: set[str | None] = set()  # Weights of such: what started from them does not count either.
        for trial, outcome in outcomes:
            weights = outcome.record.weights if isinstance(outcome, TrialResult) else ()
            if lost.intersection(layer.started_from for layer in weights):
                self._give_back([trial], "it started from the weights of a trial that was lost")
                stored = None
            else:
                stored = self._tell(trial, outcome)
            if stored is None:
                lost.update(layer.published for layer in weights)
            else:
                told.append(stored)
        return told

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> FrozenTrial | None:
        """Store what became of a trial; None when another worker took this one for dead and ended it."""
        lost = optuna.exceptions.UpdateFinishedTrialError
        try:
            if not isinstance(outcome, lost):
                return self._tell_outcome(trial, outcome)
        except lost:
            stored = self._study._storage.get_trial(records.trial_id_of(trial))
            if stored.state != TrialState.FAIL or records.read_failure(stored.system_attrs) is not None:
                return stored  # Told before the connection was lost: nobody else gives a trial a result or a reason.
        _log.warning("Trial %d was ended by another worker, which took this one for dead.", trial.number)
        return None

    def _tell_outcome(self, trial: optuna.Trial, outcome: Outcome) -> FrozenTrial:
        if isinstance(outcome, TrialResult):
            records.write_result(trial, outcome.record)
            return self._study.tell(trial, outcome.score, skip_if_finished=True)
        if isinstance(outcome, optuna.TrialPruned):
            return self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        if isinstance(outcome, TrainingDiverged):
            return self._tell_failure(trial, "diverged", str(outcome))
        if is_out_of_memory(outcome):
            return self._tell_failure(trial, "out_of_memory", str(outcome) or "out of memory")
        if isinstance(outcome, MfasError) or database.is_database_error(outcome):
            raise outcome
        return self._tell_failure(trial, "error", f"{type(outcome).__name__}: {outcome}")

    def _give_back(self, trials: Sequence[optuna.Trial | FrozenTrial], why: str) -> None:
        for trial in trials:
            self._tell_failure(trial, "given_back", why)

    def _tell_failure(
        self, trial: optuna.Trial | FrozenTrial, reason: records.FailureReason, message: str
    ) -> FrozenTrial:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            records.write_failure(self._study, trial, reason, message)
            if reason == "given_back":
                records.enqueue_again(self._study, records.system_attributes(self._study, records.trial_id_of(trial)))
        asked = trial if isinstance(trial, optuna.Trial) else trial.number
        return self._study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)


def joint_size(request: SearchRequest) -> int:
    """Return how many networks a worker trains at once at most: what was asked for, or as suits the sampler.

    TPE learns from each trial before it proposes the next, so it gets one at a time.
    """
    if request.joint is not None:
        return request.joint
    return 1 if request.spec.search.sampler == "tpe" else request.spec.search.samples_per_step
