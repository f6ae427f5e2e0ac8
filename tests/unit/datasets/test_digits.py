"""The embedded data set and the store that every data set goes through."""

from __future__ import annotations

import itertools
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets import DataRequest, Dataset, build_dataset, digits, load_dataset, shape_of, speech, store
from mfas_optuna.errors import CacheError, HomeError
from mfas_optuna.spec import DigitsSettings

SETTINGS = DigitsSettings(name="digits", n_train=120, n_validation=60, n_test=60)


def load(home: Path, settings: DigitsSettings = SETTINGS) -> Dataset:
    return load_dataset(DataRequest(settings, home=home, data_root=None))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    build_dataset(DataRequest(SETTINGS, home=home, data_root=None))
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home of its own that a test may damage."""
    folder = build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None)).folder
    assert folder is not None
    return folder


# Content.


def test_layout(home: Path) -> None:
    dataset = load(home)
    expected = shape_of(DataRequest(SETTINGS, Path(), None))
    assert (dataset.name, dataset.target.n_outputs, dataset.modalities) == ("digits", 10, ("audio", "image"))
    for name, split in dataset.splits.items():
        assert len(split) == expected.n_samples[name]
        assert {modality: array.shape[1:] for modality, array in split.inputs.items()} == expected.inputs
        assert split.inputs["audio"].dtype == np.uint8
        assert split.inputs["image"].dtype == np.float32
        assert set(split.labels.tolist()) == set(range(10))
    assert "synthesised" in dataset.card


def test_tasks(home: Path) -> None:
    dataset = load(home)
    assert dict(dataset.tasks) == SETTINGS.tasks == {"at_least_five": 2}
    for split in dataset.splits.values():
        assert [int(label in (5, 6, 7, 8, 9)) for label in split.labels] == split.tasks["at_least_five"].tolist()


def test_same_settings_same_bytes(home: Path, tmp_path: Path) -> None:
    assert load(tmp_path).fingerprint == load(home).fingerprint


@pytest.mark.parametrize("change", [{"seed": 1}, {"snr_db": 3.0}, {"pca_components": 9}])
def test_other_settings_other_content_and_folder(home: Path, tmp_path: Path, change: dict[str, float]) -> None:
    other = SETTINGS.model_copy(update=change)
    assert load(tmp_path, other).fingerprint != load(home).fingerprint
    folders = [
        build_dataset(DataRequest(settings, home=where, data_root=None)).folder
        for settings, where in ((other, tmp_path), (SETTINGS, home))
    ]
    assert len({folder.name for folder in folders if folder is not None}) == 2


def test_no_image_is_in_two_splits(home: Path) -> None:
    seen = [{row.tobytes() for row in split.inputs["image"]} for split in load(home).splits.values()]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2))


def test_each_pair_has_its_own_utterance(home: Path) -> None:
    rows = [row.tobytes() for split in load(home).splits.values() for row in split.inputs["audio"]]
    assert len(set(rows)) == len(rows)


def test_noise_has_the_power_asked_for() -> None:
    rng = np.random.default_rng(0)
    clean = speech.utter(np.arange(10), rng)
    for snr_db in (-8.0, 5.0):
        noise = speech.add_noise(clean, snr_db, rng).astype(np.float64) - clean
        found = 10 * np.log10(np.square(clean).mean(axis=1) / np.square(noise).mean(axis=1))
        np.testing.assert_allclose(found, snr_db, atol=1e-3)


def test_utterances_are_silent_around_and_vary() -> None:
    rng = np.random.default_rng(0)
    sound = speech.utter(np.full(20, 3), rng)
    assert sound.shape == (20, speech.N_SAMPLES)
    lengths = (sound != 0).sum(axis=1)
    assert lengths.max() <= 0.41 * speech.SAMPLE_RATE
    assert lengths.std() > 100
    assert np.isfinite(sound).all()


def test_clean_speech_can_be_told_apart() -> None:
    """Nearest class mean on clean spectrograms, time averaged: far over the 10 % of guessing."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10), 40)
    features = digits._spoken(labels, 30.0, rng).astype(np.float64).mean(axis=2)
    means = np.stack([features[:200][labels[:200] == digit].mean(axis=0) for digit in range(10)])
    guesses = np.square(features[200:, None] - means).sum(axis=2).argmin(axis=1)
    assert (guesses == labels[200:]).mean() > 0.5


