"""Scores of predictions."""

from __future__ import annotations

from torch import Tensor


def accuracy(logits_BC: Tensor, labels_B: Tensor) -> float:
    """Return the fraction of rows whose largest logit is that of their label, 0 to 1."""
    return float((logits_BC.argmax(dim=1) == labels_B).double().mean())
