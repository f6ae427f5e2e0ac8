"""AV-MNIST in the layout of the authors' code: .npy arrays of images, spectrograms and labels, train and test.

    audio/train_data.npy   audio/test_data.npy     [n, H, W] or [n, 1, H, W]
    images/train_data.npy  images/test_data.npy    the same, or flat [n, 784]
    train_labels.npy       test_labels.npy         [n]

The last `n_validation` of the training pairs are the validation split; the other numbers of pairs are limited by what
is there. uint8 arrays stay as they are (a value v means v / 255); others are divided by their training maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import store
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.progress import Progress
from mfas_optuna.spec import AvmnistSettings
from mfas_optuna.target import Target

MODALITIES = {"audio": "audio", "image": "images"}
_TARGET = Target.of_classes(10)
_ROWS_AT_ONCE = 1024

_CARD = """\
avmnist, from .npy arrays in the layout of the authors' code at hand; how they were made is not known here.
audio: {audio}. image: {image}. float32 values were divided by their maximum in the training arrays.
pairs: {pairs} for train, validation (the last of the training arrays) and test.
"""


def files(data_root: Path) -> dict[str, Path]:
    """Return the six files of the layout by a short name."""
    arrays = {
        f"{modality} {split}": data_root / folder / f"{split}_data.npy"
        for modality, folder in MODALITIES.items()
        for split in ("train", "test")
    }
    return arrays | {f"labels {split}": data_root / f"{split}_labels.npy" for split in ("train", "test")}


def identity(data_root: Path) -> dict[str, Any]:
    """Return what tells these arrays from others: sizes and sampled digests; {} when a file is missing."""
    found = files(data_root)
    if not all(file.is_file() for file in found.values()):
        return {}
    return {name: {"bytes": file.stat().st_size, "sampled": store.sampled_digest(file)} for name, file in found.items()}


def check_files(data_root: Path | None) -> Path:
    """Return the folder of the arrays when they are in it.

    Raises:
        DataNotFoundError: Some are missing.
    """
    missing = [] if data_root is None else [str(file) for file in files(data_root).values() if not file.is_file()]
    if data_root is None or missing:
        where = "no folder of raw data was named" if data_root is None else f"missing: {', '.join(missing)}"
        raise DataNotFoundError(
            f"avmnist, source npy: {where}. Put audio/, images/, train_labels.npy and test_labels.npy into one folder "
            "and name it with --data-root or MFAS_DATA. The study digits needs no files."
        )
    return data_root


def write(settings: AvmnistSettings, folder: Path, data_root: Path | None, progress: Progress) -> store.Contents:
    """Copy the arrays into the splits' files in `folder`.

    Raises:
        DataError: The arrays do not fit together.
        DataNotFoundError: Files are missing.
    """
    data_root = check_files(data_root)
    found = files(data_root)
    arrays = {name: _open(file) for name, file in found.items()}
    problems = list(_problems(arrays, found, settings.n_validation))
    if problems:
        raise DataError("\n".join(problems))
    n_all = len(arrays["labels train"])
    spans = {
        "train": ("train", 0, min(settings.n_train, n_all - settings.n_validation)),
        "validation": ("train", n_all - settings.n_validation, n_all),
        "test": ("test", 0, min(settings.n_test, len(arrays["labels test"]))),
    }
    shapes = {modality: _sample_shape(arrays[f"{modality} train"]) or () for modality in MODALITIES}
    for modality, shape in shapes.items():
        training = arrays[f"{modality} train"]
        is_bytes = training.dtype == np.uint8
        scale = np.float32(1.0 if is_bytes else 1.0 / _largest(training))
        for split, (source, start, stop) in spans.items():
            target = store.create_array(
                store.array_file(folder, split, modality), (stop - start, *shape), np.uint8 if is_bytes else np.float32
            )
            for row in range(0, stop - start, _ROWS_AT_ONCE):
                progress(f"copying {modality}, {split}", row, stop - start)
                rows = arrays[f"{modality} {source}"][start + row : min(start + row + _ROWS_AT_ONCE, stop)]
                shaped = np.asarray(rows).reshape(len(rows), *shape)
                target[row : row + len(rows)] = shaped if is_bytes else shaped.astype(np.float32) * scale
            progress(f"copying {modality}, {split}", stop - start, stop - start)
            target.flush()
    for split, (source, start, stop) in spans.items():
        labels = store.create_array(store.labels_file(folder, split), (stop - start,), np.int64)
        labels[:] = np.asarray(arrays[f"labels {source}"][start:stop])
        labels.flush()
    pairs = ", ".join(f"{stop - start:,}" for _, start, stop in spans.values())
    described = {
        modality: f"{'uint8' if arrays[f'{modality} train'].dtype == np.uint8 else 'float32'} {list(shape)}"
        for modality, shape in shapes.items()
    }
    return store.Contents(_CARD.format(**described, pairs=pairs), _TARGET, tuple(MODALITIES), identity(data_root))


def _problems(arrays: Mapping[str, npt.NDArray[Any]], found: Mapping[str, Path], n_validation: int) -> Iterator[str]:
    for split in ("train", "test"):
        labels = arrays[f"labels {split}"]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            file = found[f"labels {split}"]
            yield f"{file}: expected a row of whole numbers, found {labels.dtype} {list(labels.shape)}. Save them so."
    for modality in MODALITIES:
        shapes = {}
        for split in ("train", "test"):
            array, file = arrays[f"{modality} {split}"], found[f"{modality} {split}"]
            n_labels = len(arrays[f"labels {split}"])
            if array.dtype.kind not in "fiu":
                yield f"{file}: expected numbers, found {array.dtype}. Save it as uint8 or float32."
            if len(array) != n_labels:
                yield f"{file}: {len(array)} rows for {n_labels} labels. Each label needs one row."
            shapes[split] = _sample_shape(array)
            if shapes[split] is None:
                yield (
                    f"{file}: expected [n, H, W], [n, 1, H, W] or flat square rows, found {list(array.shape)}. "
                    "Reshape it."
                )
        if shapes["train"] != shapes["test"] and None not in shapes.values():
            yield (
                f"{found[f'{modality} test']}: expected rows like those of train, {shapes['train']}, found "
                f"{shapes['test']}. Save both alike."
            )
        if (arrays[f"{modality} train"].dtype == np.uint8) != (arrays[f"{modality} test"].dtype == np.uint8):
            yield f"{found[f'{modality} test']}: one of train and test is uint8, the other is not. Save both alike."
    n_all = len(arrays["labels train"])
    if n_all <= n_validation:
        yield (
            f"{found['labels train']}: {n_all} training pairs cannot give n_validation = {n_validation}. "
            "Lower it in the study file."
        )


def _open(file: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable .npy array ({error}). Save it with numpy.save.") from error
    if array.ndim == 0:
        raise DataError(f"{file}: expected rows, found a single value. Save an array of all samples.")
    return array


def _sample_shape(array: npt.NDArray[Any]) -> tuple[int, ...] | None:
    if array.ndim == 4 and array.shape[1] == 1:
        return (1, array.shape[2], array.shape[3])
    if array.ndim == 3:
        return (1, array.shape[1], array.shape[2])
    if array.ndim == 2 and math.isqrt(array.shape[1]) ** 2 == array.shape[1]:
        return (1, math.isqrt(array.shape[1]), math.isqrt(array.shape[1]))
    return None


def _largest(array: npt.NDArray[Any]) -> float:
    """Return the largest finite absolute value, 1 where there is none; NaN is left to the check of the built data."""
    largest = 0.0
    for row in range(0, len(array), _ROWS_AT_ONCE):
        values = np.abs(array[row : row + _ROWS_AT_ONCE])
        largest = max(largest, float(values.max(initial=0.0, where=np.isfinite(values))))
    return largest or 1.0
