"""Mode paper against Algorithm 1 as plain loops, step by step: from the surrogate's data to the best K."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray

from mfas_optuna import SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.search import plan as planning
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.search.surrogate import Surrogate
from mfas_optuna.space import Architecture, FusionLayer
from mfas_optuna.trials import Plan
from tests.reference import algorithm_1

from .helpers import SPACE, make_sampler, make_study, proposal_of

N_ITERATIONS = 3
TEMPERATURES = {"t_max": 10.0, "t_min": 0.2, "sigma": 4.0}  # What mode paper takes when nothing is said.


class Setting(NamedTuple):
    space: SearchSpace
    k: int


SETTINGS = {
    "two modalities, L = 3": Setting(SPACE, 5),
    "three modalities, L = 4": Setting(
        SearchSpace({"a": ["a1"], "b": ["b1", "b2"], "c": ["c1", "c2"]}, ["tanh"], max_depth=4), 5
    ),
    "fewer candidates than K": Setting(SearchSpace({"a": ["a1"], "b": ["b1", "b2"]}, ["relu"], max_depth=3), 50),
}


def as_tuples(architecture: Architecture) -> algorithm_1.Network:
    return tuple((*layer.features, layer.activation) for layer in architecture.layers)


def as_architecture(network: algorithm_1.Network) -> Architecture:
    return Architecture(tuple(FusionLayer(layer[:-1], layer[-1]) for layer in network))


def evaluate(n_before: int, network: algorithm_1.Network) -> float:
    """A score in (0, 1) that depends on the network and, since weights are warmer later, on when it was trained."""
    quality = [seed_from("layer", position, *layer) % 1000 / 1000 for position, layer in enumerate(network)]
    luck = seed_from("luck", n_before, str(network)) % 1000 / 1000
    return 0.02 + 0.85 * (sum(quality) / len(quality)) ** 2 + 0.1 * luck


class Means:
    """A plain surrogate: a network scores the mean of what its layers scored of late. Later updates weigh more."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, algorithm_1.Layer], float] = defaultdict(lambda: 0.3)

    def update(self, networks: Sequence[algorithm_1.Network], scores: Sequence[float]) -> None:
        for network, score in zip(networks, scores, strict=True):
            for place in enumerate(network):
                self._known[place] += 0.4 * (score - self._known[place])

    def predict(self, networks: Sequence[algorithm_1.Network]) -> list[float]:
        return [sum(self._known[place] for place in enumerate(network)) / len(network) for network in networks]


