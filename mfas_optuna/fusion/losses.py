"""What is minimised for each kind of target: by autograd for one network, by hand for N at once.

| kind | loss, a mean over the batch | labels |
|---|---|---|
| multiclass | cross-entropy; with weights, weighted by that of each sample's class | int64 (B,) |
| multilabel | binary cross-entropy over samples and labels; positives weighted by label | 0, 1 (B, C) |
| regression | squared error over samples and values | standardised (B, C) |

By hand a loss writes the derivative by the outputs to a buffer of its own and gives the N losses: autograd's numbers
without its bookkeeping, and without fresh memory (decision 15). No network's loss depends on another network.

Shapes: N networks, C outputs, B batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.target import Target, TargetKind

LARGEST_POS_WEIGHT = 100.0
"""A label that is rarer than 1 in 101 gets no more weight: few samples would outweigh all others."""


class LossByHand(Protocol):
    """The loss of N networks whose outputs are in a buffer.

    Attributes:
        d_outputs_NCB: The losses by the outputs, after a call.
    """

    d_outputs_NCB: Tensor

    def __call__(self, labels: Tensor, /) -> Tensor:
        """Return the loss of each network, (N,), for the outputs that the buffer holds now."""


@dataclass(frozen=True)
class Loss:
    """Which loss, and its weights.

    Attributes:
        kind: Of the target.
        weight_C: What a sample of each class counts (multiclass), or a positive of each label (multilabel); None: 1.
    """

    kind: TargetKind = "multiclass"
    weight_C: Tensor | None = None

    def __call__(self, outputs_BC: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of one network, (); autograd can go through it."""
        weight_C = None if self.weight_C is None else self.weight_C.to(outputs_BC)
        if self.kind == "multiclass":
            return functional.cross_entropy(outputs_BC, labels, weight=weight_C)
        if self.kind == "multilabel":
            return functional.binary_cross_entropy_with_logits(outputs_BC, labels, pos_weight=weight_C)
        return functional.mse_loss(outputs_BC, labels)

    def by_hand(self, outputs_NCB: Tensor) -> LossByHand:
        """Return the loss of N networks.

        Args:
            outputs_NCB: The buffer that their outputs will be in at each call.
        """
        weight_C = None if self.weight_C is None else self.weight_C.to(outputs_NCB)
        if self.kind == "regression":
            return _SquaredError(outputs_NCB)
        if self.kind == "multilabel":
            return _BinaryCrossEntropy(outputs_NCB, weight_C)
        return _CrossEntropy(outputs_NCB) if weight_C is None else _WeightedCrossEntropy(outputs_NCB, weight_C)


def loss_for(target: Target, train_labels: npt.NDArray[np.generic], *, is_balanced: bool, device: torch.device) -> Loss:
    """Return the loss of a target.

    Args:
        target: What is predicted.
        train_labels: Labels of the training split, (n,) or (n, C), that weights follow from.
        is_balanced: Whether rare classes, or the presence of rare labels, count as much as frequent ones.
        device: Where the weights will be.
    """
    if not is_balanced or target.kind == "regression":
        return Loss(target.kind)
    is_multiclass = target.kind == "multiclass"
    weight_C = class_weights(train_labels, target.n_outputs) if is_multiclass else pos_weight(train_labels)
    return Loss(target.kind, weight_C.to(device, torch.float32))


def class_weights(labels: npt.NDArray[np.generic], n_classes: int) -> Tensor:
    """Return n / (C n_c) for each class, float64 (C,): a class of average size counts 1; one without samples n / C.

    Args:
        labels: Class numbers, (n,).
        n_classes: C.
    """
    counts_C = np.bincount(labels.astype(np.int64), minlength=n_classes)
    return torch.from_numpy(len(labels) / (n_classes * np.maximum(counts_C, 1)))


def pos_weight(labels: npt.NDArray[np.generic]) -> Tensor:
    """Return (n - n_pos) / n_pos for each label, float64 (C,), 100 at most: presence counts as much as absence.

    Args:
        labels: 0 and 1, (n, C).
    """
    n_pos_C = np.count_nonzero(labels, axis=0)
    weight_C = (len(labels) - n_pos_C) / np.maximum(n_pos_C, 1)
    return torch.from_numpy(np.minimum(weight_C, LARGEST_POS_WEIGHT))


