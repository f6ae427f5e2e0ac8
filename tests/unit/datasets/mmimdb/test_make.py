"""Generated films: the same ones for the same seed, and with something to find in both modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import f1_score

from mfas_optuna.datasets.mmimdb import find, make
from mfas_optuna.datasets.mmimdb.found import GENRES
from mfas_optuna.datasets.mmimdb.hdf5 import FILE
from mfas_optuna.datasets.stand_in import MARK, read_mark
from mfas_optuna.errors import DataError
from mfas_optuna.spec import MmimdbSettings

SETTINGS = MmimdbSettings(name="mmimdb", image_height=64, image_width=40)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def arrays(folder: Path) -> dict[str, Any]:
    with h5py.File(folder / FILE) as h5:
        return {name: h5[name][:].tolist() for name in h5}


def test_the_same_seed_gives_the_same_raw_files(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        make(tmp_path / name, layout="raw", n_samples=15, n_classes=3, seed=seed)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert len(first) == 2 * 15 + 2
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpeg"))


def test_the_same_seed_gives_the_same_arrays(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        make(tmp_path / name, layout="hdf5", n_samples=15, n_classes=3, seed=seed, height=16, width=16)
    first, second, other = (arrays(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert set(first) == {"features", "genres", "images", "imdb_ids"}
    assert first["features"] != other["features"]
    with h5py.File(tmp_path / "first" / FILE) as h5:
        types = {name: (str(h5[name].dtype), h5[name].shape) for name in h5}
    assert types == {
        "features": ("float32", (15, 300)),
        "genres": ("int32", (15, 3)),
        "images": ("int32", (15, 3, 16, 16)),
        "imdb_ids": ("|S7", (15,)),
    }


@pytest.mark.parametrize(("n_samples", "n_classes"), [(10, 6), (40, 23), (300, 6)])
def test_every_genre_is_in_every_split(tmp_path: Path, n_samples: int, n_classes: int) -> None:
    make(tmp_path / "made", layout="hdf5", n_samples=n_samples, n_classes=n_classes, height=16, width=16)
    settings = SETTINGS.model_copy(update={"image_height": 16, "image_width": 16})
    source = find(settings, tmp_path / "made")
    assert not source.problems
    assert source.target.names == GENRES[:n_classes]
    labels = np.array([sample.label for samples in source.splits.values() for sample in samples])
    assert len(labels) == n_samples
    assert [len(source.splits[split]) for split in ("validation", "test")] == [n_samples // 5] * 2
    assert labels.sum(axis=1).min() == 1
    assert labels.sum(axis=1).max() <= max(3, -(-n_classes // (n_samples // 5)))
    if n_samples == 300:
        assert 1.5 < labels.sum(axis=1).mean() < 2
        assert labels.sum(axis=0)[0] > 1.5 * labels.sum(axis=0)[-1]


def test_the_mark_names_what_was_asked_for(tmp_path: Path) -> None:
    make(tmp_path / "made", n_samples=10, n_classes=3, seed=7)
    assert "layout raw, samples 10, genres 3, seed 7" in read_mark(tmp_path / "made")


def test_what_an_interruption_leaves_is_marked(tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "made", n_samples=10, n_classes=3, progress=interrupt)
    assert {file.name for file in (tmp_path / "made").iterdir()} == {MARK, "dataset"}


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="expected an empty folder"):
        make(tmp_path, n_samples=10, n_classes=3)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(DataError, match="expected an empty folder"):
        make(tmp_path / "note.txt", n_samples=10, n_classes=3)
    with pytest.raises(DataError, match="cannot be written"):
        make(tmp_path / "note.txt" / "below", n_samples=10, n_classes=3)


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "message"),
    [
        (2, 2, "expected 5 films or more, found 2"),
        (40, 24, "expected 2 to 23 genres, found 24"),
        (40, 1, "expected 2 to 23 genres, found 1"),
        (20, 23, "too few for 23 genres.*Ask for 40 or more"),
    ],
)
def test_numbers_that_do_not_fit(tmp_path: Path, n_samples: int, n_classes: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(tmp_path / "made", n_samples=n_samples, n_classes=n_classes)
    assert not (tmp_path / "made").exists()


def statistics(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Mean colours, and how far each of 8 x 8 fields is from the mean brightness."""
    posters = images / 255.0
    n, _, height, width = posters.shape
    fields = posters.mean(axis=1).reshape(n, 8, height // 8, 8, width // 8).mean(axis=(2, 4)).reshape(n, 64)
    return np.concatenate([posters.mean(axis=(2, 3)), np.abs(fields - fields.mean(axis=1, keepdims=True))], axis=1)


@pytest.mark.parametrize("layout", ["raw", "hdf5"])
def test_both_modalities_together_tell_more_than_either(tmp_path: Path, layout: Any) -> None:
    make(tmp_path / "made", layout=layout, n_samples=400, seed=1, height=64, width=40)
    source = find(SETTINGS, tmp_path / "made")
    inputs: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    labels = {split: np.array([sample.label for sample in samples]) for split, samples in source.splits.items()}
    for split, samples in source.splits.items():
        rows = [source.read(sample) for sample in samples]
        inputs[split] = {
            "image": statistics(np.stack([row["image"] for row in rows]).astype(np.uint8)),
            "text": np.stack([row["text"] for row in rows]).astype(np.float64),
        }
    for modality in ("image", "text"):
        mean, deviation = inputs["train"][modality].mean(axis=0), inputs["train"][modality].std(axis=0) + 1e-9
        # Standardised, and each modality's columns together of the same weight.
        n_columns = len(mean)
        for split in inputs:
            inputs[split][modality] = (inputs[split][modality] - mean) / deviation / n_columns**0.5

    def score(*modalities: str) -> float:
        train, test = (np.concatenate([inputs[split][m] for m in modalities], axis=1) for split in ("train", "test"))
        model = RidgeCV(np.logspace(-4, 2, 13)).fit(train, labels["train"])
        # The threshold that marks as many labels as there are in training.
        threshold = np.quantile(model.predict(train), 1 - labels["train"].mean())
        return float(f1_score(labels["test"], model.predict(test) > threshold, average="weighted", zero_division=0))

    image, text, both = score("image"), score("text"), score("image", "text")
    shuffled = np.random.default_rng(0).permutation(labels["test"])
    by_chance = float(f1_score(shuffled, labels["test"], average="weighted"))
    assert min(image, text) > by_chance + 0.08
    assert both > max(image, text) + 0.05
    assert both < 0.95
