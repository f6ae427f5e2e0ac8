"""What the stored trials of a study say, folded once and kept up to date.

Finished trials never change, so each is read once per process; running ones are read again at every look. Only trials
with smaller numbers than the asking one are looked at: the number is its ticket.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import trials as records
from mfas_optuna.search.steps import Decision, Ledger, Schedule, SearchStep, State, StepTrial
from mfas_optuna.space import Architecture, SearchSpace

_log = logging.getLogger(__name__)

UNRECORDED_GRACE_S = 60
"""An ask records its place within a fit's time; one that did not within a minute died, or is of another program."""

_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A complete trial with an architecture of the space and a finite score, larger being better.

    Attributes:
        number: The trial's number.
        step: The step it belongs to; for a trial outside the schedule, the last step begun before it.
        architecture: What was trained.
        score: What it scored, negated when the study minimises.
    """

    number: int
    step: SearchStep
    architecture: Architecture
    score: float


class _Fold:
    """Everything that is derived from a sequence of trials; `copy` shares what has not changed."""

    def __init__(self, schedule: Schedule) -> None:
        self.ledger = Ledger(schedule)
        self.evaluations: list[Evaluation] = []
        self.taken: dict[int | None, set[int]] = {}  # Complete and running networks by the index of their parent.
        self.given: set[int] = set()  # Numbers of complete trials without a place in the schedule.
        self.outside: dict[int, set[int]] = {}  # Complete networks without a place in the schedule, by depth.
        self.n_unrecorded = 0
        self.last_step = SearchStep(0, 1)
        self.last_fit_s = 0.0


class View:
    """The trials before one number, as the sampler sees them."""

    def __init__(
        self, space: SearchSpace, schedule: Schedule, base: _Fold, tail: _Fold, drop_taken: bool, sign: float
    ) -> None:
        self.sign = sign
        """1 when the study maximises, -1 when it minimises; scores in a view are multiplied by it."""
        self._space = space
        self._schedule = schedule
        self._base = base
        self._tail = tail
        self._drop_taken = drop_taken

    @property
    def ledger(self) -> Ledger:
        """The step records."""
        return self._tail.ledger

    @property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation, in the order of the trials' numbers.

        In an extended space networks from outside the schedule come first, by their indices: one that was interrupted
        comes back with another number, and must not change what is predicted.
        """
        found = [*self._base.evaluations, *self._tail.evaluations]
        if self._space.kind == "extended":
            given = self._base.given | self._tail.given
            found.sort(
                key=lambda each: (
                    (0, self._space.index(each.architecture), each.number)
                    if each.number in given
                    else (1, each.number, 0)
                )
            )
        return found

    @property
    def new_evaluations(self) -> list[Evaluation]:
        """Evaluations after the last running trial before them: those that an earlier view may not have seen."""
        return self._tail.evaluations

    @property
    def last_fit_s(self) -> float:
        """Seconds that the newest plan took to compute."""
        return self._tail.last_fit_s

    def decide(self) -> Decision:
        """Return what the asking trial should do."""
        return self.ledger.decide(self._tail.n_unrecorded, self.count_candidates)

    def parents(self, step: SearchStep) -> list[int]:
        """Return the indices of the networks that a step above depth 1 extends, each once, sorted.

        In an extended space those of its depth that were given from outside the schedule, baselines above all, too.
        """
        before = self._schedule.parents_of(step)
        found = {network for one in before for network in self.ledger.record(one).complete}
        if self._space.kind == "extended":
            given = (self._base.outside, self._tail.outside)
            found.update(network for of_depth in given for network in of_depth.get(step.depth - 1, ()))
        return sorted(found)

    def unseen_pairs(self) -> dict[SearchStep, list[tuple[float, float]]]:
        """Return predicted and measured score of each step's networks that had not been evaluated when predicted.

        Steps come in order; one whose plan has no predictions is left out. In mode calibrated every network is unseen.
        Scores are as in `evaluations`.
        """
        pairs: dict[SearchStep, list[tuple[float, float]]] = {}
        seen: set[Architecture] = set()
        for evaluation in self.evaluations:
            if evaluation.architecture not in seen:
                seen.add(evaluation.architecture)
                record = self.ledger.record(evaluation.step)
                predicted = record.predicted_score(self._space.index(evaluation.architecture))
                if predicted is not None:
                    pairs.setdefault(evaluation.step, []).append((self.sign * predicted, evaluation.score))
        return dict(sorted(pairs.items()))

    def is_dropped(self, parent: int | None, network: int) -> bool:
        """Return whether a candidate is left out because it is complete or running already (calibrated mode)."""
        return self._drop_taken and (
            network in self._base.taken.get(parent, ()) or network in self._tail.taken.get(parent, ())
        )

    def count_candidates(self, step: SearchStep) -> int:
        """Return among how many networks a step chooses."""
        parents: list[int | None] = [None] if step.depth == 1 else list(self.parents(step))
        each = self._space.size_at(1) if step.depth == 1 else self._space.n_extensions(step.depth - 1)
        count = len(parents) * each
        if self._drop_taken:
            for parent in parents:
                base, tail = self._base.taken.get(parent, set()), self._tail.taken.get(parent, set())
                count -= len(base | tail)
        return count


