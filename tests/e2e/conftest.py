"""The command line as a user runs it: a subprocess, a home of its own, a study small enough for a test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..schemas import check_output
from . import forked

COMMAND = Path(sys.executable).parent / "mfas-optuna"
READ_AT_THE_START = {"OMP_NUM_THREADS", "PYTHONPATH", "PYTHONWARNINGS", "TORCH_HOME"}
"""Variables that a process forked from another has read already."""

TINY = """
title = "A study for tests"

[dataset]
name = "digits"
n_train = 300
n_validation = 100
n_test = 100

[backbones.audio]
kind = "lenet"
channels = [4, 8]
features = ["conv1", "conv2"]
training = { epochs = 1 }

[backbones.image]
kind = "lenet"
channels = [4, 8]
features = ["conv1", "conv2"]
training = { epochs = 1 }

[space]
activations = ["relu", "sigmoid"]
max_depth = 2

[fusion]
width = 4
dropout = 0.1

[search]
n_iterations = 2
samples_per_step = 4

[training]
epochs = 2
"""


@dataclass
class Cli:
    """Runs commands in a working folder with its own `storage/`."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "storage"

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MFAS_")}
        return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **changes}

    def run(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        given = self.environment(**environment)
        if sys.platform == "linux" and not environment.keys() & READ_AT_THE_START:
            result = forked.run(arguments, folder=self.folder, environment=given, timeout=timeout)
        else:
            result = subprocess.run(
                [COMMAND, *arguments],
                cwd=self.folder,
                env=given,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        if "--json" in arguments:
            check_output(arguments, result.stdout, result.returncode)
        return result

    def edit(self, old: str, new: str) -> None:
        """Change the study file."""
        path = self.folder / "studies" / "tiny.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def ok(self, *arguments: str, **environment: str) -> str:
        result = self.run(*arguments, **environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self.ok(*arguments, "--json")))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_at(
        self, arguments: list[str], number: signal.Signals, has_come: Callable[[sqlite3.Connection], bool]
    ) -> tuple[int, str]:
        """Start a command, send it a signal as soon as the database says so, and return its exit code and errors."""
        process = self.start(*arguments)
        database = self.home / "mfas.db"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if database.exists():
                connection = sqlite3.connect(database, timeout=30)
                try:
                    if has_come(connection):
                        break
                except sqlite3.OperationalError:  # The tables are not there yet.
                    pass
                finally:
                    connection.close()
            time.sleep(0.002)
        assert process.poll() is None, f"ended before the signal: {process.communicate()}"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        return process.returncode, errors

    def trials(self, study: str = "tiny") -> list[dict[str, Any]]:
        """Return number, state and everything scientific of a study's trials, by number."""
        import optuna

        url = f"sqlite:///{self.home / 'mfas.db'}"
        loaded = optuna.load_study(study_name=study, storage=url)
        return [
            {
                "number": trial.number,
                "state": trial.state.name,
                "architecture": trial.user_attrs.get("architecture"),
                "params": trial.params,
                "score": trial.values[0] if trial.values else None,
                "curve": trial.intermediate_values,
                "weights": trial.user_attrs.get("weights"),
                "attributes": trial.user_attrs,
            }
            for trial in loaded.trials
        ]

    def results(self, study: str = "tiny") -> list[dict[str, Any]]:
        """Return what must be equal after a kill and a resumption: the complete trials, in order."""
        kept = ("architecture", "params", "score", "curve", "weights")
        return [{key: trial[key] for key in kept} for trial in self.trials(study) if trial["state"] == "COMPLETE"]


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose study `tiny` is prepared: data, backbones and features are there."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "studies").mkdir()
    (folder / "studies" / "tiny.toml").write_text(TINY, encoding="utf-8")
    Cli(folder).ok("prepare", "--study", "tiny")
    return folder


@pytest.fixture
def cli(prepared_home: Path, tmp_path: Path) -> Cli:
    """A command line in a fresh copy of the prepared folder."""
    folder = tmp_path / "work"
    shutil.copytree(prepared_home, folder)
    return Cli(folder)


@pytest.fixture(scope="session")
def uninterrupted(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The complete trials of the study `tiny` when nothing happens to it."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "work"
    shutil.copytree(prepared_home, folder)
    cli = Cli(folder)
    cli.ok("search", "--study", "tiny", "--quiet")
    return cli.results()
