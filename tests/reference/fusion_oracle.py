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


def extended_outputs(
    layers: Sequence[tuple[str, str]],
    features: Sequence[Sequence[Vector]],
    state: dict[str, list],  # type: ignore[type-arg]
    *,
    is_dense: bool,
) -> tuple[list[float], list[list[float]]]:
    """Return the outputs of one sample by a network of the extended space, and those of its supervised towers.

    Args:
        layers: Operator and activation of each.
        features: For each layer the parts that it reads, without h.
        state: Weights and biases by their names in the module.
        is_dense: Whether the head reads all layers.
    """
    hidden: list[list[float]] = []
    supervised: list[tuple[int, list[list[float]]]] = []
    for number, ((operator, name), of_layer) in enumerate(zip(layers, features, strict=True)):
        parts = [list(part) for part in of_layer] + hidden[-1:]
        side_by_side = [value for part in parts for value in part]
        of = f"layers.{number}"
        if operator == "concatenation":
            z = affine(state[f"{of}.weight"], state[f"{of}.bias"], side_by_side)
            hidden.append([SIGMA[name](value) for value in z])
            continue
        towers = [
            [SIGMA[name](z) for z in affine(state[f"{of}.parts.{p}.weight"], state[f"{of}.parts.{p}.bias"], part)]
            for p, part in enumerate(parts)
        ]
        width = len(towers[0])
        if operator == "product":
            hidden.append([math.prod(tower[unit] for tower in towers) for unit in range(width)])
        elif operator == "gate":
            gates = affine(state[f"{of}.gates.weight"], state[f"{of}.gates.bias"], side_by_side)
            h = []
            for unit in range(width):
                powers = [math.exp(gates[p * width + unit]) for p in range(len(parts))]
                h.append(sum(power * tower[unit] for power, tower in zip(powers, towers, strict=True)) / sum(powers))
            hidden.append(h)
        else:
            hidden.append([value for tower in towers for value in tower])
            if operator == "supervised_towers":
                supervised.append((number, towers))
    read = [value for h in (hidden if is_dense else hidden[-1:]) for value in h]
    auxiliary = []
    for number, towers in supervised:
        if is_dense or number == len(layers) - 1:
            first = sum(len(h) for h in hidden[:number]) if is_dense else 0
            weight, bias = [row[first:] for row in state["head.weight"]], state["head.bias"]
        else:
            weight, bias = state[f"auxiliary.{number}.weight"], state[f"auxiliary.{number}.bias"]
        width = len(towers[0])
        for p, tower in enumerate(towers):
            auxiliary.append(affine([row[p * width : (p + 1) * width] for row in weight], bias, tower))
    return affine(state["head.weight"], state["head.bias"], read), auxiliary
