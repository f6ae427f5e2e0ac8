"""The store of weights, and what a study reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mfas_optuna.doctor import Finding, Subject
from mfas_optuna.doctor.study import inputs, weights
from mfas_optuna.spec import StudySpec

from ..test_prepare import VALUES, make


def subject(home: Path, folder: Path | None = None, data_root: Path | None = None, **changes: Any) -> Subject:
    spec = StudySpec.model_validate({**VALUES, **changes})
    if folder is not None:
        spec._folder = folder
    return Subject(home, "sqlite:///unused.db", data_root=data_root, spec=spec, study="x")


def by_name(findings: list[Finding]) -> dict[str, tuple[str, str]]:
    return {finding.name: (finding.level, finding.found) for finding in findings}


def test_stores_of_weights(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (finding,) = weights(home, None)
    assert (finding.level, finding.found) == ("ok", f"{home / 'weights'}, which is made when it is first written")
    assert weights(tmp_path, str(tmp_path))[0].found == str(tmp_path)
    assert weights(home, "memory://a-bucket/x")[0].found == "memory://a-bucket/x: answers"
    (finding,) = weights(home, "nonsense://x")
    assert finding.level == "problem"
    assert "nonsense://x" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_no_study_no_findings(tmp_path: Path) -> None:
    assert inputs(Subject(tmp_path, "sqlite:///unused.db")) == []


def test_before_and_after_preparation_and_when_something_is_damaged(tmp_path: Path) -> None:
    home = tmp_path / "home"
    before = by_name(inputs(subject(home)))
    assert before["data digits"] == ("ok", "not built yet; it needs no files")
    assert before["features"] == ("ok", "not made yet; the first search makes them")
    assert not home.exists()

    prepared = make(home).run()
    after = by_name(inputs(subject(home)))
    assert {level for level, _ in after.values()} == {"ok"}
    assert after["features"][1] == str(prepared.features.folder)
    assert after["backbone audio"][1].startswith(f"made, digest {prepared.backbones['audio'].digest[:12]}")

    shutil.rmtree(prepared.features.folder)
    assert by_name(inputs(subject(home)))["features"][1].startswith("not made yet")
    next((home / "backbones").glob("*audio*.json")).write_text("{", encoding="utf-8")
    level, what = by_name(inputs(subject(home)))["preparation"]
    assert level == "problem"
    assert "mfas-optuna prepare --study x --force" in what
    next((home / "data").glob("*/manifest.json")).write_text("{", encoding="utf-8")
    assert by_name(inputs(subject(home)))["data digits"][0] == "problem"


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"name": "avmnist"}, ["mnist/", "fsdd/", "MFAS_DATA"]),
        ({"name": "avmnist", "source": "npy"}, ["train_labels.npy"]),
        ({"name": "ntu"}, ["no folder of data was named"]),
        ({"name": "mmimdb"}, ["no folder was named"]),
        ({"name": "python", "file": "mine.py", "dataset": "load"}, ["mine.py", "expected the study's Python file"]),
    ],
)
def test_data_that_are_missing_are_a_problem(tmp_path: Path, dataset: dict[str, Any], words: list[str]) -> None:
    for data_root in (None, tmp_path):
        level, what = by_name(inputs(subject(tmp_path / "home", tmp_path, data_root, dataset=dataset)))[
            f"data {dataset['name']}"
        ]
        assert level == "problem"
        assert data_root is not None or all(word in what for word in words)
    assert list(tmp_path.iterdir()) == []


def test_code_of_the_user_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    dataset = {"name": "python", "file": "mine.py", "dataset": "load"}
    found = by_name(inputs(subject(tmp_path / "home", tmp_path, dataset=dataset)))
    assert found["data python"] == (
        "ok",
        f"not built yet; {tmp_path / 'mine.py'} is there; `mfas-optuna data check` runs it",
    )
