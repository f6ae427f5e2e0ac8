"""The modified LeNet of the paper's AV-MNIST study."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

# Below two pixels there is nothing left to pool.
_SMALLEST_POOLED = 2


class LeNet(nn.Module):
    """3x3 convolutions with batch norm and ReLU, max pooling between, a linear layer on the global average.

    Its submodules `conv1`, `conv2`, ... end in the ReLU. Pooling stops where a side would fall under one pixel, so the
    input may be small.

    Source: MFAS section 4, AV-MNIST. The paper is silent on channels and normalisation.
    """

    head_name: ClassVar[str] = "head"
    """The layer that other weights may have in another shape."""

    def __init__(self, in_channels: int, channels: Sequence[int], n_classes: int) -> None:
        """Make a network of len(channels) convolutions.

        Args:
            in_channels: Channels of the input.
            channels: Output channels of each convolution, first to last.
            n_classes: Width of the output.
        """
        super().__init__()
        self.n_convolutions = len(channels)
        widths = [in_channels, *channels]
        for index, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            block = nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            self.add_module(f"conv{index}", block)
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, n_classes) for images (batch, in_channels, height, width)."""
        for index in range(1, self.n_convolutions + 1):
            if index > 1 and min(x.shape[-2:]) >= _SMALLEST_POOLED:
                x = functional.max_pool2d(x, 2)
            x = self.get_submodule(f"conv{index}")(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits
