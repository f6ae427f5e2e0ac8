"""A search from its inputs to its result: opens or joins the study, runs trials, and stops in good order."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import optuna
import sqlalchemy

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.baselines import fixed_architectures, probe_choices
from mfas_optuna.dashboard import Drawings, Showcase
from mfas_optuna.datasets import STAND_IN_MAKERS, read_mark
from mfas_optuna.errors import SearchFailedError, StudyMismatchError
from mfas_optuna.prepare import Preparation, Prepared, artifacts_folder, check_home
from mfas_optuna.search.prior import Prior
from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.spec import StudySpec, differences
from mfas_optuna.target import METRIC_TITLES
from mfas_optuna.worker.devices import choose_device
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.loop import Worker, nobody_else
from mfas_optuna.worker.request import Listener, SearchOutcome, SearchRequest
from mfas_optuna.worker.samplers import is_over, make_pruner, make_sampler, n_finished_trials
from mfas_optuna.worker.watch import Watch

_log = logging.getLogger(__name__)

_POLL_S = 1.0
"""How often one who waits for its turn looks again."""


def prepare(request: SearchRequest, listener: Listener, *, force: bool = False) -> Prepared:
    """Make the data, backbones and features of a study, or find them.

    Raises:
        MfasError: Something a user can mend is wrong; the message says what.
    """
    check_home(request.home)
    with Interrupts() as interrupts, interrupts.immediate():
        return preparation(request, listener).run(force=force)


def search(request: SearchRequest, listener: Listener) -> SearchOutcome:
    """Run a study's search to its end, or go on with it where it stopped.

    Raises:
        Interrupted: A signal asked for the end; running trials were given back.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    with _joined(request, listener) as joined:
        if not is_over(joined.study, request.spec):
            joined.work()
        joined.show()
        return joined.outcome()


def lead(request: SearchRequest, listener: Listener, work: Callable[[Callable[[], None]], None]) -> SearchOutcome:
    """Have workers in other processes run a study's search: prepare it for them, and report what they do.

    Args:
        request: What to search.
        listener: Told of the whole study.
        work: Runs the workers to their end, and calls what it is given now and then, which looks at the study.

    Raises:
        Interrupted: A signal asked for the end during the preparation.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    with _joined(request, listener) as joined:
        if not is_over(joined.study, request.spec):
            joined.prepare()
    with database.clear_errors(request.storage_url):
        if not is_over(joined.study, request.spec):
            joined.opened.patience = database.Patience(request.patience_s)
            watch = Watch(request, joined.opened, joined.study, listener)
            work(watch.look)
            watch.look(now=True)
        joined.show()
        return joined.outcome()


@dataclass(frozen=True)
class _Joined:
    """A study that was opened and claimed, and what a worker of it needs."""

    request: SearchRequest
    listener: Listener
    opened: database.BatchStorage
    study: optuna.Study
    sampler: optuna.samplers.BaseSampler
    interrupts: Interrupts
    lock: database.WorkerLock
    n_before: int

    def prepare(self) -> Prepared:
        """Make data, backbones and features, or wait for who makes them, or find them.

        Until the study has recorded its backbones, one process at a time does so, on whatever machine: the others wait
        and then fetch what it trained.
        """
        with self._turn_unless_recorded():
            with self.interrupts.immediate():
                prepared = preparation(self.request, self.listener).run(recorded=records.read_backbones(self.study))
            _record_inputs(self.study, prepared, self.request.spec)
        scores = records.read_probe_scores(self.study)
        if scores is not None and isinstance(self.sampler, MFASSampler):
            self.sampler.prior = Prior(scores)
        return prepared

    @contextlib.contextmanager
    def _turn_unless_recorded(self) -> Iterator[None]:
        if self._is_recorded():
            yield
            return
        study_id, worker, patience = self.study._study_id, database.this_worker(), self.opened.patience
        with database.Lease(
            self.opened,
            study_id,
            worker,
            beat_s=self.request.beat_s,
            grace_s=self.request.grace_s,
            patience=patience,
        ) as lease:
            turn = database.Turn(self.opened, study_id, worker, lease)
            try:
                self._wait_for(turn)
                yield
            finally:
                with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # Without a lease it is anybody's.
                    turn.give_back()

    def _wait_for(self, turn: database.Turn) -> None:
        """Wait until it is this worker's turn, or until another has recorded what it made."""
        is_said = False
        with self.interrupts.immediate():
            while not self.opened.patience.run(turn.take) and not self._is_recorded():
                if not is_said:
                    self.listener.say("Another worker is preparing this study's backbones; waiting for it")
                    is_said = True
                time.sleep(_POLL_S)

    def _is_recorded(self) -> bool:
        return records.read_features(self.study) is not None

    def work(self) -> None:
        """Search as one of the study's workers."""
        prepared = self.prepare()
        Worker(
            self.request, self.study, self.sampler, prepared, self.listener, self.interrupts, self.lock, self.opened
        ).run()

    def show(self) -> None:
        """Bring what the dashboard shows up to date, and its drawings into this machine's home."""
        showcase = Showcase(self.request.spec, Drawings(artifacts_folder(self.request.home)))
        showcase.show(self.study, self.opened.patience)

    def outcome(self) -> SearchOutcome:
        """Return what the search has come to."""
        study, name = self.study, self.request.study_name
        best = records.best_networks(study.get_trials(deepcopy=False), self.request.spec.search.n_finalists)
        if not best:
            raise SearchFailedError(
                f"Study {name!r} ended without a single complete trial. "
                f"Run `mfas-optuna status --study {name}` to see why trials failed."
            )
        n_finished = n_finished_trials(study)
        return SearchOutcome(
            study,
            best,
            n_finished,
            n_finished - self.n_before,
            records.read_backbones(study) or {},
            records.read_timings(study),
            records.read_stand_in(study),
        )


