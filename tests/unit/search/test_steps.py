"""Slots, tickets, quorum, over-draws and failures, on step records alone."""

from __future__ import annotations

import pytest

from mfas_optuna.search.steps import (
    MAX_REAPED_FAILURES,
    Decision,
    Ledger,
    Schedule,
    SearchStep,
    State,
    StepTrial,
)

SCHEDULE = Schedule(max_depth=3, samples_per_step=5, n_iterations=2, n_depth_one=4, repeat_depth_one=False, quorum=0.8)
FIRST, SECOND = SearchStep(0, 1), SearchStep(0, 2)


class Play:
    """A ledger with trials numbered as they come, and 100 candidates above depth 1."""

    def __init__(self, schedule: Schedule = SCHEDULE, gamma_1: int = 4) -> None:
        self.ledger = Ledger(schedule)
        self.gamma_1 = gamma_1
        self._number = 0

    def count_candidates(self, step: SearchStep) -> int:
        parents = self.ledger.schedule.parents_of(step)
        if not parents:
            return self.gamma_1
        return 100 if any(self.ledger.record(one).complete for one in parents) else 0

    def decide(self, n_unrecorded: int = 0) -> Decision:
        return self.ledger.decide(n_unrecorded, self.count_candidates)

    def plan(self, step: SearchStep, n_networks: int) -> None:
        self.ledger.add_plan(step, tuple(range(100 * step.depth, 100 * step.depth + n_networks)), None)

    def add(
        self,
        step: SearchStep,
        slot: int,
        state: State = "complete",
        *,
        over_draw: bool = False,
        failure: str | None = None,
    ) -> None:
        network = 100 * step.depth + slot
        self.ledger.add(
            step,
            StepTrial(self._number, state, slot, over_draw, network, network if state == "complete" else None, failure),
        )
        self._number += 1

    def fill(self, step: SearchStep, n: int, state: State = "complete", n_planned: int = 0) -> None:
        self.plan(step, max(n, n_planned))
        for slot in range(n):
            self.add(step, slot, state)


def test_depth_one_is_spread_over_the_first_iterations() -> None:
    schedule = Schedule(
        max_depth=2, samples_per_step=5, n_iterations=4, n_depth_one=12, repeat_depth_one=False, quorum=0.8
    )
    assert [step for step in schedule.steps() if step.depth == 1] == [(0, 1), (1, 1), (2, 1)]
    assert schedule.slot_limit(SearchStep(0, 1)) == 5
    assert schedule.parents_of(SearchStep(1, 2)) == ((0, 1), (1, 1))
    assert schedule.parents_of(SearchStep(3, 2)) == ((0, 1), (1, 1), (2, 1))


def test_schedule_leaves_out_depth_one_after_the_first_iteration() -> None:
    assert list(SCHEDULE.steps()) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert SCHEDULE.parents_of(SearchStep(1, 2)) == ((0, 1),)
    assert SCHEDULE.parents_of(SearchStep(1, 3)) == ((1, 2),)
    assert [SCHEDULE.position(step) for step in SCHEDULE.steps()] == [0, 1, 2, 4, 5]


def test_schedule_of_algorithm_1_repeats_depth_one() -> None:
    schedule = Schedule(
        max_depth=2, samples_per_step=5, n_iterations=2, n_depth_one=4, repeat_depth_one=True, quorum=0.8
    )
    assert list(schedule.steps()) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert schedule.parents_of(SearchStep(1, 2)) == ((1, 1),)


def test_an_empty_study_begins_with_slot_0_of_depth_1() -> None:
    assert Play().decide() == Decision("slot", FIRST, 0, 0, 4, 4)


def test_running_trials_without_a_record_are_presumed_to_take_the_first_free_slots() -> None:
    play = Play()
    play.plan(FIRST, 4)
    play.add(FIRST, 1, "running")
    assert [play.decide(n)[:4] for n in range(3)] == [
        ("slot", FIRST, 0, 0), ("slot", FIRST, 2, 1), ("slot", FIRST, 3, 2)
    ]  # fmt: skip
    assert play.decide(3) == Decision("wait", FIRST, 4, 3)  # No over-draw at depth 1.


