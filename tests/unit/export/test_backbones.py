"""Backbones as code: what it gives is what the tapped network gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.backbones import Tap, build_backbone
from mfas_optuna.export import checks
from mfas_optuna.export.backbones import SNIPPETS, write_backbone
from mfas_optuna.export.snippets import POOL
from mfas_optuna.features.cache import OUTPUT
from mfas_optuna.features.extract import feature_reader
from mfas_optuna.spec import BackboneSettings, GivenFeatures, TapSettings

KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...], list[str]]] = {
    "lenet": ({"kind": "lenet", "channels": [4, 6, 8, 8]}, (2, 6, 9), ["conv1", "conv2", "conv3", "conv4"]),
    "vgg": (
        {"kind": "vgg", "width": 2, "hidden": 5, "imagenet_inputs": True},
        (3, 20, 33),
        ["conv1_1", "conv1_2", "conv2_2", "conv3_1", "conv4_4", "conv5_1", "conv5_4"],
    ),
    "maxout_mlp": ({"kind": "maxout_mlp", "hidden": [6, 5], "pieces": 3}, (7,), ["maxout1", "maxout2"]),
    "inflated_resnet": (
        {"kind": "inflated_resnet", "blocks": [2, 1, 1], "width": 2, "imagenet_inputs": True},
        (3, 4, 17, 32),
        ["layer1", "layer2", "layer3"],
    ),
    "cooccurrence": (
        {"kind": "cooccurrence", "width": 8},
        (3, 9, 5, 2),
        ["conv5", "conv6", "flat", "fc7", "fc8"],
    ),
}


class Reader(nn.Module):
    """The code of a backbone as the model runs it."""

    def __init__(self, code: str, make: str, read: str) -> None:
        super().__init__()
        self._names = {"torch": torch, "nn": nn, "Tensor": Tensor, "functional": functional}
        exec(code, self._names)
        self.backbone = eval(make, self._names)
        self._read = read

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = eval(self._read.replace("{x}", "x"), {**self._names, "self": self, "x": x})
        return result


def compare(kind: str, taps: Sequence[TapSettings]) -> tuple[Reader, nn.Module]:
    """Check that the code gives what the taps give, for one and several samples; return it and the network."""
    values, shape, names = KINDS[kind]
    settings = TypeAdapter(BackboneSettings).validate_python({**values, "features": names})
    assert not isinstance(settings, GivenFeatures)
    generator = torch.Generator().manual_seed(1)
    model = build_backbone(settings, sample_shape=shape, n_outputs=3, generator=generator, folder=Path())
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
    written = write_backbone(
        settings,
        class_name="Backbone",
        modality="it",
        attribute="backbone",
        file="",
        sample_shape=shape,
        state=model.state_dict(),
        taps=taps,
    )
    code = "\n".join([POOL, *(SNIPPETS[name] for name in SNIPPETS if name in written.snippets), written.code])
    reader = Reader(f"from __future__ import annotations\n{code}", written.make, written.read).eval()
    kept = {
        name: value
        for name, value in model.state_dict().items()
        if written.children is None or name.split(".")[0] in written.children
    }
    reader.backbone.load_state_dict(kept)
    x = torch.rand(3, *shape, generator=generator)
    with feature_reader(model, [Tap(tap.name, tap.module, tap.channel_axis) for tap in taps], torch.device("cpu")) as r:
        expected = r(x.numpy())
    with torch.inference_mode():
        found, first = reader(x), reader(x[:1])
    assert set(found) == {tap.name for tap in taps}
    for tap, of_tap in zip(taps, expected, strict=True):
        torch.testing.assert_close(found[tap.name], of_tap, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(first[tap.name], of_tap[:1], rtol=1e-5, atol=1e-5)
    return reader, model


def taps_of(*modules: str) -> list[TapSettings]:
    return [TapSettings(module=module, name=f"feature {module}") for module in modules]


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_of_every_kind(kind: str) -> None:
    _, model = compare(kind, [*taps_of(*KINDS[kind][2]), TapSettings(module="", name=OUTPUT)])
    assert sum(value.numel() for value in model.parameters()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_beyond_the_last_layer_that_is_read(kind: str) -> None:
    first = KINDS[kind][2][0]
    reader, model = compare(kind, taps_of(first))
    n_kept = sum(parameter.numel() for parameter in reader.parameters())
    assert 0 < n_kept < sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("lenet", ["conv2.0", "conv2"]),
        ("vgg", ["conv1_2.0", "classifier.3"]),
        ("maxout_mlp", ["maxout2.linear", ""]),
        ("inflated_resnet", ["layer2.0.conv2", "maxpool", "layer1"]),
        ("cooccurrence", ["fc7.0", "conv5"]),
    ],
)
def test_layers_inside_of_others_are_read_by_hooks(kind: str, modules: list[str]) -> None:
    compare(kind, taps_of(*modules))


def test_the_axis_of_the_channels_is_kept() -> None:
    compare("lenet", [TapSettings(module="conv1", name="last", channel_axis=-1)])
    compare("lenet", [TapSettings(module="conv1.0", name="last", channel_axis=-1)])


class Joined(nn.Module):
    """The features side by side."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([feature.flatten(1) for feature in self.reader(x).values()], dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_a_program_for_batches_of_any_size(kind: str, tmp_path: Path) -> None:
    inside = {"lenet": "conv2.0", "maxout_mlp": "maxout2.linear"}.get(kind)
    reader, _ = compare(kind, taps_of(*KINDS[kind][2], *([inside] if inside else [])))
    model = Joined(reader).eval().requires_grad_(False)
    inputs = {"x": torch.rand(5, *KINDS[kind][1], generator=torch.Generator().manual_seed(3))}
    expected = model(**inputs)
    program, difference = checks.write_program(tmp_path, model, inputs, expected)
    assert difference < 1e-5
    if checks.has_onnx():
        assert checks.write_onnx(tmp_path, program, inputs, expected) < 1e-4