class History:
    """Reads a study's trials; keeps nothing that could not be rebuilt from them."""

    def __init__(self, space: SearchSpace, schedule: Schedule, *, minimize: bool, drop_taken: bool) -> None:
        self._space = space
        self._schedule = schedule
        self._sign = -1.0 if minimize else 1.0
        self._drop_taken = drop_taken
        self._base = _Fold(schedule)
        self._n_folded = 0
        self._last_folded: FrozenTrial | None = None
        self._warned: set[int] = set()

    def is_prefix_of(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether the trials continue what was folded; they do not when a study was deleted and made anew."""
        last = self._last_folded
        if last is None:
            return True
        if len(trials) < self._n_folded:
            return False
        same = trials[last.number]
        if same.number != last.number:
            same = next((trial for trial in trials if trial.number == last.number), same)
        return (same._trial_id, same.datetime_complete) == (last._trial_id, last.datetime_complete)

    def view(self, trials: Sequence[FrozenTrial], before: int, told: FrozenTrial | None = None) -> View:
        """Return what the trials with numbers below `before` amount to; their order in the sequence does not matter.

        Args:
            trials: All trials of the study.
            before: The asking trial's number.
            told: A running trial as it is about to be stored; it stands for the stored one in this view alone.
        """
        if any(trial.number != position for position, trial in enumerate(trials)):
            trials = sorted(trials, key=lambda trial: trial.number)
        n_before = self._n_folded
        while (
            self._n_folded < min(before, len(trials))
            and trials[self._n_folded].number == self._n_folded
            and trials[self._n_folded].state.is_finished()
        ):
            self._last_folded = trials[self._n_folded]
            self._fold(self._base, self._last_folded)
            self._n_folded += 1
        if self._n_folded != n_before:
            self._base.ledger.close()
        tail = _Fold(self._schedule)
        tail.ledger = self._base.ledger.copy()
        tail.last_step, tail.last_fit_s = self._base.last_step, self._base.last_fit_s
        for trial in trials[self._n_folded :]:
            if trial.number < before:
                self._fold(tail, told if told is not None and told.number == trial.number else trial)
        return View(self._space, self._schedule, self._base, tail, self._drop_taken, self._sign)

    def _fold(self, fold: _Fold, trial: FrozenTrial) -> None:
        if trial.state == TrialState.WAITING:
            return
        attributes = trial.system_attrs
        architecture = score = None
        if trial.state == TrialState.COMPLETE:
            architecture = self._space.from_parameters(trial.params)
            score = self._score(trial)
        plan = records.read_plan(attributes)
        if plan is not None and plan.space == self._space.digest:
            fold.ledger.add_plan(SearchStep(plan.iteration, plan.depth), plan.networks, plan.predicted_scores)
            fold.last_fit_s = plan.fit_s
        proposal = records.read_proposal(attributes)
        if proposal is not None and proposal.is_scheduled and proposal.space == self._space.digest:
            step = SearchStep(proposal.iteration, proposal.depth)
            trained = None
            if architecture is not None and score is not None and architecture.depth == proposal.depth:
                trained = self._space.index(architecture)
            fold.ledger.add(
                step,
                StepTrial(
                    number=trial.number,
                    state=_STATES[trial.state],
                    slot=proposal.slot,
                    is_over_draw=proposal.is_over_draw,
                    network=proposal.network,
                    trained=trained,
                    failure=records.read_failure(attributes),
                ),
            )
            fold.last_step = step
            # Of an extended space one is pruned that cannot meet the budget: it would be again.
            is_over = trial.state == TrialState.PRUNED and self._space.kind == "extended"
            if trial.state == TrialState.RUNNING or is_over:
                self._take(fold, self._space.architecture(proposal.network))
        elif proposal is None and _is_about_to_record(trial):
            fold.n_unrecorded += 1
        if architecture is not None and score is not None:
            self._take(fold, architecture)
            fold.evaluations.append(Evaluation(trial.number, fold.last_step, architecture, score))
            if proposal is None or not proposal.is_scheduled:
                fold.given.add(trial.number)
                fold.outside.setdefault(architecture.depth, set()).add(self._space.index(architecture))

    def _take(self, fold: _Fold, architecture: Architecture) -> None:
        parent = architecture.parent
        key = None if parent is None else self._space.index(parent)
        fold.taken.setdefault(key, set()).add(self._space.index(architecture))

    def _score(self, trial: FrozenTrial) -> float | None:
        value = float(trial.values[0])
        if math.isfinite(value):
            return self._sign * value
        if trial.number not in self._warned:
            self._warned.add(trial.number)
            _log.warning("Trial %d is complete with the score %r; it is ignored. Make it fail.", trial.number, value)
        return None


def _is_about_to_record(trial: FrozenTrial) -> bool:
    """Whether a trial without a place will soon have one: it is being asked for, and not since a minute."""
    if trial.state != TrialState.RUNNING or records.is_enqueued(trial.system_attrs):
        return False
    now = datetime.now()
    return now - (trial.datetime_start or now) < timedelta(seconds=UNRECORDED_GRACE_S)
