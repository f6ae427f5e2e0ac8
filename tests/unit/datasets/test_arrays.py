"""Features of the user's: both layouts of splits and files, what is made when splits are missing, and every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mfas_optuna.datasets import arrays
from mfas_optuna.datasets.samples import Source
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import ArraysSettings

LAYERS = {"image": ["conv1", "conv2"], "sound": ["fc"]}
Values = dict[str, Any]


def values(n: int, seed: int = 0) -> Values:
    rng = np.random.default_rng(seed)
    return {
        "image/conv1": rng.normal(size=(n, 3, 2, 2)).astype(np.float32),
        "image/conv2": rng.normal(size=(n, 4)),
        "sound/fc": rng.integers(0, 9, (n, 2)),
        "labels": np.arange(n) % 3,
    }


def save(folder: Path, content: Values) -> Path:
    for name, array in content.items():
        file = folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    return folder


def find(folder: Path, **settings: Any) -> Source:
    return arrays.find(ArraysSettings(name="arrays", folder=folder.name, **settings), folder.parent, LAYERS)


def read(source: Source, split: str) -> dict[str, Any]:
    rows = [source.read(sample) for sample in source.splits[split]]
    return {name: np.stack([row[name] for row in rows]) for name in source.modalities}


def test_given_splits_are_kept_and_positions_averaged(tmp_path: Path) -> None:
    content = {split: values(9, seed) for seed, split in enumerate(("train", "validation", "test"))}
    for split, of_split in content.items():
        save(tmp_path / "features" / split, of_split)
    source = find(tmp_path / "features")
    assert source.problems == []
    assert {name: modality.shape for name, modality in source.modalities.items()} == {
        "image.conv1": (3,),
        "image.conv2": (4,),
        "sound.fc": (2,),
    }
    for split, of_split in content.items():
        found = read(source, split)
        np.testing.assert_allclose(found["image.conv1"], of_split["image/conv1"].mean(axis=(2, 3)), rtol=1e-5)
        np.testing.assert_allclose(found["image.conv2"], of_split["image/conv2"], rtol=1e-6)
        assert (found["sound.fc"] == of_split["sound/fc"]).all()
        assert found["sound.fc"].dtype == np.float32
        assert [sample.label for sample in source.splits[split]] == of_split["labels"].tolist()


def test_splits_by_row_and_tensors_in_one_file(tmp_path: Path) -> None:
    content = values(12)
    folder = save(tmp_path / "f", {name: content[name] for name in ("sound/fc", "labels")})
    save_file(
        {"conv1": content["image/conv1"], "conv2": content["image/conv2"].astype(np.float16)},
        folder / "image.safetensors",
    )
    np.save(folder / "splits.npy", np.array(["train"] * 6 + ["validation", "test"] * 3))
    source = find(folder)
    assert [sample.at[1] for sample in source.splits["test"]] == [7, 9, 11]
    np.testing.assert_allclose(read(source, "test")["image.conv2"], content["image/conv2"][7::2], atol=1e-2)
    assert arrays.layers_of(folder) == {"image": {"conv1": 3, "conv2": 4}, "sound": {"fc": 2}}


def test_missing_splits_are_made_stratified_and_said(tmp_path: Path) -> None:
    source = find(save(tmp_path / "f", values(60)), validation_fraction=0.2, test_fraction=0.25, seed=3)
    assert {split: len(samples) for split, samples in source.splits.items()} == {
        "train": 36,
        "validation": 9,
        "test": 15,
    }
    assert np.bincount([sample.label for sample in source.splits["test"]]).tolist() == [5, 5, 5]
    assert "No test split was given: 15 training samples (25%, stratified, seed 3) are it." in source.card
    assert "No validation split was given: 9 training samples" in source.card
    names = [sample.name for samples in source.splits.values() for sample in samples]
    assert len(set(names)) == 60


@pytest.mark.parametrize(
    ("kind", "labels", "names"),
    [
        ("multiclass", np.arange(12) % 4, ("0", "1", "2", "3")),
        ("multilabel", np.eye(3, dtype=bool)[np.arange(12) % 3], ("0", "1", "2")),
        ("regression", np.linspace(0, 1, 24).reshape(12, 2), ("0", "1")),
    ],
)
def test_targets_of_all_kinds(tmp_path: Path, kind: Any, labels: Any, names: tuple[str, ...]) -> None:
    source = find(save(tmp_path / "f", {**values(12), "labels": labels}), target=kind)
    assert source.target.kind == kind
    assert source.target.names == names


FAULTS: list[tuple[Values, dict[str, Any], str]] = [
    ({"labels": np.zeros((12, 2), int)}, {}, r"a multiclass target needs \[n\], found \[12, 2\]"),
    ({"labels": np.zeros(12) + 0.5}, {}, r"expected whole numbers, found float64"),
    ({"labels": np.array(["a"] * 12)}, {}, r"expected whole numbers, found <U1"),
    ({"labels": np.zeros(12, int)}, {"target": "multilabel"}, r"a multilabel target needs \[n, number of labels"),
    ({"image/conv2": np.zeros((11, 4))}, {}, r"image\.conv2: 11 rows for 12 labels\. Each label needs one row\."),
    ({"image/conv2": np.zeros(12)}, {}, r"expected \[n, channels, \.\.\.\], found \[12\]"),
    ({"image/conv2": np.array([["x"]] * 12)}, {}, r"expected numbers, found <U1"),
    (
        {"splits": np.array(["train", "dev"] * 6)},
        {},
        r"each 'train' or 'validation' or 'test', found \['dev', 'train'\]",
    ),
    ({"splits": np.zeros(12)}, {}, r"expected 12 texts"),
]


@pytest.mark.parametrize(("change", "settings", "message"), FAULTS)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: Values, settings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find(save(tmp_path / "f", {**values(12), **change}), **settings)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"expected a folder with the arrays of the study, found none"):
        find(tmp_path / "f")
    folder = save(tmp_path / "f", values(12))
    (folder / "sound" / "fc.npy").unlink()
    with pytest.raises(DataNotFoundError, match=r"fc\.npy: expected an array, found no such file"):
        find(folder)
    (folder / "sound" / "fc.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"fc\.npy: expected a \.npy file of numbers"):
        find(folder)
    with pytest.raises(DataNotFoundError, match="expected arrays of two modalities or more"):
        arrays.layers_of(tmp_path)


def test_single_rows_that_are_wrong_can_be_left_out(tmp_path: Path) -> None:
    content = values(12)
    content["image/conv2"][4, 1] = np.inf
    content["labels"][6] = -1
    content["labels"][7] = 9
    source = find(save(tmp_path / "f", content), classes=["a", "b", "c"])
    assert [problem.sample for problem in source.problems] == ["row 6", "row 7"]
    assert "label: expected 0 to 2, found 9." in str(source.problems[1])
    (at,) = [sample for samples in source.splits.values() for sample in samples if sample.name == "row 4"]
    with pytest.raises(DataError, match=r"image\.conv2, row 4: expected finite numbers, found inf"):
        source.read(at)


def test_a_class_that_is_not_in_the_training_split_is_an_error(tmp_path: Path) -> None:
    content = {**values(12), "splits": np.array(["train"] * 6 + ["validation", "test"] * 3)}
    content["labels"] = np.array([0, 1, 0, 1, 0, 1, 2, 0, 0, 1, 1, 0])
    problems = find(save(tmp_path / "f", content)).problems
    assert [(problem.where, problem.is_error) for problem in problems] == [("train", True), ("test", False)]
    assert "no sample of class 2" in str(problems[0])


def test_changed_arrays_are_other_arrays(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", values(12))
    before = arrays.facts(folder)
    assert arrays.facts(folder) == before
    save(folder, {"sound/fc": np.zeros((12, 2), int)})
    assert arrays.facts(folder) != before
