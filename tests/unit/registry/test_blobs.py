"""Weight blobs: equal bytes under one name, whole or not at all, checked at each read, safe for many processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mfas_optuna.errors import BlobError, HomeError
from mfas_optuna.registry.blobs import FolderBlobStore, StoredFile, decode_layer, encode_layer


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(4, 6, generator=generator), "bias": torch.randn(4, generator=generator)}


@pytest.fixture
def store(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path / "weights")


def test_there_and_back(store: FolderBlobStore) -> None:
    digest = store.put(encode_layer(state()))
    assert digest in store
    decoded = decode_layer(store.get(digest))
    assert decoded.keys() == {"weight", "bias"}
    assert all(torch.equal(decoded[name], tensor) for name, tensor in state().items())
    assert store.path(digest) == store.folder / digest[:2] / f"{digest}.safetensors"


def test_equal_weights_are_equal_bytes_in_any_process(store: FolderBlobStore) -> None:
    turned = dict(reversed(state().items()))
    transposed = {name: tensor.t().contiguous().t() for name, tensor in state().items()}
    digests = {hashlib.sha256(encode_layer(each)).hexdigest() for each in (state(), turned, transposed)}
    program = (
        "import hashlib; from tests.unit.registry.test_blobs import *;"
        "print(hashlib.sha256(encode_layer(state())).hexdigest())"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        root = Path(__file__).parents[3]
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, check=True
        )
        digests.add(result.stdout.decode().strip())
    assert len(digests) == 1


def test_a_second_put_changes_nothing_but_the_time(store: FolderBlobStore) -> None:
    content = encode_layer(state())
    path = store.path(store.put(content))
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    store.put(content)
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > 1


def test_files_are_readable_by_the_group(store: FolderBlobStore) -> None:
    before = os.umask(0o022)
    try:
        path = store.path(store.put(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
def test_a_damaged_blob_is_refused_set_aside_and_can_be_written_again(store: FolderBlobStore, damage: str) -> None:
    content = encode_layer(state())
    digest = store.put(content)
    path = store.path(digest)
    spoilt = {"flipped": content[:-1] + bytes([content[-1] ^ 1]), "truncated": content[:-3], "emptied": b""}[damage]
    path.write_bytes(spoilt)
    with pytest.raises(BlobError, match="damaged") as raised:
        store.get(digest)
    assert raised.value.digest == digest
    assert path.with_name(path.name + ".damaged").read_bytes() == spoilt
    assert store.put(content) == digest
    assert store.get(digest) == content


def test_a_put_over_a_damaged_blob_mends_it(store: FolderBlobStore) -> None:
    content = encode_layer(state())
    digest = store.put(content)
    store.path(digest).write_bytes(bytes(len(content)))
    store.put(content)
    assert store.get(digest) == content


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd", "ABC"])
def test_a_missing_or_impossible_digest(store: FolderBlobStore, digest: str) -> None:
    with pytest.raises(BlobError):
        store.get(digest)


def test_bytes_that_are_no_safetensors(store: FolderBlobStore) -> None:
    with pytest.raises(BlobError, match="not a safetensors file"):
        decode_layer(store.get(store.put(b"something else")))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HomeError, match="cannot be written"):
        FolderBlobStore(tmp_path / "file" / "weights").put(b"x")


def test_a_failure_in_the_middle_leaves_no_file(store: FolderBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeError, match="No space left"):
        store.put(b"x")
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def put_and_get(folder: Path, n: int) -> int:
    """Write and read the same blobs over and over; return how many were read whole."""
    store, n_read = FolderBlobStore(folder), 0
    for turn in range(n):
        content = bytes([turn % 5]) * 200_000
        digest = store.put(content)
        n_read += store.get(digest) == content
    return n_read


def test_many_processes_never_see_half_a_blob(store: FolderBlobStore) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        assert pool.starmap(put_and_get, [(store.folder, 25)] * 4) == [25] * 4
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert all(path.suffix == ".safetensors" for path in files)


def test_several_are_kept_at_once(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    contents = [bytes([number % 7]) * 100 for number in range(40)]  # Some of them equal.
    digests = store.put_all(contents)
    assert digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert [store.get(digest) for digest in digests] == contents
    assert len(list(tmp_path.rglob("*.safetensors"))) == 7
    assert not list(tmp_path.rglob(".tmp-*"))
    assert store.put_all([]) == []


# Removal.


@pytest.fixture
def old(store: FolderBlobStore) -> StoredFile:
    """A blob that was last put in 1970."""
    path = store.path(store.put(b"old"))
    os.utime(path, (1, 1))
    (file,) = store.stored()
    return file


def test_what_is_old_is_removed(store: FolderBlobStore, old: StoredFile) -> None:
    assert old.digest == hashlib.sha256(b"old").hexdigest()
    assert (old.n_bytes, old.modified) == (3, 1.0)
    assert not store.remove(old, before=1.0)
    assert old.digest in store
    assert store.remove(old, before=2.0)
    assert old.digest not in store
    assert not store.remove(old, before=2.0)
    assert list(store.stored()) == []


def test_a_writer_that_comes_between_the_looks_keeps_its_blob(
    store: FolderBlobStore, old: StoredFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It marks the blob after the first look and before the renaming: the moment that a removal by age alone misses."""
    replace = Path.replace

    def put_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        store.put(b"old")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", put_first)
    assert not store.remove(old, before=2.0)
    assert store.get(old.digest or "") == b"old"
    assert [file.digest for file in store.stored()] == [old.digest]


