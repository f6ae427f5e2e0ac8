"""A small finished search in a home of its own, to be damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from mfas_optuna import finals
from mfas_optuna import trials as records
from mfas_optuna.finals import FinalResult, FinalTraining
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.spec import StudySpec
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.search import search as run_search
from mfas_optuna.worker.upkeep import FsckOutcome
from mfas_optuna.worker.upkeep import fsck as run_fsck

VALUES: dict[str, Any] = {
    "title": "A study for tests",
    "dataset": {"name": "digits", "n_train": 120, "n_validation": 60, "n_test": 60},
    "backbones": {
        name: {"kind": "lenet", "channels": [2, 4], "features": ["conv1", "conv2"], "training": {"epochs": 1}}
        for name in ("audio", "image")
    },
    "space": {"activations": ["relu", "sigmoid"], "max_depth": 2},
    "fusion": {"width": 4},
    "search": {"n_iterations": 2, "samples_per_step": 4},
}


class Silent:
    """Hears nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Do nothing."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Do nothing."""

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Do nothing."""


@dataclass
class Stored:
    """A search, its final training, and ways to harm them."""

    request: SearchRequest

    @property
    def home(self) -> Path:
        return self.request.home

    @property
    def store(self) -> FolderBlobStore:
        return FolderBlobStore(self.home / "weights")

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="tiny", storage=self.request.storage_url)

    @property
    def final(self) -> optuna.Study:
        return optuna.load_study(study_name="tiny-final", storage=self.request.storage_url)

    def published(self, number: int) -> list[str]:
        return [layer.published for layer in records.read_weights(self.study.trials[number].user_attrs)]

    def last(self) -> FrozenTrial:
        """Return a trial that started from others' weights."""
        warm = [
            trial for trial in self.study.trials if any(w.started_from for w in records.read_weights(trial.user_attrs))
        ]
        return warm[-1]

    def execute(self, statement: str, *values: Any) -> None:
        """Change the database past everything that would refuse it."""
        with contextlib.closing(sqlite3.connect(self.home / "mfas.db")) as connection, connection:
            assert connection.execute(statement, values).rowcount > 0

    def fsck(self, **options: Any) -> FsckOutcome:
        changes = {key: options.pop(key) for key in ("spec", "weights", "home") if key in options}
        return run_fsck(replace(self.request, **changes), Silent(), **options)

    def problems(self, **options: Any) -> list[tuple[str, str]]:
        return [(problem.kind, str(problem)) for problem in self.fsck(**options).audit.problems]


def request_for(home: Path) -> SearchRequest:
    spec = StudySpec.model_validate(VALUES)
    return SearchRequest(
        spec, "tiny", home, f"sqlite:///{home / 'mfas.db'}", None, "cpu", "mfas-optuna prepare --force"
    )


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("finished")
    request = request_for(home)
    study = run_search(request, Silent()).study
    final = optuna.create_study(study_name="tiny-final", storage=request.storage_url, direction="maximize")
    training = FinalTraining("mfas", {"kind": "fusion", "width": 4}, "frozen", {"dropout": 0.0}, 0)
    weights = FolderBlobStore(home / "weights").put(b"a trained head")
    finals.add(final, training, FinalResult(0.5, (0.4, 0.5), 2, 100, 90, 1.5, weights, "2.13.0", "cpu"), "MFAS")
    finals.write_test_read(final, purpose="a test", score=0.5, what="mfas", trial=0)
    study._storage.remove_session()
    return home


@pytest.fixture
def stored(finished: Path, tmp_path: Path) -> Iterator[Stored]:
    verbosity = optuna.logging.get_verbosity()
    yield Stored(request_for(Path(shutil.copytree(finished, tmp_path / "home"))))
    optuna.logging.set_verbosity(verbosity)
