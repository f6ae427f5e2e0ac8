"""A PostgreSQL that is restarted, stopped for seconds, or cuts its connections while workers run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.postgres import PostgresServer

from .toy import check, start_worker, toy_request

pytestmark = pytest.mark.chaos


def n_complete(server: PostgresServer, database: str) -> int:
    with server.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
    assert row is not None
    return int(row[0])


def wait_for(condition: Callable[[], bool], workers: Sequence[ForkServerProcess], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert not any(worker.exitcode for worker in workers)
        time.sleep(0.02)


@pytest.mark.parametrize("sampler", ["random", "mfas"])
def test_workers_live_through_restarts_outages_and_cut_connections(
    postgres: PostgresServer, tmp_path: Path, sampler: str
) -> None:
    name = postgres.new_database()
    n_trials = 60 if sampler == "random" else 16
    request = toy_request(tmp_path, postgres.url(name), n_trials, sampler=sampler)

    def outage() -> None:
        postgres.stop("immediate")
        time.sleep(5)
        postgres.start()

    trouble: list[Callable[[], object]] = [
        lambda: postgres.restart("fast"),
        lambda: postgres.terminate_backends(name),
        lambda: postgres.restart("immediate"),
        outage,
        lambda: postgres.terminate_backends(name),
    ]
    workers = [start_worker(request) for _ in range(2)]
    wait_for(lambda: "trials" in postgres_tables(postgres, name), workers)
    for number, strike in enumerate(trouble):
        wanted = (number + 1) * n_trials // (len(trouble) + 2)
        wait_for(lambda wanted=wanted: n_complete(postgres, name) >= wanted, workers)  # type: ignore[misc]
        strike()
    for worker in workers:
        worker.join(120)
    counted = check(request, workers)
    assert counted["acknowledged"] == n_trials


def postgres_tables(server: PostgresServer, database: str) -> set[str]:
    with server.connect(database) as connection:
        rows = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
    return {row[0] for row in rows}