class _CrossEntropy:
    """-log softmax(outputs) at the label; by the outputs, softmax(outputs) less 1 at the label."""

    def __init__(self, outputs_NCB: Tensor) -> None:
        self._outputs_NCB = outputs_NCB
        n_networks, n_classes, n_samples = outputs_NCB.shape
        self._log_p_NCB, self.d_outputs_NCB = torch.empty_like(outputs_NCB), torch.empty_like(outputs_NCB)
        self._log_p_N2 = self._log_p_NCB.view(n_networks, -1)
        eye_CC = torch.eye(n_classes, dtype=outputs_NCB.dtype, device=outputs_NCB.device)
        self._target_CC, self._alpha = eye_CC / -n_samples, 1 / n_samples

    def __call__(self, labels_B: Tensor) -> Tensor:
        torch.log_softmax(self._outputs_NCB, dim=1, out=self._log_p_NCB)
        target_CB = self._target_CC.index_select(1, labels_B)  # -1/B where the class is the label.
        losses_N = torch.mv(self._log_p_N2, target_CB.view(-1))
        torch.exp(self._log_p_NCB, out=self.d_outputs_NCB)
        torch.add(target_CB, self.d_outputs_NCB, alpha=self._alpha, out=self.d_outputs_NCB)
        return losses_N


class _WeightedCrossEntropy:
    """The same with w_b / sum(w) in place of 1/B, where w_b is the weight of the class of sample b."""

    def __init__(self, outputs_NCB: Tensor, weight_C: Tensor) -> None:
        self._outputs_NCB, self._weight_C = outputs_NCB, weight_C
        self._log_p_NCB, self.d_outputs_NCB = torch.empty_like(outputs_NCB), torch.empty_like(outputs_NCB)
        self._log_p_N2 = self._log_p_NCB.view(len(outputs_NCB), -1)
        self._target_CC = -torch.eye(len(weight_C), dtype=weight_C.dtype, device=weight_C.device)

    def __call__(self, labels_B: Tensor) -> Tensor:
        torch.log_softmax(self._outputs_NCB, dim=1, out=self._log_p_NCB)
        weight_B = self._weight_C.index_select(0, labels_B)
        weight_B.div_(weight_B.sum())
        target_CB = self._target_CC.index_select(1, labels_B).mul_(weight_B)
        losses_N = torch.mv(self._log_p_N2, target_CB.view(-1))
        torch.exp(self._log_p_NCB, out=self.d_outputs_NCB)
        self.d_outputs_NCB.mul_(weight_B).add_(target_CB)
        return losses_N


class _BinaryCrossEntropy:
    """(1 - y) x - g log s(x) with g = (1 - y) + w y and s the sigmoid; by x, g s(x) + (1 - y) - g."""

    def __init__(self, outputs_NCB: Tensor, weight_C: Tensor | None) -> None:
        self._outputs_NCB = outputs_NCB
        n_networks, n_labels, n_samples = outputs_NCB.shape
        self._log_s_NCB, self.d_outputs_NCB = torch.empty_like(outputs_NCB), torch.empty_like(outputs_NCB)
        self._outputs_N2 = outputs_NCB.view(n_networks, -1)
        self._log_s_N2 = self._log_s_NCB.view(n_networks, -1)
        self._weight_C1 = outputs_NCB.new_ones(n_labels, 1) if weight_C is None else weight_C[:, None]
        self._each = 1 / (n_labels * n_samples)
        self._scratch = outputs_NCB.new_empty(0)

    def __call__(self, labels_BC: Tensor) -> Tensor:
        y_CB = labels_BC.t().to(self._outputs_NCB.dtype)
        absent_CB = (self._each - self._each * y_CB).contiguous()
        g_CB = torch.addcmul(absent_CB, y_CB, self._weight_C1, value=self._each)
        torch.ops.aten.log_sigmoid_forward.output(self._outputs_NCB, output=self._log_s_NCB, buffer=self._scratch)
        losses_N = torch.mv(self._outputs_N2, absent_CB.view(-1))
        losses_N.addmv_(self._log_s_N2, g_CB.view(-1), alpha=-1)
        torch.sigmoid(self._outputs_NCB, out=self.d_outputs_NCB)
        self.d_outputs_NCB.mul_(g_CB).add_(absent_CB - g_CB)
        return losses_N


class _SquaredError:
    """(x - y)^2; by x, 2 (x - y)."""

    def __init__(self, outputs_NCB: Tensor) -> None:
        self._outputs_NCB, self.d_outputs_NCB = outputs_NCB, torch.empty_like(outputs_NCB)
        self._d_N2 = self.d_outputs_NCB.view(len(outputs_NCB), -1)
        self._n_each = self._d_N2.shape[1]

    def __call__(self, labels_BC: Tensor) -> Tensor:
        torch.sub(self._outputs_NCB, labels_BC.t(), out=self.d_outputs_NCB)
        losses_N: Tensor = torch.linalg.vector_norm(self._d_N2, dim=1).square_().div_(self._n_each)
        self.d_outputs_NCB.mul_(2 / self._n_each)
        return losses_N
