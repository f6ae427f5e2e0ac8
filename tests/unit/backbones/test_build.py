"""What all kinds of backbones have in common when they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfas_optuna.errors import DataError, PythonFileError
from mfas_optuna.spec import (
    CooccurrenceSettings,
    InflatedResNetSettings,
    LeNetSettings,
    MaxoutMlpSettings,
    NetworkSettings,
    PythonBackboneSettings,
    VggSettings,
)
from tests.unit.backbones.helpers import build_network

SMALL: dict[str, tuple[NetworkSettings, tuple[int, ...]]] = {
    "lenet": (LeNetSettings(kind="lenet", channels=[4, 6], features=["conv1"]), (1, 8, 8)),
    "inflated_resnet": (
        InflatedResNetSettings(kind="inflated_resnet", blocks=[1, 1, 1, 1], width=4, features=["layer1"]),
        (3, 2, 32, 32),
    ),
    "cooccurrence": (CooccurrenceSettings(kind="cooccurrence", width=8, features=["conv5"]), (3, 16, 25, 2)),
    "vgg": (VggSettings(kind="vgg", width=2, hidden=6, features=["conv1_1"]), (3, 32, 32)),
    "maxout_mlp": (MaxoutMlpSettings(kind="maxout_mlp", hidden=[5, 4], features=["maxout1"]), (9,)),
}


def python(name: str, features: str = "0") -> PythonBackboneSettings:
    return PythonBackboneSettings(kind="python", file="networks.py", module=name, features=[features])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "networks.py").write_text(
        "from torch import nn\n"
        "def network():\n"
        "    return nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2))\n"
        "class Network(nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(4, 2)\n"
        "def fails():\n"
        "    return nn.Linear(4, 'x')\n"
        "def nothing():\n"
        "    pass\n"
        "constant = 3\n"
    )
    return tmp_path


@pytest.mark.parametrize("kind", SMALL)
def test_weights_come_from_the_generator_alone(kind: str) -> None:
    settings, shape = SMALL[kind]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_network(settings, shape, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = (
        build_network(settings, shape, 5).state_dict(),
        build_network(settings, shape, 5, seed=1).state_dict(),
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(torch.isfinite(value).all() for value in first.values())


@pytest.mark.parametrize("kind", SMALL)
def test_activations_keep_their_scale(kind: str) -> None:
    """Untrained networks neither blow their inputs up nor lose them."""
    settings, shape = SMALL[kind]
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    deviation = build_network(settings, shape, 5)(x).std().item()
    assert 1e-3 < deviation < 30


@pytest.mark.parametrize("kind", SMALL)
def test_samples_of_another_rank_are_refused(kind: str) -> None:
    settings, shape = SMALL[kind]
    with pytest.raises(
        DataError, match=rf"Backbone {kind}: expected samples of axes \(.*found shape \(2, 2, 2, 2, 2\)"
    ):
        build_network(settings, (2, 2, 2, 2, 2), 5)
    assert build_network(settings, shape, 5)(torch.randn(3, *shape)).shape == (3, 5)


def test_a_single_frame_has_no_motion() -> None:
    with pytest.raises(DataError, match="expected at least 2 frames, found 1"):
        build_network(SMALL["cooccurrence"][0], (3, 1, 25, 2), 5)


@pytest.mark.parametrize(("kind", "shape"), [("vgg", (1, 32, 32)), ("inflated_resnet", (2, 2, 32, 32))])
def test_scaling_as_imagenet_is_for_rgb(kind: str, shape: tuple[int, ...]) -> None:
    settings = SMALL[kind][0].model_copy(update={"imagenet_inputs": True})
    with pytest.raises(DataError, match=rf"imagenet_inputs expects 3 channels, found {shape[0]}"):
        build_network(settings, shape, 5)


@pytest.mark.parametrize("name", ["network", "Network"])
def test_networks_of_a_python_file(folder: Path, name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_network(python(name), (4,), 2, folder=folder)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = build_network(python(name), (4,), 2, folder=folder)
    other = build_network(python(name), (4,), 2, seed=1, folder=folder)
    x = torch.randn(3, 4)
    for model in (first, second, other):
        model.eval()
    assert first(x).shape == (3, 2)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), other(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("netwrok", r"networks.py: expected it to define 'netwrok', found no such name. Did you mean 'network'"),
        ("fails", r"networks.py, line 8, in fails\(\): it raised TypeError: .*Mend the file"),
        ("nothing", r"expected nothing\(\) to return a torch.nn.Module, found NoneType"),
        ("constant", r"expected 'constant' to be a function or class, found int"),
    ],
)
def test_what_a_python_file_gets_wrong(folder: Path, name: str, message: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(PythonFileError, match=message):
        build_network(python(name), (4,), 2, folder=folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_python_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PythonFileError, match=r"networks.py: expected a Python file, found none"):
        build_network(python("network"), (4,), 2, folder=tmp_path)
