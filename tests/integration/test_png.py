"""The pictures of a report as files."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import optuna
import pytest

from mfas_optuna.errors import HomeError, PictureError
from mfas_optuna.report import html
from mfas_optuna.report.html.pictures import Drawing
from mfas_optuna.visualization import draw_network, plot_lineage, plot_parameters

from ..unit.visualization.studies import randomly_searched, searched


@pytest.fixture(scope="module")
def pictures() -> html.Pictures:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = searched(n_iterations=1)
    figures = {"parameters": plot_parameters(study), "lineage": plot_lineage(randomly_searched(2))}
    optuna.logging.set_verbosity(before)
    return html.Pictures(figures, (), (Drawing("best", "", (), draw_network(study)),), "", None)


def test_pictures_are_files(pictures: html.Pictures, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        if os.environ.get("CI"):
            pytest.fail("chromium, which draws the figures, is not installed")
        pytest.skip("chromium, which draws the figures, is not installed")
    folder = tmp_path / "new" / "folder"
    written = html.save(pictures, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["best-1.svg", "parameters.png"]
    assert {path.name for path in written} == {"best-1.svg", "parameters.png"}
    data = (folder / "parameters.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1600, 2 * pictures.figures["parameters"].layout.height)
    assert len(data) > 20_000  # An empty picture of this size is a tenth of it.


def test_without_a_browser_the_error_says_what_to_do(
    pictures: html.Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PictureError, match=r"expected a browser .* found none on the path. Install Chromium"):
        html.save(pictures, tmp_path)


def test_a_browser_that_does_not_draw_is_named(
    pictures: html.Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        PictureError, match=r"parameters.png: .*chromium ended with 3 and drew nothing. It said: no disp"
    ):
        html.save(pictures, tmp_path / "out")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HomeError, match=r"--png .*file: it cannot be written: File exists"):
        html.save(pictures, tmp_path / "file")
