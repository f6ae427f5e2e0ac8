"""Leases: who lives, by the database's clock; and the trials of those who do not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.storage import BatchStorage, Lease, leases
from mfas_optuna.trials import WorkerIdentity

FAR = WorkerIdentity("another host", "boot", 7, 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchStorage]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('leases') / 'mfas.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    storage = database.open_storage(url)
    yield storage
    storage.engine.dispose()


@pytest.fixture
def study(storage: BatchStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))


def set_back(storage: BatchStorage, seconds: float) -> None:
    """Make all leases older."""
    with storage.engine.begin() as connection:
        column = leases._WORKERS.c.beat_at
        connection.execute(leases._WORKERS.update().values(beat_at=column - seconds))


def begin(study: optuna.Study, storage: BatchStorage, worker: WorkerIdentity) -> optuna.Trial:
    storage.stamp = records.worker_attribute(worker)
    trial = study.ask()
    storage.stamp = None
    return trial


def test_the_databases_clock_is_that_of_this_machine(storage: BatchStorage) -> None:
    assert leases.read_now(storage) == pytest.approx(time.time(), abs=5)


def test_a_lease_is_held_while_its_worker_works(storage: BatchStorage, study: optuna.Study) -> None:
    ours = database.this_worker()
    with Lease(storage, study._study_id, ours, beat_s=0.02, grace_s=30):
        (found,) = database.living(storage, study._study_id)
        assert (found.worker, found.grace_s) == (ours, 30)
        set_back(storage, 1000)
        deadline = time.monotonic() + 20
        while not database.living(storage, study._study_id) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert database.living(storage, study._study_id)  # Renewed.
    assert database.read_leases(storage, study._study_id) == []


def test_a_trial_bears_its_worker_from_its_first_moment(storage: BatchStorage, study: optuna.Study) -> None:
    """One that is created, and one that was enqueued: neither is ever seen running without it."""
    study.enqueue_trial({"x": 0.5})
    for _ in range(2):
        trial = begin(study, storage, FAR)
        stored = study.get_trials()[trial.number]
        assert stored.state == TrialState.RUNNING
        assert records.read_worker(stored.system_attrs) == FAR
    unstamped = study.ask().number
    assert records.read_worker(study.trials[unstamped].system_attrs) is None


def test_trials_of_a_silent_worker_are_dead_after_its_grace(storage: BatchStorage, study: optuna.Study) -> None:
    lease = Lease(storage, study._study_id, FAR, grace_s=30)
    lease.beat()
    number = begin(study, storage, FAR).number
    reap = {"is_alone": False, "by_lease": True}
    assert database.reap_dead(storage, "s", **reap) == []
    set_back(storage, 29)
    assert database.reap_dead(storage, "s", **reap) == []
    set_back(storage, 5)
    assert database.reap_dead(storage, "s", is_alone=False) == []  # Who cannot judge, does not.
    assert database.reap_dead(storage, "s", **reap) == [number]
    assert study.trials[number].state == TrialState.FAIL
    assert records.read_failure(study.trials[number].system_attrs) is None


def test_a_worker_that_never_took_a_lease_is_dead_after_the_grace(storage: BatchStorage, study: optuna.Study) -> None:
    number = begin(study, storage, FAR).number
    assert database.reap_dead(storage, "s", is_alone=False, by_lease=True, grace_s=100) == []
    assert database.reap_dead(storage, "s", is_alone=False, by_lease=True, grace_s=-1) == [number]


def test_a_worker_judges_only_after_a_grace_without_a_gap(
    storage: BatchStorage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    lease = Lease(storage, study._study_id, FAR, beat_s=1, grace_s=10)
    beats = iter([1, 1, 1, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    judged = []

    def wait(_seconds: float) -> bool:
        nonlocal now
        judged.append(lease.can_judge())
        step = next(beats, None)
        now += step or 0
        return step is None

    monkeypatch.setattr(lease._is_over, "wait", wait)
    lease._renew()
    # Steady from 1000 on; a gap of 7 s, which is more than half a grace, begins the count again at 1010.
    assert judged == [False] * 4 + [False] * 10 + [True] * 2


def test_a_failed_renewal_ends_nothing(
    storage: BatchStorage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(storage, study._study_id, FAR, beat_s=0.01, grace_s=10)
    n_calls = 0

    def beat() -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls in (2, 3):
            raise sqlalchemy.exc.OperationalError("beat", {}, RuntimeError("away"))

    monkeypatch.setattr(lease, "beat", beat)
    with lease:
        deadline = time.monotonic() + 20
        while n_calls < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert n_calls >= 6


def test_the_row_of_a_worker_long_gone_is_deleted(storage: BatchStorage, study: optuna.Study) -> None:
    Lease(storage, study._study_id, FAR, grace_s=1).beat()
    set_back(storage, 1000)
    with Lease(storage, study._study_id, database.this_worker()):
        assert [lease.worker for lease in database.read_leases(storage, study._study_id)] == [database.this_worker()]


def test_what_ended_a_worker_is_written_to_its_trials(storage: BatchStorage, study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.25})
    theirs, mine = begin(study, storage, FAR).number, begin(study, storage, database.this_worker()).number
    Lease(storage, study._study_id, FAR).beat()
    assert database.fail_trials_of(storage, "s", FAR, "killed by SIGSEGV") == [theirs]
    trials = study.trials
    assert records.read_failure(trials[theirs].system_attrs) == "worker_died"
    assert trials[theirs].user_attrs[records.FAILURE_MESSAGE] == "killed by SIGSEGV"
    assert trials[mine].state == TrialState.RUNNING
    assert [trial.state for trial in trials[2:]] == [TrialState.WAITING]  # Enqueued again.
    assert database.read_leases(storage, study._study_id) == []
