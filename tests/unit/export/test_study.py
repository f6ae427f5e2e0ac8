"""From final trainings to a folder: which network, what is in it, and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mfas_optuna import finals
from mfas_optuna.baselines.heads import LateOutputsSettings, OutputSettings, TowersSettings
from mfas_optuna.errors import BlobError, ExportCheckError, ExportError, StorageError
from mfas_optuna.export import checks, export_study, load_model
from mfas_optuna.export.card import write_card
from mfas_optuna.export.preparation import LICENCES
from mfas_optuna.finals import Step
from mfas_optuna.fusion.head import HeadSettings, head_label
from mfas_optuna.prepare import weights_folder
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.spec.template import python_study

from .finished import FinishedStudy, arrays_study, write_arrays

BEST, OTHER = "[(2,1,1),(1,2,2)]", "[(1,1,1)]"
FILES = ["MODEL_CARD.md", "architecture.json", "model.pt2", "model.py", "weights.safetensors"]


def add(study: FinishedStudy, notation: str, **values: Any) -> None:
    network = study.network(notation)
    seed = values.get("seed", 0)
    study.add(network.as_record(), study.head_state(network, seed), **values)


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds: running and tracing the module."""
    monkeypatch.setattr(checks, "check_module", lambda *_: 0.0)
    monkeypatch.setattr(checks, "write_program", lambda folder, *_: ((folder / "model.pt2").touch(), 0.0))


def test_all_of_a_frozen_network(digits: FinishedStudy, tmp_path: Path) -> None:
    add(digits, OTHER, score=0.4)
    for seed, score in enumerate((0.5, 0.7, 0.6)):
        add(digits, BEST, score=score, seed=seed)
    add(digits, "[(2,2,1)]", score=0.9, method="tpe")
    ledger = digits.finals()
    finals.write_test_read(ledger, purpose="final scores", score=0.55, what="network", trial=2)
    finals.write_titles(ledger, {"mfas": "MFAS, best five", "tpe": "TPE"})
    exported = digits.export(tmp_path / "out", method="mfas")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "study"]
    values = json.loads((tmp_path / "out" / "architecture.json").read_text(encoding="utf-8"))
    assert values == exported.description
    assert values["network"]["notation"] == BEST
    assert values["lineage"]["seed"] == 1
    assert values["lineage"]["final_trial"] == 2
    assert values["metrics"] == {
        "metric": "accuracy",
        "validation": 0.7,
        "validation_of_seeds": {"0": 0.5, "1": 0.7, "2": 0.6},
        "test": 0.55,
    }
    assert max(values["checks"].values()) < 1e-5
    assert values["inputs"]["audio"]["dtype"] == "uint8"
    assert values["inputs"]["audio"]["shape"] == [1, 24, 24]
    assert values["inputs"]["audio"]["preparation"]["in_the_model"] == {"divide_by": 255}
    assert "principal components" in values["inputs"]["image"]["preparation"]["before"]
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "0.7000 on validation, 0.5500 on test" in card
    assert "| TPE | frozen | 0.9000 (mean of 1) | - |" in card
    assert "CC BY 4.0" in card
    assert "STAND-IN" not in card
    assert str(tmp_path) not in "".join((tmp_path / "out" / name).read_text() for name in (*FILES[:2], "model.py"))
    with zipfile.ZipFile(tmp_path / "out" / "model.pt2") as archive:
        assert not any(str(tmp_path).encode() in archive.read(name) for name in archive.namelist())
    assert finals.read_ledger(digits.finals()) == finals.read_ledger(ledger)


def test_a_network_whose_backbones_were_trained_too(digits: FinishedStudy, tmp_path: Path) -> None:
    network = digits.network(BEST)
    state = digits.head_state(network, 3)
    digits.add(network.as_record(), state, score=0.5)
    digits.add(network.as_record(), digits.unfrozen_state(state), score=0.6, step="unfrozen")
    outputs = {}
    inputs = samples(digits)
    for step in ("frozen", "unfrozen"):
        exported = digits.export(tmp_path / step, step=step)
        assert exported.description["step"] == step
        outputs[step] = load_model(tmp_path / step).run(**inputs)
    assert not torch.allclose(outputs["frozen"], outputs["unfrozen"], atol=1e-3)
    assert exported.description["rounds_features"] is False


