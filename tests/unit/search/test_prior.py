"""What probes say reaches the surrogate, orders candidates, and rules nothing out."""

from __future__ import annotations

import numpy as np
import pytest

from mfas_optuna import MFASSampler
from mfas_optuna.errors import SamplerError, SpaceError
from mfas_optuna.search.linear import LinearSurrogate
from mfas_optuna.search.prior import Prior
from mfas_optuna.search.surrogate import Surrogate
from mfas_optuna.space import Architecture, ExtendedSpace, FusionLayer
from tests.unit.search.helpers import make_study, proposal_of

SPACE = ExtendedSpace({"audio": ["a1", "a2", "a3", "a4"], "image": ["i1", "i2"]}, ["relu", "tanh"], max_depth=2)
SCORES = {"audio": [0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1], "image": [0.1, 0.1, 0.1, 0.1]}


def reward(architecture: Architecture) -> float:
    """Whatever takes a1 is good."""
    return sum(layer.features[0] == 0 for layer in architecture.layers) / 2


def search(prior: Prior | None, n_trials: int, **settings: int) -> list[Architecture]:
    sampler = MFASSampler(SPACE, n_iterations=3, samples_per_step=8, seed=0, **settings)
    sampler.prior = prior
    study = make_study(sampler)
    study.optimize(lambda trial: reward(SPACE.suggest(trial)), n_trials=n_trials)
    return [SPACE.architecture(proposal_of(trial).network) for trial in study.trials]


def test_values_are_standardised_over_choices_and_nothing_else() -> None:
    values = Prior(SCORES).values(SPACE)
    assert len(values) == sum(SPACE.layer_radices)
    assert values[:12].mean() == pytest.approx(0)
    assert values[:12].std() == pytest.approx(1)
    assert (values[12:] == 0).all()
    assert (values[:12] > 0).sum() == 4


def test_equal_scores_say_nothing() -> None:
    values = Prior({modality: [0.5] * len(choices) for modality, choices in SPACE.choices.items()}).values(SPACE)
    assert (values == 0).all()


def test_the_first_networks_are_those_of_which_probes_speak_well() -> None:
    """By chance 8 draws among 4 of 8 choices would have 4 such; all 8 have (0.4 %) with temperatures near 0."""
    assert all(SCORES["audio"][network.layers[0].features[0]] > 0.5 for network in search(Prior(SCORES), 8))
    assert not all(SCORES["audio"][network.layers[0].features[0]] > 0.5 for network in search(None, 8))


def test_a_surrogate_without_scores_to_tell_features_apart_has_the_prior() -> None:
    """Both networks of the data are equal in score; the linear partner still tells a1 from a2 only by the prior."""
    prior_V = Prior(SCORES).values(SPACE)
    known = [Architecture((FusionLayer((0, 0), 0),)), Architecture((FusionLayer((1, 1), 0),))]
    asked = [Architecture((FusionLayer((4, 0), 1),)), Architecture((FusionLayer((3, 0), 1),))]
    scores = np.array([1.0, -1.0])
    with_prior, without = LinearSurrogate(SPACE, prior_V), LinearSurrogate(SPACE)
    for surrogate in (with_prior, without):
        surrogate.fit(known, scores)
    one, other = without.predict(asked)
    assert one == pytest.approx(other)
    one, other = with_prior.predict(asked)
    assert one > other + 0.1


def test_the_recurrent_surrogate_reads_it() -> None:
    prior_V = Prior(SCORES).values(SPACE)
    asked = [Architecture((FusionLayer((0, 0), 1),))]
    plain, told = (Surrogate(SPACE, seed=0, bounded=False, prior_V=prior) for prior in (None, prior_V))
    assert plain.predict(asked) != told.predict(asked)
    again = Surrogate(SPACE, seed=0, bounded=False, prior_V=prior_V)
    assert told.predict(asked) == again.predict(asked)


def test_the_search_goes_on_from_networks_that_were_given_first() -> None:
    sampler = MFASSampler(SPACE, n_iterations=1, samples_per_step=4, seed=0)
    study = make_study(sampler)
    given = SPACE.from_notation("gate(a1,i2;tanh)")
    study.enqueue_trial(SPACE.parameters(given))
    study.optimize(lambda trial: 10.0 if SPACE.suggest(trial).layers[0] == given.layers[0] else 0.0, n_trials=9)
    deeper = [SPACE.architecture(proposal_of(trial).network) for trial in study.trials[5:]]
    assert [network.depth for network in deeper] == [2] * 4
    assert any(network.parent == given for network in deeper)


def test_no_network_is_trained_twice_and_the_search_ends() -> None:
    space = ExtendedSpace({"audio": ["a1"], "image": ["i1"]}, ["relu"], max_depth=1)
    study = make_study(MFASSampler(space, samples_per_step=3, seed=0))
    study.optimize(lambda trial: space.index(space.suggest(trial)) / 10, n_trials=100)
    assert sorted(space.index(space.suggest(trial)) for trial in study.trials) == list(range(space.size))  # type: ignore[arg-type]


def test_many_candidates_are_drawn_by_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 candidates at a time, at every depth: the search goes on, and no network comes twice."""
    monkeypatch.setattr("mfas_optuna.search.plan.MAX_CANDIDATES", 10)
    networks = search(Prior(SCORES), 40)
    assert len(set(networks)) == 40
    assert {network.depth for network in networks} == {1, 2}


def test_an_enqueued_layer_that_takes_nothing_fails_alone() -> None:
    study = make_study(MFASSampler(SPACE, samples_per_step=4, seed=0))
    study.enqueue_trial({"layer1.audio": "none", "layer1.image": "none"})
    study.optimize(lambda trial: reward(SPACE.suggest(trial)), n_trials=4, catch=(SpaceError,))
    assert [trial.state.name for trial in study.trials] == ["FAIL", *["COMPLETE"] * 3]


def test_what_is_predicted_does_not_depend_on_when_given_networks_ended() -> None:
    given = [SPACE.parameters(SPACE.architecture(index)) for index in (3, 11, 40, 77)]

    def plan_after(order: list[int]) -> list[Architecture]:
        study = make_study(MFASSampler(SPACE, samples_per_step=4, seed=0))
        for position in order:
            study.enqueue_trial(given[position])
        study.optimize(lambda trial: SPACE.index(SPACE.suggest(trial)) % 7 / 7, n_trials=8)
        return [SPACE.architecture(proposal_of(trial).network) for trial in study.trials[4:]]

    assert plan_after([0, 1, 2, 3]) == plan_after([0, 2, 3, 1])


def test_algorithm_1_is_of_the_papers_space() -> None:
    with pytest.raises(SamplerError, match="mode 'paper' is Algorithm 1"):
        MFASSampler(SPACE, mode="paper")
