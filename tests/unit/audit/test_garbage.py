"""What nothing refers to goes; what anything refers to, or anybody is about to use, stays."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from mfas_optuna import trials as records
from mfas_optuna.audit import references, sweep
from mfas_optuna.errors import StorageError
from mfas_optuna.finals import FinalTraining
from mfas_optuna.prepare import blob_store
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.worker.upkeep import GcOutcome, collect_garbage

from .conftest import Stored


def collect(stored: Stored, weights: str | None = None, **options: Any) -> GcOutcome:
    return collect_garbage([stored.request.storage_url], stored.home, weights, **options)


def age(folder: Path) -> None:
    """Make everything in a folder as old as can be."""
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (1, 1))


def names(outcome: GcOutcome) -> list[str]:
    return sorted(Path(name).name for _, name, _ in outcome.swept.removed)


def test_everything_that_a_study_refers_to_stays(stored: Stored) -> None:
    before = {file.digest for file in stored.store.stored()}
    age(stored.home)
    unused = stored.store.put(b"of a trial that was killed")
    os.utime(stored.store.path(unused), (1, 1))
    young = stored.store.put(b"of a trial that is under way")
    outcome = collect(stored)
    assert names(outcome) == [f"{unused}.safetensors"]
    assert outcome.swept.n_bytes == len(b"of a trial that was killed")
    assert (outcome.swept.n_referenced, outcome.swept.n_young) == (len(before), 1)
    assert {file.digest for file in stored.store.stored()} == before | {young}
    assert {name for name, _ in outcome.studies} == {"tiny", "tiny-final"}
    assert stored.problems() == []


def test_a_dry_run_removes_nothing(stored: Stored) -> None:
    digest = stored.store.put(b"unused")
    os.utime(stored.store.path(digest), (1, 1))
    assert names(collect(stored, dry_run=True)) == [f"{digest}.safetensors"]
    assert digest in stored.store
    assert names(collect(stored)) == [f"{digest}.safetensors"]


def test_running_trials_refer_to_what_they_recorded_and_failed_ones_to_nothing(stored: Stored) -> None:
    study = stored.study
    running, failed = study.ask(), study.ask()
    running.set_user_attr("some later record", json.dumps({"published": ["a" * 64]}))
    records._set_system(study, running._trial_id, "another", {"deep": ["b" * 64]})
    failed.set_user_attr("weights", "c" * 64)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    found = references(study)
    assert {"a" * 64, "b" * 64} <= found
    assert "c" * 64 not in found


def test_backbones_of_the_home_stay_although_no_study_has_used_them(stored: Stored) -> None:
    digest = stored.store.put(b"a backbone that was prepared")
    (stored.home / "backbones" / "digits-x.json").write_text(json.dumps({"digest": digest}), encoding="utf-8")
    age(stored.home)
    assert names(collect(stored)) == []
    assert digest in stored.store


def test_a_database_without_a_study_of_ours_is_refused(stored: Stored) -> None:
    url = f"sqlite:///{stored.home / 'other.db'}"
    optuna.create_study(study_name="foreign", storage=url)
    age(stored.home)
    with pytest.raises(StorageError, match=r"holds no study of mfas-optuna.*Name the database"):
        collect_garbage([stored.request.storage_url, url], stored.home, None)
    with pytest.raises(StorageError, match="no study database"):
        collect_garbage([f"sqlite:///{stored.home / 'none.db'}"], stored.home, None)
    assert stored.problems() == []


def test_several_databases_that_share_a_store(stored: Stored, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    other = optuna.create_study(study_name="other", storage=url)
    records.write_study(other, scientific={}, fingerprint="x")
    digest = stored.store.put(b"of the other database")
    other.add_trial(optuna.trial.create_trial(value=0.1, user_attrs={"weights": digest}))
    age(stored.home)
    both = collect_garbage([stored.request.storage_url, url], stored.home, None, dry_run=True)
    assert names(both) == []
    assert [name for name, _ in both.studies] == ["tiny", "tiny-final", "other"]
    assert names(collect(stored)) == [f"{digest}.safetensors"]


def test_what_interrupted_work_has_left(stored: Stored) -> None:
    training = FinalTraining("mfas", {"kind": "fusion", "width": 4}, "frozen", {"dropout": 0.0}, 0)
    (backbone, *_) = (stored.home / "backbones").glob("*.json")
    (features,) = (stored.home / "features").iterdir()
    done = [
        stored.home / "final" / "tiny" / training.key[:16],
        stored.home / "backbones" / f".partial-{backbone.stem}",
        stored.home / "features" / f".partial-{features.name}",
        stored.home / "features" / f".{features.name}-abc",
    ]
    under_way = [
        stored.home / "final" / "tiny" / "0123456789abcdef",
        stored.home / "backbones" / ".partial-digits-audio-another",
        stored.home / "features" / ".partial-digits-another",
    ]
    for folder in [*done, *under_way]:
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"12345")
    digest = stored.store.put(b"x")
    for name in (".tmp-abc", f"{digest}.safetensors.damaged"):
        (stored.store.path(digest).parent / name).write_bytes(b"x")
    assert names(collect(stored)) == []  # All of it is young.
    age(stored.home)
    assert len(names(collect(stored))) == len(done) + 3
    assert not any(path.exists() for path in done)
    assert all(path.exists() for path in under_way)
    assert backbone.exists()
    assert stored.problems() == []


def test_a_store_behind_a_url_and_its_copies(stored: Stored, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}{id(tmp_path)}/weights"
    away = blob_store(stored.home, url)
    digests = [away.put(stored.store.get(str(file.digest))) for file in list(stored.store.stored())]
    unused = away.put(b"unused")
    time.sleep(0.01)
    outcome = collect(stored, weights=url, grace_s=0.0)
    assert names(outcome) == [f"{unused}.safetensors"] * 2  # There, and this machine's copy.
    assert outcome.store == url
    assert outcome.swept.n_referenced == len(digests)
    assert stored.problems(weights=url) == []


def test_writers_win_against_collectors(tmp_path: Path) -> None:
    """Blobs are put again just when they are old enough to go; whatever was put is there afterwards."""
    folder = tmp_path / "weights"
    contents = [bytes([number]) * 1000 for number in range(6)]
    ends, is_over = time.monotonic() + 1.5, threading.Event()
    n_removed = 0

    def collect_on_and_on() -> None:
        nonlocal n_removed
        while not is_over.is_set():
            n_removed += len(sweep(FolderBlobStore(folder), set(), before=1_000_000.0, dry_run=False).removed)

    collectors = [threading.Thread(target=collect_on_and_on) for _ in range(2)]
    for collector in collectors:
        collector.start()
    store, lost, n_put = FolderBlobStore(folder), [], 0
    try:
        while time.monotonic() < ends:
            content = contents[n_put % len(contents)]
            digest = store.put(content)
            n_put += 1
            if store.get(digest) != content:
                lost.append(digest)
            os.utime(store.path(digest), (1, 1))  # Prey again.
    finally:
        is_over.set()
        for collector in collectors:
            collector.join()
    assert lost == []
    assert n_put > 20
    assert n_removed > 20
