"""Whole searches with shared weights, by several samplers, and what their five best networks are worth.

    python -m benchmarks.live --study avmnist --seeds 5
    python -m benchmarks.live --study avmnist-transfer --seeds 8 --trials 195 --contestants calibrated random tpe

Each search runs in a database of its own on prepared features (see `mfas-optuna prepare`), as `mfas-optuna search`
runs it: a group of networks at once, asked for before any of its scores is told; but with TPE one network at a time, so
that it learns from each before it proposes the next, and its search takes several times as long. The five best
networks, each once, by the score that the search saw are then trained again from fresh weights: briefly, as in the
search, `--retrain` times, and once for `--long-epochs` epochs. Scores are of the validation split, which the search
saw too: retraining takes away the luck of one training, not that of the split. Differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from benchmarks.report import machine
from benchmarks.report import table as markdown
from benchmarks.sharing import Silent, best_first, long_scores, request_for
from benchmarks.table.compare import Difference
from mfas_optuna import spec as settings
from mfas_optuna.spec import StudySpec
from mfas_optuna.worker.search import prepare, search

CONTESTANTS: Mapping[str, Mapping[str, Any]] = {
    "calibrated": {"sampler": "mfas", "mode": "calibrated"},
    "paper": {"sampler": "mfas", "mode": "paper"},
    "random": {"sampler": "random"},
    "tpe": {"sampler": "tpe"},
}
N_TOP = 5


@dataclass(frozen=True)
class Row:
    """What one search came to.

    Attributes:
        contestant: Who searched.
        seed: Seed of the search.
        n_trials: Complete trials.
        n_networks: Different networks among them.
        search_s: Seconds from the first ask to the last tell.
        seen_top5: Mean score of the five best, as the search saw it.
        brief_top5: Their mean score, trained again briefly from fresh weights.
        long_top5: Their mean score after long training.
        long_best: The best of these.
        mean_depth: Mean depth of the five.
    """

    contestant: str
    seed: int
    n_trials: int
    n_networks: int
    search_s: float
    seen_top5: float
    brief_top5: float
    long_top5: float
    long_best: float
    mean_depth: float


def measure(
    spec: StudySpec, home: Path, contestant: str, seed: int, folder: Path, *, retrain: int, long_epochs: int
) -> Row:
    """Run one search and train its five best again."""
    spec = spec.with_search(seed=seed, **CONTESTANTS[contestant])
    request = request_for(spec, f"{contestant}-{seed}", home, folder / f"{contestant}-{seed}.db")
    features = prepare(request, Silent()).features
    started = time.perf_counter()
    study = search(request, Silent()).study
    seconds = time.perf_counter() - started
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    seen = best_first(complete, spec)
    top = list(seen)[:N_TOP]
    brief = [long_scores(spec, features, top, spec.training.epochs, seed=1000 * seed + turn) for turn in range(retrain)]
    long = long_scores(spec, features, top, long_epochs, seed=seed)
    return Row(
        contestant=contestant,
        seed=seed,
        n_trials=len(complete),
        n_networks=len(seen),
        search_s=round(seconds, 2),
        seen_top5=statistics.mean(seen[architecture] for architecture in top),
        brief_top5=statistics.mean(score for turn in brief for score in turn),
        long_top5=statistics.mean(long),
        long_best=max(long),
        mean_depth=statistics.mean(architecture.depth for architecture in top),
    )


def text(rows: Sequence[Row]) -> str:
    """Return the figures of all contestants, and the paired differences to the first."""
    names = list(dict.fromkeys(row.contestant for row in rows))
    figures = ("seen_top5", "brief_top5", "long_top5", "long_best")

    def values(name: str, figure: str) -> np.ndarray:
        return np.array([getattr(row, figure) for row in rows if row.contestant == name])

    means = [
        [
            name,
            *(
                f"{100 * values(name, figure).mean():.2f} ± {100 * values(name, figure).std(ddof=1):.2f}"
                for figure in figures
            ),
            f"{values(name, 'mean_depth').mean():.1f}",
            f"{values(name, 'n_networks').mean():.0f} of {values(name, 'n_trials').mean():.0f}",
            f"{np.median(values(name, 'search_s')):.0f}",
        ]
        for name in names
    ]
    headings = ["%, mean ± deviation", *figures, "mean depth", "networks", "search, s"]
    differences = [
        [name, *(str(Difference.of(values(names[0], figure), values(name, figure))) for figure in figures)]
        for name in names[1:]
    ]
    return "\n\n".join([markdown(headings, means), markdown([f"{names[0]} less ..., 1e-4", *figures], differences)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="avmnist")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each contestant, at least 2")
    parser.add_argument("--trials", type=int, help="of each search [default: as many as the study plans]")
    parser.add_argument(
        "--n-validation", type=int, help="validation pairs [default: the study's]; the tables have 10000"
    )
    parser.add_argument("--retrain", type=int, default=3)
    parser.add_argument("--long-epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="folder of the databases and rows.jsonl [default: a temporary one]")
    given = parser.parse_args(argv)
    spec, home = settings.load_spec(settings.find_study(given.study)), settings.home_folder()
    trials = given.trials or spec.n_trials_planned()
    if given.n_validation:
        dataset = spec.dataset.model_copy(update={"n_validation": given.n_validation})
        spec = spec.model_copy(update={"dataset": dataset})
    search_settings = spec.search.model_copy(update={"n_iterations": "unlimited", "n_trials": trials})
    spec = spec.model_copy(update={"search": search_settings})
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(given.seeds):
            for contestant in given.contestants:
                row = measure(
                    spec, home, contestant, seed, folder, retrain=given.retrain, long_epochs=given.long_epochs
                )
                rows.append(row)
                with (folder / "rows.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(row)) + "\n")
                print(json.dumps(asdict(row)), flush=True)
    print(f"\n{machine()}\n{given.study}: {given.seeds} searches of {trials} trials each\n\n{text(rows)}")


if __name__ == "__main__":
    main()
