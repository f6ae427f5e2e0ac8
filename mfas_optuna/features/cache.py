"""Features on disk: one folder a feature set, checked by digest when opened, memory-mapped.

A folder holds `features-SPLIT.npy` (float16 or float32 [n, F], a row a sample), `labels-SPLIT.npy` ([n] or [n, C]) and
`manifest.json` (version, key, data card, columns, type of the rows and statistics of the training columns as stored,
how they were extracted, SHA-256 of every file and of the manifest). It appears whole or not at all: everything is
written into a temporary sibling that is renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import CacheError, HomeError
from mfas_optuna.features.rows import Rows, choose_row_type
from mfas_optuna.space import SearchSpace
from mfas_optuna.target import Target

_log = logging.getLogger(__name__)

FORMAT_VERSION = 3
OUTPUT = "(output)"
"""Name of the columns that hold what a backbone itself gives for the target: no feature of a search space."""
SMALLEST_DEVIATION = 1e-6
"""A column whose deviation is smaller is constant, and is not divided by it."""
_MANIFEST = "manifest.json"
_ROW_TYPES = ("float16", "float32")

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Labels = npt.NDArray[np.generic]


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

    def features(self, modality: str) -> list[str]:
        """Return the names of a modality's features, in the order of their columns."""
        return [name for name in self.spans[modality] if name != OUTPUT]

    def has_output(self, modality: str) -> bool:
        """Whether there are columns of what the modality's backbone itself gives for the target."""
        return OUTPUT in self.spans[modality]

    def standardization(self, mean_F: Floats, std_F: Floats) -> tuple[Floats, Floats]:
        """Return what is subtracted from the columns of a row, and what they are then divided by, (F,) each.

        Outputs of backbones stay as they are: their scale says how sure a backbone is.

        Args:
            mean_F: Mean of each column over the training split.
            std_F: Its deviation.
        """
        shift_F, scale_F = np.zeros_like(mean_F), np.ones_like(std_F)
        for modality in self.spans:
            for name in self.features(modality):
                columns = self.columns(modality, name)
                shift_F[columns] = mean_F[columns]
                scale_F[columns] = np.where(std_F[columns] > SMALLEST_DEVIATION, std_F[columns], 1.0)
        return shift_F, scale_F

    def widths(self, space: SearchSpace) -> list[list[int]]:
        """Return the width of every choice of a space, in its order; 0 of one that takes nothing."""
        return [
            [self.width(modality, space.members(modality, choice)) for choice in range(len(choices))]
            for modality, choices in space.choices.items()
        ]

    def width(self, modality: str, features: Iterable[str]) -> int:
        """Return how many columns some features of a modality have."""
        return sum(self.spans[modality][name][1] - self.spans[modality][name][0] for name in features)

    def column_name(self, column: int) -> str:
        """Return modality, feature and channel of a column, for messages."""
        for modality, features in self.spans.items():
            for name, (start, stop) in features.items():
                if start <= column < stop:
                    return f"{modality} {name}, channel {column - start}"
        raise IndexError(f"Expected a column from 0 to {self.n_columns - 1}, found {column}.")

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
        target: What is predicted.
        mean: Mean of each column over the training split, as the rows are stored, (F,).
        std: Standard deviation of each column over the training split, as the rows are stored, (F,).
        card: Card of the data.
        stand_in: What generated data stand in for; empty for real data.
        arrays: Features (float16 or float32, the same type for all splits) and labels of each split.
    """

    folder: Path
    layout: FeatureLayout
    target: Target
    mean: Floats
    std: Floats
    card: str
    stand_in: str
    arrays: Mapping[str, tuple[Floats | Halves, Labels]]

    def matrix(self, split: str) -> Floats | Halves:
        """Return the features of a split, float16 or float32 (n, F)."""
        return self.arrays[split][0]

    def labels(self, split: str) -> Labels:
        """Return the labels of a split, (n,) or (n, C) as the target's kind says."""
        return self.arrays[split][1]


