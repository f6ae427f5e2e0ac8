"""Heads as code: folded or kept standardisation, units of labels, activations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.errors import ExportError
from mfas_optuna.export.heads import ACTIVATION_CODE, Scaling, build_head, read_head, write_head
from mfas_optuna.export.snippets import ROUND
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.activations import ACTIVATIONS
from mfas_optuna.fusion.head import LayerChoice, NetworkSettings

LAYOUT = FeatureLayout.of_widths({"a-b": {"x 1": 3, 'y"': 2}, "c": {"z": 4}})
NETWORK = NetworkSettings(
    notation="[(1,1,1),(2,1,2)]",
    layers=(
        LayerChoice(features={"a-b": "x 1", "c": "z"}, activation="tanh"),
        LayerChoice(features={"a-b": 'y"', "c": "z"}, activation="relu"),
    ),
    width=5,
)
ARGUMENTS = {"a-b": "a_b", "c": "c"}


def state_of(settings: NetworkSettings) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return dict(settings.build(LAYOUT, 2, dropout=0.0, generator=generator).state_dict())


def fusion(code: str, weights: dict[str, Tensor]) -> nn.Module:
    names = {"torch": torch, "nn": nn, "Tensor": Tensor, "functional": functional}
    exec(f"from __future__ import annotations\n{ROUND}\n{code}", names)
    module: nn.Module = names["Fusion"]()  # type: ignore[operator]
    module.load_state_dict(weights)
    return module.eval()


def features_of(rows_BF: Tensor) -> dict[str, dict[str, Tensor]]:
    return {
        ARGUMENTS[modality]: {name: rows_BF[:, slice(*span)] for name, span in features.items()}
        for modality, features in LAYOUT.spans.items()
    }


def scaling_of(shift: float, scale: float, *, in_units: bool = False) -> Scaling:
    n = LAYOUT.n_columns
    shift_F = np.linspace(shift / 2, shift, n).astype(np.float32)
    scale_F: npt.NDArray[np.float32] = np.linspace(scale, 2 * scale, n).astype(np.float32)
    units = (np.array([1000.0, -3.0]), np.array([50.0, 0.1])) if in_units else (None, None)
    return Scaling(shift_F, scale_F, *units)


@pytest.mark.parametrize("in_units", [False, True])
@pytest.mark.parametrize(
    ("shift", "scale", "told"), [(0.3, 0.02, "folded"), (3000.0, 1.0, "kept"), (0.0, 1.0, "folded")]
)
def test_the_code_gives_what_the_head_gives_of_standardised_rows(
    shift: float, scale: float, told: str, in_units: bool
) -> None:
    scaling = scaling_of(shift, scale, in_units=in_units)
    state = state_of(NETWORK)
    written = write_head(NETWORK, state, layout=LAYOUT, scaling=scaling, arguments=ARGUMENTS, rounds=False)
    assert told in written.standardization
    assert ("mean1" in written.weights) == (told == "kept")
    generator = torch.Generator().manual_seed(1)
    standard_BF = torch.randn(6, LAYOUT.n_columns, generator=generator)
    shift_F, scale_F = torch.from_numpy(scaling.shift_F), torch.from_numpy(scaling.scale_F)
    rows_BF = standard_BF * scale_F + shift_F
    head = build_head(NETWORK, LAYOUT, 2, state)
    expected = head((rows_BF - shift_F) / scale_F).fused_BC
    if in_units:
        expected = expected * torch.tensor([50.0, 0.1]) + torch.tensor([1000.0, -3.0])
    found = fusion(written.code, dict(written.weights))(**features_of(rows_BF))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_no_standardisation_leaves_the_weights_as_they_are() -> None:
    n = LAYOUT.n_columns
    plain = Scaling(np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.float32))
    state = state_of(NETWORK)
    written = write_head(NETWORK, state, layout=LAYOUT, scaling=plain, arguments=ARGUMENTS, rounds=False)
    assert written.standardization == "none"
    assert torch.equal(written.weights["layer2.weight"], state["network.layers.1.weight"])
    assert torch.equal(written.weights["head.bias"], state["network.head.bias"])


def test_features_can_be_rounded_as_they_were_stored() -> None:
    state = state_of(NETWORK)
    scaling = scaling_of(0.5, 0.1)
    written = write_head(NETWORK, state, layout=LAYOUT, scaling=scaling, arguments=ARGUMENTS, rounds=True)
    module = fusion(written.code, dict(written.weights))
    rows_BF = torch.rand(50, LAYOUT.n_columns, generator=torch.Generator().manual_seed(2))
    as_given = module(**features_of(rows_BF))
    assert torch.equal(as_given, module(**features_of(rows_BF)))
    of_stored = module(**features_of(rows_BF.half().float()))
    assert not torch.equal(as_given, of_stored)
    module.rounds_features = True
    assert torch.equal(module(**features_of(rows_BF)), of_stored)


def test_every_activation_is_written_as_it_is_computed() -> None:
    assert list(ACTIVATION_CODE) == list(ACTIVATIONS)
    z = torch.linspace(-30, 30, 301)
    for name, code in ACTIVATION_CODE.items():
        found = eval(code.format("z"), {"torch": torch, "functional": functional, "z": z})
        assert torch.equal(found, ACTIVATIONS[name](z)), name


def test_other_kinds_are_refused_with_those_that_can_be_exported() -> None:
    with pytest.raises(ExportError, match="kind 'towers' cannot be exported; those of kind network can"):
        read_head({"kind": "towers", "width": 3})


def test_weights_of_another_head_are_refused() -> None:
    with pytest.raises(ExportError, match="do not fit the head"):
        build_head(NETWORK, LAYOUT, 3, state_of(NETWORK))
