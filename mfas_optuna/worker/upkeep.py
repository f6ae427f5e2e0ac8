"""Looking after what is stored: `fsck` finds what is wrong with a study, `gc` removes what nothing refers to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.audit import (
    Audit,
    Swept,
    audit,
    partial_work,
    references,
    references_of_home,
    silence_s,
    sweep,
    sweep_folders,
)
from mfas_optuna.errors import BlobError, StorageError, StudyMismatchError
from mfas_optuna.prepare import blob_store, cache_folder, weights_folder
from mfas_optuna.registry.blobs import BlobStore, FolderBlobStore
from mfas_optuna.registry.remote import RemoteBlobStore
from mfas_optuna.spec import differences
from mfas_optuna.worker.request import Listener, SearchRequest

GC_GRACE_S = 86_400.0
"""Seconds for which what nothing refers to is kept: longer than any group of trials, or final training, takes."""


@dataclass(frozen=True, slots=True)
class FsckOutcome:
    """What was found.

    Attributes:
        study_name: Which study.
        store: Where its weights are.
        audit: Problems, those that were repaired left out.
        repaired: Digests of the blobs that were put back.
    """

    study_name: str
    store: str
    audit: Audit
    repaired: list[str]


@dataclass(frozen=True, slots=True)
class GcOutcome:
    """What was removed, or would be.

    Attributes:
        studies: Names of the studies that were looked at, each with its database.
        store: Where the weights are.
        swept: What was removed there, in the copies of a store behind a URL, and in the home.
        is_dry_run: Whether all of it is still there.
    """

    studies: list[tuple[str, str]]
    store: str
    swept: Swept
    is_dry_run: bool


def fsck(
    request: SearchRequest, listener: Listener, *, grace_s: float | None = None, repair: bool = False
) -> FsckOutcome:
    """Check everything that a study refers to; all problems at once.

    Args:
        request: Which study.
        listener: Told how far it is.
        grace_s: Seconds of silence after which a worker is taken for dead; trials RUNNING past twice that are named.
            None: the request's.
        repair: Put back blobs of which this machine has a copy. Nothing else is changed.

    Raises:
        MfasError: The study cannot be read; the message says what to do.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database.check_exists(request.storage_url)
    with database.clear_errors(request.storage_url):
        opened = database.open_storage(request.storage_url)
        study = database.load_study(opened, request.study_name)
        stored = records.read_scientific(study)
        if stored is None:
            raise StorageError(
                f"Study {request.study_name!r} in this database was not begun by mfas-optuna. Choose another --name."
            )
        changed = list(differences(stored, request.spec.scientific()))
        if changed:
            raise StudyMismatchError(
                f"Study {request.study_name!r} was begun with other settings:\n  " + "\n  ".join(changed) + "\nName "
                "the study file that it was begun with.",
                changed,
            )
        name = finals.final_name(request.study_name)
        final = database.load_study(opened, name) if name in optuna.get_all_study_names(opened) else None
        store = blob_store(request.home, request.weights)

        def look() -> Audit:
            return audit(
                study,
                final,
                request.spec,
                store,
                request.home,
                rebuild_command=request.rebuild_command,
                grace_s=request.grace_s if grace_s is None else grace_s,
                silence=_silence(opened, study),
                progress=listener.progress,
            )

        found = look()
        repaired = _repair(store, request.home, found.unsound) if repair else []
        return FsckOutcome(request.study_name, store.location, look() if repaired else found, repaired)


def _silence(opened: database.BatchStorage, study: optuna.Study) -> Callable[[FrozenTrial], float]:
    """Return what gives the seconds since a running trial's worker has written that it lives.

    One of this host that has ended, and one without a lease, are judged by their trial.
    """
    ages = {lease.worker: lease.age_s for lease in database.read_leases(opened, study._study_id)}

    def silence(trial: FrozenTrial) -> float:
        worker = records.read_worker(trial.system_attrs)
        if worker is None or worker not in ages or database.is_dead(worker):
            return silence_s(trial)
        return ages[worker]

    return silence


def _repair(store: BlobStore, home: Path, unsound: Sequence[str]) -> list[str]:
    """Put back blobs of which this machine has a sound copy, and return their digests."""
    copies = [FolderBlobStore(folder) for folder in (cache_folder(home), weights_folder(home))]
    repaired = []
    for digest in unsound:
        for copy in copies:
            if copy.location == store.location or digest not in copy:
                continue
            try:
                store.put(copy.get(digest))
            except BlobError:
                continue
            repaired.append(digest)
            break
    return repaired


def collect_garbage(
    storage_urls: Sequence[str],
    home: Path,
    weights: str | None,
    *,
    grace_s: float = GC_GRACE_S,
    dry_run: bool = False,
) -> GcOutcome:
    """Remove what no study of some databases refers to and nobody has put for a while; safe while workers run.

    Args:
        storage_urls: Every database whose studies keep weights in the store: it cannot know of others.
        home: The home folder.
        weights: Folder or URL of the weights; None: in the home folder.
        grace_s: Seconds for which what nothing refers to is kept.
        dry_run: Remove nothing.

    Raises:
        StorageError: A database is missing, cannot be read, or holds no study of this program.
        MfasError: The store or the home cannot be read or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    before = time.time() - grace_s
    referenced, final, looked_at = references_of_home(home), [], []
    for url in storage_urls:
        database.check_exists(url)
        with database.clear_errors(url):
            opened = database.open_storage(url)
            studies = [
                optuna.load_study(study_name=name, storage=opened) for name in optuna.get_all_study_names(opened)
            ]
            if all(records.read_scientific(study) is None for study in studies):
                raise StorageError(
                    f"{database.masked(url)}: it holds no study of mfas-optuna, so that all weights would count as "
                    "unused. Name the database of the studies with --storage."
                )
            for study in studies:
                referenced |= references(study)
                looked_at.append((study.study_name, database.masked(url)))
                if study.study_name.endswith(finals.SUFFIX):
                    final.append(study)
            kept_work = list(partial_work(home, final))
    store = blob_store(home, weights)
    stores = [store]
    if isinstance(store, RemoteBlobStore):  # Copies can be fetched again; those of blobs that are in use stay.
        stores.append(FolderBlobStore(cache_folder(home)))
    swept = [sweep(each, referenced, before=before, dry_run=dry_run) for each in stores]
    swept.append(sweep_folders(home, kept_work, before=before, dry_run=dry_run))
    together = Swept(
        [removed for part in swept for removed in part.removed],
        swept[0].n_referenced,
        sum(part.n_young for part in swept),
    )
    return GcOutcome(looked_at, store.location, together, dry_run)
