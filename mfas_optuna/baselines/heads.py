"""Simple fusion as heads on cached features: what one would do without a search.

| kind | what it is | source |
|---|---|---|
| `output` | what one backbone gives | |
| `late_outputs` | mean of what the backbones predict (two-stream) | Simonyan and Zisserman 2014, for two networks |
| `late_heads` | the same of networks that are trained here, each alone | |
| `mlp` | features side by side into one perceptron | |
| `towers` | a hidden layer a modality, their logits added | |
| `gmu` | gated multimodal unit | Arevalo et al. 2017 |
| `centralnet` | a central network beside those of the modalities | Vielzeuf et al. 2018, eq. 1 |

Shapes: B batch, F columns of all features, W width of hidden layers, C outputs, M modalities.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.features.cache import OUTPUT, FeatureLayout
from mfas_optuna.fusion.head import Head, HeadSettings, drop
from mfas_optuna.fusion.network import HeadOutputs
from mfas_optuna.target import TargetKind

How = Literal["mean", "weighted"]
"""Of what the modalities predict: the plain mean, or one whose weights are learnt, one a modality."""

Features = tuple[tuple[str, str], ...]
"""Modality and name of each."""


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer whose weights are uniform in +-1/sqrt(inputs), as nn.Linear's are, from the generator."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, n_inputs, n_outputs)
    bound = n_inputs**-0.5
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return linear


class _Columns:
    """Takes features out of rows, side by side."""

    def __init__(self, layout: FeatureLayout, features: Iterable[tuple[str, str]]) -> None:
        self._slices = [layout.columns(modality, feature) for modality, feature in features]
        self.width = sum(columns.stop - columns.start for columns in self._slices)

    def __call__(self, rows_BF: Tensor) -> Tensor:
        return torch.cat([rows_BF[:, columns] for columns in self._slices], dim=1)


# What backbones give.


class OutputSettings(HeadSettings):
    """What the backbone of one modality gives; nothing is learnt."""

    kind: Literal["output"] = "output"
    modality: str
    """Whose backbone."""

    def reads(self) -> Features:
        """Return the output's columns."""
        return ((self.modality, OUTPUT),)

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the head."""
        return _OutputHead(_Columns(layout, self.reads()))


class _OutputHead(Head):
    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self._columns = columns

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        return HeadOutputs(self._columns(rows_BF))


class _Mean(nn.Module):
    """The mean of what several networks predict, as logits or values; weights are learnt where asked for.

    It is taken in logarithms, so that probabilities near 0 and 1 neither become infinite nor stop teaching.
    """

    def __init__(self, target: TargetKind, how: How, n_modalities: int) -> None:
        super().__init__()
        self._target = target
        self.weight_logits_M = nn.Parameter(torch.zeros(n_modalities)) if how == "weighted" else None

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return logits or values (B, C): of the mean probability of classes or labels, or the mean value."""
        outputs_MBC = torch.stack(list(outputs))
        equal_M = outputs_MBC.new_zeros(len(outputs))
        log_weights_M = (equal_M if self.weight_logits_M is None else self.weight_logits_M).log_softmax(dim=0)
        log_weights_M11 = log_weights_M[:, None, None]
        if self._target == "regression":
            return (log_weights_M11.exp() * outputs_MBC).sum(dim=0)
        if self._target == "multiclass":
            return (log_weights_M11 + outputs_MBC.log_softmax(dim=2)).logsumexp(dim=0)
        present_BC = (log_weights_M11 + functional.logsigmoid(outputs_MBC)).logsumexp(dim=0)
        absent_BC = (log_weights_M11 + functional.logsigmoid(-outputs_MBC)).logsumexp(dim=0)
        return present_BC - absent_BC


