"""How much regret a search loses when several workers share it, on a table.

Several workers know less when they choose: of a step's networks the last are still in training when the next step
opens, and networks beyond the schedule are trained while a worker would wait. Both cost quality at equal numbers of
trials.

*Regret* is by how much the five networks that a search would train to the end are truly worse, on average, than the
truly best five. What is judged is how much larger it is with several workers than with one, paired by seed, beside the
regret of Optuna's random search.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Verdict
from benchmarks.report import table as markdown
from benchmarks.table.compare import SEPARATES_FROM, UNIT, Comparison, Difference, compare
from benchmarks.table.replay import N_TOP
from benchmarks.table.table import Table

CHECKPOINTS = (60, 90, 165)
"""Trials; the last are those of the default schedule, K = 15 and three iterations of depth 1 to 4."""
BOUND = 0.1
"""Of random's regret."""
BOUND_IS_FOR = 8
OURS = "calibrated"


def lost_regret(table: Table, numbers: Sequence[int], *, seeds: Sequence[int], n_processes: int | None = None) -> str:
    """Return as Markdown what each number of workers loses against one."""
    most = CHECKPOINTS[-1]
    alone = compare(table, {OURS: most, "random": most}, seeds=seeds, n_processes=n_processes)
    teams = {n: compare(table, {OURS: most}, seeds=seeds, n_workers=n, n_processes=n_processes) for n in numbers}
    separation = table.separation()
    can = "" if separation >= SEPARATES_FROM else f", below {SEPARATES_FROM}: it cannot tell good samplers apart"
    lines = [
        f"### {table.name}: {table.card['what']}",
        "",
        f"{len(table.hits_NS)} networks; {len(seeds)} searches each. Deviation / seed noise of the best tenth: "
        f"{separation:.2f}{can}. Regret in 1e-4; differences with 95 % intervals of their mean.",
        "",
        markdown(
            ["trials", "random", "one worker", *(f"{n} workers less one (upper limit / random)" for n in numbers)],
            [
                [
                    str(n_trials),
                    f"{_regret(alone, n_trials, 'random').mean():.0f}",
                    f"{_regret(alone, n_trials).mean():.0f}",
                    *(_cell(alone, team, n_trials) for team in teams.values()),
                ]
                for n_trials in CHECKPOINTS
            ],
        ),
    ]
    if BOUND_IS_FOR in teams:
        lines += ["", *(str(_verdict(table, alone, teams[BOUND_IS_FOR], n_trials)) for n_trials in CHECKPOINTS)]
    return "\n".join(lines)


def _regret(comparison: Comparison, n_trials: int, contestant: str = OURS) -> NDArray[np.float64]:
    """Return the regret of each search in units of 1e-4, (R,)."""
    traces = comparison.traces[contestant]
    best_R = np.array([np.sort(trace.answers.truth_N)[-N_TOP:].mean() for trace in traces])
    return (best_R - comparison.top_means(contestant, n_trials)) / UNIT


def _lost(alone: Comparison, team: Comparison, n_trials: int) -> Difference:
    """Return the regret that a team has more than one worker."""
    return Difference.of(alone.top_means(OURS, n_trials), team.top_means(OURS, n_trials))


def _fraction(alone: Comparison, team: Comparison, n_trials: int) -> float:
    """Return the upper limit of what is lost, as a fraction of random's regret."""
    return _lost(alone, team, n_trials).high / float(_regret(alone, n_trials, "random").mean())


def _cell(alone: Comparison, team: Comparison, n_trials: int) -> str:
    lost = _lost(alone, team, n_trials)
    fraction = _fraction(alone, team, n_trials)
    return f"{lost.mean:+.1f} [{lost.low:+.1f}, {lost.high:+.1f}] ({100 * fraction:.0f} %)"


def _verdict(table: Table, alone: Comparison, team: Comparison, n_trials: int) -> Verdict:
    what = f"{table.name}, {n_trials} trials, {BOUND_IS_FOR} workers, upper limit of what is lost of random's regret"
    return Verdict(what, 100 * _fraction(alone, team, n_trials), 100 * BOUND, "at most", " %")
