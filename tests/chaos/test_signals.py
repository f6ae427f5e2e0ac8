"""Signals to a supervisor: a second Ctrl-C, Ctrl-Z and fg, and SIGTERM to every process, as a scheduler sends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Cli

from .supervisors import children_of, is_there

pytestmark = pytest.mark.chaos

SEARCH = ["search", "--study", "tiny", "--sampler", "random", "--trials", "24"]


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_work(cli: Cli) -> tuple[subprocess.Popen[str], int]:
    """Start a search of long trials and return it with its child once a result is there."""
    cli.edit("[training]\nepochs = 2", "[training]\nepochs = 40")
    process = cli.start(*SEARCH)
    assert process.stderr is not None
    assert any("trials/min" in line for line in process.stderr)
    (child,) = children_of(process.pid)
    return process, child


def goes_on(cli: Cli) -> None:
    cli.ok(*SEARCH, "--quiet")
    checked = json.loads(cli.ok("fsck", *SEARCH[1:], "--json"))
    assert (checked["sound"], checked["checked"]["complete"]) == (True, 24)


def test_a_second_ctrl_c_ends_it_at_once(cli: Cli) -> None:
    process, child = at_work(cli)
    with process:
        os.kill(child, signal.SIGSTOP)  # So that it cannot end between the two.
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        os.kill(child, signal.SIGCONT)
        assert process.wait(timeout=100) == 130
    assert not is_there(child)
    goes_on(cli)


def test_ctrl_z_stops_the_child_too_and_fg_goes_on(cli: Cli) -> None:
    process, child = at_work(cli)
    with process:
        process.send_signal(signal.SIGTSTP)
        wait_for(lambda: (state_of(process.pid), state_of(child)) == ("T", "T"))
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: "T" not in (state_of(process.pid), state_of(child)))
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(timeout=100) == 0, rest
    goes_on(cli)


def test_sigterm_to_every_process_is_one_request(cli: Cli) -> None:
    process, child = at_work(cli)
    with process:
        for pid in (child, process.pid):
            os.kill(pid, signal.SIGTERM)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(timeout=100) == 143, rest
        assert "goes on from here" in rest
    running = [trial for trial in cli.trials("tiny-random") if trial["state"] == "RUNNING"]
    assert running == []
    goes_on(cli)
