"""The whole way from Python: a study in, a `FusionResult` out, a model in a folder, predictions."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest

import mfas_optuna
from mfas_optuna.datasets import DataRequest, load_dataset
from mfas_optuna.errors import DataError, StorageError, UnknownStudyError

from ..unit.test_documents import run
from .conftest import TINY
from .test_final import FINAL


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose study `digits` is a small one."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "digits.toml").write_text(TINY + FINAL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_program_of_the_document(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = mfas_optuna.FusionStudy.open("digits")
    with pytest.raises(StorageError, match="there is no study database"):
        before.result()
    with caplog.at_level(logging.INFO, "mfas_optuna"):
        left = run("docs/python.md")
    assert re.search(r"(\d+) of \1: trial \d+ COMPLETE", caplog.text)
    result, model = left["result"], left["model"]
    names = {method.name for method in result.methods}
    assert {"mfas", "random", "tpe", "towers_auxiliary", "centralnet", "gmu"} <= names
    assert all(0.0 <= score <= 1.0 for score in left["scores"].values())
    assert left["sentence"] in result.to_markdown()
    assert left["sentence"] in result.to_html()
    assert json.loads(result.to_json())["verdict"]["sentence"] == left["sentence"]
    assert result.to_csv().count("\n") > 2 * len(names)
    assert left["best"] in result.to_text()
    assert left["prediction"].values_BC.shape == (3, 10)
    assert left["study"].search().n_new == 0  # It goes on from what is stored.

    chosen = model.description
    means = {method.name: np.mean([*method.counted.validation.values()]) for method in result.methods}
    assert means[chosen["method"]] == max(means.values())
    result.export("towers", method="towers_auxiliary", onnx=False)
    model = mfas_optuna.load_model("towers")
    test = load_dataset(DataRequest.of(left["study"].request.spec, left["study"].request.home, None)).splits["test"]
    score = float(np.mean(model.predict(test.inputs).values_BC.argmax(axis=1) == test.labels))
    # Features are stored as float16, to which the model does not round: a prediction may differ.
    assert score == pytest.approx(model.description["metrics"]["test"], abs=0.011)
    one = {name: array[0] for name, array in test.inputs.items()}
    assert model.predict(one).values_BC.shape == (1, 10)
    with pytest.raises(DataError, match="found none of image"):
        model.predict({"audio": test.inputs["audio"]})
    with pytest.raises(DataError, match="found 'video'"):
        model.predict({**one, "video": one["image"]})


def test_a_study_that_is_not_trained_yet_says_so(here: Path) -> None:
    study = mfas_optuna.FusionStudy.open("digits", home=here / "home", storage=f"sqlite:///{here}/a.db", n_trials=5)
    assert study.search().n_finished == 5
    assert (here / "a.db").is_file()
    result = study.result()
    assert result.verdict.outcome == "not_trained"
    assert len(result.networks) == 5
    assert result.methods == ()


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnknownStudyError, match="Did you mean 'digits'"):
        mfas_optuna.FusionStudy.open("digit", home=tmp_path)
    with pytest.raises(StorageError, match="there is no study database"):
        mfas_optuna.FusionStudy.open(
            "digits", home=tmp_path, name="mine", storage=f"sqlite:///{tmp_path}/a.db"
        ).result()
