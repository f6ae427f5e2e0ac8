"""Taps on arbitrary modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones import Tap, tapped_forward
from mfas_optuna.errors import TapError


class Network(nn.Module):
    """Has a module that runs twice, one that never does, and one that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True))
        self.twice = nn.Linear(5, 5)
        self.never = nn.Linear(5, 5)
        self.recurrent = nn.GRU(5, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)))
        states, _ = self.recurrent(x)
        result: Tensor = self.head(states[:, -1])
        return result


NETWORK = Network().eval()
X = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))


def n_hooks() -> int:
    return sum(len(module._forward_hooks) for module in NETWORK.modules())


def test_outputs_in_the_order_of_the_taps() -> None:
    taps = [Tap("last", "head"), Tap("first", "stem.0", channel_axis=-1), Tap("relu", "stem")]
    output, (last, first, relu) = tapped_forward(NETWORK, taps, X)
    torch.testing.assert_close(output, NETWORK(X))
    torch.testing.assert_close(last, output)
    torch.testing.assert_close(relu, first.relu())
    # Taken before the in-place ReLU wrote over it.
    assert first.min() < 0
    assert n_hooks() == 0


def test_no_taps_at_all() -> None:
    output, features = tapped_forward(NETWORK, [], X)
    assert features == []
    torch.testing.assert_close(output, NETWORK(X))


def test_transformer_layers_can_be_tapped() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(8, 3))
    _, (tokens,) = tapped_forward(model, [Tap("tokens", "0", channel_axis=-1)], torch.randn(2, 5, 8))
    assert tokens.shape == (2, 5, 8)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("stam.0", r"no submodule 'stam.0'. Did you mean 'stem.0'"),
        ("zzz", r"no submodule 'zzz'. Did you mean 'stem' or"),
        ("", r"no submodule ''"),
        ("twice", r"'twice' ran 2 times in one forward pass, expected once"),
        ("never", r"'never' ran 0 times"),
        ("recurrent", r"'recurrent' returned tuple, expected a tensor"),
    ],
)
def test_what_cannot_be_tapped_is_refused(module: str, message: str) -> None:
    with pytest.raises(TapError, match=message):
        tapped_forward(NETWORK, [Tap("fine", "stem"), Tap("f", module)], X)
    assert n_hooks() == 0


def test_hooks_go_when_the_network_raises() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        tapped_forward(NETWORK, [Tap("a", "stem")], torch.randn(2, 3, 9))
    assert n_hooks() == 0
