"""Heads: networks on the pooled features of frozen backbones, whatever kind of fusion they are.

A head reads whole rows of features and takes the columns that it needs; so all kinds of fusion are trained, stored,
shipped and compared in the same way. Its settings are a record from which it can be built again.

Shapes: B batch, F columns of all features, C outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import Architecture, FusionLayer, SearchSpace
from mfas_optuna.spec.base import Settings


@dataclass(frozen=True)
class HeadOutputs:
    """What a head gives.

    Attributes:
        fused_BC: Logits or values, what is predicted from.
        auxiliary: Further outputs (B, C), for the loss alone.
    """

    fused_BC: Tensor
    auxiliary: tuple[Tensor, ...] = ()


class Head(nn.Module, ABC):
    """Makes of rows of features what is predicted."""

    @abstractmethod
    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        """Return logits or values.

        Args:
            rows_BF: Columns of all features, as the study's layout has them, standardised where it says so.
            dropout_generator: Source of dropout masks, on the tensors' device; needed in train mode with dropout.
        """

    @property
    def n_parameters(self) -> int:
        """Weights and biases that are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def n_fusion_parameters(self) -> int | None:
        """Those of the fusion layers, the head not counted (the paper's Table 5); None where there are none."""
        return None

    def __call__(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        """Return logits or values; nn.Module's own has no types."""
        outputs: HeadOutputs = super().__call__(rows_BF, dropout_generator)
        return outputs


class HeadSettings(Settings, ABC):
    """What a head is; JSON values that it can be built from again."""

    @abstractmethod
    def reads(self) -> tuple[tuple[str, str], ...]:
        """Return modality and name of each feature that it reads, once."""

    @abstractmethod
    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return an untrained head on the CPU; all weights come from the generator.

        Args:
            layout: Where the features are in a row.
            n_outputs: C.
            dropout: Probability that a hidden value is dropped in training.
            generator: A CPU generator of the initial weights.
        """

    def with_width(self, width: int) -> HeadSettings:
        """Return the same with hidden layers of this width; itself where it has none."""
        return self.model_copy(update={"width": width}) if self.has_width else self

    @property
    def has_width(self) -> bool:
        """Whether its hidden layers have a width to be chosen."""
        return "width" in type(self).model_fields

    def as_record(self) -> dict[str, Any]:
        """Return JSON values."""
        return self.model_dump(mode="json")


class LayerChoice(Settings):
    """A fusion layer by names."""

    features: dict[str, str]
    """The feature of each modality, in the order of modalities."""
    activation: str
    """Name of sigma."""


class NetworkSettings(HeadSettings):
    """A fusion network of the search space (eq. 1 and 2)."""

    kind: Literal["network"] = "network"
    notation: str
    """The paper's."""
    layers: tuple[LayerChoice, ...]
    """From the first to the last."""
    width: int
    """Rows of every W_l."""

    @staticmethod
    def of(architecture: Architecture, space: SearchSpace, width: int) -> NetworkSettings:
        """Return the settings of a network of a space."""
        return NetworkSettings(
            notation=architecture.paper_notation(),
            layers=tuple(
                LayerChoice(
                    features={
                        modality: names[feature]
                        for (modality, names), feature in zip(space.modalities.items(), layer.features, strict=True)
                    },
                    activation=space.activations[layer.activation],
                )
                for layer in architecture.layers
            ),
            width=width,
        )

    def reads(self) -> tuple[tuple[str, str], ...]:
        """Return the features of all layers."""
        return tuple(dict.fromkeys(item for layer in self.layers for item in layer.features.items()))

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the network with weights from the generator."""
        return NetworkHead(self, layout, n_outputs, dropout=dropout, generator=generator)


class NetworkHead(Head):
    """A fusion network that takes its columns out of whole rows.

    Attributes:
        network: The network.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        layout: FeatureLayout,
        n_outputs: int,
        *,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._columns = [
            [layout.columns(modality, feature) for modality, feature in layer.features.items()]
            for layer in settings.layers
        ]
        architecture = Architecture(
            tuple(FusionLayer(tuple(number for _ in columns), number) for number, columns in enumerate(self._columns))
        )
        widths = [
            [columns[position].stop - columns[position].start for columns in self._columns]
            for position in range(len(self._columns[0]))
        ]
        self.network = FusionNetwork(
            architecture,
            widths,
            [layer.activation for layer in settings.layers],
            width=settings.width,
            n_outputs=n_outputs,
            dropout=dropout,
            generator=generator,
        )

    @property
    def n_fusion_parameters(self) -> int | None:
        """Weights and biases of the fusion layers."""
        return self.network.n_fusion_parameters

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        """Return the network's outputs."""
        features = [torch.cat([rows_BF[:, columns] for columns in of_layer], dim=1) for of_layer in self._columns]
        return HeadOutputs(self.network(features, dropout_generator))


def drop(hidden: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Return values of which each was dropped with this probability, the others scaled up; for train mode.

    Args:
        hidden: Of any shape.
        probability: Below 1; 0 draws nothing.
        generator: Of the masks, on the tensor's device.

    Raises:
        ValueError: There is no generator, and one is needed.
    """
    if probability == 0.0:
        return hidden
    if generator is None:
        raise ValueError("Training with dropout needs a dropout_generator.")
    keep = 1.0 - probability
    return hidden * torch.empty_like(hidden).bernoulli_(keep, generator=generator) / keep


@dataclass(frozen=True)
class Method:
    """A way to fuse that is compared with others: one head, or several among which validation chooses.

    Attributes:
        name: By which it is stored and asked for.
        title: What it is called for people.
        heads: What is tried; a width is chosen for those that have one.
    """

    name: str
    title: str
    heads: tuple[HeadSettings, ...]


def head_label(record: Mapping[str, Any]) -> str:
    """Return what people call a stored head: its notation or kind, and its width."""
    label = str(record.get("notation") or record.get("label") or record["kind"])
    return f"{label}, width {record['width']}" if "width" in record else label
