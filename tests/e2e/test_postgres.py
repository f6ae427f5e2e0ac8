"""Workers of the command line on one PostgreSQL."""

from __future__ import annotations

import collections
import contextlib

import pytest
from optuna.trial import FrozenTrial

from mfas_optuna.storage import load_study, open_storage
from tests.postgres import PostgresServer

from .conftest import Cli


def stored_trials(url: str) -> list[FrozenTrial]:
    storage = open_storage(url)
    try:
        return load_study(storage, "tiny").get_trials()
    finally:
        storage.engine.dispose()


def test_two_workers_share_a_search(cli: Cli, postgres_url: str) -> None:
    command = ["search", "--study", "tiny", "--storage", postgres_url, "--json"]
    workers = [cli.start(*command) for _ in range(2)]
    outputs = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    trials = stored_trials(postgres_url)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    steps = collections.Counter((trial.user_attrs["iteration"], trial.params["depth"]) for trial in complete)
    assert steps[1, 1] == steps[2, 1] == steps[2, 2] == 4
    assert 4 <= steps[1, 2] <= 5
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    assert {trial.user_attrs.get("failure") for trial in trials} <= {None, "given_back"}


def test_one_worker_finds_there_what_it_finds_in_sqlite(cli: Cli, postgres_url: str) -> None:
    cli.ok("search", "--study", "tiny", "--quiet", "--storage", postgres_url)
    cli.ok("search", "--study", "tiny", "--quiet")
    here, there = stored_trials(f"sqlite:///{cli.home / 'mfas.db'}"), stored_trials(postgres_url)
    assert [(trial.params, trial.value) for trial in here] == [(trial.params, trial.value) for trial in there]


def test_who_starts_while_the_server_is_stopped_waits_for_it(cli: Cli, postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    postgres.stop()
    with contextlib.ExitStack() as stack:
        try:
            workers = [
                stack.enter_context(cli.start(kind, "--study", "tiny", "--trials", "3", "--storage", url))
                for kind in ("worker", "search")
            ]
            for worker in workers:
                assert worker.stderr is not None
                said = next(line for line in worker.stderr if "waiting" in line)
                assert "waiting up to 180 s for it. (connection is bad: connection to server on socket" in said
            assert [worker.poll() for worker in workers] == [None, None]
        finally:
            postgres.start()
        # What `communicate` gives would lack the lines that were read with the first.
        errors = ["".join(worker.stderr or ()) for worker in workers]
        assert [worker.wait(timeout=100) for worker in workers] == [0, 0], errors
    assert all("The study database is back after" in of_one for of_one in errors)
    assert sum(trial.state.name == "COMPLETE" for trial in stored_trials(url)) == 3


def test_what_waits_for_a_server_stops_when_it_is_told_to(cli: Cli, postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    postgres.stop()
    try:
        worker = cli.start("worker", "--study", "tiny", "--storage", url)
        assert worker.stderr is not None
        assert any("waiting" in line for line in worker.stderr)
        worker.terminate()
        _, errors = worker.communicate(timeout=30)
    finally:
        postgres.start()
    assert worker.returncode == 143
    assert "Stopped." in errors


@pytest.mark.parametrize("command", ["worker", "search"])
def test_a_database_that_the_server_does_not_have_is_an_error_at_once(
    cli: Cli, postgres: PostgresServer, command: str
) -> None:
    result = cli.run(command, "--study", "tiny", "--storage", postgres.url("nosuch"), timeout=60)
    assert result.returncode == 2
    assert 'database "nosuch" does not exist' in result.stderr
    assert "waiting" not in result.stderr
