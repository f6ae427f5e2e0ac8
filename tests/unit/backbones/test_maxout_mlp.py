"""The maxout MLP."""

from __future__ import annotations

import torch

from mfas_optuna.backbones import Tap, tapped_forward
from mfas_optuna.spec import MaxoutMlpSettings
from tests.unit.backbones.helpers import build_network, check_backward, n_parameters

NAMES = ["maxout1", "maxout2"]
FULL = MaxoutMlpSettings(kind="maxout_mlp", features=NAMES)


def test_forward_and_backward() -> None:
    model = build_network(FULL, (300,), 23)
    x = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    output, features = tapped_forward(model, [Tap(name, name) for name in NAMES], x)
    assert output.shape == (5, 23)
    assert [feature.shape for feature in features] == [(5, 512), (5, 512)]
    layers = (300 * 1024 + 1024) + (512 * 1024 + 1024) + (512 * 23 + 23)
    assert n_parameters(model) == layers + 2 * (300 + 512 + 512) == 847_983
    assert not torch.equal(output, model(x))  # Dropout.
    check_backward(model, output)


def test_a_layer_is_the_maximum_of_its_pieces() -> None:
    settings = MaxoutMlpSettings(kind="maxout_mlp", features=["maxout1"], hidden=[4], pieces=3)
    model = build_network(settings, (6,), 2).eval()
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    _, (hidden,) = tapped_forward(model, [Tap("maxout1", "maxout1")], x)
    weight, bias = model.state_dict()["maxout1.linear.weight"], model.state_dict()["maxout1.linear.bias"]
    normed = x / (1 + 1e-5) ** 0.5  # Untrained running statistics: mean 0, variance 1.
    for unit in range(4):
        pieces = [normed @ weight[3 * unit + piece] + bias[3 * unit + piece] for piece in range(3)]
        torch.testing.assert_close(hidden[:, unit], torch.stack(pieces).amax(dim=0))


def test_any_number_of_layers() -> None:
    settings = MaxoutMlpSettings(kind="maxout_mlp", features=["maxout3"], hidden=[5, 4, 3], dropout=0.0)
    assert build_network(settings, (6,), 2)(torch.randn(4, 6)).shape == (4, 2)
