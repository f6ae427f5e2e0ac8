"""Studies of the user's own: from `init` to ranked networks, and what is said of bad data."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import COMMAND, Cli
from .test_cli import refused

SMALL = ("--trials", "12", "--quiet")


@pytest.fixture
def own(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def made_arrays(folder: Path, kind: str = "multiclass", n: int = 240) -> None:
    """Three modalities, each of which knows one bit of the target in one of its layers."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (n, 3))
    for number, modality in enumerate(("image", "sound", "text")):
        for layer, noise in (("early", 3.0), ("late", 0.4)):
            file = folder / modality / f"{layer}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, (bits[:, [number]] + noise * rng.normal(size=(n, 5))).astype(np.float32))
    labels = {"multiclass": bits.sum(axis=1), "multilabel": bits, "regression": bits.sum(axis=1, keepdims=True) * 1.5}
    np.save(folder / "labels.npy", labels[kind])


@pytest.mark.parametrize(
    ("kind", "metric", "least"),
    [("multiclass", "accuracy", 0.6), ("multilabel", "weighted F1", 0.7), ("regression", "R²", 0.5)],
)
def test_three_modalities_of_arrays(own: Cli, kind: str, metric: str, least: float) -> None:
    made_arrays(own.folder / "features", kind)
    written = own.ok("init", "mine", "--arrays", "features", "--target", kind)
    assert "mfas-optuna search --study mine.toml" in written
    card = own.ok("data", "check", "--study", "mine.toml")
    assert "No validation split was given" in card
    assert "Data of mine.toml: sound, 0 warnings." in card
    outcome = own.json("search", "--study", "mine.toml", *SMALL)
    assert outcome["n_finished"] == 12
    assert outcome["backbones"] == {}
    best = outcome["best"][0]
    assert best["score"] > least
    assert set(best["parameters"]) >= {"layer1.image", "layer1.sound", "layer1.text", "layer1.operator"}
    assert f"validation {metric}" in json.dumps(metric_names(own, "mine"), ensure_ascii=False)
    again = own.json("search", "--study", "mine.toml", *SMALL)
    assert (again["n_new"], again["best"]) == (0, outcome["best"])


def metric_names(own: Cli, study: str) -> Any:
    import optuna

    return optuna.load_study(study_name=study, storage=f"sqlite:///{own.home / 'mfas.db'}").metric_names


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_networks_and_data_in_python_run_as_they_are_written(own: Cli, kind: str) -> None:
    own.ok("init", "mine", "--python", "--modality", "image", "--modality", "sound", "--target", kind)
    taps = own.ok("taps", "mine.py:image_network", "--shape", "8")
    assert "first" in taps
    assert "second.0" in taps
    outcome = own.json("search", "--study", "mine.toml", *SMALL)
    assert list(outcome["backbones"]) == ["image", "sound"]
    assert outcome["best"][0]["score"] > max(of["validation_score"] for of in outcome["backbones"].values())


def test_the_papers_networks_alone(own: Cli) -> None:
    made_arrays(own.folder / "features")
    own.ok("init", "mine", "--arrays", "features", "--space", "paper")
    best = own.json("search", "--study", "mine.toml", *SMALL)["best"][0]
    assert set(best["parameters"]) >= {"layer1.image", "layer1.sound", "layer1.text", "layer1.activation"}
    assert "layer1.operator" not in best["parameters"]


