"""The study database: opened safely, and cleared of the trials of processes that have ended."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.errors import StorageError
from mfas_optuna.storage import opening, workers
from mfas_optuna.trials import WorkerIdentity


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'deep' / 'mfas.db'}"


def make_study(url: str, name: str = "s") -> optuna.Study:
    study, _ = database.create_study(
        database.open_storage(url),
        name,
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.NopPruner(),
        metric="validation accuracy",
    )
    return study


def test_sqlite_writes_ahead_and_is_safe_against_kills(url: str) -> None:
    storage = database.open_storage(url)
    with storage.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1  # NORMAL


def test_a_study_is_created_once_and_then_opened(url: str) -> None:
    storage = database.open_storage(url)
    settings = {"sampler": optuna.samplers.RandomSampler(), "pruner": optuna.pruners.NopPruner(), "metric": "accuracy"}
    study, is_new = database.create_study(storage, "s", **settings)  # type: ignore[arg-type]
    assert is_new
    assert study.metric_names == ["accuracy"]
    again, is_new = database.create_study(storage, "s", **settings)  # type: ignore[arg-type]
    assert not is_new
    assert again._study_id == study._study_id


def open_and_create(url: str, name: str) -> str:
    return make_study(url, name).study_name


def test_workers_that_start_at_once_on_an_empty_database(url: str) -> None:
    """Creating the tables is a race; all must win it. 4 processes, 3 studies of which two are wanted twice."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        names = pool.starmap(open_and_create, [(url, name) for name in ("a", "b", "a", "c", "b")], chunksize=1)
    assert sorted(names) == ["a", "a", "b", "b", "c"]
    assert sorted(optuna.get_all_study_names(url)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("mfas.db", "not a database URL"),
        ("nosuch://x/y", "no driver"),
        ("postgresql://me:secret@host:port/x", "not a database URL"),
        ("sqlite://", "needs a database file"),
        ("sqlite:///:memory:", "needs a database file"),
        ("sqlite:////dev/null/x.db", "cannot be opened for writing"),
    ],
)
def test_urls_that_cannot_be_used(wrong: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        database.open_storage(wrong)


def test_passwords_are_not_shown() -> None:
    assert database.masked("postgresql+psycopg://me:secret@host/x") == "postgresql+psycopg://me:***@host/x"
    assert "secret" not in database.masked("postgresql://me:secret@host:notaport/x")


def test_a_missing_database_or_study_is_said(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no study database"):
        database.check_exists(url)
    assert not (tmp_path / "deep").exists()
    storage = database.open_storage(url)
    with pytest.raises(StorageError, match="holds no study yet"):
        database.load_study(storage, "s")
    make_study(url, "other")
    with pytest.raises(StorageError, match="There are: other"):
        database.load_study(storage, "s")


def test_a_locked_database_is_waited_for(url: str) -> None:
    make_study(url)
    path = url.removeprefix("sqlite:///")
    program = (
        f"import sqlite3, time; c = sqlite3.connect({path!r}); c.execute('BEGIN IMMEDIATE');"
        "print('locked', flush=True); time.sleep(1); c.rollback()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        study = make_study(url)
        study.tell(study.ask(), 0.5)
    assert len(study.trials) == 1


# Dead workers.


def running_trial(study: optuna.Study, worker: WorkerIdentity | None) -> int:
    trial = study.ask()
    if worker is not None:
        study._storage.set_trial_system_attr(trial._trial_id, *records.worker_attribute(worker))
    return trial.number


def ended_worker() -> WorkerIdentity:
    """Return the identity of a process that has ended."""
    program = (
        "from mfas_optuna.storage import this_worker; w = this_worker();"
        "print(w.host, w.boot_id, w.pid, w.process_start)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    host, boot_id, pid, process_start = output.split()
    return WorkerIdentity(host, boot_id, int(pid), int(process_start))


def test_the_dead_are_told_from_the_living() -> None:
    ours = database.this_worker()
    assert not database.is_dead(ours)
    assert database.is_dead(ended_worker())
    assert database.is_dead(WorkerIdentity(ours.host, ours.boot_id, os.getpid(), ours.process_start - 1))
    assert database.is_dead(WorkerIdentity(ours.host, "another boot", os.getpid(), ours.process_start))
    assert not database.is_dead(WorkerIdentity("another host", "another boot", 1, 1))


def test_a_zombie_is_dead() -> None:
    ours = database.this_worker()
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # It has closed everything; nobody has waited for it.
        deadline = time.monotonic() + 10
        while not workers._is_zombie(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        start = workers._process_start(process.pid)
        assert start is not None
        assert database.is_dead(WorkerIdentity(ours.host, ours.boot_id, process.pid, start))


@pytest.mark.parametrize("is_alone", [True, False])
def test_trials_of_the_dead_fail_without_a_reason(url: str, is_alone: bool) -> None:
    study = make_study(url)
    dead = running_trial(study, ended_worker())
    living = running_trial(study, database.this_worker())
    elsewhere = running_trial(study, WorkerIdentity("another host", "b", 1, 1))
    unknown = running_trial(study, None)
    reaped = database.reap_dead(database.open_storage(url), "s", is_alone=is_alone)
    assert reaped == ([dead, elsewhere, unknown] if is_alone else [dead])
    states = {trial.number: trial.state for trial in study.trials}
    assert states[living] == TrialState.RUNNING
    assert states[dead] == TrialState.FAIL
    assert records.read_failure(study.trials[dead].system_attrs) is None
    assert database.reap_dead(database.open_storage(url), "s", is_alone=is_alone) == []


def test_a_trial_that_nobody_recorded_for_a_grace_is_dead(url: str) -> None:
    """Killed between asking and recording, while others live: nobody is alone, and nobody knows whose it was."""
    study = make_study(url)
    number = running_trial(study, None)
    storage = database.open_storage(url)
    assert database.reap_dead(storage, "s", is_alone=False) == []
    assert database.reap_dead(storage, "s", is_alone=False, grace_s=-1) == [number]


def test_what_the_database_raises_becomes_one_clear_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "SQLITE_TIMEOUT_S", 0.1)
    study = make_study(url)
    holder = sqlite3.connect(url.removeprefix("sqlite:///"))
    holder.execute("BEGIN IMMEDIATE")
    said = r"mfas\.db: the study database failed: database is locked.*the same command goes on"
    with pytest.raises(StorageError, match=said), database.clear_errors(url):
        study.ask()
    holder.close()


def test_the_worker_lock_tells_whether_one_is_alone(tmp_path: Path) -> None:
    with database.WorkerLock(tmp_path, "postgresql://h/x", "s") as first:
        assert first.is_only_worker
        with database.WorkerLock(tmp_path, "postgresql://h/x", "another") as other:
            assert other.is_only_worker
        first.share()
        assert first.is_alone_now()
        with database.WorkerLock(tmp_path, "postgresql://h/x", "s") as second:
            assert not second.is_only_worker
            assert not first.is_alone_now()
            assert not second.is_alone_now()
        assert first.is_alone_now()
    with database.WorkerLock(tmp_path, "postgresql://h/x", "s") as third:
        assert third.is_only_worker


def test_one_database_has_one_lock_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with database.WorkerLock(tmp_path / "a", f"sqlite:///{tmp_path / 'x.db'}", "s") as first:
        first.share()
        with database.WorkerLock(tmp_path / "b", "sqlite:///x.db", "s") as second:
            assert not second.is_only_worker


def test_the_database_survives_a_kill_in_the_middle_of_writing(url: str, tmp_path: Path) -> None:
    program = f"""
from tests.unit.test_storage import make_study
study = make_study({url!r})
print("ready", flush=True)
while True:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.5)
"""
    root = Path(__file__).parents[2]
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while len(make_study(url).trials) % 20 < 10:
                pass
            process.kill()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    states = [trial.state for trial in make_study(url).trials]
    assert set(states) <= {TrialState.COMPLETE, TrialState.RUNNING}
    assert states.count(TrialState.RUNNING) <= 3


def switch_many(folder: Path, count: int) -> int:
    """Open new databases by name; return how many could be opened."""
    for number in range(count):
        opening._switch_to_wal(folder / f"{number}.db")
    return count


def test_new_databases_opened_at_once(tmp_path: Path) -> None:
    """The switch to write-ahead logging is refused to one of two processes that make it at once."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        assert pool.starmap(switch_many, [(tmp_path, 30)] * 4) == [30] * 4
