"""Taps on arbitrary modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones import Tap, TapInfo, list_taps, tapped_forward
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


def listed(model: nn.Module, *sample_shape: int) -> dict[str, TapInfo]:
    return {info.module: info for info in list_taps(model, sample_shape)}


def test_list_of_taps() -> None:
    found = listed(NETWORK, 3, 4)
    assert list(found) == ["stem", "stem.0", "stem.1", "twice", "never", "recurrent", "head"]
    assert found["stem.0"] == TapInfo("stem.0", "Linear", (3, 5), "", 25, -1, 5)
    assert found["stem.1"] == TapInfo("stem.1", "ReLU", (3, 5), "", 0, -1, 5)
    assert found["twice"] == TapInfo("twice", "Linear", None, "ran 2 times, expected once", 30, -1, None)
    assert found["never"].problem == "ran 0 times, expected once"
    assert found["recurrent"].problem == "returned tuple, expected a tensor"
    assert (found["stem.0"].output, found["never"].output) == ("(B, 3, 5)", "ran 0 times, expected once")
    assert found["head"] == TapInfo("head", "Linear", (2,), "", 8, 1, 2)
    assert n_hooks() == 0


def test_list_of_taps_of_convolutions_and_transformers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(2), nn.Linear(36, 6), nn.GELU(),
        nn.TransformerEncoderLayer(6, 2, 10, batch_first=True),
    )  # fmt: skip
    found = listed(model, 3, 6, 6)
    assert [(found[name].shape, found[name].channel_axis, found[name].width) for name in "012345"] == [
        ((8, 6, 6), 1, 8),
        ((8, 6, 6), 1, 8),
        ((8, 36), 1, 8),
        ((8, 6), -1, 6),
        ((8, 6), -1, 6),
        ((8, 6), -1, 6),
    ]
    assert found["5.linear1"].width == 10
    assert found["5.self_attn"].problem == "returned tuple, expected a tensor"


class Folding(nn.Module):
    """Folds persons into the batch, and ends in class numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(4, 3)
        self.total = nn.Flatten(0)
        self.best = Best()

    def forward(self, x: Tensor) -> Tensor:
        each = self.each(x.flatten(0, 1))
        self.total(each)
        self.best(x)
        return each


class Best(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(dim=-1)


def test_list_of_taps_without_batch_channels_or_floats() -> None:
    found = listed(Folding(), 3, 4)
    assert found["each"].problem == "returned shape (6, 3), expected the batch (2) first, then channels"
    assert found["total"].problem.startswith("returned shape (18,)")
    assert found["best"].problem == "returned torch.int64, expected floating point"


def test_listing_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    listed(model, 4)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(TapError, match=r"Sequential: cannot be run on samples of shape \(5,\): RuntimeError: "):
        listed(model, 5)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tap_without_a_module_is_the_network_itself() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(5, 4)
    output, (tapped_output,) = tapped_forward(model, [Tap("output", "")], x)
    assert torch.equal(tapped_output, output)
