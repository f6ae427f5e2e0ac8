"""What a proposal costs beside RandomSampler's, in the same SQLite database, at growing numbers of stored trials.

    python benchmarks/ask.py --trials 1000 10000

A study of that many trials is made in memory (by the sampler itself, its surrogate cut to one epoch on 100 trials) and
copied into a database. Then asks of both samplers are timed in turn on the same study, each trial with its parameters
suggested and told. A follower's ask takes a network from a published plan; a leader's fits the surrogate first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import optuna
import torch

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


def score(architecture: Architecture) -> float:
    return seed_from(architecture.paper_notation()) % 10_000 / 10_000


def make_sampler() -> MFASSampler:
    return MFASSampler(SPACE, seed=0)


def fill(url: str, n_trials: int) -> None:
    """Store a study of this many trials."""
    epochs, surrogate.EPOCHS = surrogate.EPOCHS, 1
    trials_seen, plan.MAX_SURROGATE_TRIALS = plan.MAX_SURROGATE_TRIALS, 100
    memory = optuna.create_study(direction="maximize", sampler=make_sampler(), study_name="s")
    memory.optimize(lambda trial: score(SPACE.suggest(trial)), n_trials=n_trials)
    surrogate.EPOCHS, plan.MAX_SURROGATE_TRIALS = epochs, trials_seen
    n_stored = len(memory.get_trials(deepcopy=False))
    if n_stored != n_trials:
        raise SystemExit(f"Expected {n_trials} trials, made {n_stored}.")
    optuna.copy_study(from_study_name="s", from_storage=memory._storage, to_storage=open_storage(url))


def measure(n_trials: int, n_asks: int) -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'x.db'}"
        fill(url, n_trials)
        storage = open_storage(url)
        times: dict[str, list[float]] = {}
        studies = {
            "random": optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0)),
            "mfas": optuna.load_study(study_name="s", storage=storage, sampler=make_sampler()),
        }
        for turn in range(n_asks):
            for name, study in studies.items():
                clock = [time.perf_counter()]
                trial = study.ask()
                clock.append(time.perf_counter())
                architecture = SPACE.suggest(trial)
                clock.append(time.perf_counter())
                study.tell(trial, score(architecture))
                clock.append(time.perf_counter())
                attributes = records.system_attributes(study, trial._trial_id)
                role = name
                if name == "mfas":
                    role = "mfas leader" if records.read_plan(attributes) else "mfas follower"
                if turn == 0:
                    role += ", first ask of a process"
                for what, start, end in zip(("ask", "suggest", "tell"), clock, clock[1:], strict=False):
                    seconds = end - start
                    times.setdefault(f"{role}: {what}", []).append(
                        seconds / len(trial.params) if what == "suggest" else seconds
                    )
        for what, values in sorted(times.items()):
            print(f"{n_trials} trials; {what}: median {statistics.median(values) * 1e3:.2f} ms of {len(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--asks", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for n_trials in given.trials:
        measure(n_trials, given.asks)


if __name__ == "__main__":
    main()