def test_trained_networks_of_ones_own(own: Cli) -> None:
    """Weights from a file, a network that comes trained, and one that scores like chance."""
    import torch
    from safetensors.torch import save_file

    own.ok("init", "mine", "--python", "--modality", "image", "--modality", "sound")
    study, code = own.folder / "mine.toml", own.folder / "mine.py"
    code.write_text(
        code.read_text()
        + """

def trained() -> nn.Module:
    model = nn.Sequential(OrderedDict(first=nn.Identity(), head=nn.Linear(8, 3)))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 8))
        model.head.bias.copy_(torch.tensor([2.0, 0.5, -2.0]))
    return model
"""
    )
    text = study.read_text().replace("image_network", "trained").replace('["first", "second"]', '["first"]', 1)
    text = text.replace("training = { epochs = 3 }", "", 1).replace("training = { epochs = 3 }", "", 1)
    text = text.replace('# weights = "sound.safetensors"', 'weights = "sound.safetensors"')
    study.write_text(text)
    message = refused(own, "search", "--study", "mine.toml", *SMALL)
    assert "sound.safetensors: expected the trained weights of sound, found no such file" in message
    zeros = {
        "first.0.weight": torch.zeros(16, 12),
        "first.0.bias": torch.zeros(16),
        "second.0.weight": torch.zeros(16, 16),
        "second.0.bias": torch.zeros(16),
        "head.weight": torch.zeros(3, 16),
    }
    save_file(zeros, own.folder / "sound.safetensors")
    assert "head.bias" in refused(own, "search", "--study", "mine.toml", *SMALL)
    save_file({**zeros, "head.bias": torch.zeros(3)}, own.folder / "sound.safetensors")
    result = own.run("search", "--study", "mine.toml", "--trials", "12")
    assert result.returncode == 0, result.stderr
    assert "the backbone of sound scores like chance" in result.stderr + result.stdout
    assert "the backbone of image scores like chance" not in result.stderr + result.stdout
    status = own.json("status", "--study", "mine.toml")
    assert [record["given"] for record in status["backbones"].values()] == [True, True]


def test_bad_rows_are_all_named_and_left_out_on_request(own: Cli) -> None:
    made_arrays(own.folder / "features")
    file = own.folder / "features" / "sound" / "late.npy"
    values = np.load(file)
    values[[7, 9], 2] = np.nan
    np.save(file, values)
    own.ok("init", "mine", "--arrays", "features")
    result = own.run("data", "check", "--study", "mine.toml")
    assert result.returncode == 2
    assert "sound.late, row 7: expected finite numbers, found nan." in result.stdout
    assert "sound.late, row 9: expected finite numbers, found nan." in result.stdout
    assert (
        "2 errors, 0 warnings. `mfas-optuna data check --study mine.toml --skip-bad` leaves 2 samples out."
        in result.stdout
    )
    message = refused(own, "search", "--study", "mine.toml", *SMALL)
    assert "row 7" in message
    assert "--skip-bad" in message
    assert "left out, 2: row 7, row 9." in own.ok("data", "check", "--study", "mine.toml", "--skip-bad")
    own.ok("search", "--study", "mine.toml", *SMALL)
    assert "left out, 2: row 7, row 9." in own.json("status", "--study", "mine.toml")["data_card"]
    np.save(file, np.nan_to_num(values))
    report = own.json("data", "check", "--study", "mine.toml")
    assert report["is_usable"]
    assert report["problems"] == []
    assert "begun with features" in refused(own, "search", "--study", "mine.toml", *SMALL, "--trials", "20")


