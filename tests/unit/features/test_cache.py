"""The feature cache: written whole, opened only when every byte is as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfas_optuna.errors import CacheError, DataError, HomeError
from mfas_optuna.features.cache import OUTPUT, FeatureLayout, FeatureSet, open_features, write_features
from mfas_optuna.target import Target

KEY = {"data": "abc", "backbones": {"audio": "1", "image": "2"}, "dtype": "float32"}
WIDTHS = {"audio": {"conv1": 2, "conv2": 3}, "image": {"conv1": 4}}
REBUILD = "mfas-optuna prepare --study x --force"


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sizes = {"train": 20, "validation": 7, "test": 5}
    return {
        "matrices": {split: rng.normal(3, 2, (n, 9)).astype(np.float32) for split, n in sizes.items()},
        "labels": {split: rng.integers(0, 3, n) for split, n in sizes.items()},
    }


def write(folder: Path, seed: int = 0, **changes: Any) -> None:
    values = {
        "key": KEY,
        "card": "A card.",
        "widths": WIDTHS,
        "target": Target.of_classes(3),
        **arrays(seed),
        **changes,
    }
    write_features(folder, **values)


def open_(folder: Path, key: dict[str, Any] = KEY) -> FeatureSet:
    return open_features(folder, key, rebuild_command=REBUILD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "features" / "x-123"
    write(path)
    return path


def test_what_was_written_is_read(folder: Path) -> None:
    opened, written = open_(folder), arrays()
    for split in ("train", "validation", "test"):
        assert np.array_equal(opened.matrix(split), written["matrices"][split].astype(np.float16))
        assert np.array_equal(opened.labels(split), written["labels"][split])
        assert isinstance(opened.matrix(split), np.memmap)
        assert not opened.matrix(split).flags.writeable
    stored = opened.matrix("train").astype(np.float64)
    assert opened.mean == pytest.approx(stored.mean(axis=0), rel=1e-6)
    assert opened.std == pytest.approx(stored.std(axis=0), rel=1e-6)
    assert (opened.target, opened.card) == (Target.of_classes(3), "A card.")


def test_rows_that_half_precision_would_change_are_kept_and_it_is_said(tmp_path: Path) -> None:
    values, said = arrays(), []
    values["matrices"]["test"][3, 4] = 7e4
    write(tmp_path / "x", **values, say=said.append)
    opened = open_(tmp_path / "x")
    for split in ("train", "validation", "test"):
        assert opened.matrix(split).dtype == np.float32
        assert np.array_equal(opened.matrix(split), values["matrices"][split])
    assert opened.mean == pytest.approx(values["matrices"]["train"].mean(axis=0, dtype=np.float64), rel=1e-6)
    assert said == [
        "Features: kept as float32, because audio conv2, channel 2 is 70000 in row 3 of test, and float16 is used "
        "below 60000 only"
    ]


def test_columns_may_come_in_several_arrays(folder: Path, tmp_path: Path) -> None:
    values = arrays()
    values["matrices"] = {split: [whole[:, :5], whole[:, 5:]] for split, whole in values["matrices"].items()}
    write(tmp_path / "y", **values)
    assert (tmp_path / "y" / "features-train.npy").read_bytes() == (folder / "features-train.npy").read_bytes()


def test_how_they_were_extracted_is_in_the_manifest_but_not_in_the_key(tmp_path: Path) -> None:
    write(tmp_path / "x", extraction={"batch_sizes": {"audio": 8}})
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["extraction"] == {"batch_sizes": {"audio": 8}}
    assert manifest["dtype"] == "float16"
    open_(tmp_path / "x")


def test_columns_are_modality_by_modality() -> None:
    layout = FeatureLayout.of_widths(WIDTHS)
    assert layout.columns("audio", "conv2") == slice(2, 5)
    assert layout.columns("image", "conv1") == slice(5, 9)
    assert layout.n_columns == 9
    assert layout.column_name(4) == "audio conv2, channel 2"


def test_another_key_is_refused_with_what_differs(folder: Path) -> None:
    with pytest.raises(CacheError, match="built from another backbones"):
        open_(folder, {**KEY, "backbones": {"audio": "1", "image": "3"}})


def flip(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("name", ["features-train.npy", "labels-test.npy", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damage_is_noticed_and_named(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    with pytest.raises(CacheError) as raised:
        open_(folder)
    assert str(folder / name) in str(raised.value)
    assert REBUILD in str(raised.value)


@pytest.mark.parametrize("what", ["mean", "std", "spans", "card", "target", "dtype"])
def test_an_altered_manifest_is_noticed(folder: Path, what: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    others = {
        "mean": [0.0] * 9,
        "std": [1.0] * 9,
        "card": "Another.",
        "target": {"kind": "multilabel", "names": ["0", "1", "2"]},
        "spans": {},
        "dtype": "float32",
    }
    manifest[what] = others[what]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CacheError, match="its own SHA-256"):
        open_(folder)


def test_another_format_version_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"version": 3', '"version": 1'), encoding="utf-8")
    with pytest.raises(CacheError, match="expected format 3, found 1"):
        open_(folder)


def test_it_is_replaced_as_a_whole_and_an_open_one_stays_readable(folder: Path) -> None:
    before = open_(folder)
    first = before.matrix("train").copy()
    write(folder, seed=1)
    assert np.array_equal(before.matrix("train"), first)
    assert np.array_equal(open_(folder).matrix("train"), arrays(1)["matrices"]["train"].astype(np.float16))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_before_anything_is_written(tmp_path: Path, value: float) -> None:
    values = arrays()
    values["matrices"]["validation"][4, 6] = value
    with pytest.raises(DataError, match="'validation': row 4, column 6"):
        write(tmp_path / "x", **values)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mfas_optuna.features.cache.os.fsync", full)
    with pytest.raises(HomeError, match="No space left"):
        write(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_backbones_are_not_standardised_and_constant_columns_not_divided() -> None:
    layout = FeatureLayout.of_widths({"audio": {"a": 2, OUTPUT: 2}, "image": {"b": 1}})
    mean, std = np.arange(1, 6, dtype=np.float32), np.array([2, 0, 3, 4, 5], dtype=np.float32)
    shift, scale = layout.standardization(mean, std)
    assert shift.tolist() == [1, 2, 0, 0, 5]
    assert scale.tolist() == [2, 1, 1, 1, 5]
