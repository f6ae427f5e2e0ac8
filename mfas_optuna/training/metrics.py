"""Scores of N networks at once, as sums over batches of their outputs: those of scikit-learn, without it.

| metric | of | scikit-learn 1.x |
|---|---|---|
| accuracy | classes | `accuracy_score` |
| f1_weighted, f1_macro | classes, labels | `f1_score(average=..., labels=range(C), zero_division=0)` |
| r2 | values | `r2_score(multioutput="uniform_average")` |

The predicted class is the greatest output, the first of equal ones; a label is predicted where its output is above 0.
Every class and label counts in macro F1, whether or not it occurs in the split: decision 25.

Shapes: N networks, C outputs, B batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mfas_optuna.target import Metric, TargetKind

_NOTHING = torch.zeros((), dtype=torch.int64)
"""What sums start from; a tensor on any device can be added."""


class Scorer(ABC):
    """Takes batches and gives the score of each network on all of them."""

    @abstractmethod
    def add(self, outputs_NCB: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            outputs_NCB: What the networks give.
            labels: (B,) or (B, C) as the target's kind says, on the same device.
        """

    @abstractmethod
    def scores(self) -> list[float]:
        """Return the score of each network, 1 at best."""


def make_scorer(kind: TargetKind, metric: Metric) -> Scorer:
    """Return a scorer for one split.

    Args:
        kind: Of the target.
        metric: One that suits it (`METRICS`).
    """
    if metric == "accuracy":
        return _Accuracy()
    if metric == "r2":
        return _R2()
    return _F1(kind, is_weighted=metric == "f1_weighted")


class _Accuracy(Scorer):
    def __init__(self) -> None:
        self._hits_N = _NOTHING
        self._n_samples = 0

    def add(self, outputs_NCB: Tensor, labels: Tensor) -> None:
        self._hits_N = self._hits_N + (outputs_NCB.argmax(dim=1) == labels).sum(dim=1)
        self._n_samples += len(labels)

    def scores(self) -> list[float]:
        return [hits / self._n_samples for hits in self._hits_N.tolist()]


class _F1(Scorer):
    """F1 of a class is 2 tp / (tp + fp + tp + fn): tp + fp times it was predicted, tp + fn times it is there."""

    def __init__(self, kind: TargetKind, *, is_weighted: bool) -> None:
        self._is_multiclass = kind == "multiclass"
        self._is_weighted = is_weighted
        self._tp_NC = _NOTHING
        self._predicted_NC = _NOTHING
        self._actual_C = _NOTHING

    def add(self, outputs_NCB: Tensor, labels: Tensor) -> None:
        if self._is_multiclass:
            classes_1C1 = torch.arange(outputs_NCB.shape[1], device=labels.device)[None, :, None]
            predicted_NCB = outputs_NCB.argmax(dim=1, keepdim=True) == classes_1C1
            actual_CB = (labels == classes_1C1)[0]
        else:
            predicted_NCB, actual_CB = outputs_NCB > 0, labels.t() > 0
        self._tp_NC = self._tp_NC + (predicted_NCB & actual_CB).sum(dim=2)
        self._predicted_NC = self._predicted_NC + predicted_NCB.sum(dim=2)
        self._actual_C = self._actual_C + actual_CB.sum(dim=1)

    def scores(self) -> list[float]:
        tp_NC, actual_C = self._tp_NC.double(), self._actual_C.double()
        # Where the sum is 0, so is tp.
        f1_NC = 2 * tp_NC / (self._predicted_NC + actual_C).clamp_min(1)
        if not self._is_weighted:
            return f1_NC.mean(dim=1).tolist()
        return ((f1_NC @ actual_C) / actual_C.sum().clamp_min(1)).tolist()


class _R2(Scorer):
    """1 - (squared error) / (squared deviation from the mean), averaged over values; sums are in double precision.

    As in scikit-learn a value that is the same in all samples scores 1 when it is met exactly, else 0.
    """

    def __init__(self) -> None:
        self._origin_C: Tensor | None = None  # Near the values, so that the sum of their squares loses nothing.
        self._error_NC = _NOTHING.double()
        self._sum_C = _NOTHING.double()
        self._squares_C = _NOTHING.double()
        self._n_samples = 0

    def add(self, outputs_NCB: Tensor, labels: Tensor) -> None:
        y_CB = labels.t().double()
        if self._origin_C is None:
            self._origin_C = y_CB[:, 0]
        self._error_NC = self._error_NC + (outputs_NCB.double() - y_CB).square().sum(dim=2)
        offsets_CB = y_CB - self._origin_C[:, None]
        self._sum_C = self._sum_C + offsets_CB.sum(dim=1)
        self._squares_C = self._squares_C + offsets_CB.square().sum(dim=1)
        self._n_samples += len(labels)

    def scores(self) -> list[float]:
        deviation_C = self._squares_C - self._sum_C.square() / self._n_samples
        is_constant = deviation_C <= 0
        r2_NC = 1 - self._error_NC / deviation_C.masked_fill(is_constant, 1)
        r2_NC = torch.where(is_constant, (self._error_NC == 0).double(), r2_NC)
        return r2_NC.mean(dim=1).tolist()