WRONG: list[tuple[list[str], str]] = [
    (["init", "mine"], "expected --arrays FOLDER or --python"),
    (["init", "mine", "--arrays", "nowhere"], "expected arrays of two modalities or more"),
    (["init", "mine", "--python"], "expected --modality twice or more"),
    (["init", "mine", "--python", "--modality", "a"], "two modalities or more"),
    (["init", "my study", "--python"], "--name: expected up to 100 letters"),
    (["init", "mine", "--python", "--modality", "a", "--modality", "b", "--target", "x"], "expected multiclass or"),
    (["init", "mine", "--python", "--modality", "a", "--modality", "b", "--space", "x"], "expected extended or paper"),
    (["taps", "nowhere.py:f", "--shape", "3"], "nowhere.py"),
    (["taps", "x.py:f"], "expected FILE.py:NAME with --shape"),
    (["taps", "x.py:f", "--shape", "3,a"], "expected FILE.py:NAME and --shape"),
    (["data", "make", "imagenet", "x"], "expected ntu or mmimdb, found 'imagenet'"),
    (["data", "make", "ntu", "x", "--layout", "raw"], "expected no --layout"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_commands_are_refused(own: Cli, arguments: list[str], message: str) -> None:
    assert message in refused(own, *arguments)
    assert not (own.folder / "mine.toml").exists()


def answer(own: Cli, command: list[str], answers: list[str]) -> str:
    """Run a command in a terminal, give an answer whenever it waits for one, and return what the terminal showed."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *command], cwd=own.folder, env=own.environment(), stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown, left = "", list(answers)
    with contextlib.suppress(OSError):  # At its end.
        while text := os.read(ours, 1000).decode():
            shown += text
            if shown.endswith(": ") and left:
                os.write(ours, f"{left.pop(0)}\n".encode())
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    assert not left
    return shown


def test_what_is_not_given_is_asked_for_until_it_can_be_used(own: Cli) -> None:
    made_arrays(own.folder / "features")
    shown = answer(own, ["init", "mine"], ["y", "nowhere", "features", "colour", "regression"])
    assert "nowhere: expected arrays of two modalities or more" in shown
    assert "expected multiclass or multilabel or regression, found 'colour'" in shown
    assert 'target = "regression"' in (own.folder / "mine.toml").read_text()
    shown = answer(own, ["init", "other"], ["n", "", "image", "image, a-b", "image, sound"])
    assert "expected two modalities or more that can be names in Python, found 'image'." in shown
    assert "def sound_network()" in (own.folder / "other.py").read_text()
    assert 'target = "multiclass"' in (own.folder / "other.toml").read_text()


def test_a_study_file_without_its_ending_is_pointed_out(own: Cli) -> None:
    own.ok("init", "mine", "--python", "--modality", "a", "--modality", "b")
    assert "but a file mine.toml: write --study mine.toml." in refused(own, "search", "--study", "mine")


def test_files_that_are_there_are_not_written_over(own: Cli) -> None:
    own.ok("init", "mine", "--python", "--modality", "a", "--modality", "b")
    (own.folder / "mine.py").write_text("# mine\n")
    assert "mine.toml, mine.py: expected no such file" in refused(
        own, "init", "mine", "--python", "--modality", "a", "--modality", "b"
    )
    assert (own.folder / "mine.py").read_text() == "# mine\n"
    own.ok("init", "mine", "--python", "--modality", "a", "--modality", "b", "--force")


def test_data_that_ones_own_code_reads_are_checked_anew(own: Cli) -> None:
    """The code is the same before and after its data are mended or changed: a check must look at them again."""
    own.ok("init", "mine", "--python", "--modality", "image", "--modality", "sound")
    code = own.folder / "mine.py"
    code.write_text(code.read_text().replace("torch.randn(n, 8, ", "torch.load('nan.pt') + torch.randn(n, 8, ", 1))
    import torch

    torch.save(torch.tensor(float("nan")), own.folder / "nan.pt")
    assert own.run("data", "check", "--study", "mine.toml").returncode == 2
    torch.save(torch.tensor(0.0), own.folder / "nan.pt")
    before = own.json("data", "check", "--study", "mine.toml")
    assert before["problems"] == []
    own.ok("prepare", "--study", "mine.toml", "--quiet")
    torch.save(torch.tensor(1.0), own.folder / "nan.pt")
    assert own.json("data", "check", "--study", "mine.toml")["card"] != before["card"]
    assert "trained on; they were built anew" in refused(own, "search", "--study", "mine.toml", *SMALL)
    own.ok("prepare", "--study", "mine.toml", "--force", "--quiet")


PYTHON_FAULTS: list[tuple[str, str, str]] = [
    ("def dataset(", "def datasets(", "dataset"),
    ("return [(", "return 5 + [(", "TypeError"),
    ('"image": image[i]', '"image": image[i].sum() / 0', "image"),
    ("targets[i].tolist()", "-1 if i == 3 else targets[i].tolist()", "expected 0 to 2, found -1"),
    ("import torch\n", "import torch\nimport no_such_module\n", "no_such_module"),
]


@pytest.mark.parametrize(("old", "new", "message"), PYTHON_FAULTS, ids=lambda value: value[:20])
def test_faults_in_ones_own_code_are_shown_where_they_are(own: Cli, old: str, new: str, message: str) -> None:
    own.ok("init", "mine", "--python", "--modality", "image", "--modality", "sound")
    code = own.folder / "mine.py"
    assert old in code.read_text()
    code.write_text(code.read_text().replace(old, new))
    result = own.run("data", "check", "--study", "mine.toml")
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stdout + result.stderr
    assert "unexpected" not in result.stderr