@pytest.mark.parametrize(("n_running", "kind"), [(0, "slot"), (1, "slot"), (2, "over_draw")])
def test_the_next_step_opens_at_the_quorum(n_running: int, kind: str) -> None:
    play = Play()
    play.fill(FIRST, 4)
    play.plan(SECOND, 12)
    for slot in range(5):
        play.add(SECOND, slot, "running" if slot < n_running else "complete")
    decision = play.decide()
    assert decision.kind == kind
    assert decision.step == (SearchStep(0, 3) if kind == "slot" else SECOND)


def test_a_step_does_not_open_before_all_slots_before_it_are_held() -> None:
    play = Play()
    play.fill(FIRST, 4)
    play.plan(SECOND, 12)
    for slot in range(4):
        play.add(SECOND, slot)
    assert play.decide() == Decision("slot", SECOND, 4, 0, 1, 5)


def test_over_draws_are_a_fifth_of_a_step_and_then_one_waits() -> None:
    play = Play()
    play.fill(FIRST, 4)
    play.fill(SECOND, 5, "running", n_planned=12)
    assert play.decide() == Decision("over_draw", SECOND, 5, 0)
    play.add(SECOND, 5, "running", over_draw=True)
    assert play.decide() == Decision("wait", SECOND, 6, 0)


def test_an_over_draw_leaves_the_networks_that_unrecorded_trials_are_presumed_to_take() -> None:
    play = Play()
    play.fill(FIRST, 4)
    play.plan(SECOND, 12)
    for slot in (0, 2, 3, 4):
        play.add(SECOND, slot)
    decision = play.decide(1)
    assert decision == Decision("over_draw", SECOND, 5, 1)
    assert play.ledger.record(SECOND).next_network(decision.n_before) == 205
    assert play.decide(2) == Decision("wait", SECOND, 6, 2)


def test_no_over_draws_in_the_last_step() -> None:
    play = Play()
    *before, last = SCHEDULE.steps()
    play.fill(FIRST, 4)
    for step in before[1:]:
        play.fill(step, 5, n_planned=12)
    play.fill(last, 5, "running", n_planned=12)
    assert play.decide() == Decision("wait", last, 5, 0)


def test_the_search_is_not_done_while_a_slot_of_an_early_step_is_running() -> None:
    play = Play()
    first, *others = SCHEDULE.steps()
    play.fill(first, 4)
    play.plan(others[0], 12)
    for slot in range(5):
        play.add(others[0], slot, "running" if slot == 2 else "complete")
    for step in others[1:]:
        play.fill(step, 5, n_planned=12)
    assert play.decide() == Decision("wait", others[-1], 5, 0)


def test_an_over_draw_counts_towards_the_quorum() -> None:
    play = Play()
    play.fill(FIRST, 4)
    play.plan(SECOND, 12)
    for slot in range(5):
        play.add(SECOND, slot, "complete" if slot < 3 else "running")
    assert play.decide().kind == "over_draw"
    play.add(SECOND, 5, "complete", over_draw=True)
    assert play.decide() == Decision("slot", SearchStep(0, 3), 0, 0, 5, 5)


def test_a_failed_trial_frees_its_slot() -> None:
    play = Play()
    play.plan(FIRST, 4)
    play.add(FIRST, 0)
    play.add(FIRST, 1, "failed", failure="diverged")
    play.add(FIRST, 2)
    assert play.decide() == Decision("slot", FIRST, 1, 0, 2, 4)
    assert play.ledger.record(FIRST).next_network() == 101


@pytest.mark.parametrize(
    ("failure", "limit"), [("diverged", 2), ("out_of_memory", 2), ("error", 2), (None, MAX_REAPED_FAILURES)]
)
def test_a_network_that_fails_too_often_is_left_out(failure: str | None, limit: int) -> None:
    play = Play()
    play.plan(FIRST, 4)
    for _ in range(limit):
        assert play.ledger.record(FIRST).next_network() == 100
        play.add(FIRST, 0, "failed", failure=failure)
    assert play.ledger.record(FIRST).next_network() == 101
    assert play.ledger.record(FIRST).n_slots(None) == 3


