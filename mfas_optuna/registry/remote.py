"""Weight blobs behind a URL, for any number of machines: whatever fsspec opens, with a cache on each machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from mfas_optuna.errors import BlobError, HomeError, StoreError
from mfas_optuna.registry.blobs import TEMPORARY, FolderBlobStore, StoredFile, at_once, blob_name, read_name

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

PATIENCE_S = 120.0
"""Seconds for which something that may pass is tried again."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_WHOLE_PUTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
"""Protocols by which an object appears under its name whole, once all of it is there, or not at all."""
_PACKAGES = {
    "s3": "mfas-optuna[s3]",
    "s3a": "mfas-optuna[s3]",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_LASTING_NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
_PASSING = frozenset({"botocore.HTTPClientError", "botocore.ConnectionError", "aiohttp.ClientError"})
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
"""What the protocols call the time of an object."""


class RemoteBlobStore:
    """Blobs below a URL, as `URL/ab/abcd….safetensors`; each is fetched once a machine."""

    def __init__(self, url: str, cache: FolderBlobStore, *, patience_s: float = PATIENCE_S) -> None:
        """Find out whether such a URL can be opened; nothing is read.

        Args:
            url: Such as s3://bucket/prefix.
            cache: Copies on this machine; they are checked like any blob, and can be deleted at any time.
            patience_s: Seconds for which something that may pass is tried again.

        Raises:
            StoreError: There is no such protocol, or its package is missing.
        """
        self._url = url.rstrip("/")
        self._cache = cache
        self._patience_s = patience_s
        self._scheme = urlsplit(url).scheme
        self._is_cache_broken = False
        self._open()

    @property
    def location(self) -> str:
        """The URL, without a password."""
        parts = urlsplit(self._url)
        if parts.password is None:
            return self._url
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))

    def _open(self) -> tuple[Any, str]:
        """Return fsspec's file system and the path of the store in it; fsspec keeps them for each process."""
        try:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self._url)
        except ImportError as error:
            package = _PACKAGES.get(self._scheme, f"the package that fsspec names: {error}")
            raise StoreError(
                f"--weights {self.location}: a package is missing ({error}). Run `pip install '{package}'`."
            ) from error
        except ValueError as error:
            raise StoreError(
                f"--weights {self.location}: expected a folder, or a URL such as s3://bucket/prefix: {error}."
            ) from error
        return system, str(root).rstrip("/")

    def _path(self, digest: str) -> tuple[Any, str]:
        system, root = self._open()
        return system, f"{root}/{blob_name(digest)}"

    def put(self, content: bytes) -> str:
        """Keep the content and return its digest; one that is there already is written again, so that it is new.

        Raises:
            StoreError: The store cannot be reached or written.
        """
        digest = hashlib.sha256(content).hexdigest()
        system, path = self._path(digest)
        try:
            self._patiently(f"{digest[:12]}… cannot be written", lambda: self._upload(system, path, content))
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.location}: the weights cannot be written: {error}. Make the bucket, or name another store."
            ) from error
        self._keep(content)
        return digest

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """Keep several contents and return their digests, several at once.

        Raises:
            StoreError: The store cannot be reached or written.
        """
        return at_once(self.put, contents)

    def _upload(self, system: Any, path: str, content: bytes) -> None:
        if self._scheme in _WHOLE_PUTS:
            system.pipe_file(path, content)
            return
        folder, _, _ = path.rpartition("/")
        system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}"
        try:
            system.pipe_file(temporary, content)
            system.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(temporary)
            raise

    def get(self, digest: str) -> bytes:
        """Return the content of a digest: this machine's copy, or fetched, and then copied here.

        Raises:
            BlobError: There is none, or it is damaged.
            StoreError: The store cannot be reached or read.
        """
        with contextlib.suppress(BlobError):  # None, or damaged and now set aside.
            return self._cache.get(digest)
        content = self._fetch(digest)
        self._keep(content)
        return content

    def check(self, digest: str) -> None:
        """Read a blob where it is kept, past this machine's copy, and change nothing.

        Raises:
            BlobError: There is none, or it is damaged.
            StoreError: The store cannot be reached or read.
        """
        self._fetch(digest)

    def _fetch(self, digest: str) -> bytes:
        system, path = self._path(digest)
        where = f"{self.location}/{blob_name(digest)}"
        found = ""
        for _ in range(2):  # Once more, should it have been damaged on its way.
            try:
                content = self._patiently(f"{digest[:12]}… cannot be read", lambda: bytes(system.cat_file(path)))
            except FileNotFoundError as error:
                raise BlobError(digest, f"{where}: the weight blob is missing.") from error
            found = hashlib.sha256(content).hexdigest()
            if found == digest:
                return content
        raise BlobError(digest, f"{where}: the weight blob is damaged: its SHA-256 is {found[:12]}….")

    def __contains__(self, digest: str) -> bool:
        system, path = self._path(digest)
        return bool(self._patiently(f"{digest[:12]}… cannot be looked for", lambda: system.exists(path)))

    def stored(self) -> Iterator[StoredFile]:
        """Yield the blobs, and what was left over; files that are not of a store are passed over.

        Raises:
            StoreError: The store cannot be reached or read.
        """
        system, root = self._open()

        def list_all() -> dict[str, Any]:
            system.invalidate_cache()
            return dict(system.find(root, detail=True))

        try:
            found = self._patiently("cannot be listed", list_all)
        except FileNotFoundError:
            return
        for path, facts in sorted(found.items()):
            name = path[len(root) :].lstrip("/")
            is_ours, digest = read_name(name)
            if is_ours:
                given = next((facts[key] for key in _TIMES if facts.get(key) is not None), None)
                modified = _seconds(system.modified(path) if given is None else given)
                yield StoredFile(name, digest, int(facts["size"]), modified)

    def remove(self, file: StoredFile, *, before: float) -> bool:
        """Remove a file if it is still older than a time; return whether it was.

        A writer that puts the same blob again between the last look and the removal loses it: object stores have
        nothing that tells the two apart. It keeps a copy on its machine, which `fsck --repair` puts back.

        Raises:
            StoreError: The store cannot be reached or written.
        """
        system, root = self._open()
        path = f"{root}/{file.name}"

        def remove() -> bool:
            system.invalidate_cache()
            if _seconds(system.modified(path)) >= before:
                return False
            system.rm_file(path)
            return True

        try:
            return self._patiently(f"{file.name} cannot be removed", remove)
        except FileNotFoundError:
            return False

    def _keep(self, content: bytes) -> None:
        """Copy a blob to this machine; without room for it the search goes on, and fetches more."""
        try:
            self._cache.put(content)
        except HomeError as error:
            if not self._is_cache_broken:
                _log.warning("No copies of weights are kept on this machine: %s", error)
            self._is_cache_broken = True

    def _patiently(self, what: str, call: Callable[[], _Result]) -> _Result:
        """Call until it works, while what goes wrong may pass.

        Raises:
            FileNotFoundError: There is no such object.
            StoreError: It does not pass, or has not in time.
        """
        deadline = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except FileNotFoundError:
                raise
            except Exception as error:
                if not _may_pass(error) or time.monotonic() + pause > deadline:
                    raise StoreError(
                        f"{self.location}: {what}: {type(error).__name__}: {error}. Is the store running, and are "
                        "its name, endpoint and credentials right? What was acknowledged is kept; the same command "
                        "goes on."
                    ) from error
                _log.info("%s: %s (%s); trying again.", self.location, what, error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING) and error.errno not in _LASTING_NUMBERS
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return not names.isdisjoint(_PASSING)


def _seconds(given: datetime | float | str) -> float:
    """Return a time as seconds since 1970, in whole microseconds; one without a zone is UTC.

    A listing may give seconds, and a look at the same file a datetime: they must not differ by what that rounds off.
    """
    if isinstance(given, int | float):
        return datetime.fromtimestamp(given, UTC).timestamp()
    moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
