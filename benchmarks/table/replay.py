"""One search on a table: a sampler asks, the table answers, and what was found is compared with the truth.

What a search observes of a network is the score of one of its trainings, drawn for each network and search seed; the
truth about it in that search is the mean of its other trainings. A network that is tried again shows the same score.

Shapes: N networks of the table; T trials of the search, in the order in which they ended.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from benchmarks.table.ablations import ABLATIONS
from benchmarks.table.contestants import CONTESTANTS, DISTINCT, MAX_REPEATS
from benchmarks.table.table import Table, TableError
from mfas_optuna import MFASSampler, SearchSpace

N_TOP = 5
"""Networks that enter final training."""


@dataclass(frozen=True)
class Answers:
    """What one search sees of a table, and what is true.

    Attributes:
        observed_N: The score that a network shows, (N,).
        truth_N: The mean score of its other trainings, (N,).
        second_N: Their mean on the second validation split, (N,).
    """

    observed_N: NDArray[np.float64]
    truth_N: NDArray[np.float64]
    second_N: NDArray[np.float64]

    @staticmethod
    def draw(table: Table, seed: int) -> Answers:
        """Draw which training each network shows."""
        n, n_seeds = table.hits_NS.shape
        if n_seeds < 2:
            raise TableError(f"The table {table.name!r} has one training of each network; the truth needs others.")
        shown_N = np.random.default_rng([seed, 0x7AB1E]).integers(n_seeds, size=n)
        rows_N = np.arange(n)
        observed_N = table.scores[rows_N, shown_N]
        second_N = table.second_scores[rows_N, shown_N]
        return Answers(
            observed_N,
            (table.scores.sum(axis=1) - observed_N) / (n_seeds - 1),
            (table.second_scores.sum(axis=1) - second_N) / (n_seeds - 1),
        )


@dataclass(frozen=True)
class Trace:
    """One search.

    Attributes:
        networks_T: Index of each trial's network, in the order in which the trials ended, (T,).
        answers: What the search saw.
    """

    networks_T: NDArray[np.int64]
    answers: Answers

    def top(self, n_trials: int) -> NDArray[np.int64]:
        """Return the five networks that showed the best scores in the first trials, each once."""
        tried = list(dict.fromkeys(self.networks_T[:n_trials].tolist()))
        order = np.argsort(-self.answers.observed_N[tried], kind="stable")[:N_TOP]
        return np.array(tried)[order]

    def top_mean(self, n_trials: int) -> float:
        """Return the true mean score of the top five."""
        return float(self.answers.truth_N[self.top(n_trials)].mean())

    def second_top_mean(self, n_trials: int) -> float:
        """Return the same on the second validation split."""
        return float(self.answers.second_N[self.top(n_trials)].mean())

    def regret(self, n_trials: int) -> float:
        """Return by how much the network that showed the best score is truly worse than the truly best of the table."""
        return float(self.answers.truth_N.max() - self.answers.truth_N[self.top(n_trials)[0]])

    def trials_to_best(self, fraction: float = 0.01) -> int | None:
        """Return the trials until one of the truly best networks was tried; None when none was."""
        n_best = max(1, round(fraction * len(self.answers.truth_N)))
        best = np.argsort(-self.answers.truth_N, kind="stable")[:n_best]
        hits = np.flatnonzero(np.isin(self.networks_T, best))
        return int(hits[0]) + 1 if len(hits) else None


def replay(
    table: Table,
    contestant: str | Callable[[SearchSpace, int], BaseSampler],
    seed: int,
    *,
    n_trials: int,
    n_workers: int = 1,
) -> Trace:
    """Let a sampler search a table.

    Args:
        table: Where.
        contestant: A name of `CONTESTANTS` or `ABLATIONS`, or what makes the sampler from a space and a seed.
        seed: Of the sampler, of what it observes, and of how long trials take.
        n_trials: Trials; a search that ends by itself, or has tried every network, ends before.
        n_workers: Simulated workers: each asks as soon as its last trial has ended; a trial takes 0.5 to 1.5 units of
            time, at random. One worker needs no clock.

    Raises:
        TableError: The sampler searches another space than the table's.
    """
    make = {**CONTESTANTS, **ABLATIONS}[contestant] if isinstance(contestant, str) else contestant
    sampler = make(table.space, seed)
    if isinstance(sampler, MFASSampler):
        table.check_space(sampler.space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    answers = Answers.draw(table, seed)
    search = _Search(table, study, seed, is_distinct=contestant in DISTINCT)
    clock = random.Random(f"clock {seed}")
    running: list[tuple[float, int, optuna.Trial, int]] = []
    networks: list[int] = []
    now, n_idle, n_asked = 0.0, n_workers, 0
    while True:
        while n_idle and n_asked < n_trials:
            asked = search.ask(may_wait=bool(running))
            if asked is None:
                break
            heapq.heappush(running, (now + 0.5 + clock.random(), n_asked, *asked))
            n_idle, n_asked = n_idle - 1, n_asked + 1
        if not running:
            break
        now, _, trial, network = heapq.heappop(running)
        study.tell(trial, float(answers.observed_N[network]))
        networks.append(network)
        n_idle += 1
    return Trace(np.array(networks), answers)


class _Search:
    """Asks for networks that are to be trained."""

    def __init__(self, table: Table, study: optuna.Study, seed: int, *, is_distinct: bool) -> None:
        self._table = table
        self._study = study
        self._rng = random.Random(f"repeats {seed}")
        self._is_distinct = is_distinct
        self._tried: set[int] = set()

    def ask(self, *, may_wait: bool) -> tuple[optuna.Trial, int] | None:
        """Return the next trial and its network; None when the search is over or only running trials bring it on."""
        space, sampler = self._table.space, self._study.sampler
        if isinstance(sampler, MFASSampler):
            kind = sampler.decide(self._study).kind
            if kind == "done" or (kind == "wait" and may_wait):
                return None
        if self._is_distinct and len(self._tried) == space.size:
            return None
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            network = space.index(space.suggest(trial))
            if not (self._is_distinct and network in self._tried):
                break
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            network = self._rng.choice([index for index in range(space.size) if index not in self._tried])
            self._study.enqueue_trial(space.parameters(space.architecture(network)))
            trial = self._study.ask()
            space.suggest(trial)
        self._tried.add(network)
        return trial, network
