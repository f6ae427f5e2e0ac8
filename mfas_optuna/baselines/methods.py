"""The fixed methods that a search is compared with, and how wide each may be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from mfas_optuna.baselines.heads import (
    CentralNetSettings,
    GmuSettings,
    How,
    LateHeadsSettings,
    LateOutputsSettings,
    MlpSettings,
    OutputSettings,
    TowersSettings,
)
from mfas_optuna.baselines.probes import RankedLayer
from mfas_optuna.errors import DataError
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.head import HeadSettings, LayerChoice, Method, NetworkSettings
from mfas_optuna.fusion.network import largest
from mfas_optuna.target import TargetKind

AnyHead = Annotated[
    NetworkSettings
    | OutputSettings
    | LateOutputsSettings
    | LateHeadsSettings
    | MlpSettings
    | TowersSettings
    | GmuSettings
    | CentralNetSettings,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[AnyHead] = TypeAdapter(AnyHead)

_KEPT = (1, 2, 3, 5, 8)
"""How many of the layers that probes rank first are tried."""
_ANY = 1
"""A width that the trainer replaces."""


def head_from_record(record: Mapping[str, Any]) -> HeadSettings:
    """Return the settings that `as_record` gave.

    Raises:
        DataError: The record is not one of a head.
    """
    try:
        return _ADAPTER.validate_json(json.dumps(record))
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise DataError(
            f"The record of a head cannot be read ({details}). Was it stored by another version?"
        ) from error


def fixed_methods(layout: FeatureLayout, ranking: Sequence[RankedLayer], *, kind: TargetKind) -> list[Method]:
    """Return every simple way to fuse the features of a layout, in the order in which they are shown.

    Args:
        layout: The features, of two modalities or more.
        ranking: All layers, the best first (`rank_layers`).
        kind: Of the target.
    """
    every = {modality: tuple(layout.features(modality)) for modality in layout.spans}
    flat = tuple((modality, name) for modality, names in every.items() for name in names)
    all_layers = f"all {len(flat)} layers"
    methods = []
    for modality, names in every.items():
        if layout.has_output(modality):
            methods.append(
                _one(f"backbone:{modality}", f"{modality} alone, its backbone", OutputSettings(modality=modality))
            )
        features = tuple((modality, name) for name in names)
        of_one = MlpSettings(label=f"{len(names)} layers", features=features, width=_ANY)
        methods.append(_one(f"alone:{modality}", f"{modality} alone, all its layers", of_one))
    hows: tuple[tuple[How, str], ...] = (("mean", "mean"), ("weighted", "weighted mean"))
    for how, in_words in hows:
        if all(layout.has_output(modality) for modality in every):
            late = LateOutputsSettings(modalities=tuple(every), how=how, target=kind)
            methods.append(_one(f"late_{how}", f"late fusion, {in_words} of the backbones", late))
        else:
            trained = LateHeadsSettings(features=every, how=how, target=kind, width=_ANY)
            methods.append(_one(f"late_{how}", f"late fusion, {in_words} of each alone", trained))
    first = tuple((modality, names[0]) for modality, names in every.items())
    last = tuple((modality, names[-1]) for modality, names in every.items())

    def mlp(label: str, features: tuple[tuple[str, str], ...], hidden_layers: int = 1) -> MlpSettings:
        return MlpSettings(label=label, features=features, hidden_layers=hidden_layers, width=_ANY)

    def towers(label: str, features: Mapping[str, tuple[str, ...]], *, auxiliary: bool) -> TowersSettings:
        return TowersSettings(label=label, features=dict(features), auxiliary=auxiliary, width=_ANY)

    probed = [(layer.modality, layer.feature) for layer in ranking]
    n_most = max(len(names) for names in every.values())
    methods += [
        _one("concat_first", "concatenation of the first layers", mlp("first layers", first)),
        _one("concat_last", "concatenation of the last layers", mlp("last layers", last)),
        _one("concat_all", "concatenation of all layers", mlp(all_layers, flat)),
        _one("concat_all_2", "concatenation of all layers, two hidden", mlp(all_layers, flat, 2)),
        Method(
            "concat_probed",
            "concatenation of layers ranked by probes",
            tuple(mlp(f"best {n} layers by probe", tuple(probed[:n])) for n in _kept(len(probed))),
        ),
        _one("towers", "joint towers", towers(all_layers, every, auxiliary=False)),
        _one("towers_auxiliary", "joint towers, auxiliary losses", towers(all_layers, every, auxiliary=True)),
        Method(
            "towers_probed",
            "joint towers of layers ranked by probes",
            tuple(
                towers(f"best {n} layers of each by probe", _best_of_each(probed, every, n), auxiliary=True)
                for n in _kept(n_most)
            ),
        ),
        Method(
            "hadamard",
            "Hadamard product of layers",
            (_product(f"all {len(flat)} layers", every), _product("last layers", _best_of_each(last, every, 1))),
        ),
        _one("gmu", "gated multimodal unit", GmuSettings(features=dict(last), width=_ANY)),
        _one("centralnet", "CentralNet", CentralNetSettings(features=every, width=_ANY)),
    ]
    return methods


def _one(name: str, title: str, settings: HeadSettings) -> Method:
    return Method(name, title, (settings,))


def _product(label: str, features: Mapping[str, tuple[str, ...]]) -> NetworkSettings:
    """Return a network of one layer, the product of a projection of each modality."""
    layer = LayerChoice(features=dict(features), activation="identity", operator="product")
    return NetworkSettings(notation=f"product of {label}", layers=(layer,), width=_ANY)


def _kept(n_layers: int) -> list[int]:
    return [*(n for n in _KEPT if n < n_layers), n_layers]


def _best_of_each(
    probed: Sequence[tuple[str, str]], every: Mapping[str, tuple[str, ...]], n: int
) -> dict[str, tuple[str, ...]]:
    return {modality: tuple(name for of, name in probed if of == modality)[:n] for modality in every}


def width_for(settings: HeadSettings, layout: FeatureLayout, n_outputs: int, n_parameters: int) -> int:
    """Return the largest width with which a head learns at most so many weights and biases.

    Args:
        settings: A head that has a width.
        layout: The features.
        n_outputs: C.
        n_parameters: The limit; 1 is returned also where that is too many already.

    Raises:
        ValueError: The head has no width, so that no width makes it larger.
    """
    if not settings.has_width:
        raise ValueError(
            f"Expected a head with a width, found kind {settings.as_record()['kind']!r}. Ask `has_width` first."
        )

    def fits(width: int) -> bool:
        head = settings.with_width(width).build(layout, n_outputs, dropout=0.0, generator=torch.Generator())
        return head.n_parameters <= n_parameters

    return largest(fits)
