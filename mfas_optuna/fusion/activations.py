"""The activations that a fusion layer can have, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class InPlace:
    """An activation that writes where it is told, so that no memory is asked for.

    Attributes:
        apply: (z, h): Write sigma(z) to h.
        multiply_by_slope: (d, z, h): Multiply d by sigma'(z), given z and h = sigma(z).
    """

    apply: Callable[[Tensor, Tensor], object]
    multiply_by_slope: Callable[[Tensor, Tensor, Tensor], object]


# torch has a backward function of each activation that takes one pass over the memory instead of two to six. They are
# what autograd calls; their names are public in torch.ops.aten alone. At 61,440 bytes on one core ReLU's takes 3 us,
# the product with (h > 0) 26; at 2 MB 50 and 2,400, nearly all of it for fresh pages.
_aten = torch.ops.aten
IN_PLACE: dict[str, InPlace] = {
    "relu": InPlace(
        lambda z, h: torch.clamp_min(z, 0.0, out=h),
        lambda d, z, h: _aten.threshold_backward.grad_input(d, h, 0.0, grad_input=d),
    ),
    "sigmoid": InPlace(
        lambda z, h: torch.sigmoid(z, out=h),
        lambda d, z, h: _aten.sigmoid_backward.grad_input(d, h, grad_input=d),
    ),
    "leaky_relu": InPlace(
        lambda z, h: _aten.leaky_relu.out(z, 0.01, out=h),
        lambda d, z, h: _aten.leaky_relu_backward.grad_input(d, z, 0.01, False, grad_input=d),
    ),
    "tanh": InPlace(
        lambda z, h: torch.tanh(z, out=h),
        lambda d, z, h: _aten.tanh_backward.grad_input(d, h, grad_input=d),
    ),
    "gelu": InPlace(
        lambda z, h: _aten.gelu.out(z, out=h),
        lambda d, z, h: _aten.gelu_backward.grad_input(d, z, grad_input=d),
    ),
    "silu": InPlace(
        lambda z, h: _aten.silu.out(z, out=h),
        lambda d, z, h: _aten.silu_backward.grad_input(d, z, grad_input=d),
    ),
    "elu": InPlace(
        lambda z, h: _aten.elu.out(z, out=h),
        lambda d, z, h: _aten.elu_backward.grad_input(d, 1.0, 1.0, 1.0, False, z, grad_input=d),
    ),
    "softplus": InPlace(
        lambda z, h: _aten.softplus.out(z, out=h),
        lambda d, z, h: _aten.softplus_backward.grad_input(d, z, 1.0, 20.0, grad_input=d),
    ),
    "identity": InPlace(lambda z, h: h.copy_(z), lambda d, z, h: d),
}
"""The activations of the same names, for code that keeps its own buffers."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation's name; torch's defaults, so a leaky ReLU has slope 0.01.

    Raises:
        SpaceError: There is none of this name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(f"Unknown activation {name!r}; known are {list(ACTIVATION_NAMES)}.")
    return ACTIVATIONS[name]
