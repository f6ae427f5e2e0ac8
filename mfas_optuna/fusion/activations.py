"""The activations that a fusion layer can have, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.errors import SpaceError
from mfas_optuna.space import ACTIVATION_NAMES

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "elu": functional.elu,
    "softplus": functional.softplus,
    "identity": lambda tensor: tensor,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation's name; torch's defaults, so a leaky ReLU has slope 0.01.

    Raises:
        SpaceError: There is none of this name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(f"Unknown activation {name!r}; known are {list(ACTIVATION_NAMES)}.")
    return ACTIVATIONS[name]