def late_outputs(_: FinishedStudy) -> HeadSettings:
    return LateOutputsSettings(modalities=("audio", "image"), how="mean", target="multiclass")


def towers(_: FinishedStudy) -> HeadSettings:
    features = {"audio": ("conv2", "conv1"), "image": ("conv2",)}
    return TowersSettings(label="best by probe", features=features, auxiliary=True, width=7)


def one_backbone(_: FinishedStudy) -> HeadSettings:
    return OutputSettings(modality="image")


@pytest.mark.parametrize("head", [late_outputs, towers, one_backbone])
@pytest.mark.parametrize("step", ["frozen", "unfrozen"])
def test_what_needs_no_search_is_exported_when_validation_prefers_it(
    digits: FinishedStudy, tmp_path: Path, head: Callable[[FinishedStudy], HeadSettings], step: Step
) -> None:
    add(digits, BEST, score=0.5)
    settings = head(digits)
    state = digits.head_state(settings, 0)
    whole = state if step == "frozen" else digits.unfrozen_state(state)
    digits.add(settings.as_record(), whole, score=0.6, method="simple", step=step)
    exported = digits.export(tmp_path / "out", onnx=checks.has_onnx())
    assert (exported.description["method"], exported.description["step"]) == ("simple", step)
    assert exported.description["lineage"]["search_trial"] is None
    assert set(exported.description["inputs"]) == {modality for modality, _ in settings.reads()}
    assert max(exported.description["checks"].values()) < 1e-4


def samples(study: FinishedStudy, n: int = 5) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    return {
        "audio": torch.from_numpy(rng.integers(0, 256, (n, 1, 24, 24)).astype(np.uint8)),
        "image": torch.from_numpy(rng.random((n, 1, 8, 8)).astype(np.float32)),
    }


