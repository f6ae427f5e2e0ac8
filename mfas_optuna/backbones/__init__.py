"""Unimodal networks whose hidden layers are the features of the search."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mfas_optuna import python_file
from mfas_optuna.backbones.cooccurrence import CooccurrenceNetwork
from mfas_optuna.backbones.inflated_resnet import InflatedResNet
from mfas_optuna.backbones.lenet import LeNet
from mfas_optuna.backbones.maxout_mlp import MaxoutMlp
from mfas_optuna.backbones.taps import Tap, TapInfo, list_taps, tapped_forward
from mfas_optuna.backbones.vgg import Vgg19
from mfas_optuna.backbones.weights import load_weights, read_weights
from mfas_optuna.errors import DataError
from mfas_optuna.spec import (
    CooccurrenceSettings,
    InflatedResNetSettings,
    LeNetSettings,
    MaxoutMlpSettings,
    NetworkSettings,
    PythonBackboneSettings,
    VggSettings,
)

__all__ = [
    "CooccurrenceNetwork",
    "InflatedResNet",
    "LeNet",
    "MaxoutMlp",
    "Tap",
    "TapInfo",
    "Vgg19",
    "build_backbone",
    "list_taps",
    "load_weights",
    "read_weights",
    "tapped_forward",
    "to_input",
]

_N_RGB = 3
_FEWEST_FRAMES = 2  # Of skeletons: motion is a difference.


def build_backbone(
    settings: NetworkSettings,
    *,
    sample_shape: tuple[int, ...],
    n_outputs: int,
    generator: torch.Generator,
    folder: Path,
) -> nn.Module:
    """Return an untrained network on the CPU whose weights come from `generator` alone.

    A network of a Python file is as its function made it, with PyTorch's random numbers started from `generator`.

    Args:
        settings: Which network.
        sample_shape: Shape of one sample of its input, without the batch.
        n_outputs: Width of its output; a network of a Python file has its own.
        generator: A CPU generator; the global one is neither read nor moved.
        folder: What relative paths start from.

    Raises:
        DataError: Samples of this shape are not what the network takes.
        PythonFileError: The Python file cannot be run or gives no network.
    """
    if isinstance(settings, PythonBackboneSettings):
        return _from_python(settings, generator, folder)
    # On the meta device the constructors' own initialisation draws nothing.
    with torch.device("meta"):
        model = _network(settings, sample_shape, n_outputs)
    model.to_empty(device="cpu")
    _initialize(model, generator)
    return model


def _network(settings: NetworkSettings, sample_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    match settings:
        case LeNetSettings():
            n_channels, *_ = _checked(settings, sample_shape, "channels, height, width")
            return LeNet(n_channels, settings.channels, n_outputs)
        case InflatedResNetSettings():
            n_channels, *_ = _checked(settings, sample_shape, "channels, frames, height, width")
            return InflatedResNet(
                n_channels,
                n_outputs,
                blocks=settings.blocks,
                width=settings.width,
                imagenet_inputs=_is_rgb(settings, n_channels),
            )
        case CooccurrenceSettings():
            n_channels, n_frames, n_joints, _ = _checked(settings, sample_shape, "channels, frames, joints, persons")
            if n_frames < _FEWEST_FRAMES:
                raise DataError(
                    f"Backbone cooccurrence: expected at least {_FEWEST_FRAMES} frames, found {n_frames}. Give more."
                )
            return CooccurrenceNetwork(
                n_channels, n_frames, n_joints, n_outputs, width=settings.width, dropout=settings.dropout
            )
        case VggSettings():
            n_channels, *_ = _checked(settings, sample_shape, "channels, height, width")
            return Vgg19(
                n_channels,
                n_outputs,
                width=settings.width,
                hidden=settings.hidden,
                dropout=settings.dropout,
                imagenet_inputs=_is_rgb(settings, n_channels),
            )
        case MaxoutMlpSettings():
            (n_features,) = _checked(settings, sample_shape, "values")
            return MaxoutMlp(
                n_features, n_outputs, hidden=settings.hidden, pieces=settings.pieces, dropout=settings.dropout
            )
    raise TypeError(f"no network is written for {type(settings).__name__}")


def _checked(settings: NetworkSettings, sample_shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    if len(sample_shape) != len(axes.split(", ")):
        raise DataError(
            f"Backbone {settings.kind}: expected samples of axes ({axes}), found shape {sample_shape}. Choose the kind "
            "that fits the modality."
        )
    return sample_shape


def _is_rgb(settings: InflatedResNetSettings | VggSettings, n_channels: int) -> bool:
    if settings.imagenet_inputs and n_channels != _N_RGB:
        raise DataError(
            f"Backbone {settings.kind}: imagenet_inputs expects {_N_RGB} channels, found {n_channels}. Leave it out."
        )
    return settings.imagenet_inputs


def _from_python(settings: PythonBackboneSettings, generator: torch.Generator, folder: Path) -> nn.Module:
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # Not torch.manual_seed, which would start a GPU's again too.
        return python_file.network(folder / settings.file, settings.module)


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
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
