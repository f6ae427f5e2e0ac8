"""Simple fusion as heads, further: exported programs, all kinds of target, counts of parameters, extreme outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.baselines import fixed_methods, width_for
from mfas_optuna.baselines.heads import (
    CentralNetSettings,
    GmuSettings,
    LateHeadsSettings,
    LateOutputsSettings,
    OutputSettings,
    TowersSettings,
)
from mfas_optuna.fusion.head import Head
from mfas_optuna.target import TargetKind
from mfas_optuna.training.brief import BriefData
from tests.unit.baselines.test_heads import LAYOUTS, THREE, TWO, C, array, build, ranking, rows

KINDS: tuple[TargetKind, ...] = ("multiclass", "multilabel", "regression")
ALL_OF_THREE = {modality: tuple(THREE.features(modality)) for modality in THREE.spans}


class _Fused(nn.Module):
    """What is shipped of a head: an exported program gives tensors alone."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, rows_BF: Tensor) -> Tensor:
        return self.head(rows_BF).fused_BC


@pytest.mark.parametrize("layout", ["two", "three"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_head_can_be_exported_for_any_batch(layout: str, kind: TargetKind) -> None:
    of = LAYOUTS[layout]
    late = ("late_mean", "late_weighted")
    for method in fixed_methods(of, ranking(of), kind=kind):
        if kind != "multiclass" and method.name not in late:
            continue  # The others do not know the kind.
        fused = _Fused(build(method.heads[-1].with_width(4), of, dropout=0.3)).eval()
        dimension = torch.export.Dim("samples")
        program = torch.export.export(fused, (rows(of),), dynamic_shapes=({0: dimension},)).module()
        for n in (2, 11):
            torch.testing.assert_close(program(rows(of, n)), fused(rows(of, n)))


@pytest.mark.parametrize("kind", KINDS)
def test_methods_of_all_targets_have_the_same_names(kind: TargetKind) -> None:
    for layout in LAYOUTS.values():
        methods = fixed_methods(layout, ranking(layout), kind=kind)
        of_classes = fixed_methods(layout, ranking(layout), kind="multiclass")
        assert [method.name for method in methods] == [method.name for method in of_classes]
        assert len({method.title for method in methods}) == len(methods)
        late = [method.heads[0].as_record() for method in methods if method.name.startswith("late_")]
        assert [record["target"] for record in late] == [kind, kind]
        assert [record["how"] for record in late] == ["mean", "weighted"]


def test_parameters_of_all_kinds_by_hand() -> None:
    width, inputs = 5, {"x": 2 + 3, "y": 4, "z": 1 + 2 + 3}
    towers = sum((n + 1) * width + (width + 1) * C for n in inputs.values())
    for auxiliary in (False, True):
        settings = TowersSettings(label="", features=ALL_OF_THREE, auxiliary=auxiliary, width=width)
        assert build(settings, THREE).n_parameters == towers
    late = LateHeadsSettings(features=ALL_OF_THREE, how="mean", target="multiclass", width=width)
    assert build(late, THREE).n_parameters == towers
    assert build(late.model_copy(update={"how": "weighted"}), THREE).n_parameters == towers + 3
    last = {"x": 3, "y": 4, "z": 3}
    hidden = sum((n + 1) * width for n in last.values())
    gmu = GmuSettings(features={modality: names[-1] for modality, names in ALL_OF_THREE.items()}, width=width)
    assert build(gmu, THREE).n_parameters == hidden + (10 + 1) * 3 * width + (width + 1) * C
    # Two modalities share one gate.
    gmu = GmuSettings(features={"audio": "a2", "image": "b1"}, width=width)
    assert build(gmu, TWO).n_parameters == (4 + 1 + 3 + 1) * width + (7 + 1) * width + (width + 1) * C
    projections = sum((n + 1) * width for n in (2, 3, 4, 1, 2, 3))
    central = 3 * ((width + 1) * width + 4)  # Three layers, each with four scalar weights.
    outputs = 4 * (width + 1) * C
    settings = CentralNetSettings(features=ALL_OF_THREE, width=width)
    assert build(settings, THREE).n_parameters == projections + central + outputs


def test_what_backbones_give_needs_no_parameters() -> None:
    head = build(OutputSettings(modality="image"), TWO)
    assert head.n_parameters == 0
    assert torch.equal(head(rows(TWO)).fused_BC, rows(TWO)[:, 12:15])


def test_towers_are_added() -> None:
    features = {"audio": ("a1", "a2"), "image": ("b1",)}
    head = build(TowersSettings(label="", features=features, auxiliary=True, width=4), TWO)
    outputs = head(rows(TWO))
    torch.testing.assert_close(outputs.fused_BC, outputs.auxiliary[0] + outputs.auxiliary[1])
    named = {name: array(parameter) for name, parameter in head.named_parameters()}
    x = array(rows(TWO))[:, 0:6]
    hidden = np.maximum(x @ named["towers.0.hidden.0.weight"].T + named["towers.0.hidden.0.bias"], 0)
    expected = hidden @ named["towers.0.head.weight"].T + named["towers.0.head.bias"]
    assert array(outputs.auxiliary[0]) == pytest.approx(expected, abs=1e-5)


def test_late_fusion_of_sure_backbones_neither_saturates_nor_stops_teaching() -> None:
    of_audio, of_image = [60.0, 0.0, 30.0], [70.0, 0.0, -20.0]
    row_BF = torch.zeros(1, TWO.n_columns)
    row_BF[:, 6:9], row_BF[:, 12:15] = torch.tensor(of_audio), torch.tensor(of_image)
    both = ("audio", "image")
    head = build(LateOutputsSettings(modalities=both, how="weighted", target="multiclass"), TWO)
    log_half = math.log(0.5)
    expected = [0.0, -60.0 + log_half, -30.0 + log_half]  # exp(-70) and exp(-90) are nothing beside these.
    assert head(row_BF).fused_BC.tolist()[0] == pytest.approx(expected, abs=1e-4)
    functional.cross_entropy(head(row_BF).fused_BC, torch.tensor([1])).backward()
    (weights,) = head.parameters()
    assert weights.grad is not None
    assert weights.grad.tolist() == pytest.approx([-0.5, 0.5], abs=1e-4)  # The first is less sure of what is wrong.
    labels = build(LateOutputsSettings(modalities=both, how="mean", target="multilabel"), TWO)
    # Means of absences: (exp(-60) + exp(-70)) / 2, 1/2, and that of a sure yes and a sure no, 1/2.
    expected = [60.0 - math.log(1 + math.exp(-10)) - log_half, 0.0, 0.0]
    assert labels(row_BF).fused_BC.tolist()[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_late_fusion_keeps_the_type_of_rows(kind: TargetKind) -> None:
    head = build(LateOutputsSettings(modalities=("audio", "image"), how="mean", target=kind), TWO)
    assert head(rows(TWO).bfloat16()).fused_BC.dtype == torch.bfloat16
    assert head(rows(TWO).double()).fused_BC.dtype == torch.float64


def test_a_head_without_width_is_not_asked_for_one() -> None:
    with pytest.raises(ValueError, match="found kind 'late_outputs'"):
        width_for(LateOutputsSettings(modalities=("audio",), how="mean", target="multiclass"), TWO, C, 100)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_values_are_learnt_too(kind: TargetKind) -> None:
    """Each output is a difference of two modalities."""
    generator = torch.Generator().manual_seed(0)
    row_BF = torch.randn(400, THREE.n_columns, generator=generator)
    value_BC = row_BF[:, [4, 8, 14]] - row_BF[:, [8, 14, 4]]  # The last columns of x, y and z.
    labels = (value_BC > 0).float() if kind == "multilabel" else value_BC
    loss_of = functional.binary_cross_entropy_with_logits if kind == "multilabel" else functional.mse_loss
    data = BriefData(THREE, row_BF, labels, row_BF, labels)
    for method in fixed_methods(THREE, ranking(THREE), kind=kind):
        head = build(method.heads[-1].with_width(8), THREE)
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
        losses = []
        for _ in range(120):
            outputs = head(data.train_NF)
            loss = loss_of(outputs.fused_BC, labels)
            losses.append(loss.item())
            for each in outputs.auxiliary:
                loss = loss + loss_of(each, labels) / len(outputs.auxiliary)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # One modality says half of each value; late fusion adds what each says, where the labels are no sum of chances.
        is_partial = method.name.startswith(("alone:", "late_", "concat_first"))
        assert losses[-1] < (0.98 if is_partial else 0.5) * losses[0], (method.name, losses[0], losses[-1])
