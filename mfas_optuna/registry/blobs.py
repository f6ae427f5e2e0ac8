"""Weight blobs: safetensors bytes in files named by their SHA-256, immutable, checked at every read."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
TEMPORARY = ".tmp-"
"""How the names of files begin that are being written."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".safetensors"
_DAMAGED = ".damaged"
_REMOVING = ".removing"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Something that lies in a store.

    Attributes:
        name: Its path within the store.
        digest: SHA-256 that a blob is named by; None for what was left over: unfinished writes and damaged blobs.
        n_bytes: Its size.
        modified: When it was written or last put again, in seconds since 1970.
    """

    name: str
    digest: str | None
    n_bytes: int
    modified: float


class BlobStore(Protocol):
    """Bytes under the digest of their content."""

    @property
    def location(self) -> str:
        """Where the blobs lie, for messages."""

    def put(self, content: bytes) -> str:
        """Keep the content and return its SHA-256 as hex; when this returns, it will survive a crash."""

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """Keep several contents, as `put` does each."""

    def get(self, digest: str) -> bytes:
        """Return the content of a digest, checked against it.

        Raises:
            BlobError: There is none, or it is damaged.
        """

    def check(self, digest: str) -> None:
        """Read a blob where it is kept, past any copy, and change nothing.

        Raises:
            BlobError: There is none, or it is damaged.
        """

    def __contains__(self, digest: str) -> bool:
        """Whether there is a blob of this digest, sound or not."""

    def stored(self) -> Iterator[StoredFile]:
        """Yield the blobs, and what was left over; files that are not of a store are passed over."""

    def remove(self, file: StoredFile, *, before: float) -> bool:
        """Remove a file if it is still older than a time, in seconds since 1970; return whether it was."""


def blob_name(digest: str) -> str:
    """Return the path of a blob within a store, `ab/abcd….safetensors`.

    Raises:
        BlobError: It is not a SHA-256 in hex.
    """
    if not _DIGEST.fullmatch(digest):
        raise BlobError(digest, f"Expected a SHA-256 as 64 hex digits, found {digest!r}.")
    return f"{digest[:2]}/{digest}{_SUFFIX}"


def read_name(name: str) -> tuple[bool, str | None]:
    """Return whether a path within a store is that of one of its files, and the digest if that is a blob."""
    folder, _, file = name.rpartition("/")
    digest = file.removesuffix(_SUFFIX)
    if _DIGEST.fullmatch(digest) and name == blob_name(digest):
        return True, digest
    is_left_over = file.startswith(TEMPORARY) or file.endswith((_SUFFIX + _DAMAGED, _SUFFIX + _REMOVING))
    return is_left_over and len(folder) == 2, None


class FolderBlobStore:
    """Blobs in a folder, as `ab/abcd….safetensors`; safe for any number of processes on one file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mode = 0o666 & ~_umask()

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder)

    def path(self, digest: str) -> Path:
        """Return where the blob of a digest lies.

        Raises:
            BlobError: It is not a SHA-256 in hex.
        """
        return self.folder / blob_name(digest)

    def put(self, content: bytes) -> str:
        """Keep the content and return its digest; one that is there already is only marked as used now.

        Raises:
            HomeError: The folder cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        try:
            if not self._refresh(path, digest):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write(path, content)
        except OSError as error:
            raise HomeError(
                f"{path}: the weights cannot be written: {error.strerror}. Free space or mend it."
            ) from error
        return digest

    def _refresh(self, path: Path, digest: str) -> bool:
        """Mark a sound blob as used now, since it is removed by age; return whether there is one."""
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                os.utime(path)
                return True
        except FileNotFoundError:  # Also one that was removed between reading and marking.
            return False
        _log.warning("Weight blob %s was damaged; it is written anew.", path)
        return False

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """Keep several contents and return their digests, in less time than one after the other.

        Waiting for the disk is most of it, and a disk takes many writes at once.

        Raises:
            HomeError: The folder cannot be written.
        """
        return at_once(self.put, contents)

    def _write(self, path: Path, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
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
        content = self._read(path, digest)
        if hashlib.sha256(content).hexdigest() != digest:
            aside = path.with_name(path.name + _DAMAGED)
            with contextlib.suppress(OSError):
                path.replace(aside)
            raise BlobError(digest, f"{path}: the weight blob is damaged; it was set aside as {aside.name}.")
        return content

    def check(self, digest: str) -> None:
        """Read a blob and change nothing.

        Raises:
            BlobError: There is none, or it is damaged.
        """
        path = self.path(digest)
        found = hashlib.sha256(self._read(path, digest)).hexdigest()
        if found != digest:
            raise BlobError(digest, f"{path}: the weight blob is damaged: its SHA-256 is {found[:12]}….")

    def _read(self, path: Path, digest: str) -> bytes:
        try:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                if not self._bring_back(path):
                    raise
                return path.read_bytes()
        except FileNotFoundError as error:
            raise BlobError(digest, f"{path}: the weight blob is missing.") from error
        except OSError as error:
            raise BlobError(digest, f"{path}: the weight blob cannot be read: {error.strerror}.") from error

    def __contains__(self, digest: str) -> bool:
        path = self.path(digest)
        return path.is_file() or self._bring_back(path)

    def stored(self) -> Iterator[StoredFile]:
        """Yield the blobs, and what was left over; files that are not of a store are passed over."""
        for path in sorted(self.folder.glob("??/*")):
            name = path.relative_to(self.folder).as_posix()
            is_ours, digest = read_name(name)
            if is_ours:
                with contextlib.suppress(FileNotFoundError):  # Gone meanwhile.
                    status = path.stat()
                    yield StoredFile(name, digest, status.st_size, status.st_mtime)

    def remove(self, file: StoredFile, *, before: float) -> bool:
        """Remove a file if it is still older than a time; return whether it was.

        A blob is renamed first. A writer that put it again until then has marked it as used, and it is brought back;
        one that comes later finds none, and writes it anew.

        Raises:
            HomeError: The folder cannot be written.
        """
        path = self.folder / file.name
        aside = path.with_name(path.name + _REMOVING)
        try:
            if path.stat().st_mtime >= before:
                return False
            if file.digest is None:
                path.unlink()
                return True
            path.replace(aside)
            if aside.stat().st_mtime >= before:
                self._bring_back(path)
                return False
            aside.unlink()
        except FileNotFoundError:  # Another process removed it, or a reader brought it back.
            return False
        except OSError as error:
            raise HomeError(f"{path}: cannot be removed: {error.strerror}. Mend the folder's permissions.") from error
        return True

    def _bring_back(self, path: Path) -> bool:
        """Undo a removal that was begun; return whether there was one. Equal names mean equal bytes."""
        try:
            path.with_name(path.name + _REMOVING).replace(path)
        except OSError:
            return False
        return True


def at_once(put: Callable[[bytes], str], contents: Sequence[bytes]) -> list[str]:
    """Return what `put` returns for each, several at once: waiting is most of it."""
    if len(contents) < 2:
        return [put(content) for content in contents]
    with ThreadPoolExecutor(max_workers=WRITERS) as writers:
        return list(writers.map(put, contents))


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
