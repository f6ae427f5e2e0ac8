"""What the figures of all cells come to: means, paired differences, and which of the three claims hold.

Scores are fractions; what is printed is in percent, and differences in percentage points.

Shapes: D draws.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.settings import SEARCHED
from benchmarks.report import Verdict
from benchmarks.report import table as markdown

CONFIDENCE = 0.95
NEVER_WORSE_THAN = -0.5
"""(i): points from the best fixed method of a cell, in the worst cell."""
ABOVE_ANY_ONE = 5.0
"""(ii): points above each fixed method, on the mean over the cells."""
CLEARLY_ABOVE = 1.0
"""(iii): points above the best fixed method of a cell, with an interval clear of zero."""
N_CLEARLY_ABOVE = 2
"""(iii): in how many cells."""


@dataclass(frozen=True)
class Difference:
    """A paired difference over draws, in percentage points.

    Attributes:
        mean: Its mean.
        low: Lower end of the 95 % interval of the mean (Student's t); None of a single draw.
        high: Upper end.
    """

    mean: float
    low: float | None
    high: float | None

    @staticmethod
    def of(first_D: NDArray[np.float64], second_D: NDArray[np.float64]) -> Difference:
        """Return the first less the second, draw by draw."""
        points_D = 100 * (first_D - second_D)
        mean, n = float(points_D.mean()), len(points_D)
        if n < 2:
            return Difference(mean, None, None)
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * points_D.std(ddof=1) / n**0.5)
        return Difference(mean, mean - half, mean + half)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.1f} (one draw)"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class CellFigures:
    """What one cell came to.

    Attributes:
        cell: Its name.
        draws: Which draws there are.
        means: Mean test score over the draws, of the search's choice and of each fixed method.
        winners: What kinds of fusion the search's choice was, the most frequent first, with the number of draws.
        best: The fixed method of the best mean.
        difference: The search's choice less that method.
        seconds: Mean seconds of each stage.
    """

    cell: str
    draws: tuple[int, ...]
    means: dict[str, float]
    winners: tuple[tuple[str, int], ...]
    best: str
    difference: Difference
    seconds: dict[str, float]

    @property
    def winner(self) -> str:
        """The most frequent kind, with how often where it is not always."""
        (kind, n), n_draws = self.winners[0], len(self.draws)
        return kind if n == n_draws else f"{kind} ({n} of {n_draws})"


def cell_figures(results: Sequence[Mapping[str, Any]], fixed: Sequence[str]) -> CellFigures:
    """Return the figures of one cell.

    Args:
        results: Of its draws, as `run` gives them, in order.
        fixed: Names of the fixed methods.

    Raises:
        RegimeError: A draw lacks a method, or has no test score of it.
    """
    scores = {name: np.array([_score(result, name) for result in results]) for name in (SEARCHED, *fixed)}
    means = {name: float(scores_D.mean()) for name, scores_D in scores.items()}
    best = max(fixed, key=means.__getitem__)
    winners = Counter(str(result["methods"][SEARCHED]["kind"]) for result in results).most_common()
    stages = results[0]["seconds"]
    return CellFigures(
        cell=str(results[0]["cell"]),
        draws=tuple(int(result["draw"]) for result in results),
        means=means,
        winners=tuple(winners),
        best=best,
        difference=Difference.of(scores[SEARCHED], scores[best]),
        seconds={stage: statistics.fmean(result["seconds"][stage] for result in results) for stage in stages},
    )


def _score(result: Mapping[str, Any], method: str) -> float:
    """Return the mean test score of a method over its seeds."""
    by_seed = result["methods"].get(method, {}).get("test", {})
    if not by_seed:
        raise RegimeError(
            f"{result['cell']}, draw {result['draw']}: expected test scores of {method}, found none. Remove the "
            "draw's folder and run again."
        )
    return statistics.fmean(by_seed.values())


def all_figures(results: Iterable[Mapping[str, Any]], fixed: Sequence[str]) -> list[CellFigures]:
    """Return the figures of every cell, in the order of the first draw of each."""
    by_cell: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_cell.setdefault(str(result["cell"]), []).append(result)
    return [cell_figures(sorted(of_cell, key=lambda one: one["draw"]), fixed) for of_cell in by_cell.values()]


def verdicts(figures: Sequence[CellFigures], fixed: Sequence[str]) -> list[Verdict]:
    """Return the three claims beside what was found."""
    worst = min(figures, key=lambda one: one.difference.mean)
    overall = {
        name: statistics.fmean(100 * (one.means[SEARCHED] - one.means[name]) for one in figures) for name in fixed
    }
    strongest = min(overall, key=overall.__getitem__)
    above = [
        one
        for one in figures
        if one.difference.mean >= CLEARLY_ABOVE and one.difference.low is not None and one.difference.low > 0
    ]
    named = f" ({', '.join(one.cell for one in above)})" if above else ""
    return [
        Verdict(
            f"(i) against the best of the five, in the worst cell ({worst.cell})",
            worst.difference.mean,
            NEVER_WORSE_THAN,
            unit=" points",
        ),
        Verdict(
            f"(ii) mean over the cells, against the strongest single one ({strongest})",
            overall[strongest],
            ABOVE_ANY_ONE,
            unit=" points",
        ),
        Verdict(
            f"(iii) at least {CLEARLY_ABOVE:g} point above the best of the five, interval clear of zero{named}",
            len(above),
            N_CLEARLY_ABOVE,
            unit=" cells",
        ),
    ]


def text(figures: Sequence[CellFigures], fixed: Sequence[str]) -> str:
    """Return the table in Markdown with the claims below it."""
    header = ["cell", *fixed, "search", "its choice", "less the best of the five", "best", "draws"]
    rows = [
        [
            one.cell,
            *(f"{100 * one.means[name]:.1f}" for name in fixed),
            f"{100 * one.means[SEARCHED]:.1f}",
            one.winner,
            str(one.difference),
            one.best,
            str(len(one.draws)),
        ]
        for one in figures
    ]
    means = [statistics.fmean(100 * one.means[name] for one in figures) for name in (*fixed, SEARCHED)]
    best = statistics.fmean(one.difference.mean for one in figures)
    rows.append(["mean over the cells", *(f"{mean:.1f}" for mean in means), "", f"{best:+.1f}", "", ""])
    claims = "\n".join(f"- {verdict}" for verdict in verdicts(figures, fixed))
    return f"{markdown(header, rows)}\n\n{claims}"


def as_json(
    results: Sequence[Mapping[str, Any]], figures: Sequence[CellFigures], fixed: Sequence[str]
) -> dict[str, Any]:
    """Return everything as JSON values: the claims, the cells, and each draw with all its methods."""
    return {
        "claims": [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts(figures, fixed)],
        "cells": [asdict(one) for one in figures],
        "draws": list(results),
    }
