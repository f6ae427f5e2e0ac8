"""What sharing weights by snapshot does to a search, beside the paper's sequential sharing.

    python benchmarks/sharing.py --study avmnist --seeds 0 1 2 3 4

For each kind of sharing and each seed a whole search is run on prepared features (see `mfas-optuna prepare`), in a
database of its own. Then a sample of its networks, the five best and others spread evenly over the ranks, is trained
for `--long-epochs` epochs from fresh weights on the same features. Printed for each search: the seconds of its trials,
the rank correlation (Kendall's tau-b) of brief with long scores over the sample, that of brief training of the same
networks from fresh weights for each of `--fresh-epochs`, the mean long score of its five best, and the best long score
among these. All scores are of the validation split, which also chooses the epoch; so they flatter,
equally for both kinds.
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

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import kendalltau

from mfas_optuna import Architecture
from mfas_optuna import spec as settings
from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.spec import StudySpec
from mfas_optuna.training.brief import BriefData, Member, train_jointly
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.search import prepare, search


@dataclass(frozen=True)
class Row:
    """What one search came to.

    Attributes:
        sharing: How weights were shared.
        seed: Seed of the search.
        n_trials: Complete trials.
        search_s: Seconds from the first ask to the last tell.
        mean_joint_size: Networks trained at once, mean over trials.
        brief_top5: Mean brief score of the five best by brief score.
        tau: Kendall's tau-b of brief with long scores over the sample.
        tau_fresh: Likewise of brief training from fresh weights, by its number of epochs.
        long_top5: Mean long score of the five best by brief score.
        long_best: The best long score among these.
        n_sample: Networks that were trained long.
    """

    sharing: str
    seed: int
    n_trials: int
    search_s: float
    mean_joint_size: float
    brief_top5: float
    tau: float
    tau_fresh: dict[int, float]
    long_top5: float
    long_best: float
    n_sample: int


class Silent:
    """Listens to a search without a word."""

    def say(self, text: str) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Ignore it."""

    def trial_ended(self, study: optuna.Study, trial: optuna.trial.FrozenTrial, n: int, n_planned: int) -> None:
        """Ignore it."""


def request_for(spec: StudySpec, name: str, home: Path, database: Path) -> SearchRequest:
    url = f"sqlite:///{database}"
    root = settings.data_root(None)
    return SearchRequest(spec, name, home, url, root, "auto", "mfas-optuna prepare")


def long_scores(
    spec: StudySpec, features: FeatureSet, networks: list[Architecture], epochs: int, seed: int, size: int = 15
) -> list[float]:
    """Train networks from fresh weights, a few at once, and return their best scores."""
    space = spec.search_space()
    data = BriefData.load(features, standardize=spec.training.standardize, device=torch.device("cpu"))
    long = spec.training.model_copy(update={"epochs": epochs})
    width = spec.fusion.fixed_width
    assert width is not None
    scores: list[float] = []
    for start in range(0, len(networks), size):
        members = []
        for index, architecture in enumerate(networks[start : start + size]):
            generator = torch.Generator().manual_seed(10_000 * (seed + 1) + start + index)
            network = FusionNetwork(
                architecture,
                features.layout.widths(space),
                space.activations,
                width=width,
                n_outputs=features.target.n_outputs,
                dropout=spec.fusion.dropout,
                generator=generator,
            )
            members.append(Member(network, architecture, generator))
        for result in train_jointly(members, data, space, long, order=torch.Generator().manual_seed(seed)):
            if isinstance(result, Exception):
                raise result
            scores.append(result.score)
    return scores


def best_first(complete: Sequence[FrozenTrial], spec: StudySpec) -> dict[Architecture, float]:
    """Return every network of complete trials once, with its best score, the best first."""
    space = spec.search_space()
    ranked: dict[Architecture, float] = {}
    for trial in sorted(complete, key=lambda trial: (-trial.values[0], trial.number)):
        architecture = space.from_parameters(trial.params)
        if architecture is None:
            raise AssertionError("A trial of the search is not of its space.")
        ranked.setdefault(architecture, trial.values[0])
    return ranked


def spread(ranked: Sequence[Architecture], n: int) -> list[Architecture]:
    """Return the five best and others evenly spread over the ranks, n in all."""
    places = dict.fromkeys([*range(5), *(round(place) for place in np.linspace(5, len(ranked) - 1, n - 5))])
    return [ranked[place] for place in places]


def measure(
    spec: StudySpec,
    home: Path,
    sharing: str,
    seed: int,
    folder: Path,
    *,
    n_sample: int,
    long_epochs: int,
    fresh_epochs: Sequence[int],
) -> Row:
    """Run one search and train a sample of its networks long."""
    fusion = spec.fusion.model_copy(update={"sharing": sharing})
    spec = spec.model_copy(update={"fusion": fusion}).with_search(seed=seed)
    request = request_for(spec, f"{sharing}-{seed}", home, folder / f"{sharing}-{seed}.db")
    features = prepare(request, Silent()).features
    started = time.perf_counter()
    study = search(request, Silent()).study
    seconds = time.perf_counter() - started
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    ranked = best_first(complete, spec)
    sample = spread(list(ranked), n_sample)
    long = long_scores(spec, features, sample, long_epochs, seed)
    fresh = {epochs: long_scores(spec, features, sample, epochs, 100 + seed) for epochs in fresh_epochs}
    return Row(
        sharing=sharing,
        seed=seed,
        n_trials=len(complete),
        search_s=seconds,
        mean_joint_size=statistics.mean(trial.user_attrs["joint_size"] for trial in complete),
        brief_top5=statistics.mean(list(ranked.values())[:5]),
        tau=float(kendalltau([ranked[architecture] for architecture in sample], long).statistic),
        tau_fresh={epochs: float(kendalltau(scores, long).statistic) for epochs, scores in fresh.items()},
        long_top5=statistics.mean(long[:5]),
        long_best=max(long[:5]),
        n_sample=len(sample),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="avmnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sample", type=int, default=60, help="networks that are trained long")
    parser.add_argument("--fresh-epochs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--long-epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="Folder of the databases and rows.jsonl [default: a temporary one].")
    given = parser.parse_args()
    spec, home = settings.load_spec(settings.find_study(given.study)), settings.home_folder()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for seed in given.seeds:
            for sharing in ("sequential", "snapshot"):
                row = measure(
                    spec,
                    home,
                    sharing,
                    seed,
                    folder,
                    n_sample=given.sample,
                    long_epochs=given.long_epochs,
                    fresh_epochs=given.fresh_epochs,
                )
                rows.append(row)
                print(json.dumps(asdict(row)), flush=True)
    for name in ("search_s", "mean_joint_size", "brief_top5", "tau", "long_top5", "long_best"):
        for sharing in ("sequential", "snapshot"):
            values = [getattr(row, name) for row in rows if row.sharing == sharing]
            print(
                f"{name:16} {sharing:10} mean {statistics.mean(values):.4f}  of {[round(value, 4) for value in values]}"
            )


if __name__ == "__main__":
    main()
