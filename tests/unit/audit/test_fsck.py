"""Every kind of damage is found, named, and told from what is sound."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.audit import silence_s
from mfas_optuna.errors import StorageError, StudyMismatchError
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.spec import StudySpec
from mfas_optuna.storage import this_worker
from mfas_optuna.trials import WorkerIdentity
from mfas_optuna.worker.upkeep import fsck as run_fsck

from .conftest import VALUES, Silent, Stored


def test_what_a_search_leaves_is_sound(stored: Stored) -> None:
    found = stored.fsck()
    assert found.audit.problems == []
    assert found.repaired == []
    checked = found.audit.checked
    assert checked["complete"] == checked["trials"] == 16
    assert (checked["finals"], checked["features"]) == (1, 1)
    assert checked["blobs"] == len(list(stored.store.stored()))


# Blobs.


@pytest.mark.parametrize("fault", ["missing", "flipped", "truncated"])
@pytest.mark.parametrize("of", ["trial", "backbone", "final"])
def test_blobs(stored: Stored, of: str, fault: str) -> None:
    digest, where = {
        "trial": lambda: (stored.published(15)[0], "trial 15, layer 0"),
        "backbone": lambda: ((records.read_backbones(stored.study) or {})["image"]["digest"], "backbone of image"),
        "final": lambda: (finals.read(stored.final)[0].result.weights, "tiny-final, trial 0"),
    }[of]()
    path = stored.store.path(digest)
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if fault == "flipped" else b""))
    ((kind, text),) = stored.problems()
    assert kind == "blob"
    assert text.startswith(f"{where}: {path}: the weight blob is {'missing' if fault == 'missing' else 'damaged'}")
    assert ("no result is lost" in text) == (of == "trial")
    assert ("mfas-optuna prepare --force" in text) == (of == "backbone")
    assert stored.problems() == [(kind, text)]  # Nothing is changed by looking.


def test_repair_puts_back_copies_of_this_machine(stored: Stored, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}{id(tmp_path)}/weights"
    digests = [str(file.digest) for file in stored.store.stored()]
    cache = FolderBlobStore(stored.home / "weights-cache")
    for digest in digests[:-2]:
        cache.put(stored.store.get(digest))
    stored.store.path(digests[-1]).write_bytes(b"damaged")
    assert len(stored.problems(weights=url)) == len(digests)
    found = stored.fsck(weights=url, repair=True)
    assert found.repaired == [digest for digest in found.repaired if digest != digests[-1]]
    assert set(found.repaired) == set(digests[:-1])  # From the copies, and from the folder that was used before.
    assert [problem.kind for problem in found.audit.problems] == ["blob"]
    assert found.store == url


# Trials.


def test_scores_and_records(stored: Stored) -> None:
    of_trial = "trial_id = (SELECT trial_id FROM trials WHERE study_id = 1 AND number = ?)"
    stored.execute(f"UPDATE trial_values SET value = value + 1 WHERE {of_trial}", 3)
    stored.execute(f"DELETE FROM trial_user_attributes WHERE key = 'torch' AND {of_trial}", 4)
    stored.execute(f"UPDATE trial_user_attributes SET value_json = '\"[]\"' WHERE key = 'weights' AND {of_trial}", 15)
    stored.execute(f"UPDATE trial_user_attributes SET value_json = '\"x\"' WHERE key = 'weights' AND {of_trial}", 14)
    stored.execute(f"UPDATE trial_values SET value_type = 'INF_POS', value = NULL WHERE {of_trial}", 13)
    found = [text for kind, text in stored.problems() if kind == "record"]
    expected = [
        "trial 3: expected its score",
        "trial 4: its record lacks torch.",
        "trial 13: expected a finite score, found inf.",
        "trial 14: the lineage of its weights cannot be read",
        "trial 15: expected weights of 2 layers, found 0.",
    ]
    assert all(any(text.startswith(start) for text in found) for start in expected), found


def test_trials_that_were_added_by_hand_hold_what_they_hold(stored: Stored) -> None:
    stored.study.add_trial(optuna.trial.create_trial(value=0.1))
    assert stored.problems() == []


def test_lineage_of_a_trial_that_does_not_count(stored: Stored) -> None:
    heir = stored.last()
    started = next(layer for layer in records.read_weights(heir.user_attrs) if layer.started_from)
    for trial in stored.study.trials:
        if any(layer.published == started.started_from for layer in records.read_weights(trial.user_attrs)):
            stored.execute("UPDATE trials SET state = 'FAIL' WHERE number = ? AND study_id = 1", trial.number)
    found = stored.problems()
    assert ("lineage", f"trial {heir.number}, layer") in [
        (kind, text[: len(f"trial {heir.number}, layer")]) for kind, text in found
    ]


def test_running_trials(stored: Stored) -> None:
    number = stored.study.ask().number
    assert stored.problems(grace_s=60.0) == []
    stored.execute("UPDATE trials SET datetime_start = datetime('now', '-1 day', 'localtime') WHERE state = 'RUNNING'")
    ((kind, text),) = stored.problems(grace_s=60.0)
    assert kind == "running"
    assert text.startswith(f"trial {number}: it is RUNNING, and its worker has given no sign of life for 86")
    assert stored.problems(grace_s=86_400.0) == []


@pytest.mark.parametrize(
    ("worker_of", "is_silent"),
    [
        (lambda ours: ours, False),
        (lambda ours: WorkerIdentity(ours.host, ours.boot_id, ours.pid, ours.process_start + 1), True),
        (lambda ours: WorkerIdentity("elsewhere", "x", 1, 1), True),
    ],
    ids=["lives here", "died here", "elsewhere"],
)
def test_what_trials_tell_of_their_workers(
    worker_of: Callable[[WorkerIdentity], WorkerIdentity], is_silent: bool
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    records._set_system(study, trial._trial_id, *records.worker_attribute(worker_of(this_worker())))
    running = study.trials[0]
    running.datetime_start = datetime.now() - timedelta(hours=1)
    assert (silence_s(running) > 3_000) == is_silent


def test_a_running_trial_is_judged_by_its_workers_lease(stored: Stored) -> None:
    study, elsewhere = stored.study, WorkerIdentity("elsewhere", "x", 1, 1)
    trial = study.ask()
    records._set_system(study, trial._trial_id, *records.worker_attribute(elsewhere))
    stored.execute("UPDATE trials SET datetime_start = '2020-01-01' WHERE state = 'RUNNING'")
    assert [kind for kind, _ in stored.problems()] == ["running"]
    database.Lease(database.open_storage(stored.request.storage_url), study._study_id, elsewhere).beat()
    assert stored.problems() == []
    stored.execute("UPDATE mfas_workers SET beat_at = beat_at - 1000")
    ((kind, text),) = stored.problems()
    assert kind == "running"
    assert "no sign of life for 100" in text


def test_budget(stored: Stored) -> None:
    spec = stored.request.spec.with_search(n_trials=15)
    assert [kind for kind, _ in stored.problems(spec=spec)] == ["budget"]
    assert "expected 15 finished trials at most, found 16" in stored.problems(spec=spec)[0][1]
    assert stored.problems(spec=stored.request.spec.with_search(n_trials=16)) == []


def test_a_slot_that_was_filled_twice(stored: Stored) -> None:
    stored.study.add_trial(stored.study.trials[5])
    ((kind, text),) = stored.problems()
    assert kind == "slot"
    assert "expected one finished trial, found 5, 16" in text


# Studies and files.


def test_features(stored: Stored) -> None:
    (folder,) = (stored.home / "features").iterdir()
    for name in ("features-train.npy", "labels-test.npy"):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
    (folder / "features-test.npy").unlink()
    found = stored.problems()
    assert [kind for kind, _ in found] == ["features"] * 3
    assert sum("damaged: expected SHA-256" in text for _, text in found) == 2
    assert sum("cannot be read: No such file" in text for _, text in found) == 1
    assert all("Run `mfas-optuna prepare --force`" in text for _, text in found)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert len(stored.problems()) == 1
    shutil.rmtree(folder)
    assert stored.fsck().audit.checked["features"] == 0
    assert stored.problems() == []


def test_the_record_of_backbones(stored: Stored) -> None:
    stored.study.set_user_attr("mfas:backbones", '{"audio": {}}')
    ((kind, text),) = stored.problems()
    assert (kind, text[:62]) == ("backbone", "the study: its record lacks the backbones of audio, image. Sco")


def test_final_trainings(stored: Stored) -> None:
    final = stored.final
    finals.write_test_read(final, purpose="a test", score=0.5, what="gone", trial=7)
    final.add_trial(optuna.trial.create_trial(value=0.1))
    stored.execute("UPDATE trial_values SET value = 0.9 WHERE trial_id = ?", final.trials[0]._trial_id)
    found = [text for kind, text in stored.problems() if kind == "final"]
    assert [text.split(":")[0] for text in found][:2] == ["tiny-final, trial 0", "tiny-final, trial 1"]
    assert any("scores trial 7 (gone)" in text for text in found)


def test_everything_at_once(stored: Stored) -> None:
    for file in list(stored.store.stored()):
        (stored.store.folder / file.name).write_bytes(b"")
    stored.study.add_trial(stored.study.trials[5])
    stored.study.ask()
    stored.execute("UPDATE trials SET datetime_start = '2020-01-01' WHERE state = 'RUNNING'")
    assert {kind for kind, _ in stored.problems()} >= {"blob", "slot", "running"}


def test_a_study_that_is_not_ours_or_has_other_settings(stored: Stored) -> None:
    other = StudySpec.model_validate({**VALUES, "fusion": {"width": 5}})
    with pytest.raises(StudyMismatchError, match="was begun with other settings"):
        stored.fsck(spec=other)
    optuna.create_study(study_name="foreign", storage=stored.request.storage_url)
    from dataclasses import replace

    with pytest.raises(StorageError, match="not begun by mfas-optuna"):
        run_fsck(replace(stored.request, study_name="foreign"), Silent())
    with pytest.raises(StorageError, match="no study database"):
        run_fsck(replace(stored.request, storage_url=f"sqlite:///{stored.home / 'none.db'}"), Silent())
    assert stored.study.trials[0].state == TrialState.COMPLETE
