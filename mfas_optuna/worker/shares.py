"""How many trials a worker takes at once when others work beside it.

A group of networks is trained almost as fast as one, so that few and equal shares are the best: each of n workers takes
its n-th of a step, rather than half of what is left again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mfas_optuna.search.steps import Decision


def share(n_trials: int, n_workers: int) -> int:
    """Return how many of some trials are one worker's when each takes as many."""
    return math.ceil(n_trials / n_workers)


def group_of_step(decision: Decision, n_workers: int, *, most: int, n_left: int) -> int:
    """Return how many networks of a step a worker takes.

    Args:
        decision: What the next ask would do: take a slot.
        n_workers: Workers that live, this one among them.
        most: Networks that are trained at once. Groups lie within blocks of slots, [0, most), [most, 2 most), ...
        n_left: Trials that the budget leaves.
    """
    return min(share(decision.n_slots, n_workers), decision.n_free, most - decision.slot % most, n_left)


def is_long_wait(ages_s: Sequence[float], last_group_s: float | None) -> bool:
    """Return whether what a step waits for takes so long that a network beyond its slots is worth a worker's time.

    Others are expected to take as long as this worker's last group did. One that takes twice as long has stopped.

    Args:
        ages_s: For how many seconds the study's running trials have run.
        last_group_s: Seconds of this worker's last group; None when it has had none.
    """
    if last_group_s is None:
        return True
    return bool(ages_s) and (min(ages_s) < last_group_s / 2 or max(ages_s) > 2 * last_group_s)
