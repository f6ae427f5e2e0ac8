"""`mfas-optuna report` on a stored study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from mfas_optuna.cli import app

from ..report.helpers import Database


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stored = Database(tmp_path)
    stored.train("mfas", "MFAS", (0.9, 0.91))
    stored.train("late", "late fusion", (0.8, 0.81))
    yield stored.url
    stored.storage.engine.dispose()
    optuna.logging.set_verbosity(before)


def test_formats_and_files(url: str, tmp_path: Path) -> None:
    runner = CliRunner()

    def run(*options: str) -> str:
        result = runner.invoke(app, ["report", "--study", "digits", "--storage", url, *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "Verdict: The search was worth it: MFAS is better by 10.00" in run()
    assert run("--format", "markdown").startswith("# Report of study digits\n")
    assert json.loads(run("--format", "json"))["verdict"]["outcome"] == "worth_it"
    as_csv = run("--format", "csv")
    assert as_csv.startswith("study,stand_in,")
    target = tmp_path / "report.csv"
    target.write_text("old", encoding="utf-8")
    assert run("--format", "csv", "-o", str(target)) == ""
    assert target.read_text(encoding="utf-8") == as_csv
    run("-o", str(tmp_path / "report.txt"))
    assert "+10.00 [+10.00, +10.00]" in (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_suffix_names_the_format(url: str, tmp_path: Path) -> None:
    runner = CliRunner()
    for name, begins in (
        ("r.html", "<!DOCTYPE html>"),
        ("r.HTM", "<!DOCTYPE html>"),
        ("r.md", "# Report"),
        ("r.json", "{"),
        ("r.csv", "study,"),
        ("r.txt", "Report of"),
        ("r", "Report of"),
    ):
        target = tmp_path / name
        result = runner.invoke(app, ["report", "--study", "digits", "--storage", url, "-o", str(target)])
        assert result.exit_code == 0, result.output
        assert target.read_text(encoding="utf-8").startswith(begins)
    given = ["report", "--study", "digits", "--storage", url, "-f", "json", "-o", str(tmp_path / "x.html")]
    assert runner.invoke(app, given).exit_code == 0
    assert json.loads((tmp_path / "x.html").read_text(encoding="utf-8"))["version"] == 1


def test_wrong_options_exit_with_2(url: str, tmp_path: Path) -> None:
    runner = CliRunner()
    folder = tmp_path / "folder"
    folder.mkdir()
    for options, message in (
        (["-o", str(tmp_path / "none" / "r.txt")], "cannot be written: No such file or directory"),
        (["-o", str(folder)], "cannot be written: Is a directory"),
        (["--name", "other"], "There is no stored study 'other'"),
        (["-o", str(tmp_path / "r.pdf")], "expected a name that ends in .html, .htm"),
        (["--format", "pdf"], "'pdf' is not one of"),
    ):
        result = runner.invoke(app, ["report", "--study", "digits", "--storage", url, *options])
        assert result.exit_code == 2, options
        assert message in result.output
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("mfas.db")) == ["folder"]
    assert list(folder.iterdir()) == []
