"""From a search to the comparison: train and baselines as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import TINY, Cli
from .test_cli import refused

FINAL = """
[final]
widths = [4, 8]
recipes = [{ learning_rate = 1e-2 }]
epochs = 4
patience = 2
unfrozen = { epochs = 2 }
"""
STUDY = ["--study", "tiny"]
FROZEN = [*STUDY, "--no-unfrozen", "--seeds", "2"]


@pytest.fixture
def searched(cli: Cli) -> Cli:
    """A finished search of a small study."""
    (cli.folder / "studies" / "tiny.toml").write_text(TINY + FINAL)
    cli.ok("search", *STUDY, "--quiet")
    return cli


def test_the_best_networks_are_trained_and_compared(searched: Cli) -> None:
    trained = searched.json("train", *FROZEN, "--top", "2")
    (ours,) = trained["methods"]
    assert ours["method"] == "mfas"
    assert sorted(ours["validation"]) == sorted(ours["test"]) == ["0", "1"]
    assert ours["head"]["width"] in (4, 8)
    # Two candidates of two widths each, and the second seed of what was chosen.
    assert "Final training" in searched.ok("train", *FROZEN, "--top", "2", "--quiet")
    compared = searched.json("baselines", *FROZEN, "--top", "2")
    methods = {method["method"]: method for method in compared["methods"]}
    assert {"random", "tpe", "concat_all", "towers_auxiliary", "late_mean", "gmu", "centralnet"} <= set(methods)
    for name, method in methods.items():
        assert sorted(method["test"]) == ["0", "1"]
        if name not in ("random", "tpe") and "width" in method["head"] and method["head"]["width"] > 1:
            assert method["n_parameters"] <= ours["n_parameters"]
    # Nothing is trained or read a second time.
    status = searched.json("status", *STUDY)
    assert searched.json("baselines", *FROZEN, "--top", "2")["methods"] == compared["methods"]
    assert searched.json("status", *STUDY)["test_reads"] == status["test_reads"]
    purposes = [entry["purpose"] for entry in status["test_reads"]]
    assert purposes.count("score of a backbone alone") == 2
    assert len(purposes) == 2 + 2 * (1 + len(methods))
    assert "Test split: read" in searched.ok("status", *STUDY)


def test_some_methods_are_compared_at_a_number_of_parameters(searched: Cli) -> None:
    some = [*FROZEN, "--parameters", "1500"]
    chosen = ["--method", "towers", "--method", "concat_all"]
    compared = searched.json("baselines", *some, *chosen)["methods"]  # Nothing need be trained before.
    assert [method["method"] for method in compared] == ["concat_all", "towers"]
    (ours,) = searched.json("train", *some, "--top", "2")["methods"]
    for method in [ours, *compared]:
        assert 1000 < method["n_parameters"] <= 1500
    assert "no stored study" in refused(
        searched, "status", *STUDY, "--name", "tiny-random"
    )  # Random search was left out.
    (sampled,) = searched.json("baselines", *some, "--method", "random")["methods"]
    assert sampled["method"] == "random"
    assert sampled["n_parameters"] <= 1500
    refusal = refused(searched, "baselines", *some, "--method", "concat_al")
    assert "no such method here: concat_al. This study can be compared with random, tpe, " in refusal
    assert "towers_probed" in refusal
    assert "found widths 4 and 1,500 parameters. Leave one out" in refused(searched, "train", *some, "--width", "4")
    # What was trained at one budget is not mixed with what was trained at another.
    assert "n_parameters: was 1500, is now absent" in refused(searched, "train", *FROZEN)


def test_what_cannot_be_trained_is_refused(searched: Cli) -> None:
    assert "Run `mfas-optuna train` first" in refused(searched, "baselines", *FROZEN)
    assert "There is no stored study" in refused(searched, "train", *FROZEN, "--name", "other")
    searched.ok("train", *FROZEN, "--top", "1", "--quiet")
    (searched.folder / "studies" / "tiny.toml").write_text(TINY + FINAL.replace("epochs = 4", "epochs = 3"))
    assert "training.epochs: was 4, is now 3" in refused(searched, "train", *FROZEN)
    (searched.folder / "studies" / "tiny.toml").write_text(TINY + FINAL.replace("[4, 8]", "[0]"))
    assert "final.widths" in refused(searched, "train", *FROZEN)


def test_backbones_are_trained_too(searched: Cli) -> None:
    arguments = [*STUDY, "--seeds", "2", "--unfrozen-seeds", "1", "--top", "1", "--width", "4"]
    frozen, unfrozen = searched.json("train", *arguments)["methods"]
    assert (frozen["step"], unfrozen["step"]) == ("frozen", "unfrozen")
    assert unfrozen["head"] == frozen["head"]
    assert list(unfrozen["test"]) == ["0"]
    # The weights before any step take part: it is never made worse.
    assert unfrozen["validation"]["0"] >= frozen["validation"]["0"] - 0.01  # Cached features are of half precision.
    assert searched.json("train", *arguments)["methods"] == [frozen, unfrozen]


def test_what_is_killed_goes_on_and_ends_as_it_would_have(searched: Cli, tmp_path: Path) -> None:
    whole = Cli(tmp_path / "whole")
    shutil.copytree(searched.folder, whole.folder)
    arguments = ["train", *FROZEN, "--top", "2"]

    def has_stored(n: int) -> Callable[[sqlite3.Connection], bool]:
        query = "select count(*) from trials join studies using (study_id) where study_name = 'tiny-final'"
        return lambda connection: connection.execute(query).fetchone()[0] >= n

    code, _ = searched.stop_at(arguments, signal.SIGKILL, has_stored(2))
    assert code == -signal.SIGKILL
    assert not searched.json("status", *STUDY)["test_reads"][2:]  # None but the backbones'.
    assert searched.json(*arguments)["methods"] == whole.json(*arguments)["methods"]
    n_of_train = 2 * 2 + 1  # Two candidates of two widths each, and the second seed of one.
    baselines = ["baselines", *FROZEN, "--top", "1"]
    code, errors = searched.stop_at(baselines, signal.SIGTERM, has_stored(n_of_train + 1))
    assert code == 128 + signal.SIGTERM
    assert "The same command goes on from here" in errors


def test_several_processes_train_backbones_together(searched: Cli, tmp_path: Path) -> None:
    """They end with one result, stored once, near that of one process; a repetition trains and reads nothing."""
    if find_spec("accelerate") is None:
        if os.environ.get("CI"):
            pytest.fail("accelerate is not installed")
        pytest.skip("accelerate is not installed; pip install -c constraints.txt -e '.[dev]'")
    alone = Cli(tmp_path / "alone")
    shutil.copytree(searched.folder, alone.folder)
    arguments = ["train", *STUDY, "--seeds", "1", "--top", "1", "--width", "4", "--json"]
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "mfas_optuna",
    ]

    def together(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *arguments], cwd=searched.folder, env=searched.environment(), capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip

    result = together(*arguments)
    assert result.returncode == 0, result.stderr
    methods = json.loads(result.stdout)["methods"]  # One process prints.
    of_one = json.loads(alone.ok(*arguments))["methods"]
    assert methods[0] == of_one[0]  # The first step is the first process's.
    assert (methods[1]["step"], methods[1]["head"]) == ("unfrozen", of_one[1]["head"])
    # Batch normalisation sees a half of each batch; the test split has 100 samples.
    assert methods[1]["validation"]["0"] == pytest.approx(of_one[1]["validation"]["0"], abs=0.05)
    reads = searched.json("status", *STUDY)["test_reads"]
    again = together(*arguments)
    assert json.loads(again.stdout)["methods"] == methods
    assert searched.json("status", *STUDY)["test_reads"] == reads
    # What is wrong ends all of them, with the reason once.
    wrong = together("train", *STUDY, "--name", "other")
    assert wrong.returncode != 0
    assert wrong.stderr.count("There is no stored study") == 1
