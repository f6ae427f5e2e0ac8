"""What networks trained on ImageNet expect of their inputs."""

from __future__ import annotations

from torch import Tensor

# Mean and deviation of ImageNet's RGB values, 0 to 1, as torchvision's weights were trained with them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def scale_as_imagenet(x: Tensor) -> Tensor:
    """Return RGB values (batch, 3, ...) of 0 to 1 with ImageNet's mean colour taken off, over its deviation."""
    shape = (3, *[1] * (x.ndim - 2))
    return (x - x.new_tensor(_MEAN).view(shape)) / x.new_tensor(_DEVIATION).view(shape)
