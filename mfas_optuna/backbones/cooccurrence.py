"""The co-occurrence network for skeletons (HCN).

Source: Li, Zhong, Xie and Pu, "Co-occurrence Feature Learning from Skeleton Data for Action Recognition and Detection
with Hierarchical Aggregation", IJCAI 2018, arXiv 1804.06055, figure 3. Which layers the search reads, and their sizes:
docs/decisions/0024-backbones-of-ntu-and-mmimdb.md.
"""

# Shapes: B batch, C channels, T frames, V joints, M persons; W channels of conv1.

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, cat, nn
from torch.nn import functional

_SHRINK = 16  # Four poolings by two.


class Stream(nn.Sequential):
    """conv1 to conv4, for the joints or for their motion: each joint alone, then all joints as channels."""

    def __init__(self, in_channels: int, n_joints: int, width: int, dropout: float) -> None:
        """Make a stream of `width` output channels.

        Args:
            in_channels: Coordinates of a joint.
            n_joints: V.
            width: Channels of conv1 and conv4; conv2 and conv3 have half as many.
            dropout: Probability of dropping a channel of conv4.
        """
        super().__init__()
        self.add_module("conv1", nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.ReLU()))
        self.add_module("conv2", nn.Conv2d(width, width // 2, (3, 1), padding=(1, 0)))
        self.add_module("transpose", JointsAsChannels())
        self.add_module("conv3", nn.Sequential(nn.Conv2d(n_joints, width // 2, 3, padding=1), _pooling()))
        self.add_module(
            "conv4", nn.Sequential(nn.Conv2d(width // 2, width, 3, padding=1), nn.Dropout2d(dropout), _pooling())
        )


class JointsAsChannels(nn.Module):
    """Swaps channels and joints, so that convolutions see all joints at once."""

    def forward(self, x_BCTV: Tensor) -> Tensor:
        """Return (B, V, T, C) for (B, C, T, V)."""
        return x_BCTV.transpose(1, 3)


class PersonMaximum(nn.Module):
    """The element-wise maximum over the persons of a sample."""

    def forward(self, x: Tensor, n_persons: int) -> Tensor:
        """Return (B, ...) for (B * M, ...), the persons of a sample one after the other."""
        persons: Tensor = x.unflatten(0, (-1, n_persons))
        return persons.amax(dim=1)


class CooccurrenceNetwork(nn.Module):
    """Two streams, joints and their motion, joined; the maximum over persons; two linear layers.

    Its submodules `conv5`, `conv6`, `flat`, `fc7` and `fc8` give one output a sample: `conv5` and `conv6` the maximum
    over persons of what the convolutions `person5` and `person6` give for each, `flat` that of conv6 as one row, `fc8`
    the network's output.

    Source: Li et al., figure 3; MFAS section 4, NTU RGB+D.
    """

    head_name: ClassVar[str] = "fc8"
    """The layer that other weights may have in another shape."""

    def __init__(
        self, in_channels: int, n_frames: int, n_joints: int, n_outputs: int, *, width: int, dropout: float
    ) -> None:
        """Make a network for skeletons of a fixed length.

        Args:
            in_channels: Coordinates of a joint: 3.
            n_frames: T, at least 2.
            n_joints: V.
            n_outputs: Width of the output.
            width: Channels of conv1; the others are in proportion.
            dropout: Probability of dropping a channel of conv4, conv5 and conv6, and a value of fc7.
        """
        super().__init__()
        self.joints = Stream(in_channels, n_joints, width, dropout)
        self.motion = Stream(in_channels, n_joints, width, dropout)
        self.person5 = _joined(2 * width, 2 * width, dropout)
        self.person6 = _joined(2 * width, 4 * width, dropout)
        self.conv5 = PersonMaximum()
        self.conv6 = PersonMaximum()
        self.flat = nn.Flatten()
        n_positions = _pooled(n_frames) * _pooled(width // 2)
        self.fc7 = nn.Sequential(nn.Linear(4 * width * n_positions, 8 * width), nn.ReLU(), nn.Dropout(dropout))
        self.fc8 = nn.Linear(8 * width, n_outputs)

    def forward(self, x_BCTVM: Tensor) -> Tensor:
        """Return (B, n_outputs) for skeletons (B, C, T, V, M); T and V are the network's, M is any."""
        n_persons = x_BCTVM.shape[4]
        x_NCTV = x_BCTVM.movedim(4, 1).flatten(0, 1)  # N = B * M.
        x = self.person5(cat([self.joints(x_NCTV), self.motion(motion(x_NCTV))], dim=1))
        self.conv5(x, n_persons)  # Only for whoever taps it.
        x = self.flat(self.conv6(self.person6(x), n_persons))
        logits: Tensor = self.fc8(self.fc7(x))
        return logits


def motion(x_NCTV: Tensor) -> Tensor:
    """Return the differences of adjacent frames, interpolated to as many frames as there are.

    Source: Li et al., the second of the two streams; interpolated as in implementations of it.
    """
    difference = x_NCTV.diff(dim=2)
    return functional.interpolate(difference, size=x_NCTV.shape[2:], mode="bilinear", align_corners=False)


def _joined(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(), nn.Dropout2d(dropout), _pooling())


def _pooling() -> nn.MaxPool2d:
    # Rounded up, so that short and narrow variants never fall under one position.
    return nn.MaxPool2d(2, ceil_mode=True)


def _pooled(length: int) -> int:
    """Return what all the poolings leave of a length."""
    return -(-length // _SHRINK)
