"""The extended space: the paper's, and beside it simple ways to fuse and their combinations.

| what | paper | extended |
|---|---|---|
| taken of a modality by a layer | one feature | one, several, all, or nothing |
| how a layer joins what it reads | concatenation | any of `OPERATOR_NAMES` |
| what the head reads | the last layer | the last layer, or all |

Several features are the best of their modality by linear probes: `best2` takes the two that score highest, `all`
takes all. So the names do not depend on the data, and what they stand for does (`members`).

Two names never mean the same network. An operator that joins parts needs two of them at least, the layer below counting
as one: with fewer it is the same as concatenation and is called so. A network of one layer has the output `last`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mfas_optuna.errors import SpaceError
from mfas_optuna.space.architecture import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer
from mfas_optuna.space.paper import SearchSpace, SupportsSuggest

NOTHING = "none"
"""The choice that takes nothing of a modality."""
EVERYTHING = "all"
SET_SIZES = (2, 3, 5, 8)
"""How many of the features that probes rank first may be taken together, besides all."""
MAX_LAYERS = 200_000
"""Layers of one space at most: they are listed in memory."""

_CONCATENATION = OPERATOR_NAMES.index("concatenation")
_LAYER = re.compile(r"(\w+)\(([^();]*);([^();]*)\)")
IS_SET = re.compile(r"best\d+|all|none")
"""Names that are of sets of features, or of none."""


class ExtendedSpace(SearchSpace):
    """All networks of depth 1 to `max_depth` with any operators, feature sets and connections to the head.

    Attributes:
        operators: Names of all operators; `FusionLayer.operator` counts in them.
        outputs: Names of what a head may read; `Architecture.output` counts in them.
    """

    kind: Literal["paper", "extended"] = "extended"
    operators = OPERATOR_NAMES
    outputs = OUTPUT_NAMES

    def __init__(self, modalities: Mapping[str, Sequence[str]], activations: Sequence[str], max_depth: int) -> None:
        """Check and keep the choices.

        Raises:
            SpaceError: As of `SearchSpace`; a feature has the name of a set; or there are too many layers to list.
        """
        super().__init__(modalities, activations, max_depth)
        self._ranking: dict[str, tuple[str, ...]] | None = None
        self._choices = {}
        for modality, names in self.modalities.items():
            taken = [name for name in names if IS_SET.fullmatch(name)]
            if taken:
                raise SpaceError(
                    f"Modality {modality!r}: {taken} are names of sets of features in an extended space. Rename these "
                    "features."
                )
            sets = [f"best{size}" for size in SET_SIZES if size < len(names)]
            everything = [EVERYTHING] if len(names) > 1 else []
            self._choices[modality] = (*names, *sets, *everything, NOTHING)
        self._nothing = tuple(len(choices) - 1 for choices in self._choices.values())
        radices = (*(len(choices) for choices in self._choices.values()), len(self.activations), len(self.operators))
        n_named = 1
        for radix in radices:
            n_named *= radix
        if n_named > MAX_LAYERS:
            raise SpaceError(
                f"An extended space of these features has {n_named:,} kinds of layers, more than {MAX_LAYERS:,}. List "
                "fewer features or activations, or search the paper's space."
            )

    def _identity(self) -> tuple[object, ...]:
        return ("extended", *super()._identity())

    def __repr__(self) -> str:
        return super().__repr__().replace("SearchSpace", "ExtendedSpace", 1)

    @functools.cached_property
    def digest(self) -> str:
        """Short SHA-256 of the space, by which a stored record says which space its indices belong to."""
        text = json.dumps([list(self._choices.items()), self.activations, self.operators, self.outputs, self.max_depth])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Features of each modality, then sets of them, then nothing."""
        return self._choices

    def ranked(self, scores: Mapping[str, Sequence[float]]) -> ExtendedSpace:
        """Return the space in which the best features of a modality are known; equal to this one.

        Args:
            scores: For each modality, the score of each choice alone, such as a linear probe's; of equal features, the
                earlier one is taken to be better.
        """
        space = copy.copy(self)
        space._ranking = {
            modality: tuple(names[index] for index in sorted(range(len(names)), key=lambda i: -scores[modality][i]))
            for modality, names in self.modalities.items()
        }
        return space

    def members(self, modality: str, choice: int) -> tuple[str, ...]:
        """Return the features that a choice stands for, in the order of the modality's features; () for nothing.

        Raises:
            SpaceError: It is a set of the best features, and the space has not been `ranked`.
        """
        name, names = self._choices[modality][choice], self.modalities[modality]
        if name == NOTHING:
            return ()
        if name in names:
            return (name,)
        if name == EVERYTHING:
            return names
        if self._ranking is None:
            raise SpaceError(
                f"Which features are {name!r} of {modality!r} is not known. Call `ranked` with scores first."
            )
        best = self._ranking[modality][: int(name.removeprefix("best"))]
        return tuple(feature for feature in names if feature in best)

    # What a layer is.

    def canonical(self, layer: FusionLayer, *, is_first: bool) -> FusionLayer:
        """Return the layer under the one name that it has in this space.

        Args:
            layer: One whose indices are in their ranges.
            is_first: Whether there is no layer below.

        Raises:
            SpaceError: It takes nothing.
        """
        n_read = sum(feature != nothing for feature, nothing in zip(layer.features, self._nothing, strict=True))
        n_parts = n_read + (not is_first)
        if n_parts == 0:
            raise SpaceError(
                f"The first layer takes nothing: expected a feature of one modality at least, found {NOTHING!r} for "
                f"each of {list(self.modalities)}."
            )
        return layer if n_parts > 1 else replace(layer, operator=_CONCATENATION)

    @functools.cached_property
    def _first_layers(self) -> tuple[FusionLayer, ...]:
        return tuple(self._valid(is_first=True))

    @functools.cached_property
    def _upper_layers(self) -> tuple[FusionLayer, ...]:
        return tuple(self._valid(is_first=False))

    @functools.cached_property
    def _codes(self) -> tuple[dict[FusionLayer, int], dict[FusionLayer, int]]:
        both = (self._first_layers, self._upper_layers)
        first, upper = ({layer: code for code, layer in enumerate(layers)} for layers in both)
        return first, upper

    def _valid(self, *, is_first: bool) -> Iterator[FusionLayer]:
        for *features, activation, operator in itertools.product(*(range(radix) for radix in self.layer_radices[:-1])):
            layer = FusionLayer(tuple(features), activation, operator)
            if (not is_first or layer.features != self._nothing) and self.canonical(layer, is_first=is_first) == layer:
                yield layer

    # What a surrogate reads.

    @property
    def layer_radices(self) -> tuple[int, ...]:
        """Number of different values of each index that describes a layer: one per modality, then the activation, the
        operator, and the network's output."""
        of_modalities = (len(choices) for choices in self._choices.values())
        return (*of_modalities, len(self.activations), len(self.operators), len(self.outputs))

    def layer_values(self, architecture: Architecture) -> list[tuple[int, ...]]:
        """Return the indices that describe each layer, below `layer_radices`."""
        return [
            (*layer.features, layer.activation, layer.operator, architecture.output) for layer in architecture.layers
        ]

    # Notation.

    def notation(self, architecture: Architecture) -> str:
        """Return such as `towers(conv5,best2;tanh) > concatenation(none,none;relu)`, then `> all` where the head reads
        all layers. Without square brackets, which terminals' markup would take for its own.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        layers = []
        for layer in architecture.layers:
            names = ",".join(
                choices[feature] for choices, feature in zip(self._choices.values(), layer.features, strict=True)
            )
            layers.append(f"{self.operators[layer.operator]}({names};{self.activations[layer.activation]})")
        return " > ".join([*layers, *([self.outputs[architecture.output]] if architecture.output else [])])

    def from_notation(self, text: str) -> Architecture:
        """Read what `notation` wrote; spaces do not matter.

        Raises:
            SpaceError: The text names no architecture of this space.
        """
        compact = re.sub(r"\s+", "", text)
        written = compact.split(">")
        ending = written.pop() if written[-1] in self.outputs else self.outputs[0]
        groups = [match.groups() for match in map(_LAYER.fullmatch, written) if match]
        if not groups or len(groups) != len(written):
            raise SpaceError(f"Expected a notation like towers(conv5,best2;tanh), found {text!r}.")
        parameters: dict[str, Any] = {"depth": len(groups), "output": ending}
        for number, (operator, names, activation) in enumerate(groups, start=1):
            chosen = names.split(",")
            if len(chosen) != len(self._choices):
                raise SpaceError(f"Expected a choice for each of {list(self._choices)}, found ({names}) in {text!r}.")
            parameters |= {
                f"layer{number}.{modality}": name for modality, name in zip(self._choices, chosen, strict=True)
            }
            parameters |= {f"layer{number}.activation": activation, f"layer{number}.operator": operator}
        architecture = self.from_parameters(parameters)
        if architecture is None or self.notation(architecture).replace(" ", "") != compact:
            raise SpaceError(
                f"{text!r} names no architecture of this space: choices {self._choices}, activations "
                f"{list(self.activations)}, operators {list(self.operators)}, at most {self.max_depth} layers."
            )
        return architecture

    # Counting and enumeration.

    @property
    def n_layer_choices(self) -> int:
        """Number of different first layers."""
        return len(self._first_layers)

    def size_at(self, depth: int) -> int:
        """Return the exact number of architectures of this depth.

        Raises:
            SpaceError: The depth is not in 1..max_depth.
        """
        self._check_depth(depth)
        n_outputs = 1 if depth == 1 else len(self.outputs)
        return int(len(self._first_layers) * len(self._upper_layers) ** (depth - 1) * n_outputs)

    def layers(self) -> Iterator[FusionLayer]:
        """Yield every first layer."""
        yield from self._first_layers

    def architectures(self, depth: int) -> Iterator[Architecture]:
        """Yield every architecture of this depth, in the order of `index`."""
        self._check_depth(depth)
        above = itertools.repeat(self._upper_layers, depth - 1)
        for layers in itertools.product(self._first_layers, *above):
            for output in range(1 if depth == 1 else len(self.outputs)):
                yield Architecture(layers, output)

    def n_extensions(self, depth: int) -> int:
        """Return how many extensions each architecture of this depth has."""
        if depth >= self.max_depth:
            return 0
        return len(self._upper_layers) * (len(self.outputs) if depth == 1 else 1)

    def extensions(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architecture with each possible layer on top; of one layer, with each output besides."""
        if architecture.depth < self.max_depth:
            outputs = range(len(self.outputs)) if architecture.depth == 1 else (architecture.output,)
            for layer, output in itertools.product(self._upper_layers, outputs):
                yield replace(architecture.extended(layer), output=output)

    def extension(self, architecture: Architecture, position: int) -> Architecture:
        """Return one of the extensions, by its position in `extensions`."""
        if architecture.depth > 1:
            return architecture.extended(self._upper_layers[position])
        layer, output = divmod(position, len(self.outputs))
        return replace(architecture.extended(self._upper_layers[layer]), output=output)

    def layer_code(self, layer: FusionLayer, *, is_first: bool = True) -> int:
        """Return the layer's number among the first layers, or among those that have one below.

        Raises:
            SpaceError: There is no such layer.
        """
        self._check_layer_at(layer, is_first=is_first)
        return self._codes[not is_first][layer]

    def index(self, architecture: Architecture) -> int:
        """Return the architecture's number in 0..size-1: shallower first, then by layers, then by output.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        code = 0
        for number, layer in enumerate(architecture.layers):
            code = code * len(self._upper_layers) + self._codes[number > 0][layer]
        if architecture.depth > 1:
            code = code * len(self.outputs) + architecture.output
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
        output = 0
        if depth > 1:
            index, output = divmod(index, len(self.outputs))
        above = []
        for _ in range(depth - 1):
            index, code = divmod(index, len(self._upper_layers))
            above.append(self._upper_layers[code])
        return Architecture((self._first_layers[index], *reversed(above)), output)

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
        self._check_depth(architecture.depth)
        n_outputs = 1 if architecture.depth == 1 else len(self.outputs)
        if not 0 <= architecture.output < n_outputs:
            raise SpaceError(
                f"Expected an output below {n_outputs} (of {list(self.outputs)}; the first alone for one layer), found "
                f"{architecture.output}."
            )
        for number, layer in enumerate(architecture.layers):
            self._check_layer_at(layer, is_first=number == 0)

    def _check_layer_at(self, layer: FusionLayer, *, is_first: bool) -> None:
        values, radices = (*layer.features, layer.activation, layer.operator), self.layer_radices[:-1]
        if len(values) != len(radices) or not all(
            0 <= value < radix for value, radix in zip(values, radices, strict=True)
        ):
            raise SpaceError(
                f"Layer {values} does not fit this space: expected one index for each of "
                f"{[*self.modalities, 'activation', 'operator']}, below {list(radices)} (0-based)."
            )
        canonical = self.canonical(layer, is_first=is_first)
        if canonical != layer:
            raise SpaceError(
                f"Operator {self.operators[layer.operator]!r} joins parts, and layer {values} reads but one: expected "
                f"{self.operators[canonical.operator]!r}, which is the same there."
            )

    # Names: parameters of a trial.

    def parameter_choices(self) -> dict[str, tuple[str, ...] | range]:
        """Return every parameter of a trial with its choices: a range for `depth`, names for the others."""
        choices: dict[str, tuple[str, ...] | range] = {
            "depth": range(1, self.max_depth + 1),
            "output": self.outputs,
        }
        for number in range(1, self.max_depth + 1):
            for modality, names in self._choices.items():
                choices[f"layer{number}.{modality}"] = names
            choices[f"layer{number}.activation"] = self.activations
            choices[f"layer{number}.operator"] = self.operators
        return choices

    def parameters(self, architecture: Architecture) -> dict[str, int | str]:
        """Return the parameters by which a trial names this architecture; the inverse of `from_parameters`.

        Raises:
            SpaceError: The architecture is not in this space.
        """
        self.check(architecture)
        parameters: dict[str, int | str] = {"depth": architecture.depth}
        if architecture.depth > 1:
            parameters["output"] = self.outputs[architecture.output]
        for number, layer in enumerate(architecture.layers, start=1):
            for (modality, names), choice in zip(self._choices.items(), layer.features, strict=True):
                parameters[f"layer{number}.{modality}"] = names[choice]
            parameters[f"layer{number}.activation"] = self.activations[layer.activation]
            parameters[f"layer{number}.operator"] = self.operators[layer.operator]
        return parameters

    def from_parameters(self, parameters: Mapping[str, Any]) -> Architecture | None:
        """Return the architecture that a trial's parameters name, or None when they do not name one of this space.

        Parameters that are not of this space are ignored. An operator with but one part to join is read as
        concatenation, which is the same network.
        """
        depth = parameters.get("depth")
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= self.max_depth:
            return None
        layers = []
        for number in range(1, depth + 1):
            try:
                features = tuple(
                    names.index(parameters[f"layer{number}.{modality}"]) for modality, names in self._choices.items()
                )
                activation = self.activations.index(parameters[f"layer{number}.activation"])
                operator = self.operators.index(parameters[f"layer{number}.operator"])
                layers.append(self.canonical(FusionLayer(features, activation, operator), is_first=number == 1))
            except (KeyError, ValueError, SpaceError):
                return None
        try:
            output = self.outputs.index(parameters["output"]) if depth > 1 else 0
        except (KeyError, ValueError):
            return None
        return Architecture(tuple(layers), output)

    def suggest(self, trial: SupportsSuggest) -> Architecture:
        """Ask a trial for an architecture, with whatever sampler its study has.

        Raises:
            SpaceError: A sampler that does not know the space chose a first layer that takes nothing: such a trial
                cannot be trained.
        """
        parameters: dict[str, Any] = {"depth": trial.suggest_int("depth", 1, self.max_depth)}
        if parameters["depth"] > 1:
            parameters["output"] = trial.suggest_categorical("output", list(self.outputs))
        for number in range(1, parameters["depth"] + 1):
            for modality, names in self._choices.items():
                name = f"layer{number}.{modality}"
                parameters[name] = trial.suggest_categorical(name, list(names))
            for what, names in (("activation", self.activations), ("operator", self.operators)):
                name = f"layer{number}.{what}"
                parameters[name] = trial.suggest_categorical(name, list(names))
        architecture = self.from_parameters(parameters)
        if architecture is None:
            raise SpaceError(f"The trial's parameters name no network, its first layer may take nothing: {parameters}.")
        return architecture
