"""The class `Fusion` of an exported model in the making: its lines and its weights.

Shapes: B batch, F columns that a layer reads, H its outputs, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.export.snippets import literal
from mfas_optuna.features.cache import FeatureLayout

LARGEST_FOLDED_SHIFT = 1000.0
"""Deviations that a column's mean may be away from 0 for standardisation to be folded. W x + b then takes the
difference of numbers of this size, which costs three of float32's seven digits."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Features = Sequence[tuple[str, str]]
"""Modality and name of each."""


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


class HeadCode:
    """Collects lines of `__init__` and `forward`, and weights with standardisation and label scale folded in."""

    def __init__(
        self, layout: FeatureLayout, scaling: Scaling, arguments: Mapping[str, str], reads: Features, *, rounds: bool
    ) -> None:
        """Begin a class.

        Args:
            layout: Where the features are in a row.
            scaling: What surrounds the head.
            arguments: What the features of each modality are called in the code, in order.
            reads: All features that the head reads.
            rounds: Whether the class can round features to float16.
        """
        self._layout, self._scaling, self._arguments, self._rounds = layout, scaling, arguments, rounds
        shift_F, scale_F = self._of(scaling.shift_F, reads), self._of(scaling.scale_F, reads)
        self._is_plain = bool((shift_F == 0).all() and (scale_F == 1).all())
        self._folds = bool(np.abs(shift_F / scale_F).max(initial=0.0) <= LARGEST_FOLDED_SHIFT)
        self._reads_by_layers = False
        self._init: list[str] = []
        self._forward: list[str] = []
        self._weights: dict[str, Tensor] = {}
        if rounds:
            names = ", ".join(arguments.values())
            rounded = ", ".join(f"rounded({argument})" for argument in arguments.values())
            self._init.append("self.rounds_features = False  # True: as they were when it was trained and scored.")
            self._forward += ["if self.rounds_features:", f"    {names} = {rounded}"]

    def _of(self, values_F: Floats, features: Features) -> Floats:
        return np.concatenate([values_F[self._layout.columns(*feature)] for feature in features])

    def line(self, text: str) -> None:
        """Add a line to `forward`."""
        self._forward.append(text)

    def constant(self, name: str, value: Tensor) -> None:
        """Add a tensor that is kept with the weights."""
        self._weights[name] = value
        self._init.append(f'self.register_buffer("{name}", torch.zeros({", ".join(map(str, value.shape))}))')

    def feature(self, modality: str, name: str) -> str:
        """Return the code of a feature as it comes, for what is not standardised."""
        return f"{self._arguments[modality]}[{literal(name)}]"

    def reading(self, name: str, state: Mapping[str, Tensor], of: str, features: Features, below: str = "") -> str:
        """Add a linear layer that reads features, and return the code of its outputs (B, H).

        Args:
            name: Of the layer in the class.
            state: The head's weights.
            of: Name of the layer in it; its first columns are those of the features, in order.
            features: What it reads.
            below: Code of further inputs after the features.
        """
        self._reads_by_layers = True
        weight, bias = state[f"{of}.weight"], state[f"{of}.bias"]
        shift, scale = self._of(self._scaling.shift_F, features), self._of(self._scaling.scale_F, features)
        joined = ", ".join(self.feature(*feature) for feature in features)
        n_read, n_below = len(shift), weight.shape[1] - len(shift)
        widths = [self._layout.columns(*feature) for feature in features]
        read = ", ".join(
            f"{modality} {feature} ({columns.stop - columns.start})"
            for (modality, feature), columns in zip(features, widths, strict=True)
        )
        self._init.append(f"# {read}{' and the layer below' if below else ''}")
        self._add(name, weight, bias, f"{n_read} + {n_below}" if below else str(n_read))
        if self._folds:
            self._weights |= _named(name, *_folded(weight, bias, shift, scale))
        else:
            self.constant(f"{name}_mean", torch.from_numpy(shift))
            self.constant(f"{name}_deviation", torch.from_numpy(scale))
            self.line(f"x = (torch.cat([{joined}], dim=1) - self.{name}_mean) / self.{name}_deviation")
            joined = "x"
        inputs = f"{joined}, {below}" if below else joined
        return f"self.{name}(torch.cat([{inputs}], dim=1))" if ", " in inputs else f"self.{name}({inputs})"

    def linear(self, name: str, state: Mapping[str, Tensor], of: str, inputs: str) -> str:
        """Add a linear layer on hidden values, and return the code of its outputs."""
        weight, bias = state[f"{of}.weight"], state[f"{of}.bias"]
        self._add(name, weight, bias, str(weight.shape[1]))
        return f"self.{name}({inputs})"

    def last(self, name: str, state: Mapping[str, Tensor], of: str, inputs: str) -> str:
        """Add the last linear layer, which gives values in the labels' own units where there are such."""
        weight, bias = state[f"{of}.weight"], state[f"{of}.bias"]
        mean_C, std_C = self._scaling.label_mean_C, self._scaling.label_std_C
        if mean_C is not None and std_C is not None:
            mean, std = torch.from_numpy(mean_C), torch.from_numpy(std_C)
            weight, bias = (weight.double() * std[:, None]).float(), (bias.double() * std + mean).float()
        self._add(name, weight, bias, str(weight.shape[1]))
        return f"self.{name}({inputs})"

    def in_units(self, outputs: str) -> str:
        """Return the code of outputs that no linear layer gives, in the labels' own units where there are such."""
        mean_C, std_C = self._scaling.label_mean_C, self._scaling.label_std_C
        if mean_C is None or std_C is None:
            return outputs
        self.constant("label_mean", torch.from_numpy(mean_C).float())
        self.constant("label_std", torch.from_numpy(std_C).float())
        return f"({outputs}) * self.label_std + self.label_mean"

    def _add(self, name: str, weight: Tensor, bias: Tensor, sizes: str) -> None:
        self._weights |= _named(name, weight, bias)
        self._init.append(f"self.{name} = nn.Linear({sizes}, {weight.shape[0]})")

    def written(self, docstring: str, outputs: str) -> WrittenHead:
        """Return the class, which gives these outputs."""
        parameters = ", ".join(f"{argument}: dict[str, Tensor]" for argument in self._arguments.values())
        if self._is_plain or not self._reads_by_layers:
            told = "none"
        elif self._folds:
            told = "folded into the weights of the layers that read features"
        else:
            told = "kept beside each layer (mean, deviation), since folding would cost digits"
        code = "\n".join(
            [
                "class Fusion(nn.Module):",
                f'    """{docstring}"""',
                "",
                "    def __init__(self) -> None:",
                "        super().__init__()",
                *(f"        {line}" for line in self._init),
                "",
                f"    def forward(self, {parameters}) -> Tensor:",
                '        """Return the outputs (B, C) for the pooled features of each modality, by name."""',
                *(f"        {line}" for line in self._forward),
                f"        return {outputs}",
            ]
        )
        return WrittenHead(code, self._weights, told, self._rounds)


def _named(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _folded(weight_HF: Tensor, bias_H: Tensor, shift_F: Floats, scale_F: Floats) -> tuple[Tensor, Tensor]:
    """Return weights that give of rows as they are what these give of standardised ones; further columns stay."""
    weight = weight_HF.double().clone()
    shift, scale = torch.from_numpy(shift_F).double(), torch.from_numpy(scale_F).double()
    of_features = weight[:, : len(shift)]
    of_features /= scale
    return weight.float(), (bias_H.double() - of_features @ shift).float()
