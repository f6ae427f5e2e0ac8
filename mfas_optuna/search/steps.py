"""The schedule of Algorithm 1 as a pure function of what the stored trials say: which slot is next?

Words: a *step* is a pair (iteration, depth). A step has *slots*, one for each network it trains: at most K, or all of
Gamma_1 at depth 1 in mode paper. A trial *holds* a slot while it runs and when it is complete or pruned; a failed trial
frees its slot. The *plan* of a step is the ordered list of networks that the holder of slot 0 published; slots take
networks from its front. An *over-draw* is a network of a plan taken beyond the slots, so that a worker has something
to do while the last trials of a step are running.

The rules are those of docs/decisions/0008-slots-and-tickets.md. This module needs neither torch nor optuna.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

State = Literal["running", "complete", "pruned", "failed"]

MAX_RECORDED_FAILURES = 2
"""A network that failed this often for a recorded reason is left out of its step."""
MAX_REAPED_FAILURES = 20
"""A network whose trial died this often without a word is left out of its step."""


class SearchStep(NamedTuple):
    """A pair (e, l): iteration and depth. `iteration` is 0-based; `depth` counts layers, 1 to L."""

    iteration: int
    depth: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which steps there are, and how many slots each has.

    Attributes:
        max_depth: L.
        samples_per_step: K.
        n_iterations: E_search; None for no end.
        n_depth_one: Networks of depth 1.
        repeat_depth_one: Whether all of them are trained in each iteration, as Algorithm 1 does, or each once, K in an
            iteration until none is left.
        quorum: Fraction of a step's slots that must be finished before the next step opens.
        extends_given: Whether steps extend networks from outside the schedule too.
    """

    max_depth: int
    samples_per_step: int
    n_iterations: int | None
    n_depth_one: int
    repeat_depth_one: bool
    quorum: float
    extends_given: bool = False

    def steps(self, first: SearchStep | None = None) -> Iterator[SearchStep]:
        """Yield the steps in order, from `first` on; without end when `n_iterations` is None and some are deeper."""
        iteration, depth = first or SearchStep(0, 1)
        while self.n_iterations is None or iteration < self.n_iterations:
            if self.max_depth == 1 and iteration >= self.n_depth_one_steps:
                return  # No step is left, however many iterations there are.
            while depth <= self.max_depth:
                if depth > 1 or iteration < self.n_depth_one_steps:
                    yield SearchStep(iteration, depth)
                depth += 1
            iteration, depth = iteration + 1, 1

    def position(self, step: SearchStep) -> int:
        """Return the step's number from 0; steps that are left out count, so that it is iteration * L + depth - 1."""
        return step.iteration * self.max_depth + step.depth - 1

    @property
    def n_depth_one_steps(self) -> float:
        """In how many iterations, from the first, networks of depth 1 are trained."""
        return math.inf if self.repeat_depth_one else math.ceil(self.n_depth_one / self.samples_per_step)

    def parents_of(self, step: SearchStep) -> tuple[SearchStep, ...]:
        """Return the steps whose complete networks this step extends; none at depth 1."""
        if step.depth == 1:
            return ()
        if step.depth == 2 and not self.repeat_depth_one:
            n_steps = int(min(step.iteration + 1, self.n_depth_one_steps))
            return tuple(SearchStep(iteration, 1) for iteration in range(n_steps))
        return (SearchStep(step.iteration, step.depth - 1),)

    def slot_limit(self, step: SearchStep) -> int | None:
        """Return the most slots that the step may have: K, or no limit where all of depth 1 is trained at once."""
        return None if step.depth == 1 and self.repeat_depth_one else self.samples_per_step

    @property
    def max_over_draws(self) -> int:
        """Over-draws that one step allows."""
        return math.ceil(self.samples_per_step / 5)

    def needed(self, n_slots: int) -> int:
        """Return how many of `n_slots` must be finished before the next step opens."""
        return math.ceil(self.quorum * n_slots - 1e-9)


@dataclass(slots=True)
class StepTrial:
    """What the schedule needs to know of one trial that recorded a place in a step.

    Attributes:
        number: The trial's number.
        state: Its state.
        slot: The slot it recorded, or the number its over-draw got.
        is_over_draw: Whether it was taken beyond the slots.
        network: Index of the architecture it recorded.
        trained: Index of the architecture that its parameters name, when it is complete and of the step's depth: the
            same, unless something between sampler and trial (such as PartialFixedSampler) changed parameters.
        failure: Why it failed; None when it was found dead.
    """

    number: int
    state: State
    slot: int
    is_over_draw: bool
    network: int
    trained: int | None = None
    failure: str | None = None


