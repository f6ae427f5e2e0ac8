"""What the extended space holds besides the paper's, what its names mean, and its errors."""

from __future__ import annotations

import optuna
import pytest

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.baselines import fixed_architectures
from mfas_optuna.errors import SpaceError
from mfas_optuna.space import NOTHING, OPERATOR_NAMES, ExtendedSpace, FusionLayer

FEATURES = {"audio": ["a1", "a2", "a3", "a4"], "image": ["i1", "i2"]}
SPACE = ExtendedSpace(FEATURES, ["relu", "tanh"], max_depth=3)
PAPER = SearchSpace(FEATURES, ["relu", "tanh"], max_depth=3)


def test_choices_are_the_features_sets_of_them_and_nothing() -> None:
    assert SPACE.choices == {
        "audio": ("a1", "a2", "a3", "a4", "best2", "best3", "all", "none"),
        "image": ("i1", "i2", "all", "none"),
    }


def test_first_layers_are_counted_by_hand() -> None:
    """7 x 3 pairs take something of both (5 operators), 7 + 3 of one alone (1 operator); times 2 activations."""
    assert SPACE.n_layers() == (7 * 3 * 5 + (7 + 3)) * 2 == SPACE.size_at(1)
    # Above, the layer below is a part too: all operators join two parts but for the layer that takes nothing.
    n_upper = (7 * 3 * 5 + (7 + 3) * 5 + 1) * 2
    assert SPACE.n_extensions(1) == 2 * n_upper
    assert SPACE.n_extensions(2) == n_upper
    assert SPACE.size_at(2) == SPACE.n_layers() * n_upper * 2


def test_networks_of_the_papers_space_keep_their_indices_of_features() -> None:
    for architecture in PAPER.architectures(1):
        assert architecture in SPACE
        assert SPACE.parameters(architecture).items() >= PAPER.parameters(architecture).items()


def test_sets_stand_for_the_best_features_in_their_own_order() -> None:
    ranked = SPACE.ranked({"audio": [0.3, 0.1, 0.2, 0.4], "image": [0.5, 0.6]})
    choices = SPACE.choices["audio"]
    members = {name: ranked.members("audio", choices.index(name)) for name in choices}
    assert members["best2"] == ("a1", "a4")
    assert members["best3"] == ("a1", "a3", "a4")
    assert members["all"] == ("a1", "a2", "a3", "a4")
    assert members["none"] == ()
    assert members["a2"] == ("a2",)
    assert ranked == SPACE
    assert ranked.digest == SPACE.digest


def test_what_is_best_must_be_known() -> None:
    with pytest.raises(SpaceError, match="'best2' of 'audio' is not known"):
        SPACE.members("audio", SPACE.choices["audio"].index("best2"))


def test_notation() -> None:
    parameters = {
        "depth": 2, "output": "all",
        "layer1.audio": "a4", "layer1.image": "all", "layer1.activation": "tanh", "layer1.operator": "product",
        "layer2.audio": "none", "layer2.image": "none", "layer2.activation": "relu",
        "layer2.operator": "concatenation",
    }  # fmt: skip
    architecture = SPACE.from_parameters(parameters)
    assert architecture is not None
    text = "product(a4,all;tanh) > concatenation(none,none;relu) > all"
    assert SPACE.notation(architecture) == text
    assert SPACE.from_notation(f" {text} ") == architecture
    assert SPACE.parameters(architecture) == parameters
    assert architecture.parent is not None
    assert SPACE.notation(architecture.parent) == "product(a4,all;tanh)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(1,1,1)", "Expected a notation like"),
        ("[(1,1,1)]", "Expected a notation like"),
        ("product(a4;tanh)", "a choice for each of"),
        ("product(a9,i1;tanh)", "names no architecture of this space"),
        ("product(none,none;tanh)", "names no architecture of this space"),
        ("product(a1,none;tanh)", "names no architecture of this space"),
        ("towers(a1,i1;tanh) > all", "names no architecture of this space"),
        ("towers(a1,i1;tanh) > some", "Expected a notation like"),
        ("[towers(a1,i1;tanh)]", "Expected a notation like"),
        ("all", "Expected a notation like"),
    ],
)
def test_other_notations_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SPACE.from_notation(text)


