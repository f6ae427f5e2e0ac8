"""What a search reads: made once, shared between studies, refused when it is not what it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mfas_optuna import datasets
from mfas_optuna.errors import CacheError, HomeError, StudyMismatchError
from mfas_optuna.features.cache import OUTPUT
from mfas_optuna.prepare import Preparation, Prepared, blob_store, check_home, locked, write_json
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.spec import GivenFeatures, StudySpec

VALUES: dict[str, Any] = {
    "title": "A study for tests",
    "dataset": {"name": "digits", "n_train": 150, "n_validation": 50, "n_test": 50},
    "backbones": {
        name: {"kind": "lenet", "channels": [2, 4], "features": ["conv1", "conv2"], "training": {"epochs": 1}}
        for name in ("audio", "image")
    },
    "space": {"activations": ["relu"], "max_depth": 2},
}


def make(
    home: Path,
    said: list[str] | None = None,
    progress: Progress = silent,
    weights: str | None = None,
    folder: Path | None = None,
    **changes: Any,
) -> Preparation:
    spec = StudySpec.model_validate({**VALUES, **changes})
    if folder is not None:
        spec._folder = folder
    return Preparation(
        spec,
        home=home,
        weights=weights,
        data_root=None,
        device=torch.device("cpu"),
        rebuild_command="mfas-optuna prepare --study x --force",
        progress=progress,
        say=(lambda text: None) if said is None else said.append,
    )


@pytest.fixture(scope="module")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make(home).run()
    return home


@pytest.fixture
def home(prepared_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared_home, tmp_path / "home"))


def digests(prepared: Prepared) -> dict[str, str]:
    return {modality: trained.digest for modality, trained in prepared.backbones.items()}


def test_everything_is_made_once(home: Path, tmp_path: Path) -> None:
    said: list[str] = []
    again = make(home, said).run()
    assert said == []
    assert again.timings_s == {}
    fresh = make(tmp_path / "other").run()
    assert digests(fresh) == digests(again)
    assert fresh.fingerprint == again.fingerprint
    assert set(fresh.timings_s) == {"data", "backbone audio", "backbone image", "features"}
    assert (fresh.features.matrix("train") == again.features.matrix("train")).all()


def test_other_features_of_the_same_backbones_need_no_training(home: Path) -> None:
    said: list[str] = []
    backbones = {name: {**values, "features": ["conv2"]} for name, values in VALUES["backbones"].items()}
    prepared = make(home, said, backbones=backbones).run()
    assert not any("training" in text for text in said)
    assert prepared.features.layout.spans == {
        "audio": {"conv2": (0, 4), OUTPUT: (4, 14)},
        "image": {"conv2": (14, 18), OUTPUT: (18, 28)},
    }
    assert prepared.fingerprint != make(home).run().fingerprint


def test_other_training_makes_other_backbones(home: Path) -> None:
    backbones = {name: {**values, "training": {"epochs": 1, "seed": 1}} for name, values in VALUES["backbones"].items()}
    assert digests(make(home, backbones=backbones).run()) != digests(make(home).run())


def with_task(task: str = "at_least_five") -> dict[str, Any]:
    return {**VALUES["backbones"], "image": {**VALUES["backbones"]["image"], "task": task}}


def test_a_backbone_of_another_task_is_another(home: Path) -> None:
    plain = make(home).run()
    said: list[str] = []
    preparation = make(home, said, backbones=with_task())
    prepared = preparation.run()
    assert prepared.backbones["audio"] == plain.backbones["audio"]
    assert prepared.backbones["image"].digest != plain.backbones["image"].digest
    assert prepared.fingerprint != plain.fingerprint
    assert (plain.backbones["image"].task, prepared.backbones["image"].task) == (None, "at_least_five")
    assert any("image (task at_least_five) alone scores" in text for text in said)
    settings = StudySpec.model_validate({**VALUES, "backbones": with_task()}).backbones["image"]
    assert not isinstance(settings, GivenFeatures)
    model = preparation._backbones.restore(preparation._data(), "image", settings, prepared.backbones["image"])
    split = preparation._data().splits["validation"]
    guesses = model(torch.tensor(split.inputs["image"])).argmax(dim=1).numpy()
    assert prepared.backbones["image"].validation_score == pytest.approx((guesses == (split.labels >= 5)).mean())
    # The search itself is for the target, on the same taps; the outputs are of the other task, and are not kept.
    assert prepared.features.target.n_outputs == 10
    assert prepared.features.layout.spans["audio"] == plain.features.layout.spans["audio"]
    assert prepared.features.layout.features("image") == plain.features.layout.features("image")
    assert plain.features.layout.has_output("image")
    assert not prepared.features.layout.has_output("image")
    assert (prepared.features.labels("validation") == split.labels).all()
    said.clear()
    assert make(home, said, backbones=with_task()).run().backbones == prepared.backbones
    assert said == []


def test_backbones_recorded_before_there_were_tasks_are_of_the_target(home: Path) -> None:
    index = next((home / "backbones").glob("digits-image-*.json"))
    record = json.loads(index.read_text(encoding="utf-8"))
    del record["task"]
    write_json(index, record)
    said: list[str] = []
    assert make(home, said).run().backbones["image"].task is None
    assert said == []


def test_scores_of_another_task_are_not_compared_with_the_papers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr("mfas_optuna.datasets.compare_with_paper", lambda _, modality, __: compared.append(modality))
    make(home, backbones=with_task()).run()
    assert compared == ["audio"]


def test_backbones_other_than_the_recorded_are_refused(home: Path) -> None:
    recorded = {modality: {"digest": "f" * 64} for modality in ("audio", "image")}
    with pytest.raises(StudyMismatchError, match="backbone audio: was ffffffffffff, is now") as raised:
        make(home).run(recorded=recorded)
    assert len(raised.value.differences) == 2


def records_of(prepared: Prepared) -> dict[str, Any]:
    return json.loads(json.dumps({modality: trained.as_record() for modality, trained in prepared.backbones.items()}))


def test_a_machine_that_joins_fetches_the_backbones(home: Path, tmp_path: Path) -> None:
    begun = make(home).run()
    said: list[str] = []
    other = tmp_path / "other"
    joined = make(other, said, weights=str(home / "weights")).run(recorded=records_of(begun))
    assert joined.backbones == begun.backbones
    assert joined.fingerprint == begun.fingerprint
    assert (joined.features.matrix("train") == begun.features.matrix("train")).all()
    assert set(joined.timings_s) == {"data", "features"}
    assert not any("training" in text for text in said)
    assert sum("was trained on another machine" in text for text in said) == 2
    said.clear()
    make(other, said, weights=str(home / "weights")).run(recorded=records_of(begun))
    assert said == []


def test_backbones_travel_by_a_url(home: Path, tmp_path: Path) -> None:
    begun = make(home).run()
    url = f"memory://{tmp_path.name}-{id(tmp_path)}/weights"
    away = blob_store(home, url)
    for digest in digests(begun).values():
        away.put(FolderBlobStore(home / "weights").get(digest))
    joined = make(tmp_path / "other", weights=url).run(recorded=records_of(begun))
    assert joined.backbones == begun.backbones
    assert {file.digest for file in FolderBlobStore(tmp_path / "other" / "weights-cache").stored()} == set(
        digests(begun).values()
    )


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_backbone_that_the_store_does_not_give_is_never_trained(home: Path, tmp_path: Path, fault: str) -> None:
    begun = make(home).run()
    path = FolderBlobStore(home / "weights").path(begun.backbones["image"].digest)
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    said: list[str] = []
    joining = make(tmp_path / "other", said, weights=str(home / "weights"))
    with pytest.raises(CacheError, match=f"backbone of image .*{fault}.*--weights.*not trained here"):
        joining.run(recorded=records_of(begun))
    assert not any("training" in text for text in said)


def test_a_record_that_is_not_whole_is_refused(home: Path, tmp_path: Path) -> None:
    recorded = records_of(make(home).run())
    del recorded["audio"]["data"]
    with pytest.raises(CacheError, match="record of the backbone of audio is not whole"):
        make(tmp_path / "other", weights=str(home / "weights")).run(recorded=recorded)


def test_a_machine_with_other_data_does_not_join(home: Path, tmp_path: Path) -> None:
    recorded = records_of(make(home).run())
    recorded["audio"]["data"] = "f" * 64
    with pytest.raises(StudyMismatchError, match=r"are not those that the study was begun with \(ffffffffffff\)"):
        make(tmp_path / "other", weights=str(home / "weights")).run(recorded=recorded)
    with pytest.raises(StudyMismatchError, match="on which its backbones of audio were trained"):
        make(tmp_path / "other", weights=str(home / "weights")).run(recorded=recorded)


def test_a_machine_with_another_network_of_the_user_does_not_join(home: Path, tmp_path: Path) -> None:
    recorded = records_of(make(home).run())
    recorded["audio"]["files"] = {"net.py": "f" * 64}
    joining = make(tmp_path / "other", weights=str(home / "weights"), folder=tmp_path)
    (tmp_path / "net.py").write_text("x = 1", encoding="utf-8")
    with pytest.raises(StudyMismatchError, match=r"made with other files: net\.py: was ffffffffffff, is now"):
        joining.run(recorded=recorded)


def test_found_backbones_are_marked_as_used(home: Path) -> None:
    begun = make(home).run()
    paths = [FolderBlobStore(home / "weights").path(digest) for digest in digests(begun).values()]
    for path in paths:
        os.utime(path, (1, 1))
    make(home).run(recorded=records_of(begun))
    assert {path.stat().st_mtime for path in paths} == {1}  # The study's record keeps them.
    make(home).run()
    assert all(path.stat().st_mtime > 1 for path in paths)


def test_damaged_features_are_refused_and_rebuilt_by_force(home: Path) -> None:
    file = next((home / "features").glob("*/features-test.npy"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CacheError, match=r"features-test\.npy.*prepare --study x --force"):
        make(home).run()
    make(home).run(force=True)
    make(home).run()


def test_interrupted_features_go_on_also_under_force(home: Path) -> None:
    before = make(home).run()

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "image features, validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(home, progress=interrupt).run(force=True)
    # What was there stays until it is replaced.
    assert make(home).run().fingerprint == before.fingerprint
    told: list[str] = []
    said: list[str] = []
    after = make(home, said, progress=lambda what, done, total: told.append(what)).run(force=True)
    assert "Features: an earlier extraction was interrupted; going on after 400 of 500 rows" in said
    assert {what for what in told if "features" in what} == {"image features, validation", "image features, test"}
    assert (after.features.matrix("train") == before.features.matrix("train")).all()
    assert [path.name for path in (home / "features").iterdir()] == [after.features.folder.name]


def test_backbones_of_other_data_are_refused_and_trained_again_by_force(home: Path) -> None:
    """The data were built anew from other files: what a backbone was trained on may now be among the test rows."""
    before = make(home).run()
    index = next((home / "backbones").glob("digits-audio-*.json"))
    record = json.loads(index.read_text(encoding="utf-8"))
    write_json(index, {**record, "data": "of another build"})
    with pytest.raises(CacheError, match="stored backbones of audio were trained on"):
        make(home).run()
    shutil.rmtree(home / "features")
    with pytest.raises(CacheError, match="stored backbones of audio were trained on"):
        make(home).run()
    after = make(home).run(force=True)
    assert after.backbones["audio"].data == before.backbones["audio"].data
    assert digests(after) == digests(before)


def test_unimodal_scores_are_compared_with_the_papers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for score, expected in ((0.70, "as hard as"), (0.95, "Warning: ")):
        comparison = datasets.Comparison(score < 0.9, f"{score}: as hard as" if score < 0.9 else f"{score}: easier")
        monkeypatch.setattr("mfas_optuna.datasets.compare_with_paper", lambda *_, result=comparison: result)
        said: list[str] = []
        make(home, said).run()
        assert len(said) == 2
        assert all(expected in text for text in said)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HomeError, match="MFAS_HOME"):
        check_home(tmp_path / "file" / "home")


def test_a_second_process_waits_and_says_so(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from mfas_optuna.prepare import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'x', lambda text: None):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    said: list[str] = []
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()

        def let_go(text: str) -> None:
            said.append(text)
            holder.stdin.close()  # type: ignore[union-attr]

        with locked(tmp_path, "x", let_go):
            pass
    assert said == ["Another process is preparing the same data and backbones; waiting for it"]


def test_augmentation_gives_further_views_of_the_training_features_and_other_backbones(home: Path) -> None:
    plain = make(home).run()
    few = make(home, augmentation={"shift": 1, "views": 2}).run()
    more = make(home, augmentation={"shift": 1, "views": 3}).run()
    assert sorted(plain.features.arrays) == ["test", "train", "validation"]
    assert sorted(few.features.arrays) == ["test", "train", "train.1", "validation"]
    assert sorted(more.features.arrays) == ["test", "train", "train.1", "train.2", "validation"]
    assert not set(digests(few).values()) & set(digests(plain).values())
    assert digests(more) == digests(few)  # The number of views trains no backbone again.
    assert len({plain.fingerprint, few.fingerprint, more.fingerprint}) == 3
    assert (few.features.matrix("train.1") == more.features.matrix("train.1")).all()
    differ = (few.features.matrix("train.1") != few.features.matrix("train")).any(axis=1)
    # A sample stays where it is in both modalities with probability 1/81.
    assert 0.9 < differ.mean() <= 1
    assert (few.features.labels("train.1") == few.features.labels("train")).all()
