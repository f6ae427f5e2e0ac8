"""Backbones and head as one network from raw inputs to logits, of which every part can be trained.

Shapes: B batch, F columns of all features, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap, tapped
from mfas_optuna.errors import FusionShapeError
from mfas_optuna.features.build import Source
from mfas_optuna.features.cache import OUTPUT, FeatureLayout, Floats
from mfas_optuna.features.extract import pooled
from mfas_optuna.fusion.head import Head
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.resumable import with_prefix

_PREFIX = "of_"  # A modality may be called `values` or `type`, which nn.ModuleDict has as attributes.


@dataclass(frozen=True)
class FusedOutputs:
    """What a fused model gives.

    Attributes:
        fused_BC: Logits or values, what is predicted from (z_xy).
        own: What each modality alone gives for the same (z_x, z_y), (B, C).
        auxiliary: Further outputs of the head (B, C), for the loss alone.
    """

    fused_BC: Tensor
    own: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: tuple[Tensor, ...] = ()


def backbone_state(state: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """Return the state dict of a modality's backbone out of that of a fused model."""
    return with_prefix(state, f"backbones.{_PREFIX}{modality}.")


def head_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the head out of that of a fused model."""
    return with_prefix(state, "head.")


class FusedModel(nn.Module):
    """Backbones whose tapped features, pooled and standardised, are the row that a head reads.

    For the same samples the rows are those of the feature cache, while the backbones are as they were and in eval mode.
    What a modality alone gives (z_x, z_y) is its backbone's own output where the layout has such columns; else a linear
    layer on the last of its features, which is new and learnt.

    The model takes the backbones as its parts: they are trained in place.

    Attributes:
        backbones: The backbone of modality M, named `of_M`.
        head: The head.
        own_heads: The linear layer of each modality that has one, named `of_M`.
        layout: Which columns of a row hold which feature.
        n_outputs: C.
    """

    shift_F: Tensor
    scale_F: Tensor

    def __init__(
        self,
        sources: Mapping[str, Source],
        layout: FeatureLayout,
        head: Head,
        *,
        n_outputs: int,
        generator: torch.Generator,
        standardization: tuple[Floats, Floats] | None = None,
        units: Mapping[str, LabelScale] | None = None,
    ) -> None:
        """Put the parts together; no weight of them changes.

        Args:
            sources: Backbone and taps of each modality, in the order of the layout's columns; with a tap named `OUTPUT`
                where the layout has such columns. As the feature cache was made from.
            layout: Of the feature cache.
            head: Built for this layout.
            n_outputs: C.
            generator: A CPU generator of the weights of new linear layers, uniform in +-1/sqrt(inputs).
            standardization: What is subtracted from the columns of a row, and what they are divided by, (F,) each
                (`FeatureLayout.standardization`); None: rows stay as they are.
            units: The scale of the labels for each modality whose backbone gives values in units of the labels, as
                regression networks that were trained elsewhere do; of the others the values are standardised.

        Raises:
            FusionShapeError: The taps of a modality are not the features of the layout, or a backbone's own output has
                another width than C.
        """
        super().__init__()
        self.layout, self.n_outputs = layout, n_outputs
        self._check(sources)
        self._taps = {modality: tuple(source.taps) for modality, source in sources.items()}
        self.backbones = nn.ModuleDict({_PREFIX + modality: source.model for modality, source in sources.items()})
        self.head = head
        self.own_heads = nn.ModuleDict()
        for modality in sources:
            if not layout.has_output(modality):
                columns = self._last_feature(modality)
                linear = nn.utils.skip_init(nn.Linear, columns.stop - columns.start, n_outputs)
                bound = linear.in_features**-0.5
                with torch.no_grad():
                    for parameter in linear.parameters():
                        parameter.uniform_(-bound, bound, generator=generator)
                self.own_heads[_PREFIX + modality] = linear
        n_columns = layout.n_columns
        shift_F, scale_F = (
            (torch.zeros(n_columns), torch.ones(n_columns))
            if standardization is None
            else (torch.tensor(values, dtype=torch.float32) for values in standardization)
        )
        self.register_buffer("shift_F", shift_F)
        self.register_buffer("scale_F", scale_F)
        self._units = dict(units or {})

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self._taps)

    @property
    def taps(self) -> dict[str, tuple[Tap, ...]]:
        """What is read of each modality's backbone."""
        return dict(self._taps)

    def backbone(self, modality: str) -> nn.Module:
        """Return the backbone of a modality."""
        return self.backbones[_PREFIX + modality]

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters that are no backbone's."""
        yield from self.head.parameters()
        yield from self.own_heads.parameters()

    def forward(self, inputs: Mapping[str, Tensor], dropout_generator: torch.Generator | None = None) -> FusedOutputs:
        """Return logits or values of all modalities together, and of each alone.

        Args:
            inputs: What each modality's backbone takes, float32 (B, ...).
            dropout_generator: Source of the head's dropout masks, on the tensors' device; needed in train mode with
                dropout.

        Raises:
            FusionShapeError: A modality is missing, or its features have not the width of the layout.
            TapError: A tapped module ran not exactly once, or its output cannot be pooled.
        """
        by_modality = self._features(inputs)
        rows_BF = self._standardized(by_modality)
        outputs = self.head(rows_BF, dropout_generator)
        own = {modality: self._own(modality, rows_BF, features) for modality, features in by_modality.items()}
        return FusedOutputs(outputs.fused_BC, own, outputs.auxiliary)

    def __call__(self, inputs: Mapping[str, Tensor], dropout_generator: torch.Generator | None = None) -> FusedOutputs:
        """Return what `forward` does; nn.Module's own has no types."""
        outputs: FusedOutputs = super().__call__(inputs, dropout_generator)
        return outputs

    def rows(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the standardised rows (B, F) that the head reads; see `forward`."""
        return self._standardized(self._features(inputs))

    def _features(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        missing = [modality for modality in self._taps if modality not in inputs]
        if missing:
            raise FusionShapeError(
                f"Expected inputs of {', '.join(self._taps)}, found none of {', '.join(missing)}. Give all modalities."
            )
        by_modality = {}
        for modality, taps in self._taps.items():
            # Hooked for this call alone, so that copies and what is saved know nothing of it.
            with tapped(self.backbone(modality), taps, pooled) as run:
                _, by_modality[modality] = run(inputs[modality])
            for name, feature in zip(self.layout.spans[modality], by_modality[modality], strict=True):
                columns = self.layout.columns(modality, name)
                if feature.shape[1] != columns.stop - columns.start:
                    raise FusionShapeError(
                        f"{modality}, feature {name}: expected width {columns.stop - columns.start}, found "
                        f"{feature.shape[1]}. Give the backbone that the features were made with."
                    )
        return by_modality

    def _standardized(self, by_modality: Mapping[str, list[Tensor]]) -> Tensor:
        rows_BF = torch.cat([feature for features in by_modality.values() for feature in features], dim=1)
        return (rows_BF - self.shift_F) / self.scale_F

    def _own(self, modality: str, rows_BF: Tensor, features: list[Tensor]) -> Tensor:
        if not self.layout.has_output(modality):
            own_BC: Tensor = self.own_heads[_PREFIX + modality](rows_BF[:, self._last_feature(modality)])
            return own_BC
        own_BC = features[list(self.layout.spans[modality]).index(OUTPUT)]
        scale = self._units.get(modality)
        if scale is None:
            return own_BC
        mean_C, std_C = (torch.as_tensor(values).to(own_BC) for values in (scale.mean_C, scale.std_C))
        return (own_BC - mean_C) / std_C

    def _last_feature(self, modality: str) -> slice:
        return self.layout.columns(modality, self.layout.features(modality)[-1])

    def _check(self, sources: Mapping[str, Source]) -> None:
        found = {modality: [tap.name for tap in source.taps] for modality, source in sources.items()}
        expected = {modality: list(spans) for modality, spans in self.layout.spans.items()}
        if list(found.items()) != list(expected.items()):
            raise FusionShapeError(
                f"Expected the features {expected}, found taps of {found}. Give the taps that the features were made "
                "with, in their order."
            )
        for modality in expected:
            if self.layout.has_output(modality):
                columns = self.layout.columns(modality, OUTPUT)
                if columns.stop - columns.start != self.n_outputs:
                    raise FusionShapeError(
                        f"{modality}: expected an output of width {self.n_outputs}, found "
                        f"{columns.stop - columns.start}. Leave its {OUTPUT} out of the layout."
                    )
