"""The authors' ready-made file."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from mfas_optuna.datasets.mmimdb import find
from mfas_optuna.datasets.mmimdb.found import GENRES
from mfas_optuna.datasets.mmimdb.hdf5 import BGR_MEANS, FILE, PUBLISHED
from mfas_optuna.datasets.samples import Problem, SampleError, Source
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import MmimdbSettings

SMALL = MmimdbSettings(name="mmimdb", image_height=16, image_width=20, text_width=5)
N_ROWS = 12
SPANS = {"train": (0, 7), "dev": (7, 9), "test": (9, 12)}


@pytest.fixture
def copied(made_hdf5: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_hdf5, tmp_path / "copy"))


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    with h5py.File(folder / FILE, "r+") as h5:
        edit(h5)


def errors(source: Source) -> list[Problem]:
    return [problem for problem in source.problems if problem.is_error]


def as_authors(posters: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """What the authors' procedure makes of posters [n, 3, H, W], value by value."""
    stored = np.empty(posters.shape, dtype=np.int32)
    for channel, mean in enumerate(BGR_MEANS):
        for at, value in np.ndenumerate(posters[:, 2 - channel]):
            stored[(at[0], channel, *at[1:])] = int(float(value) - mean)
    return stored


def write(folder: Path, images: npt.NDArray[Any]) -> Path:
    """Write a file with the authors' names and types, splits in Fuel's table, and return its folder."""
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    fields = [("split", "S5"), ("source", "S8"), ("start", "<i8"), ("stop", "<i8"), ("indices", h5py.ref_dtype)]
    table = np.array(
        [
            (split.encode(), source.encode(), *span, h5py.Reference())
            for split, span in SPANS.items()
            for source in ("features", "genres", "images", "imdb_ids")
        ],
        dtype=np.dtype(fields),
    )
    with h5py.File(folder / FILE, "w") as h5:
        h5["images"] = images
        h5["features"] = rng.normal(size=(N_ROWS, 5)).astype(np.float32)
        h5["genres"] = np.stack([np.ones(N_ROWS), np.arange(N_ROWS) % 2], axis=1).astype(np.int32)
        h5["genres"].attrs["target_names"] = json.dumps(["Drama", "Comedy"])
        h5["imdb_ids"] = np.array([f"{row:07d}" for row in range(N_ROWS)], dtype="S7")
        h5.attrs["split"] = table
    return folder


@pytest.fixture
def posters() -> npt.NDArray[np.uint8]:
    drawn: npt.NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (N_ROWS, 3, 16, 20)).astype(np.uint8)
    drawn[:, 0, 0, :4], drawn[:, 2, 0, :4] = [0, 123, 124, 255], [0, 103, 104, 255]
    return drawn


def test_values_read_are_those_that_were_written(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", as_authors(posters))
    source = find(SMALL, folder)
    assert [len(source.splits[split]) for split in ("train", "validation", "test")] == [7, 2, 3]
    assert source.target.names == ("Drama", "Comedy")
    assert source.target.kind == "multilabel"
    assert list(source.modalities) == ["image", "text"]
    assert source.stand_in == ""
    assert not source.problems
    with h5py.File(folder / FILE) as h5:
        features = h5["features"][:]
    row = 0
    means = np.floor(BGR_MEANS)[::-1, None, None]
    for split in ("train", "validation", "test"):
        for sample in source.splits[split]:
            assert sample.name == f"{row:07d}"
            assert sample.label == (1, row % 2)
            read = source.read(sample)
            assert {name: (value.shape, value.dtype) for name, value in read.items()} == {
                name: (what.shape, what.dtype) for name, what in source.modalities.items()
            }
            np.testing.assert_array_equal(read["text"], features[row])
            # The two values on both sides of a mean are stored alike; the upper one is read.
            expected = np.where(posters[row] == means, means + 1, posters[row])
            np.testing.assert_array_equal(read["image"], expected)
            row += 1
    assert row == N_ROWS


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (lambda x: x, "uint8, 0 to 255"),
        (lambda x: x.astype(np.float32), "float32, 0 to 255"),
        (lambda x: (x / 255).astype(np.float32), "float32, 0 to 1"),
        (lambda x: x[:, ::-1] - np.reshape(BGR_MEANS, (3, 1, 1)).astype(np.float32), "float32, blue, green, red"),
    ],
)
def test_how_pixels_are_stored_is_detected_and_said(
    posters: npt.NDArray[np.uint8], tmp_path: Path, stored: Callable[[Any], Any], said: str
) -> None:
    source = find(SMALL, write(tmp_path / "data", stored(posters)))
    assert said in source.card
    read = [source.read(sample)["image"] for split in source.splits.values() for sample in split]
    np.testing.assert_array_equal(read, posters)


