"""A draw of a regime from its files to its figures, at a size that says nothing; what is done is found again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.regimes import run as runner
from benchmarks.regimes import table
from benchmarks.regimes.__main__ import main
from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.run import Job, run
from benchmarks.regimes.settings import Cell, Plan
from mfas_optuna.finals import read_ledger
from mfas_optuna.storage import load_study, open_storage
from tests.unit.test_regimes import POOL

FIXED = ("concat_all", "towers_probed")
TRAINING = """\
[training]
epochs = 1

[final]
epochs = 2
recipes = [{ learning_rate = 1e-2 }, { learning_rate = 3e-3, dropout = 0.1 }]
"""
PLAN = Plan(
    space="paper",
    methods=FIXED,
    n_trials=6,
    n_validation=60,
    n_test=80,
    n_parameters=500,
    n_finalists=2,
    n_seeds=2,
    training=TRAINING,
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A small draw, of the made-up pool."""
    monkeypatch.setattr(runner, "load_pool", lambda *_, **__: POOL)
    return Job(Cell("three", 100), 1, PLAN, tmp_path / "three-100" / "draw-1", tmp_path, None)


def test_a_draw_is_searched_compared_and_found_again(job: Job) -> None:
    result = run(job, print)
    methods = result["methods"]
    assert list(methods) == ["mfas", *FIXED]
    for method in methods.values():
        assert sorted(method["test"]) == sorted(method["validation"]) == ["0", "1"]
        assert 200 < method["n_parameters"] <= 500
        assert all(0 <= score <= 1 for score in method["test"].values())
    assert methods["mfas"]["kind"].endswith("concatenation")
    assert len(table.cell_figures([result], FIXED).means) == 3
    # The test split was read once for each seed of what validation had chosen, and for nothing else.
    final = load_study(open_storage(f"sqlite:///{job.folder}/home/mfas.db"), "three-100-final")
    scores = [score for method in methods.values() for score in method["test"].values()]
    assert [entry.score for entry in read_ledger(final)] == scores
    n_trained = len(final.trials)
    # Without the figures alone, nothing is trained or read again.
    (job.folder / "result.json").unlink()
    again = run(job, print)
    assert again["methods"] == methods
    final = load_study(open_storage(f"sqlite:///{job.folder}/home/mfas.db"), "three-100-final")
    assert len(final.trials) == n_trained
    # With the figures nothing is needed but them.
    shutil.rmtree(job.folder / "home")
    assert run(job, print) == again


def test_figures_of_other_settings_are_not_taken(job: Job) -> None:
    run(job, print)
    with pytest.raises(RegimeError, match="made with another plan"):
        run(replace(job, plan=replace(PLAN, n_seeds=3)), print)


def test_networks_beyond_the_budget_are_refused(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with pytest.raises(RegimeError, match=r"three-100-draw-1: expected networks of at most 3 parameters, found more"):
        run(replace(job, plan=replace(PLAN, n_parameters=3)), print)
    assert "parameters are more than 3, even so narrow" in caplog.text


def test_the_command_prints_what_was_found_before(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(job, print)
    monkeypatch.setattr("benchmarks.regimes.__main__.Plan", lambda **_: PLAN)
    monkeypatch.setenv("MFAS_HOME", str(tmp_path / "unused"))
    for draw in (1, 2):  # Draw 0 is no draw of the command.
        shutil.copytree(job.folder, tmp_path / "paper-quick" / "three-100" / f"draw-{draw}", dirs_exist_ok=True)
        folder = tmp_path / "paper-quick" / "three-100" / f"draw-{draw}"
        (folder / "result.json").write_text(json.dumps({**result, "draw": draw}))
        card = json.loads((folder / "cell.json").read_text())
        (folder / "cell.json").write_text(json.dumps({**card, "asked": {**card["asked"], "draw": draw}}))
    arguments = ["--home", str(tmp_path), "--regimes", "three", "--sizes", "100", "--space", "paper"]
    assert main([*arguments, "--quick", "--draws", "2", "--methods", *FIXED]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2" in printed
    assert "| three-100 " in printed
    assert "(iii)" in printed
    figures = json.loads((tmp_path / "paper-quick" / "figures.json").read_text())
    assert [one["draw"] for one in figures["draws"]] == [1, 2]
    assert (tmp_path / "paper-quick" / "table.md").read_text() in printed + "\n"


def test_wrong_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path), "--sizes", "3"]) == 2
    assert "Give at least 1 job, 1 draw and 100 training pairs" in capsys.readouterr().err