class LateOutputsSettings(HeadSettings):
    """The mean of what the backbones predict: two-stream fusion."""

    kind: Literal["late_outputs"] = "late_outputs"
    modalities: tuple[str, ...]
    """Whose backbones."""
    how: How
    target: TargetKind

    def reads(self) -> Features:
        """Return the outputs' columns."""
        return tuple((modality, OUTPUT) for modality in self.modalities)

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the head."""
        return _LateOutputsHead(self, layout)


class _LateOutputsHead(Head):
    def __init__(self, settings: LateOutputsSettings, layout: FeatureLayout) -> None:
        super().__init__()
        self._columns = [_Columns(layout, [feature]) for feature in settings.reads()]
        self.mean = _Mean(settings.target, settings.how, len(self._columns))

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        return HeadOutputs(self.mean([columns(rows_BF) for columns in self._columns]))


# Perceptrons.


class _Perceptron(nn.Module):
    """Hidden layers of one width with ReLU and dropout, then a linear layer."""

    def __init__(
        self, n_inputs: int, width: int, n_outputs: int, hidden_layers: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = [n_inputs, *[width] * hidden_layers]
        self.hidden = nn.ModuleList([_linear(below, above, generator) for below, above in itertools.pairwise(sizes)])
        self.head = _linear(width, n_outputs, generator)
        self._dropout = dropout

    def forward(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        for linear in self.hidden:
            hidden = linear(hidden).relu()
            if self.training:
                hidden = drop(hidden, self._dropout, generator)
        outputs_BC: Tensor = self.head(hidden)
        return outputs_BC


class MlpSettings(HeadSettings):
    """Features side by side into one perceptron."""

    kind: Literal["mlp"] = "mlp"
    label: str
    """Which features, in words."""
    features: Features
    """What is read."""
    hidden_layers: int = Field(default=1, ge=1)
    """How many hidden layers."""
    width: int
    """Units of each."""

    def reads(self) -> Features:
        """Return the features."""
        return self.features

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the perceptron."""
        return _MlpHead(self, layout, n_outputs, dropout, generator)


