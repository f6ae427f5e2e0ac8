"""The supervisor and its children: what is killed is replaced, what is asked to stop stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

SEARCH = ["search", "--study", "tiny"]


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def wait_for(process: subprocess.Popen[str], condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def n_in_state(cli: Cli, state: str) -> int:
    database = cli.home / "mfas.db"
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            return int(connection.execute("SELECT COUNT(*) FROM trials WHERE state = ?", (state,)).fetchone()[0])
        except sqlite3.OperationalError:  # The tables are not there yet.
            return 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_is_killed_is_replaced(
    cli: Cli, uninterrupted: list[dict[str, Any]], number: signal.Signals
) -> None:
    process = cli.start(*SEARCH, "--json")
    wait_for(process, lambda: n_in_state(cli, "RUNNING"))
    (child,) = children(process.pid)
    os.kill(child, number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"The worker's process {child} was killed by {number.name}" in errors
    assert cli.results() == uninterrupted
    assert json.loads(output)["n_finished"] == 16
    failed = [trial["attributes"] for trial in cli.trials() if trial["state"] == "FAIL"]
    assert {trial["failure"] for trial in failed} <= {"worker_died"}
    assert all(number.name in trial["failure_message"] for trial in failed)


def test_the_child_ends_with_its_supervisor(cli: Cli) -> None:
    process = cli.start(*SEARCH)
    wait_for(process, lambda: n_in_state(cli, "RUNNING"))
    (child,) = children(process.pid)
    process.kill()
    process.communicate(timeout=20)  # The child holds the same pipes.
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()


def test_a_worker_that_dies_again_and_again_is_given_up(cli: Cli) -> None:
    result = cli.run("worker", "--study", "tiny", MFAS_FAILPOINT="after ask")
    assert result.returncode == 1
    assert result.stderr.count("was killed by SIGKILL") == 5
    assert "5 times in a row without a finished trial: given up" in result.stderr
    assert {trial["attributes"]["failure"] for trial in cli.trials()} == {"worker_died"}


def test_two_workers_of_one_command(cli: Cli) -> None:
    result = cli.run(*SEARCH, "--workers", "2", "--json", "--trials", "11")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["n_finished"] == json.loads(result.stdout)["n_new"] == 11
    lines = [line for line in result.stderr.splitlines() if "trials/min" in line]
    assert len(lines) == len(cli.trials())
    assert result.stderr.count("Search: ") <= 1


def test_several_workers_are_stopped_together(cli: Cli) -> None:
    process = cli.start(*SEARCH, "--workers", "2", "--sampler", "random", "--trials", "500", "--name", "tiny")
    wait_for(process, lambda: n_in_state(cli, "RUNNING"))
    status = cli.json("status", "--study", "tiny", "--sampler", "random", "--name", "tiny")["workers"]
    assert status
    assert {worker["pid"] for worker in status} <= set(children(process.pid))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.count("goes on from here") == 1
    assert "Traceback" not in errors
    assert n_in_state(cli, "RUNNING") == 0


def test_the_quiet_form_prints_plain_lines_and_no_result(cli: Cli) -> None:
    result = cli.run("worker", "--study", "tiny", "--trials", "3")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "Study tiny: 3 trials"
    status = cli.json("status", "--study", "tiny", "--seed", "0")
    assert status["workers"] == []