@contextlib.contextmanager
def _joined(request: SearchRequest, listener: Listener) -> Iterator[_Joined]:
    """Open or create a study and clear it of what the dead left; within, this process counts as a worker of it."""
    check_home(request.home)
    choose_device(request.device)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # The listener says what a user wants to know.
    with contextlib.ExitStack() as stack:
        stack.enter_context(database.clear_errors(request.storage_url))
        interrupts = stack.enter_context(Interrupts())
        with interrupts.immediate():  # Before the lock: nobody need wait for one who waits for the database.
            opened = database.open_storage(request.storage_url, database.Patience(request.patience_s))
        lock = stack.enter_context(database.WorkerLock(request.home, request.storage_url, request.study_name))
        opened.patience = database.Patience(request.patience_s, interrupts.check)
        sampler = make_sampler(request.spec)
        study, is_new = database.create_study(
            opened,
            request.study_name,
            sampler=sampler,
            pruner=make_pruner(request.spec),
            metric=f"validation {METRIC_TITLES[request.spec.metric]}",
        )
        _claim(study, request)
        _check_stand_in(study, request)
        if not is_new:
            reaped = database.reap_dead(
                opened,
                request.study_name,
                is_alone=nobody_else(request, lock.is_only_worker),
                grace_s=request.grace_s,
            )
            listener.say(_resumed(study, request, len(reaped)))
        lock.share()
        yield _Joined(request, listener, opened, study, sampler, interrupts, lock, n_finished_trials(study))


def preparation(request: SearchRequest, listener: Listener) -> Preparation:
    """Return what makes the data, backbones and features of a request."""
    return Preparation(
        request.spec,
        home=request.home,
        data_root=request.data_root,
        device=choose_device(request.device),
        rebuild_command=request.rebuild_command,
        weights=request.weights,
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


def _check_stand_in(study: optuna.Study, request: SearchRequest) -> None:
    """Refuse generated data in place of real data, real in place of generated, and none in place of either."""
    if request.data_root is None or request.spec.dataset.name not in STAND_IN_MAKERS:
        return
    stored, found = records.read_stand_in(study), read_mark(request.data_root)
    if records.read_features(study) is not None and stored != found:
        raise StudyMismatchError(
            f"Study {request.study_name!r}: expected the data that it was begun with ({stored or 'no stand-in'}), "
            f"found {request.data_root} ({found or 'not marked as a stand-in'}). Name the folder that it was begun "
            "with, or choose another --name for a new study.",
            [f"stand-in: was {stored or 'none'}, is now {found or 'none'}"],
        )


def _resumed(study: optuna.Study, request: SearchRequest, n_reaped: int) -> str:
    n_finished, n_planned = n_finished_trials(study), request.spec.n_trials_planned()
    if is_over(study, request.spec):
        return f"Study {request.study_name} is finished: {n_finished} trials. Nothing to do; here is its result"
    left = f", {n_reaped} left running by a worker that ended" if n_reaped else ""
    return f"Study {request.study_name}: going on after {n_finished} of {n_planned} trials{left}"


def _record_inputs(study: optuna.Study, prepared: Prepared, spec: StudySpec) -> None:
    stored = records.read_features(study)
    if stored is None:
        space = spec.search_space()
        if space.kind == "extended":
            records.write_probe_scores(study, probe_choices(prepared.features, spec.metric, space))
        for architecture in fixed_architectures(space):
            study.enqueue_trial(space.parameters(architecture), skip_if_exists=True)
        backbones = {modality: trained.as_record() for modality, trained in prepared.backbones.items()}
        records.write_study_inputs(
            study,
            backbones=backbones,
            features=prepared.fingerprint,
            card=prepared.card,
            stand_in=prepared.features.stand_in,
        )
        for modality, trained in prepared.backbones.items():
            if trained.test_score is not None:
                finals.write_test_read(
                    study, purpose="score of a backbone alone", score=trained.test_score, what=modality
                )
    elif stored != prepared.fingerprint:
        raise StudyMismatchError(
            f"The study was begun with features {stored[:12]}, those here are {prepared.fingerprint[:12]}, so that "
            "scores could not be compared. Choose another --name.",
            [f"features: was {stored[:12]}, is now {prepared.fingerprint[:12]}"],
        )
    for stage, seconds in prepared.timings_s.items():
        records.add_timing(study, stage, seconds)
