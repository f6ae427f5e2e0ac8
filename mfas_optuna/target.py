"""What a study predicts, and how predictions are scored: names alone, shared by all rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TargetKind = Literal["multiclass", "multilabel", "regression"]
Metric = Literal["accuracy", "f1_weighted", "f1_macro", "r2"]

METRICS: Mapping[TargetKind, tuple[Metric, ...]] = {
    "multiclass": ("accuracy", "f1_weighted", "f1_macro"),
    "multilabel": ("f1_weighted", "f1_macro"),
    "regression": ("r2",),
}
"""The metrics of each kind of target, the default first; all are better when larger, and 1 at best."""

METRIC_TITLES: Mapping[Metric, str] = {
    "accuracy": "accuracy",
    "f1_weighted": "weighted F1",
    "f1_macro": "macro F1",
    "r2": "R²",
}
"""What the metrics are called for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted.

    Attributes:
        kind: `multiclass`: one of several classes, labels int64 [n]; `multilabel`: any of several labels, uint8 [n, C]
            of 0 and 1; `regression`: values, float32 [n, C].
        names: Of the C classes, labels or values, in order.
    """

    kind: TargetKind
    names: tuple[str, ...]

    @property
    def n_outputs(self) -> int:
        """C: outputs that a network needs."""
        return len(self.names)

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"kind": self.kind, "names": list(self.names)}

    @staticmethod
    def from_record(values: Mapping[str, Any]) -> Target:
        """Return what `as_record` gave."""
        return Target(values["kind"], tuple(values["names"]))

    @staticmethod
    def of_classes(n_classes: int) -> Target:
        """Return a target of classes that have no other names than their numbers from 0."""
        return Target("multiclass", tuple(map(str, range(n_classes))))
