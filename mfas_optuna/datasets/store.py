"""Built data on disk: one folder of .npy arrays with a manifest, published as a whole and checked at every load.

The folder is `<home>/data/<name>-<12 hex of the settings' fingerprint>`. It is written under a temporary name beside
it and renamed when complete, so that a folder of the final name is never half built.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.dataset import SPLIT_NAMES, Dataset, Split
from mfas_optuna.datasets.samples import Layout
from mfas_optuna.errors import CacheError, HomeError
from mfas_optuna.progress import Progress
from mfas_optuna.spec import fingerprint
from mfas_optuna.target import Target

VERSION = 2
DIGEST_LINE = "digest: "
"""How the line of a data card begins that says which data exactly they are."""
DIGITS = 16
"""Hexadecimal digits of a digest that are shown."""
MANIFEST = "manifest.json"

_MANIFEST_KEYS = {
    "target",
    "modalities",
    "tasks",
    "layouts",
    "stand_in",
    "skipped",
    "problems",
    "source",
    "arrays",
    "card",
}
_TEMPORARY_PREFIX = ".building-"
_LABELS = "labels"
_N_PIECES, _PIECE_BYTES = 33, 1 << 16
_STALE_AFTER_S = 24 * 3600.0
_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True)
class Contents:
    """What a builder says about the arrays that it wrote.

    Attributes:
        card: The data card.
        target: What is predicted.
        modalities: Names, in order.
        source: Facts that tell one set of source files from another; {} when the settings say it all.
        tasks: Number of classes of each task besides the target.
        layouts: What the axes of each modality are; images where nothing is said.
        stand_in: What generated data stand in for; empty for real data.
        skipped: Samples that were left out, by name.
        problems: What was found wrong with the source, as JSON values.
    """

    card: str
    target: Target
    modalities: tuple[str, ...]
    source: Mapping[str, Any]
    tasks: Mapping[str, int] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    stand_in: str = ""
    skipped: tuple[str, ...] = ()
    problems: tuple[Mapping[str, Any], ...] = ()


def array_file(folder: Path, split: str, what: str) -> Path:
    """Return the file of one modality, or of the labels, of a split."""
    return folder / f"{split}.{what}.npy"


def labels_file(folder: Path, split: str, task: str | None = None) -> Path:
    """Return the file of a split's labels for a task; None is the target."""
    return array_file(folder, split, _LABELS if task is None else _task_labels(task))


def _task_labels(task: str) -> str:
    return f"{_LABELS}-{task}"


def create_array(file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.memmap[Any, np.dtype[Any]]:
    """Create a .npy file of the given shape, to be filled piece by piece."""
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)


