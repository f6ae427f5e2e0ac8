"""Heads as code: folded or kept standardisation, units of labels, activations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.baselines.heads import (
    CentralNetSettings,
    GmuSettings,
    LateHeadsSettings,
    LateOutputsSettings,
    MlpSettings,
    OutputSettings,
    TowersSettings,
)
from mfas_optuna.errors import ExportError
from mfas_optuna.export.head_code import Scaling
from mfas_optuna.export.heads import ACTIVATION_CODE, build_head, write_head
from mfas_optuna.export.snippets import ROUND
from mfas_optuna.features.cache import OUTPUT, FeatureLayout
from mfas_optuna.fusion.activations import ACTIVATIONS
from mfas_optuna.fusion.head import Head, HeadSettings, LayerChoice, NetworkSettings
from mfas_optuna.target import TargetKind

LAYOUT = FeatureLayout.of_widths({"a-b": {"x 1": 3, 'y"': 2, OUTPUT: 2}, "c": {"z": 4, OUTPUT: 2}})
LAYOUT_3 = FeatureLayout.of_widths(
    {"a-b": {"x 1": 3, 'y"': 2, OUTPUT: 2}, "c": {"z": 4, OUTPUT: 2}, "d": {"u": 1, "v": 2, "w": 3, OUTPUT: 2}}
)
NETWORK = NetworkSettings(
    notation="[(1,1,1),(2,1,2)]",
    layers=(
        LayerChoice(features={"a-b": ("x 1",), "c": ("z",)}, activation="tanh"),
        LayerChoice(features={"a-b": ('y"',), "c": ("z",)}, activation="relu"),
    ),
    width=5,
)
_BOTH = {"a-b": ("x 1", 'y"'), "c": ("z",)}
EXTENDED = [
    NetworkSettings(
        notation=f"{output}: {', '.join(operators)}",
        layers=tuple(
            LayerChoice(features=features, activation=activation, operator=operator)  # type: ignore[arg-type]
            for features, activation, operator in zip(
                (_BOTH, {"c": ("z",)}, {}), ("tanh", "relu", "gelu"), operators, strict=False
            )
        ),
        output=output,  # type: ignore[arg-type]
        width=3,
    )
    for operators, output in (
        (("towers", "product"), "last"),
        (("product", "gate", "concatenation"), "all"),
        (("gate", "supervised_towers"), "all"),
        (("supervised_towers", "towers", "concatenation"), "last"),
        (("supervised_towers",), "last"),
    )
]
ARGUMENTS = {"a-b": "a_b", "c": "c"}
ARGUMENTS_3 = {**ARGUMENTS, "d": "d"}


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
    assert ("layer1_mean" in written.weights) == (told == "kept")
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


def heads_of(layout: FeatureLayout, target: TargetKind) -> list[HeadSettings]:
    every = {modality: tuple(layout.features(modality)) for modality in layout.spans}
    flat = tuple((modality, name) for modality, names in every.items() for name in names)
    last = {modality: names[-1] for modality, names in every.items()}
    return [
        *EXTENDED,
        OutputSettings(modality="c"),
        LateOutputsSettings(modalities=tuple(every), how="mean", target=target),
        LateOutputsSettings(modalities=tuple(every), how="weighted", target=target),
        LateHeadsSettings(features=every, how="mean", target=target, width=3),
        LateHeadsSettings(features=every, how="weighted", target=target, width=3),
        MlpSettings(label="the last of one", features=flat[-1:], width=4),
        MlpSettings(label="all", features=flat, width=4),
        MlpSettings(label="all, turned round", features=flat[::-1], hidden_layers=3, width=4),
        TowersSettings(label="all", features=every, auxiliary=False, width=5),
        TowersSettings(label="all", features=every, auxiliary=True, width=5),
        GmuSettings(features=last, width=6),
        CentralNetSettings(features=every, width=4),
    ]


@pytest.mark.parametrize("target", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("shift", [0.3, 3000.0], ids=["folded", "kept"])
@pytest.mark.parametrize("n_modalities", [2, 3])
def test_every_kind_of_head_gives_what_it_gave_when_it_was_trained(
    n_modalities: int, shift: float, target: TargetKind
) -> None:
    layout, arguments = (LAYOUT, ARGUMENTS) if n_modalities == 2 else (LAYOUT_3, ARGUMENTS_3)
    n = layout.n_columns
    shift_F, scale_F = layout.standardization(
        np.linspace(shift / 2, shift, n).astype(np.float32), np.linspace(0.5, 1, n).astype(np.float32)
    )
    units = (np.array([1000.0, -3.0]), np.array([50.0, 0.1])) if target == "regression" else (None, None)
    generator = torch.Generator().manual_seed(5)
    rows_BF = torch.randn(7, n, generator=generator) * torch.from_numpy(scale_F) + torch.from_numpy(shift_F)
    features = {
        modality: {name: rows_BF[:, slice(*span)] for name, span in spans.items()}
        for modality, spans in layout.spans.items()
    }
    for settings in heads_of(layout, target):
        head = settings.build(layout, 2, dropout=0.0, generator=generator)
        with torch.no_grad():  # What starts as zeros or ones too.
            for parameter in head.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        state = dict(head.state_dict())
        expected = head.eval()((rows_BF - torch.from_numpy(shift_F)) / torch.from_numpy(scale_F)).fused_BC
        if target == "regression":
            expected = expected * torch.tensor([50.0, 0.1]) + torch.tensor([1000.0, -3.0])
        read = {modality for modality, _ in settings.reads()}
        given = {modality: argument for modality, argument in arguments.items() if modality in read}
        written = write_head(
            settings, state, layout=layout, scaling=Scaling(shift_F, scale_F, *units), arguments=given, rounds=False
        )
        is_read = not isinstance(settings, OutputSettings | LateOutputsSettings)
        assert written.standardization.startswith(("folded" if shift < 1.0 else "kept") if is_read else "none")
        module = fusion(written.code, dict(written.weights))
        found = module(**{argument: features[modality] for modality, argument in given.items()})
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_kind_that_is_not_known_is_refused() -> None:
    class Unknown(HeadSettings):
        kind: str = "unknown"

        def reads(self) -> tuple[tuple[str, str], ...]:
            return (("c", "z"),)

        def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
            raise AssertionError

    with pytest.raises(ExportError, match="No code is written for heads of kind 'unknown'"):
        write_head(Unknown(), {}, layout=LAYOUT, scaling=scaling_of(0.0, 1.0), arguments={"c": "c"}, rounds=False)


def test_weights_of_another_head_are_refused() -> None:
    with pytest.raises(ExportError, match="do not fit the head"):
        build_head(NETWORK, LAYOUT, 3, state_of(NETWORK))
