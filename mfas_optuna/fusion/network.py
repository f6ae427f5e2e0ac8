"""A fusion network: its layers by equations 1 and 2, and a linear head.

Shapes: B batch, F_l width of all features that layer l reads, H fusion width, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.activations import activation
from mfas_optuna.space import Architecture, FusionLayer


class FusionNetwork(nn.Module):
    """h_l = sigma_l(W_l [x; y; h_{l-1}]) for each layer (eq. 1; eq. 2 without h for the first), then a linear head.

    Attributes:
        layers: One `nn.Linear` for each W_l with its bias; (F_l, then H from the layer below) in, H out.
        head: H in, C out.
        feature_widths: F_l of each layer.
        activations: Name of sigma of each layer.
        dropout: Probability that a value of h_l is dropped while training.
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
    ) -> None:
        """Build the network on the CPU; all weights come from the generator.

        Args:
            architecture: What to build; its indices count in the following two arguments.
            feature_widths: For each modality, the width of each of its pooled features.
            activations: Names of the activations.
            width: H, rows of every W_l.
            n_outputs: C: classes, labels or values.
            dropout: Probability that a value of h_l is dropped on its way to the next layer or the head.
            generator: Source of the initial weights, which are uniform in +-1/sqrt(inputs) as nn.Linear's are.

        Raises:
            FusionShapeError: The architecture reads a feature or a modality that `feature_widths` does not give.
        """
        super().__init__()
        self.feature_widths = [_width_read(layer, feature_widths) for layer in architecture.layers]
        self.activations = [activations[layer.activation] for layer in architecture.layers]
        self._sigmas = [activation(name) for name in self.activations]
        self.dropout = dropout
        self._width = width
        with torch.device("meta"):  # No draw from the global generator.
            linears = [nn.Linear(columns, rows) for columns, rows in self.layer_sizes]
            self.head = nn.Linear(width, n_outputs)
        self.layers = nn.ModuleList(linears)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for linear in (*linears, self.head):
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-bound, bound, generator=generator)

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """Columns and rows of every W_l."""
        return [
            (features + (self._width if index > 0 else 0), self._width)
            for index, features in enumerate(self.feature_widths)
        ]

    @property
    def n_fusion_parameters(self) -> int:
        """Weights and biases of the fusion layers, the head not counted: what the paper's Table 5 gives."""
        return sum(parameter.numel() for parameter in self.layers.parameters())

    def forward(self, features: Sequence[Tensor], dropout_generator: torch.Generator | None = None) -> Tensor:
        """Return logits, or values, (B, C).

        Args:
            features: For each layer the pooled features that it reads, (B, F_l), concatenated in the order of
                modalities.
            dropout_generator: Source of dropout masks, on the tensors' device; needed in train mode with dropout.

        Raises:
            FusionShapeError: The number of layers or a width differs from what the network was built for.
        """
        if len(features) != len(self.feature_widths):
            raise FusionShapeError(f"Expected features of {len(self.feature_widths)} layers, found {len(features)}.")
        hidden: Tensor | None = None
        for index, (features_BF, linear, sigma) in enumerate(zip(features, self.layers, self._sigmas, strict=True)):
            if features_BF.shape[-1] != self.feature_widths[index]:
                raise FusionShapeError(
                    f"Layer {index + 1}: expected features of width {self.feature_widths[index]}, "
                    f"found {features_BF.shape[-1]}."
                )
            inputs = features_BF if hidden is None else torch.cat((features_BF, hidden), dim=1)
            hidden = sigma(linear(inputs))
            if self.dropout > 0 and self.training:
                hidden = self._drop(hidden, dropout_generator)
        logits_BC: Tensor = self.head(hidden)
        return logits_BC

    def _drop(self, hidden_BH: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise FusionShapeError("Training with dropout needs a dropout_generator.")
        keep = 1.0 - self.dropout
        mask_BH = torch.empty_like(hidden_BH).bernoulli_(keep, generator=generator)
        return hidden_BH * mask_BH / keep


def _width_read(layer: FusionLayer, feature_widths: Sequence[Sequence[int]]) -> int:
    counts = [len(widths) for widths in feature_widths]
    if len(layer.features) != len(counts) or not all(
        0 <= feature < count for feature, count in zip(layer.features, counts, strict=True)
    ):
        raise FusionShapeError(
            f"Expected one feature of each modality, below {counts} (0-based), found {layer.features}. "
            "Give the widths of the space that the architecture is from."
        )
    return sum(widths[feature] for widths, feature in zip(feature_widths, layer.features, strict=True))
