"""`mfas-optuna doctor` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Cli


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def levels(cli: Cli, *arguments: str, code: int = 0) -> dict[str, tuple[str, str]]:
    result = cli.run("doctor", "--json", *arguments)
    assert result.returncode == code, result.stderr
    found = json.loads(result.stdout)
    assert found["sound"] == (code == 0)
    return {finding["name"]: (finding["level"], finding["found"]) for finding in found["findings"]}


def test_a_prepared_study_is_in_order_and_nothing_is_written(cli: Cli) -> None:
    before = tree(cli.folder)
    found = levels(cli, "--study", "tiny")
    text = cli.ok("doctor", "--study", "tiny", COLUMNS="80")
    assert tree(cli.folder) == before
    assert found["data digits"][1].startswith("built, digest ")
    assert found["backbone audio"][1].startswith("made, digest ")
    assert str(cli.home / "features") in found["features"][1]
    assert text.splitlines()[-1] == "0 problems, 0 warnings."
    assert max(map(len, text.splitlines())) <= 80
    assert "data digits" not in levels(cli)


def test_what_is_missing_is_a_problem(cli: Cli) -> None:
    assert levels(cli, "--study", "avmnist", code=1)["data avmnist"][0] == "problem"
    index = next((cli.home / "backbones").glob("digits-audio-*.json"))
    digest = json.loads(index.read_text(encoding="utf-8"))["digest"]
    (cli.home / "weights" / digest[:2] / f"{digest}.safetensors").unlink()
    level, what = levels(cli, "--study", "tiny", code=1)["preparation"]
    assert level == "problem"
    assert digest in what
    assert "mfas-optuna prepare --study tiny --force" in what
    text = cli.run("doctor", "--study", "tiny").stdout
    assert text.splitlines()[-1] == "1 problem, 0 warnings."


def test_a_study_that_is_not_prepared_is_in_order(cli: Cli) -> None:
    found = levels(cli, "--study", "digits")
    assert found["data digits"] == ("ok", "not built yet; it needs no files")
    assert found["features"][0] == found["backbone image"][0] == "ok"


def test_a_study_that_there_is_not(cli: Cli) -> None:
    result = cli.run("doctor", "--study", "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("mfas-optuna: ")
