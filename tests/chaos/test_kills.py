"""Workers that are killed at random, at named points, or paused: nothing acknowledged is lost, nothing is left over."""

from __future__ import annotations

import collections
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from mfas_optuna import storage as database
from mfas_optuna.worker.request import SearchRequest
from tests.postgres import PostgresServer

from .toy import NAME, check, start_worker, stored_trials, toy_request

pytestmark = pytest.mark.chaos

DEADLINE_S = 120


def database_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder / 'mfas.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.new_database())


def finish(request: SearchRequest, workers: list[ForkServerProcess]) -> None:
    """Wait until all have ended, and check what they left."""
    for worker in workers:
        worker.join(DEADLINE_S)
    check(request, workers)


@pytest.mark.parametrize(("kind", "sampler"), [("sqlite", "mfas"), ("postgresql", "random")])
def test_random_kills(kind: str, sampler: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Three workers, of which one after the other is killed at a random moment and replaced."""
    rng = random.Random(0)
    search = toy_request(
        tmp_path, database_of(kind, tmp_path, request), 16 if sampler == "mfas" else 40, sampler=sampler
    )
    workers = [start_worker(search) for _ in range(3)]
    for _ in range(8):
        time.sleep(rng.uniform(0.1, 0.6))
        index = rng.randrange(len(workers))
        workers[index].kill()
        workers[index].join()
        workers[index] = start_worker(search)
    finish(search, workers)


@pytest.mark.parametrize(
    "failpoint",
    [
        "before the first beat",
        "after ask",
        "after publish:2",
        "before tell",
        "before commit",
        "after commit",
        "between fail and redo",
    ],
)
def test_a_kill_at_a_named_point(failpoint: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One worker dies there; another then ends the search."""
    search = toy_request(tmp_path, database_of("postgresql", tmp_path, request), 8)
    if failpoint == "between fail and redo":  # Needs somebody's dead trial to fail.
        first = start_worker(search, "after ask")
        first.join(DEADLINE_S)
        assert first.exitcode == -signal.SIGKILL
    dying = start_worker(search, failpoint)
    dying.join(DEADLINE_S)
    assert dying.exitcode == -signal.SIGKILL
    finish(search, [start_worker(search)])


def test_a_paused_worker_delays_nobody_and_drops_its_results(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    search = toy_request(tmp_path, database_of("postgresql", tmp_path, request), 30)
    paused, other = start_worker(search), start_worker(search)
    assert paused.pid is not None
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / f"notes-{paused.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(paused.pid, signal.SIGSTOP)
    try:
        other.join(DEADLINE_S)
        assert other.exitcode == 0  # Ended although the paused one may hold trials: its lease ran out.
        check(search)
        before = {trial.number: (trial.state, trial.values) for trial in stored_trials(search.storage_url)}
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    paused.join(DEADLINE_S)
    assert paused.exitcode == 0
    check(search)
    assert {trial.number: (trial.state, trial.values) for trial in stored_trials(search.storage_url)} == before


@pytest.mark.parametrize(("kind", "sampler"), [("sqlite", "random"), ("postgresql", "mfas")])
def test_a_budget_that_many_workers_want_at_once_is_exact(
    kind: str, sampler: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With enqueued networks among them, whose trials have older numbers than those that are asked for."""
    url = database_of(kind, tmp_path, request)
    for n_trials in (2, 5, 9):
        search = toy_request(tmp_path, url, n_trials, sampler=sampler)
        if n_trials == 5:
            opened = database.open_storage(url)
            study = database.load_study(opened, NAME)
            for _ in range(2):
                study.enqueue_trial({"depth": 1, "layer1.audio": "conv1", "layer1.image": "conv2"})
            opened.engine.dispose()
        workers = [start_worker(search) for _ in range(4)]
        finish(search, workers)
    states = collections.Counter(trial.state.name for trial in stored_trials(url))
    assert states["COMPLETE"] == 9