def test_a_network_left_out_late_leaves_no_slot_that_cannot_be_filled() -> None:
    play = Play()
    play.plan(FIRST, 4)
    for slot in (0, 2, 3):
        play.add(FIRST, slot)
    for _ in range(2):
        play.add(FIRST, 1, "failed", failure="error")
    assert play.decide() == Decision("slot", SECOND, 0, 0, 5, 5)


def test_given_back_trials_never_count_as_failures() -> None:
    play = Play()
    play.plan(FIRST, 4)
    for _ in range(100):
        play.add(FIRST, 0, "failed", failure="given_back")
    assert play.ledger.record(FIRST).next_network() == 100


def test_two_trials_in_one_slot_leave_it_to_the_lower_number() -> None:
    play = Play()
    play.plan(FIRST, 4)
    play.add(FIRST, 0, "running")
    play.add(FIRST, 0, "complete")
    record = play.ledger.record(FIRST)
    assert record.slots == {0: 0}
    assert record.n_over_draws == 1
    assert record.n_slots_finished == 0


def test_pruned_trials_count_towards_the_quorum_and_are_no_parents() -> None:
    play = Play()
    play.plan(FIRST, 4)
    for slot in range(3):
        play.add(FIRST, slot, "pruned")
    play.add(FIRST, 3)
    assert play.decide() == Decision("slot", SECOND, 0, 0, 5, 5)
    assert play.ledger.record(FIRST).complete == [103]


@pytest.mark.parametrize("state", ["pruned", "failed"])
def test_without_a_complete_parent_the_search_ends(state: State) -> None:
    play = Play()
    play.plan(FIRST, 4)
    for slot in range(4):
        for _ in range(2 if state == "failed" else 1):
            play.add(FIRST, slot, state, failure="error" if state == "failed" else None)
    assert play.decide() == Decision("done")


def test_the_lowest_numbered_plan_counts() -> None:
    play = Play()
    play.ledger.add_plan(FIRST, (7, 8), None)
    play.ledger.add_plan(FIRST, (9,), None)
    assert play.ledger.record(FIRST).plan == (7, 8)


def test_closing_changes_no_decision() -> None:
    closed, open_ = Play(), Play()
    for play in (closed, open_):
        play.fill(FIRST, 4)
        play.fill(SECOND, 5, n_planned=12)
    closed.ledger.close()
    for step in list(SCHEDULE.steps())[2:]:
        assert closed.decide() == open_.decide() == Decision("slot", step, 0, 0, 5, 5)
        for play in (closed, open_):
            play.fill(step, 5, n_planned=12)
        closed.ledger.close()
    assert closed.decide() == open_.decide() == Decision("done")


def test_a_copy_does_not_change_the_original() -> None:
    play = Play()
    play.fill(FIRST, 3, n_planned=4)
    copied = play.ledger.copy()
    copied.add(FIRST, StepTrial(9, "running", 3, False, 103))
    assert copied.decide(0, play.count_candidates) == Decision("wait", FIRST, 4, 0)
    assert play.decide() == Decision("slot", FIRST, 3, 0, 1, 4)


def test_without_a_number_of_iterations_it_goes_on_while_there_is_something_new() -> None:
    play = Play(
        Schedule(max_depth=2, samples_per_step=5, n_iterations=None, n_depth_one=4, repeat_depth_one=False, quorum=0.8)
    )
    play.fill(FIRST, 4)
    for iteration in range(50):
        assert play.decide() == Decision("slot", SearchStep(iteration, 2), 0, 0, 5, 5)
        play.fill(SearchStep(iteration, 2), 5, n_planned=12)
        play.ledger.close()
    play.count_candidates = lambda step: 0  # type: ignore[method-assign]
    assert play.decide() == Decision("done")
