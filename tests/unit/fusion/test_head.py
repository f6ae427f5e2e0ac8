"""A fusion network that takes its columns out of whole rows."""

from __future__ import annotations

import pytest
import torch

from mfas_optuna.baselines import head_from_record
from mfas_optuna.features.cache import OUTPUT, FeatureLayout
from mfas_optuna.fusion.head import NetworkHead, NetworkSettings, drop, head_label
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import Architecture, ExtendedSpace, SearchSpace

SPACE = SearchSpace({"audio": ["a1", "a2"], "image": ["b1", "b2"]}, ["relu", "sigmoid"], 3)
LAYOUT = FeatureLayout.of_widths({"audio": {"a1": 2, "a2": 3, OUTPUT: 4}, "image": {"b1": 1, "b2": 5, OUTPUT: 4}})
ARCHITECTURE = Architecture.from_paper_notation("[(2,1,2),(1,2,1),(2,1,1)]")


def settings(width: int = 7) -> NetworkSettings:
    return NetworkSettings.of(ARCHITECTURE, SPACE, width)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_is_the_fusion_network_of_the_search(dropout: float) -> None:
    head = settings().build(LAYOUT, 4, dropout=dropout, generator=torch.Generator().manual_seed(3))
    network = FusionNetwork(
        ARCHITECTURE,
        LAYOUT.widths(SPACE),
        SPACE.activations,
        width=7,
        n_outputs=4,
        dropout=dropout,
        generator=torch.Generator().manual_seed(3),
    )
    rows_BF = torch.randn(6, LAYOUT.n_columns, generator=torch.Generator().manual_seed(0))
    a1, a2, b1, b2 = rows_BF[:, 0:2], rows_BF[:, 2:5], rows_BF[:, 9:10], rows_BF[:, 10:15]
    features = [torch.cat(pair, dim=1) for pair in ((a2, b1), (a1, b2), (a2, b1))]
    masks = [torch.Generator().manual_seed(9) for _ in range(2)]
    outputs = head(rows_BF, masks[0])
    assert torch.equal(outputs.fused_BC, network(features, masks[1]))
    assert outputs.auxiliary == ()
    assert head.n_fusion_parameters == network.n_fusion_parameters == (4 + 1) * 7 + (7 + 7 + 1) * 7 + (4 + 7 + 1) * 7
    assert head.n_parameters == head.n_fusion_parameters + (7 + 1) * 4


def test_settings_are_a_record_that_can_be_read_again() -> None:
    record = settings().as_record()
    assert record["notation"] == ARCHITECTURE.paper_notation()
    assert record["layers"][0] == {
        "features": {"audio": ["a2"], "image": ["b1"]},
        "activation": "sigmoid",
        "operator": "concatenation",
    }
    assert head_label(record) == f"{ARCHITECTURE.paper_notation()}, width 7"
    assert settings().with_width(32).as_record() == {**record, "width": 32}
    assert settings().reads() == (("audio", "a2"), ("image", "b1"), ("audio", "a1"), ("image", "b2"))


def test_dropped_values_are_made_up_for() -> None:
    ones = torch.ones(10_000)
    assert drop(ones, 0.0, None) is ones
    dropped = drop(ones, 0.25, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)  # Five deviations of the mean.
    with pytest.raises(ValueError, match="dropout_generator"):
        drop(ones, 0.25, None)


def test_outputs_of_backbones_are_no_features_of_a_space() -> None:
    assert LAYOUT.features("audio") == ["a1", "a2"]
    assert LAYOUT.has_output("audio")
    assert not FeatureLayout.of_widths({"audio": {"a1": 2}}).has_output("audio")


def test_layers_may_begin_with_any_modality() -> None:
    """A first layer that takes nothing of the first modality does not change in which order others are read."""
    space = ExtendedSpace({"audio": ["a1", "a2"], "image": ["b1", "b2"]}, ["relu"], max_depth=2)
    architecture = space.from_notation("concatenation(none,b1;relu) > towers(a2,all;relu) > all")
    found = NetworkSettings.of(architecture, space, 3)
    assert found.reads() == (("image", "b1"), ("audio", "a2"), ("image", "b2"))
    head = found.build(LAYOUT, 4, dropout=0.0, generator=torch.Generator().manual_seed(0)).eval()
    rows_BF = torch.randn(5, LAYOUT.n_columns, generator=torch.Generator().manual_seed(1))
    b1, b2, a2 = (rows_BF[:, LAYOUT.columns(*of)] for of in (("image", "b1"), ("image", "b2"), ("audio", "a2")))
    assert isinstance(head, NetworkHead)
    expected = head.network([[b1], [a2, torch.cat([b1, b2], dim=1)]])
    assert torch.equal(head(rows_BF).fused_BC, expected)


def test_records_with_one_feature_of_each_modality_are_read() -> None:
    record = settings().as_record()
    before = {
        **record,
        "layers": [
            {"features": {name: one for name, (one,) in layer["features"].items()}, "activation": layer["activation"]}
            for layer in record["layers"]
        ],
    }
    del before["output"]
    assert head_from_record(before) == settings()
