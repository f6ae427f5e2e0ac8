"""Trained weights from a file."""

from __future__ import annotations

import pickle  # For the exception that torch.load raises; nothing is unpickled by it.
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mfas_optuna.backbones.inflated_resnet import InflatedResNet, load_inflated
from mfas_optuna.backbones.state import load_state
from mfas_optuna.backbones.vgg import Vgg19, load_vgg
from mfas_optuna.errors import WeightsError
from mfas_optuna.spec import NetworkSettings, PythonBackboneSettings

_NESTED = ("state_dict", "model")
_PREFIX = "module."  # What torch.nn.DataParallel puts before every key.


def load_weights(model: nn.Module, settings: NetworkSettings, path: Path) -> list[str]:
    """Fill a network from a file; a head of another shape is left out.

    Args:
        model: What `build_backbone` made of `settings`.
        settings: Which network.
        path: The file, as for `read_weights`.

    Returns:
        Keys of the head that keep their values, as the file has it in another shape or not at all. Of a network in a
        Python file everything must fit.

    Raises:
        WeightsError: The file cannot be read, or anything else is missing, unexpected or of another shape; all of it is
            listed.
    """
    tensors = read_weights(path)
    try:
        if isinstance(model, InflatedResNet):
            return load_inflated(model, tensors)
        if isinstance(model, Vgg19):
            return load_vgg(model, tensors)
        head = "" if isinstance(settings, PythonBackboneSettings) else str(model.head_name)
        return load_state(model, tensors, head)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}", error.problems) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, onto the CPU.

    Args:
        path: A .safetensors file; or a .pt or .pth file of tensors: a state dict, or a dict with one under "state_dict"
            or "model". A "module." before all keys is taken off.

    Raises:
        WeightsError: There is no such file, it is of another kind, or it holds something else than tensors.
    """
    values: Any
    try:
        if path.suffix == ".safetensors":
            values = safetensors.torch.load_file(path)
        elif path.suffix in (".pt", ".pth"):
            values = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise WeightsError(
                f"{path}: expected a file that ends in .safetensors, .pt or .pth. Save the network's state dict as one."
            )
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: expected a file of weights, found none. Mend the path.") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected a file of tensors alone, found other objects too, or no file of torch.save. Save the "
            "network's state dict: torch.save(model.state_dict(), path)."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}. Save the weights again.") from error
    return _without_prefix(_state_dict(values, path))


def _state_dict(values: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(values, Mapping):
        nested = next((values[key] for key in _NESTED if isinstance(values.get(key), Mapping)), values)
        others = [str(key) for key, value in nested.items() if not isinstance(value, Tensor)]
        if nested and not others:
            return {str(key): value for key, value in nested.items()}
        found = f"no tensors under {', '.join(others)}" if others else "nothing in it"
    else:
        found = type(values).__name__
    raise WeightsError(
        f"{path}: expected a state dict, or one under 'state_dict' or 'model', found {found}. Save the network's state "
        "dict: torch.save(model.state_dict(), path)."
    )


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith(_PREFIX) for key in tensors):
        return {key.removeprefix(_PREFIX): value for key, value in tensors.items()}
    return tensors
