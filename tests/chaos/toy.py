"""A worker whose trials take milliseconds, on random features, in a process that starts at once."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.prepare import Prepared, weights_folder
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.spec import StudySpec, load_spec
from mfas_optuna.target import Target
from mfas_optuna.worker.estimate import _random_features
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.loop import Worker
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.samplers import make_pruner, make_sampler
from tests.e2e.conftest import TINY

NAME = "toy"

PROCESSES = multiprocessing.get_context("forkserver")
"""Starts processes from one that has imported everything, so that a killed worker is back in no time."""
PROCESSES.set_forkserver_preload(["tests.chaos.toy"])


def toy_request(folder: Path, url: str, n_trials: int, *, sampler: str = "random", joint: int = 2) -> SearchRequest:
    """Return a search of tiny networks."""
    path = folder / "toy.toml"
    if not path.exists():
        path.write_text(TINY, encoding="utf-8")
    spec: StudySpec = load_spec(path).with_search(sampler=sampler, n_trials=n_trials)
    return SearchRequest(
        spec, NAME, folder, url, None, "cpu", "", joint=joint, beat_s=0.2, grace_s=3.0, patience_s=180.0
    )


class Notes:
    """Writes each acknowledged trial into a file, as a user who was told of it would remember it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def say(self, text: str) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Ignore it."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Note the trial, when it is complete."""
        if trial.state == TrialState.COMPLETE:
            self._file.write(json.dumps([trial.number, trial.values[0]]) + "\n")
            self._file.flush()


def run_worker(request: SearchRequest, failpoint: str = "") -> None:
    """Work on a search until it is over: what a worker's child process does after its preparation."""
    os.environ["MFAS_FAILPOINT"] = failpoint
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = database.open_storage(request.storage_url, database.Patience(request.patience_s))
    with (
        Interrupts() as interrupts,
        database.WorkerLock(request.home, request.storage_url, NAME) as lock,
    ):
        opened.patience = database.Patience(request.patience_s, interrupts.check)
        sampler = make_sampler(request.spec)
        study, _ = database.create_study(
            opened, NAME, sampler=sampler, pruner=make_pruner(request.spec), metric="accuracy"
        )
        database.reap_dead(opened, NAME, is_alone=False)
        lock.share()
        layout = FeatureLayout.of_widths(
            {name: dict.fromkeys(of.features, 4) for name, of in request.spec.backbones.items()}
        )
        features = _random_features(
            layout, {"train": 64, "validation": 32}, Target.of_classes(10), np.random.default_rng(0)
        )
        prepared = Prepared(features, "", {}, "", {})
        notes = Notes(request.home / f"notes-{os.getpid()}")
        Worker(request, study, sampler, prepared, notes, interrupts, lock, opened).run()


def start_worker(request: SearchRequest, failpoint: str = "") -> ForkServerProcess:
    """Start a worker in a process of its own."""
    process = PROCESSES.Process(target=run_worker, args=(request, failpoint))
    process.start()
    return process


def stored_trials(url: str) -> list[FrozenTrial]:
    """Return the trials as the database has them now."""
    opened = database.open_storage(url, database.Patience(60))
    try:
        return database.load_study(opened, NAME).get_trials()
    finally:
        opened.engine.dispose()


def check(request: SearchRequest, workers: Sequence[ForkServerProcess] = ()) -> dict[str, int]:
    """Check what is promised once a search has ended, and return what was counted.

    Every acknowledged trial is COMPLETE with the score that was acknowledged, none is left running, the budget is
    exact, every weight that counts lies whole in the store, and was started from one that counts.
    """
    trials = stored_trials(request.storage_url)
    by_number = {trial.number: trial for trial in trials}
    lines = [line for path in request.home.glob("notes-*") for line in path.read_text(encoding="utf-8").splitlines()]
    acknowledged = [json.loads(line) for line in lines if line.endswith("]")]  # A kill may cut the last one short.
    for number, score in acknowledged:
        assert by_number[number].state == TrialState.COMPLETE, number
        assert by_number[number].values == [score]
    states = [trial.state for trial in trials]
    assert TrialState.RUNNING not in states
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == request.spec.search.n_trials
    store = FolderBlobStore(weights_folder(request.home))
    published = {layer.published for trial in complete for layer in records.read_weights(trial.user_attrs)}
    started = {layer.started_from for trial in complete for layer in records.read_weights(trial.user_attrs)}
    assert started - {None} <= published
    for digest in published:
        store.get(digest)  # Checks it against its digest.
    assert all(worker.exitcode == 0 for worker in workers), [worker.exitcode for worker in workers]
    return {
        "complete": len(complete),
        "acknowledged": len(acknowledged),
        "failed": states.count(TrialState.FAIL),
        "running": states.count(TrialState.RUNNING),
        "blobs": len(published),
    }
