"""LeNet and how backbones are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfas_optuna.backbones import LeNet, to_input
from mfas_optuna.spec import LeNetSettings
from tests.unit.backbones.helpers import build_network

CPU = torch.device("cpu")
SETTINGS = LeNetSettings(kind="lenet", channels=[4, 6, 8, 10, 12], features=["conv1"])


def build(seed: int = 0) -> torch.nn.Module:
    return build_network(SETTINGS, (1, 8, 8), 10, seed)


@pytest.mark.parametrize("side", [1, 3, 8, 28, 112])
def test_any_size_of_input(side: int) -> None:
    assert build()(torch.rand(2, 1, side, side)).shape == (2, 10)


def test_names_of_submodules_and_keys() -> None:
    model = LeNet(1, [4, 6], 10)
    assert [name for name, _ in model.named_children()] == ["conv1", "conv2", "head"]
    batch_norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(model.state_dict()) == [
        *("conv1.0.weight", *(f"conv1.1.{name}" for name in batch_norm)),
        *("conv2.0.weight", *(f"conv2.1.{name}" for name in batch_norm)),
        *("head.weight", "head.bias"),
    ]


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = build().state_dict(), build(seed=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv3.0.weight"], other["conv3.0.weight"])
    assert all(torch.isfinite(value).all() for value in first.values())


def test_scale_of_the_first_weights() -> None:
    """He's initialisation: deviation (2 / fan_in) ** 0.5."""
    wide = LeNetSettings(kind="lenet", channels=[64, 64], features=["conv1"])
    model = build_network(wide, (1, 8, 8), 10)
    deviation = model.state_dict()["conv2.0.weight"].std().item()
    assert deviation == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_bytes_become_fractions_and_floats_stay() -> None:
    grey = np.array([[0, 51, 255]], dtype=np.uint8)
    torch.testing.assert_close(to_input(grey, CPU), torch.tensor([[0.0, 0.2, 1.0]]))
    assert grey.tolist() == [[0, 51, 255]]
    torch.testing.assert_close(to_input(torch.from_numpy(grey), CPU), torch.tensor([[0.0, 0.2, 1.0]]))
    values = np.array([-1.5, 3.0], dtype=np.float32)
    assert to_input(values, CPU).tolist() == [-1.5, 3.0]
    values.setflags(write=False)
    assert to_input(values, CPU).dtype == torch.float32
