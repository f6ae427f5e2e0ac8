"""A fusion network: its layers, and a linear head.

Shapes: B batch, F_lp width of part p that layer l reads, H fusion width, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mfas_optuna.errors import BudgetError, FusionShapeError
from mfas_optuna.fusion.activations import activation
from mfas_optuna.fusion.layers import FusionLayerModule, build_layer, joined_width
from mfas_optuna.space import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer

Parts = Sequence[Tensor] | Tensor
"""What a layer reads of modalities."""


@dataclass(frozen=True)
class HeadOutputs:
    """What a head gives.

    Attributes:
        fused_BC: Logits or values, what is predicted from.
        auxiliary: Further outputs (B, C), for the loss alone.
    """

    fused_BC: Tensor
    auxiliary: tuple[Tensor, ...] = ()


class FusionNetwork(nn.Module):
    """h_l joins what layer l reads (eq. 1; eq. 2 without h for the first; `fusion.layers`), then a linear head.

    The head reads h of the last layer, or of all layers side by side. Under supervised towers each part has outputs of
    its own for the loss: what the head makes of its h alone; where the head does not read it, by weights that serve
    nothing else.

    Attributes:
        layers: One module for each layer; of concatenation, a `nn.Linear`: W_l with its bias.
        head: What it reads in, C out.
        auxiliary: Weights of outputs for the loss alone, by the number of the layer.
        operators: How each layer joins its parts.
        part_widths: Widths of the features that each layer reads, a modality each, without h.
        activations: Name of sigma of each layer.
        dropout: Probability that a value of h_l is dropped while training.
        width: H.
    """

    def __init__(
        self,
        architecture: Architecture,
        feature_widths: Sequence[Sequence[int]],
        activations: Sequence[str],
        *,
        width: int,
        n_outputs: int,
        dropout: float = 0.0,
        generator: torch.Generator,
        operators: Sequence[str] = OPERATOR_NAMES,
        outputs: Sequence[str] = OUTPUT_NAMES,
    ) -> None:
        """Build the network on the CPU; all weights come from the generator.

        Args:
            architecture: What to build; its indices count in the following arguments.
            feature_widths: For each modality, the width of each choice; 0 of one that takes nothing.
            activations: Names of the activations.
            width: H.
            n_outputs: C: classes, labels or values.
            dropout: Probability that a value of h_l is dropped on its way to the next layer or the head.
            generator: Source of the initial weights, which are uniform in +-1/sqrt(inputs) as nn.Linear's are.
            operators: Names of the operators.
            outputs: Names of what a head reads.

        Raises:
            FusionShapeError: The architecture reads a feature or a modality that `feature_widths` does not give, or a
                layer reads too little for its operator.
        """
        super().__init__()
        self.operators = [operators[layer.operator] for layer in architecture.layers]
        self.part_widths = [_widths_read(layer, feature_widths) for layer in architecture.layers]
        self.activations = [activations[layer.activation] for layer in architecture.layers]
        self.is_dense = outputs[architecture.output] == "all" and architecture.depth > 1
        self._sigmas = [activation(name) for name in self.activations]
        self.dropout = dropout
        self.width = width
        layers: list[FusionLayerModule] = []
        widths: list[int] = []
        with torch.device("meta"):  # No draw from the global generator.
            for operator, of_features in zip(self.operators, self.part_widths, strict=True):
                if operator == "supervised_towers" and not of_features:
                    raise FusionShapeError(
                        "Supervised towers: expected a feature of one modality at least, found none."
                    )
                parts = [*of_features, *widths[-1:]]
                layers.append(build_layer(operator, parts, width))
                widths.append(joined_width(operator, len(parts), width))
            read = widths if self.is_dense else widths[-1:]
            self._read_from = [sum(read[:number]) for number in range(len(read))]
            self.head = nn.Linear(sum(read), n_outputs)
            unread = [
                number
                for number, operator in enumerate(self.operators[:-1])
                if operator == "supervised_towers" and not self.is_dense
            ]
            auxiliary = {str(number): nn.Linear(widths[number], n_outputs) for number in unread}
        self.layers = nn.ModuleList(layers)
        self.auxiliary = nn.ModuleDict(auxiliary)
        self.to_empty(device="cpu")
        linears = [module for module in (*layers, self.head, *auxiliary.values()) for module in _linears(module)]
        with torch.no_grad():
            for linear in linears:
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-bound, bound, generator=generator)

    @property
    def is_plain(self) -> bool:
        """Whether it is a network of the paper: all layers concatenate, and the head reads the last."""
        return not self.is_dense and all(operator == "concatenation" for operator in self.operators)

    @property
    def feature_widths(self) -> list[int]:
        """Width of all features that each layer reads."""
        return [sum(widths) for widths in self.part_widths]

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Columns of all that each layer reads, h included, and width of its h."""
        sizes: list[tuple[int, int]] = []
        for operator, widths in zip(self.operators, self.part_widths, strict=True):
            below = [rows for _, rows in sizes[-1:]]
            sizes.append((sum(widths) + sum(below), joined_width(operator, len(widths) + len(below), self.width)))
        return sizes

    @property
    def n_fusion_parameters(self) -> int:
        """Weights and biases of the fusion layers, the head not counted: what the paper's Table 5 gives."""
        return sum(parameter.numel() for parameter in self.layers.parameters())

    @property
    def n_parameters(self) -> int:
        """All weights and biases that are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, features: Sequence[Parts], dropout_generator: torch.Generator | None = None) -> Tensor:
        """Return logits, or values, (B, C).

        Args:
            features: For each layer the parts that it reads, (B, F_lp) each, in the order of modalities; of a layer
                that concatenates them, they may be one tensor.
            dropout_generator: Source of dropout masks, on the tensors' device; needed in train mode with dropout.

        Raises:
            FusionShapeError: The number of layers or a width differs from what the network was built for.
        """
        return self._head_of(self._hidden(features, dropout_generator))

    def outputs(self, features: Sequence[Parts], dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        """Return the same with the outputs of supervised towers."""
        hidden = self._hidden(features, dropout_generator)
        return HeadOutputs(self._head_of(hidden), tuple(self._supervised(hidden)))

    def _hidden(self, features: Sequence[Parts], generator: torch.Generator | None) -> list[Tensor]:
        self._check(features)
        hidden: list[Tensor] = []
        for of_layer, layer, sigma in zip(features, self.layers, self._sigmas, strict=True):
            parts = [of_layer] if isinstance(of_layer, Tensor) else of_layer
            h = cast("FusionLayerModule", layer).join([*parts, *hidden[-1:]], sigma)
            if self.dropout > 0 and self.training:
                h = self._drop(h, generator)
            hidden.append(h)
        return hidden

    def _head_of(self, hidden: Sequence[Tensor]) -> Tensor:
        logits_BC: Tensor = self.head(torch.cat(tuple(hidden), dim=1) if self.is_dense else hidden[-1])
        return logits_BC

    def _supervised(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for number, (operator, h) in enumerate(zip(self.operators, hidden, strict=True)):
            if operator != "supervised_towers":
                continue
            if str(number) in self.auxiliary:
                own = cast("nn.Linear", self.auxiliary[str(number)])
                weight, bias = own.weight, own.bias
            else:
                first = self._read_from[number if self.is_dense else 0]
                weight, bias = self.head.weight[:, first : first + h.shape[1]], self.head.bias
            parts = zip(h.split(self.width, dim=1), weight.split(self.width, dim=1), strict=True)
            found += [nn.functional.linear(h_p, weight_p, bias) for h_p, weight_p in parts]
        return found

    def _check(self, features: Sequence[Parts]) -> None:
        if len(features) != len(self.part_widths):
            raise FusionShapeError(f"Expected features of {len(self.part_widths)} layers, found {len(features)}.")
        for number, (parts, expected) in enumerate(zip(features, self.part_widths, strict=True), start=1):
            if isinstance(parts, Tensor) and self.operators[number - 1] == "concatenation":
                if parts.shape[-1] != sum(expected):
                    raise FusionShapeError(
                        f"Layer {number}: expected features of width {sum(expected)}, found {parts.shape[-1]}."
                    )
                continue
            found = [part.shape[-1] for part in parts]
            if found != expected:
                raise FusionShapeError(f"Layer {number}: expected parts of widths {expected}, found {found}.")

    def _drop(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise FusionShapeError("Training with dropout needs a dropout_generator.")
        keep = 1.0 - self.dropout
        return hidden * torch.empty_like(hidden).bernoulli_(keep, generator=generator) / keep


def width_within(n_parameters: int, build: Callable[[int], FusionNetwork]) -> int:
    """Return the largest H with which a network has at most so many weights and biases.

    Args:
        n_parameters: The budget.
        build: Returns the network of a width.

    Raises:
        BudgetError: It has more even with H = 1.
    """
    least = build(1).n_parameters
    if least > n_parameters:
        raise BudgetError(
            f"No network of this architecture meets a budget of {n_parameters:,} parameters: it has {least:,} with a "
            "width of 1. Raise fusion.n_parameters, or let layers read fewer features."
        )
    return largest(lambda width: build(width).n_parameters <= n_parameters)


def largest(fits: Callable[[int], bool]) -> int:
    """Return the largest whole number that fits, 1 at least; whatever is smaller than one that fits does too."""
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _linears(module: FusionLayerModule | nn.Module) -> list[nn.Linear]:
    return [each for each in module.modules() if isinstance(each, nn.Linear)]


def _widths_read(layer: FusionLayer, feature_widths: Sequence[Sequence[int]]) -> list[int]:
    counts = [len(widths) for widths in feature_widths]
    if len(layer.features) != len(counts) or not all(
        0 <= feature < count for feature, count in zip(layer.features, counts, strict=True)
    ):
        raise FusionShapeError(
            f"Expected one feature of each modality, below {counts} (0-based), found {layer.features}. "
            "Give the widths of the space that the architecture is from."
        )
    read = (widths[feature] for widths, feature in zip(feature_widths, layer.features, strict=True))
    return [width for width in read if width > 0]
