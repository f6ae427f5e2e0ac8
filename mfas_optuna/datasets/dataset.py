"""What every data set is once it is loaded: paired arrays in three splits, and the check of their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import DataError

SPLIT_NAMES = ("train", "validation", "test")

# Rows looked at together by the check: keeps the memory flat on arrays larger than it.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        inputs: For each modality an array [n, C, ...]: uint8, where a value v means v / 255, or float32. May be
            memory-mapped and read-only.
        labels: int64 [n], the class of each pair.
        tasks: int64 [n] for each task besides the target, the class of each pair in it.
    """

    inputs: Mapping[str, npt.NDArray[np.generic]]
    labels: npt.NDArray[np.int64]
    tasks: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Paired data of several modalities.

    Attributes:
        name: Which data set.
        card: Plain text that says what the data are and where they come from.
        n_classes: Labels are 0 to `n_classes` - 1.
        splits: "train", "validation" and "test".
        fingerprint: SHA-256 of inputs and labels, hex.
        tasks: Number of classes of each task besides the target.
    """

    name: str
    card: str
    n_classes: int
    splits: Mapping[str, Split]
    fingerprint: str
    tasks: Mapping[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.splits["train"].inputs)

    def for_task(self, task: str | None) -> Dataset:
        """Return the same pairs with the labels and classes of a task; None is the target.

        Raises:
            DataError: There are no labels for it.
        """
        if task is None:
            return self
        if task not in self.tasks:
            there = ", ".join(self.tasks) or "none"
            raise DataError(f"{self.name}: no labels for the task {task!r}. Tasks that have some: {there}.")
        splits = {name: replace(split, labels=split.tasks[task]) for name, split in self.splits.items()}
        return replace(self, n_classes=self.tasks[task], splits=splits)


def check(dataset: Dataset) -> None:
    """Do nothing when the data are sound.

    Raises:
        DataError: They are not; the message has one line for each problem, with split, modality and 0-based row.
    """
    problems = list(_problems(dataset))
    if problems:
        raise DataError("\n".join(f"{dataset.name} {problem}" for problem in problems))


def _problems(dataset: Dataset) -> Iterator[str]:
    for name in SPLIT_NAMES:
        if name not in dataset.splits:
            yield f"{name}: the split is missing."
    expected: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
    for name, split in dataset.splits.items():
        yield from _label_problems(name, split.labels, dataset.n_classes)
        for task, n_classes in dataset.tasks.items():
            if len(split.tasks[task]) != len(split):
                yield f"{name}, {task}: {len(split.tasks[task])} labels for {len(split)} pairs. Each pair needs one."
            yield from _label_problems(f"{name}, {task}", split.tasks[task], n_classes)
        if not split.inputs:
            yield f"{name}: no modality."
        for modality, array in split.inputs.items():
            where = f"{name}, {modality}"
            if len(array) != len(split.labels):
                yield f"{where}: {len(array)} rows for {len(split.labels)} labels. Each label needs one row."
            shape, dtype = expected.setdefault(modality, (array.shape[1:], array.dtype))
            if array.shape[1:] != shape or array.dtype != dtype:
                yield (
                    f"{where}: rows are {array.dtype} {list(array.shape[1:])}, those of another split {dtype} "
                    f"{list(shape)}. All splits need the same."
                )
            yield from _value_problems(where, array)
        for modality in expected.keys() - split.inputs.keys():
            yield f"{name}, {modality}: the modality is missing from this split."


def _label_problems(name: str, labels: npt.NDArray[np.int64], n_classes: int) -> Iterator[str]:
    if len(labels) == 0:
        yield f"{name}: the split is empty."
        return
    if labels.ndim != 1 or labels.dtype != np.int64:
        yield f"{name}: labels must be a row of int64, found {labels.dtype} {list(labels.shape)}."
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        row = int(wrong[0])
        yield (
            f"{name}, labels: {len(wrong)} out of range, the first at row {row}: expected 0 to {n_classes - 1}, "
            f"found {int(labels[row])}."
        )


def _value_problems(where: str, array: npt.NDArray[np.generic]) -> Iterator[str]:
    if array.dtype == np.uint8:
        return
    if array.dtype != np.float32:
        yield f"{where}: expected uint8 or float32, found {array.dtype}."
        return
    first, n_wrong = -1, 0
    for start in range(0, len(array), _ROWS_AT_ONCE):
        rows = np.asarray(array[start : start + _ROWS_AT_ONCE])
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            first = start + int(np.argmin(finite)) if first < 0 else first
            n_wrong += int((~finite).sum())
    if n_wrong:
        yield f"{where}: NaN or infinity in {n_wrong} rows, the first is row {first}. Mend or leave out these rows."
