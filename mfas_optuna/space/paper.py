"""The search space of fusion networks: what an architecture is, how many there are, and how each is named.

Source: MFAS section 3.1. A fusion network of depth l is a list of l layers; each layer chooses one feature of every
modality and one activation. The paper writes two modalities (M and N features, P activations); any number N >= 2 of
modalities is allowed here. Indices are 0-based except in the paper's notation, which is 1-based.

This module is pure: it needs neither torch nor optuna.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from mfas_optuna.errors import SpaceError
from mfas_optuna.space.architecture import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer

ACTIVATION_NAMES = ("relu", "sigmoid", "leaky_relu", "tanh", "gelu", "silu", "elu", "softplus", "identity")
"""Activations that a fusion layer can be built with; `mfas_optuna.fusion` gives each its module."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_MODALITY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RESERVED = ("activation", "operator")


class SupportsSuggest(Protocol):
    """What `SearchSpace.suggest` needs of a trial; `optuna.Trial` and `optuna.trial.FixedTrial` have it."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class SearchSpace:
    """All fusion networks of depth 1 to `max_depth` over the named features of two or more modalities.

    Two spaces are equal when their modalities (in order), features, activations and depth are equal.

    Attributes:
        modalities: Feature names of each modality, in order; the paper's M and N are their lengths.
        activations: Activation names; the paper's P is their number.
        max_depth: L of the paper.
        operators: How layers may join what they read; the paper's way alone.
        outputs: What heads may read; h of the last layer alone.
    """

    kind: Literal["paper", "extended"] = "paper"
    operators: tuple[str, ...] = OPERATOR_NAMES[:1]
    outputs: tuple[str, ...] = OUTPUT_NAMES[:1]

    def __init__(self, modalities: Mapping[str, Sequence[str]], activations: Sequence[str], max_depth: int) -> None:
        """Check and keep the choices.

        Raises:
            SpaceError: Fewer than two modalities, an empty or repeated list, a name that is not valid, an unknown
                activation, or a depth below 1.
        """
        if len(modalities) < 2:
            raise SpaceError(f"Fusion needs at least two modalities, found {len(modalities)}: {list(modalities)}.")
        for modality, features in modalities.items():
            if not isinstance(modality, str) or not _MODALITY.fullmatch(modality) or modality in _RESERVED:
                raise SpaceError(
                    f"A modality's name must be a word other than {' and '.join(_RESERVED)}, found {modality!r}. "
                    "Rename it."
                )
            _check_names(features, f"features of modality {modality!r}")
        _check_names(activations, "activations")
        unknown = [name for name in activations if name not in ACTIVATION_NAMES]
        if unknown:
            raise SpaceError(f"Unknown activations {unknown}; known are {list(ACTIVATION_NAMES)}.")
        if isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 1:
            raise SpaceError(f"max_depth must be a whole number from 1, found {max_depth!r}.")
        self.modalities: dict[str, tuple[str, ...]] = {name: tuple(names) for name, names in modalities.items()}
        self.activations: tuple[str, ...] = tuple(activations)
        self.max_depth = max_depth
        self._radices = (*(len(names) for names in self.modalities.values()), len(self.activations))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return (
            f"SearchSpace(modalities={ {name: list(names) for name, names in self.modalities.items()}!r}, "
            f"activations={list(self.activations)!r}, max_depth={self.max_depth})"
        )

    def _identity(self) -> tuple[object, ...]:
        return (tuple(self.modalities.items()), self.activations, self.max_depth)

    @functools.cached_property
    def digest(self) -> str:
        """Short SHA-256 of the space, by which a stored record says which space its indices belong to."""
        text = json.dumps([list(self.modalities.items()), self.activations, self.max_depth])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """What a layer may take of each modality; the indices of `FusionLayer.features` count in it."""
        return self.modalities

    def members(self, modality: str, choice: int) -> tuple[str, ...]:
        """Return the features that a choice stands for, in the order of the modality's features."""
        return (self.modalities[modality][choice],)

    def ranked(self, scores: Mapping[str, Sequence[float]]) -> SearchSpace:
        """Return the space with its features ranked; one feature stands for itself alone, whatever its rank.

        Args:
            scores: For each modality, the score of each choice alone, such as a linear probe's.
        """
        return self

    # What a surrogate reads.

    @property
    def layer_radices(self) -> tuple[int, ...]:
        """Number of different values of each index that describes a layer: one per modality, then the activations."""
        return self._radices

    def layer_values(self, architecture: Architecture) -> list[tuple[int, ...]]:
        """Return the indices that describe each layer, below `layer_radices`."""
        return [(*layer.features, layer.activation) for layer in architecture.layers]

    # Notation.

    def notation(self, architecture: Architecture) -> str:
        """Return what people call an architecture of this space: here the paper's notation.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        return architecture.paper_notation()

    def from_notation(self, text: str) -> Architecture:
        """Read what `notation` wrote; spaces do not matter.

        Raises:
            SpaceError: The text names no architecture of this space.
        """
        architecture = Architecture.from_paper_notation(text)
        self.check(architecture)
        return architecture

    # Counting and enumeration.

    @property
    def n_layer_choices(self) -> int:
        """Number of different fusion layers, M * N * P for two modalities."""
        return math.prod(self._radices)

    def size_at(self, depth: int) -> int:
        """Return the exact number of architectures of this depth, (M * N * P)^depth.

        Raises:
            SpaceError: The depth is not in 1..max_depth.
        """
        self._check_depth(depth)
        return int(self.n_layer_choices**depth)

    @property
    def size(self) -> int:
        """Exact number of architectures over all depths from 1 to `max_depth`."""
        return sum(self.size_at(depth) for depth in range(1, self.max_depth + 1))

    def __len__(self) -> int:
        return self.size

    def layers(self) -> Iterator[FusionLayer]:
        """Yield every fusion layer, in the order of `layer_code`."""
        for *features, activation in itertools.product(*(range(radix) for radix in self._radices)):
            yield FusionLayer(tuple(features), activation)

    def architectures(self, depth: int) -> Iterator[Architecture]:
        """Yield every architecture of this depth (Gamma_l), in the order of `index`."""
        self._check_depth(depth)
        for layers in itertools.product(tuple(self.layers()), repeat=depth):
            yield Architecture(layers)

    def n_extensions(self, depth: int) -> int:
        """Return how many extensions each architecture of this depth has."""
        return self.n_layer_choices if depth < self.max_depth else 0

    def extensions(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architecture with each possible layer added on top; nothing at full depth."""
        if architecture.depth < self.max_depth:
            for layer in self.layers():
                yield architecture.extended(layer)

    def layer_code(self, layer: FusionLayer) -> int:
        """Return the layer's number in 0..n_layer_choices-1 (mixed radix, activation fastest)."""
        self._check_layer(layer)
        code = 0
        for value, radix in zip((*layer.features, layer.activation), self._radices, strict=True):
            code = code * radix + value
        return code

    def index(self, architecture: Architecture) -> int:
        """Return the architecture's number in 0..size-1: shallower first, then by layer codes.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        position = sum(self.size_at(depth) for depth in range(1, architecture.depth))
        code = 0
        for layer in architecture.layers:
            code = code * self.n_layer_choices + self.layer_code(layer)
        return position + code

    def architecture(self, index: int) -> Architecture:
        """Return the architecture with this number; the inverse of `index`.

        Raises:
            SpaceError: The number is not in 0..size-1.
        """
        if not 0 <= index < self.size:
            raise SpaceError(f"An architecture's index must lie in 0..{self.size - 1}, found {index}.")
        depth = 1
        while index >= self.size_at(depth):
            index -= self.size_at(depth)
            depth += 1
        layers: list[FusionLayer] = []
        for _ in range(depth):
            index, code = divmod(index, self.n_layer_choices)
            values: list[int] = []
            for radix in reversed(self._radices):
                code, value = divmod(code, radix)
                values.append(value)
            activation, *features = values
            layers.append(FusionLayer(tuple(reversed(features)), activation))
        return Architecture(tuple(reversed(layers)))

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture) or architecture.depth > self.max_depth:
            return False
        return architecture.output == 0 and all(self._fits(layer) for layer in architecture.layers)

    def check(self, architecture: Architecture) -> None:
        """Raise SpaceError, naming the first thing that does not fit, when the architecture is not in this space."""
        self._check_depth(architecture.depth)
        if architecture.output != 0:
            raise SpaceError(
                "A head that reads all layers is of the extended space, expected output 0 (the last layer), found "
                f'{architecture.output}. Search with [space] kind = "extended".'
            )
        for layer in architecture.layers:
            self._check_layer(layer)

    # Names: parameters of a trial.

    def parameter_choices(self) -> dict[str, tuple[str, ...] | range]:
        """Return every parameter of a trial with its choices: a range for `depth`, names for the others."""
        choices: dict[str, tuple[str, ...] | range] = {"depth": range(1, self.max_depth + 1)}
        for number in range(1, self.max_depth + 1):
            for modality, names in self.modalities.items():
                choices[f"layer{number}.{modality}"] = names
            choices[f"layer{number}.activation"] = self.activations
        return choices

    def parameters(self, architecture: Architecture) -> dict[str, int | str]:
        """Return the parameters by which a trial names this architecture; the inverse of `from_parameters`.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        parameters: dict[str, int | str] = {"depth": architecture.depth}
        for number, layer in enumerate(architecture.layers, start=1):
            for (modality, names), feature in zip(self.modalities.items(), layer.features, strict=True):
                parameters[f"layer{number}.{modality}"] = names[feature]
            parameters[f"layer{number}.activation"] = self.activations[layer.activation]
        return parameters

    def from_parameters(self, parameters: Mapping[str, Any]) -> Architecture | None:
        """Return the architecture that a trial's parameters name, or None when they do not name one of this space.

        Parameters that are not of this space are ignored.
        """
        depth = parameters.get("depth")
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= self.max_depth:
            return None
        layers = []
        for number in range(1, depth + 1):
            try:
                features = tuple(
                    names.index(parameters[f"layer{number}.{modality}"]) for modality, names in self.modalities.items()
                )
                activation = self.activations.index(parameters[f"layer{number}.activation"])
            except (KeyError, ValueError):
                return None
            layers.append(FusionLayer(features, activation))
        return Architecture(tuple(layers))

    def suggest(self, trial: SupportsSuggest) -> Architecture:
        """Ask a trial for an architecture, with whatever sampler its study has.

        Depth comes first, then the layers from the first to the last; layers above the depth are not suggested.
        """
        parameters: dict[str, Any] = {"depth": trial.suggest_int("depth", 1, self.max_depth)}
        for number in range(1, parameters["depth"] + 1):
            for modality, names in self.modalities.items():
                name = f"layer{number}.{modality}"
                parameters[name] = trial.suggest_categorical(name, list(names))
            name = f"layer{number}.activation"
            parameters[name] = trial.suggest_categorical(name, list(self.activations))
        architecture = self.from_parameters(parameters)
        if architecture is None:  # A trial object that does not honour the choices it was given.
            raise SpaceError(f"The trial suggested values outside the space: {parameters}.")
        return architecture

    # Checks.

    def _fits(self, layer: FusionLayer) -> bool:
        values = (*layer.features, layer.activation)
        return (
            layer.operator == 0
            and len(values) == len(self._radices)
            and all(0 <= value < radix for value, radix in zip(values, self._radices, strict=True))
        )

    def _check_layer(self, layer: FusionLayer) -> None:
        if layer.operator != 0:
            raise SpaceError(
                f"A layer's operator is of the extended space, expected 0 (concatenation), found {layer.operator}. "
                'Search with [space] kind = "extended".'
            )
        if not self._fits(layer):
            raise SpaceError(
                f"Layer {(*layer.features, layer.activation)} does not fit this space: expected one index for each of "
                f"{[*self.modalities, 'activation']}, below {list(self._radices)} (0-based)."
            )

    def _check_depth(self, depth: int) -> None:
        if not 1 <= depth <= self.max_depth:
            raise SpaceError(f"depth must lie in 1..{self.max_depth}, found {depth}.")


def _check_names(names: Sequence[str], what: str) -> None:
    if isinstance(names, str) or not names:
        raise SpaceError(f"The {what} must be a non-empty list of names, found {names!r}.")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SpaceError(f"The {what} must be names such as 'conv1' or 'layer.2', found {name!r}.")
    if len(set(names)) != len(names):
        raise SpaceError(f"The {what} must differ from each other, found {list(names)}.")
