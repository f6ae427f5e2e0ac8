"""The home folder: where things lie in it, files that appear whole, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mfas_optuna.errors import HomeError
from mfas_optuna.registry.blobs import BlobStore, FolderBlobStore
from mfas_optuna.registry.remote import PATIENCE_S, RemoteBlobStore


def weights_folder(home: Path) -> Path:
    """Return the folder of the weight blobs in a home."""
    return home / "weights"


def artifacts_folder(home: Path) -> Path:
    """Return the folder of the drawings that the dashboard shows as artifacts."""
    return home / "artifacts"


def partial_folder(home: Path, study_name: str) -> Path:
    """Return the folder of a study's final trainings under way."""
    return home / "final" / study_name


def cache_folder(home: Path) -> Path:
    """Return the folder of a home's copies of weight blobs that are kept behind a URL."""
    return home / "weights-cache"


def blob_store(home: Path, weights: str | None, *, patience_s: float = PATIENCE_S) -> BlobStore:
    """Return the store of weights that a request uses.

    Args:
        home: The home folder.
        weights: A folder, a URL, or None for the folder in the home.
        patience_s: Seconds for which a store behind a URL is waited for.

    Raises:
        StoreError: There is no such protocol, or its package is missing.
    """
    if weights is None:
        return FolderBlobStore(weights_folder(home))
    if "://" not in weights:
        return FolderBlobStore(Path(weights))
    parts = urlsplit(weights)
    if parts.scheme == "file":
        return FolderBlobStore(Path(unquote(parts.path)))
    return RemoteBlobStore(weights, FolderBlobStore(cache_folder(home)), patience_s=patience_s)


def check_home(home: Path) -> None:
    """Create the home folder and make sure that it can be written.

    Raises:
        HomeError: It cannot; the message says why and what to do.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HomeError(
            f"{home}: the home folder cannot be written: {error.strerror}. Set MFAS_HOME to a folder that can."
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file so that a reader sees the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def locked(
    home: Path, name: str, say: Callable[[str], None], *, work: str = "preparing the same data and backbones"
) -> Iterator[None]:
    """Hold a named lock of the home folder; say so when another process has it, and what it does, and wait."""
    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process is {work}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
