"""Unimodal networks whose hidden layers are the features of the search."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mfas_optuna.backbones.lenet import LeNet
from mfas_optuna.backbones.taps import Tap, tapped_forward
from mfas_optuna.spec import BackboneSettings

__all__ = ["LeNet", "Tap", "build_backbone", "tapped_forward", "to_input"]


def build_backbone(
    settings: BackboneSettings, *, in_channels: int, n_classes: int, generator: torch.Generator
) -> nn.Module:
    """Return an untrained network on the CPU whose weights come from `generator` alone.

    Args:
        settings: Which network.
        in_channels: Channels of its input.
        n_classes: Width of its output.
        generator: A CPU generator; the global one is neither read nor moved.
    """
    # On the meta device the constructors' own initialisation draws nothing.
    with torch.device("meta"):
        model = LeNet(in_channels, settings.channels, n_classes)
    model.to_empty(device="cpu")
    _initialize(model, generator)
    return model


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            # Ones and zeros: nothing random.
            module.reset_parameters()
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no initialisation is written for {type(module).__name__}")


def to_input(array: npt.NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """Return a batch as float32 on `device`: uint8 is divided by 255, other numbers are only converted.

    The result never shares memory with a read-only array.
    """
    if not isinstance(array, Tensor):
        array = torch.from_numpy(array if array.flags.writeable else array.copy())
    moved = array.to(device, non_blocking=True)
    return moved.float().div_(255.0) if moved.dtype == torch.uint8 else moved.float()
