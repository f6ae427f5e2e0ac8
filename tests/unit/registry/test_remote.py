"""Blobs behind a URL: the same promises as in a folder, and patience with what passes."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from torch import nn

from mfas_optuna.errors import BlobError, StoreError
from mfas_optuna.prepare import blob_store
from mfas_optuna.registry import remote
from mfas_optuna.registry.blobs import FolderBlobStore, blob_name
from mfas_optuna.registry.key import WeightKey
from mfas_optuna.registry.lineage import warm_start
from mfas_optuna.registry.remote import RemoteBlobStore

CONTENT = b"some weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class SlowFiles(LocalFileSystem):  # type: ignore[misc]
    """A file system without whole-object puts, as SFTP is one."""

    protocol = ("slow",)
    fails: ClassVar[list[Exception]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return LocalFileSystem._strip_protocol(str(path).removeprefix("slow://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if self.fails:
            LocalFileSystem.pipe_file(self, path, value[: len(value) // 2])
            raise self.fails.pop()
        LocalFileSystem.pipe_file(self, path, value, mode, **options)


fsspec.register_implementation("slow", SlowFiles, clobber=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "_FIRST_PAUSE_S", 0.001)
    yield
    SlowFiles.fails.clear()


@pytest.fixture(params=["memory", "slow"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}/weights" if request.param == "memory" else f"slow://{tmp_path}/far"


@pytest.fixture
def cache(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path / "cache")


@pytest.fixture
def store(url: str, cache: FolderBlobStore) -> RemoteBlobStore:
    return RemoteBlobStore(url, cache, patience_s=0.2)


def spoil(url: str, content: bytes) -> None:
    system, root = fsspec.core.url_to_fs(url)
    with system.open(f"{root}/{blob_name(DIGEST)}", "wb") as file:
        file.write(content)


def test_there_and_back_on_another_machine(url: str, store: RemoteBlobStore, tmp_path: Path) -> None:
    assert DIGEST not in store
    assert store.put(CONTENT) == DIGEST
    assert DIGEST in store
    other = RemoteBlobStore(url, FolderBlobStore(tmp_path / "other"))
    assert other.get(DIGEST) == CONTENT
    contents = [bytes([number % 7]) * 100 for number in range(40)]
    assert store.put_all(contents) == [hashlib.sha256(content).hexdigest() for content in contents]
    assert [other.get(hashlib.sha256(content).hexdigest()) for content in contents] == contents
    assert store.put_all([]) == []
    assert len(list(store.stored())) == 8
    assert {(file.digest, file.n_bytes) for file in store.stored() if file.n_bytes != 100} == {(DIGEST, len(CONTENT))}


def test_a_blob_is_fetched_once(url: str, store: RemoteBlobStore, cache: FolderBlobStore, tmp_path: Path) -> None:
    RemoteBlobStore(url, FolderBlobStore(tmp_path / "other")).put(CONTENT)
    assert store.get(DIGEST) == CONTENT
    spoil(url, b"gone")
    assert store.get(DIGEST) == CONTENT
    with pytest.raises(BlobError, match="damaged"):
        store.check(DIGEST)  # What is asked is the store, not the copy.
    cache.path(DIGEST).write_bytes(b"flipped")
    with pytest.raises(BlobError, match="damaged"):
        store.get(DIGEST)
    store.put(CONTENT)
    store.check(DIGEST)


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"S", b""])
def test_a_damaged_copy_is_fetched_again(store: RemoteBlobStore, cache: FolderBlobStore, damaged: bytes) -> None:
    store.put(CONTENT)
    cache.path(DIGEST).write_bytes(damaged)
    assert store.get(DIGEST) == CONTENT
    assert cache.get(DIGEST) == CONTENT


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"S", b""])
def test_a_damaged_blob_is_named(url: str, store: RemoteBlobStore, cache: FolderBlobStore, damaged: bytes) -> None:
    store.put(CONTENT)
    cache.path(DIGEST).unlink()
    spoil(url, damaged)
    with pytest.raises(BlobError, match=f"{blob_name(DIGEST)}: the weight blob is damaged: its SHA-256 is"):
        store.get(DIGEST)


def test_a_missing_or_impossible_digest(store: RemoteBlobStore) -> None:
    with pytest.raises(BlobError, match="missing"):
        store.get("0" * 64)
    with pytest.raises(BlobError, match="64 hex digits"):
        store.get("../../etc/passwd")
    assert list(store.stored()) == []


def test_a_machine_without_room_for_copies_goes_on(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = RemoteBlobStore(url, FolderBlobStore(tmp_path / "file" / "cache"))
    store.put(CONTENT)
    assert store.get(DIGEST) == CONTENT
    assert len([record for record in caplog.records if "No copies" in record.message]) == 1


def test_what_passes_is_tried_again(tmp_path: Path, cache: FolderBlobStore) -> None:
    store = RemoteBlobStore(f"slow://{tmp_path}/far", cache)
    SlowFiles.fails.extend([ConnectionResetError("reset"), TimeoutError("slow"), OSError(5, "I/O error")])
    store.put(CONTENT)
    store.check(DIGEST)
    assert [file.digest for file in store.stored()] == [DIGEST]  # What was written by half is gone.


def test_a_store_that_is_away_is_no_missing_version(
    tmp_path: Path, cache: FolderBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial must not silently start from older weights because the network was down for a moment."""

    def refuse(*_: object) -> None:
        raise ConnectionResetError("reset")

    monkeypatch.setattr(SlowFiles, "cat_file", refuse)
    store = RemoteBlobStore(f"slow://{tmp_path}/far", cache, patience_s=0.02)
    key = WeightKey(0, 3, 2)
    with pytest.raises(StoreError, match="cannot be read: ConnectionResetError"):
        warm_start([nn.Linear(3, 2)], [key], {key: [DIGEST]}, store)


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(28, "No space left on device")])
def test_what_does_not_pass_is_told_at_once(tmp_path: Path, cache: FolderBlobStore, error: OSError) -> None:
    store = RemoteBlobStore(f"slow://{tmp_path}/far", cache)
    SlowFiles.fails.append(error)
    with pytest.raises(StoreError, match=f"cannot be written: {type(error).__name__}.*the same command goes on"):
        store.put(CONTENT)
    assert SlowFiles.fails == []
    assert DIGEST not in store
    assert list(store.stored()) == []


