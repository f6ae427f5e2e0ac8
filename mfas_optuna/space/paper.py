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
from typing import Any, Protocol

from mfas_optuna.errors import SpaceError
from mfas_optuna.space.architecture import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer, SpaceKind

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

    kind: SpaceKind = "paper"
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

    @functools.cached_property
    def _indices(self) -> dict[str, tuple[str, ...]]:
        """What each index of a layer counts in: the choices of each modality, the activations, then the operators where
        there are several."""
        operators = {"operator": self.operators} if len(self.operators) > 1 else {}
        return {**self.choices, "activation": self.activations, **operators}

    def _values(self, layer: FusionLayer) -> tuple[int, ...]:
        """Return the indices of a layer, one for each of `_indices`."""
        values = (*layer.features, layer.activation)
        return (*values, layer.operator) if "operator" in self._indices else values

    def _layer_of(self, values: Sequence[int]) -> FusionLayer:
        """Return the layer with these indices; the inverse of `_values`."""
        n_modalities = len(self.modalities)
        return FusionLayer(tuple(values[:n_modalities]), *values[n_modalities:])

    def _n_outputs(self, depth: int) -> int:
        return 1 if depth == 1 else len(self.outputs)

    # What a surrogate reads.

    @functools.cached_property
    def layer_radices(self) -> tuple[int, ...]:
        """Number of different values of each index that describes a layer: one per modality, then the activation; then
        the operator and the network's output, where there are several."""
        outputs = (len(self.outputs),) if len(self.outputs) > 1 else ()
        return (*map(len, self._indices.values()), *outputs)

    def layer_values(self, architecture: Architecture) -> list[tuple[int, ...]]:
        """Return the indices that describe each layer, below `layer_radices`."""
        output = (architecture.output,) if len(self.outputs) > 1 else ()
        return [(*self._values(layer), *output) for layer in architecture.layers]

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

    # Layers. A space whose layers depend on whether there is one below overrides these.

    def canonical(self, layer: FusionLayer, *, is_first: bool) -> FusionLayer:
        """Return the layer under the one name that it has in this space.

        Args:
            layer: One whose indices are in their ranges.
            is_first: Whether there is no layer below.
        """
        return layer

    def layers(self, *, is_first: bool = True) -> Iterator[FusionLayer]:
        """Yield every fusion layer that can be first, or that can have one below, in the order of `layer_code`."""
        for values in itertools.product(*map(range, map(len, self._indices.values()))):
            yield self._layer_of(values)

    def n_layers(self, *, is_first: bool = True) -> int:
        """Return the number of `layers`: M * N * P in the paper's space of two modalities."""
        return math.prod(map(len, self._indices.values()))

    def layer(self, code: int, *, is_first: bool = True) -> FusionLayer:
        """Return one of the `layers` by its number; the inverse of `layer_code`."""
        values = []
        for names in reversed(self._indices.values()):
            code, value = divmod(code, len(names))
            values.append(value)
        return self._layer_of(values[::-1])

    def layer_code(self, layer: FusionLayer, *, is_first: bool = True) -> int:
        """Return the number of one of the `layers`, from 0 (mixed radix, the last index fastest).

        Raises:
            SpaceError: There is no such layer.
        """
        self._check_layer(layer, is_first=is_first)
        code = 0
        for value, names in zip(self._values(layer), self._indices.values(), strict=True):
            code = code * len(names) + value
        return code

    # Counting and enumeration.

    def size_at(self, depth: int) -> int:
        """Return the exact number of architectures of this depth, (M * N * P)^depth in the paper's space.

        Raises:
            SpaceError: The depth is not in 1..max_depth.
        """
        self._check_depth(depth)
        return int(self.n_layers() * self.n_layers(is_first=False) ** (depth - 1) * self._n_outputs(depth))

    @functools.cached_property
    def size(self) -> int:
        """Exact number of architectures over all depths from 1 to `max_depth`."""
        return sum(self.size_at(depth) for depth in range(1, self.max_depth + 1))

    def __len__(self) -> int:
        return self.size

    def architectures(self, depth: int) -> Iterator[Architecture]:
        """Yield every architecture of this depth (Gamma_l), in the order of `index`."""
        self._check_depth(depth)
        above = itertools.repeat(tuple(self.layers(is_first=False)), depth - 1)
        for layers in itertools.product(tuple(self.layers()), *above):
            for output in range(self._n_outputs(depth)):
                yield Architecture(layers, output)

    def n_extensions(self, depth: int) -> int:
        """Return how many extensions each architecture of this depth has."""
        if depth >= self.max_depth:
            return 0
        return self.n_layers(is_first=False) * (len(self.outputs) if depth == 1 else 1)

    def extensions(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architecture with each possible layer added on top; of one layer, with each output besides; nothing
        at full depth."""
        for position in range(self.n_extensions(architecture.depth)):
            yield self.extension(architecture, position)

    def extension(self, architecture: Architecture, position: int) -> Architecture:
        """Return one of the extensions, by its position in `extensions`."""
        output = architecture.output
        if architecture.depth == 1:
            position, output = divmod(position, len(self.outputs))
        return Architecture((*architecture.layers, self.layer(position, is_first=False)), output)

    def index(self, architecture: Architecture) -> int:
        """Return the architecture's number in 0..size-1: shallower first, then by layer codes, then by output.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self._check_head(architecture)
        first, *above = architecture.layers
        code = self.layer_code(first)
        for layer in above:
            code = code * self.n_layers(is_first=False) + self.layer_code(layer, is_first=False)
        code = code * self._n_outputs(architecture.depth) + architecture.output
        return sum(self.size_at(depth) for depth in range(1, architecture.depth)) + code

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
        index, output = divmod(index, self._n_outputs(depth))
        above = []
        for _ in range(depth - 1):
            index, code = divmod(index, self.n_layers(is_first=False))
            above.append(self.layer(code, is_first=False))
        return Architecture((self.layer(index), *reversed(above)), output)

    # Names: parameters of a trial.

    def parameter_choices(self) -> dict[str, tuple[str, ...] | range]:
        """Return every parameter of a trial with its choices: a range for `depth`, names for the others."""
        choices: dict[str, tuple[str, ...] | range] = {"depth": range(1, self.max_depth + 1)}
        if len(self.outputs) > 1:
            choices["output"] = self.outputs
        for number in range(1, self.max_depth + 1):
            choices |= {f"layer{number}.{what}": names for what, names in self._indices.items()}
        return choices

    def parameters(self, architecture: Architecture) -> dict[str, int | str]:
        """Return the parameters by which a trial names this architecture; the inverse of `from_parameters`.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        parameters: dict[str, int | str] = {"depth": architecture.depth}
        if self._n_outputs(architecture.depth) > 1:
            parameters["output"] = self.outputs[architecture.output]
        for number, layer in enumerate(architecture.layers, start=1):
            for (what, names), value in zip(self._indices.items(), self._values(layer), strict=True):
                parameters[f"layer{number}.{what}"] = names[value]
        return parameters

    def from_parameters(self, parameters: Mapping[str, Any]) -> Architecture | None:
        """Return the architecture that a trial's parameters name, or None when they do not name one of this space.

        Parameters that are not of this space are ignored; layers are read as their `canonical` ones.
        """
        depth = parameters.get("depth")
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= self.max_depth:
            return None
        layers = []
        try:
            for number in range(1, depth + 1):
                values = [names.index(parameters[f"layer{number}.{what}"]) for what, names in self._indices.items()]
                layers.append(self.canonical(self._layer_of(values), is_first=number == 1))
            output = self.outputs.index(parameters["output"]) if self._n_outputs(depth) > 1 else 0
        except (KeyError, ValueError, SpaceError):
            return None
        return Architecture(tuple(layers), output)

    def suggest(self, trial: SupportsSuggest) -> Architecture:
        """Ask a trial for an architecture, with whatever sampler its study has.

        Depth comes first, then the layers from the first to the last; layers above the depth are not suggested.

        Raises:
            SpaceError: The trial chose what is no network of this space, such as a first layer that takes nothing.
        """
        depth = trial.suggest_int("depth", 1, self.max_depth)
        parameters: dict[str, Any] = {"depth": depth}
        if self._n_outputs(depth) > 1:
            parameters["output"] = trial.suggest_categorical("output", list(self.outputs))
        for number in range(1, depth + 1):
            for what, names in self._indices.items():
                name = f"layer{number}.{what}"
                parameters[name] = trial.suggest_categorical(name, list(names))
        architecture = self.from_parameters(parameters)
        if architecture is None:
            raise SpaceError(
                "The trial's parameters name no network of this space; in an extended one, its first layer may take "
                f"nothing: {parameters}."
            )
        return architecture

    # Checks.

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.check(architecture)
        except SpaceError:
            return False
        return True

    def check(self, architecture: Architecture) -> None:
        """Raise SpaceError, naming the first thing that does not fit, when the architecture is not in this space."""
        self._check_head(architecture)
        for number, layer in enumerate(architecture.layers):
            self._check_layer(layer, is_first=number == 0)

    def _check_head(self, architecture: Architecture) -> None:
        self._check_depth(architecture.depth)
        outputs = self.outputs[: self._n_outputs(architecture.depth)]
        if not 0 <= architecture.output < len(outputs):
            raise SpaceError(
                f"Expected an output below {len(outputs)} (of {list(outputs)}), found {architecture.output}."
                f"{self._hint(OUTPUT_NAMES, architecture.output)}"
            )

    def _check_layer(self, layer: FusionLayer, *, is_first: bool) -> None:
        if not 0 <= layer.operator < len(self.operators):
            raise SpaceError(
                f"Expected an operator below {len(self.operators)} (of {list(self.operators)}), found "
                f"{layer.operator}.{self._hint(OPERATOR_NAMES, layer.operator)}"
            )
        values, radices = self._values(layer), [len(names) for names in self._indices.values()]
        if len(values) != len(radices) or not all(
            0 <= value < radix for value, radix in zip(values, radices, strict=True)
        ):
            raise SpaceError(
                f"Layer {values} does not fit this space: expected one index for each of {list(self._indices)}, below "
                f"{radices} (0-based)."
            )

    def _hint(self, known: Sequence[str], index: int) -> str:
        """Return what to do about an index that the extended space knows and this one does not."""
        if self.kind == "extended" or not 0 <= index < len(known):
            return ""
        return f' {known[index]!r} is of the extended space: search with [space] kind = "extended".'

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
