"""Labels as tensors that losses and scorers take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.target import TargetKind

SMALLEST_DEVIATION = 1e-6
"""What varies less is only centred."""


@dataclass(frozen=True)
class LabelScale:
    """How labels of a target become tensors: values are standardised, classes and labels stay.

    The scores need no way back: R² is the same in all units, as long as predictions and labels have the same.

    Attributes:
        kind: Of the target.
        mean_C: Subtracted from values.
        std_C: What they are then divided by.
    """

    kind: TargetKind
    mean_C: npt.NDArray[np.float64]
    std_C: npt.NDArray[np.float64]

    @staticmethod
    def of(kind: TargetKind, train_labels: npt.NDArray[np.generic]) -> LabelScale:
        """Return the scale of a training split: the mean and deviation of each of its values."""
        if kind != "regression":
            return LabelScale.of_units(kind)
        values = train_labels.astype(np.float64)
        std_C = values.std(axis=0)
        return LabelScale(kind, values.mean(axis=0), np.where(std_C > SMALLEST_DEVIATION, std_C, 1.0))

    @staticmethod
    def of_units(kind: TargetKind) -> LabelScale:
        """Return the scale that leaves values in their own units."""
        return LabelScale(kind, np.zeros(1), np.ones(1))

    def tensor(self, labels: npt.NDArray[np.generic], device: torch.device) -> Tensor:
        """Return labels as int64 (n,) for classes, else as float32 (n, C)."""
        if self.kind == "multiclass":
            return torch.tensor(labels, dtype=torch.int64, device=device)
        scaled = (labels.astype(np.float64) - self.mean_C) / self.std_C
        return torch.tensor(scaled, dtype=torch.float32, device=device)
