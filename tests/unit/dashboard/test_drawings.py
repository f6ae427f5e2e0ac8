"""Drawings as artifacts."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from mfas_optuna import storage as database
from mfas_optuna.dashboard import Drawings
from mfas_optuna.dashboard import attributes as kept
from mfas_optuna.dashboard.drawings import KIND, drawing_of, redraw_from

from ..visualization.studies import failed, searched


def test_what_is_written_is_read_and_removed(tmp_path: Path) -> None:
    drawings = Drawings(tmp_path / "artifacts")
    assert not drawings.has("1-ab")
    with pytest.raises(ArtifactNotFound, match="no artifact 1-ab in"):
        drawings.open_reader("1-ab")
    for content in (b"one", b"another"):
        drawings.write("1-ab", io.BytesIO(content))
        with drawings.open_reader("1-ab") as file:
            assert file.read() == content
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["1-ab"]
    drawings.remove("1-ab")
    drawings.remove("1-ab")
    assert not drawings.has("1-ab")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".", "ab.svg", "a" * 300, "x"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    drawings = Drawings(tmp_path)
    for use in (drawings.has, drawings.open_reader, drawings.remove, lambda name: drawings.write(name, io.BytesIO())):
        with pytest.raises(ValueError, match="hexadecimal"):
            use(name)


def test_a_reader_sees_whole_files_while_they_are_written(tmp_path: Path) -> None:
    drawings = Drawings(tmp_path)
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    drawings.write("ab", io.BytesIO(contents[0]))
    is_done = threading.Event()

    def write() -> None:
        for turn in range(200):
            drawings.write("ab", io.BytesIO(contents[turn % 2]))
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    torn = 0
    while not is_done.is_set():
        with drawings.open_reader("ab") as file:
            torn += file.read() not in contents
    writer.join()
    assert torn == 0


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("no more")

    drawings = Drawings(tmp_path)
    drawings.write("ab", io.BytesIO(b"whole"))
    with pytest.raises(OSError, match="no more"):
        drawings.write("ab", Torn())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_drawing_that_lies_on_another_machine_is_drawn_again(tmp_path: Path) -> None:
    storage = database.open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
    study = optuna.create_study(study_name="drawn", storage=storage, direction="maximize")
    study.add_trials(searched(n_trials=3).trials)
    trial = study.trials[1]
    found = drawing_of(study.study_name, trial)
    assert found is not None
    artifact_id, svg = found
    assert svg.startswith(b"<svg")
    assert b"background:#fff" in svg
    drawings = Drawings(tmp_path / "artifacts", redraw_from(storage))
    with pytest.raises(ArtifactNotFound):  # No study says that it has it.
        drawings.open_reader(artifact_id)
    kept.write_artifact(study, trial._trial_id, artifact_id, "trial-1.svg", KIND)
    assert drawings.open_reader(artifact_id).read() == svg
    kept.write_artifact(study, trial._trial_id, "abcdef", "photo.png", "image/png")
    with pytest.raises(ArtifactNotFound):  # A user's.
        drawings.open_reader("abcdef")


def test_identifiers_tell_trials_and_studies_apart() -> None:
    first, second = searched(n_trials=2).trials
    found = {drawing_of("a", first), drawing_of("a", second), drawing_of("b", first)}
    assert len({drawing[0] for drawing in found if drawing is not None}) == 3
    assert drawing_of("a", first) == drawing_of("a", first)
    assert drawing_of("a", failed().trials[0]) is None