class _MlpHead(Head):
    def __init__(
        self, settings: MlpSettings, layout: FeatureLayout, n_outputs: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._columns = _Columns(layout, settings.features)
        self.perceptron = _Perceptron(
            self._columns.width, settings.width, n_outputs, settings.hidden_layers, dropout, generator
        )

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        return HeadOutputs(self.perceptron(self._columns(rows_BF), dropout_generator))


class _Towers(Head):
    """A perceptron for each modality."""

    def __init__(
        self,
        features: dict[str, tuple[str, ...]],
        width: int,
        layout: FeatureLayout,
        n_outputs: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._columns = [_Columns(layout, [(modality, name) for name in names]) for modality, names in features.items()]
        self.towers = nn.ModuleList(
            [_Perceptron(columns.width, width, n_outputs, 1, dropout, generator) for columns in self._columns]
        )

    def logits(self, rows_BF: Tensor, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """Return what each tower gives, (B, C)."""
        return tuple(
            tower(columns(rows_BF), generator) for tower, columns in zip(self.towers, self._columns, strict=True)
        )


class LateHeadsSettings(HeadSettings):
    """The mean of what perceptrons of one modality each predict; each learns alone."""

    kind: Literal["late_heads"] = "late_heads"
    features: dict[str, tuple[str, ...]]
    """What is read of each modality."""
    how: How
    target: TargetKind
    width: int
    """Units of each perceptron."""

    def reads(self) -> Features:
        """Return the features of all modalities."""
        return _flat(self.features)

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the perceptrons and their mean."""
        return _LateHeadsHead(self, layout, n_outputs, dropout, generator)


class _LateHeadsHead(_Towers):
    def __init__(
        self,
        settings: LateHeadsSettings,
        layout: FeatureLayout,
        n_outputs: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(settings.features, settings.width, layout, n_outputs, dropout, generator)
        self.mean = _Mean(settings.target, settings.how, len(self.towers))

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        logits = self.logits(rows_BF, dropout_generator)
        # Each learns by its own loss alone; of the mean, only its weights learn.
        return HeadOutputs(self.mean([each.detach() for each in logits]), logits)


class TowersSettings(HeadSettings):
    """A hidden layer for each modality, whose logits are added: all learn together."""

    kind: Literal["towers"] = "towers"
    label: str
    """Which features, in words."""
    features: dict[str, tuple[str, ...]]
    """What is read of each modality."""
    auxiliary: bool
    """Whether each tower learns by a loss of its own too."""
    width: int
    """Units of each tower."""

    def reads(self) -> Features:
        """Return the features of all modalities."""
        return _flat(self.features)

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the towers."""
        return _TowersHead(self, layout, n_outputs, dropout, generator)


class _TowersHead(_Towers):
    def __init__(
        self,
        settings: TowersSettings,
        layout: FeatureLayout,
        n_outputs: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(settings.features, settings.width, layout, n_outputs, dropout, generator)
        self._auxiliary = settings.auxiliary

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        logits = self.logits(rows_BF, dropout_generator)
        return HeadOutputs(torch.stack(logits).sum(dim=0), logits if self._auxiliary else ())


# Gates, and a central network.


class GmuSettings(HeadSettings):
    """A gated multimodal unit on one feature of each modality.

    h_m = tanh(W_m x_m); gates from all inputs side by side say for each unit how much of each modality counts. For two
    modalities there is one sigmoid gate z and its complement, as in the source. For more the gates are a softmax over
    modalities, which for two is the same family of functions; the source's general unit has a sigmoid gate for each
    modality, independent of the others (decision 28).
    """

    kind: Literal["gmu"] = "gmu"
    features: dict[str, str]
    """The feature of each modality."""
    width: int
    """Units of h."""

    def reads(self) -> Features:
        """Return the features."""
        return tuple(self.features.items())

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the unit and a linear head."""
        return _GmuHead(self, layout, n_outputs, dropout, generator)


class _GmuHead(Head):
    def __init__(
        self, settings: GmuSettings, layout: FeatureLayout, n_outputs: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = settings.width
        self._columns = [_Columns(layout, [feature]) for feature in settings.reads()]
        self._n_gates = 1 if len(self._columns) == 2 else len(self._columns)
        self.hidden = nn.ModuleList([_linear(columns.width, width, generator) for columns in self._columns])
        n_inputs = sum(columns.width for columns in self._columns)
        self.gates = _linear(n_inputs, self._n_gates * width, generator)
        self.head = _linear(width, n_outputs, generator)
        self._dropout = dropout

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        inputs = [columns(rows_BF) for columns in self._columns]
        hidden_MBW = torch.stack([linear(x).tanh() for linear, x in zip(self.hidden, inputs, strict=True)])
        gates = self.gates(torch.cat(inputs, dim=1))
        if self._n_gates == 1:
            z_BW = gates.sigmoid()
            z_MBW = torch.stack([z_BW, 1 - z_BW])
        else:
            z_MBW = torch.stack(gates.chunk(self._n_gates, dim=1)).softmax(dim=0)
        hidden_BW = (z_MBW * hidden_MBW).sum(dim=0)
        if self.training:
            hidden_BW = drop(hidden_BW, self._dropout, dropout_generator)
        return HeadOutputs(self.head(hidden_BW))


class CentralNetSettings(HeadSettings):
    """A central network, each of whose layers adds its own hidden values and the modalities', by learnt weights.

    The modalities' hidden layers are pooled features of several widths here, so each is first brought to one width by a
    layer of its own. Modalities of different depth end together. Each modality has an output with a loss of its own.
    """

    kind: Literal["centralnet"] = "centralnet"
    features: dict[str, tuple[str, ...]]
    """What is read of each modality, from the first layer to the last."""
    width: int
    """Units of each layer."""

    def reads(self) -> Features:
        """Return the features of all modalities."""
        return _flat(self.features)

    def build(self, layout: FeatureLayout, n_outputs: int, *, dropout: float, generator: torch.Generator) -> Head:
        """Return the central network with what leads to it."""
        return _CentralNetHead(self, layout, n_outputs, dropout, generator)


class _Projections(nn.Module):
    """Brings each feature of a modality to one width."""

    def __init__(
        self, layout: FeatureLayout, modality: str, names: Sequence[str], width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._columns = [_Columns(layout, [(modality, name)]) for name in names]
        self.linears = nn.ModuleList([_linear(columns.width, width, generator) for columns in self._columns])

    def forward(self, rows_BF: Tensor) -> list[Tensor]:
        return [linear(columns(rows_BF)).relu() for linear, columns in zip(self.linears, self._columns, strict=True)]


class _CentralNetHead(Head):
    def __init__(
        self,
        settings: CentralNetSettings,
        layout: FeatureLayout,
        n_outputs: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width, features = settings.width, settings.features
        self._n_layers = max(len(names) for names in features.values())
        self.projections = nn.ModuleList(
            [_Projections(layout, modality, names, width, generator) for modality, names in features.items()]
        )
        self.central = nn.ModuleList([_linear(width, width, generator) for _ in range(self._n_layers)])
        # One weight for the central network (of which the first layer has nothing yet), and one a modality.
        self.alphas = nn.Parameter(torch.ones(self._n_layers, 1 + len(features)))
        self.own = nn.ModuleList([_linear(width, n_outputs, generator) for _ in features])
        self.head = _linear(width, n_outputs, generator)
        self._dropout = dropout

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        hidden: list[list[Tensor]] = [of_modality(rows_BF) for of_modality in self.projections]
        central_BW: Tensor | None = None
        for layer, linear in enumerate(self.central):
            terms = [] if central_BW is None else [self.alphas[layer, 0] * central_BW]
            for number, of_modality in enumerate(hidden):
                position = layer - (self._n_layers - len(of_modality))
                if position >= 0:
                    terms.append(self.alphas[layer, 1 + number] * of_modality[position])
            central_BW = linear(torch.stack(terms).sum(dim=0)).relu()
            if self.training:
                central_BW = drop(central_BW, self._dropout, dropout_generator)
        own = tuple(linear(of_modality[-1]) for linear, of_modality in zip(self.own, hidden, strict=True))
        return HeadOutputs(self.head(central_BW), own)


def _flat(features: dict[str, tuple[str, ...]]) -> Features:
    return tuple((modality, name) for modality, names in features.items() for name in names)
