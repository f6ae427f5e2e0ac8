"""A user's own arrays through the command line: right, and wrong in every way that has a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import TINY, Cli
from .test_cli import refused

ARRAYS = TINY.replace('name = "digits"', 'name = "avmnist"\nsource = "npy"').replace("n_train = 300", "n_train = 200")
SEARCH = ["search", "--study", "arrays", "--data-root", "arrays"]


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Any]:
    """300 training and 100 test pairs: a bright row of the picture and a loud band of the sound tell the digit."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, size in (("train", 300), ("test", 100)):
        labels = rng.integers(0, 10, size)
        image = rng.integers(0, 100, (size, 28, 28)).astype(np.uint8)
        audio = rng.random((size, 40, 40)).astype(np.float32)
        image[np.arange(size), 2 * labels] += 100
        audio[np.arange(size), 3 * labels] += 1
        made |= {f"{split}_labels": labels, f"images/{split}_data": image, f"audio/{split}_data": audio}
    return made


def save(cli: Cli, arrays: dict[str, Any]) -> None:
    (cli.folder / "studies" / "arrays.toml").write_text(ARRAYS, encoding="utf-8")
    for name, array in arrays.items():
        file = cli.folder / "arrays" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)


def test_a_search_on_arrays(cli: Cli, arrays: dict[str, Any]) -> None:
    save(cli, arrays)
    outcome = cli.json(*SEARCH, "--trials", "6")
    assert outcome["n_finished"] == 6
    assert list(outcome["backbones"]) == ["audio", "image"]
    folder = Path(cli.ok("data", "build", "arrays", "--data-root", "arrays").strip())
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert "Add --force" in refused(cli, "data", "build", "arrays", "--data-root", "arrays")
    cli.ok("data", "build", "arrays", "--data-root", "arrays", "--force")


def spoil(arrays: dict[str, Any], how: str) -> list[str]:
    """Spoil one array; return what the message must have."""
    if how == "label":
        arrays["train_labels"][17] = 10
        return ["row 17", "0 to 9", "found 10"]
    if how == "nan":
        arrays["audio/train_data"][5, 3, 3] = np.nan
        return ["train, audio", "row 5", "NaN"]
    if how == "length":
        arrays["audio/train_data"] = arrays["audio/train_data"][:-1]
        return ["audio/train_data.npy", "299 rows for 300 labels"]
    if how == "shape":
        arrays["images/test_data"] = arrays["images/test_data"][:, :20]
        return ["images/test_data.npy", "(1, 20, 28)"]
    if how == "words":
        arrays["test_labels"] = arrays["test_labels"].astype(str)
        return ["test_labels.npy", "whole numbers"]
    del arrays["images/train_data"]
    return ["images/train_data.npy", "missing", "digits needs no files"]


@pytest.mark.parametrize("how", ["label", "nan", "length", "shape", "words", "missing"])
def test_wrong_arrays_are_refused(cli: Cli, arrays: dict[str, Any], how: str) -> None:
    said = spoil(arrays, how)
    save(cli, arrays)
    message = refused(cli, *SEARCH)
    assert all(part in message for part in said), message
    assert list((cli.home / "data").glob("avmnist-*")) == []


def test_a_folder_that_is_not_there(cli: Cli, arrays: dict[str, Any]) -> None:
    save(cli, arrays)
    message = refused(cli, "search", "--study", "arrays", "--data-root", "nowhere")
    assert "nowhere" in message
    assert "--data-root" in message


def test_a_home_where_nothing_can_be_made(cli: Cli) -> None:
    assert "MFAS_HOME" in refused(cli, "search", "--study", "tiny", MFAS_HOME="/proc/mfas")


# Other settings of a study, end to end.


def test_pruned_trials_are_told_and_are_no_result(cli: Cli) -> None:
    text = TINY.replace("samples_per_step = 4", 'samples_per_step = 4\npruner = "median"').replace(
        "epochs = 2\n", "epochs = 4\n"
    )
    (cli.folder / "studies" / "tiny.toml").write_text(text, encoding="utf-8")
    outcome = cli.json("search", "--study", "tiny", "--name", "pruned")
    trials = cli.trials("pruned")
    pruned = [trial for trial in trials if trial["state"] == "PRUNED"]
    assert pruned
    assert outcome["n_finished"] == len(trials) == 16
    assert all(trial["weights"] is None for trial in pruned)
    assert not {network["trial"] for network in outcome["best"]} & {trial["number"] for trial in pruned}


def test_sharing_can_be_limited_to_equal_activations(cli: Cli) -> None:
    text = TINY.replace("width = 4", "width = 4\nshare_by_activation = true")
    (cli.folder / "studies" / "tiny.toml").write_text(text, encoding="utf-8")
    cli.ok("search", "--study", "tiny", "--name", "shared", "--quiet")
    for trial in cli.trials("shared"):
        for number in range(1, trial["params"]["depth"] + 1):
            assert f':{trial["params"][f"layer{number}.activation"]}"' in trial["weights"]