def test_a_layer_that_takes_nothing() -> None:
    nothing = tuple(choices.index(NOTHING) for choices in SPACE.choices.values())
    with pytest.raises(SpaceError, match="The first layer takes nothing"):
        SPACE.check(Architecture((FusionLayer(nothing, 0),)))
    assert Architecture((FusionLayer((0, 0), 0), FusionLayer(nothing, 0))) in SPACE


def test_an_operator_with_one_part_is_concatenation() -> None:
    product = OPERATOR_NAMES.index("product")
    none = SPACE.choices["image"].index(NOTHING)
    with pytest.raises(SpaceError, match="expected 'concatenation', which is the same"):
        SPACE.check(Architecture((FusionLayer((0, none), 0, product),)))
    parameters = {
        "depth": 1, "layer1.audio": "a1", "layer1.image": "none", "layer1.activation": "relu",
        "layer1.operator": "product",
    }  # fmt: skip
    assert SPACE.from_parameters(parameters) == Architecture((FusionLayer((0, none), 0),))


def test_extended_architectures_are_refused_by_the_papers_space() -> None:
    towers = Architecture((FusionLayer((0, 0), 0, OPERATOR_NAMES.index("towers")),))
    dense = Architecture((FusionLayer((0, 0), 0), FusionLayer((0, 0), 0)), output=1)
    for architecture in (towers, dense):
        assert architecture not in PAPER
        with pytest.raises(SpaceError, match='kind = "extended"'):
            PAPER.check(architecture)
        with pytest.raises(SpaceError, match='kind = "extended"'):
            PAPER.index(architecture)


def test_one_extension_by_its_position() -> None:
    for parent in (SPACE.architecture(5), SPACE.architecture(SPACE.size_at(1) + 1)):
        extensions = list(SPACE.extensions(parent))
        assert len(extensions) == SPACE.n_extensions(parent.depth)
        assert [SPACE.extension(parent, position) for position in range(len(extensions))] == extensions


def test_features_with_the_name_of_a_set() -> None:
    with pytest.raises(SpaceError, match=r"\['best2'\] are names of sets"):
        ExtendedSpace({"audio": ["best2"], "image": ["i1"]}, ["relu"], 1)


def test_too_many_layers_to_list() -> None:
    many = {f"m{number}": [f"f{index}" for index in range(9)] for number in range(5)}
    with pytest.raises(SpaceError, match="List fewer features"):
        ExtendedSpace(many, ["relu"], 1)


def test_equality_is_of_kind_too() -> None:
    assert ExtendedSpace(FEATURES, ["relu", "tanh"], 3) == SPACE != PAPER
    assert repr(SPACE).startswith("ExtendedSpace(")
    assert SPACE.digest != PAPER.digest


def test_any_sampler_of_optuna_can_search_it() -> None:
    def objective(trial: optuna.Trial) -> float:
        try:
            architecture = SPACE.suggest(trial)
        except SpaceError as error:
            raise optuna.TrialPruned(str(error)) from error
        assert architecture in SPACE
        return len(SPACE.notation(architecture))

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=100)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}


def test_simple_ways_to_fuse_are_architectures() -> None:
    notations = [SPACE.notation(architecture) for architecture in fixed_architectures(SPACE)]
    assert notations == [
        "concatenation(all,all;relu)",
        "concatenation(all,all;relu) > concatenation(none,none;relu)",
        "concatenation(best2,all;relu)",
        "concatenation(best3,all;relu)",
        "concatenation(a4,i2;relu)",
        "towers(all,all;relu)",
        "supervised_towers(all,all;relu)",
        "supervised_towers(best2,all;relu)",
        "supervised_towers(best3,all;relu)",
        "product(all,all;relu)",
        "product(a4,i2;relu)",
        "gate(a4,i2;tanh)",
        "concatenation(all,none;relu)",
        "concatenation(none,all;relu)",
    ]
    assert fixed_architectures(PAPER) == []