@dataclass(slots=True)
class StepRecord:
    """What the trials of one step amount to; built by adding them in the order of their numbers."""

    plan: tuple[int, ...] | None = None
    predicted: tuple[float, ...] | None = None
    slots: dict[int, int] = field(default_factory=dict)
    networks: set[int] = field(default_factory=set)
    n_finished: int = 0
    n_slots_finished: int = 0
    n_over_draws: int = 0
    complete: list[int] = field(default_factory=list)
    recorded_failures: dict[int, int] = field(default_factory=dict)
    reaped_failures: dict[int, int] = field(default_factory=dict)

    def copy(self) -> StepRecord:
        """Return an independent copy."""
        return StepRecord(
            self.plan,
            self.predicted,
            dict(self.slots),
            set(self.networks),
            self.n_finished,
            self.n_slots_finished,
            self.n_over_draws,
            list(self.complete),
            dict(self.recorded_failures),
            dict(self.reaped_failures),
        )

    def add_plan(self, networks: tuple[int, ...], predicted: tuple[float, ...] | None) -> None:
        """Take note of a published plan; that of the lowest-numbered trial, added first, counts."""
        if self.plan is None:
            self.plan, self.predicted = networks, predicted

    def predicted_score(self, network: int) -> float | None:
        """Return the surrogate's prediction for a network, or None when there was none or it is not in the plan."""
        if self.plan is None or self.predicted is None or network not in self.plan:
            return None
        return self.predicted[self.plan.index(network)]

    def add(self, trial: StepTrial) -> None:
        """Take note of a trial; trials must be added in the order of their numbers."""
        if trial.state == "failed":
            if trial.failure == "given_back":
                return
            is_reaped = trial.failure in (None, "worker_died")
            counts = self.reaped_failures if is_reaped else self.recorded_failures
            counts[trial.network] = counts.get(trial.network, 0) + 1
            return
        self.networks.add(trial.network)
        finished = trial.state in ("complete", "pruned")
        self.n_finished += finished
        if trial.is_over_draw or trial.slot in self.slots:
            self.n_over_draws += 1
        else:
            self.slots[trial.slot] = trial.number
            self.n_slots_finished += finished
        if trial.state == "complete" and trial.trained is not None:
            self.complete.append(trial.trained)

    def is_left_out(self, network: int) -> bool:
        """Return whether a network has failed too often to be tried again in this step."""
        return (
            self.recorded_failures.get(network, 0) >= MAX_RECORDED_FAILURES
            or self.reaped_failures.get(network, 0) >= MAX_REAPED_FAILURES
        )

    def n_slots(self, limit: int | None) -> int:
        """Return how many slots the step has: the networks of its plan that may be tried, at most `limit`."""
        if self.plan is None:
            return 0
        n_usable = len(self.plan)
        if self.recorded_failures or self.reaped_failures:
            n_usable = sum(network in self.networks or not self.is_left_out(network) for network in self.plan)
        return n_usable if limit is None else min(limit, n_usable)

    def free_slots(self, n_slots: int) -> list[int]:
        """Return the numbers of the slots that nobody holds.

        There are n_slots less those held, whatever their numbers: when a network is left out, the step has one slot
        less, and a held slot may have a number beyond the rest.
        """
        n_free = max(0, n_slots - len(self.slots))
        return list(itertools.islice((slot for slot in itertools.count() if slot not in self.slots), n_free))

    def next_network(self, skip: int = 0) -> int | None:
        """Return the first network of the plan that nobody holds and that may be tried, past `skip` such; or None."""
        for network in self.plan or ():
            if network in self.networks or self.is_left_out(network):
                continue
            if skip == 0:
                return network
            skip -= 1
        return None

    @property
    def is_touched(self) -> bool:
        """Whether any trial has taken a place here or published a plan."""
        return self.plan is not None or bool(self.slots)


class Decision(NamedTuple):
    """What an ask should do.

    Attributes:
        kind: `slot`: take `slot` of `step`; `over_draw`: take another network of `step`; `wait`: every slot is held
            and running trials must finish first; `done`: the schedule has ended.
        step: The step to take from; under `wait`, the step that is waited for; None under `done`.
        slot: The free slot, or the number that an over-draw gets, under `wait` one that is drawn in spite of it.
        n_before: Running trials that are presumed to take networks of the same plan first.
        n_free: Free slots of the step, this one among them, past those that others are presumed to take.
        n_slots: Slots of the step.
    """

    kind: Literal["slot", "over_draw", "wait", "done"]
    step: SearchStep | None = None
    slot: int = -1
    n_before: int = 0
    n_free: int = 0
    n_slots: int = 0