class Lstm:
    """The package's surrogate, spoken to in tuples."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._surrogate = Surrogate(space, seed=seed_from(seed, "surrogate"), bounded=True)

    def update(self, networks: Sequence[algorithm_1.Network], scores: Sequence[float]) -> None:
        self._surrogate.update([as_architecture(network) for network in networks], np.array(scores))

    def predict(self, networks: Sequence[algorithm_1.Network]) -> list[float]:
        return [float(value) for value in self._surrogate.predict([as_architecture(network) for network in networks])]


Update = tuple[list[algorithm_1.Network], list[float]]


class Heard:
    """Stands where the sampler makes a surrogate: passes everything on, and keeps it."""

    def __init__(self, surrogate: algorithm_1.SurrogateLike) -> None:
        self._surrogate = surrogate
        self.updates: list[Update] = []
        self.candidates: list[algorithm_1.Network] = []

    def update(self, architectures: Sequence[Architecture], scores_N: NDArray[np.float64]) -> None:
        self.updates.append(([as_tuples(architecture) for architecture in architectures], scores_N.tolist()))
        self._surrogate.update(*self.updates[-1])

    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        self.candidates = [as_tuples(architecture) for architecture in architectures]
        return np.array(self._surrogate.predict(self.candidates))


def one_by_one(study: optuna.Study, space: SearchSpace) -> None:
    study.optimize(lambda trial: evaluate(trial.number, as_tuples(space.suggest(trial))), n_trials=1000)


def a_step_at_once(study: optuna.Study, space: SearchSpace) -> None:
    """Ask for all networks of a step before any is told, as a worker does that trains them as a group."""
    sampler: Any = study.sampler
    while not sampler.is_finished(study):
        trials = [study.ask() for _ in range(sampler.decide(study).n_free)]
        scores = [evaluate(trial.number, as_tuples(space.suggest(trial))) for trial in trials]
        for trial, score in zip(trials, scores, strict=True):
            study.tell(trial, score)


def expected(
    setting: Setting, seed: int, surrogate: algorithm_1.SurrogateLike, n_iterations: int = N_ITERATIONS
) -> list[algorithm_1.Step]:
    gamma = [(*layer.features, layer.activation) for layer in setting.space.layers()]
    return algorithm_1.search(
        gamma,
        evaluate,
        surrogate,
        lambda e: np.random.default_rng(seed_from(seed, "plan", e, 1)).permutation(len(gamma)).tolist(),
        lambda e, depth, n: np.random.default_rng(seed_from(seed, "plan", e, depth)).gumbel(size=n).tolist(),
        n_iterations=n_iterations,
        max_depth=setting.space.max_depth,
        k=setting.k,
        **TEMPERATURES,
    )


def searched(
    setting: Setting,
    seed: int,
    drive: Callable[[optuna.Study, SearchSpace], None] = one_by_one,
    n_iterations: int = N_ITERATIONS,
) -> optuna.Study:
    sampler = make_sampler(
        setting.space, mode="paper", n_iterations=n_iterations, samples_per_step=setting.k, seed=seed
    )
    study = make_study(sampler)
    drive(study, setting.space)
    assert sampler.is_finished(study)
    return study


def plans_of(study: optuna.Study) -> list[Plan]:
    plans = [records.read_plan(trial.system_attrs) for trial in study.get_trials(deepcopy=False)]
    return [plan for plan in plans if plan is not None]


def trained_in(study: optuna.Study, space: SearchSpace, step: algorithm_1.Step) -> list[tuple[Any, float | None]]:
    """Return what the trials of a step were given by their parameters, and their scores, in order."""
    return [
        (as_tuples(architecture), trial.value)
        for trial in study.get_trials(deepcopy=False)
        for proposal, architecture in [(proposal_of(trial), space.from_parameters(trial.params))]
        if (proposal.iteration, proposal.depth) == (step.iteration, step.depth) and architecture is not None
    ]


@pytest.mark.parametrize("drive", [one_by_one, a_step_at_once])
@pytest.mark.parametrize("kind", ["means", "lstm"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_step_by_step(
    setting: Setting,
    seed: int,
    kind: str,
    drive: Callable[[optuna.Study, SearchSpace], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`means` is predicted in plain Python with a spread that makes the probabilities differ; `lstm` is the real one.

    What the sampler fitted and asked to predict must be the oracle's; so must what it published of each step; and what
    it had trained, in the order of the trials.
    """

    def make() -> algorithm_1.SurrogateLike:
        return Means() if kind == "means" else Lstm(setting.space, seed)

    heard: list[Heard] = []

    def listen(space: SearchSpace, **settings: Any) -> Heard:
        assert (settings["seed"], settings["bounded"]) == (seed_from(seed, "surrogate"), True)
        heard.append(Heard(make()))
        return heard[-1]

    steps = expected(setting, seed, make())
    monkeypatch.setattr("mfas_optuna.search.surrogate.Surrogate", listen)
    study = searched(setting, seed, drive)
    plans = plans_of(study)
    space = setting.space

    assert [(plan.iteration, plan.depth) for plan in plans] == [(step.iteration, step.depth) for step in steps]
    assert [(step.iteration, step.depth) for step in steps] == [
        (iteration, depth) for iteration in range(N_ITERATIONS) for depth in range(1, space.max_depth + 1)
    ]
    fits = iter(heard)
    updates: list[Update] = []  # Those that the oracle had made before the step.
    for step, plan in zip(steps, plans, strict=True):
        if step.candidates is None:
            assert plan.temperature is None
            assert plan.predicted_scores is None
            assert plan.n_candidates == space.size_at(1)
        else:
            assert step.predicted is not None
            assert step.probabilities is not None
            assert step.order is not None
            fit = next(fits)
            assert fit.updates == updates
            assert fit.candidates == step.candidates
            drawn = [as_tuples(space.architecture(network)) for network in plan.networks]
            prediction_of = dict(zip(step.candidates, step.predicted, strict=True))
            assert plan.temperature == pytest.approx(step.temperature, rel=1e-12)
            assert plan.n_candidates == len(step.candidates)
            assert plan.predicted_std == pytest.approx(np.std(step.predicted), rel=1e-9)
            entropy = -sum(p * math.log(p) for p in step.probabilities)
            assert plan.n_effective == pytest.approx(math.exp(entropy), rel=1e-9)
            assert len(drawn) >= min(len(step.candidates), setting.k)
            assert drawn == step.order[: len(drawn)]
            assert plan.predicted_scores == pytest.approx([prediction_of[network] for network in drawn], rel=1e-12)
        assert trained_in(study, space, step) == list(zip(step.trained, step.scores, strict=True))
        updates.append((step.trained, step.scores))
    assert next(fits, None) is None
    assert len(study.trials) == sum(len(step.trained) for step in steps)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_best_are_those_of_everything_that_was_trained(setting: Setting) -> None:
    """The whole ranking: its first K are what line 29 returns, for any K."""
    study, steps = searched(setting, 0), expected(setting, 0, Lstm(setting.space, 0))
    ranking = algorithm_1.top_k(steps, 1000)
    found = records.best_networks(study.trials, 1000)
    assert [(network.architecture, network.score) for network in found] == [
        (as_architecture(network).paper_notation(), score) for network, score in ranking
    ]
    assert records.best_networks(study.trials, setting.k) == found[: setting.k]
    trained = [(network, score) for step in steps for network, score in zip(step.trained, step.scores, strict=True)]
    assert len(ranking) < len(trained)  # Some networks were trained again,
    assert len({score for _, score in trained}) == len(trained)  # to another score.


def test_each_update_counts_however_many_trials_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode calibrated fits the newest trials; Algorithm 1 forgets no update."""
    monkeypatch.setattr(planning, "MAX_SURROGATE_TRIALS", 10)
    setting = SETTINGS["two modalities, L = 3"]
    study, steps = searched(setting, 0), expected(setting, 0, Lstm(setting.space, 0))
    predicted = [plan.predicted_std for plan in plans_of(study) if plan.predicted_std is not None]
    assert predicted == pytest.approx([np.std(step.predicted) for step in steps if step.predicted], rel=1e-9)