# Store.


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    news: list[tuple[str, int, int]] = []
    build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None, progress=lambda *fact: news.append(fact)))
    assert news[0][1] == 0
    assert news[-1] == ("spoken digits", 240, 240)


def test_built_data_are_used_again_and_forced_anew(folder: Path, tmp_path: Path) -> None:
    before = (folder / store.MANIFEST).stat().st_mtime_ns
    assert build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None)).folder == folder
    assert (folder / store.MANIFEST).stat().st_mtime_ns == before
    assert build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None), force=True).folder == folder
    assert (folder / store.MANIFEST).stat().st_mtime_ns != before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def garble_header(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


def forget_tasks(folder: Path) -> None:
    """Make of built data what they would be without labels of tasks."""
    manifest = json.loads((folder / store.MANIFEST).read_text())
    for file in folder.glob("*.labels-*.npy"):
        del manifest["arrays"][file.name]
        file.unlink()
    manifest["tasks"] = {}
    (folder / store.MANIFEST).write_text(json.dumps(manifest))


def test_data_without_tasks_are_built_again_once_one_is_asked_for(folder: Path, tmp_path: Path) -> None:
    before = load(tmp_path)
    forget_tasks(folder)
    older = load(tmp_path)
    assert older.tasks == {}
    assert older.fingerprint == before.fingerprint
    again = load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None, tasks=["at_least_five"]))
    assert again.fingerprint == before.fingerprint
    assert again.tasks == {"at_least_five": 2}
    changed = (folder / store.MANIFEST).stat().st_mtime_ns
    load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None, tasks=["at_least_five"]))
    assert (folder / store.MANIFEST).stat().st_mtime_ns == changed


@pytest.mark.parametrize("damage", [flip, truncate, garble_header, Path.unlink])
@pytest.mark.parametrize(
    "name", ["train.audio.npy", "test.image.npy", "validation.labels.npy", "test.labels-at_least_five.npy"]
)
def test_a_damaged_array_is_noticed(folder: Path, tmp_path: Path, damage: object, name: str) -> None:
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises(CacheError) as caught:
        load(tmp_path)
    assert str(folder / name) in str(caught.value)
    assert "data of digits" in str(caught.value)
    build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None), force=True)
    load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 99, "settings": {}}'])
def test_a_damaged_manifest_is_noticed(folder: Path, tmp_path: Path, content: str) -> None:
    (folder / store.MANIFEST).write_text(content)
    with pytest.raises(CacheError, match=r"manifest.json: data of digits"):
        load(tmp_path)


def test_an_array_outside_of_the_manifest_is_noticed(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((folder / store.MANIFEST).read_text())
    del manifest["arrays"]["test.audio.npy"]
    (folder / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CacheError, match=r"test\.audio\.npy: data of digits, not in the manifest"):
        load(tmp_path)


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """And finds what the first built."""
    told: list[str] = []
    done = threading.Event()

    def progress(what: str, *_: int) -> None:
        told.append(what)

    def load() -> None:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None, progress=progress))
        done.set()

    name = store.final_folder(tmp_path, "digits", SETTINGS.model_dump(mode="json")).name
    with store.alone(tmp_path, name, lambda *_: None):
        thread = threading.Thread(target=load)
        thread.start()
        assert not done.wait(0.5)
        assert set(told) == {"waiting for another process that reads the same data"}
    thread.join(60)
    assert done.is_set()


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digits, "write", fail)
    with pytest.raises(HomeError, match="No space left on device"):
        load(tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(HomeError, match=r"data: cannot be written: .*MFAS_HOME"):
        load(tmp_path)


def test_leftovers_of_a_crash_go_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("old", 2 * 86400), ("young", 60)):
        leftover = tmp_path / "data" / f".building-{name}"
        leftover.mkdir(parents=True)
        changed = leftover.stat().st_mtime - age_s
        os.utime(leftover, (changed, changed))
    build_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None))
    assert not (tmp_path / "data" / ".building-old").exists()
    assert (tmp_path / "data" / ".building-young").exists()
