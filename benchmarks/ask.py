"""What a proposal costs, by the number of stored trials, in SQLite and in memory, beside Optuna's own samplers.

    python -m benchmarks.ask
    python -m benchmarks.ask --trials 10000 --asks 60

A study of so many trials is made in memory (by MFASSampler, its surrogate cut to one epoch on 100 trials) and copied
for each sampler into a database opened as the program opens it, and into Optuna's storage in memory. Then each sampler
in turn asks for a trial, suggests its parameters and tells a score, on its own copy, which grows as it does; medians.

MFASSampler's ask takes a network from a published plan (follower), or fits the surrogate first and publishes one
(leader), or leads a step of depth 1, for which nothing is fitted. The whole decision lies in it; RandomSampler and
TPESampler decide in the suggests, so compare the sums. A trial of depth l has 1 + 3 l parameters to suggest, and each
sampler has its own depths. The first ask of a process reads all trials from a database and is listed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.report import machine, table
from mfas_optuna import MFASSampler, SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.search import plan, surrogate
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.space import Architecture
from mfas_optuna.storage import open_storage

SPACE = SearchSpace(
    {"audio": [f"conv{n}" for n in range(1, 6)], "image": [f"conv{n}" for n in range(1, 6)]},
    ["relu", "sigmoid", "tanh"],  # Large enough that 10,000 trials are not all there is at depth 2.
    max_depth=4,
)
SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "random": lambda: RandomSampler(seed=0),
    "tpe": lambda: TPESampler(seed=0),
    "mfas": lambda: MFASSampler(SPACE, seed=0),
}
STORAGES = ("SQLite", "memory")


@dataclass(frozen=True)
class Row:
    """Medians of one role of a sampler.

    Attributes:
        n_trials: Trials stored before the first ask.
        storage: Where.
        role: The sampler; of MFASSampler what its ask had to do.
        n_asks: How many asks the medians are of.
        ask_ms: Milliseconds of `study.ask`.
        suggest_ms: Milliseconds of all suggests of a trial.
        tell_ms: Milliseconds of `study.tell`.
    """

    n_trials: int
    storage: str
    role: str
    n_asks: int
    ask_ms: float
    suggest_ms: float
    tell_ms: float

    @property
    def proposal_ms(self) -> float:
        """Milliseconds from the wish for a trial to its parameters."""
        return self.ask_ms + self.suggest_ms


def score(architecture: Architecture) -> float:
    return seed_from(architecture.paper_notation()) % 10_000 / 10_000


def filled(n_trials: int) -> optuna.Study:
    """Return a study of this many trials, in memory."""
    epochs, surrogate.EPOCHS = surrogate.EPOCHS, 1
    trials_seen, plan.MAX_SURROGATE_TRIALS = plan.MAX_SURROGATE_TRIALS, 100
    try:
        study = optuna.create_study(direction="maximize", sampler=SAMPLERS["mfas"](), study_name="filled")
        study.optimize(lambda trial: score(SPACE.suggest(trial)), n_trials=n_trials)
    finally:
        surrogate.EPOCHS, plan.MAX_SURROGATE_TRIALS = epochs, trials_seen
    n_stored = len(study.get_trials(deepcopy=False))
    if n_stored != n_trials:
        raise SystemExit(f"Expected {n_trials} trials, made {n_stored}.")
    return study


def measure(n_trials: int, *, n_asks: int = 60, storages: Sequence[str] = STORAGES) -> list[Row]:
    """Time all samplers in each storage.

    Args:
        n_trials: Trials stored before the first ask.
        n_asks: How often each sampler asks.
        storages: Which of STORAGES.
    """
    source = filled(n_trials)
    rows: list[Row] = []
    for kind in storages:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'x.db'}"
            storage: BaseStorage = open_storage(url) if kind == "SQLite" else InMemoryStorage()
            for name in SAMPLERS:
                optuna.copy_study(
                    from_study_name="filled", from_storage=source._storage, to_storage=storage, to_study_name=name
                )
            if kind == "SQLite":
                storage = open_storage(url)  # Anew, as a process that joins: it has read nothing yet.
            rows += _rows(n_trials, kind, _times(storage, n_asks))
    return rows


def _times(storage: BaseStorage, n_asks: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return for each role the seconds of every ask, its suggests, and its tell."""
    studies = {
        name: optuna.load_study(study_name=name, storage=storage, sampler=make()) for name, make in SAMPLERS.items()
    }
    times: dict[str, list[tuple[float, float, float]]] = {}
    for turn in range(n_asks):
        for name, study in studies.items():
            started = time.perf_counter()
            trial = study.ask()
            asked = time.perf_counter()
            architecture = SPACE.suggest(trial)
            suggested = time.perf_counter()
            study.tell(trial, score(architecture))
            told = time.perf_counter()
            role = name
            if name == "mfas":
                published = records.read_plan(records.system_attributes(study, trial._trial_id))
                role = "mfas, follower"
                if published is not None:
                    role = "mfas, leader" if published.depth > 1 else "mfas, leader of depth 1"
            if turn == 0:
                role += ", first ask"
            times.setdefault(role, []).append((asked - started, suggested - asked, told - suggested))
    return times


def _rows(n_trials: int, storage: str, times: dict[str, list[tuple[float, float, float]]]) -> list[Row]:
    return [
        Row(
            n_trials,
            storage,
            role,
            len(of_role),
            *(1e3 * statistics.median(column) for column in zip(*of_role, strict=True)),
        )
        for role, of_role in sorted(times.items(), key=lambda item: ("first" in item[0], item[0]))
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the figures as a table, each proposal also beside RandomSampler's in the same storage."""
    random_ms = {(row.n_trials, row.storage): row.proposal_ms for row in rows if row.role == "random"}
    headings = [
        "sampler",
        "trials",
        "storage",
        "asks",
        "ask, ms",
        "suggests, ms",
        "both, ms",
        "beyond random",
        "tell, ms",
    ]
    cells = []
    for row in rows:
        random = random_ms.get((row.n_trials, row.storage))
        beyond = "-" if random is None else f"{row.proposal_ms - random:.2f}"
        ask, suggest, both, tell = (f"{ms:.2f}" for ms in (row.ask_ms, row.suggest_ms, row.proposal_ms, row.tell_ms))
        stored, asks = f"{row.n_trials:,}", str(row.n_asks)
        cells.append([row.role, stored, row.storage, asks, ask, suggest, both, beyond, tell])
    print(table(headings, cells))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--asks", type=int, default=60)
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=STORAGES)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"What a proposal costs; {machine()}")
    for n_trials in given.trials:
        print()
        show(measure(n_trials, n_asks=given.asks, storages=given.storages))


if __name__ == "__main__":
    main()
