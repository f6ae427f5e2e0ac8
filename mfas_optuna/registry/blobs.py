"""Weight blobs: safetensors bytes in files named by their SHA-256, immutable, checked at every read."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mfas_optuna.errors import BlobError, HomeError

_log = logging.getLogger(__name__)

FORMAT_VERSION = "1"
WRITERS = 8
"""Blobs that are written at once."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore(Protocol):
    """Bytes under the digest of their content."""

    def put(self, content: bytes) -> str:
        """Keep the content and return its SHA-256 as hex; when this returns, it will survive a crash."""

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """Keep several contents, as `put` does each."""

    def get(self, digest: str) -> bytes:
        """Return the content of a digest, checked against it.

        Raises:
            BlobError: There is none, or it is damaged.
        """

    def __contains__(self, digest: str) -> bool:
        """Whether there is a blob of this digest, sound or not."""


class FolderBlobStore:
    """Blobs in a folder, as `ab/abcd….safetensors`; safe for any number of processes on one file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mode = 0o666 & ~_umask()

    def path(self, digest: str) -> Path:
        """Return where the blob of a digest lies.

        Raises:
            BlobError: It is not a SHA-256 in hex.
        """
        if not _DIGEST.fullmatch(digest):
            raise BlobError(digest, f"Expected a SHA-256 as 64 hex digits, found {digest!r}.")
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def put(self, content: bytes) -> str:
        """Keep the content and return its digest; one that is there already is only marked as used now.

        Raises:
            HomeError: The folder cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        try:
            if path.is_file() and path.stat().st_size == len(content):
                if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                    os.utime(path)  # Garbage collection goes by age.
                    return digest
                _log.warning("Weight blob %s was damaged; it is written anew.", path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, content)
        except OSError as error:
            raise HomeError(
                f"{path}: the weights cannot be written: {error.strerror}. Free space or mend it."
            ) from error
        return digest

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """Keep several contents and return their digests, in less time than one after the other.

        Waiting for the disk is most of it, and a disk takes many writes at once.

        Raises:
            HomeError: The folder cannot be written.
        """
        if len(contents) < 2:
            return [self.put(content) for content in contents]
        with ThreadPoolExecutor(max_workers=WRITERS) as writers:
            return list(writers.map(self.put, contents))

    def _write(self, path: Path, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(self._mode)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def get(self, digest: str) -> bytes:
        """Return the content of a digest; a damaged blob is set aside as `….damaged`.

        Raises:
            BlobError: There is none, or it is damaged.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise BlobError(digest, f"{path}: the weight blob is missing.") from error
        except OSError as error:
            raise BlobError(digest, f"{path}: the weight blob cannot be read: {error.strerror}.") from error
        if hashlib.sha256(content).hexdigest() != digest:
            aside = path.with_name(path.name + ".damaged")
            with contextlib.suppress(OSError):
                path.replace(aside)
            raise BlobError(digest, f"{path}: the weight blob is damaged; it was set aside as {aside.name}.")
        return content

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()


def encode_layer(state: Mapping[str, Tensor]) -> bytes:
    """Return a state dict as safetensors bytes; equal tensors give equal bytes.

    The metadata have one key alone: safetensors writes several in an order that differs from run to run.
    """
    tensors = {name: state[name].detach().contiguous().cpu() for name in sorted(state)}
    return safetensors.torch.save(tensors, metadata={"mfas": FORMAT_VERSION})


def decode_layer(content: bytes) -> dict[str, Tensor]:
    """Return the state dict of safetensors bytes.

    Raises:
        BlobError: The bytes are not safetensors.
    """
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        digest = hashlib.sha256(content).hexdigest()
        raise BlobError(digest, f"Weight blob {digest[:12]} is not a safetensors file: {error}.") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