def test_a_writer_that_comes_after_the_renaming_writes_anew(
    store: FolderBlobStore, old: StoredFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def put_first(path: Path, missing_ok: bool = False) -> None:
        monkeypatch.setattr(Path, "unlink", unlink)
        store.put(b"old")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", put_first)
    assert store.remove(old, before=2.0)
    assert store.get(old.digest or "") == b"old"


def test_a_reader_undoes_a_removal_that_was_killed(store: FolderBlobStore, old: StoredFile) -> None:
    path = store.path(old.digest or "")
    aside = path.with_name(path.name + ".removing")
    path.replace(aside)
    assert [(file.name, file.digest) for file in store.stored()] == [(f"{old.name}.removing", None)]
    assert store.get(old.digest or "") == b"old"
    path.replace(aside)
    assert old.digest in store
    path.replace(aside)
    (left,) = store.stored()
    assert store.remove(left, before=2.0)
    assert old.digest not in store


def test_what_was_left_over_is_told_from_what_is_not_ours(store: FolderBlobStore) -> None:
    digest = store.put(b"x")
    folder = store.path(digest).parent
    for name in (".tmp-abc", f"{digest}.safetensors.damaged", "notes.txt", f"{'0' * 64}.safetensors"):
        (folder / name).write_bytes(b"")
    (store.folder / "README").write_bytes(b"")
    found = {Path(file.name).name: file.digest for file in store.stored()}
    assert found == {".tmp-abc": None, f"{digest}.safetensors.damaged": None, f"{digest}.safetensors": digest}


def test_a_check_changes_nothing(store: FolderBlobStore) -> None:
    digest = store.put(b"x")
    store.check(digest)
    store.path(digest).write_bytes(b"y")
    with pytest.raises(BlobError, match="damaged: its SHA-256 is"):
        store.check(digest)
    assert store.path(digest).read_bytes() == b"y"
    with pytest.raises(BlobError, match="missing"):
        store.check("0" * 64)


def test_a_folder_that_can_only_be_read(
    store: FolderBlobStore, old: StoredFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the system says then: tests may run as root, who can write everywhere."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(HomeError, match="cannot be written: Read-only file system"):
        store.put(b"new")
    with pytest.raises(HomeError, match="cannot be removed: Read-only file system"):
        store.remove(old, before=2.0)
    assert store.get(old.digest or "") == b"old"
    store.path(old.digest or "").write_bytes(b"spoilt")
    with pytest.raises(BlobError, match="damaged"):
        store.get(old.digest or "")


# File systems that are full or read-only, where this machine allows mounting them.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_file_system_keeps_what_it_has(small: Path) -> None:
    store = FolderBlobStore(small / "weights")
    contents = [bytes([number]) * 50_000 for number in range(8)]
    with pytest.raises(HomeError, match=r"No space left on device\. Free space"):
        store.put_all(contents)
    kept = [file.digest for file in store.stored()]
    assert 0 < len(kept) < len(contents)
    assert None not in kept  # Nothing is left of what had no room.
    for digest in kept:
        store.check(str(digest))
    store.path(str(kept[0])).unlink()
    store.path(str(kept[1])).unlink()
    assert store.get(store.put(b"x" * 50_000)) == b"x" * 50_000


def test_a_read_only_file_system_is_named_and_read(small: Path) -> None:
    store = FolderBlobStore(small / "weights")
    digest = store.put(b"there")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(HomeError, match=r"Read-only file system\. Free space or mend it"):
        store.put(b"new")
    with pytest.raises(HomeError, match="Read-only file system"):
        store.put(b"there")  # It cannot be marked as used, so that it could be removed meanwhile.
    assert store.get(digest) == b"there"
    (file,) = store.stored()
    with pytest.raises(HomeError, match="cannot be removed: Read-only file system"):
        store.remove(file, before=file.modified + 1)
