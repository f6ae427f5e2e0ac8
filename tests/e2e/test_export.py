"""`mfas-optuna export` and `predict` as a user runs them, and the export without this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mfas_optuna.datasets import DataRequest, Split, load_dataset
from mfas_optuna.spec import load_spec

from .conftest import TINY, Cli
from .test_cli import refused
from .test_final import FINAL

# Loads a folder where neither optuna nor this package is to be had, and writes its outputs.
_FRESH = """
import sys
sys.modules["optuna"] = sys.modules["mfas_optuna"] = None
folder, given, result = sys.argv[1:]
sys.path.insert(0, folder)
import torch
from safetensors.torch import load_file, save_file
from model import load
model = load(folder)
inputs = load_file(given)
with torch.inference_mode():
    outputs = model(**inputs)
    if hasattr(model.fusion, "rounds_features"):
        model.fusion.rounds_features = True
    rounded = model(**inputs)
program = torch.export.load(folder + "/model.pt2").module()(**inputs)
assert not any(name.partition(".")[0] in ("optuna", "mfas_optuna") for name, of in sys.modules.items() if of)
save_file({"outputs": outputs, "rounded": rounded, "program": program}, result)
"""


@pytest.fixture
def trained(cli: Cli) -> Cli:
    """A searched study whose best network is trained to the end, in both steps, and scored on the test split."""
    (cli.folder / "studies" / "tiny.toml").write_text(TINY + FINAL)
    cli.ok("search", "--study", "tiny", "--quiet")
    cli.ok("train", "--study", "tiny", "--top", "1", "--width", "8", "--seeds", "1", "--quiet")
    return cli


@pytest.mark.parametrize("step", ["frozen", "unfrozen"])
def test_the_test_score_again_from_the_folder_alone(trained: Cli, tmp_path: Path, step: str) -> None:
    exported = trained.json("export", "--study", "tiny", "-o", "out", "--no-onnx", "--quiet", "--step", step)
    outputs = run_alone(trained, tmp_path)
    labels = samples(trained).labels
    name = "rounded" if step == "frozen" else "outputs"  # Cached features are of half precision.
    score = float((outputs[name].argmax(dim=1).numpy() == labels).mean())
    assert score == exported["metrics"]["test"]
    torch.testing.assert_close(outputs["program"], outputs["outputs"], rtol=1e-4, atol=1e-4)


def samples(cli: Cli) -> Split:
    """Return the test split of the small study."""
    return load_dataset(DataRequest.of(load_spec(cli.folder / "studies" / "tiny.toml"), cli.home, None)).splits["test"]


def run_alone(cli: Cli, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Return what the exported folder gives for the test split where this package cannot be imported."""
    given, result = tmp_path / "given.safetensors", tmp_path / "result.safetensors"
    inputs = {name: torch.from_numpy(np.array(array)) for name, array in samples(cli).inputs.items()}
    safetensors.torch.save_file(inputs, given)
    arguments = [sys.executable, "-I", "-c", _FRESH, cli.folder / "out", given, result]
    subprocess.run(arguments, check=True, timeout=120, cwd=tmp_path)
    return safetensors.torch.load_file(result)


def test_export_and_predict(trained: Cli, tmp_path: Path) -> None:
    exported = trained.json("export", "--study", "tiny", "-o", "out", "--no-onnx", "--quiet")
    folder = trained.folder / "out"
    assert exported["folder"] == str(folder)
    assert exported["lineage"]["search_trial"] is not None
    test, outputs = samples(trained), run_alone(trained, tmp_path)

    np.save(trained.folder / "audio.npy", test.inputs["audio"][:6])
    np.savez(trained.folder / "one.npz", **{name: array[2] for name, array in test.inputs.items()})
    np.save(trained.folder / "image.npy", test.inputs["image"][:6])
    said = trained.json("predict", "--model", "out", "audio=audio.npy", "image=image.npy")
    expected = outputs["program"][:6].softmax(dim=1).numpy()
    assert (said["version"], said["target"], said["single"], len(said["predictions"])) == (1, "multiclass", False, 6)
    for record, row in zip(said["predictions"], expected, strict=True):
        assert list(record["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert record["class"] == said["names"][int(row.argmax())]
    single = trained.json("predict", "--model", "out", "one.npz")
    assert single["single"]
    assert single["predictions"][0]["class"] == said["predictions"][2]["class"]
    lines = trained.ok("predict", "--model", "out", "audio=audio.npy", "image=image.npy").splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"0: {said['predictions'][0]['class']} 0.")

    for arguments, message in (
        (["--model", "out", "audio=audio.npy"], "found none of image"),
        (["--model", ".", "one.npz"], "found no architecture.json"),
    ):
        assert message in refused(trained, "predict", *arguments)
    assert "--force" in refused(trained, "export", "--study", "tiny", "-o", "out", "--no-onnx")
    shown = trained.ok("export", "--study", "tiny", "-o", "out", "--no-onnx", "--force")
    assert "model.py: differs by" in shown
    assert json.loads((folder / "architecture.json").read_text())["metrics"] == exported["metrics"]


def test_what_cannot_be_exported(cli: Cli) -> None:
    assert "no study database" in refused(cli, "export", "--study", "tiny", "-o", "out")
    assert "--step: expected frozen or unfrozen, found 'last'" in refused(
        cli, "export", "--study", "tiny", "-o", "out", "--step", "last"
    )
    assert not (cli.folder / "out").exists()
