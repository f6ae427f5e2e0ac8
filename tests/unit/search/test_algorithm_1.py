"""Mode paper against Algorithm 1 as plain loops: the same networks in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.surrogate import Surrogate
from mfas_optuna.search.temperature import TemperatureSchedule
from mfas_optuna.space import Architecture, FusionLayer, SearchSpace
from tests.reference import algorithm_1

from .helpers import SPACE, make_sampler, make_study, proposal_of, run, score

THREE = SearchSpace({"a": ["a1"], "b": ["b1", "b2"], "c": ["c1", "c2"]}, ["tanh"], max_depth=4)


def as_architecture(network: algorithm_1.Network) -> Architecture:
    return Architecture(tuple(FusionLayer(layer[:-1], layer[-1]) for layer in network))


class Adapter:
    """The package's surrogate, spoken to in the oracle's tuples."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._surrogate = Surrogate(space, seed=seed_from(seed, "surrogate"), bounded=True)

    def update(self, networks: Sequence[algorithm_1.Network], scores: Sequence[float]) -> None:
        self._surrogate.update([as_architecture(network) for network in networks], np.array(scores))

    def predict(self, networks: Sequence[algorithm_1.Network]) -> list[float]:
        return [float(value) for value in self._surrogate.predict([as_architecture(network) for network in networks])]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("space", [SPACE, THREE], ids=["two modalities", "three modalities"])
def test_same_networks_in_the_same_order(space: SearchSpace, seed: int) -> None:
    n_iterations, k = 3, 5
    schedule = TemperatureSchedule(10.0, 0.2, 4.0)
    gamma = [(*layer.features, layer.activation) for layer in space.layers()]
    expected = algorithm_1.search(
        gamma,
        lambda network: score(as_architecture(network)),
        Adapter(space, seed),
        schedule.at,
        lambda e: np.random.default_rng(seed_from(seed, "plan", e, 1)).permutation(len(gamma)).tolist(),
        lambda e, depth, n: np.random.default_rng(seed_from(seed, "plan", e, depth)).gumbel(size=n).tolist(),
        n_iterations=n_iterations,
        max_depth=space.max_depth,
        k=k,
    )
    sampler = make_sampler(space, mode="paper", n_iterations=n_iterations, samples_per_step=k, seed=seed)
    study = run(make_study(sampler), 1000, space)
    found = [
        (proposal.iteration, proposal.depth, space.architecture(proposal.network), trial.value)
        for trial in study.trials
        for proposal in [proposal_of(trial)]
    ]
    assert found == [(e, depth, as_architecture(network), value) for e, depth, network, value in expected]
    assert len(found) == n_iterations * (len(gamma) + k * (space.max_depth - 1))
