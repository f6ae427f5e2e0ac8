"""Heads as readable PyTorch code, with standardisation and label scale folded into their weights.

Shapes: B batch, F_l width of the features that layer l reads, H fusion width, C outputs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.errors import ExportError
from mfas_optuna.export.snippets import literal
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.head import Head, HeadSettings, NetworkSettings, head_label

LARGEST_FOLDED_SHIFT = 1000.0
"""Deviations that a column's mean may be away from 0 for standardisation to be folded. W x + b then takes the
difference of numbers of this size, which costs three of float32's seven digits."""

EXPORTED_KINDS = ("network",)
"""Kinds of heads that code is written for."""

ACTIVATION_CODE: Mapping[str, str] = {
    "relu": "torch.relu({})",
    "sigmoid": "torch.sigmoid({})",
    "leaky_relu": "functional.leaky_relu({})",
    "tanh": "torch.tanh({})",
    "gelu": "functional.gelu({})",
    "silu": "functional.silu({})",
    "elu": "functional.elu({})",
    "softplus": "functional.softplus({})",
    "identity": "{}",
}
"""Code of each activation of a fusion layer."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """What surrounds a head.

    Attributes:
        shift_F: Subtracted from each column of a row.
        scale_F: What it is then divided by.
        label_mean_C: Added to outputs that are multiplied by `label_std_C`: back to the labels' own units.
        label_std_C: See there; None, both, where outputs are logits.
    """

    shift_F: Floats
    scale_F: Floats
    label_mean_C: Doubles | None = None
    label_std_C: Doubles | None = None


@dataclass(frozen=True)
class WrittenHead:
    """Code of a head.

    Attributes:
        code: Its class, `Fusion`, whose `forward` takes the features of each modality by name.
        weights: By their names in the class.
        standardization: What became of it, in words.
        rounds: Whether it can round features to float16.
    """

    code: str
    weights: Mapping[str, Tensor]
    standardization: str
    rounds: bool = False


def read_head(record: Mapping[str, Any]) -> HeadSettings:
    """Return the settings of a stored head.

    Raises:
        ExportError: No code is written for its kind.
    """
    if record["kind"] not in EXPORTED_KINDS:
        raise ExportError(
            f"Heads of kind {record['kind']!r} cannot be exported; those of kind {', '.join(EXPORTED_KINDS)} can. "
            "Name a method that fuses by such with --method."
        )
    return NetworkSettings.model_validate_json(json.dumps(record))


def build_head(settings: HeadSettings, layout: FeatureLayout, n_outputs: int, state: Mapping[str, Tensor]) -> Head:
    """Return a trained head on the CPU.

    Args:
        settings: What it is.
        layout: Where the features are in a row.
        n_outputs: C.
        state: Its weights.

    Raises:
        ExportError: The weights are not its own.
    """
    head = settings.build(layout, n_outputs, dropout=0.0, generator=torch.Generator().manual_seed(0))
    try:
        head.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ExportError(
            f"The stored weights do not fit the head {head_label(settings.as_record())}: {error}"
        ) from error
    return head.eval().requires_grad_(False)


def write_head(
    settings: HeadSettings,
    state: Mapping[str, Tensor],
    *,
    layout: FeatureLayout,
    scaling: Scaling,
    arguments: Mapping[str, str],
    rounds: bool,
) -> WrittenHead:
    """Return a head as code.

    Args:
        settings: What it is.
        state: Its weights.
        layout: Where the features are in a row.
        scaling: What surrounds it.
        arguments: What the features of each modality are called in the code, in order.
        rounds: Whether it was trained on features rounded to float16: then it can round them too.

    Raises:
        ExportError: No code is written for its kind.
    """
    if isinstance(settings, NetworkSettings):
        return _write_network(settings, state, layout, scaling, arguments, rounds)
    raise ExportError(f"No code is written for {type(settings).__name__}.")


def _write_network(
    settings: NetworkSettings,
    state: Mapping[str, Tensor],
    layout: FeatureLayout,
    scaling: Scaling,
    arguments: Mapping[str, str],
    rounds: bool,
) -> WrittenHead:
    columns = [
        [layout.columns(modality, name) for modality, name in layer.features.items()] for layer in settings.layers
    ]
    shifts = [np.concatenate([scaling.shift_F[of] for of in of_layer]) for of_layer in columns]
    scales = [np.concatenate([scaling.scale_F[of] for of in of_layer]) for of_layer in columns]
    is_plain = all((shift == 0).all() and (scale == 1).all() for shift, scale in zip(shifts, scales, strict=True))
    folds = all(
        np.abs(shift / scale).max(initial=0.0) <= LARGEST_FOLDED_SHIFT
        for shift, scale in zip(shifts, scales, strict=True)
    )
    weights: dict[str, Tensor] = {}
    init: list[str] = []
    forward: list[str] = []
    previous = 0
    for number, (layer, shift, scale) in enumerate(zip(settings.layers, shifts, scales, strict=True), start=1):
        weight, bias = state[f"network.layers.{number - 1}.weight"], state[f"network.layers.{number - 1}.bias"]
        if folds:
            weight, bias = _folded(weight, bias, shift, scale)
        weights |= {f"layer{number}.weight": weight, f"layer{number}.bias": bias}
        width = len(shift)
        below = " + layer below" if previous else ""
        features = " + ".join(
            f"{modality} {name} ({of.stop - of.start})"
            for (modality, name), of in zip(layer.features.items(), columns[number - 1], strict=True)
        )
        sizes = f"{width} + {previous}" if previous else str(width)
        init += [
            f"# {features}{below} -> {layer.activation}",
            f"self.layer{number} = nn.Linear({sizes}, {settings.width})",
        ]
        read = [f"{arguments[modality]}[{literal(name)}]" for modality, name in layer.features.items()]
        if not folds:
            weights |= {f"mean{number}": torch.from_numpy(shift), f"deviation{number}": torch.from_numpy(scale)}
            init += [
                f'self.register_buffer("mean{number}", torch.zeros({width}))',
                f'self.register_buffer("deviation{number}", torch.ones({width}))',
            ]
            joined = f"torch.cat([{', '.join(read)}], dim=1)"
            forward.append(f"x = ({joined} - self.mean{number}) / self.deviation{number}")
            read = ["x"]
        joined = f"torch.cat([{', '.join([*read, *(['h'] if previous else [])])}], dim=1)"
        forward.append("h = " + ACTIVATION_CODE[layer.activation].format(f"self.layer{number}({joined})"))
        previous = settings.width
    weight, bias = state["network.head.weight"], state["network.head.bias"]
    if scaling.label_std_C is not None and scaling.label_mean_C is not None:
        weight, bias = _in_units(weight, bias, scaling.label_mean_C, scaling.label_std_C)
    weights |= {"head.weight": weight, "head.bias": bias}
    init.append(f"self.head = nn.Linear({settings.width}, {weight.shape[0]})")
    if rounds:
        init.append("self.rounds_features = False  # True: as they were when the network was trained and scored.")
        names = ", ".join(arguments.values())
        rounded = ", ".join(f"rounded({argument})" for argument in arguments.values())
        forward = ["if self.rounds_features:", f"    {names} = {rounded}", *forward]
    parameters = ", ".join(f"{argument}: dict[str, Tensor]" for argument in arguments.values())
    if is_plain:
        told = "none"
    elif folds:
        told = "folded into the weights of the layers that read features"
    else:
        told = "kept beside each layer (mean, deviation), since folding would cost digits"
    code = "\n".join(
        [
            "class Fusion(nn.Module):",
            f'    """The fusion network {settings.notation}."""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(f"        {line}" for line in init),
            "",
            f"    def forward(self, {parameters}) -> Tensor:",
            '        """Return the outputs (B, C) for the pooled features of each modality, by name."""',
            *(f"        {line}" for line in forward),
            "        return self.head(h)",
        ]
    )
    return WrittenHead(code, weights, told, rounds)


def _folded(weight_HF: Tensor, bias_H: Tensor, shift_F: Floats, scale_F: Floats) -> tuple[Tensor, Tensor]:
    """Return weights that give of rows as they are what these give of standardised ones; further columns stay."""
    weight = weight_HF.double().clone()
    shift, scale = torch.from_numpy(shift_F).double(), torch.from_numpy(scale_F).double()
    of_features = weight[:, : len(shift)]
    of_features /= scale
    return weight.float(), (bias_H.double() - of_features @ shift).float()


def _in_units(weight_CH: Tensor, bias_C: Tensor, mean_C: Doubles, std_C: Doubles) -> tuple[Tensor, Tensor]:
    """Return weights that give values in the labels' own units."""
    mean, std = torch.from_numpy(mean_C), torch.from_numpy(std_C)
    return (weight_CH.double() * std[:, None]).float(), (bias_C.double() * std + mean).float()


def read_by_layers(reads: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names of the features that are read, by modality, in the order of `reads`."""
    by_modality: dict[str, list[str]] = {}
    for modality, items in itertools.groupby(reads, key=lambda item: item[0]):
        by_modality.setdefault(modality, []).extend(name for _, name in items)
    return by_modality
