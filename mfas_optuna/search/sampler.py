"""MFASSampler: Algorithm 1 as an ordinary Optuna sampler whose whole state is the study's trials.

docs/decisions/0008-slots-and-tickets.md says how a trial finds its place; `steps.py` does it.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import trials as records
from mfas_optuna.errors import SamplerError
from mfas_optuna.search.health import StepHealth, is_near_uniform, rank_correlation, remedy
from mfas_optuna.search.history import History, View
from mfas_optuna.search.plan import Planner
from mfas_optuna.search.prior import Prior
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.steps import Decision, Schedule, SearchStep
from mfas_optuna.search.temperature import TEMPERATURES, TemperatureSchedule
from mfas_optuna.space import Architecture, SearchSpace

_log = logging.getLogger(__name__)

MIN_PLAN_WAIT_S = 2.0
"""How long an ask waits at least for a living leader to publish the step's plan."""
_POLL_S = 0.02
_MAX_REDRAWS = 100


class MFASSampler(BaseSampler):
    """Proposes fusion architectures by progressive depth and a surrogate (MFAS, Algorithm 1).

    It works with any objective that calls `space.suggest(trial)`, with `study.optimize` and with ask and tell, in any
    storage and from any number of processes with equal settings. Parameters outside the space are sampled
    independently at random. Nothing is kept between asks that could not be rebuilt from the stored trials.

    Example:
        >>> space = SearchSpace({"audio": ["conv1", "conv2"], "image": ["conv1"]}, ["relu", "sigmoid"], max_depth=2)
        >>> sampler = MFASSampler(space, seed=0)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(lambda trial: space.suggest(trial).depth / 2, n_trials=10)
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        n_iterations: int | None = None,
        samples_per_step: int = 15,
        mode: Literal["calibrated", "paper"] = "calibrated",
        seed: int | None = None,
        temperature_max: float | None = None,
        temperature_min: float | None = None,
        temperature_decay: float = 4.0,
        quorum: float = 0.8,
    ) -> None:
        """Check and keep the settings.

        Args:
            space: What may be proposed.
            n_iterations: E_search, how often depth 1 to L is gone through (3 in the paper); None: until the study's
                own limit, or, in mode calibrated, until a whole iteration finds nothing new.
            samples_per_step: K, networks trained at each depth; in mode paper at each depth above 1.
            mode: `paper` is Algorithm 1 to the letter and needs scores to maximise within [0, 1]; `calibrated` takes
                any finite scores, either direction, never trains a network twice, and spreads depth 1 over the
                first iterations, K networks each.
            seed: Seed of every draw; None draws one, so that workers would differ: give one for several workers.
            temperature_max: T_max; None: 10 in mode paper, 0.1 in mode calibrated.
            temperature_min: T_min; None: 0.2 in mode paper, 0.05 in mode calibrated.
            temperature_decay: sigma of the schedule, in steps.
            quorum: Fraction of a step that must be finished before the next one opens.

        Raises:
            SamplerError: A setting is out of its range; the message names it.
        """
        if mode not in ("calibrated", "paper"):
            raise SamplerError(f"mode must be 'calibrated' or 'paper', found {mode!r}.")
        if mode == "paper" and space.kind != "paper":
            raise SamplerError(
                f"mode 'paper' is Algorithm 1, which searches the paper's space; found space {space.kind!r}. "
                "Use mode='calibrated'."
            )
        if n_iterations is not None and n_iterations < 1:
            raise SamplerError(f"n_iterations must be at least 1, or None for no end; found {n_iterations}.")
        if samples_per_step < 1:
            raise SamplerError(f"samples_per_step must be at least 1, found {samples_per_step}.")
        if not 0 < quorum <= 1:
            raise SamplerError(f"quorum must lie in (0, 1], found {quorum}.")
        default_highest, default_lowest = TEMPERATURES[mode]
        highest = default_highest if temperature_max is None else temperature_max
        lowest = default_lowest if temperature_min is None else temperature_min
        if not 0 < lowest < highest:
            raise SamplerError(f"temperature_min must lie in (0, {highest}), found {lowest}.")
        if not temperature_decay > 0:
            raise SamplerError(f"temperature_decay must be above 0, found {temperature_decay}.")
        self.space = space
        self.mode = mode
        self.seed = random.SystemRandom().getrandbits(31) if seed is None else seed
        self.schedule = Schedule(
            max_depth=space.max_depth,
            samples_per_step=samples_per_step,
            n_iterations=n_iterations,
            n_depth_one=space.size_at(1),
            repeat_depth_one=mode == "paper",
            quorum=quorum,
            extends_given=space.kind == "extended",
        )
        temperatures = TemperatureSchedule(highest, lowest, temperature_decay)
        self._planner = Planner(space, self.schedule, temperatures, mode=mode, seed=self.seed)
        self._independent = RandomSampler(seed=self.seed % 2**32)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._histories: dict[int, tuple[optuna.storages.BaseStorage, History]] = {}
        self._decided: dict[int, Architecture] = {}
        self._warned_of: set[int] = set()  # Studies whose near-uniform choices need no further word.

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_lock", "_histories", "_decided")
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def reseed_rng(self) -> None:
        """Reseed the sampling of parameters outside the space; architectures depend on `seed` and the trials alone."""
        self._independent.reseed_rng()

    @property
    def prior(self) -> Prior | None:
        """What is known of the features beforehand; all workers of a study must have the same."""
        return self._planner.prior

    @prior.setter
    def prior(self, prior: Prior | None) -> None:
        self._planner.prior = prior

    # What a worker asks.

    def decide(self, study: optuna.Study) -> Decision:
        """Return what the next ask would do; `wait` means that only running trials can bring the search on.

        Raises:
            SamplerError: The study does not suit the sampler.
        """
        self._check_study(study)
        return self._view(study, study.get_trials(deepcopy=False)).decide()

    def is_finished(self, study: optuna.Study) -> bool:
        """Return whether the schedule is done and its last trial finished."""
        return self.decide(study).kind == "done"

    def health(self, study: optuna.Study) -> dict[SearchStep, StepHealth]:
        """Return how the surrogate did in each step that it chose the networks of, in order.

        Raises:
            SamplerError: The study does not suit the sampler.
        """
        self._check_study(study)
        trials = study.get_trials(deepcopy=False)
        pairs = self._view(study, trials).unseen_pairs()
        found: dict[SearchStep, StepHealth] = {}
        for trial in sorted(trials, key=lambda trial: trial.number):
            plan = records.read_plan(trial.system_attrs)
            if plan is None or plan.space != self.space.digest or plan.predicted_std is None:
                continue
            step = SearchStep(plan.iteration, plan.depth)
            of_step = pairs.get(step, [])
            found.setdefault(
                step,
                StepHealth(
                    rank_correlation=rank_correlation(of_step),
                    n_unseen=len(of_step),
                    predicted_std=plan.predicted_std,
                    n_candidates=plan.n_candidates,
                    n_effective=plan.n_effective,
                    is_near_uniform=self._is_near_uniform(plan),
                ),
            )
        return dict(sorted(found.items()))

    # Optuna's side.

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Decide the trial's whole architecture and record it."""
        self._check_study(study)
        if records.is_enqueued(trial.system_attrs):
            architecture = self._completed(trial.number, records.fixed_parameters(trial.system_attrs))
        else:
            proposal = self._propose(study, trial)
            records.write_proposal(study, trial, proposal)
            architecture = self.space.architecture(proposal.network)
        with self._lock:
            self._decided[trial._trial_id] = architecture

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return exactly the parameters of this trial's architecture."""
        architecture = self._architecture_of(study, trial)
        if architecture is None:
            return {}
        choices = self.space.parameter_choices()
        return {name: _distribution(choices[name]) for name in self.space.parameters(architecture)}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the decided architecture's parameters, and an independent sample for any other name asked for."""
        self._check_study(study)
        architecture = self._architecture_of(study, trial)
        values: dict[str, Any] = {} if architecture is None else dict(self.space.parameters(architecture))
        return {
            name: values[name]
            if name in values and _contains(distribution, values[name])
            else self._independent.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample a parameter outside the space uniformly at random."""
        self._check_study(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Show the proposal to people, note an unexplained failure, and stop `optimize` when the schedule is done.

        Raises:
            SamplerError: Mode paper met a score outside [0, 1].
        """
        with self._lock:
            self._decided.pop(trial._trial_id, None)
        proposal = records.read_proposal(trial.system_attrs)
        if proposal is not None and proposal.space == self.space.digest:
            notation = self.space.notation(self.space.architecture(proposal.network))
            records.mirror_proposal(study, trial, proposal, notation)
        plan = records.read_plan(trial.system_attrs)
        if plan is not None and plan.space == self.space.digest:
            records.mirror_plan(study, trial, plan)
        if state == TrialState.FAIL and records.read_failure(trial.system_attrs) is None:
            records.write_failure(study, trial, "error", "the objective failed or returned no number")
        if state == TrialState.COMPLETE and values is not None:
            self._check_score(trial.number, values[0])
        if self._is_finished_after(study, trial, state, values):
            try:
                study.stop()
            except RuntimeError:  # Outside `optimize`, where the caller asks `is_finished`.
                _log.debug("The search is finished.")

    # Deciding.

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> records.Proposal:
        give_up_at: float | None = None
        while True:
            view = self._view(study, study.get_trials(deepcopy=False), trial.number)
            decision = view.decide()
            step = decision.step
            if step is None:
                return self._unscheduled(trial)
            record = view.ledger.record(step)
            if record.plan is None and decision.kind == "slot":
                if decision.slot > 0:  # Somebody else leads: give them the time that a fit takes.
                    now = time.monotonic()
                    give_up_at = give_up_at or now + max(MIN_PLAN_WAIT_S, 3 * view.last_fit_s)
                    if now < give_up_at:
                        time.sleep(_POLL_S)
                        continue
                pairs = list(view.unseen_pairs().values())
                correlation = rank_correlation(pairs[-1]) if pairs else None
                plan = replace(self._planner.plan(view, step), rank_correlation_before=correlation)
                records.write_plan(study, trial, plan)
                self._warn_if_near_uniform(study, plan)
                record = record.copy()
                record.add_plan(plan.networks, plan.predicted_scores)
            network = record.next_network(decision.n_before)
            if network is None:
                return self._unscheduled(trial)
            # Under `wait`, asked for all the same: a further over-draw rather than a wasted trial.
            return records.Proposal(
                space=self.space.digest,
                iteration=step.iteration,
                depth=step.depth,
                slot=decision.slot,
                is_over_draw=decision.kind != "slot",
                is_surplus=decision.kind == "wait",
                network=network,
                temperature=self._planner.temperature(step),
                predicted_score=record.predicted_score(network),
                attempt=record.recorded_failures.get(network, 0),
            )

    def _is_near_uniform(self, plan: records.Plan) -> bool:
        return plan.predicted_std is not None and is_near_uniform(
            plan.n_effective, plan.n_candidates, self.schedule.samples_per_step
        )

    def _warn_if_near_uniform(self, study: optuna.Study, plan: records.Plan) -> None:
        """Say it of each step; in mode paper, which is so by nature, once a study in this process."""
        if study._study_id in self._warned_of or not self._is_near_uniform(plan):
            return
        if self.mode == "paper":
            self._warned_of.add(study._study_id)
        _log.warning(
            "Iteration %d, depth %d: near-uniform choice, %.0f of %d candidates in effect (their predictions have a "
            "standard deviation of %.2g), so that networks are drawn almost at random. %s",
            plan.iteration + 1,
            plan.depth,
            plan.n_effective,
            plan.n_candidates,
            plan.predicted_std,
            remedy(self.mode),
        )

    def _unscheduled(self, trial: FrozenTrial) -> records.Proposal:
        """Return a network drawn uniformly from the whole space; it holds no slot."""
        rng = random.Random(seed_from(self.seed, "uniform", trial.number))
        return records.Proposal(
            space=self.space.digest,
            iteration=-1,
            depth=0,
            slot=-1,
            is_over_draw=False,
            is_surplus=True,
            network=rng.randrange(self.space.size),
            temperature=None,
            predicted_score=None,
            attempt=0,
        )

    def _completed(self, number: int, fixed: dict[str, Any]) -> Architecture:
        """Return a random architecture that agrees with an enqueued trial's parameters as far as they are valid."""
        rng = random.Random(seed_from(self.seed, "enqueued", number))
        choices = self.space.parameter_choices()

        def choose(name: str) -> int:
            options = list(choices[name])
            value = fixed.get(name)
            return options.index(value) if value in options else rng.randrange(len(options))

        for _ in range(_MAX_REDRAWS):
            parameters = {name: list(choices[name])[choose(name)] for name in choices}
            architecture = self.space.from_parameters(parameters)
            if architecture is not None:
                return architecture
        # The trial's own parameters, which it keeps, name no network: it fails when it asks for one, and it alone.
        return self.space.architecture(0)

    def _architecture_of(self, study: optuna.Study, trial: FrozenTrial) -> Architecture | None:
        """Return what was decided for a trial, here or in the process that asked for it; None when nothing was."""
        with self._lock:
            architecture = self._decided.get(trial._trial_id)
        if architecture is not None:
            return architecture
        attributes = records.system_attributes(study, trial._trial_id)
        proposal = records.read_proposal(attributes)
        if proposal is not None and proposal.space == self.space.digest:
            return self.space.architecture(proposal.network)
        if records.is_enqueued(attributes):
            return self._completed(trial.number, records.fixed_parameters(attributes))
        return None

    def _view(self, study: optuna.Study, trials: list[FrozenTrial], before: int | None = None) -> View:
        with self._lock:
            view = self._history(study, trials).view(trials, len(trials) if before is None else before)
        for evaluation in view.new_evaluations:
            self._check_score(evaluation.number, evaluation.score)
        return view

    def _history(self, study: optuna.Study, trials: list[FrozenTrial]) -> History:
        storage, history = self._histories.get(study._study_id, (None, None))
        if history is None or storage is not study._storage or not history.is_prefix_of(trials):
            history = History(
                self.space,
                self.schedule,
                minimize=study.direction == optuna.study.StudyDirection.MINIMIZE,
                drop_taken=self.mode == "calibrated",
            )
            self._histories[study._study_id] = (study._storage, history)
            self._warned_of.discard(study._study_id)
        return history

    def _is_finished_after(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> bool:
        """Return whether the search is done once this trial, which still runs, is stored with its state."""
        trials = study.get_trials(deepcopy=False)
        told = copy.copy(next(stored for stored in trials if stored.number == trial.number))
        told.state, told.values = state, values
        with self._lock:
            return self._history(study, trials).view(trials, len(trials), told).decide().kind == "done"

    # Checks.

    def _check_study(self, study: optuna.Study) -> None:
        if len(study.directions) != 1:
            raise SamplerError(
                f"MFASSampler works on one objective, found {len(study.directions)}. Use another sampler, such as "
                "optuna.samplers.NSGAIISampler."
            )
        if self.mode == "paper" and study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise SamplerError(
                "mode='paper' needs a score to maximise, found a study that minimises. "
                "Return 1 - error, or use mode='calibrated'."
            )

    def _check_score(self, number: int, score: float) -> None:
        if self.mode == "paper" and math.isfinite(score) and not 0 <= score <= 1:
            raise SamplerError(
                f"mode='paper' needs scores within [0, 1], trial {number} scored {score}. "
                "Scale the score, or use mode='calibrated'."
            )


def _distribution(choices: Sequence[str] | range) -> BaseDistribution:
    if isinstance(choices, range):
        return IntDistribution(choices[0], choices[-1])
    return CategoricalDistribution(list(choices))


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False
