"""Data of the user's own code: a function that returns a PyTorch `Dataset` for each split, read once.

Items are ({modality: array or tensor}, target). Samples of a modality all have one shape; uint8 stays, other numbers
become float32. A `targets` attribute, as torchvision's data sets have, saves a pass over all items for their labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna import python_file
from mfas_optuna.datasets.arrays import absent_from, complete, label_problems, target_of
from mfas_optuna.datasets.dataset import SPLIT_NAMES, label_array
from mfas_optuna.datasets.samples import Layout, Modality, Problem, Sample, SampleError, Source
from mfas_optuna.errors import DataError
from mfas_optuna.spec import PythonSettings

_LAYOUTS: Mapping[int, Layout] = {1: "vector", 3: "image", 4: "video"}
_EXPECTED = "expected ({modality: array}, target)"

Array = npt.NDArray[Any]


def find(settings: PythonSettings, folder: Path) -> Source:
    """Call the user's function for each split, and look at the first item of each.

    Args:
        settings: Which file and function, and how missing splits are made.
        folder: The study file's folder, which `settings.file` is relative to.

    Raises:
        DataError: The function or its items are not what is expected; the message says where it failed.
    """
    file = folder / settings.file
    make = python_file.member(file, settings.dataset)
    datasets: dict[str, Any] = {}
    for split in SPLIT_NAMES:
        with python_file.reporting(file, f'{settings.dataset}("{split}")'):
            found = make(split)
        if found is None:
            continue
        if not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
            raise DataError(
                f'{file}, {settings.dataset}("{split}"): expected a data set with a length and items, or None, found '
                f"{type(found).__name__}."
            )
        if len(found):
            datasets[split] = found
    if "train" not in datasets:
        raise DataError(f'{file}, {settings.dataset}("train"): expected samples, found none. Return some.')
    first = _item(file, "train", datasets["train"], 0)[0]
    labels = {split: np.asarray(_labels(file, split, dataset)) for split, dataset in datasets.items()}
    target = target_of(labels, settings.target, settings.classes)
    splits = {
        split: [
            Sample(f"{split} {row}", label, (split, row))
            for row, label in enumerate(label_array(of_split.tolist(), target))
        ]
        for split, of_split in labels.items()
    }
    problems = list(label_problems(splits, target))
    made, said = complete(splits, target, settings)

    def read(sample: Sample) -> dict[str, Array]:
        split, row = sample.at
        try:
            return _item(file, split, datasets[split], row)[0]
        except DataError as error:
            remedy = "Mend it, or leave it out with --skip-bad."
            raise SampleError(Problem(f"{split}, item {row}", f"{error}", remedy, sample.name)) from error

    return Source(
        splits=made,
        target=target,
        modalities={
            name: Modality(value.shape, "uint8" if value.dtype == np.uint8 else "float32", _layout(value))
            for name, value in first.items()
        },
        read=read,
        facts={},
        card=f"data of your own, from {settings.file}, {settings.dataset}().{said}",
        problems=[*problems, *absent_from(made, target, problems)],
        reads_here=True,
    )


def _layout(value: Array) -> Layout:
    return _LAYOUTS.get(value.ndim, "other")


def _labels(file: Path, split: str, dataset: Any) -> Sequence[Any]:
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):
        return [np.asarray(target).tolist() for target in targets]
    return [np.asarray(_item(file, split, dataset, row)[1]).tolist() for row in range(len(dataset))]


def _item(file: Path, split: str, dataset: Any, row: int) -> tuple[dict[str, Array], Any]:
    with python_file.reporting(file, f"{split}[{row}]"):
        item = dataset[row]
    where = f"{file}, {split}[{row}]"
    if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Mapping)):
        raise DataError(f"{where}: {_EXPECTED}, found {type(item).__name__}. Return such a pair.")
    inputs = {}
    for name, value in item[0].items():
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{where}: {_EXPECTED}, {name} holds {array.dtype}. Return numbers.")
        inputs[str(name)] = array if array.dtype == np.uint8 else array.astype(np.float32)
    return inputs, item[1]
