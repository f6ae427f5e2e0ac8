"""The activations that a fusion layer can have, by name."""

from __future__ import annotations

import math
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


DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda z, h: (h > 0).to(z.dtype),
    "sigmoid": lambda z, h: h * (1 - h),
    "leaky_relu": lambda z, h: torch.where(z > 0, torch.ones_like(z), 0.01),
    "tanh": lambda z, h: 1 - h * h,
    "gelu": lambda z, h: torch.special.ndtr(z) + z * torch.exp(-0.5 * z * z) * (2 * math.pi) ** -0.5,
    "silu": lambda z, h: torch.sigmoid(z) * (1 - h) + h,
    "elu": lambda z, h: torch.where(z > 0, torch.ones_like(z), h + 1),
    "softplus": lambda z, h: torch.sigmoid(z),
    "identity": lambda z, h: torch.ones_like(z),
}
"""sigma'(z) from z and h = sigma(z), by the names of `ACTIVATIONS`."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation's name; torch's defaults, so a leaky ReLU has slope 0.01.

    Raises:
        SpaceError: There is none of this name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(f"Unknown activation {name!r}; known are {list(ACTIVATION_NAMES)}.")
    return ACTIVATIONS[name]
