"""Which part of the work a worker takes."""

from __future__ import annotations

import pytest

from mfas_optuna.search.steps import Decision, SearchStep
from mfas_optuna.worker.shares import group_of_step, is_long_wait, share

STEP = SearchStep(0, 2)


def _groups(n_slots: int, n_workers: int, most: int) -> list[int]:
    """Return the groups of a step when workers take them one after the other."""
    groups: list[int] = []
    while (slot := sum(groups)) < n_slots:
        decision = Decision("slot", STEP, slot, 0, n_slots - slot, n_slots)
        groups.append(group_of_step(decision, n_workers, most=most, n_left=100))
    return groups


@pytest.mark.parametrize(
    ("n_workers", "most", "expected"),
    [
        (1, 15, [15]),
        (2, 15, [8, 7]),
        (3, 15, [5, 5, 5]),
        (4, 15, [4, 4, 4, 3]),
        (32, 15, [1] * 15),
        (1, 4, [4, 4, 4, 3]),
        (2, 4, [4, 4, 4, 3]),
        (1, 1, [1] * 15),
    ],
)
def test_a_step_is_divided_once_and_evenly(n_workers: int, most: int, expected: list[int]) -> None:
    assert _groups(15, n_workers, most) == expected


def test_groups_end_with_the_budget_and_with_the_free_slots() -> None:
    assert group_of_step(Decision("slot", STEP, 0, 0, 15, 15), 1, most=15, n_left=4) == 4
    assert group_of_step(Decision("slot", STEP, 12, 0, 2, 15), 1, most=15, n_left=9) == 2


def test_a_share_is_never_nothing_of_something() -> None:
    assert [share(5, n) for n in (1, 2, 5, 9)] == [5, 3, 1, 1]
    assert share(0, 3) == 0


def test_over_drawing_waits_for_those_that_are_nearly_done() -> None:
    assert is_long_wait([0.1, 0.1], 1.0)  # They have just begun.
    assert not is_long_wait([0.9, 0.8], 1.0)
    assert is_long_wait([5.0], 1.0)  # Its worker has stopped.
    assert not is_long_wait([], 1.0)  # All have ended: the step opens at the next look.
    assert is_long_wait([0.9], None)  # A worker that has just come.
