"""Inflated ResNet-50, and 2D weights made 3D."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.backbones import InflatedResNet, Tap, tapped_forward
from mfas_optuna.backbones.inflated_resnet import load_inflated
from mfas_optuna.backbones.scaling import scale_as_imagenet
from mfas_optuna.errors import WeightsError
from mfas_optuna.spec import InflatedResNetSettings
from tests.unit.backbones.helpers import build_network, check_backward, n_parameters

STAGES = ["layer1", "layer2", "layer3", "layer4"]
TAPS = [Tap(name, name) for name in STAGES]
FULL = InflatedResNetSettings(kind="inflated_resnet", features=STAGES)
NARROW = InflatedResNetSettings(kind="inflated_resnet", features=STAGES, blocks=[1, 2, 1, 1], width=4)
BATCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def keys_of_torchvision(blocks: list[int]) -> list[str]:
    """The state dict of torchvision's ResNet of bottleneck blocks, by rule."""

    def norm(name: str) -> list[str]:
        return [f"{name}.{part}" for part in BATCH_NORM]

    keys = ["conv1.weight", *norm("bn1")]
    for stage, n_blocks in enumerate(blocks, start=1):
        for block in range(n_blocks):
            prefix = f"layer{stage}.{block}"
            for index in (1, 2, 3):
                keys += [f"{prefix}.conv{index}.weight", *norm(f"{prefix}.bn{index}")]
            if block == 0:
                keys += [f"{prefix}.downsample.0.weight", *norm(f"{prefix}.downsample.1")]
    return [*keys, "fc.weight", "fc.bias"]


def flat_state(model: InflatedResNet, seed: int = 0) -> dict[str, Tensor]:
    """A 2D state dict for this network with random values, also of the running statistics."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in model.state_dict().items():
        shape = value[:, :, 0].shape if value.ndim == 5 else value.shape
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif value.ndim == 5:
            state[key] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        else:
            state[key] = torch.rand(shape, generator=generator) + 0.5
    return state


def flat_forward(state: dict[str, Tensor], blocks: list[int], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A 2D ResNet in eval mode, written from its definition: output, and the four stages."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])

    def convolved(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = functional.max_pool2d(norm("bn1", convolved("conv1", x, 2)).relu(), 3, stride=2, padding=1)
    stages = []
    for stage, n_blocks in enumerate(blocks, start=1):
        for block in range(n_blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shortcut = norm(f"{name}.downsample.1", convolved(f"{name}.downsample.0", x, stride)) if block == 0 else x
            x = norm(f"{name}.bn1", convolved(f"{name}.conv1", x)).relu()
            x = norm(f"{name}.bn2", convolved(f"{name}.conv2", x, stride)).relu()
            x = (norm(f"{name}.bn3", convolved(f"{name}.conv3", x)) + shortcut).relu()
        stages.append(x)
    return functional.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"]), stages


def test_resnet_50_forward_and_backward() -> None:
    model = build_network(FULL, (3, 4, 64, 64), 60)
    x = torch.rand(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    output, stages = tapped_forward(model, TAPS, x)
    assert output.shape == (2, 60)
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 256, 4, 16, 16),
        (2, 512, 4, 8, 8),
        (2, 1024, 4, 4, 4),
        (2, 2048, 4, 2, 2),
    ]
    check_backward(model, output)


def test_number_of_parameters() -> None:
    """torchvision's resnet50 has 25,557,032; the 3x3 kernels, 11,317,248 of them, become three times as many."""
    with torch.device("meta"):
        model = InflatedResNet(3, 1000, blocks=[3, 4, 6, 3], width=64)
    assert n_parameters(model) == 25_557_032 + 2 * 11_317_248


def test_keys_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        model = InflatedResNet(3, 1000, blocks=[3, 4, 6, 3], width=64)
    assert list(model.state_dict()) == keys_of_torchvision([3, 4, 6, 3])


def test_strides_are_in_the_middle_convolution() -> None:
    with torch.device("meta"):
        model = InflatedResNet(3, 10, blocks=[1, 1], width=4)
    first = model.get_submodule("layer2.0")
    assert [first.get_submodule(f"conv{index}").stride for index in (1, 2, 3)] == [(1, 1, 1), (1, 2, 2), (1, 1, 1)]


@pytest.mark.parametrize(("frames", "side"), [(1, 32), (2, 32), (3, 45), (8, 16)])
def test_short_videos_of_small_frames(frames: int, side: int) -> None:
    model = build_network(NARROW, (3, frames, side, side), 5)
    x = torch.rand(2, 3, frames, side, side)
    output, stages = tapped_forward(model, TAPS, x)
    assert output.shape == (2, 5)
    assert [stage.shape[1:3] for stage in stages] == [(16, frames), (32, frames), (64, frames), (128, frames)]


