"""Losses by hand against torch's own under autograd, in double precision; weights against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.fusion.losses import LARGEST_POS_WEIGHT, Loss, class_weights, loss_for, pos_weight
from mfas_optuna.target import Target, TargetKind

N, C, B = 3, 4, 17
CPU = torch.device("cpu")


def labels_of(kind: TargetKind, generator: torch.Generator) -> Tensor:
    if kind == "multiclass":
        return torch.randint(C, (B,), generator=generator)
    if kind == "multilabel":
        return torch.randint(2, (B, C), generator=generator).float()
    return torch.randn(B, C, generator=generator)


CASES: list[tuple[TargetKind, list[float] | None]] = [
    ("multiclass", None),
    ("multiclass", [0.2, 1.0, 3.0, 0.0]),
    ("multilabel", None),
    ("multilabel", [0.5, 7.0, 1.0, 90.0]),
    ("regression", None),
]


def torchs_own(kind: TargetKind, weights: list[float] | None, outputs_BC: Tensor, labels: Tensor) -> Tensor:
    weight_C = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    if kind == "multiclass":
        return functional.cross_entropy(outputs_BC, labels, weight=weight_C)
    if kind == "multilabel":
        return functional.binary_cross_entropy_with_logits(outputs_BC, labels.double(), pos_weight=weight_C)
    return functional.mse_loss(outputs_BC, labels.double())


@pytest.mark.parametrize(("kind", "weights"), CASES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_values_and_derivatives_are_those_of_autograd(
    kind: TargetKind, weights: list[float] | None, scale: float
) -> None:
    """At a scale of 40 a sigmoid or softmax that is not taken with care loses its digits."""
    generator = torch.Generator().manual_seed(0)
    buffer_NCB = torch.zeros(N, C, B, dtype=torch.float64)
    loss = Loss(kind, None if weights is None else torch.tensor(weights))
    by_hand = loss.by_hand(buffer_NCB)
    for _ in range(2):  # The buffers keep nothing.
        labels = labels_of(kind, generator)
        buffer_NCB.copy_(torch.randn(N, C, B, generator=generator, dtype=torch.float64) * scale)
        found_N = by_hand(labels)
        for outputs_CB, found, d_CB in zip(buffer_NCB, found_N, by_hand.d_outputs_NCB, strict=True):
            outputs_BC = outputs_CB.t().clone().requires_grad_()
            expected = torchs_own(kind, weights and [float(np.float32(w)) for w in weights], outputs_BC, labels)
            (gradient_BC,) = torch.autograd.grad(expected, outputs_BC)
            assert found.item() == pytest.approx(expected.item(), rel=1e-12)
            assert torch.allclose(d_CB.t(), gradient_BC, rtol=1e-12, atol=1e-15)
            assert loss(outputs_BC, labels.double() if kind != "multiclass" else labels).item() == expected.item()


def test_a_network_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    for kind, weights in CASES:
        generator = torch.Generator().manual_seed(1)
        buffer_NCB = torch.randn(N, C, B, generator=generator)
        by_hand = Loss(kind, None if weights is None else torch.tensor(weights)).by_hand(buffer_NCB)
        labels = labels_of(kind, generator)
        sound_N, d_NCB = by_hand(labels).clone(), by_hand.d_outputs_NCB.clone()
        buffer_NCB[1] = float("nan")
        spoilt_N = by_hand(labels)
        assert spoilt_N[1].isnan()
        assert torch.equal(spoilt_N[[0, 2]], sound_N[[0, 2]])
        assert torch.equal(by_hand.d_outputs_NCB[[0, 2]], d_NCB[[0, 2]])


def test_class_weights_make_every_class_count_the_same() -> None:
    labels = np.repeat([0, 1, 3], [50, 10, 40])
    weights = class_weights(labels, 4).numpy()
    assert weights.tolist() == [100 / 200, 100 / 40, 100 / 4, 100 / 160]  # Nobody is of class 2: finite.
    totals = np.bincount(labels, weights=weights[labels])
    assert totals[[0, 1, 3]] == pytest.approx([25, 25, 25])


def test_pos_weight_makes_presence_count_as_much_as_absence_up_to_a_bound() -> None:
    labels = np.zeros((1000, 4), dtype=np.uint8)
    labels[:250, 0] = labels[:800, 1] = labels[:2, 2] = 1
    assert pos_weight(labels).tolist() == [3.0, 0.25, LARGEST_POS_WEIGHT, LARGEST_POS_WEIGHT]


def test_weights_are_used_when_asked_for() -> None:
    classes, many = np.array([0, 0, 0, 1]), np.array([[1, 0], [0, 0], [0, 1], [0, 1]], dtype=np.uint8)
    names = ("a", "b")
    for kind, labels, expected in (("multiclass", classes, [2 / 3, 2]), ("multilabel", many, [3, 1])):
        target = Target(kind, names)  # type: ignore[arg-type]
        assert loss_for(target, labels, is_balanced=False, device=CPU) == Loss(kind)  # type: ignore[arg-type]
        balanced = loss_for(target, labels, is_balanced=True, device=CPU)
        assert balanced.weight_C is not None
        assert (balanced.kind, balanced.weight_C.tolist()) == (kind, pytest.approx(expected))
    values = loss_for(Target("regression", names), many.astype(np.float32), is_balanced=False, device=CPU)
    assert (values.kind, values.weight_C) == ("regression", None)
