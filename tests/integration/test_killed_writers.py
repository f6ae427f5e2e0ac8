"""Blobs whose writers are killed at any moment, on an S3 server and in a folder: every key that is there is whole."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mfas_optuna.audit import sweep
from mfas_optuna.errors import BlobError, StoreError
from mfas_optuna.prepare import blob_store, cache_folder
from mfas_optuna.registry.blobs import BlobStore, FolderBlobStore, StoredFile
from mfas_optuna.registry.remote import RemoteBlobStore
from tests.s3 import S3Server, free_port, s3_server

N_KILLS = int(os.environ.get("MFAS_KILLS", "20"))
"""Writers killed in each test; more of them take longer and show more."""


def write_on_and_on(
    weights: str, home: Path, seed: int, size: int, acknowledged: Connection, environment: dict[str, str]
) -> None:
    """Put blobs, eight at once, until killed, and tell the digest of each that is kept."""
    os.environ.update(environment)  # That of the server that forks may be older.
    store = blob_store(home, weights)
    for turn in itertools.count():
        for digest in store.put_all([f"{seed} {turn} {number} ".encode() * (size // 10) for number in range(8)]):
            acknowledged.send_bytes(digest.encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as running:
        yield running


@pytest.fixture
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    return server.environment


@pytest.fixture
def url(environment: dict[str, str], request: pytest.FixtureRequest) -> str:
    import s3fs

    bucket = f"b{abs(hash(request.node.name))}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/weights"


def test_there_and_back(url: str, tmp_path: Path) -> None:
    store, other = blob_store(tmp_path / "one", url), blob_store(tmp_path / "other", url)
    contents = [bytes([number]) * 10_000 for number in range(20)]
    digests = store.put_all(contents)
    assert [other.get(digest) for digest in digests] == contents
    assert {file.digest for file in other.stored()} == set(digests)
    (first, *_) = store.stored()
    assert not other.remove(first, before=first.modified - 1)
    assert other.remove(first, before=first.modified + 2)
    assert first.digest not in store
    with pytest.raises(BlobError, match="missing"):
        store.check(str(first.digest))
    assert store.get(str(first.digest)) in contents  # This machine has its copy.
    time.sleep(1.1)  # S3 tells seconds.
    store.put(contents[0])
    assert max(file.modified for file in store.stored()) > first.modified


def test_a_large_blob_goes_in_parts(url: str, tmp_path: Path) -> None:
    store = blob_store(tmp_path / "one", url)
    content = bytes(101 * 2**20)
    digest = store.put(content)
    assert blob_store(tmp_path / "other", url).get(digest) == content


def test_without_a_bucket_or_a_server(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = blob_store(tmp_path, "s3://no-such-bucket/weights")
    with pytest.raises(StoreError, match="Make the bucket"):
        store.put(b"x")
    with pytest.raises(BlobError, match="missing"):
        store.get("0" * 64)
    assert list(store.stored()) == []
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    away = RemoteBlobStore("s3://bucket/weights", FolderBlobStore(tmp_path / "cache"), patience_s=0.5)
    with pytest.raises(StoreError, match="Is the store running"):
        away.put(b"x")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("size", [2_000, 400_000])
def test_writers_to_s3_that_are_killed_leave_nothing_torn(url: str, tmp_path: Path, size: int) -> None:
    assert kill_writers(url, tmp_path, size) == []


@pytest.mark.parametrize("size", [2_000, 400_000])
def test_writers_to_a_folder_that_are_killed_leave_nothing_torn(tmp_path: Path, size: int) -> None:
    weights = tmp_path / "weights"
    left = kill_writers(str(weights), tmp_path, size)
    assert all(Path(file.name).name.startswith(".tmp-") for file in left)
    swept = sweep(FolderBlobStore(weights), set(), before=time.time() + 1, dry_run=False)
    assert sum(kind == "left over" for kind, _, _ in swept.removed) == len(left)
    assert not [path for path in weights.rglob("*") if path.is_file()]


def kill_writers(weights: str, folder: Path, size: int) -> list[StoredFile]:
    """Kill writers between and during writes; what they acknowledged is there, and whatever is there is whole.

    Returns:
        What is there besides blobs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.test_killed_writers", "s3fs"])
    moments = random.Random(size)
    acknowledged: set[str] = set()
    for kill in range(N_KILLS):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (weights, folder / f"home-{kill % 3}", kill, size, theirs, dict(os.environ))
        writer = context.Process(target=write_on_and_on, args=arguments)
        writer.start()
        theirs.close()
        acknowledged.add(ours.recv_bytes().decode())
        time.sleep(moments.uniform(0.0, 0.2))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        with contextlib.suppress(EOFError):
            while True:
                acknowledged.add(ours.recv_bytes().decode())
        ours.close()
    store = blob_store(folder / "reader", weights)
    stored = list(store.stored())
    found = {file.digest for file in stored if file.digest is not None}
    assert len(acknowledged) >= N_KILLS
    assert acknowledged <= found
    _check_all(store, found)
    for kill in range(3):  # And no copy that a killed writer left on its machine is torn.
        cache = FolderBlobStore(cache_folder(folder / f"home-{kill}"))
        _check_all(cache, {file.digest for file in cache.stored() if file.digest is not None})
    return [file for file in stored if file.digest is None]


def _check_all(store: BlobStore, digests: set[str]) -> None:
    torn = []
    for digest in sorted(digests):
        try:
            store.check(digest)
        except BlobError as error:
            torn.append(str(error))
    assert torn == []
