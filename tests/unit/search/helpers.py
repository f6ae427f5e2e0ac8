"""A small space, an objective with a known optimum, and ways to drive a sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import MFASSampler, SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.space import Architecture

SPACE = SearchSpace({"audio": ["a1", "a2"], "image": ["i1", "i2"]}, ["relu", "sigmoid"], max_depth=3)


def score(architecture: Architecture) -> float:
    """A fixed score in [0, 1] that rewards depth, the second features and, at random, some pairs of layers."""
    total = 0.0
    for layer in architecture.layers:
        total += 0.08 * sum(layer.features) + 0.04 * layer.activation
    luck = seed_from("luck", architecture.paper_notation()) % 1000 / 1000
    return min(1.0, 0.2 + 0.05 * architecture.depth + total + 0.1 * luck)


def make_sampler(space: SearchSpace = SPACE, **settings: Any) -> MFASSampler:
    return MFASSampler(space, **{"n_iterations": 2, "samples_per_step": 4, "seed": 0, **settings})


def make_study(sampler: optuna.samplers.BaseSampler, **settings: Any) -> optuna.Study:
    return optuna.create_study(**{"direction": "maximize", "sampler": sampler, **settings})


def objective(space: SearchSpace = SPACE) -> Callable[[optuna.Trial], float]:
    return lambda trial: score(space.suggest(trial))


def run(study: optuna.Study, n_trials: int = 200, space: SearchSpace = SPACE) -> optuna.Study:
    """Optimise until the sampler stops, at most so many trials."""
    study.optimize(objective(space), n_trials=n_trials)
    return study


def proposal_of(trial: FrozenTrial) -> records.Proposal:
    proposal = records.read_proposal(trial.system_attrs)
    assert proposal is not None
    return proposal


def places(study: optuna.Study) -> list[tuple[int, int, int, int, str]]:
    """Return (iteration, depth, slot, network, state) of every trial, by number."""
    return [
        (proposal.iteration, proposal.depth, proposal.slot, proposal.network, trial.state.name)
        for trial in study.get_trials(deepcopy=False)
        for proposal in [proposal_of(trial)]
    ]


def networks_of(study: optuna.Study, iteration: int, depth: int) -> list[int]:
    """Return the networks that a step completed, in the order of the trials."""
    return [
        proposal.network
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for proposal in [proposal_of(trial)]
        if (proposal.iteration, proposal.depth) == (iteration, depth)
    ]
