"""Weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mfas_optuna.backbones import load_weights, read_weights
from mfas_optuna.errors import WeightsError
from mfas_optuna.spec import PythonBackboneSettings
from tests.unit.backbones.helpers import build_network
from tests.unit.backbones.test_build import SMALL

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("suffix", ["pt", "pth"])
@pytest.mark.parametrize(
    "values",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "best": 0.5},
        {f"module.{key}": value for key, value in STATE.items()},
        {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
    ],
)
def test_files_of_torch_save(tmp_path: Path, values: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    torch.save(values, path)
    assert same(read_weights(path))


def test_files_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(STATE, path)
    assert same(read_weights(path))


def test_a_prefix_of_some_keys_is_a_name(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "weights.pt")
    assert list(read_weights(tmp_path / "weights.pt")) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("w.pt", {"a": torch.ones(1), "epoch": 3}, r"found no tensors under epoch\. Save the network's state dict"),
        ("w.pt", [torch.ones(1)], r"expected a state dict, or one under 'state_dict' or 'model', found list"),
        ("w.pt", {}, r"found nothing in it"),
        ("w.pt", nn.Linear(2, 2), r"expected a file of tensors alone, found other objects too"),
        ("w.pt", {"a": np.float64(1.0).reshape(1).tolist, "b": print}, r"expected a file of tensors alone"),
        ("w.bin", {"a": torch.ones(1)}, r"w\.bin: expected a file that ends in \.safetensors, \.pt or \.pth"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, values: Any, message: str) -> None:
    torch.save(values, tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_files_that_are_damaged_or_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(WeightsError, match="expected a file of weights, found none"):
        read_weights(path)
    for content in (b"", b"no weights at all", b"PK\x03\x04 half of an archive"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            read_weights(path)


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_loads_what_it_saved(tmp_path: Path, kind: str) -> None:
    settings, shape = SMALL[kind]
    path = tmp_path / "weights.safetensors"
    other = build_network(settings, shape, 5, seed=1)
    safetensors.torch.save_file(other.state_dict(), path)
    model = build_network(settings, shape, 5)
    assert load_weights(model, settings, path) == []
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_leaves_out_another_head(tmp_path: Path, kind: str) -> None:
    settings, shape = SMALL[kind]
    path = tmp_path / "weights.pt"
    torch.save(build_network(settings, shape, 7, seed=1).state_dict(), path)
    model = build_network(settings, shape, 5)
    head = str(model.head_name)
    assert load_weights(model, settings, path) == [f"{head}.weight", f"{head}.bias"]
    assert model(torch.randn(2, *shape)).shape == (2, 5)


def test_what_does_not_fit_is_said_with_the_file(tmp_path: Path) -> None:
    settings, shape = SMALL["lenet"]
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    with pytest.raises(WeightsError, match=r"weights.pt: expected the weights of LeNet") as caught:
        load_weights(build_network(settings, shape, 5), settings, path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["missing", "unexpected"]


def test_networks_of_a_python_file_must_fit_wholly(tmp_path: Path) -> None:
    settings = PythonBackboneSettings(kind="python", file="f.py", module="f", features=["0"])
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(3, 2).state_dict(), path)
    model = nn.Linear(3, 2)
    assert load_weights(model, settings, path) == []
    assert torch.equal(model.weight, read_weights(path)["weight"])
    with pytest.raises(WeightsError, match=r"weight \(expected \(4, 3\), found \(2, 3\)\)"):
        load_weights(nn.Linear(3, 4), settings, path)
