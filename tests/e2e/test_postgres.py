"""Workers of the command line on one PostgreSQL."""

from __future__ import annotations

import collections

from optuna.trial import FrozenTrial

from mfas_optuna.storage import load_study, open_storage

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
