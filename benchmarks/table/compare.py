"""Many searches of many contestants on one table, and what may be said of the differences.

All contestants are given the same search seeds, and with them the same observed scores; so differences are paired.
Differences of scores are in units of 1e-4, a hundredth of a percentage point.

Shapes: R search seeds.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.report import table as markdown
from benchmarks.table.replay import N_TOP, Trace, replay
from benchmarks.table.table import Table

UNIT = 1e-4
CONFIDENCE = 0.95
SEPARATES_FROM = 0.7
"""A table of less separation than this cannot tell good samplers apart."""


@dataclass(frozen=True)
class Difference:
    """A paired difference of two contestants, the first less the second, in units of 1e-4.

    Attributes:
        mean: Its mean over the search seeds.
        low: Lower end of the 95 % interval of the mean (Student's t).
        high: Upper end.
        win_rate: Fraction of seeds in which the first was better; ties count half.
    """

    mean: float
    low: float
    high: float
    win_rate: float

    @staticmethod
    def of(first_R: NDArray[np.float64], second_R: NDArray[np.float64]) -> Difference:
        """Compare two contestants seed by seed."""
        difference_R = (first_R - second_R) / UNIT
        mean, n = float(difference_R.mean()), len(difference_R)
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * difference_R.std(ddof=1) / n**0.5)
        win_rate = float(((difference_R > 1e-9) + 0.5 * (np.abs(difference_R) <= 1e-9)).mean())
        return Difference(mean, mean - half, mean + half, win_rate)

    def __str__(self) -> str:
        return f"{self.mean:+.0f} [{self.low:+.0f}, {self.high:+.0f}], wins {self.win_rate:.2f}"


@dataclass(frozen=True)
class Comparison:
    """All searches on one table.

    Attributes:
        table: The table.
        traces: The searches of each contestant, in the order of the search seeds.
        n_trials: Trials of each.
    """

    table: Table
    traces: Mapping[str, Sequence[Trace]]
    n_trials: int

    def top_means(self, contestant: str, n_trials: int) -> NDArray[np.float64]:
        """Return the true mean score of the top five after so many trials, (R,)."""
        return np.array([trace.top_mean(n_trials) for trace in self.traces[contestant]])

    def ceiling(self) -> float:
        """Return the true mean score of the five that would show the best scores, had every network been tried."""
        everything = np.arange(len(self.table.hits_NS))
        traces = next(iter(self.traces.values()))
        return float(np.mean([Trace(everything, trace.answers).top_mean(len(everything)) for trace in traces]))

    def regrets(self, contestant: str, n_trials: int) -> NDArray[np.float64]:
        """Return the simple regret after so many trials, (R,)."""
        return np.array([trace.regret(n_trials) for trace in self.traces[contestant]])

    def difference(self, first: str, second: str, n_trials: int, n_trials_of_second: int | None = None) -> Difference:
        """Compare the top five of two contestants, after equal numbers of trials unless another is given."""
        return Difference.of(self.top_means(first, n_trials), self.top_means(second, n_trials_of_second or n_trials))

    def text(self, checkpoints: Sequence[int]) -> str:
        """Return what was found as Markdown."""
        table, separation = self.table, self.table.separation()
        n_networks, n_seeds = table.hits_NS.shape
        n_searches = len(next(iter(self.traces.values())))
        can = "" if separation >= SEPARATES_FROM else f", below {SEPARATES_FROM}: it cannot tell good samplers apart"
        lines = [
            f"### {table.name}: {table.card['what']}",
            "",
            f"{n_networks} networks, {n_seeds} trainings each; {n_searches} searches of each contestant. Between the "
            f"networks of the best tenth, deviation / seed noise: {separation:.2f}{can}. Had a search tried every "
            f"network, its top {N_TOP} would truly score {100 * self.ceiling():.2f} %; the truly best {N_TOP} score "
            f"{100 * np.sort(table.scores.mean(axis=1))[-N_TOP:].mean():.2f} %, seen after the fact.",
            "",
            markdown(
                [
                    "true mean of the top 5, %",
                    *(f"{n} trials" for n in checkpoints),
                    "second split",
                    "regret, 1e-4",
                    "to best 1 %",
                ],
                [self._row(name, checkpoints) for name in self.traces],
            ),
        ]
        if "calibrated" in self.traces:
            rows = [
                [name, *self._cells(name, checkpoints, functools.partial(self._less, name))]
                for name in self.traces
                if name != "calibrated"
            ]
            lines += ["", markdown(["calibrated less ..., 1e-4", *(f"{n} trials" for n in checkpoints)], rows)]
        return "\n".join(lines)

    def _row(self, name: str, checkpoints: Sequence[int]) -> list[str]:
        traces = self.traces[name]
        to_best = [trace.trials_to_best() for trace in traces]
        known = sorted(n if n is not None else self.n_trials + 1 for n in to_best)
        median = known[len(known) // 2]
        return [
            name,
            *self._cells(name, checkpoints, lambda n: _mean_with_interval(self.top_means(name, n))),
            f"{100 * np.mean([trace.second_top_mean(self.n_trials) for trace in traces]):.2f}",
            f"{self.regrets(name, self.n_trials).mean() / UNIT:.0f}",
            f"{median}" if median <= self.n_trials else f"> {self.n_trials}",
        ]

    def _less(self, name: str, n_trials: int) -> str:
        return str(self.difference("calibrated", name, n_trials))

    def _cells(self, name: str, checkpoints: Sequence[int], cell: Callable[[int], str]) -> list[str]:
        """Return a cell for each number of trials; none for those that a contestant was not given."""
        longest = max(len(trace.networks_T) for trace in self.traces[name])
        return [cell(n) if n <= longest else "" for n in checkpoints]


def _mean_with_interval(values_R: NDArray[np.float64]) -> str:
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values_R) - 1) * values_R.std(ddof=1) / len(values_R) ** 0.5
    return f"{100 * values_R.mean():.2f} ± {100 * half:.2f}"


_table: Table | None = None


def _start(table: Table) -> None:
    global _table
    _table = table
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("mfas_optuna").setLevel(logging.ERROR)  # Mode paper warns in each search.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def _search(job: tuple[str, int, int, int]) -> Trace:
    contestant, seed, n_trials, n_workers = job
    if _table is None:
        raise AssertionError("unreachable")
    return replay(_table, contestant, seed, n_trials=n_trials, n_workers=n_workers)


def compare(
    table: Table,
    contestants: Mapping[str, int],
    *,
    seeds: Sequence[int],
    n_workers: int = 1,
    n_processes: int | None = None,
) -> Comparison:
    """Let every contestant search the table with every seed.

    Args:
        table: Where.
        contestants: Trials of each, by name; the slow ones can have fewer.
        seeds: Search seeds.
        n_workers: Simulated workers.
        n_processes: Processes, one thread each; None: one for each core.
    """
    jobs = [(name, seed, n, n_workers) for name, n in contestants.items() for seed in seeds]
    with ProcessPoolExecutor(
        n_processes or os.cpu_count(), get_context("spawn"), initializer=_start, initargs=(table,)
    ) as pool:
        traces = list(pool.map(_search, jobs, chunksize=2))
    by_name = {
        name: traces[first : first + len(seeds)]
        for name, first in zip(contestants, range(0, len(jobs), len(seeds)), strict=True)
    }
    return Comparison(table, by_name, max(contestants.values()))
