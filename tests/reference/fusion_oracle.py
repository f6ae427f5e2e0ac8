"""Equations 1 and 2 of the paper in plain Python, one sample at a time: the oracle of `mfas_optuna.fusion`.

A vector is a list of floats, a matrix a list of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]
Matrix = Sequence[Vector]

SIGMA: dict[str, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "sigmoid": lambda z: 1.0 / (1.0 + math.exp(-z)),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "tanh": math.tanh,
    "gelu": lambda z: 0.5 * z * (1.0 + math.erf(z / math.sqrt(2.0))),
    "silu": lambda z: z / (1.0 + math.exp(-z)),
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "softplus": lambda z: math.log1p(math.exp(z)),
    "identity": lambda z: z,
}


def affine(weight: Matrix, bias: Vector, x: Vector) -> list[float]:
    """Return W x + b."""
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def fuse(
    chosen: Sequence[tuple[Sequence[int], str]],
    features: Sequence[Sequence[Vector]],
    layers: Sequence[tuple[Matrix, Vector]],
    head: tuple[Matrix, Vector],
) -> list[float]:
    """Return the logits of one sample.

    Args:
        chosen: For each layer its feature of each modality (0-based) and the name of its activation.
        features: For each modality its pooled features.
        layers: (W_l, b_l) of each layer.
        head: Weight and bias of the linear head.
    """
    h: list[float] = []
    for (indices, name), (weight, bias) in zip(chosen, layers, strict=True):
        inputs: list[float] = []
        for modality, index in enumerate(indices):
            inputs.extend(features[modality][index])
        inputs.extend(h)  # Eq. 1; empty at the first layer, which is eq. 2.
        h = [SIGMA[name](z) for z in affine(weight, bias, inputs)]
    return affine(*head, h)
