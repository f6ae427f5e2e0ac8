"""`check` names every problem of a data set at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfas_optuna.datasets import Dataset, Split, check
from mfas_optuna.datasets.dataset import SPLIT_NAMES
from mfas_optuna.errors import DataError
from mfas_optuna.target import Target


def make_split(n: int = 6) -> Split:
    rng = np.random.default_rng(0)
    inputs = {
        "audio": rng.integers(0, 256, (n, 1, 4, 4)).astype(np.uint8),
        "image": rng.random((n, 1, 2, 2), dtype=np.float32),
    }
    return Split(inputs, np.arange(n, dtype=np.int64) % 3)


def make_dataset(**changes: Split) -> Dataset:
    splits = {"train": make_split(), "validation": make_split(), "test": make_split()} | changes
    return Dataset("toy", "Random numbers.", Target.of_classes(3), splits, "0" * 64)


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
        "toy train, labels: 2 out of range, the first at row 2: expected 0 to 2, found 3. Mend the labels.",
        "toy train, image: NaN or infinity in 2 rows, the first is row 3. Mend or leave out these rows.",
        "toy validation, audio: 4 rows for 6 labels. Each label needs one row.",
        "toy test: the split is empty. Add samples.",
    ]


def test_wrong_types_and_missing_parts_are_named() -> None:
    train = make_split()
    train = Split({**train.inputs, "image": train.inputs["image"].astype(np.float64)}, train.labels.astype(np.int32))
    test = Split({"audio": make_split().inputs["audio"]}, make_split().labels)
    with pytest.raises(DataError) as caught:
        check(make_dataset(train=train, test=test))
    message = str(caught.value)
    assert "train: labels must be int64 [6], found int32 [6]" in message
    assert "train, image: expected uint8 or float32, found float64" in message
    assert "test, image: the modality is missing" in message

    splits = {"train": make_split()}
    with pytest.raises(DataError, match=r"validation: the split is missing\. Add it\.\n.*test: the split is missing"):
        check(Dataset("toy", "", Target.of_classes(3), splits, ""))


def make_with_tasks(**changes: np.ndarray) -> Dataset:
    """Two tasks, whose labels are all 0 but for the changes in the training split."""
    splits = {
        name: replace(make_split(), tasks={task: np.zeros(6, np.int64) for task in ("shape", "colour")})
        for name in SPLIT_NAMES
    }
    splits["train"] = replace(splits["train"], tasks={**splits["train"].tasks, **changes})
    return replace(make_dataset(), splits=splits, tasks={"shape": 2, "colour": 5})


def test_the_data_of_a_task_have_its_labels_and_classes() -> None:
    dataset = make_with_tasks(colour=np.arange(6)[::-1] % 5)
    check(dataset)
    assert dataset.for_task(None) is dataset
    colour = dataset.for_task("colour")
    assert (colour.target.n_outputs, colour.fingerprint) == (5, dataset.fingerprint)
    assert colour.splits["train"].labels.tolist() == [0, 4, 3, 2, 1, 0]
    assert colour.splits["train"].inputs is dataset.splits["train"].inputs
    assert colour.splits["test"].labels.tolist() == [0] * 6
    with pytest.raises(DataError, match=r"toy: no labels for the task 'size'. Tasks that have some: shape, colour"):
        dataset.for_task("size")
    with pytest.raises(DataError, match="some: none"):
        make_dataset().for_task("size")


def test_labels_of_tasks_are_checked() -> None:
    with pytest.raises(DataError) as caught:
        check(make_with_tasks(shape=np.array([0, 1, 0, 2, 0, 0]), colour=np.zeros(5, np.int64)))
    assert str(caught.value).splitlines() == [
        "toy train, shape, labels: 1 out of range, the first at row 3: expected 0 to 1, found 2. Mend the labels.",
        "toy train, colour: 5 labels for 6 pairs. Each pair needs one.",
    ]


def test_a_problem_far_down_a_long_array_is_found() -> None:
    long = Split({"image": np.zeros((3000, 1, 2, 2), np.float32)}, np.zeros(3000, np.int64))
    long.inputs["image"][2999, 0, 1, 0] = -np.inf
    with pytest.raises(DataError, match="row 2999"):
        check(Dataset("toy", "", Target.of_classes(3), {"train": long, "validation": long, "test": long}, ""))
