"""VGG-19 without batch norm, for images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.backbones.scaling import scale_as_imagenet
from mfas_optuna.backbones.state import load_state

_CONVOLUTIONS = (2, 2, 4, 4, 4)
_WIDER = (1, 2, 4, 8, 8)
_SIDE = 7  # Positions of the last maps along height and width, whatever the image's size.
# Below two pixels there is nothing left to pool.
_SMALLEST_POOLED = 2


class Vgg19(nn.Module):
    """Sixteen 3x3 convolutions in five stages with max pooling after each, and three linear layers.

    Its submodules `conv1_1` to `conv5_4` end in the ReLU. Images may have any size.

    Source: Simonyan and Zisserman, 2014, configuration E; MFAS section 4, MM-IMDB.
    """

    head_name: ClassVar[str] = "classifier.6"
    """The layer that other weights may have in another shape."""

    def __init__(
        self,
        in_channels: int,
        n_outputs: int,
        *,
        width: int,
        hidden: int,
        dropout: float,
        imagenet_inputs: bool = False,
    ) -> None:
        """Make a network; VGG-19 has width 64 and 4096 hidden units.

        Args:
            in_channels: Channels of the image.
            n_outputs: Width of the output.
            width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
            hidden: Width of the two hidden linear layers.
            dropout: Probability of dropping a value of these two.
            imagenet_inputs: Whether inputs of 0 to 1 are scaled as ImageNet's weights expect them; RGB alone.
        """
        super().__init__()
        self.imagenet_inputs = imagenet_inputs
        before = in_channels
        for stage, (n_convolutions, wider) in enumerate(zip(_CONVOLUTIONS, _WIDER, strict=True), start=1):
            for index in range(1, n_convolutions + 1):
                block = nn.Sequential(nn.Conv2d(before, wider * width, kernel_size=3, padding=1), nn.ReLU())
                self.add_module(f"conv{stage}_{index}", block)
                before = wider * width
        self.classifier = nn.Sequential(
            nn.Linear(before * _SIDE * _SIDE, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, n_outputs) for images (batch, in_channels, height, width)."""
        if self.imagenet_inputs:
            x = scale_as_imagenet(x)
        for stage, n_convolutions in enumerate(_CONVOLUTIONS, start=1):
            for index in range(1, n_convolutions + 1):
                x = self.get_submodule(f"conv{stage}_{index}")(x)
            if min(x.shape[-2:]) >= _SMALLEST_POOLED:
                x = functional.max_pool2d(x, 2)
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(x, _SIDE).flatten(1))
        return logits


def load_vgg(model: Vgg19, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load weights in torchvision's layout (`features.N.weight`, `classifier.N.weight`), or in this network's own.

    Returns:
        Keys of the head that keep their values, as the weights have it in another shape or not at all.

    Raises:
        WeightsError: Anything else is missing, unexpected or of another shape; all of it is listed.
    """
    names = _names_of_torchvision()
    return load_state(model, {_renamed(key, names): value for key, value in tensors.items()}, model.head_name)


def _names_of_torchvision() -> dict[str, str]:
    """Return our name of each convolution by torchvision's, which numbers convolutions, ReLUs and poolings."""
    names = {}
    position = 0
    for stage, n_convolutions in enumerate(_CONVOLUTIONS, start=1):
        for index in range(1, n_convolutions + 1):
            names[f"features.{position}"] = f"conv{stage}_{index}.0"
            position += 2
        position += 1
    return names


def _renamed(key: str, names: Mapping[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return f"{names[module]}.{parameter}" if module in names else key