def write_features(
    folder: Path,
    *,
    key: Mapping[str, Any],
    card: str,
    matrices: Mapping[str, Floats | Sequence[Floats]],
    labels: Mapping[str, Labels],
    widths: Mapping[str, Mapping[str, int]],
    target: Target,
    stand_in: str = "",
    extraction: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = _log.info,
) -> None:
    """Write a feature set, as float16 where that loses nothing that counts; one that lies there already is replaced.

    The rows are read a piece at a time, so memory-mapped arrays may be larger than the memory.

    Args:
        folder: Where.
        key: What the features follow from; `open_features` compares it.
        card: Card of the data.
        matrices: float32 (n, F) of each split, or its columns in several arrays side by side; "train" among them.
        labels: (n,) or (n, C) of each split.
        widths: Width of each feature, by modality and name, in the order of the columns.
        target: What is predicted.
        stand_in: What generated data stand in for; empty for real data.
        extraction: How the features were extracted, to be kept in the manifest; no part of the key.
        say: Told why the rows are kept as float32, when they are.

    Raises:
        DataError: A feature is NaN or infinite.
        HomeError: The folder cannot be written.
    """
    layout = FeatureLayout.of_widths(widths)
    rows = {split: Rows([matrix] if isinstance(matrix, np.ndarray) else matrix) for split, matrix in matrices.items()}
    row_type = choose_row_type(rows, layout.column_name)
    if row_type.why_not_half:
        say(f"Features: kept as float32, because {row_type.why_not_half}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            digests = {}
            for split, of_split in rows.items():
                pieces = (piece.astype(row_type.dtype, copy=False) for _, piece in of_split.pieces())
                shape = (len(of_split), of_split.n_columns)
                file = f"features-{split}.npy"
                digests[file] = _write_array(temporary / file, shape, row_type.dtype, pieces)
                of_labels = labels[split]
                file = f"labels-{split}.npy"
                digests[file] = _write_array(temporary / file, of_labels.shape, of_labels.dtype, iter([of_labels]))
            manifest = {
                "version": FORMAT_VERSION,
                "key": key,
                "card": card,
                "spans": layout.spans,
                "target": target.as_record(),
                "stand_in": stand_in,
                "dtype": row_type.dtype.name,
                "mean": row_type.mean.tolist(),
                "std": row_type.std.tolist(),
                "extraction": dict(extraction or {}),
                "sha256": digests,
            }
            manifest["manifest_sha256"] = _manifest_digest(manifest)
            with (temporary / _MANIFEST).open("w", encoding="utf-8") as file_of_manifest:
                json.dump(manifest, file_of_manifest)
                file_of_manifest.flush()
                os.fsync(file_of_manifest.fileno())
            temporary.chmod(0o755)
            _swap(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise HomeError(f"{folder}: cannot be written: {error.strerror}. Free space or set MFAS_HOME.") from error


def _write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: Iterator[npt.NDArray[Any]]) -> str:
    """Write a .npy file piece by piece and return the SHA-256 of what it was meant to hold."""
    sha256 = hashlib.sha256()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    with path.open("wb") as file:
        for content in itertools.chain([header.getvalue()], (piece.tobytes() for piece in pieces)):
            file.write(content)
            sha256.update(content)
        file.flush()
        os.fsync(file.fileno())
    return sha256.hexdigest()


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
            target=Target.from_record(manifest["target"]),
            mean=np.asarray(manifest["mean"], dtype=np.float32),
            std=np.asarray(manifest["std"], dtype=np.float32),
            card=str(manifest["card"]),
            stand_in=str(manifest["stand_in"]),
            arrays=arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise refuse(path, f"does not describe the files beside it ({error})") from error
    for split, (matrix, of_split) in arrays.items():
        if matrix.shape != (len(of_split), opened.layout.n_columns):
            raise refuse(folder / f"features-{split}.npy", f"unexpected shape {matrix.shape}")
        if matrix.dtype.name != manifest.get("dtype") or matrix.dtype.name not in _ROW_TYPES:
            raise refuse(folder / f"features-{split}.npy", f"unexpected type {matrix.dtype}")
    return opened


def check_features(folder: Path) -> list[tuple[str, str]]:
    """Return each file of a feature set that is not as it was written, and what is wrong with it."""
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, digests = manifest["version"], dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [(str(path), f"it cannot be read ({type(error).__name__}).")]
    if version != FORMAT_VERSION:
        return [(str(path), f"expected format {FORMAT_VERSION}, found {version!r}.")]
    problems = []
    if manifest.get("manifest_sha256") != _manifest_digest(manifest):
        problems.append((str(path), "damaged: it does not match its own SHA-256."))
    for name, expected in digests.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            problems.append((str(folder / name), f"it cannot be read: {error.strerror}."))
            continue
        if found != expected:
            problems.append((str(folder / name), f"damaged: expected SHA-256 {expected[:12]}, found {found[:12]}."))
    return problems


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a manifest but itself."""
    content = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
