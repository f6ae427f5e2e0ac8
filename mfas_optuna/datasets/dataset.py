"""What every data set is once it is loaded: paired arrays in three splits, and the check of their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.samples import Layout, Problem
from mfas_optuna.errors import DataError
from mfas_optuna.target import Target

SPLIT_NAMES = ("train", "validation", "test")

_LABEL_TYPES = {"multiclass": "int64", "multilabel": "uint8", "regression": "float32"}

# Rows looked at together by the check: keeps the memory flat on arrays larger than it.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        inputs: For each modality an array [n, C, ...]: uint8, where a value v means v / 255, or float32. May be
            memory-mapped and read-only.
        labels: What is predicted of each pair, as `Target.kind` says: int64 [n], uint8 [n, C] or float32 [n, C].
        tasks: int64 [n] for each task besides the target, the class of each pair in it.
    """

    inputs: Mapping[str, npt.NDArray[np.generic]]
    labels: npt.NDArray[np.generic]
    tasks: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Paired data of several modalities.

    Attributes:
        name: Which data set.
        card: Plain text that says what the data are and where they come from.
        target: What is predicted.
        splits: "train", "validation" and "test".
        fingerprint: SHA-256 of inputs and labels, hex.
        tasks: Number of classes of each task besides the target.
        layouts: What the axes of each modality are; images where nothing is said.
        stand_in: What generated data stand in for; empty for real data.
    """

    name: str
    card: str
    target: Target
    splits: Mapping[str, Split]
    fingerprint: str
    tasks: Mapping[str, int] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    stand_in: str = ""

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
        return replace(self, target=Target.of_classes(self.tasks[task]), splits=splits)


def label_array(labels: Sequence[Any], target: Target) -> npt.NDArray[np.generic]:
    """Return labels as the array that the kind of target asks for: int64 [n], uint8 [n, C] or float32 [n, C]."""
    return np.asarray(labels, dtype=_LABEL_TYPES[target.kind])


def check(dataset: Dataset) -> list[Problem]:
    """Return what is odd about data that can be used all the same: warnings.

    Raises:
        DataError: The data cannot be used; the message has one line for each problem, with split, modality and 0-based
            row.
    """
    problems = list(problems_of(dataset))
    if any(problem.is_error for problem in problems):
        raise DataError("\n".join(f"{dataset.name} {problem}" for problem in problems if problem.is_error))
    return problems


def problems_of(dataset: Dataset) -> Iterator[Problem]:
    """Yield everything that is wrong with data; every value is looked at."""
    for name in SPLIT_NAMES:
        if name not in dataset.splits:
            yield Problem(name, "the split is missing.", "Add it.")
    expected: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
    for name, split in dataset.splits.items():
        yield from _label_problems(name, split.labels, dataset.target)
        for task, n_classes in dataset.tasks.items():
            if len(split.tasks[task]) != len(split):
                yield Problem(
                    f"{name}, {task}",
                    f"{len(split.tasks[task])} labels for {len(split)} pairs.",
                    "Each pair needs one.",
                )
            yield from _label_problems(f"{name}, {task}", split.tasks[task], Target.of_classes(n_classes))
        if not split.inputs:
            yield Problem(name, "no modality.", "Add the data of two modalities at least.")
        for modality, array in split.inputs.items():
            where = f"{name}, {modality}"
            if len(array) != len(split.labels):
                yield Problem(where, f"{len(array)} rows for {len(split.labels)} labels.", "Each label needs one row.")
            shape, dtype = expected.setdefault(modality, (array.shape[1:], array.dtype))
            if array.shape[1:] != shape or array.dtype != dtype:
                yield Problem(
                    where,
                    f"rows are {array.dtype} {list(array.shape[1:])}, those of another split {dtype} {list(shape)}.",
                    "All splits need the same.",
                )
            yield from _value_problems(where, array)
        for modality in expected.keys() - split.inputs.keys():
            yield Problem(f"{name}, {modality}", "the modality is missing from this split.", "Add it.")


def absent_classes(labels: Mapping[str, npt.NDArray[np.generic]], target: Target) -> Iterator[Problem]:
    """Yield classes and labels that do not occur in a split: an error in the training split, else a warning."""
    if target.kind == "regression":
        return
    what = "class" if target.kind == "multiclass" else "label"
    for split, of_split in labels.items():
        absent = [name for name, n in zip(target.names, class_counts(of_split, target), strict=True) if n == 0]
        if absent and split == "train":
            yield Problem(
                split,
                f"no sample of {what} {', '.join(absent)}, which cannot be learnt so.",
                "Add some, or leave these out of the other splits too.",
            )
        elif absent:
            yield Problem(
                split, f"no sample of {what} {', '.join(absent)}.", "Scores say nothing about it.", is_error=False
            )


def class_counts(labels: npt.NDArray[np.generic], target: Target) -> list[int]:
    """Return how many samples there are of each class, or with each label."""
    if target.kind == "multiclass":
        counts: list[int] = np.bincount(labels.astype(np.int64), minlength=target.n_outputs).tolist()
    else:
        counts = labels.astype(np.int64).sum(axis=0).tolist()
    return counts


def _label_problems(name: str, labels: npt.NDArray[np.generic], target: Target) -> Iterator[Problem]:
    if len(labels) == 0:
        yield Problem(name, "the split is empty.", "Add samples.")
        return
    dtype = _LABEL_TYPES[target.kind]
    shape = labels.shape[:1] if target.kind == "multiclass" else (len(labels), target.n_outputs)
    if labels.shape != shape or labels.dtype != dtype:
        yield Problem(
            name, f"labels must be {dtype} {list(shape)}, found {labels.dtype} {list(labels.shape)}.", "Convert them."
        )
        return
    if target.kind == "regression":
        wrong, expected = ~np.isfinite(labels.astype(np.float64)), "a finite number"
    else:
        most = target.n_outputs - 1 if target.kind == "multiclass" else 1
        values = labels.astype(np.int64)
        wrong, expected = (values < 0) | (values > most), f"0 to {most}"
    rows = np.flatnonzero(wrong.reshape(len(labels), -1).any(axis=1))
    if len(rows):
        row = int(rows[0])
        yield Problem(
            f"{name}, labels",
            f"{len(rows)} out of range, the first at row {row}: expected {expected}, found {labels[row].tolist()}.",
            "Mend the labels.",
        )


def _value_problems(where: str, array: npt.NDArray[np.generic]) -> Iterator[Problem]:
    if array.dtype == np.uint8:
        return
    if array.dtype != np.float32:
        yield Problem(where, f"expected uint8 or float32, found {array.dtype}.", "Convert it.")
        return
    first, n_wrong = -1, 0
    for start in range(0, len(array), _ROWS_AT_ONCE):
        rows = np.asarray(array[start : start + _ROWS_AT_ONCE])
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            first = start + int(np.argmin(finite)) if first < 0 else first
            n_wrong += int((~finite).sum())
    if n_wrong:
        yield Problem(
            where, f"NaN or infinity in {n_wrong} rows, the first is row {first}.", "Mend or leave out these rows."
        )
