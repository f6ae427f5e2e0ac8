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
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mfas_optuna.errors import SpaceError
from mfas_optuna.space.architecture import OPERATOR_NAMES, OUTPUT_NAMES, Architecture, FusionLayer, SpaceKind
from mfas_optuna.space.paper import SearchSpace

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

    kind: SpaceKind = "extended"
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
                f"{list(self.activations)}, operators {list(self.operators)}, at most {self.max_depth} layers, of "
                "which the first takes a feature at least, and those with but one part to join concatenate."
            )
        return architecture

    # Layers: those that can be first differ from those that have one below.

    def canonical(self, layer: FusionLayer, *, is_first: bool) -> FusionLayer:
        """Return the layer under the one name that it has in this space: one that reads but one part concatenates.

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
    def _layers(self) -> tuple[tuple[FusionLayer, ...], tuple[FusionLayer, ...]]:
        """Layers that have one below, and layers that can be first."""
        named = tuple(super().layers())
        first = tuple(layer for layer in named if layer.features != self._nothing)
        return (
            tuple(layer for layer in named if self.canonical(layer, is_first=False) == layer),
            tuple(layer for layer in first if self.canonical(layer, is_first=True) == layer),
        )

    @functools.cached_property
    def _codes(self) -> tuple[dict[FusionLayer, int], dict[FusionLayer, int]]:
        above, first = ({layer: code for code, layer in enumerate(layers)} for layers in self._layers)
        return above, first

    def layers(self, *, is_first: bool = True) -> Iterator[FusionLayer]:
        """Yield every fusion layer that can be first, or that can have one below, in the order of `layer_code`."""
        yield from self._layers[is_first]

    def n_layers(self, *, is_first: bool = True) -> int:
        """Return the number of `layers`."""
        return len(self._layers[is_first])

    def layer(self, code: int, *, is_first: bool = True) -> FusionLayer:
        """Return one of the `layers` by its number; the inverse of `layer_code`."""
        return self._layers[is_first][code]

    def layer_code(self, layer: FusionLayer, *, is_first: bool = True) -> int:
        """Return the number of one of the `layers`, from 0.

        Raises:
            SpaceError: There is no such layer.
        """
        self._check_layer(layer, is_first=is_first)
        return self._codes[is_first][layer]

    def _check_layer(self, layer: FusionLayer, *, is_first: bool) -> None:
        super()._check_layer(layer, is_first=is_first)
        canonical = self.canonical(layer, is_first=is_first)
        if canonical != layer:
            raise SpaceError(
                f"Operator {self.operators[layer.operator]!r} joins parts, and layer {self._values(layer)} reads but "
                f"one: expected {self.operators[canonical.operator]!r}, which is the same there."
            )
