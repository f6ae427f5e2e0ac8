"""One step's plan: candidates, predictions, probabilities, and the order drawn from them (lines 11 and 16 to 21)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mfas_optuna.search import proposal as proposals
from mfas_optuna.search.history import Evaluation, View
from mfas_optuna.search.linear import LinearSurrogate
from mfas_optuna.search.prior import Prior
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.steps import Schedule, SearchStep
from mfas_optuna.search.temperature import TemperatureSchedule
from mfas_optuna.space import Architecture, ExtendedSpace, SearchSpace
from mfas_optuna.trials import Plan

MAX_CANDIDATES = 4000
"""Of more candidates in an extended space, so many are drawn and predicted, by what is known of them beforehand."""
MAX_SURROGATE_TRIALS = 1000
"""In mode calibrated the surrogate is fitted to the newest so many evaluations at most."""
SMALLEST_DEVIATION = 1e-12
"""Scores that deviate less, in units of their mean, do not differ."""


class Planner:
    """Draws plans; the same trials, settings and seed give the same plan in any process."""

    def __init__(
        self,
        space: SearchSpace,
        schedule: Schedule,
        temperatures: TemperatureSchedule,
        *,
        mode: Literal["calibrated", "paper"],
        seed: int,
    ) -> None:
        self._space = space
        self._schedule = schedule
        self._temperatures = temperatures
        self._mode = mode
        self._seed = seed
        self.prior: Prior | None = None

    def temperature(self, step: SearchStep) -> float | None:
        """Return the temperature at which a step's networks are drawn; None where all of depth 1 are trained."""
        return None if self._takes_all(step) else self._temperatures.at(self._schedule.position(step))

    def _takes_all(self, step: SearchStep) -> bool:
        """Whether a step takes every network there is: depth 1 of the paper's space, sooner or later."""
        return step.depth == 1 and self._space.kind == "paper"

    def plan(self, view: View, step: SearchStep) -> Plan:
        """Draw the plan of a step from what the trials in the view say."""
        started = time.perf_counter()
        seed = seed_from(self._seed, "plan", step.iteration, step.depth)
        if self._takes_all(step):
            networks = [
                index for index in range(self._space.size_at(1)) if not view.is_dropped(None, index)
            ]  # The architectures of depth 1 have the lowest indices.
            order = np.random.default_rng(seed).permutation(len(networks))
            return self._published(step, [networks[position] for position in order], None, len(networks), started)
        networks = self._candidates(view, step, seed)
        if not networks:
            return self._published(step, [], None, 0, started)
        candidates = [self._space.architecture(network) for network in networks]
        predicted_C = self._predict(view.evaluations, candidates, step)
        temperature = self._temperatures.at(self._schedule.position(step))
        weigh = proposals.log_weights_paper if self._mode == "paper" else proposals.log_weights_calibrated
        log_weights_C = weigh(predicted_C, temperature)
        k = self._schedule.samples_per_step
        order_K = proposals.sampling_order(log_weights_C, seed, length=2 * k + self._schedule.max_over_draws)
        return self._published(
            step,
            [networks[position] for position in order_K],
            [view.sign * float(predicted_C[position]) for position in order_K],
            len(candidates),
            started,
            n_effective=proposals.effective_choices(log_weights_C),
            predicted_std=float(predicted_C.std()),
        )

    def _candidates(self, view: View, step: SearchStep, seed: int) -> list[int]:
        """Return the indices of the networks that a step chooses among, each once."""
        parents = [] if step.depth == 1 else view.parents(step)
        if isinstance(self._space, ExtendedSpace):
            each = self._space.size_at(1) if step.depth == 1 else self._space.n_extensions(step.depth - 1)
            total = each if step.depth == 1 else len(parents) * each
            if total > MAX_CANDIDATES:
                return self._some(view, parents, total, each, seed)
        if step.depth == 1:
            return [index for index in range(self._space.size_at(1)) if not view.is_dropped(None, index)]
        return [
            network
            for parent in parents
            for child in self._space.extensions(self._space.architecture(parent))
            if not view.is_dropped(parent, network := self._space.index(child))
        ]

    def _some(self, view: View, parents: Sequence[int], total: int, each: int, seed: int) -> list[int]:
        """Return MAX_CANDIDATES candidates at most, drawn by what is known of four times as many, drawn uniformly."""
        rng = np.random.default_rng([seed, 1])
        positions = sorted(rng.choice(total, size=min(total, 4 * MAX_CANDIDATES), replace=False).tolist())
        found: list[tuple[int, Architecture]] = []
        for position in positions:
            if not parents:
                parent, network = None, position
                architecture = self._space.architecture(network)
            else:
                parent = parents[position // each]
                architecture = self._space.extension(self._space.architecture(parent), position % each)
                network = self._space.index(architecture)
            if not view.is_dropped(parent, network):
                found.append((network, architecture))
        if not found:
            return []
        log_weights = np.zeros(len(found)) if self.prior is None else self._known([one for _, one in found])
        order = proposals.sampling_order(log_weights, seed_from(seed, "candidates"), length=MAX_CANDIDATES)
        return [found[position][0] for position in sorted(order)]

    def _known(self, candidates: Sequence[Architecture]) -> NDArray[np.float64]:
        assert self.prior is not None
        return self.prior.of_architectures(self._space, candidates)

    def _published(
        self,
        step: SearchStep,
        networks: Sequence[int],
        predicted: Sequence[float] | None,
        n_candidates: int,
        started: float,
        n_effective: float | None = None,
        predicted_std: float | None = None,
    ) -> Plan:
        return Plan(
            space=self._space.digest,
            iteration=step.iteration,
            depth=step.depth,
            networks=tuple(networks),
            predicted_scores=None if predicted is None else tuple(predicted),
            temperature=self.temperature(step),
            n_candidates=n_candidates,
            n_effective=float(n_candidates) if n_effective is None else n_effective,
            predicted_std=predicted_std,
            fit_s=round(time.perf_counter() - started, 4),
        )

    def _predict(
        self, evaluations: Sequence[Evaluation], candidates: Sequence[Architecture], step: SearchStep
    ) -> NDArray[np.float64]:
        """Return predicted scores of the candidates, on the scale of the scores."""
        if not evaluations:
            return np.zeros(len(candidates)) if self.prior is None else self._known(candidates)
        if self._mode == "paper":
            return self._predict_stepwise(evaluations, candidates)
        newest = evaluations[-MAX_SURROGATE_TRIALS:]
        known = [evaluation.architecture for evaluation in newest]
        scores_N = np.array([evaluation.score for evaluation in newest])
        mean, deviation = float(scores_N.mean()), float(scores_N.std())
        if not deviation > SMALLEST_DEVIATION * max(1.0, abs(mean)):  # Nothing to learn, and no noise to follow.
            return np.full(len(candidates), mean)
        standardised_N = (scores_N - mean) / deviation
        from mfas_optuna.search.surrogate import Surrogate  # torch takes seconds, and only who asks needs it.

        seed = seed_from(self._seed, "surrogate", step.iteration, step.depth)
        prior_V = None if self.prior is None else self.prior.values(self._space)
        recurrent = Surrogate(self._space, seed=seed, bounded=False, prior_V=prior_V)
        linear = LinearSurrogate(self._space, prior_V)
        recurrent.update(known, standardised_N)
        linear.fit(known, standardised_N)
        predicted_C = (recurrent.predict(candidates) + linear.predict(candidates)) / 2
        return np.asarray(predicted_C * deviation + mean)

    def _predict_stepwise(
        self, evaluations: Sequence[Evaluation], candidates: Sequence[Architecture]
    ) -> NDArray[np.float64]:
        """Repeat Algorithm 1's updates, each on the networks of one step alone, from the same first weights."""
        from mfas_optuna.search.surrogate import Surrogate

        surrogate = Surrogate(self._space, seed=seed_from(self._seed, "surrogate"), bounded=True)
        in_order = sorted(evaluations, key=lambda evaluation: (evaluation.step, evaluation.number))
        for _, group in groupby(in_order, key=lambda evaluation: evaluation.step):
            of_step = list(group)
            surrogate.update(
                [evaluation.architecture for evaluation in of_step],
                np.array([evaluation.score for evaluation in of_step]),
            )
        return surrogate.predict(candidates)
