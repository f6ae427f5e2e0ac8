"""Extraction: every sample once, in eval mode, as one forward pass over all of them would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.errors import TapError
from mfas_optuna.features.extract import extract

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts how often it sees each sample, which it knows by its first value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 3)
        self.seen: dict[int, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        for value in x[:, 0, 0, 0].tolist():
            sample = round(value)
            self.seen[sample] = self.seen.get(sample, 0) + 1
        hidden = self.drop(self.norm(self.conv(x)))
        return self.linear(hidden.mean(dim=(2, 3)))


TAPS = [Tap("linear", "linear"), Tap("conv", "conv"), Tap("drop", "drop")]


def images(n: int) -> np.ndarray:
    values = np.random.default_rng(0).random((n, 1, 6, 6)).astype(np.float32)
    values[:, 0, 0, 0] = np.arange(n)
    return values


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (3, 100), (1, 1)])
def test_each_sample_is_seen_once(n: int, batch_size: int) -> None:
    model = Counting().train()
    extract(model, TAPS, images(n), batch_size=batch_size, device=CPU)
    assert model.seen == dict.fromkeys(range(n), 1)
    assert not model.training


def test_features_are_pooled_outputs_in_eval_mode_in_the_order_of_taps() -> None:
    model = Counting()
    inputs = images(10)
    running = model.norm.running_mean.clone()
    rows, widths = extract(model, TAPS, inputs, batch_size=4, device=CPU)
    assert widths == [3, 4, 4]
    assert rows.shape == (10, 11)
    assert rows.dtype == np.float32
    assert torch.equal(model.norm.running_mean, running)
    with torch.inference_mode():
        x = torch.from_numpy(inputs)
        conv = model.conv(x)
        expected = torch.cat([model(x), conv.mean(dim=(2, 3)), model.norm(conv).mean(dim=(2, 3))], dim=1)
    assert torch.allclose(torch.from_numpy(rows), expected, atol=1e-5)


def test_whole_numbers_are_fractions_of_255() -> None:
    model = Counting()
    bytes_ = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 6), dtype=np.uint8)
    first, _ = extract(model, TAPS, bytes_, batch_size=2, device=CPU)
    second, _ = extract(model, TAPS, (bytes_ / 255).astype(np.float32), batch_size=2, device=CPU)
    assert np.allclose(first, second, atol=1e-6)


def test_progress_reaches_its_end() -> None:
    told: list[tuple[int, int]] = []
    extract(
        Counting(),
        TAPS,
        images(10),
        batch_size=4,
        device=CPU,
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_a_missing_submodule_is_named() -> None:
    with pytest.raises(TapError, match=r"'conw'.*'conv'"):
        extract(Counting(), [Tap("first", "conw")], images(2), batch_size=2, device=CPU)