def final_folder(home: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Return where data built with these settings lie."""
    return home / "data" / f"{name}-{fingerprint(settings)[:12]}"


@contextlib.contextmanager
def alone(home: Path, name: str, progress: Progress) -> Iterator[None]:
    """Let one process at a time build the data of a name; the others wait, and say so.

    Raises:
        HomeError: The home folder cannot be written.
    """
    folder = home / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"data-{name}.lock").open("a")
    except OSError as error:
        raise HomeError(
            f"{folder}: cannot be written: {error.strerror}. Make it writable or set MFAS_HOME to another folder."
        ) from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for another process that reads the same data", 0, 1)
                time.sleep(_LOOK_AGAIN_S)
        yield


def temporary_folder(final: Path) -> Path:
    """Create an empty folder beside `final`, to be published later; remove those that a crash left a day ago.

    Raises:
        HomeError: The home folder cannot be written.
    """
    parent = final.parent
    folder = parent / f"{_TEMPORARY_PREFIX}{final.name}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise HomeError(
            f"{parent}: cannot be written: {error.strerror}. Make it writable or set MFAS_HOME to another folder."
        ) from error
    for other in parent.glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _STALE_AFTER_S:
                shutil.rmtree(other)
    return folder


def write_manifest(folder: Path, name: str, settings: Mapping[str, Any], contents: Contents) -> None:
    """Take the digest of every array in the folder and describe them all; everything is on disk afterwards."""
    arrays = {}
    for split in SPLIT_NAMES:
        for what in (_LABELS, *contents.modalities, *map(_task_labels, contents.tasks)):
            file = array_file(folder, split, what)
            _fsync(file)
            arrays[file.name] = {"sha256": file_digest(file), "bytes": file.stat().st_size}
    manifest = {
        "version": VERSION,
        "name": name,
        "settings": dict(settings),
        "target": contents.target.as_record(),
        "modalities": list(contents.modalities),
        "tasks": dict(contents.tasks),
        "layouts": dict(contents.layouts),
        "stand_in": contents.stand_in,
        "skipped": list(contents.skipped),
        "problems": list(contents.problems),
        "source": dict(contents.source),
        "arrays": arrays,
        "card": contents.card,
    }
    file = folder / MANIFEST
    with file.open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    _fsync(folder)


def publish(temporary: Path, final: Path) -> None:
    """Give a complete folder its final name, in place of what was there.

    Two processes that build the same at once both succeed: their contents are equal, and the last rename stays.
    """
    while True:
        try:
            temporary.rename(final)
        except OSError:
            if not final.exists():
                raise
            retired = final.with_name(f"{_TEMPORARY_PREFIX}old-{uuid.uuid4().hex[:8]}")
            with contextlib.suppress(FileNotFoundError):
                final.rename(retired)
            # Files that another process has mapped stay readable to it after their names are gone.
            shutil.rmtree(retired, ignore_errors=True)
        else:
            _fsync(final.parent)
            return


def read_manifest(folder: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read a folder's manifest.

    Raises:
        CacheError: It is missing, not readable, of another version or of other settings.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version, stored = manifest["version"], manifest["settings"]
        complete = manifest.keys() >= _MANIFEST_KEYS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, name, f"not a readable manifest ({type(error).__name__})") from error
    if version != VERSION:
        raise _damaged(file, name, f"of format version {version!r}, expected {VERSION}")
    if stored != dict(settings) or not complete:
        raise _damaged(file, name, "not the manifest of these settings")
    values: dict[str, Any] = manifest
    return values


def read(folder: Path, name: str, settings: Mapping[str, Any]) -> Dataset:
    """Memory-map a built data set after comparing every file with its digest.

    Raises:
        CacheError: A file is missing, truncated or changed; the message names it and the command that rebuilds it.
    """
    manifest = read_manifest(folder, name, settings)
    arrays = manifest["arrays"]
    splits = {}
    for split in SPLIT_NAMES:
        files = {what: array_file(folder, split, what) for what in (_LABELS, *manifest["modalities"])}
        loaded = {what: _read_array(file, name, arrays) for what, file in files.items()}
        labels = np.array(loaded.pop(_LABELS))
        tasks = {
            task: np.array(_read_array(labels_file(folder, split, task), name, arrays), dtype=np.int64)
            for task in manifest["tasks"]
        }
        splits[split] = Split(loaded, labels, tasks)
    digest = manifest_fingerprint(manifest)
    return Dataset(
        name,
        f"{manifest['card'].rstrip()}\n{DIGEST_LINE}{digest[:DIGITS]}, of SHA-256 of all inputs and labels.\n",
        Target.from_record(manifest["target"]),
        splits,
        digest,
        manifest["tasks"],
        manifest["layouts"],
        manifest["stand_in"],
    )


def manifest_fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return the fingerprint of the data that a manifest describes: of inputs and labels, not of tasks."""
    digests = {
        file: manifest["arrays"][file]["sha256"]
        for split in SPLIT_NAMES
        for file in (array_file(Path(), split, what).name for what in (_LABELS, *manifest["modalities"]))
        if file in manifest["arrays"]
    }
    return fingerprint(digests)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sampled_digest(file: Path) -> str:
    """Return the SHA-256 of pieces spread over a file, hex: for files too large to be read whole at each start.

    Any change of length or of the file as a whole is seen; one of a few values in the middle of gigabytes is not.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        for piece in range(_N_PIECES):
            stream.seek(max(0, size - _PIECE_BYTES) * piece // (_N_PIECES - 1))
            digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()


def _read_array(file: Path, name: str, arrays: Mapping[str, Any]) -> npt.NDArray[Any]:
    entry = arrays.get(file.name)
    if entry is None:
        raise _damaged(file, name, "not in the manifest")
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise _damaged(file, name, f"{size} bytes long, expected {entry['bytes']}")
        if file_digest(file) != entry["sha256"]:
            raise _damaged(file, name, "changed since it was built (its SHA-256 differs)")
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise _damaged(file, name, "missing") from error
    except (OSError, ValueError) as error:
        if isinstance(error, CacheError):
            raise
        raise _damaged(file, name, f"not readable ({error})") from error
    return array


def _damaged(file: Path, name: str, what: str) -> CacheError:
    return CacheError(f"{file}: data of {name}, {what}.")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
