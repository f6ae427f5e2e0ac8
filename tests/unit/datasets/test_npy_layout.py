"""Arrays in the layout of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets import DataRequest, load_dataset
from mfas_optuna.errors import CacheError, DataError, DataNotFoundError
from mfas_optuna.spec import AvmnistSettings

SETTINGS = AvmnistSettings(name="avmnist", source="npy", n_train=100, n_validation=50, n_test=50)
N_TRAIN, N_TEST = 160, 60


def make_arrays(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("audio", "images"):
        (root / folder).mkdir(parents=True)
    for split, size in (("train", N_TRAIN), ("test", N_TEST)):
        np.save(root / "audio" / f"{split}_data.npy", rng.random((size, 112, 112)) * 40)
        np.save(root / "images" / f"{split}_data.npy", rng.integers(0, 256, (size, 784)).astype(np.uint8))
        np.save(root / f"{split}_labels.npy", np.arange(size) % 10)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_arrays(tmp_path / "arrays")


def test_splits_and_values(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (100, 50, 50)
    images, audio = np.load(root / "images" / "train_data.npy"), np.load(root / "audio" / "train_data.npy")
    assert train.inputs["image"].shape == (100, 1, 28, 28)
    assert train.inputs["image"].dtype == np.uint8
    np.testing.assert_array_equal(validation.inputs["image"].reshape(50, -1), images[-50:])
    assert train.inputs["audio"].dtype == np.float32
    np.testing.assert_allclose(train.inputs["audio"][:, 0], audio[:100] / audio.max(), rtol=1e-6)
    np.testing.assert_array_equal(validation.labels, np.arange(110, 160) % 10)
    assert "100, 50, 50" in dataset.card
    assert dict(dataset.tasks) == SETTINGS.tasks == {}


@pytest.mark.parametrize("shape", [(112, 112), (1, 112, 112)])
def test_both_shapes_give_the_same(root: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    for split in ("train", "test"):
        file = root / "audio" / f"{split}_data.npy"
        np.save(file, np.load(file).reshape(-1, *shape))
    dataset = load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    assert dataset.splits["test"].inputs["audio"].shape == (50, 1, 112, 112)


def test_missing_files_are_all_named(root: Path, tmp_path: Path) -> None:
    (root / "audio" / "test_data.npy").unlink()
    (root / "train_labels.npy").unlink()
    with pytest.raises(DataNotFoundError, match=r"test_data.npy, .*train_labels.npy.*--data-root or MFAS_DATA"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    with pytest.raises(DataNotFoundError, match="no folder of raw data was named"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None))


def test_all_problems_of_the_arrays_at_once(root: Path, tmp_path: Path) -> None:
    np.save(root / "audio" / "train_data.npy", np.zeros((N_TRAIN - 1, 112, 112)))
    np.save(root / "images" / "test_data.npy", np.zeros((N_TEST, 783), np.uint8))
    np.save(root / "test_labels.npy", np.zeros(N_TEST))
    with pytest.raises(DataError) as caught:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "test_labels.npy: expected a row of whole numbers, found float64 [60]" in lines[0]
    assert "159 rows for 160 labels" in lines[1]
    assert "expected [n, H, W], [n, 1, H, W] or flat square rows, found [60, 783]" in lines[2]


def test_content_is_checked(root: Path, tmp_path: Path) -> None:
    labels = np.load(root / "train_labels.npy")
    labels[7] = 12
    np.save(root / "train_labels.npy", labels)
    audio = np.load(root / "audio" / "train_data.npy")
    audio[[3, 120]] = np.nan
    np.save(root / "audio" / "train_data.npy", audio)
    with pytest.raises(DataError) as caught:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    assert str(caught.value).splitlines() == [
        "avmnist train, labels: 1 out of range, the first at row 7: expected 0 to 9, found 12. Mend the labels.",
        "avmnist train, audio: NaN or infinity in 1 rows, the first is row 3. Mend or leave out these rows.",
        "avmnist validation, audio: NaN or infinity in 1 rows, the first is row 10. Mend or leave out these rows.",
    ]


def test_pickled_objects_are_refused(root: Path, tmp_path: Path) -> None:
    np.save(root / "train_labels.npy", np.array([{"a": 1}] * N_TRAIN, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"train_labels.npy: not a readable .npy array"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))


def test_too_few_rows_for_validation(root: Path, tmp_path: Path) -> None:
    many = SETTINGS.model_copy(update={"n_validation": N_TRAIN})
    with pytest.raises(DataError, match="160 training pairs cannot give n_validation = 160"):
        load_dataset(DataRequest(many, home=tmp_path, data_root=root))


def test_other_arrays_are_not_taken_for_those_built(root: Path, tmp_path: Path) -> None:
    load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
    load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None))
    np.save(root / "test_labels.npy", np.zeros(N_TEST, np.int64))
    with pytest.raises(CacheError, match="built from other arrays"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=root))
