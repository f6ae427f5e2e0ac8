"""Rows of an extraction under way: what counts is on disk and whole, everything else is thrown away."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfas_optuna.features.partial import JOURNAL, PartialFeatures

ORIGIN = {"key": {"dataset": "x"}, "device": "cpu"}
WIDTHS = {"audio": 3, "image": 2}
ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def look(folder: Path, **changes: Any) -> PartialFeatures:
    return PartialFeatures(folder, **{"origin": ORIGIN, "widths": WIDTHS, "checkpoint_s": 0.0, **changes})


class StoppedError(Exception):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A partial whose 20 first rows count; 5 more are in the file, as after a kill."""
    path = tmp_path / "partial"
    partial = look(path)
    partial.batch_sizes["audio"] = 4
    with contextlib.suppress(StoppedError), partial.appending("train", "audio") as append:
        append(0, ROWS[:8])
        append(8, ROWS[8:20])
        raise StoppedError
    with (path / "train.audio.f32").open("ab") as file:
        file.write(ROWS[20:25].tobytes())
    return path


def test_rows_that_count_are_found_again_and_the_rest_goes_on_from_there(folder: Path) -> None:
    partial = look(folder)
    assert (partial.n_done("train", "audio"), partial.n_done("train", "image"), partial.n_rows) == (20, 0, 20)
    assert partial.batch_sizes == {"audio": 4}
    assert np.array_equal(partial.rows("train", "audio"), ROWS[:20])
    with partial.appending("train", "audio") as append:
        append(20, ROWS[20:])
    again = look(folder)
    assert again.n_rows == 40
    assert np.array_equal(again.rows("train", "audio"), ROWS)
    assert not again.rows("train", "audio").flags.writeable


def test_rows_count_only_once_they_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = look(tmp_path / "partial")
    partial.batch_sizes["audio"] = 4

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with partial.appending("train", "audio") as append:
        append(0, ROWS[:8])
        monkeypatch.setattr("mfas_optuna.features.partial.os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            append(8, ROWS[8:])
        monkeypatch.undo()
        assert look(tmp_path / "partial").n_rows == 8


def test_between_checkpoints_nothing_is_brought_to_disk(tmp_path: Path) -> None:
    partial = look(tmp_path / "partial", checkpoint_s=1000.0)
    partial.batch_sizes["audio"] = 4
    with partial.appending("train", "audio") as append:
        append(0, ROWS[:8])
        assert not (partial.folder / JOURNAL).exists()
        append(8, ROWS[8:12])
    assert look(partial.folder).n_rows == 12


def test_rows_out_of_order_are_a_mistake_of_the_caller(folder: Path) -> None:
    partial = look(folder)
    with partial.appending("train", "audio") as append, pytest.raises(ValueError, match="row 20 next, found row 24"):
        append(24, ROWS[24:])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 20 * 12 - 1])


def scribble(path: Path) -> None:
    path.write_text("[]", encoding="utf-8")


def without_batch_sizes(path: Path) -> None:
    journal = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**journal, "batch_sizes": {}}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("train.audio.f32", flip, "train.audio.f32 is damaged"),
        ("train.audio.f32", cut, "train.audio.f32 is damaged"),
        ("train.audio.f32", Path.unlink, "train.audio.f32 is damaged"),
        (JOURNAL, scribble, "journal.json is damaged"),
        (JOURNAL, without_batch_sizes, "journal.json is damaged"),
        (JOURNAL, Path.unlink, "before anything of it was on disk"),
    ],
)
def test_what_is_damaged_is_thrown_away_with_a_log_line(
    folder: Path, name: str, damage: Callable[[Path], None], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / name)
    with caplog.at_level(logging.WARNING):
        partial = look(folder)
    assert (partial.n_rows, partial.batch_sizes) == (0, {})
    assert expected in caplog.text
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"origin": {**ORIGIN, "key": {"dataset": "y"}}}, "key"),
        ({"origin": {**ORIGIN, "device": "cuda"}}, "device"),
        ({"widths": {"audio": 4, "image": 2}}, "widths"),
    ],
)
def test_rows_of_something_else_are_thrown_away(
    folder: Path, changes: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert look(folder, **changes).n_rows == 0
    assert f"begun with another {field}." in caplog.text
    assert not folder.exists()
