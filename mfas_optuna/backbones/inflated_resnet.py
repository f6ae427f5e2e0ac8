"""ResNet-50 inflated in time, for videos.

Which kernels extend in time, and how 2D weights become 3D ones: docs/decisions/0024-backbones-of-ntu-and-mmimdb.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.backbones.scaling import scale_as_imagenet
from mfas_optuna.backbones.state import load_state

_EXPANSION = 4  # Output channels of a bottleneck block over its inner ones.
_KERNEL_FRAMES = 3


class Bottleneck(nn.Module):
    """A bottleneck block whose middle convolution extends over three frames; the stride is in that one."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, changes_shape: bool) -> None:
        """Make a block of `channels` inner and four times as many output channels.

        Args:
            in_channels: Channels of its input.
            channels: Channels of the two inner convolutions.
            stride: Of height and width; time keeps its length.
            changes_shape: Whether the shortcut needs a convolution.
        """
        super().__init__()
        out_channels, strides = _EXPANSION * channels, (1, stride, stride)
        self.conv1 = nn.Conv3d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        # Time is padded in `forward`.
        self.conv2 = nn.Conv3d(
            channels, channels, kernel_size=(_KERNEL_FRAMES, 3, 3), stride=strides, padding=(0, 1, 1), bias=False
        )
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Sequential(
                nn.Conv3d(in_channels, out_channels, kernel_size=1, stride=strides, bias=False),
                nn.BatchNorm3d(out_channels),
            )
            if changes_shape
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 4 * channels, frames, height / stride, width / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        # The first and last frame are repeated: with zeros, a still video would not give what one image gives.
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        x = functional.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return result


class InflatedResNet(nn.Module):
    """A ResNet of bottleneck blocks on videos of any length and size.

    Its stages are the submodules `layer1` to `layer4`, which end in a ReLU. Names and shapes are those of torchvision's
    ResNet-50, but for the time axis of the kernels.

    Source: MFAS section 4, NTU RGB+D, "Inflated ResNet-50".
    """

    head_name: ClassVar[str] = "fc"
    """The layer that other weights may have in another shape."""

    def __init__(
        self, in_channels: int, n_outputs: int, *, blocks: Sequence[int], width: int, imagenet_inputs: bool = False
    ) -> None:
        """Make a network of len(blocks) stages.

        Args:
            in_channels: Channels of a frame.
            n_outputs: Width of the output.
            blocks: Blocks of each stage; 3, 4, 6, 3 for ResNet-50.
            width: Channels of the stem; stage i has 4 * width * 2^(i-1).
            imagenet_inputs: Whether inputs of 0 to 1 are scaled as ImageNet's weights expect them; RGB alone.
        """
        super().__init__()
        self.imagenet_inputs = imagenet_inputs
        self.conv1 = nn.Conv3d(
            in_channels, width, kernel_size=(1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.stages = tuple(f"layer{index}" for index in range(1, len(blocks) + 1))
        before = width
        for index, (name, n_blocks) in enumerate(zip(self.stages, blocks, strict=True)):
            channels = width * 2**index
            first = Bottleneck(before, channels, stride=1 if index == 0 else 2, changes_shape=True)
            before = _EXPANSION * channels
            others = [Bottleneck(before, channels, stride=1, changes_shape=False) for _ in range(n_blocks - 1)]
            self.add_module(name, nn.Sequential(first, *others))
        self.fc = nn.Linear(before, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, n_outputs) for videos (batch, in_channels, frames, height, width)."""
        if self.imagenet_inputs:
            x = scale_as_imagenet(x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3, 4)))
        return logits


def load_inflated(model: InflatedResNet, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load weights in torchvision's layout of a 2D ResNet, or 3D ones of this layout.

    A 2D kernel is repeated along time and divided by the temporal extent: then a video of equal frames gives what the
    2D network gives for one of them.

    Source: Carreira and Zisserman, "Quo vadis, action recognition?", 2017, section 2.4.

    Returns:
        Keys of the head that keep their values, as the weights have it in another shape or not at all.

    Raises:
        WeightsError: Anything else is missing, unexpected or of another shape; all of it is listed.
    """
    own = model.state_dict()
    return load_state(model, {key: _inflated(value, own.get(key)) for key, value in tensors.items()}, model.head_name)


def _inflated(kernel: Tensor, own: Tensor | None) -> Tensor:
    if own is None or own.ndim != 5 or kernel.ndim != 4:
        return kernel
    n_frames = own.shape[2]
    return kernel.unsqueeze(2).repeat(1, 1, n_frames, 1, 1) / n_frames
