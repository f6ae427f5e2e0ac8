"""Kill, stop, resume: the finished study equals the uninterrupted one."""

from __future__ import annotations

import signal
import sqlite3
from typing import Any

import optuna
import pytest

from .conftest import Cli

SEARCH = ["search", "--study", "tiny"]


def n_complete(count: int) -> Any:
    def has_come(connection: sqlite3.Connection) -> bool:
        rows = connection.execute("SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
        return int(rows[0]) >= count

    return has_come


def is_running(number: int) -> Any:
    def has_come(connection: sqlite3.Connection, study: str = "tiny") -> bool:
        rows = connection.execute(
            "SELECT COUNT(*) FROM trials JOIN studies USING (study_id) "
            "WHERE state = 'RUNNING' AND number = ? AND study_name = ?",
            (number, study),
        )
        return int(rows.fetchone()[0]) == 1

    return has_come


def has_params(number: int) -> Any:
    def has_come(connection: sqlite3.Connection) -> bool:
        rows = connection.execute(
            "SELECT COUNT(*) FROM trial_params JOIN trials USING (trial_id) WHERE trials.number = ?", (number,)
        )
        return int(rows.fetchone()[0]) >= 1

    return has_come


def has_weights(number: int) -> Any:
    def has_come(connection: sqlite3.Connection) -> bool:
        rows = connection.execute(
            "SELECT COUNT(*) FROM trial_user_attributes AS a JOIN trials AS t USING (trial_id) "
            "WHERE t.number = ? AND a.key = 'weights'",
            (number,),
        )
        return int(rows.fetchone()[0]) >= 1

    return has_come


@pytest.mark.parametrize(
    "has_come",
    [
        pytest.param(is_running(0), id="first trial asked"),
        pytest.param(has_params(3), id="parameters suggested"),
        pytest.param(n_complete(5), id="some complete"),
        pytest.param(has_weights(6), id="results stored"),
        pytest.param(is_running(8), id="leader of a step"),
        pytest.param(is_running(13), id="in the second iteration"),
    ],
)
def test_killed_search_resumes_to_the_same_trials(cli: Cli, uninterrupted: list[dict[str, Any]], has_come: Any) -> None:
    code, _ = cli.stop_at(SEARCH, signal.SIGKILL, has_come)
    assert code == -signal.SIGKILL
    cli.ok(*SEARCH, "--quiet")
    assert cli.results() == uninterrupted
    assert not [trial for trial in cli.trials() if trial["state"] == "RUNNING"]


def has_reported(number: int, epoch: int) -> Any:
    def has_come(connection: sqlite3.Connection, study: str = "tiny") -> bool:
        rows = connection.execute(
            "SELECT COUNT(*) FROM trial_intermediate_values AS v JOIN trials USING (trial_id) "
            "JOIN studies USING (study_id) WHERE number = ? AND step = ? AND study_name = ?",
            (number, epoch, study),
        )
        return int(rows.fetchone()[0]) >= 1

    return has_come


@pytest.mark.parametrize("sharing", ["sequential", "snapshot"])
@pytest.mark.parametrize(
    "has_come",
    [
        pytest.param(is_running(7), id="whole group asked"),
        pytest.param(has_reported(6, 1), id="group in training"),
        pytest.param(has_reported(10, 2), id="group of the next step about to be told"),
    ],
)
def test_killed_with_a_group_in_training(cli: Cli, sharing: str, has_come: Any) -> None:
    """At most the group is repeated, and the finished study is that of an uninterrupted search."""
    spelled = f'width = 4\nsharing = "{sharing}"'
    cli.edit("width = 4", spelled)
    command = [*SEARCH, "--name"]
    cli.ok(*command, "whole", "--quiet")
    cli.stop_at([*command, "killed"], signal.SIGKILL, lambda connection: has_come(connection, "killed"))
    acknowledged = [trial for trial in cli.trials("killed") if trial["state"] == "COMPLETE"]
    cli.ok(*command, "killed", "--quiet")
    assert cli.results("killed") == cli.results("whole")
    after = cli.trials("killed")
    assert [after[trial["number"]] for trial in acknowledged] == acknowledged
    states = [trial["state"] for trial in after]
    assert "RUNNING" not in states
    assert states.count("FAIL") <= 8


def test_killed_with_a_pruner(cli: Cli) -> None:
    """Successive halving does not compare a network with its own lost trial."""
    cli.edit("samples_per_step = 4", 'samples_per_step = 4\npruner = "successive_halving"')
    command = [*SEARCH, "--name"]
    cli.ok(*command, "whole", "--quiet")
    cli.stop_at([*command, "killed"], signal.SIGKILL, lambda connection: has_reported(6, 1)(connection, "killed"))
    cli.ok(*command, "killed", "--quiet")
    assert cli.results("killed") == cli.results("whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("sampler", ["mfas", "random"])
def test_a_network_that_was_enqueued_is_trained_although_its_trial_was_stopped(
    cli: Cli, sampler: str, number: signal.Signals
) -> None:
    command = [*SEARCH, "--sampler", sampler, "--name", "queue", "--trials"]
    cli.ok(*command, "1", "--quiet")
    chosen = {"depth": 2, "layer2.audio": "conv2", "layer2.image": "conv1", "layer2.activation": "sigmoid"}
    study = optuna.load_study(study_name="queue", storage=f"sqlite:///{cli.home / 'mfas.db'}")
    study.enqueue_trial(chosen)
    study.enqueue_trial({"layer1.audio": "nonsense"})
    cli.stop_at([*command, "5"], number, lambda connection: is_running(1)(connection, "queue"))
    cli.ok(*command, "5", "--quiet")
    trials = [trial for trial in cli.trials("queue") if trial["state"] == "COMPLETE"]
    assert len(trials) == 5
    assert sum(chosen.items() <= trial["params"].items() for trial in trials) == 1
    failures = [trial["attributes"] for trial in cli.trials("queue") if trial["attributes"].get("failure") == "error"]
    assert len(failures) == 1
    assert "nonsense" in failures[0]["failure_message"]


def test_two_kills_in_a_row(cli: Cli, uninterrupted: list[dict[str, Any]]) -> None:
    cli.stop_at(SEARCH, signal.SIGKILL, is_running(2))
    cli.stop_at(SEARCH, signal.SIGKILL, is_running(3))
    cli.ok(*SEARCH, "--quiet")
    assert cli.results() == uninterrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_gives_the_trial_back(
    cli: Cli, uninterrupted: list[dict[str, Any]], number: signal.Signals, code: int
) -> None:
    found, errors = cli.stop_at(SEARCH, number, n_complete(4))
    assert found == code
    assert "Traceback" not in errors
    assert "goes on from here" in errors
    states = [trial["state"] for trial in cli.trials()]
    assert "RUNNING" not in states
    cli.ok(*SEARCH, "--quiet")
    assert cli.results() == uninterrupted


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_optunas_own_samplers_resume_too(cli: Cli, sampler: str) -> None:
    command = ["search", "--study", "tiny", "--sampler", sampler, "--trials", "9"]
    cli.ok(*command, "--quiet", "--name", "whole")
    cli.stop_at([*command, "--name", "killed"], signal.SIGKILL, lambda connection: n_complete(13)(connection))
    cli.ok(*command, "--quiet", "--name", "killed")
    assert cli.results("killed") == cli.results("whole")
    assert len(cli.results("whole")) == 9


def test_a_finished_study_says_so_and_prints_its_result(cli: Cli, uninterrupted: list[dict[str, Any]]) -> None:
    first = cli.json(*SEARCH)
    again = cli.run(*SEARCH)
    assert again.returncode == 0
    assert "is finished" in again.stderr
    assert first["best"][0]["architecture"] in again.stdout
    assert cli.results() == uninterrupted


def test_a_larger_budget_goes_on(cli: Cli, uninterrupted: list[dict[str, Any]]) -> None:
    cli.ok(*SEARCH, "--quiet", "--trials", "3")
    assert len(cli.results()) == 3
    cli.ok(*SEARCH, "--quiet", "--trials", "5")
    assert cli.results() == uninterrupted[:5]
