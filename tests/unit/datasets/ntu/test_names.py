"""Names, protocols and the list of missing skeletons."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfas_optuna.datasets.ntu import names
from mfas_optuna.datasets.ntu.missing import FILE, missing_skeletons
from mfas_optuna.errors import DataError


def test_parts_of_a_name() -> None:
    name = names.parse("S012C003P027R002A009")
    assert name == names.Name(setup=12, camera=3, subject=27, replication=2, action=9)
    assert str(name) == "S012C003P027R002A009"
    assert (
        names.sample_of("S012C003P027R002A009.skeleton") == names.sample_of("S012C003P027R002A009_rgb.avi") == str(name)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S012C003P027R002A09",
        "S012C003P027R002A0009",
        "s012c003p027r002a009",
        "S012C003P027R002A009_rgb",
        "S000C003P027R002A009",
        "S012C003P027R002A٠٠٩",
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert names.parse(text) is None


def subjects(protocol: names.Protocol, split: str, camera: int = 1) -> list[int]:
    return [p for p in range(1, 43) if names.split_of(names.Name(1, camera, p, 1, 1), protocol) == split]


def test_split_of_the_search() -> None:
    assert subjects("search", "train") == [1, 4, 8, 13, 15, 17, 19]
    assert subjects("search", "validation") == [2, 5, 9, 14]
    held_back = [3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40]
    assert subjects("search", "test") == [*held_back, 41, 42]
    assert names.split_of(names.Name(1, 1, 16, 1, 1), "search") is None


def test_split_between_subjects() -> None:
    assert subjects("cross_subject", "train") == [1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38]
    assert subjects("cross_subject", "validation") == subjects("search", "validation")
    assert subjects("cross_subject", "test") == subjects("search", "test")


def test_split_between_cameras() -> None:
    assert subjects("cross_view", "test", camera=1) == list(range(1, 43))
    for camera in (2, 3):
        assert subjects("cross_view", "validation", camera) == [2, 5, 9, 14]
        assert len(subjects("cross_view", "train", camera)) == 38
    assert names.split_of(names.Name(1, 4, 1, 1, 1), "cross_view") is None


@pytest.mark.parametrize(("text", "is_of_ntu_60"), [("S017C003P040R002A060", True), ("S018C001P001R001A001", False)])
def test_names_of_ntu_120(text: str, is_of_ntu_60: bool) -> None:
    name = names.parse(text)
    assert name is not None
    assert name.is_of_ntu_60 == is_of_ntu_60


def test_list_of_missing_skeletons() -> None:
    listed = missing_skeletons()
    assert len(listed) == 302
    assert {"S001C002P005R002A008", "S007C003P027R002A013", "S017C003P020R001A059"} <= listed
    assert "S001C001P001R001A001" not in listed
    parsed = [names.parse(text) for text in listed]
    assert all(name is not None and name.is_of_ntu_60 for name in parsed)


def test_list_in_the_data_folder_adds_to_it(tmp_path: Path) -> None:
    assert missing_skeletons(tmp_path) == missing_skeletons()
    (tmp_path / FILE).write_text(
        "2 of the samples are missing.\nSee below.\n\nS001C001P001R001A001\nS001C001P001R001A002\n"
    )
    assert missing_skeletons(tmp_path) - missing_skeletons() == {"S001C001P001R001A001", "S001C001P001R001A002"}


def test_faults_of_the_list_are_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("# mine\nS001C001P001R001A01\n")
    with pytest.raises(
        DataError, match=r"missing_skeletons.txt, line 2: expected a name .* found 'S001C001P001R001A01'"
    ):
        missing_skeletons(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as text"):
        missing_skeletons(tmp_path)
