"""Simple fusion as heads: shapes, formulas, records, and that each learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.baselines import RankedLayer, fixed_methods, head_from_record, width_for
from mfas_optuna.baselines.heads import (
    CentralNetSettings,
    GmuSettings,
    LateHeadsSettings,
    LateOutputsSettings,
    MlpSettings,
)
from mfas_optuna.errors import DataError
from mfas_optuna.features.cache import OUTPUT, FeatureLayout
from mfas_optuna.fusion.head import Head, HeadSettings
from mfas_optuna.spec import FinalSettings, Recipe
from mfas_optuna.target import TargetKind
from mfas_optuna.training.brief import BriefData
from mfas_optuna.training.final import train_head

C = 3
TWO = FeatureLayout.of_widths({"audio": {"a1": 2, "a2": 4, OUTPUT: C}, "image": {"b1": 3, OUTPUT: C}})
WITHOUT = FeatureLayout.of_widths({"audio": {"a1": 2, "a2": 4}, "image": {"b1": 3, OUTPUT: C}})
THREE = FeatureLayout.of_widths({"x": {"x1": 2, "x2": 3}, "y": {"y1": 4}, "z": {"z1": 1, "z2": 2, "z3": 3}})
LAYOUTS = {"two": TWO, "without": WITHOUT, "three": THREE}


def ranking(layout: FeatureLayout) -> list[RankedLayer]:
    layers = [(modality, name) for modality in layout.spans for name in layout.features(modality)]
    return [RankedLayer(modality, name, 1.0 - number / 10) for number, (modality, name) in enumerate(reversed(layers))]


def every_head() -> list[tuple[str, str, HeadSettings]]:
    return [
        (name, method.name, head)
        for name, layout in LAYOUTS.items()
        for method in fixed_methods(layout, ranking(layout), kind="multiclass")
        for head in method.heads
    ]


def build(settings: HeadSettings, layout: FeatureLayout, *, seed: int = 0, dropout: float = 0.0) -> Head:
    return settings.build(layout, C, dropout=dropout, generator=torch.Generator().manual_seed(seed))


def rows(layout: FeatureLayout, n: int = 7) -> Tensor:
    return torch.randn(n, layout.n_columns, generator=torch.Generator().manual_seed(5))


def array(tensor: Tensor | torch.nn.Parameter) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize(("layout", "name", "settings"), every_head())
def test_every_head(layout: str, name: str, settings: HeadSettings) -> None:
    settings, of = settings.with_width(5), LAYOUTS[layout]
    assert head_from_record(settings.as_record()) == settings
    head, again = build(settings, of, dropout=0.5), build(settings, of, dropout=0.5)
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), again.parameters(), strict=True))
    other = build(settings, of, seed=1)
    drawn = [pair for pair in zip(head.parameters(), other.parameters(), strict=True) if pair[0].ndim == 2]
    assert all(not torch.equal(*pair) for pair in drawn if pair[0].shape[0] > 1 and name != "centralnet")
    outputs = head.eval()(rows(of))
    assert outputs.fused_BC.shape == (7, C)
    assert all(each.shape == (7, C) for each in outputs.auxiliary)
    n_modalities = len(of.spans)
    has_auxiliary = name in ("towers_auxiliary", "towers_probed", "centralnet") or settings.as_record()["kind"] == (
        "late_heads"
    )
    assert len(outputs.auxiliary) == (n_modalities if has_auxiliary else 0)
    assert {modality for modality, _ in settings.reads()} <= set(of.spans)
    # What it does not read makes no difference.
    changed = rows(of)
    read = torch.zeros(of.n_columns, dtype=torch.bool)
    for modality, feature in settings.reads():
        read[of.columns(modality, feature)] = True
    changed[:, ~read] += 1
    assert torch.equal(head(changed).fused_BC, outputs.fused_BC)
    if head.n_parameters > 2 and settings.has_width:
        head.train()
        masked = head(rows(of), torch.Generator().manual_seed(0)).fused_BC
        if name not in ("late_mean", "late_weighted"):
            assert not torch.equal(masked, outputs.fused_BC)


def test_the_methods_and_their_order() -> None:
    names = [method.name for method in fixed_methods(TWO, ranking(TWO), kind="multiclass")]
    assert names[:4] == ["backbone:audio", "alone:audio", "backbone:image", "alone:image"]
    assert len(set(names)) == len(names)
    of_three = [method.name for method in fixed_methods(THREE, ranking(THREE), kind="multiclass")]
    assert not any(name.startswith("backbone:") for name in of_three)
    assert {"late_mean", "late_weighted", "concat_first", "concat_last", "concat_all", "concat_all_2"} <= set(of_three)
    probed = next(
        method for method in fixed_methods(THREE, ranking(THREE), kind="multiclass") if method.name == "concat_probed"
    )
    assert [len(head.reads()) for head in probed.heads] == [1, 2, 3, 5, 6]
    assert probed.heads[1].reads() == (("z", "z3"), ("z", "z2"))
    towers = next(
        method for method in fixed_methods(THREE, ranking(THREE), kind="multiclass") if method.name == "towers_probed"
    )
    assert towers.heads[1].reads() == (("x", "x2"), ("x", "x1"), ("y", "y1"), ("z", "z3"), ("z", "z2"))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_late_fusion_of_what_backbones_give(kind: TargetKind) -> None:
    row_BF = rows(TWO)
    outputs = [array(row_BF[:, TWO.columns(modality, OUTPUT)]) for modality in ("audio", "image")]
    head = build(LateOutputsSettings(modalities=("audio", "image"), how="weighted", target=kind), TWO)
    assert head.n_parameters == 2
    mean = build(LateOutputsSettings(modalities=("audio", "image"), how="mean", target=kind), TWO)
    assert mean.n_parameters == 0
    assert torch.allclose(head(row_BF).fused_BC, mean(row_BF).fused_BC)  # Weights are equal at first.
    with torch.no_grad():
        next(iter(head.parameters())).copy_(torch.tensor([0.0, np.log(3.0)]))
    if kind == "multiclass":
        predicted = [np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in outputs]
    elif kind == "multilabel":
        predicted = [1 / (1 + np.exp(-each)) for each in outputs]
    else:
        predicted = outputs
    expected = 0.25 * predicted[0] + 0.75 * predicted[1]
    if kind != "regression":
        expected = np.log(expected) if kind == "multiclass" else np.log(expected / (1 - expected))
    assert array(head(row_BF).fused_BC) == pytest.approx(expected, abs=1e-5)


def test_heads_that_are_fused_late_learn_by_their_own_losses_alone() -> None:
    settings = LateHeadsSettings(
        features={"audio": ("a1",), "image": ("b1",)}, how="weighted", target="multiclass", width=4
    )
    head = build(settings, TWO)
    labels = torch.zeros(7, dtype=torch.int64)
    functional.cross_entropy(head(rows(TWO)).fused_BC, labels).backward()
    got = [name for name, parameter in head.named_parameters() if parameter.grad is not None]
    assert got == ["mean.weight_logits_M"]
    functional.cross_entropy(head(rows(TWO)).auxiliary[0], labels).backward()
    got = [name for name, parameter in head.named_parameters() if parameter.grad is not None]
    assert all(name.startswith(("mean.", "towers.0")) for name in got)
    assert len(got) == 1 + 4


@pytest.mark.parametrize("layout", ["two", "three"])
def test_the_gated_unit_is_its_formula(layout: str) -> None:
    of = LAYOUTS[layout]
    features = {modality: of.features(modality)[-1] for modality in of.spans}
    head = build(GmuSettings(features=features, width=4), of)
    named = {name: array(parameter) for name, parameter in head.named_parameters()}
    row = array(rows(of))
    inputs = [row[:, of.columns(*item)] for item in features.items()]
    hidden = [np.tanh(x @ named[f"hidden.{m}.weight"].T + named[f"hidden.{m}.bias"]) for m, x in enumerate(inputs)]
    gates = np.concatenate(inputs, axis=1) @ named["gates.weight"].T + named["gates.bias"]
    if layout == "two":
        z = 1 / (1 + np.exp(-gates))
        fused = z * hidden[0] + (1 - z) * hidden[1]
    else:
        e = np.exp(np.stack(np.split(gates, 3, axis=1)))
        fused = (e / e.sum(axis=0) * np.stack(hidden)).sum(axis=0)
    expected = fused @ named["head.weight"].T + named["head.bias"]
    assert array(head(rows(of)).fused_BC) == pytest.approx(expected, abs=1e-5)


def test_the_central_network_is_its_formula() -> None:
    features = {modality: tuple(THREE.features(modality)) for modality in THREE.spans}
    head = build(CentralNetSettings(features=features, width=4), THREE)
    with torch.no_grad():
        next(p for name, p in head.named_parameters() if name == "alphas").uniform_(0.1, 2.0)
    named = {name: array(parameter) for name, parameter in head.named_parameters()}
    row = array(rows(THREE))

    def relu(prefix: str, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ named[f"{prefix}.weight"].T + named[f"{prefix}.bias"], 0)

    p = [
        [relu(f"projections.{m}.linears.{n}", row[:, THREE.columns(modality, name)]) for n, name in enumerate(names)]
        for m, (modality, names) in enumerate(features.items())
    ]
    a = named["alphas"]
    # x has two layers, y one and z three: they end together.
    c = relu("central.0", a[0, 3] * p[2][0])
    c = relu("central.1", a[1, 0] * c + a[1, 1] * p[0][0] + a[1, 3] * p[2][1])
    c = relu("central.2", a[2, 0] * c + a[2, 1] * p[0][1] + a[2, 2] * p[1][0] + a[2, 3] * p[2][2])
    outputs = head(rows(THREE))
    expected = c @ named["head.weight"].T + named["head.bias"]
    assert array(outputs.fused_BC) == pytest.approx(expected, abs=1e-5)
    assert array(outputs.auxiliary[1]) == pytest.approx(
        p[1][0] @ named["own.1.weight"].T + named["own.1.bias"], abs=1e-5
    )


def test_parameters_by_hand() -> None:
    flat = (("audio", "a1"), ("audio", "a2"), ("image", "b1"))
    assert build(MlpSettings(label="", features=flat, width=5), TWO).n_parameters == (9 + 1) * 5 + (5 + 1) * C
    two = MlpSettings(label="", features=flat, hidden_layers=2, width=5)
    assert build(two, TWO).n_parameters == (9 + 1) * 5 + (5 + 1) * 5 + (5 + 1) * C


@pytest.mark.parametrize("limit", [60, 61, 500, 4999])
def test_the_width_is_the_largest_that_a_limit_allows(limit: int) -> None:
    for method in fixed_methods(TWO, ranking(TWO), kind="multiclass"):
        for settings in method.heads:
            if settings.has_width:
                width = width_for(settings, TWO, C, limit)
                assert build(settings.with_width(width + 1), TWO).n_parameters > limit
                assert width == 1 or build(settings.with_width(width), TWO).n_parameters <= limit


def planted() -> BriefData:
    """Three classes, of which audio alone tells the first from the others, and image alone the last from the others."""
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, C, (n,), generator=generator)
        rows_NF = 0.3 * torch.randn(n, TWO.n_columns, generator=generator)
        rows_NF[:, 0:6] += (labels == 0)[:, None].float()
        rows_NF[:, 9:12] += (labels == 2)[:, None].float()
        # What a backbone gives: the class that it knows, else either of the others.
        rows_NF[:, 6:9] += 3 * torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]])[labels]
        rows_NF[:, 12:15] += 3 * torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])[labels]
        return rows_NF, labels

    (train_NF, train_labels), (validation_NF, validation_labels) = part(400), part(200)
    return BriefData(TWO, train_NF, train_labels, validation_NF, validation_labels)


def test_each_learns_what_it_can() -> None:
    data, settings = planted(), FinalSettings(epochs=15, patience=15, batch_size=32)
    scores = {}
    for method in fixed_methods(TWO, ranking(TWO), kind="multiclass"):
        head = build(method.heads[-1].with_width(8), TWO)
        scores[method.name] = train_head(head, data, settings, Recipe(learning_rate=1e-2), seed=0).score
    for name, score in scores.items():
        is_of_one = name.startswith(("alone:", "backbone:"))
        assert 0.5 < score < 0.8 if is_of_one else score > 0.9, (name, score)


def test_a_record_of_something_else_is_refused() -> None:
    with pytest.raises(DataError, match="record of a head"):
        head_from_record({"kind": "unheard"})
    with pytest.raises(DataError, match="width"):
        head_from_record({"kind": "gmu", "features": {"a": "b"}})


def test_settings_cannot_be_changed() -> None:
    settings = MlpSettings(label="", features=(("audio", "a1"),), width=1)
    with pytest.raises((ValueError, dataclasses.FrozenInstanceError)):
        settings.width = 2
