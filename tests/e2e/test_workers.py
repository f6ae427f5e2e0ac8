"""Several workers of the command line on one database."""

from __future__ import annotations

import collections
import json
import signal

import pytest

from .conftest import Cli
from .test_resume import n_complete

SEARCH = ["search", "--study", "tiny"]


def test_three_workers_share_a_search(cli: Cli) -> None:
    workers = [cli.start(*SEARCH, "--json") for _ in range(3)]
    outputs = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    outcomes = [json.loads(output) for output, _ in outputs]
    assert all(outcome["best"] == outcomes[0]["best"] for outcome in outcomes)
    assert {trial["attributes"].get("failure") for trial in cli.trials()} <= {None, "given_back"}
    trials = [trial for trial in cli.trials() if trial["state"] == "COMPLETE"]
    assert sum(outcome["n_new"] for outcome in outcomes) >= len(trials)
    steps = collections.Counter((trial["attributes"]["iteration"], trial["params"]["depth"]) for trial in trials)
    # Four times 4 slots, and at most one over-draw in the step of depth 2 that is not the last.
    assert steps[1, 1] == steps[2, 1] == 4
    assert 4 <= steps[1, 2] <= 5
    assert steps[2, 2] == 4
    assert len({trial["architecture"] for trial in trials}) == len(trials)


def test_the_others_take_over_from_a_killed_worker(cli: Cli) -> None:
    survivor = cli.start(*SEARCH, "--json")
    code, _ = cli.stop_at(SEARCH, signal.SIGKILL, n_complete(3))
    assert code == -signal.SIGKILL
    output, errors = survivor.communicate(timeout=200)
    assert survivor.returncode == 0, errors
    assert json.loads(output)["n_finished"] >= 16
    states = collections.Counter(trial["state"] for trial in cli.trials())
    assert states["RUNNING"] == 0
    assert states["COMPLETE"] >= 16
    assert states["FAIL"] <= 1


@pytest.mark.parametrize("sampler", ["random", "mfas"])
def test_a_budget_is_kept_by_workers_that_begin_together(cli: Cli, sampler: str) -> None:
    command = [*SEARCH, "--sampler", sampler, "--name", "shared", "--trials"]
    cli.ok(*command, "1", "--quiet")
    workers = [cli.start(*command, "7", "--quiet") for _ in range(3)]
    outputs = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    states = collections.Counter(trial["state"] for trial in cli.trials("shared"))
    assert states["COMPLETE"] == 7
    assert states["RUNNING"] == 0
