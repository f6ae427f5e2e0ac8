"""`mfas-optuna export` and `predict` as a user runs them, and the export without this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna.datasets import DataRequest, load_dataset
from mfas_optuna.finals import FinalResult, FinalTraining
from mfas_optuna.fusion.head import NetworkSettings
from mfas_optuna.prepare import Preparation, weights_folder
from mfas_optuna.registry.blobs import FolderBlobStore, encode_layer
from mfas_optuna.space import Architecture
from mfas_optuna.spec import load_spec
from mfas_optuna.training.brief import standardized_rows

from .conftest import Cli
from .test_cli import refused

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
    model.fusion.rounds_features = True
    rounded = model(**inputs)
program = torch.export.load(folder + "/model.pt2").module()(**inputs)
assert not any(name.partition(".")[0] in ("optuna", "mfas_optuna") for name, of in sys.modules.items() if of)
save_file({"outputs": outputs, "rounded": rounded, "program": program}, result)
"""


@pytest.fixture
def trained(cli: Cli) -> Cli:
    """A searched study with a final training of its best network, whose test score is read."""
    best = cli.json("search", "--study", "tiny", "--quiet")["best"][0]
    spec = load_spec(cli.folder / "studies" / "tiny.toml")
    prepared = Preparation(
        spec, home=cli.home, data_root=None, device=torch.device("cpu"), rebuild_command="", say=lambda _: None
    ).run()
    features = prepared.features
    architecture = Architecture.from_paper_notation(best["architecture"])
    settings = NetworkSettings.of(architecture, spec.search_space(), 8)
    head = settings.build(
        features.layout, features.target.n_outputs, dropout=0.0, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.from_numpy(np.array(features.labels("train")))
    rows_NF = standardized_rows(features, "train", standardize=True)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(rows_NF).fused_BC, labels).backward()
        optimizer.step()
    with torch.inference_mode():
        of_test = head(standardized_rows(features, "test", standardize=True)).fused_BC.argmax(dim=1).numpy()
    weights = FolderBlobStore(weights_folder(cli.home)).put(encode_layer(head.state_dict()))
    study = optuna.create_study(
        storage=database.open_storage(f"sqlite:///{cli.home / 'mfas.db'}"),
        study_name=finals.final_name("tiny"),
        direction="maximize",
    )
    finals.write_settings(study, {"tuning_seeds": [0]})
    recipe = {"learning_rate": 0.01, "weight_decay": 0.0, "dropout": 0.0}
    result = FinalResult(0.5, (0.5,), 1, head.n_parameters, None, 1.0, weights, str(torch.__version__), "cpu")
    finals.add(study, FinalTraining("mfas", settings.as_record(), "frozen", recipe, 0), result, "MFAS")
    score = float((of_test == features.labels("test")).mean())
    finals.write_test_read(study, purpose="test", score=score, what="mfas", trial=0)
    return cli


def test_export_and_predict(trained: Cli, tmp_path: Path) -> None:
    exported = trained.json("export", "--study", "tiny", "-o", "out", "--no-onnx", "--quiet")
    folder = trained.folder / "out"
    assert exported["folder"] == str(folder)
    assert exported["lineage"]["search_trial"] is not None
    dataset = load_dataset(DataRequest.of(load_spec(trained.folder / "studies" / "tiny.toml"), trained.home, None))
    test = dataset.splits["test"]

    # The test score again, to the last digit, from the folder alone.
    given, result = tmp_path / "given.safetensors", tmp_path / "result.safetensors"
    inputs = {name: torch.from_numpy(np.array(array)) for name, array in test.inputs.items()}
    safetensors.torch.save_file(inputs, given)
    subprocess.run([sys.executable, "-I", "-c", _FRESH, folder, given, result], check=True, timeout=120, cwd=tmp_path)
    outputs = safetensors.torch.load_file(result)
    score = float((outputs["rounded"].argmax(dim=1).numpy() == test.labels).mean())
    assert score == exported["metrics"]["test"]
    torch.testing.assert_close(outputs["program"], outputs["outputs"], rtol=1e-4, atol=1e-4)

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