def test_the_published_file_without_a_table_of_splits(tmp_path: Path) -> None:
    n_rows = sum(PUBLISHED.values())
    assert (n_rows, tuple(PUBLISHED.values())) == (25_959, (15_552, 2_608, 7_799))
    with h5py.File(tmp_path / FILE, "w") as h5:
        h5.create_dataset("images", (n_rows, 3, 256, 160), dtype="i4")  # takes no place on disk until it is written
        h5.create_dataset("features", (n_rows, 300), dtype="f4")
        h5["genres"] = np.eye(23, dtype=np.int32)[np.arange(n_rows) % 23]
        h5["imdb_ids"] = np.array([f"{row:07d}" for row in range(n_rows)], dtype="S7")
    source = find(MmimdbSettings(name="mmimdb"), tmp_path)
    assert {split: (samples[0].at, samples[-1].at) for split, samples in source.splits.items()} == {
        "train": (0, 15_551),
        "validation": (15_552, 18_159),
        "test": (18_160, 25_958),
    }
    assert source.target.names == GENRES
    assert "does not name them" in source.card
    assert not source.problems
    with pytest.raises(DataNotFoundError, match="source = 'raw'"):
        find(MmimdbSettings(name="mmimdb", source="raw"), tmp_path)


def test_unnamed_genres_of_another_number_are_numbered(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters)
    change(folder, lambda h5: h5["genres"].attrs.__delitem__("target_names"))
    assert find(SMALL, folder).target.names == ("genre 1", "genre 2")


def test_facts_change_with_the_file(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters)
    before = find(SMALL, folder).facts
    assert find(SMALL, folder).facts == before
    json.dumps(before)
    change(folder, lambda h5: h5["features"].__setitem__((0, 0), 9.0))
    assert find(SMALL, folder).facts != before


def rename(h5: Any) -> None:
    h5.move("features", "vgg_features")


def shorten(h5: Any) -> None:
    rows = h5["features"][:-1]
    del h5["features"]
    h5["features"] = rows


def flatten(h5: Any) -> None:
    del h5["images"]
    h5["images"] = np.zeros((N_ROWS, 960), dtype=np.int32)


def as_words(h5: Any) -> None:
    del h5["images"]
    h5["images"] = np.zeros((N_ROWS, 3, 16, 20), dtype="S1")


def move_split(start: int, stop: int) -> Callable[[Any], None]:
    def edit(h5: Any) -> None:
        table = h5.attrs["split"]
        table["start"][table["split"] == b"dev"], table["stop"][table["split"] == b"dev"] = start, stop
        h5.attrs["split"] = table

    return edit


def drop_dev(h5: Any) -> None:
    table = h5.attrs["split"]
    h5.attrs["split"] = table[table["split"] != b"dev"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename, r"found no features; there is genres, images, imdb_ids, vgg_features"),
        (shorten, r"as many rows in each data set, found images 12, features 11"),
        (flatten, r"images: expected 4 axes, found \[12, 960\]"),
        (as_words, r"images: expected numbers, found \|S1"),
        (lambda h5: h5.attrs.__delitem__("split"), r"found 12 rows and no such attribute"),
        (lambda h5: h5.attrs.__setitem__("split", [0, 7]), r"expected Fuel's table"),
        (move_split(6, 9), r"do not overlap"),
        (move_split(7, 7), r"do not overlap"),
        (move_split(9, 13), r"do not overlap within 12 rows"),
        (drop_dev, r"one range of rows for dev, found \[\]"),
        (lambda h5: h5["genres"].attrs.__setitem__("target_names", '["Drama"]'), r"JSON list of 2 names"),
        (lambda h5: h5["genres"].attrs.__setitem__("target_names", "Drama, Comedy"), r"JSON list of 2 names"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(
    posters: npt.NDArray[np.uint8], tmp_path: Path, edit: Callable[[Any], None], message: str
) -> None:
    folder = write(tmp_path / "data", posters)
    change(folder, edit)
    with pytest.raises(DataError, match=message):
        find(SMALL, folder)


def test_smaller_posters_are_means_of_blocks(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters.astype(np.int32))
    source = find(SMALL.model_copy(update={"image_height": 4, "image_width": 5}), folder)
    assert source.modalities["image"].shape == (3, 4, 5)
    assert "here they are 1/4 as high and as wide" in source.card
    for row, sample in enumerate(source.splits["train"]):
        image = source.read(sample)["image"]
        for channel, y, x in np.ndindex(3, 4, 5):
            block = posters[row, channel, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            assert image[channel, y, x] == round(float(block.mean()))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_height", 8, r"asks for \[3, 8, 20\].*found \[3, 16, 20\].*same whole fraction"),
        ("image_height", 32, r"asks for \[3, 32, 20\].*found \[3, 16, 20\].*image_height"),
        ("text_width", 300, r"asks for text_width = 300, found 5"),
    ],
)
def test_a_file_that_contradicts_the_settings(
    posters: npt.NDArray[np.uint8], tmp_path: Path, field: str, value: int, message: str
) -> None:
    folder = write(tmp_path / "data", posters)
    with pytest.raises(DataError, match=message):
        find(SMALL.model_copy(update={field: value}), folder)


