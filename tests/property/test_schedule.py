"""The schedule under any interleaving of workers that start, take a place, finish, fail and die."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mfas_optuna.search.steps import Decision, Ledger, Schedule, SearchStep, State, StepTrial

N_LAYERS = 6


@dataclass
class Started:
    """A trial as a storage has it; without a place until it looked."""

    number: int
    state: State = "running"
    failure: str | None = None
    step: SearchStep | None = None
    slot: int = -1
    is_over_draw: bool = False
    network: int = -1
    plan: tuple[int, ...] | None = None


@dataclass
class World:
    """Trials of any number of workers; a network is a number whose quotient by N_LAYERS is its parent."""

    schedule: Schedule
    trials: list[Started] = field(default_factory=list)

    def ledger(self, before: int) -> tuple[Ledger, int]:
        """Fold the trials below a number; return how many of them have no place yet."""
        ledger = Ledger(self.schedule)
        n_unrecorded = 0
        for trial in self.trials[:before]:
            if trial.plan is not None and trial.step is not None:
                ledger.add_plan(trial.step, trial.plan, None)
            if trial.step is None:
                n_unrecorded += trial.state == "running"
                continue
            trained = trial.network if trial.state == "complete" else None
            ledger.add(
                trial.step,
                StepTrial(
                    trial.number, trial.state, trial.slot, trial.is_over_draw, trial.network, trained, trial.failure
                ),
            )
        return ledger, n_unrecorded

    def candidates(self, ledger: Ledger, step: SearchStep) -> list[int]:
        parents = self.schedule.parents_of(step)
        if not parents:
            earlier = () if self.schedule.repeat_depth_one else range(step.iteration)
            taken = {network for i in earlier for network in ledger.record(SearchStep(i, 1)).networks}
            return [network for network in range(1, N_LAYERS + 1) if network not in taken]
        complete = sorted({network for one in parents for network in ledger.record(one).complete})
        return [N_LAYERS * parent + layer for parent in complete for layer in range(1, N_LAYERS + 1)]

    def decide(self, before: int) -> tuple[Ledger, Decision]:
        ledger, n_unrecorded = self.ledger(before)
        return ledger, ledger.decide(n_unrecorded, lambda step: len(self.candidates(ledger, step)))

    def look(self, trial: Started) -> None:
        """Let a trial that has no place take one, unless the leader's plan is not there yet."""
        ledger, decision = self.decide(trial.number)
        step = decision.step
        if step is None:
            trial.state = "complete"  # Outside the schedule: it holds nothing.
            return
        record = ledger.record(step)
        if record.plan is None:
            if decision.slot > 0 or decision.kind != "slot":
                return
            networks = self.candidates(ledger, step)
            random.Random(str(step)).shuffle(networks)
            trial.plan = tuple(networks)
            record = record.copy()
            record.add_plan(trial.plan, None)
        network = record.next_network(decision.n_before)
        if network is None or decision.kind == "wait":
            trial.state = "complete"
            return
        trial.step, trial.slot, trial.network = step, decision.slot, network
        trial.is_over_draw = decision.kind == "over_draw"

    def start(self) -> Started:
        self.trials.append(Started(len(self.trials)))
        return self.trials[-1]

    def check(self) -> None:
        """No network twice in a step, no slot twice, no more over-draws than allowed."""
        held: dict[SearchStep, list[Started]] = {}
        for trial in self.trials:
            if trial.step is not None and trial.state != "failed":
                held.setdefault(trial.step, []).append(trial)
        for step, trials in held.items():
            networks = [trial.network for trial in trials]
            assert len(set(networks)) == len(networks), (step, trials)
            slots = [trial.slot for trial in trials if not trial.is_over_draw]
            assert len(set(slots)) == len(slots), (step, trials)
            assert sum(trial.is_over_draw for trial in trials) <= self.schedule.max_over_draws
        if self.decide(len(self.trials))[1].kind == "done":
            in_slots = [trial for trial in self.trials if trial.step is not None and not trial.is_over_draw]
            assert all(trial.state != "running" for trial in in_slots)

    def finish(self) -> None:
        """Let one worker run what is left, with all others gone."""
        for trial in self.trials:
            if trial.state == "running":
                trial.state, trial.failure = "failed", None
        for _ in range(500):
            if self.decide(len(self.trials))[1].kind == "done":
                return
            trial = self.start()
            self.look(trial)
            assert trial.step is not None, "a lone worker found nothing to do although the search is not done"
            trial.state = "complete"
        raise AssertionError("the search does not end")


ENDS: dict[str, tuple[State, str | None]] = {
    "complete": ("complete", None),
    "prune": ("pruned", None),
    "diverge": ("failed", "diverged"),
    "die": ("failed", None),
    "give_back": ("failed", "given_back"),
}


def work(world: World, rng: random.Random, paces: list[float], trouble: float, n_ticks: int) -> None:
    """Let workers start, look and end in random turns; a worker of low pace often lets its turn pass."""
    current: list[Started | None] = [None] * len(paces)
    for _ in range(n_ticks):
        worker = rng.randrange(len(paces))
        trial = current[worker]
        if rng.random() > paces[worker]:
            continue
        if trial is None or trial.state != "running":
            current[worker] = world.start()
        elif rng.random() < trouble:
            trial.state, trial.failure = ENDS[rng.choice(["prune", "diverge", "die", "give_back"])]
        elif trial.step is None:
            world.look(trial)
        else:
            trial.state, trial.failure = ENDS["complete"]
        world.check()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    paces=st.lists(st.sampled_from([0.05, 0.3, 1.0]), min_size=1, max_size=5),
    trouble=st.sampled_from([0.0, 0.02, 0.3]),
    n_ticks=st.integers(0, 150),
    k=st.integers(1, 7),
    quorum=st.sampled_from([0.5, 0.8, 1.0]),
    repeat=st.booleans(),
    max_depth=st.integers(1, 3),
)
def test_any_interleaving(
    seed: int,
    paces: list[float],
    trouble: float,
    n_ticks: int,
    k: int,
    quorum: float,
    repeat: bool,
    max_depth: int,
) -> None:
    world = World(Schedule(max_depth, k, 2, N_LAYERS, repeat, quorum))
    work(world, random.Random(seed), paces, trouble, n_ticks)
    world.finish()
    world.check()
    for step in world.schedule.steps():
        ledger, _ = world.ledger(len(world.trials))
        record = ledger.record(step)
        n_slots = record.n_slots(world.schedule.slot_limit(step))
        assert record.n_slots_finished >= n_slots
        assert len(record.slots) >= n_slots
