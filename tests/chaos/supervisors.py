"""Supervisors that are killed at random: their children end with them, and others take over their trials."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from mfas_optuna import storage as database
from tests.e2e.conftest import TINY, Cli
from tests.postgres import PostgresServer
from tests.slurm import wait_until

N_SUPERVISORS = 2
TRIALS_A_KILL = 60


def kill_supervisors(server: PostgresServer, folder: Path, wanted: int, rng: random.Random) -> Counter[str]:
    """Kill one supervisor after the other, replacing each, until there were `wanted`; then let the search end.

    Args:
        server: Has the database.
        folder: An empty one, for the study and its home.
        wanted: Kills.
        rng: Chooses whom and when.

    Returns:
        What was done and found; an assertion fails when anything was lost.
    """
    (folder / "studies").mkdir()
    (folder / "studies" / "tiny.toml").write_text(TINY.replace("[training]\nepochs = 2", "[training]\nepochs = 20"))
    cli = Cli(folder)
    url, n_trials = server.url(server.new_database()), 40 + TRIALS_A_KILL * wanted
    searched = ["--study", "tiny", "--sampler", "random", "--trials", str(n_trials), "--storage", url]
    cli.ok("prepare", "--study", "tiny")
    environment = cli.environment(MFAS_JOINT="2", MFAS_GRACE="10", MFAS_BEAT="1")
    command = [sys.executable, "-m", "mfas_optuna", "worker", "--quiet", *searched]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL)

    team = [start() for _ in range(N_SUPERVISORS)]
    found: Counter[str] = Counter()
    try:
        while found["faults"] < wanted:
            index = rng.randrange(N_SUPERVISORS)
            # Mostly at work, now and then while it starts.
            deadline = time.monotonic() + rng.uniform(2, 12)
            while time.monotonic() < deadline and team[index].poll() is None:
                time.sleep(0.1)
            if all(process.poll() == 0 for process in team):
                raise AssertionError(f"the search was over after {found['faults']} of {wanted} kills")
            children = children_of(team[index].pid)
            if team[index].poll() is None:
                team[index].kill()
                team[index].wait()
                found["faults"] += 1
            wait_until(lambda children=children: not any(map(is_there, children)), "the end of the children")  # type: ignore[misc]
            team[index] = start()
        codes = [process.wait(600) for process in team]
        assert codes == [0] * N_SUPERVISORS, codes
    finally:
        for process in team:
            process.kill()
    opened = database.open_storage(url)
    (study,) = optuna.get_all_study_names(opened)
    states = Counter(trial.state for trial in database.load_study(opened, study).get_trials())
    opened.engine.dispose()
    checked = json.loads(cli.ok("fsck", *searched, "--json"))
    assert checked["sound"] is True, checked
    assert states[TrialState.COMPLETE] == n_trials
    found["complete"] = n_trials
    found["repeated"] = states[TrialState.FAIL]
    found["running"] = states[TrialState.RUNNING]
    found["blobs"] = checked["checked"]["blobs"]
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_there(pid: int) -> bool:
    """Return whether a process runs; one that is only a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
