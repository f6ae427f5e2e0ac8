"""Predictions with an exported model, and what is said of samples and folders that cannot be used."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mfas_optuna.errors import DataError, DataNotFoundError, ExportError
from mfas_optuna.export import Model, load_model, read_inputs
from mfas_optuna.export.files import file_digest
from mfas_optuna.target import Target

from .finished import FinishedStudy

INPUTS: dict[str, Any] = {
    "inputs": {
        "audio": {"argument": "audio", "dtype": "uint8", "shape": [1, 4, 4]},
        "text": {"argument": "text", "dtype": "float32", "shape": [3]},
    }
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of samples, right and wrong."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    audio = rng.integers(0, 256, (5, 1, 4, 4)).astype(np.uint8)
    text = rng.random((5, 3)).astype(np.float32)
    arrays: dict[str, npt.NDArray[Any]] = {
        "audio": audio,
        "text": text,
        "audio1": audio[0],
        "text1": text[0],
        "text64": text.astype(np.float64),
        "text_whole": text.astype(np.int64),
        "audio_real": audio.astype(np.float32),
        "audio_shape": audio[:, :, :3],
        "text4": text[:4],
        "none": text[:0],
        "scalar": np.float32(1.0) * np.ones(()),
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    nan = text.copy()
    nan[3, 1] = np.nan
    np.save("nan.npy", nan)
    np.savez("both.npz", audio=audio, text=text)
    np.savez("other.npz", audio=audio, words=text)
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    Path("damaged.npy").write_bytes(Path("audio.npy").read_bytes()[:100])
    Path("damaged.npz").write_bytes(Path("both.npz").read_bytes()[:-40])
    shutil.copy("both.npz", "really.npy")
    shutil.copy("text.npy", "really.npz")
    Path("text.txt").write_text("1 2 3", encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_samples_are_read() -> None:
    batch, is_single = read_inputs(["text=text.npy", "audio=audio.npy"], INPUTS)
    assert not is_single
    assert list(batch) == ["audio", "text"]
    assert batch["audio"].shape == (5, 1, 4, 4)
    in_one, _ = read_inputs(["both.npz"], INPUTS)
    assert all(np.array_equal(in_one[name], batch[name]) for name in batch)
    single, is_single = read_inputs(["text=text1.npy", "audio=audio1.npy"], INPUTS)
    assert is_single
    assert np.array_equal(single["text"], batch["text"][:1])
    converted, _ = read_inputs(["text=text64.npy", "audio=audio.npy"], INPUTS)
    assert converted["text"].dtype == np.float32


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audio=audio.npy"], r"found none of text. Add text=FILE.npy"),
        (["audio=audio.npy", "video=text.npy"], "expected audio or text, found 'video'"),
        (["other.npz"], "other.npz, words: expected audio or text, found 'words'"),
        (["audio=audio.npy", "audio=audio.npy"], "found audio twice"),
        (["audio=audio.npy", "text=audio.npy"], r"audio.npy: expected float32 \(B, 3\).*found shape \(5, 1, 4, 4\)"),
        (["audio=audio_shape.npy", "text=text.npy"], r"expected uint8 \(B, 1, 4, 4\).*found shape \(5, 1, 3, 4\)"),
        (["audio=audio_real.npy", "text=text.npy"], r"audio_real.npy: expected uint8 .*found float32"),
        (["audio=audio.npy", "text=text_whole.npy"], r"expected float32 .*found int64"),
        (["audio=audio.npy", "text=scalar.npy"], r"found shape \(\)"),
        (["audio=audio.npy", "text=nan.npy"], r"nan.npy: NaN or infinity, the first in sample 3"),
        (["audio=audio.npy", "text=text4.npy"], "as many samples of every input, found audio 5, text 4"),
        (["audio=audio1.npy", "text=text.npy"], "found a single one of audio alone"),
        (["audio=none.npy", "text=none.npy"], "found shape"),
        (["audio=objects.npy", "text=text.npy"], "objects.npy: cannot be read as arrays of numbers"),
        (["audio=damaged.npy", "text=text.npy"], "damaged.npy: cannot be read"),
        (["damaged.npz"], "damaged.npz: cannot be read"),
        (["audio=text.txt", "text=text.npy"], r"expected a file that ends in .npy, found 'text.txt'"),
        (["audio.npy"], r"audio.npy: expected INPUT=FILE.npy, or a FILE.npz"),
        (["audio=both.npz"], "found 'both.npz'"),
        (["audio=really.npy", "text=text.npy"], "really.npy: cannot be read .* its ending"),
        (["really.npz"], "really.npz: cannot be read .* its ending"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_inputs(arguments, INPUTS)


@pytest.mark.usefixtures("folder")
def test_files_that_are_not_there_are_named() -> None:
    with pytest.raises(DataNotFoundError, match=r"nowhere.npy: expected a file of samples, found none"):
        read_inputs(["audio=nowhere.npy", "text=text.npy"], INPUTS)
    with pytest.raises(DataError, match="at least one sample"):
        read_inputs(["text=none.npy"], {"inputs": {"text": INPUTS["inputs"]["text"]}})


def model_of(target: Target, run: Callable[..., torch.Tensor]) -> Model:
    return Model(Path(), INPUTS, target, run)


def test_what_is_predicted_of_each_kind_of_target() -> None:
    inputs = {"audio": np.zeros((600, 1, 4, 4), dtype=np.uint8), "text": np.zeros((600, 3), dtype=np.float32)}
    inputs["text"][:, 0] = np.arange(600)

    def run(audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        assert len(audio) == len(text) <= 256
        return torch.stack([text[:, 0], torch.zeros(len(text))], dim=1)

    names = ("one", "two")
    classes = model_of(Target("multiclass", names), run).predict(inputs)
    np.testing.assert_allclose(classes.values_BC.sum(axis=1), 1.0, rtol=1e-6)
    assert classes.values_BC[2, 0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert classes.as_records()[2]["class"] == "one"
    assert list(classes.as_records()[2]["probabilities"]) == ["one", "two"]
    labels = model_of(Target("multilabel", names), run).predict(inputs)
    assert labels.values_BC[2].tolist() == pytest.approx([1 / (1 + np.exp(-2)), 0.5])
    assert labels.as_records()[2]["labels"] == ["one"]
    values = model_of(Target("regression", names), run).predict(inputs)
    assert values.as_records()[599] == {"values": {"one": 599.0, "two": 0.0}}
    with pytest.raises(DataError, match="Sample 1: the outputs are not finite"):
        model_of(Target("regression", names), lambda audio, text: 1 / (text[:, :2] - 1)).predict(
            {
                name: array[:2] + np.asarray([[0], [0]], dtype=array.dtype) if name == "text" else array[:2]
                for name, array in inputs.items()
            }
        )


@pytest.fixture(scope="module")
def exported_once(prepared_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from .finished import DIGITS

    root = tmp_path_factory.mktemp("exported")
    shutil.copytree(prepared_digits, root / "study")
    study = FinishedStudy.of(DIGITS, root / "study")
    network = study.network("[(1,1,1)]")
    study.add(network.as_record(), study.head_state(network, 0), score=0.5)
    study.export(root / "out")
    return root / "out"


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported_once, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_loaded_without_running_its_module(exported: Path) -> None:
    (exported / "model.py").write_text("raise SystemExit", encoding="utf-8")
    model = load_model(exported)
    inputs = {"audio": np.zeros((3, 1, 24, 24), dtype=np.uint8), "image": np.zeros((3, 1, 8, 8), dtype=np.float32)}
    assert model.predict(inputs).values_BC.shape == (3, 10)


def test_folders_that_hold_no_sound_model_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="expected the folder of an exported model, found none"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"found no architecture.json"):
        load_model(tmp_path)
    path = exported / "architecture.json"
    sound = path.read_text(encoding="utf-8")
    for text, message in {
        "{": "cannot be read",
        sound.replace('"version": 1', '"version": 99', 1): "of version 1, found 'mfas-optuna model' of version 99",
        sound.replace('"target"', '"targets"'): "expected a description of a model",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ExportError, match=message):
            load_model(exported)
    path.write_text(sound, encoding="utf-8")
    with (exported / "weights.safetensors").open("ab") as stream:
        stream.write(b"0")
    with pytest.raises(ExportError, match=r"weights.safetensors: expected SHA-256 .* it was changed"):
        load_model(exported)
    (exported / "model.pt2").unlink()
    with pytest.raises(ExportError, match=r"model.pt2: cannot be read"):
        load_model(exported)


class Harm:
    """Unpickled, it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("where", ["data/sample_inputs/model.pt", "data/constants/custom_obj_0", "config", "no zip"])
def test_nothing_is_unpickled(exported: Path, tmp_path: Path, where: str) -> None:
    program = exported / "model.pt2"
    with zipfile.ZipFile(program) as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    root = next(iter(contents)).partition("/")[0]
    harm = pickle.dumps(Harm(tmp_path / "harm"))
    if where == "config":
        config = f"{root}/data/weights/model_weights_config.json"
        values = json.loads(contents[config])
        next(iter(values["config"].values()))["use_pickle"] = True
        contents[config] = json.dumps(values).encode()
    else:
        contents[f"{root}/{where}"] = harm
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    program.write_bytes(harm if where == "no zip" else buffer.getvalue())
    path = exported / "architecture.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["files"]["model.pt2"] = file_digest(program)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ExportError, match="expected a program"):
        load_model(exported)
    assert not (tmp_path / "harm").exists()
