"""`check` names every problem of a data set at once."""

from __future__ import annotations

import numpy as np
import pytest

from mfas_optuna.datasets import Dataset, Split, check
from mfas_optuna.errors import DataError


def make_split(n: int = 6) -> Split:
    rng = np.random.default_rng(0)
    inputs = {
        "audio": rng.integers(0, 256, (n, 1, 4, 4)).astype(np.uint8),
        "image": rng.random((n, 1, 2, 2), dtype=np.float32),
    }
    return Split(inputs, np.arange(n, dtype=np.int64) % 3)


def make_dataset(**changes: Split) -> Dataset:
    splits = {"train": make_split(), "validation": make_split(), "test": make_split()} | changes
    return Dataset("toy", "Random numbers.", 3, splits, "0" * 64)


def test_sound_data_pass() -> None:
    dataset = make_dataset()
    check(dataset)
    assert dataset.modalities == ("audio", "image")
    assert len(dataset.splits["train"]) == 6


def test_every_problem_is_listed_at_once() -> None:
    train, validation = make_split(), make_split()
    train.labels[[2, 4]] = [3, -1]
    train.inputs["image"][3, 0, 1, 1] = np.nan
    train.inputs["image"][5, 0, 0, 0] = np.inf
    validation = Split({**validation.inputs, "audio": validation.inputs["audio"][:4]}, validation.labels)
    empty = Split({name: array[:0] for name, array in make_split().inputs.items()}, np.zeros(0, np.int64))
    with pytest.raises(DataError) as caught:
        check(make_dataset(train=train, validation=validation, test=empty))
    assert str(caught.value).splitlines() == [
        "toy train, labels: 2 out of range, the first at row 2: expected 0 to 2, found 3.",
        "toy train, image: NaN or infinity in 2 rows, the first is row 3. Mend or leave out these rows.",
        "toy validation, audio: 4 rows for 6 labels. Each label needs one row.",
        "toy test: the split is empty.",
    ]


def test_wrong_types_and_missing_parts_are_named() -> None:
    train = make_split()
    train = Split({**train.inputs, "image": train.inputs["image"].astype(np.float64)}, train.labels.astype(np.int32))
    test = Split({"audio": make_split().inputs["audio"]}, make_split().labels)
    with pytest.raises(DataError) as caught:
        check(make_dataset(train=train, test=test))
    message = str(caught.value)
    assert "train: labels must be a row of int64, found int32 [6]" in message
    assert "train, image: expected uint8 or float32, found float64" in message
    assert "test, image: the modality is missing" in message

    splits = {"train": make_split()}
    with pytest.raises(DataError, match=r"validation: the split is missing.\n.*test: the split is missing"):
        check(Dataset("toy", "", 3, splits, ""))


def test_a_problem_far_down_a_long_array_is_found() -> None:
    long = Split({"image": np.zeros((3000, 1, 2, 2), np.float32)}, np.zeros(3000, np.int64))
    long.inputs["image"][2999, 0, 1, 0] = -np.inf
    with pytest.raises(DataError, match="row 2999"):
        check(Dataset("toy", "", 3, {"train": long, "validation": long, "test": long}, ""))