def test_patience_ends(tmp_path: Path, cache: FolderBlobStore) -> None:
    store = RemoteBlobStore(f"slow://{tmp_path}/far", cache, patience_s=0.02)
    SlowFiles.fails.extend([ConnectionResetError("reset")] * 1000)
    with pytest.raises(StoreError, match="Is the store running"):
        store.put(CONTENT)


def test_errors_of_the_packages_that_pass() -> None:
    from aiohttp import ClientPayloadError
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    assert remote._may_pass(EndpointConnectionError(endpoint_url="x"))
    assert remote._may_pass(ClientPayloadError("cut"))
    assert not remote._may_pass(NoCredentialsError())
    assert not remote._may_pass(ValueError("a fault of the program"))


def test_an_old_blob_is_removed_and_a_new_one_is_not(url: str, store: RemoteBlobStore) -> None:
    store.put(CONTENT)
    (file,) = store.stored()
    assert not store.remove(file, before=file.modified - 1.0)
    assert DIGEST in store
    assert store.remove(file, before=file.modified + 1.0)
    assert DIGEST not in store
    assert not store.remove(file, before=file.modified + 1.0)


def test_a_blob_that_was_put_again_is_not_removed(url: str, store: RemoteBlobStore) -> None:
    store.put(CONTENT)
    (file,) = store.stored()
    time.sleep(0.02)  # Longer than what file systems tell apart.
    store.put(CONTENT)
    (again,) = store.stored()
    assert again.modified > file.modified
    assert not store.remove(file, before=again.modified)
    assert DIGEST in store


def test_foreign_files_are_passed_over(tmp_path: Path, cache: FolderBlobStore) -> None:
    store = RemoteBlobStore(f"slow://{tmp_path}/far", cache)
    store.put(CONTENT)
    folder = tmp_path / "far" / DIGEST[:2]
    for name in ("notes.txt", ".tmp-1", f"{'0' * 64}.safetensors", f"{DIGEST}.safetensors.damaged"):
        (folder / name).write_bytes(b"x")
    found = {Path(file.name).name: file.digest for file in store.stored()}
    assert found == {f"{DIGEST}.safetensors": DIGEST, ".tmp-1": None, f"{DIGEST}.safetensors.damaged": None}


@pytest.mark.parametrize(
    ("location", "message"),
    [("gs://bucket/x", r"a package is missing.*pip install 'gcsfs'"), ("nonsense://x", "expected a folder, or a URL")],
)
def test_a_url_that_cannot_be_opened(location: str, message: str, cache: FolderBlobStore) -> None:
    with pytest.raises(StoreError, match=message):
        RemoteBlobStore(location, cache)


def test_a_password_is_not_shown(cache: FolderBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteBlobStore, "_open", lambda store: (MemoryFileSystem(), "x"))
    store = RemoteBlobStore("sftp://me:secret@host:22/weights/", cache)
    assert store.location == "sftp://me:***@host:22/weights"


def test_which_store_a_request_uses(tmp_path: Path) -> None:
    at_home, elsewhere, as_url = (
        blob_store(tmp_path, weights) for weights in (None, str(tmp_path / "shared"), f"file://{tmp_path}/a%20b")
    )
    assert at_home.location == str(tmp_path / "weights")
    assert elsewhere.location == str(tmp_path / "shared")
    assert as_url.location == str(tmp_path / "a b")
    remotely = blob_store(tmp_path, "memory://here/weights")
    assert isinstance(remotely, RemoteBlobStore)
    remotely.put(CONTENT)
    assert FolderBlobStore(tmp_path / "weights-cache").get(DIGEST) == CONTENT


def test_a_listing_and_a_look_agree_on_the_time_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    system = LocalFileSystem()
    for nanoseconds in range(0, 3000, 100):
        os.utime(file, ns=(0, 1_790_000_000_123_456_000 + nanoseconds))
        assert remote._seconds(system.info(file)["mtime"]) == remote._seconds(system.modified(file))