class Ledger:
    """The step records of all trials, folded in the order of their numbers.

    A ledger over finished trials never changes what it said of them, so it may be kept between asks; `copy` gives a
    cheap one to add running trials to.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.records: dict[SearchStep, StepRecord] = {}
        self._owned: set[SearchStep] = set()  # Records that no other ledger shares.
        self._first_open = SearchStep(0, 1)
        self._before_first_open: SearchStep | None = None
        self._opened_iteration = -1

    def copy(self) -> Ledger:
        """Return a ledger that can be added to without changing this one."""
        other = Ledger(self.schedule)
        other.records = dict(self.records)
        other._first_open = self._first_open
        other._before_first_open = self._before_first_open
        other._opened_iteration = self._opened_iteration
        self._owned = set()
        return other

    def record(self, step: SearchStep) -> StepRecord:
        """Return what is known of a step; an empty record when nothing is."""
        return self.records.get(step) or StepRecord()

    def add_plan(self, step: SearchStep, networks: tuple[int, ...], predicted: tuple[float, ...] | None) -> None:
        """Take note of a plan published by a trial; trials must come in the order of their numbers."""
        self._own(step).add_plan(networks, predicted)

    def add(self, step: SearchStep, trial: StepTrial) -> None:
        """Take note of a trial of a step; trials must come in the order of their numbers."""
        self._own(step).add(trial)

    def _own(self, step: SearchStep) -> StepRecord:
        if step not in self._owned:
            self.records[step] = self.records[step].copy() if step in self.records else StepRecord()
            self._owned.add(step)
        return self.records[step]

    def close(self) -> None:
        """Remember which steps are closed for good, so that `decide` need not look at them again.

        Call it on a ledger of finished trials only: their steps cannot change any more.
        """
        for step in self.schedule.steps(self._first_open):
            record, limit = self.record(step), self.schedule.slot_limit(step)
            n_slots = record.n_slots(limit)
            if n_slots > 0 and record.n_slots_finished >= n_slots:
                self._before_first_open, self._opened_iteration = step, step.iteration
            elif record.is_touched or not self._is_barren(step):
                return
            self._first_open = self._after(step)

    def _is_barren(self, step: SearchStep) -> bool:
        """Whether the step can have no candidate because the step it extends is finished without a complete trial."""
        parents = self.schedule.parents_of(step)
        if not parents or self._opened_iteration < step.iteration or self.schedule.extends_given:
            return False
        return self._is_finished(self._before_first_open) and not any(self.record(one).complete for one in parents)

    def decide(self, n_unrecorded: int, count_candidates: Callable[[SearchStep], int]) -> Decision:
        """Return what the next ask should do.

        Args:
            n_unrecorded: Running trials with smaller numbers that have not recorded a place yet; each is presumed to
                take the first free slot.
            count_candidates: Gives the number of networks a step without a plan could choose among.
        """
        before, n_left, n_presumed = self._before_first_open, n_unrecorded, 0
        opened_iteration = self._opened_iteration
        all_finished = True
        for step in self.schedule.steps(self._first_open):
            if not self.schedule.repeat_depth_one and step.iteration > opened_iteration + 1:
                break  # A whole iteration opened no slot: there is nothing left to find.
            record = self.record(step)
            limit = self.schedule.slot_limit(step)
            if record.plan is None:
                n_slots = count_candidates(step)
                n_slots = n_slots if limit is None else min(limit, n_slots)
            else:
                n_slots = record.n_slots(limit)
            if n_slots == 0 and not self._is_finished(before):
                return self._beyond(before, n_presumed, n_left)
            if n_slots > 0:
                if not record.is_touched and not self._is_open_after(before):
                    return self._beyond(before, n_presumed, n_left)
                free = record.free_slots(n_slots)
                if len(free) > n_left:
                    return Decision("slot", step, free[n_left], n_left, len(free) - n_left, n_slots)
                n_presumed = len(free)
                n_left -= n_presumed
                opened_iteration = step.iteration
                all_finished = all_finished and record.n_slots_finished >= n_slots
                before = step
        return Decision("done") if all_finished else self._beyond(before, n_presumed, n_left)

    def _after(self, step: SearchStep) -> SearchStep:
        if step.depth < self.schedule.max_depth:
            return SearchStep(step.iteration, step.depth + 1)
        return SearchStep(step.iteration + 1, 1)

    def _is_open_after(self, before: SearchStep | None) -> bool:
        if before is None:
            return True
        record = self.record(before)
        n_slots = record.n_slots(self.schedule.slot_limit(before))
        return len(record.slots) >= n_slots and record.n_finished >= self.schedule.needed(n_slots)

    def _is_finished(self, before: SearchStep | None) -> bool:
        if before is None:
            return True
        record = self.record(before)
        return record.n_slots_finished >= record.n_slots(self.schedule.slot_limit(before))

    def _beyond(self, step: SearchStep | None, n_presumed: int, n_left: int) -> Decision:
        """Every slot of `step` is held, or presumed to be, but too few are finished: over-draw, or wait.

        Args:
            step: The last step that is open.
            n_presumed: Its slots that unrecorded trials are presumed to take.
            n_left: Unrecorded trials beyond those; they are presumed to over-draw.
        """
        if step is None:
            return Decision("wait")
        record = self.record(step)
        is_last = next(iter(self.schedule.steps(self._after(step))), None) is None
        n_over_draws, n_before = record.n_over_draws + n_left, n_presumed + n_left
        may_over_draw = (
            step.depth > 1
            and not is_last
            and n_over_draws < self.schedule.max_over_draws
            and record.next_network(n_before) is not None
        )
        slot = record.n_slots(self.schedule.slot_limit(step)) + n_over_draws
        return Decision("over_draw" if may_over_draw else "wait", step, slot, n_before)
