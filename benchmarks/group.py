"""What the database costs a group of trials, beside the group's training: a whole search on random features.

    python -m benchmarks.group
    python -m benchmarks.group --joint 1
    python -m benchmarks.group --samplers random tpe --joint 1 15

The avmnist study's search, with its shapes and its numbers of rows, by the program's own worker on a SQLite database.
Timed are its parts: asking for trials and suggesting their parameters, fitting the surrogate and predicting (which the
ask of a step's first trial contains, and which is taken out of it; with TPE, its sampling), training, reporting scores
when an epoch ends, writing weights to disk, and telling. What is left is reading how the search stands. Sums over the
search, and the share that asks, reports and tells have of the time that training takes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import torch
from optuna.samplers import TPESampler

from benchmarks.report import Verdict, machine, table
from benchmarks.sharing import Silent
from mfas_optuna import objective
from mfas_optuna import spec as settings
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.prepare import Prepared
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.target import Target
from mfas_optuna.worker.estimate import _random_features
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.loop import Worker
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.samplers import make_sampler

MOST_FOR_DATABASE = 0.25
MOST_FOR_SURROGATE = 0.10
TPE_SAMPLING = ("infer_relative_search_space", "sample_relative", "sample_independent")


@dataclass(frozen=True)
class Row:
    """Seconds of a search's parts.

    Attributes:
        sampler: Who searched.
        n_trials: Trials of the search.
        joint: Networks trained at once at most.
        ask_s: Asks and suggests, without the surrogate.
        surrogate_s: Fitting and predicting; with TPE, its sampling.
        train_s: Training, without reports and the writing of weights.
        report_s: Reports at the end of epochs.
        weights_s: Writing weights to disk.
        tell_s: Results and states.
        all_s: Everything.
    """

    sampler: str
    n_trials: int
    joint: int
    ask_s: float
    surrogate_s: float
    train_s: float
    report_s: float
    weights_s: float
    tell_s: float
    all_s: float

    @property
    def database_share(self) -> float:
        """Asks, reports and tells by training."""
        return (self.ask_s + self.report_s + self.tell_s) / self.train_s


def measure(
    *,
    sampler: str = "mfas",
    joint: int = 15,
    n_train: int = 50_000,
    n_validation: int = 5_000,
    channels: int = 8,
    sharing: str = "snapshot",
) -> Row:
    """Run a search and time its parts."""
    spec = settings.load_spec(settings.find_study("avmnist")).with_search(sampler=sampler)
    spec = spec.model_copy(update={"fusion": spec.fusion.model_copy(update={"sharing": sharing})})
    layout = FeatureLayout.of_widths(
        {
            modality: {tap.name: channels * 2**index for index, tap in enumerate(backbone.taps)}
            for modality, backbone in spec.backbones.items()
        }
    )
    sizes = {"train": n_train, "validation": n_validation}
    features = _random_features(layout, sizes, Target.of_classes(10), np.random.default_rng(0))
    seconds: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder, Interrupts() as interrupts:
        url = f"sqlite:///{Path(folder) / 'mfas.db'}"
        request = SearchRequest(spec, "group", Path(folder), url, None, "cpu", "", joint)
        made = make_sampler(spec)
        pruner = optuna.pruners.NopPruner()
        opened = database.open_storage(url)
        study, _ = database.create_study(opened, "group", sampler=made, pruner=pruner, metric="accuracy")
        with database.WorkerLock(Path(folder), url, "group") as lock, contextlib.ExitStack() as patches:
            prepared = Prepared(features, "", {}, "", {})
            worker = Worker(request, study, made, prepared, Silent(), interrupts, lock, opened)
            for owner, name in ((Worker, "_ask"), (Worker, "_run_group"), (objective, "train_jointly"),
                                (FolderBlobStore, "put_all"), (objective.TrialRunner, "run"),
                                *((TPESampler, name) for name in TPE_SAMPLING)):  # fmt: skip
                patches.enter_context(_timed(owner, name, seconds))
            patches.enter_context(_timed_context(objective, "reports", seconds))
            started = time.perf_counter()
            worker.run()
            everything = time.perf_counter() - started
        trials = study.get_trials()
    plans = [records.read_plan(trial.system_attrs) for trial in trials]
    surrogate = sum(plan.fit_s for plan in plans if plan is not None)
    surrogate += sum(seconds[name] for name in TPE_SAMPLING)
    return Row(
        sampler=sampler,
        n_trials=len(trials),
        joint=joint,
        ask_s=seconds["_ask"] - surrogate,
        surrogate_s=surrogate,
        train_s=seconds["train_jointly"] - seconds["reports"],
        report_s=seconds["reports"],
        weights_s=seconds["put_all"],
        tell_s=seconds["_run_group"] - seconds["run"],
        all_s=everything,
    )


def _timed(owner: Any, name: str, seconds: defaultdict[str, float]) -> Any:
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **more: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **more)
        finally:
            seconds[name] += time.perf_counter() - started

    return mock.patch.object(owner, name, timed)


def _timed_context(owner: Any, name: str, seconds: defaultdict[str, float]) -> Any:
    original: Callable[..., Any] = getattr(owner, name)

    @contextlib.contextmanager
    def timed(*arguments: Any, **more: Any) -> Iterator[None]:
        started = time.perf_counter()
        with original(*arguments, **more):
            yield
        seconds[name] += time.perf_counter() - started

    return mock.patch.object(owner, name, timed)


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", choices=["mfas", "random", "tpe"], nargs="+", default=["mfas"])
    parser.add_argument("--joint", type=int, nargs="+", default=[15])
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--sharing", choices=["snapshot", "sequential"], default="snapshot")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"What the database costs a group of trials; {machine()}\n")
    cells, verdicts = [], []
    for channels, joint, sampler in itertools.product(given.channels, given.joint, given.samplers):
        row = measure(sampler=sampler, joint=joint, channels=channels, n_train=given.rows, sharing=given.sharing)
        parts = (row.ask_s, row.report_s, row.tell_s, row.surrogate_s, row.weights_s, row.train_s, row.all_s)
        per_trial = [f"{1e3 * part / row.n_trials:.1f}" for part in parts]
        cells.append([f"{channels} channels", sampler, str(joint), *per_trial, f"{row.database_share:.1%}"])
        if joint > 1 and sampler == "mfas":
            what = f"database / training, {channels} channels, {joint} at once"
            verdicts.append(Verdict(what, row.database_share, MOST_FOR_DATABASE, "at most"))
            what = f"surrogate / training, {channels} channels, {joint} at once"
            verdicts.append(Verdict(what, row.surrogate_s / row.train_s, MOST_FOR_SURROGATE, "at most"))
    parts_timed = ["ask", "report", "tell", "surrogate", "weights", "training", "all"]
    print(table(["avmnist, ms a trial", "sampler", "at once", *parts_timed, "database / training"], cells))
    return verdicts


if __name__ == "__main__":
    main()