@pytest.mark.usefixtures("no_checks")
def test_validation_chooses_the_step_unless_it_is_named(digits: FinishedStudy, tmp_path: Path) -> None:
    network = digits.network(BEST)
    state = digits.head_state(network, 0)
    digits.add(network.as_record(), state, score=0.5)
    digits.add(network.as_record(), digits.unfrozen_state(state), score=0.6, step="unfrozen")
    # A further seed that is better does not make its step the better one: the tuning seeds decide.
    add(digits, BEST, score=0.9, seed=7)
    found = {step: digits.export(tmp_path / str(step), step=step).description for step in (None, "frozen", "unfrozen")}
    assert found[None]["step"] == "unfrozen"
    assert (found["frozen"]["step"], found["frozen"]["lineage"]["seed"]) == ("frozen", 7)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_features_that_are_given_are_the_inputs(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    write_arrays(folder / "features", kind)
    study = FinishedStudy.of(arrays_study(kind), folder)
    add(study, "[(1,2,1,1),(1,1,1,2)]", score=0.5)
    exported = study.export(tmp_path / "out")
    assert list(exported.description["inputs"]) == ["image.early", "sound.late", "sound.early", "text.early"]
    assert "unknown" in (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert exported.description["backbones"] == {}
    if kind == "regression":
        values = study.prepared.features.matrix("validation")[:8]
        layout = study.prepared.features.layout
        inputs = {
            of["argument"]: torch.from_numpy(
                np.array(values[:, layout.columns(of["modality"], of["feature"])], dtype=np.float32)
            )
            for of in exported.description["inputs"].values()
        }
        outputs = load_model(tmp_path / "out").run(**inputs)
        assert float(outputs.mean()) > 500.0  # In the units of the labels, not standardised.


def test_networks_of_the_users_own_come_with_their_file(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    toml, code = python_study("model", ["image", "sound"], "multiclass")
    (folder / "model.py").write_text(code.replace('{"train": (0, 600)', '{"train": (0, 90)'), encoding="utf-8")
    values = {
        "title": "own",
        "dataset": {"name": "python", "file": "model.py"},
        "backbones": {
            name: {
                "kind": "python",
                "file": "model.py",
                "module": f"{name}_network",
                "features": ["first", "second"],
                "training": {"epochs": 1},
            }
            for name in ("image", "sound")
        },
        "space": {"activations": ["relu"], "max_depth": 1},
    }
    assert "module" in toml
    study = FinishedStudy.of(values, folder)
    add(study, "[(1,2,1)]", score=0.5)
    study.export(tmp_path / "out")
    assert (tmp_path / "out" / "own_model.py").read_text() == (folder / "model.py").read_text()
    assert "own_model.py" in (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    add(study, "[(1,1,1)]", score=0.7)
    (folder / "beside.py").write_text("n = 1\n", encoding="utf-8")
    for line in ("import beside\n", "import mfas_optuna\n"):
        (folder / "model.py").write_text(line + code, encoding="utf-8")
        with pytest.raises(ExportCheckError, match=r"model.py: cannot be run by itself: ModuleNotFoundError"):
            FinishedStudy.of(values, folder).export(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("no_checks")
def test_a_folder_is_written_over_only_when_it_is_an_exported_model(digits: FinishedStudy, tmp_path: Path) -> None:
    add(digits, BEST, score=0.5)
    (tmp_path / "empty").mkdir()
    digits.export(tmp_path / "empty")
    with pytest.raises(ExportError, match=r"found MODEL_CARD.md, .*--force"):
        digits.export(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").touch()
    digits.export(tmp_path / "empty", force=True)
    assert not (tmp_path / "empty" / "notes.txt").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ExportError, match="expected an exported model to write over, found thesis"):
        digits.export(tmp_path / "full", force=True)
    with pytest.raises(ExportError, match="expected a folder, found a file"):
        digits.export(tmp_path / "full" / "thesis.txt", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "study"]


def test_nothing_is_written_when_a_form_gives_something_else(
    digits: FinishedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(digits, BEST, score=0.5)
    monkeypatch.setattr("mfas_optuna.export.heads.ACTIVATION_CODE", {"relu": "torch.tanh({})", "sigmoid": "{}"})
    with pytest.raises(ExportCheckError, match=r"model.py: expected the outputs .* found a difference of") as caught:
        digits.export(tmp_path / "out")
    assert caught.value.exit_code == 1
    assert caught.value.difference is not None
    assert caught.value.difference > 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


def test_what_is_not_there_is_named(digits: FinishedStudy, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no study database"):
        digits.export(tmp_path / "out")
    finals.write_settings(digits.finals(), {"tuning_seeds": [0]})
    with pytest.raises(ExportError, match=r"expected a final training, found none. Train it with"):
        digits.export(tmp_path / "out")
    add(digits, BEST, score=0.5)
    with pytest.raises(ExportError, match=r"method 'concat' .*found mfas \(frozen\)"):
        digits.export(tmp_path / "out", method="concat")
    with pytest.raises(ExportError, match="unfrozen"):
        digits.export(tmp_path / "out", step="unfrozen")
    final = finals.read(digits.finals())[0]
    FolderBlobStore(weights_folder(digits.home)).path(final.result.weights).unlink()
    with pytest.raises(BlobError, match="missing"):
        digits.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert head_label(final.training.head) == f"{BEST}, width 6"


@pytest.mark.usefixtures("no_checks")
def test_the_card_says_when_data_stand_in_for_others(digits: FinishedStudy, tmp_path: Path) -> None:
    add(digits, BEST, score=0.5)
    description = digits.export(tmp_path / "out").description
    marked = {**description, "stand_in": "stand-in for ntu: generated data"}
    card = write_card(marked, data_card="the data", licence=LICENCES["ntu"], methods=[], extra_files=[])
    assert "**STAND-IN: stand-in for ntu: generated data. Its scores say nothing" in card
    assert "academic research only" in card
    assert "Nothing else was trained for comparison" in card


def test_onnx(digits: FinishedStudy, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="mfas-optuna[onnx] is not installed")
    add(digits, BEST, score=0.5)
    exported = digits.export(tmp_path / "out", onnx=None)
    assert exported.description["checks"]["model.onnx"] < 1e-4
    inputs = samples(digits, 7)
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["outputs"], {name: x.numpy() for name, x in inputs.items()})
    expected = load_model(tmp_path / "out").run(**inputs)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_onnx_that_is_not_installed_is_refused_before_any_work(
    digits: FinishedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "has_onnx", lambda: False)
    with pytest.raises(ExportError, match=r"pip install 'mfas-optuna\[onnx\]'"):
        export_study(digits.request(tmp_path / "out", onnx=True), say=lambda _: None)
