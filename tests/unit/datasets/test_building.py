"""Reading samples: each once, in any number of threads, going on where a kill stopped it; bad ones named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfas_optuna.datasets import building, store
from mfas_optuna.datasets.samples import Modality, Problem, Sample, SampleError, Source
from mfas_optuna.errors import DataError
from mfas_optuna.progress import silent
from mfas_optuna.target import Target

SIZES = {"train": 40, "validation": 8, "test": 6}
MODALITIES = {"a": Modality((3,), "float32", "vector"), "b": Modality((1, 2, 2), "uint8", "image")}


def content(name: str) -> dict[str, np.ndarray[Any, Any]]:
    number = int(name.split()[1]) + 100 * list(SIZES).index(name.split()[0])
    return {"a": np.full(3, number / 7, np.float32), "b": np.full((1, 2, 2), number % 251, np.uint8)}


def source(read: Callable[[Sample], Mapping[str, Any]], *, reads_here: bool = False, facts: str = "x") -> Source:
    return Source(
        splits={
            split: [Sample(f"{split} {row}", row % 2, row) for row in range(size)] for split, size in SIZES.items()
        },
        target=Target.of_classes(2),
        modalities=MODALITIES,
        read=read,
        facts={"facts": facts},
        card="made up.",
        reads_here=reads_here,
    )


def arrays(folder: Path, split: str) -> dict[str, Any]:
    return {name: np.load(store.array_file(folder, split, name)) for name in (*MODALITIES, "labels")}


@pytest.mark.parametrize("reads_here", [False, True])
def test_every_sample_is_read_once_and_lies_in_its_row(tmp_path: Path, reads_here: bool) -> None:
    read: list[str] = []
    threads = set()

    def reader(sample: Sample) -> Mapping[str, Any]:
        read.append(sample.name)
        threads.add(threading.current_thread().name)
        return content(sample.name)

    made = source(reader, reads_here=reads_here)
    assert building.read_all(made, tmp_path / "reading", silent) == []
    assert sorted(read) == sorted(sample.name for samples in made.splits.values() for sample in samples)
    assert not reads_here or threads == {"MainThread"}
    (tmp_path / "built").mkdir()
    contents = building.write(made, tmp_path / "reading", tmp_path / "built", [])
    for split, samples in made.splits.items():
        found = arrays(tmp_path / "built", split)
        assert found["labels"].tolist() == [sample.label for sample in samples]
        for row, sample in enumerate(samples):
            for modality, value in content(sample.name).items():
                assert (found[modality][row] == value).all()
    assert contents.skipped == ()
    assert "samples: 40 for train, 8 for validation, 6 for test." in contents.card
    assert "0 20/4/3, 1 20/4/3" in contents.card


def test_a_reading_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_CHECKPOINT_S", 0.0)
    read: list[str] = []

    def reader(sample: Sample) -> Mapping[str, Any]:
        read.append(sample.name)
        if len(read) == 30:
            raise KeyboardInterrupt
        return content(sample.name)

    with pytest.raises(KeyboardInterrupt):
        building.read_all(source(reader, reads_here=True), tmp_path / "reading", silent)
    building.read_all(source(reader, reads_here=True), tmp_path / "reading", silent)
    repeated = {name for name in read if read.count(name) > 1}
    assert repeated == {"train 29"}
    assert set(read) == {f"{split} {row}" for split, size in SIZES.items() for row in range(size)}
    (tmp_path / "built").mkdir()
    building.write(source(reader), tmp_path / "reading", tmp_path / "built", [])
    assert all(
        (row == content(f"train {number}")["a"]).all()
        for number, row in enumerate(arrays(tmp_path / "built", "train")["a"])
    )


def test_what_was_read_of_other_files_is_read_again(tmp_path: Path) -> None:
    read: list[str] = []

    def reader(sample: Sample) -> Mapping[str, Any]:
        read.append(sample.name)
        return content(sample.name)

    building.read_all(source(reader), tmp_path / "reading", silent)
    building.read_all(source(reader), tmp_path / "reading", silent)
    assert len(read) == sum(SIZES.values())
    building.read_all(source(reader, facts="y"), tmp_path / "reading", silent)
    assert len(read) == 2 * sum(SIZES.values())


def test_bad_samples_are_all_named_kept_in_mind_and_left_out(tmp_path: Path) -> None:
    bad = {
        "train 3": {"a": np.array([1, np.nan, 2], np.float32), "b": content("train 3")["b"]},
        "train 5": {"a": content("train 5")["a"]},
        "train 7": {"a": np.zeros(4, np.float32), "b": content("train 7")["b"]},
        "test 2": {"a": content("test 2")["a"], "b": np.zeros((1, 2, 2), np.float32)},
    }

    def reader(sample: Sample) -> Mapping[str, Any]:
        if sample.name == "validation 1":
            raise SampleError(Problem("file.avi", "expected frames, found none.", "Mend it.", sample.name))
        return bad.get(sample.name) or content(sample.name)

    problems = building.read_all(source(reader), tmp_path / "reading", silent)
    assert [problem.sample for problem in problems] == [*list(bad)[:3], "validation 1", "test 2"]
    texts = "\n".join(map(str, problems))
    for expected in (
        "train 3, a: expected finite numbers, found nan at [1].",
        "train 5, b: the modality is missing; there is a.",
        "train 7, a: expected shape [3], found [4].",
        "file.avi: expected frames, found none. Mend it.",
        "test 2, b: expected uint8, found float32.",
    ):
        assert expected in texts
    assert building.read_all(source(reader), tmp_path / "reading", silent) == problems
    (tmp_path / "built").mkdir()
    contents = building.write(source(reader), tmp_path / "reading", tmp_path / "built", problems)
    assert contents.skipped == ("test 2", "train 3", "train 5", "train 7", "validation 1")
    assert "left out, 5: test 2, train 3, train 5, train 7, validation 1." in contents.card
    found = arrays(tmp_path / "built", "train")
    kept = [row for row in range(40) if row not in (3, 5, 7)]
    assert (found["a"][:, 0] == [content(f"train {row}")["a"][0] for row in kept]).all()
    assert found["labels"].tolist() == [row % 2 for row in kept]


def test_a_split_without_samples_is_refused(tmp_path: Path) -> None:
    made = source(lambda sample: content(sample.name))
    building.read_all(made, tmp_path / "reading", silent)
    problems = [Problem("x", "bad.", "Mend it.", f"test {row}") for row in range(6)]
    (tmp_path / "built").mkdir()
    with pytest.raises(DataError, match="test: no sample is left"):
        building.write(made, tmp_path / "reading", tmp_path / "built", problems)


def test_what_a_refused_or_killed_writing_leaves_need_not_be_read_again(tmp_path: Path) -> None:
    read: list[str] = []

    def reader(sample: Sample) -> Mapping[str, Any]:
        read.append(sample.name)
        return content(sample.name)

    made = source(reader)
    building.read_all(made, tmp_path / "reading", silent)
    odd = [Problem("x", "bad.", "Mend it.", f"train {row}") for row in range(1, 40, 2)]
    (tmp_path / "refused").mkdir()
    with pytest.raises(DataError, match="train: no sample of class 1, which cannot be learnt so"):
        building.write(made, tmp_path / "reading", tmp_path / "refused", odd)
    for folder in ("killed", "built"):  # A kill leaves what the first of the two leaves.
        (tmp_path / folder).mkdir()
        building.read_all(made, tmp_path / "reading", silent)
        building.write(made, tmp_path / "reading", tmp_path / folder, [])
    assert len(read) == sum(SIZES.values())
    assert (arrays(tmp_path / "built", "train")["a"] == arrays(tmp_path / "killed", "train")["a"]).all()


def test_where_files_cannot_lie_at_two_places_they_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(building.os, "link", refuse)
    made = source(lambda sample: content(sample.name))
    building.read_all(made, tmp_path / "reading", silent)
    (tmp_path / "built").mkdir()
    building.write(made, tmp_path / "reading", tmp_path / "built", [])
    assert (arrays(tmp_path / "built", "test")["a"][:, 0] == [content(f"test {row}")["a"][0] for row in range(6)]).all()
    building.read_all(made, tmp_path / "reading", silent)  # From the beginning: nothing half moved is believed.
    (tmp_path / "again").mkdir()
    building.write(made, tmp_path / "reading", tmp_path / "again", [])
    assert (arrays(tmp_path / "again", "test")["a"] == arrays(tmp_path / "built", "test")["a"]).all()


def test_equal_samples_in_two_splits_and_classes_that_are_left_out_are_warned_of(tmp_path: Path) -> None:
    def reader(sample: Sample) -> Mapping[str, Any]:
        return content({"test 4": "train 9", "validation 0": "validation 1"}.get(sample.name, sample.name))

    made = source(reader)
    building.read_all(made, tmp_path / "reading", silent)
    odd = [Problem("x", "bad.", "Mend it.", f"validation {row}") for row in range(1, 8, 2)]
    (tmp_path / "built").mkdir()
    contents = building.write(made, tmp_path / "reading", tmp_path / "built", odd)
    warnings = [Problem(**problem) for problem in contents.problems[len(odd) :]]
    assert [(warning.where, warning.rule) for warning in warnings] == [
        ("validation", "no sample of class 1."),
        ("test", "the same in every modality as a sample of another split: test 4 (as train 9)."),
    ]
    assert not any(warning.is_error for warning in warnings)


def test_an_error_of_the_program_is_no_fault_of_the_sample(tmp_path: Path) -> None:
    def reader(sample: Sample) -> Mapping[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        building.read_all(source(reader), tmp_path / "reading", silent)
