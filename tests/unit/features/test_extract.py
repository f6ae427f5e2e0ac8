"""Extraction: every sample once, in eval mode, as one forward pass over all of them would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.errors import TapError
from mfas_optuna.features import extract as extraction
from mfas_optuna.features.extract import extract, extract_rows, tap_widths

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


def test_rows_are_handed_over_in_whole_batches_in_order() -> None:
    taken: list[tuple[int, np.ndarray]] = []
    model = Counting()
    whole, widths = extract(model, TAPS, images(23), batch_size=4, device=CPU)
    arguments = {"batch_size": 4, "device": CPU, "take": lambda first, rows: taken.append((first, rows.copy()))}
    assert extract_rows(model, TAPS, images(23), rows_at_once=10, **arguments) == widths
    assert [(first, len(rows)) for first, rows in taken] == [(0, 8), (8, 8), (16, 7)]
    assert np.array_equal(np.concatenate([rows for _, rows in taken]), whole)
    assert tap_widths(model, TAPS, images(3), device=CPU) == widths


def test_a_slow_network_hands_over_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "HAND_OVER_S", 0.0)
    taken: list[int] = []
    extract_rows(
        Counting(), TAPS, images(10), batch_size=4, device=CPU, take=lambda first, rows: taken.append(len(rows))
    )
    assert taken == [4, 4, 2]


def test_beginning_at_a_batch_gives_the_same_rest_and_counts_from_there() -> None:
    model = Counting()
    whole, _ = extract(model, TAPS, images(10), batch_size=4, device=CPU)
    model.seen.clear()
    taken: list[np.ndarray] = []
    told: list[int] = []
    extract_rows(
        model,
        TAPS,
        images(10),
        batch_size=4,
        device=CPU,
        first_row=4,
        take=lambda first, rows: taken.append(rows.copy()),
        progress=lambda _, done, total: told.append(done),
    )
    assert np.array_equal(np.concatenate(taken), whole[4:])
    assert model.seen == dict.fromkeys(range(4, 10), 1)
    assert told == [4, 8, 10]


class Overwriting(nn.Module):
    """Writes over the output of a tapped module; has parameters of five axes, and linear outputs to tap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.volume = nn.Conv3d(1, 2, 1)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(self.conv(x).sub_(100.0).mean(dim=(2, 3)))
        return hidden.mul_(0.0)


def test_what_a_tap_saw_is_kept_when_the_network_writes_over_it() -> None:
    model, inputs = Overwriting(), images(5)
    rows, _ = extract(model, [Tap("conv", "conv"), Tap("linear", "linear")], inputs, batch_size=5, device=CPU)
    with torch.inference_mode():
        conv = model.conv(torch.from_numpy(inputs))
        assert torch.allclose(torch.from_numpy(rows[:, :4]), conv.mean(dim=(2, 3)), atol=1e-5)
        assert torch.allclose(torch.from_numpy(rows[:, 4:]), model.linear(conv.mean(dim=(2, 3)) - 100.0), atol=1e-4)


def test_images_are_computed_with_channels_last_and_the_network_can_be_trained_afterwards() -> None:
    model = Overwriting()
    with torch.no_grad():
        model.conv.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    formats: list[bool] = []
    model.conv.register_forward_hook(
        lambda module, inputs, output: formats.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    inputs = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)
    extract(model, [Tap("conv", "conv")], inputs, batch_size=3, device=CPU)
    assert formats == [True, True]
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.volume.weight.is_contiguous()
    model.conv(torch.from_numpy(inputs)).sum().backward()
    assert model.conv.weight.grad is not None


def test_inputs_that_are_no_images() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    inputs = np.random.default_rng(0).random((7, 4, 3), dtype=np.float32)
    rows, widths = extract(model, [Tap("hidden", "0", channel_axis=-1)], inputs, batch_size=2, device=CPU)
    assert widths == [5]
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(rows), model[0](torch.from_numpy(inputs)).mean(dim=1), atol=1e-6)
