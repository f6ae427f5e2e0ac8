"""Features on disk: one folder a feature set, checked by digest when opened, memory-mapped.

A folder holds `features-SPLIT.npy` (float32 [n, F], a row a sample), `labels-SPLIT.npy` (int64 [n]) and `manifest.json`
(version, key, data card, columns, statistics of the training columns, SHA-256 of every file and of the manifest). It
appears whole or not at all: everything is written into a temporary sibling that is renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import CacheError, DataError, HomeError
from mfas_optuna.space import SearchSpace

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureLayout:
    """Which columns hold which feature.

    Attributes:
        spans: (start, stop) of each feature, by modality and name.
    """

    spans: Mapping[str, Mapping[str, tuple[int, int]]]

    @staticmethod
    def of_widths(widths: Mapping[str, Mapping[str, int]]) -> FeatureLayout:
        """Lay features of these widths side by side, modality by modality."""
        spans: dict[str, dict[str, tuple[int, int]]] = {}
        start = 0
        for modality, features in widths.items():
            spans[modality] = {}
            for name, width in features.items():
                spans[modality][name] = (start, start + width)
                start += width
        return FeatureLayout(spans)

    def columns(self, modality: str, feature: str) -> slice:
        """Return the columns of a feature."""
        return slice(*self.spans[modality][feature])

    def widths(self, space: SearchSpace) -> list[list[int]]:
        """Return the width of every feature of a space, in its order."""
        return [
            [self.spans[modality][name][1] - self.spans[modality][name][0] for name in names]
            for modality, names in space.modalities.items()
        ]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return max(stop for features in self.spans.values() for _, stop in features.values())


@dataclass(frozen=True)
class FeatureSet:
    """An opened feature cache; arrays are read-only and memory-mapped.

    Attributes:
        folder: Where it lies.
        layout: Which columns hold which feature.
        n_classes: Labels are 0 to n_classes - 1.
        mean: Mean of each column over the training split, (F,).
        std: Standard deviation of each column over the training split, (F,).
        card: Card of the data.
        arrays: Features and labels of each split.
    """

    folder: Path
    layout: FeatureLayout
    n_classes: int
    mean: Floats
    std: Floats
    card: str
    arrays: Mapping[str, tuple[Floats, Labels]]

    def matrix(self, split: str) -> Floats:
        """Return the features of a split, (n, F)."""
        return self.arrays[split][0]

    def labels(self, split: str) -> Labels:
        """Return the labels of a split, (n,)."""
        return self.arrays[split][1]


def write_features(
    folder: Path,
    *,
    key: Mapping[str, Any],
    card: str,
    matrices: Mapping[str, Floats],
    labels: Mapping[str, Labels],
    widths: Mapping[str, Mapping[str, int]],
    n_classes: int,
) -> None:
    """Write a feature set; one that lies there already is replaced.

    Args:
        folder: Where.
        key: What the features follow from; `open_features` compares it.
        card: Card of the data.
        matrices: (n, F) of each split; "train" among them.
        labels: (n,) of each split.
        widths: Width of each feature, by modality and name, in the order of the columns.
        n_classes: Labels are 0 to n_classes - 1.

    Raises:
        DataError: A feature is NaN or infinite.
        HomeError: The folder cannot be written.
    """
    layout = FeatureLayout.of_widths(widths)
    for split, matrix in matrices.items():
        if not np.isfinite(matrix).all():
            row, column = (int(index) for index in np.argwhere(~np.isfinite(matrix))[0])
            raise DataError(
                f"Features of split {split!r}: row {row}, column {column} is {matrix[row, column]}. "
                "Look for NaN in the data and in the backbone's weights."
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            digests = {}
            for split, matrix in matrices.items():
                digests[f"features-{split}.npy"] = _write_array(temporary / f"features-{split}.npy", matrix)
                digests[f"labels-{split}.npy"] = _write_array(temporary / f"labels-{split}.npy", labels[split])
            train = matrices["train"].astype(np.float64)
            manifest = {
                "version": FORMAT_VERSION,
                "key": key,
                "card": card,
                "spans": layout.spans,
                "n_classes": n_classes,
                "mean": train.mean(axis=0).tolist(),
                "std": train.std(axis=0).tolist(),
                "sha256": digests,
            }
            manifest["manifest_sha256"] = _manifest_digest(manifest)
            with (temporary / _MANIFEST).open("w", encoding="utf-8") as file:
                json.dump(manifest, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o755)
            _swap(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HomeError(f"{folder}: cannot be written: {error.strerror}. Free space or set MFAS_HOME.") from error


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return _digest(path)


def _swap(temporary: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one; a reader that has the old one open keeps it."""
    aside = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.replace(aside)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # Another process put an equal one there first, or else it is a real failure.
            raise
    shutil.rmtree(aside, ignore_errors=True)


def open_features(folder: Path, key: Mapping[str, Any], *, rebuild_command: str) -> FeatureSet:
    """Open a feature set, checking every file against its digest.

    Args:
        folder: Where it lies.
        key: What the features must follow from.
        rebuild_command: What a user runs to make it again.

    Raises:
        CacheError: A file is missing or damaged, or the features follow from something else.
    """

    def refuse(path: Path, why: str) -> CacheError:
        return CacheError(f"{path}: {why}. Run `{rebuild_command}` to rebuild it.")

    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, stored, digests = manifest["version"], manifest["key"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refuse(path, f"cannot be read ({type(error).__name__})") from error
    if version != FORMAT_VERSION:
        raise refuse(path, f"expected format {FORMAT_VERSION}, found {version!r}")
    if manifest.get("manifest_sha256") != _manifest_digest(manifest):
        raise refuse(path, "damaged: it does not match its own SHA-256")
    if stored != json.loads(json.dumps(key)):
        fields = [name for name in {**stored, **key} if stored.get(name) != json.loads(json.dumps(key.get(name)))]
        raise refuse(path, f"built from another {', '.join(fields)}")
    for name, digest in digests.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise refuse(folder / name, f"cannot be read: {error.strerror}") from error
        if found != digest:
            raise refuse(folder / name, f"damaged: expected SHA-256 {digest[:12]}, found {found[:12]}")
    splits = sorted(name.removeprefix("labels-").removesuffix(".npy") for name in digests if name.startswith("labels-"))
    try:
        spans = {
            modality: {name: (int(start), int(stop)) for name, (start, stop) in features.items()}
            for modality, features in manifest["spans"].items()
        }
        arrays = {
            split: (
                np.load(folder / f"features-{split}.npy", mmap_mode="r", allow_pickle=False),
                np.load(folder / f"labels-{split}.npy", mmap_mode="r", allow_pickle=False),
            )
            for split in splits
        }
        opened = FeatureSet(
            folder=folder,
            layout=FeatureLayout(spans),
            n_classes=int(manifest["n_classes"]),
            mean=np.asarray(manifest["mean"], dtype=np.float32),
            std=np.asarray(manifest["std"], dtype=np.float32),
            card=str(manifest["card"]),
            arrays=arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise refuse(path, f"does not describe the files beside it ({error})") from error
    for split, (matrix, of_split) in arrays.items():
        if matrix.shape != (len(of_split), opened.layout.n_columns):
            raise refuse(folder / f"features-{split}.npy", f"unexpected shape {matrix.shape}")
    return opened


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a manifest but itself."""
    content = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
