"""Counting, names, notation and errors of the search space."""

from __future__ import annotations

import optuna
import pytest

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.errors import SpaceError
from mfas_optuna.space import FusionLayer

PAPER = SearchSpace(
    {"audio": ["a1", "a2", "a3", "a4", "a5"], "image": ["i1", "i2", "i3"]}, ["relu", "sigmoid"], max_depth=4
)


def test_sizes_are_those_of_the_formula() -> None:
    assert PAPER.n_layers() == 30
    assert [PAPER.size_at(depth) for depth in (1, 2, 3, 4)] == [30, 900, 27_000, 810_000]
    assert PAPER.size == len(PAPER) == 837_930


def test_the_papers_mm_imdb_space_has_the_papers_size() -> None:
    """Section 4.1: N = 2 text features, M = 8 image features and P = 3 make 110,592 networks of three layers."""
    space = SearchSpace({"text": list("ab"), "image": list("cdefghij")}, ["relu", "sigmoid", "leaky_relu"], 3)
    assert space.size_at(3) == 110_592


def test_notation_counts_from_one() -> None:
    architecture = Architecture((FusionLayer((2, 2), 1), FusionLayer((4, 1), 0)))
    assert architecture.paper_notation() == "[(3,3,2),(5,2,1)]"
    assert Architecture.from_paper_notation(" [ (3,3,2), (5,2,1) ]") == architecture
    assert architecture in PAPER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "(1,1,1)",
        "[(1,1,1)",
        "[(0,1,1)]",
        "[(1)]",
        "[(1,-1,1)]",
        "[(1,1,1)(1,1,1)]",
        "[(1,x,1)]",
        "[(１,1,1)]",
    ],
)
def test_wrong_notation_is_refused(text: str) -> None:
    with pytest.raises(SpaceError):
        Architecture.from_paper_notation(text)


def test_parents_and_extensions() -> None:
    network = PAPER.architecture(12_345)
    assert network.parent is not None
    children = list(PAPER.extensions(network.parent))
    assert len(children) == 30
    assert network in children
    assert list(PAPER.extensions(PAPER.architecture(PAPER.size - 1))) == []
    assert PAPER.architecture(0).parent is None


@pytest.mark.parametrize(
    ("modalities", "activations", "max_depth", "message"),
    [
        ({"a": ["x"]}, ["relu"], 1, "at least two modalities"),
        ({"a": ["x"], "b": []}, ["relu"], 1, "modality 'b'"),
        ({"a": ["x"], "b": ["x", "x"]}, ["relu"], 1, "'b'"),
        ({"a": ["x"], "b": "xy"}, ["relu"], 1, "'b'"),
        ({"a": ["x"], "activation": ["x"]}, ["relu"], 1, "activation"),
        ({"a.b": ["x"], "c": ["x"]}, ["relu"], 1, "'a.b'"),
        ({"a": ["x"], "b": ["x"]}, [], 1, "activations"),
        ({"a": ["x"], "b": ["x"]}, ["swoosh"], 1, "swoosh"),
        ({"a": ["x"], "b": ["x"]}, ["relu"], 0, "max_depth"),
        ({"a": ["x"], "b": ["x"]}, ["relu"], True, "max_depth"),
    ],
)
def test_what_is_no_space_is_refused(
    modalities: dict[str, list[str]], activations: list[str], max_depth: int, message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        SearchSpace(modalities, activations, max_depth)


@pytest.mark.parametrize("index", [-1, PAPER.size])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(SpaceError, match="837929"):
        PAPER.architecture(index)


def test_an_architecture_of_another_space_is_refused() -> None:
    other = Architecture((FusionLayer((0, 3), 0),))
    assert other not in PAPER
    assert "no architecture" not in PAPER
    with pytest.raises(SpaceError, match="does not fit"):
        PAPER.index(other)
    with pytest.raises(SpaceError, match=r"depth must lie in 1\.\.4, found 5"):
        PAPER.check(Architecture((FusionLayer((0, 0), 0),) * 5))
    with pytest.raises(SpaceError, match="found none"):
        Architecture(())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_suggest_under_optunas_own_samplers(kind: type[optuna.samplers.BaseSampler], seed: int) -> None:
    study = optuna.create_study(sampler=kind(seed=seed), direction="maximize")  # type: ignore[call-arg]
    seen = []
    study.optimize(lambda trial: seen.append(PAPER.suggest(trial)) or float(seen[-1].depth), n_trials=20)
    for trial, architecture in zip(study.trials, seen, strict=True):
        assert trial.params == PAPER.parameters(architecture)
        assert PAPER.from_parameters(trial.params) == architecture


def test_suggest_from_a_fixed_trial() -> None:
    architecture = PAPER.architecture(4321)
    assert PAPER.suggest(optuna.trial.FixedTrial(PAPER.parameters(architecture))) == architecture


@pytest.mark.parametrize(
    "parameters",
    [{}, {"depth": 0}, {"depth": 5}, {"depth": True}, {"depth": 1, "layer1.audio": "a1", "layer1.image": "i1"}],
)
def test_parameters_that_name_no_architecture(parameters: dict[str, object]) -> None:
    assert PAPER.from_parameters(parameters) is None


def test_equal_spaces_have_equal_digests_and_order_matters() -> None:
    same = SearchSpace(dict(PAPER.modalities), PAPER.activations, 4)
    turned = SearchSpace(dict(reversed(PAPER.modalities.items())), PAPER.activations, 4)
    assert same == PAPER
    assert hash(same) == hash(PAPER)
    assert same.digest == PAPER.digest == "22d27dcd244c6651"
    assert turned != PAPER
    assert turned.digest != PAPER.digest


def test_a_spaces_text_makes_it_again() -> None:
    assert eval(repr(PAPER)) == PAPER
