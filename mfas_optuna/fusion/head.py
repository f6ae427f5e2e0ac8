"""Heads: networks on the pooled features of frozen backbones, whatever kind of fusion they are.

A head reads whole rows of features and takes the columns that it needs; so all kinds of fusion are trained, stored,
shipped and compared in the same way. Its settings are a record from which it can be built again.

Shapes: B batch, F columns of all features, C outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from pydantic import field_validator
from torch import Tensor, nn

from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.network import FusionNetwork, HeadOutputs
from mfas_optuna.space import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer, SearchSpace
from mfas_optuna.spec.base import Settings


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


OperatorName = Literal["concatenation", "towers", "supervised_towers", "product", "gate"]


class LayerChoice(Settings):
    """A fusion layer by names."""

    features: dict[str, tuple[str, ...]]
    """What it takes of each modality, in the order of modalities; of one that is missing, nothing."""
    activation: str
    """Name of sigma."""

    @field_validator("features", mode="before")
    @classmethod
    def _one_name(cls, features: Any) -> Any:
        """Read records from before a layer could take several features of a modality."""
        if not isinstance(features, Mapping):
            return features
        return {
            modality: (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else names
            for modality, names in features.items()
        }

    operator: OperatorName = "concatenation"
    """How it joins what it reads."""


class NetworkSettings(HeadSettings):
    """A fusion network of the search space (eq. 1 and 2, or an extended one)."""

    kind: Literal["network"] = "network"
    notation: str
    """That of its space."""
    layers: tuple[LayerChoice, ...]
    """From the first to the last."""
    output: Literal["last", "all"] = "last"
    """What the head reads."""
    width: int
    """Rows of every W_l."""

    @staticmethod
    def of(architecture: Architecture, space: SearchSpace, width: int) -> NetworkSettings:
        """Return the settings of a network of a space, whose features are ranked where sets of them are taken.

        Raises:
            SpaceError: The architecture is not in the space, or a set of features is not known.
        """
        return NetworkSettings(
            notation=space.notation(architecture),
            layers=tuple(
                LayerChoice(
                    features={
                        modality: members
                        for modality, choice in zip(space.choices, layer.features, strict=True)
                        if (members := space.members(modality, choice))
                    },
                    activation=space.activations[layer.activation],
                    operator=cast("OperatorName", space.operators[layer.operator]),
                )
                for layer in architecture.layers
            ),
            output=cast("Literal['last', 'all']", space.outputs[architecture.output]),
            width=width,
        )

    def reads(self) -> tuple[tuple[str, str], ...]:
        """Return the features of all layers."""
        return tuple(
            dict.fromkeys(
                (modality, name)
                for layer in self.layers
                for modality, names in layer.features.items()
                for name in names
            )
        )

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
        modalities = list(layout.spans)
        self._columns = [
            [
                [layout.columns(modality, name) for name in names]
                for modality in modalities
                if (names := layer.features.get(modality))
            ]
            for layer in settings.layers
        ]
        # What a layer takes of a modality is its own choice here: there are as many choices as layers.
        architecture = Architecture(
            tuple(
                FusionLayer(tuple(number for _ in modalities), number, OPERATOR_NAMES.index(layer.operator))
                for number, layer in enumerate(settings.layers)
            ),
            OUTPUT_NAMES.index(settings.output),
        )
        self.network = FusionNetwork(
            architecture,
            [[layout.width(modality, layer.features.get(modality, ())) for layer in settings.layers]
             for modality in modalities],
            [layer.activation for layer in settings.layers],
            width=settings.width,
            n_outputs=n_outputs,
            dropout=dropout,
            generator=generator,
        )  # fmt: skip

    @property
    def n_fusion_parameters(self) -> int | None:
        """Weights and biases of the fusion layers."""
        return self.network.n_fusion_parameters

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        """Return the network's outputs."""
        features = [
            [
                rows_BF[:, columns[0]]
                if len(columns) == 1
                else torch.cat([rows_BF[:, each] for each in columns], dim=1)
                for columns in of_layer
            ]
            for of_layer in self._columns
        ]
        return self.network.outputs(features, dropout_generator)


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