def test_what_is_no_hdf5_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\x89HDF\r\n\x1a\n and then nothing")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        find(SMALL, tmp_path)


@pytest.mark.parametrize(
    ("data_set", "at", "value", "message"),
    [
        ("features", (2, 3), np.nan, "features, row 2: expected finite numbers, found nan in column 3"),
        ("features", (2, 1), -np.inf, "features, row 2: expected finite numbers, found -inf in column 1"),
        ("images", (2, 1, 4, 5), np.nan, r"images, row 2: .*found nan at \[1, 4, 5\]"),
        ("images", (2, 0, 0, 0), 999.0, r"images, row 2: .*found 999.0 at \[0, 0, 0\]"),
    ],
)
def test_values_that_cannot_be(
    posters: npt.NDArray[np.uint8], tmp_path: Path, data_set: str, at: tuple[int, ...], value: float, message: str
) -> None:
    folder = write(tmp_path / "data", posters.astype(np.float32))
    change(folder, lambda h5: h5[data_set].__setitem__(at, value))
    source = find(SMALL, folder)
    assert not errors(source)
    bad = source.splits["train"][2]
    with pytest.raises(SampleError, match=message) as caught:
        source.read(bad)
    assert caught.value.problem.sample == bad.name
    source.read(source.splits["train"][1])


@pytest.mark.parametrize(
    ("label", "rule"),
    [([0, 0], "expected at least one genre, found none"), ([2, 0], r"expected 0 or 1, found [2, 0]")],
)
def test_labels_that_cannot_be(posters: npt.NDArray[np.uint8], tmp_path: Path, label: list[int], rule: str) -> None:
    folder = write(tmp_path / "data", posters)
    change(folder, lambda h5: h5["genres"].__setitem__(2, label))
    source = find(SMALL, folder)
    (problem,) = errors(source)
    assert problem.sample == "0000002"
    assert "row 2" in problem.where
    assert rule in problem.rule
    assert [sample.name for sample in source.splits["train"]] == [f"{row:07d}" for row in (0, 1, 3, 4, 5, 6)]


def test_a_film_in_two_splits(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters)
    change(folder, lambda h5: h5["imdb_ids"].__setitem__(10, b"0000001"))
    source = find(SMALL, folder)
    (problem,) = errors(source)
    assert problem.sample == "0000001"
    assert "imdb id 0000001 is that of row 1 too" in problem.rule
    assert [sample.at for sample in source.splits["test"]] == [9, 11]


def test_a_genre_that_a_split_lacks(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters)
    change(folder, lambda h5: h5["genres"].__setitem__((slice(0, 9), 1), 0))
    problems = find(SMALL, folder).problems
    assert [(problem.where, problem.is_error) for problem in problems] == [
        ("train split", True),
        ("validation split", False),
    ]
    assert all("no film of Comedy" in problem.rule for problem in problems)


def test_without_h5py_the_extra_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install 'mfas-optuna\[mmimdb\]'"):
        find(MmimdbSettings(name="mmimdb", image_height=64, image_width=40), copied)


def test_many_threads_read_what_one_reads(made_hdf5: Path) -> None:
    source = find(MmimdbSettings(name="mmimdb", image_height=64, image_width=40), made_hdf5)
    samples = source.splits["train"]
    with ThreadPoolExecutor(4) as threads:
        by_many = list(threads.map(source.read, samples))
    for sample, read in zip(samples, by_many, strict=True):
        one = source.read(sample)
        assert all(np.array_equal(one[modality], read[modality]) for modality in one)


def test_a_file_that_was_replaced_is_opened_anew(posters: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write(tmp_path / "data", posters)
    source = find(SMALL, folder)
    before = source.read(source.splits["train"][0])["image"]
    write(tmp_path / "new", 255 - posters)
    (tmp_path / "new" / FILE).replace(folder / FILE)
    source = find(SMALL, folder)
    np.testing.assert_array_equal(source.read(source.splits["train"][0])["image"], 255 - before)


def test_the_made_file_is_marked(made_hdf5: Path, copied: Path) -> None:
    settings = MmimdbSettings(name="mmimdb", image_height=64, image_width=40)
    source = find(settings, copied)
    assert "stand-in for MM-IMDB" in source.stand_in
    assert "genres 6" in source.stand_in
    assert source.target.names == GENRES[:6]
    assert "int32, blue, green, red" in source.card
    (copied / "STAND-IN.json").unlink()
    assert find(settings, copied).stand_in == ""
    assert find(settings, made_hdf5).splits == source.splits
