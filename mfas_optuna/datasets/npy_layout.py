"""AV-MNIST in the layout of the authors' code: .npy arrays of images, spectrograms and labels, train and test.

    audio/train_data.npy   audio/test_data.npy     [n, H, W] or [n, 1, H, W]
    images/train_data.npy  images/test_data.npy    the same, or flat [n, 784]
    train_labels.npy       test_labels.npy         [n]

The last `n_validation` of the training pairs are the validation split; numbers of pairs are limited by what is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import store
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.progress import Progress
from mfas_optuna.spec import AvmnistSettings

MODALITIES = {"audio": "audio", "image": "images"}
_N_CLASSES = 10
_ROWS_AT_ONCE = 1024

_CARD = """\
avmnist, from .npy arrays in the layout of the authors' code at hand; how they were made is not known here.
audio: float32 {audio}, divided by its training maximum. image: float32 {image}, likewise.
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
    """Return what tells these arrays from others: each file's SHA-256; {} when one is missing."""
    found = files(data_root)
    if not all(file.is_file() for file in found.values()):
        return {}
    return {name: store.file_digest(file) for name, file in found.items()}


def write(settings: AvmnistSettings, folder: Path, data_root: Path | None, progress: Progress) -> store.Contents:
    """Copy the arrays into the splits' files in `folder`.

    Raises:
        DataError: The arrays do not fit together.
        DataNotFoundError: Files are missing.
    """
    if data_root is None or not identity(data_root):
        missing = [] if data_root is None else [str(file) for file in files(data_root).values() if not file.is_file()]
        where = "no folder of raw data was named" if data_root is None else f"missing: {', '.join(missing)}"
        raise DataNotFoundError(
            f"avmnist, source npy: {where}. Put audio/, images/, train_labels.npy and test_labels.npy into one folder "
            "and name it with --data-root or MFAS_DATA. The study digits needs no files."
        )
    arrays = {name: _open(file) for name, file in files(data_root).items()}
    problems = [
        f"{files(data_root)[f'{modality} {split}']}: {len(arrays[f'{modality} {split}'])} rows for "
        f"{len(arrays[f'labels {split}'])} labels."
        for modality in MODALITIES
        for split in ("train", "test")
        if len(arrays[f"{modality} {split}"]) != len(arrays[f"labels {split}"])
    ]
    n_all = len(arrays["labels train"])
    n_validation = settings.n_validation
    if n_all <= n_validation:
        problems.append(f"{n_all} training pairs cannot give {n_validation} for validation. Lower n_validation.")
    if problems:
        raise DataError("\n".join(problems))
    n_train = min(settings.n_train, n_all - n_validation)
    n_test = min(settings.n_test, len(arrays["labels test"]))
    spans = {
        "train": ("train", 0, n_train),
        "validation": ("train", n_all - n_validation, n_all),
        "test": ("test", 0, n_test),
    }
    shapes = {modality: _sample_shape(arrays[f"{modality} train"]) for modality in MODALITIES}
    for split, (source, start, stop) in spans.items():
        labels = store.create_array(store.labels_file(folder, split), (stop - start,), np.int64)
        labels[:] = np.asarray(arrays[f"labels {source}"][start:stop]).reshape(-1)
        for modality, shape in shapes.items():
            scale = 1.0 / _largest(arrays[f"{modality} train"])
            target = store.create_array(store.array_file(folder, split, modality), (stop - start, *shape), np.float32)
            for row in range(0, stop - start, _ROWS_AT_ONCE):
                progress(f"copying {modality} {split}", row, stop - start)
                rows = np.asarray(arrays[f"{modality} {source}"][start + row : min(start + row + _ROWS_AT_ONCE, stop)])
                target[row : row + len(rows)] = rows.reshape(len(rows), *shape).astype(np.float32) * np.float32(scale)
            target.flush()
    pairs = ", ".join(f"{stop - start:,}" for _, start, stop in spans.values())
    card = _CARD.format(audio=list(shapes["audio"]), image=list(shapes["image"]), pairs=pairs)
    return store.Contents(card, _N_CLASSES, tuple(MODALITIES), identity(data_root))


def _open(file: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable .npy array ({error}).") from error
    return array


def _sample_shape(array: npt.NDArray[Any]) -> tuple[int, int, int]:
    if array.ndim == 4 and array.shape[1] == 1:
        return (1, array.shape[2], array.shape[3])
    if array.ndim == 3:
        return (1, array.shape[1], array.shape[2])
    if array.ndim == 2 and round(array.shape[1] ** 0.5) ** 2 == array.shape[1]:
        side = round(array.shape[1] ** 0.5)
        return (1, side, side)
    raise DataError(f"Expected [n, H, W], [n, 1, H, W] or flat square rows, found an array of shape {array.shape}.")


def _largest(array: npt.NDArray[Any]) -> float:
    """Return the largest absolute value, at least a tiny positive one; NaN is left to the check of the built data."""
    peaks = [float(np.nanmax(np.abs(array[row : row + _ROWS_AT_ONCE]))) for row in range(0, len(array), _ROWS_AT_ONCE)]
    return max([peak for peak in peaks if np.isfinite(peak)], default=0.0) or 1.0
