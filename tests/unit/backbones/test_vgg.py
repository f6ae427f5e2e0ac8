"""VGG-19 and weights in torchvision's layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mfas_optuna.backbones import Tap, Vgg19, tapped_forward
from mfas_optuna.backbones.scaling import scale_as_imagenet
from mfas_optuna.backbones.vgg import load_vgg
from mfas_optuna.errors import WeightsError
from mfas_optuna.spec import VggSettings
from tests.unit.backbones.helpers import build_network, check_backward, n_parameters

NAMES = [f"conv{stage}_{index}" for stage, n in enumerate([2, 2, 4, 4, 4], start=1) for index in range(1, n + 1)]
WIDTHS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
FULL = VggSettings(kind="vgg", features=NAMES)
NARROW = VggSettings(kind="vgg", features=NAMES, width=2, hidden=6, dropout=0.0)

# Of the convolutions in `features` of torchvision's vgg19: a ReLU follows each, and a pooling each stage.
POSITIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]


def state_of_torchvision(model: Vgg19, n_outputs: int) -> dict[str, Tensor]:
    """A state dict in torchvision's layout for a network of these widths, with random values."""
    generator = torch.Generator().manual_seed(3)
    own = model.state_dict()
    shapes = {}
    for position, name in zip(POSITIONS, NAMES, strict=True):
        for part in ("weight", "bias"):
            shapes[f"features.{position}.{part}"] = own[f"{name}.0.{part}"].shape
    for position in (0, 3):
        for part in ("weight", "bias"):
            shapes[f"classifier.{position}.{part}"] = own[f"classifier.{position}.{part}"].shape
    shapes |= {"classifier.6.weight": (n_outputs, own["classifier.3.bias"].shape[0]), "classifier.6.bias": (n_outputs,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_vgg_19_forward_and_backward() -> None:
    model = build_network(FULL, (3, 64, 64), 23)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    output, features = tapped_forward(model, [Tap(name, name) for name in NAMES], x)
    assert output.shape == (1, 23)
    assert n_parameters(model) == 143_667_240 - 977 * 4097  # torchvision's, with 23 for 1,000 classes.
    sides = [64] * 2 + [32] * 2 + [16] * 4 + [8] * 4 + [4] * 4
    assert [feature.shape for feature in features] == [
        (1, width, side, side) for width, side in zip(WIDTHS, sides, strict=True)
    ]
    assert all(feature.min() == 0 for feature in features)  # After the ReLU.
    assert not torch.equal(output, model(x))  # Dropout.
    check_backward(model, output)


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        assert n_parameters(Vgg19(3, 1000, width=64, hidden=4096, dropout=0.5)) == 143_667_240


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (160, 256)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    assert build_network(NARROW, (3, *size), 4)(torch.rand(2, 3, *size)).shape == (2, 4)


def test_weights_in_the_layout_of_torchvision() -> None:
    model = build_network(NARROW, (3, 32, 32), 4)
    state = state_of_torchvision(model, 4)
    assert load_vgg(model, state) == []
    own = model.state_dict()
    assert len(own) == len(state)
    for position, name in zip(POSITIONS, NAMES, strict=True):
        assert torch.equal(own[f"{name}.0.weight"], state[f"features.{position}.weight"])
        assert torch.equal(own[f"{name}.0.bias"], state[f"features.{position}.bias"])
    for position in (0, 3, 6):
        assert torch.equal(own[f"classifier.{position}.weight"], state[f"classifier.{position}.weight"])


def test_another_head_is_left_out() -> None:
    model = build_network(NARROW, (3, 32, 32), 4)
    before = model.state_dict()["classifier.6.weight"].clone()
    assert load_vgg(model, state_of_torchvision(model, 1000)) == ["classifier.6.weight", "classifier.6.bias"]
    assert torch.equal(model.state_dict()["classifier.6.weight"], before)


def test_its_own_layout_is_loaded_too() -> None:
    model, other = build_network(NARROW, (3, 32, 32), 4), build_network(NARROW, (3, 32, 32), 4, seed=1)
    assert load_vgg(model, other.state_dict()) == []
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model(x), other(x))


def test_vgg_16_is_refused() -> None:
    model = build_network(NARROW, (3, 32, 32), 4)
    state = state_of_torchvision(model, 4)
    del state["features.34.weight"], state["features.34.bias"]
    state["features.17.weight"] = torch.zeros(2)
    with pytest.raises(WeightsError) as caught:
        load_vgg(model, state)
    assert caught.value.problems == ("missing: conv5_4.0.weight, conv5_4.0.bias", "unexpected: features.17.weight")


def test_inputs_scaled_as_imagenet() -> None:
    plain = build_network(NARROW, (3, 32, 32), 4)
    scaled = build_network(NARROW.model_copy(update={"imagenet_inputs": True}), (3, 32, 32), 4)
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(scaled(x), plain(scale_as_imagenet(x)))
