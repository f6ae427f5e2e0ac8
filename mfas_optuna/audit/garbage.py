"""What nothing refers to any more: blobs, and what interrupted work has left."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState

from mfas_optuna import finals
from mfas_optuna.errors import HomeError
from mfas_optuna.prepare import partial_folder
from mfas_optuna.registry.blobs import BlobStore

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_PARTIAL = ".partial-"

What = Literal["blob", "left over", "partial work"]


@dataclass
class Swept:
    """What was removed, or would be.

    Attributes:
        removed: Kind, name and bytes of each.
        n_referenced: Blobs that something refers to.
        n_young: Files that nothing refers to, within the grace.
    """

    removed: list[tuple[What, str, int]] = field(default_factory=list)
    n_referenced: int = 0
    n_young: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all that was removed."""
        return sum(n_bytes for _, _, n_bytes in self.removed)


def references(study: optuna.Study) -> set[str]:
    """Return every digest that a study or a trial of it refers to; trials that failed refer to nothing.

    Whatever looks like a digest counts, so that records which are added later do too.
    """
    found = set(_DIGEST.findall(repr(study.user_attrs)))
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL:
            found.update(_DIGEST.findall(repr((trial.user_attrs, trial.system_attrs))))
    return found


def references_of_home(home: Path) -> set[str]:
    """Return the digests of the backbones that were trained in a home; no study need have used them yet."""
    found: set[str] = set()
    for index in (home / "backbones").glob("*.json"):
        with contextlib.suppress(OSError):
            found.update(_DIGEST.findall(index.read_text(encoding="utf-8", errors="replace")))
    return found


def sweep(store: BlobStore, referenced: set[str], *, before: float, dry_run: bool) -> Swept:
    """Remove what is in a store, nothing refers to and was last put before a time; safe while workers run.

    Args:
        store: Where.
        referenced: Digests that are kept.
        before: Seconds since 1970; each file's time is looked at again when it is removed.
        dry_run: Remove nothing.

    Raises:
        HomeError: The folder cannot be written.
        StoreError: The store cannot be reached or written.
    """
    swept = Swept()
    for file in store.stored():
        if file.digest in referenced:
            swept.n_referenced += 1
        elif file.modified >= before:
            swept.n_young += 1
        elif dry_run or store.remove(file, before=before):
            swept.removed.append(("left over" if file.digest is None else "blob", file.name, file.n_bytes))
    return swept


def partial_work(home: Path, final: Iterable[optuna.Study]) -> Iterator[Path]:
    """Yield what was kept of work that is done: checkpoints of stored trainings, rows of finished features.

    Args:
        home: The home folder.
        final: The studies of final trainings.
    """
    for study in final:
        folder = partial_folder(home, study.study_name.removesuffix(finals.SUFFIX))
        for training in finals.read(study):
            path = folder / training.training.key[:16]
            if path.is_dir():
                yield path
    backbones, features = home / "backbones", home / "features"
    for path in sorted(backbones.glob(f"{_PARTIAL}*")):
        if (backbones / f"{path.name.removeprefix(_PARTIAL)}.json").is_file():
            yield path
    yield from sorted(backbones.glob(".*.tmp"))
    for path in sorted(features.glob(".*")):
        # Besides rows under way, these are folders that were being written, or replaced.
        if not path.name.startswith(_PARTIAL) or (features / path.name.removeprefix(_PARTIAL)).is_dir():
            yield path


def sweep_folders(home: Path, paths: Iterable[Path], *, before: float, dry_run: bool) -> Swept:
    """Remove files and folders in which nothing was written since a time.

    Raises:
        HomeError: The folder cannot be written.
    """
    swept = Swept()
    for path in paths:
        try:
            files = [path, *path.rglob("*")]
            status = [file.stat() for file in files]
            if max(of_file.st_mtime for of_file in status) >= before:
                swept.n_young += 1
                continue
            n_bytes = sum(of_file.st_size for file, of_file in zip(files, status, strict=True) if file.is_file())
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # Its owner was quicker.
            continue
        except OSError as error:
            raise HomeError(f"{path}: cannot be removed: {error.strerror}. Mend the folder's permissions.") from error
        swept.removed.append(("partial work", path.relative_to(home).as_posix(), n_bytes))
    return swept