def test_fewer_stages() -> None:
    settings = InflatedResNetSettings(kind="inflated_resnet", features=["layer2"], blocks=[1, 1], width=4)
    assert build_network(settings, (1, 2, 8, 8), 3)(torch.rand(1, 1, 2, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_a_still_video_gives_what_the_2d_network_gives(n_frames: int) -> None:
    model = build_network(NARROW, (3, n_frames, 40, 36), 6)
    state = flat_state(model)
    assert load_inflated(model, state) == []
    image = torch.rand(2, 3, 40, 36, generator=torch.Generator().manual_seed(1))
    video = image.unsqueeze(2).expand(-1, -1, n_frames, -1, -1)
    output, stages = tapped_forward(model.eval(), TAPS, video)
    expected, flat_stages = flat_forward(state, NARROW.blocks, image)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    for stage, flat in zip(stages, flat_stages, strict=True):
        torch.testing.assert_close(stage, flat.unsqueeze(2).expand_as(stage), rtol=1e-4, atol=1e-4)


def test_time_counts() -> None:
    """A video in another order of frames gives something else: kernels extend in time."""
    model = build_network(NARROW, (3, 4, 32, 32), 6).eval()
    x = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(model(x), model(x[:, :, [0, 2, 1, 3]]), rtol=1e-3)


def test_inflation_divides_by_the_temporal_extent() -> None:
    model = build_network(NARROW, (3, 2, 32, 32), 6)
    state = flat_state(model)
    load_inflated(model, state)
    kernel, flat = model.state_dict()["layer2.1.conv2.weight"], state["layer2.1.conv2.weight"]
    assert kernel.shape[2] == 3
    torch.testing.assert_close(kernel, (flat / 3).unsqueeze(2).expand_as(kernel))
    torch.testing.assert_close(model.state_dict()["conv1.weight"].squeeze(2), state["conv1.weight"])


def test_3d_weights_are_loaded_as_they_are() -> None:
    model, other = build_network(NARROW, (3, 2, 32, 32), 6), build_network(NARROW, (3, 2, 32, 32), 6, seed=1)
    assert load_inflated(model, other.state_dict()) == []
    for key, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize("n_classes", [1000, None])
def test_another_head_is_left_out(n_classes: int | None) -> None:
    model = build_network(NARROW, (3, 2, 32, 32), 6)
    before = model.state_dict()["fc.weight"].clone()
    state = flat_state(model)
    del state["fc.weight"], state["fc.bias"]
    if n_classes is not None:
        state |= {"fc.weight": torch.zeros(n_classes, 128), "fc.bias": torch.zeros(n_classes)}
    assert load_inflated(model, state) == ["fc.weight", "fc.bias"]
    assert torch.equal(model.state_dict()["fc.weight"], before)
    torch.testing.assert_close(model.state_dict()["bn1.weight"], state["bn1.weight"])


def test_files_of_old_lack_counts_of_batches() -> None:
    model = build_network(NARROW, (3, 2, 32, 32), 6)
    state = {key: value for key, value in flat_state(model).items() if not key.endswith("num_batches_tracked")}
    assert load_inflated(model, state) == []


def test_all_that_does_not_fit_is_listed() -> None:
    model = build_network(NARROW, (3, 2, 32, 32), 6)
    state = flat_state(model)
    del state["bn1.bias"], state["layer1.0.conv2.weight"]
    state["layer9.weight"] = state["other"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(4, 1, 7, 7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="expected the weights of InflatedResNet") as caught:
        load_inflated(model, state)
    assert caught.value.problems == (
        "missing: bn1.bias, layer1.0.conv2.weight",
        "unexpected: layer9.weight, other",
        "of another shape: conv1.weight (expected (4, 3, 1, 7, 7), found (4, 1, 1, 7, 7))",
    )
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_inputs_scaled_as_imagenet() -> None:
    plain = build_network(NARROW, (3, 2, 32, 32), 6).eval()
    settings = NARROW.model_copy(update={"imagenet_inputs": True})
    scaled = build_network(settings, (3, 2, 32, 32), 6).eval()
    x = torch.rand(1, 3, 2, 32, 32)
    torch.testing.assert_close(scaled(x), plain(scale_as_imagenet(x)))
    grey = torch.tensor([0.485, 0.456, 0.406 + 0.225]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(scale_as_imagenet(grey).flatten(), torch.tensor([0.0, 0.0, 1.0]), atol=1e-6, rtol=0)
