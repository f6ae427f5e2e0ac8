"""What the surrogate costs and how well it ranks, by the number of evaluations that it is fitted to.

    python benchmarks/surrogate.py

Scores of the avmnist space are made up: an effect of each feature and activation, of pairs of features in a layer, of
pairs of features in consecutive layers, and of the depth, plus noise of 0.3 deviations on those that are fitted. The
rank correlation is Spearman's with the true scores of 900 networks that are drawn anew, a mean over seeds; the times
are of one fit and one prediction of these 900, on one thread, median and least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.search.surrogate import Surrogate

SPACE = SearchSpace(
    {"audio": [f"conv{n}" for n in range(1, 6)], "image": [f"conv{n}" for n in range(1, 4)]}, ["relu", "sigmoid"], 4
)
N_CANDIDATES = 900
NOISE = 0.3


@dataclass(frozen=True)
class Row:
    """Figures for one number of evaluations."""

    n_evaluations: int
    median_ms: float
    least_ms: float
    correlation: float
    standard_error: float


def made_up(seed: int) -> Callable[[Architecture], float]:
    """Return a score function."""
    rng = np.random.default_rng(seed)
    effects = [rng.normal(size=radix) for radix in SPACE.layer_radices]
    pairs = rng.normal(size=SPACE.layer_radices[:2])
    by_distance = rng.uniform(0.3, 1, size=SPACE.max_depth)
    by_depth = 0.5 * rng.normal(size=SPACE.max_depth)
    in_sequence = 0.5 * rng.normal(size=(SPACE.layer_radices[0],) * 2)

    def score(architecture: Architecture) -> float:
        total = by_depth[architecture.depth - 1]
        for number, layer in enumerate(architecture.layers):
            first, second = layer.features
            own = (
                effects[0][first] + effects[1][second] + 0.6 * effects[2][layer.activation] + 0.6 * pairs[first, second]
            )
            total += by_distance[architecture.depth - 1 - number] * own
            if number > 0:
                total += in_sequence[architecture.layers[number - 1].features[0], first]
        return float(total)

    return score


def draw(rng: np.random.Generator, n: int) -> list[Architecture]:
    """Draw networks, each depth equally likely."""
    depths = rng.integers(1, SPACE.max_depth + 1, size=n)
    first = np.cumsum([0] + [SPACE.size_at(depth) for depth in range(1, SPACE.max_depth)])
    return [SPACE.architecture(int(first[depth - 1] + rng.integers(SPACE.size_at(depth)))) for depth in depths.tolist()]


def ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(np.argsort(values))


def measure(n_evaluations: int, n_seeds: int = 20) -> Row:
    """Fit to this many evaluations and predict, once a seed."""
    times, correlations = [], []
    for seed in range(n_seeds):
        rng, score = np.random.default_rng([seed, n_evaluations]), made_up(seed)
        seen, candidates = draw(rng, n_evaluations), draw(rng, N_CANDIDATES)
        scores = np.array([score(each) for each in seen])
        scores += NOISE * scores.std() * rng.normal(size=n_evaluations)
        scores = (scores - scores.mean()) / scores.std()
        started = time.perf_counter()
        surrogate = Surrogate(SPACE, seed=seed, bounded=False)
        surrogate.update(seen, scores)
        predicted = surrogate.predict(candidates)
        times.append(1e3 * (time.perf_counter() - started))
        actual = np.array([score(each) for each in candidates])
        correlations.append(float(np.corrcoef(ranks(predicted), ranks(actual))[0, 1]))
    deviation = statistics.stdev(correlations) if n_seeds > 1 else 0.0
    return Row(
        n_evaluations, statistics.median(times), min(times), statistics.mean(correlations), deviation / n_seeds**0.5
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 165, 300, 500, 1000])
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    print(
        "| evaluations | fit and predict, ms | least | rank correlation | standard error |\n|---:|---:|---:|---:|---:|"
    )
    for n_evaluations in given.evaluations:
        row = measure(n_evaluations, given.seeds)
        print(
            f"| {row.n_evaluations} | {row.median_ms:.0f} | {row.least_ms:.0f} | {row.correlation:.3f} | "
            f"{row.standard_error:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
