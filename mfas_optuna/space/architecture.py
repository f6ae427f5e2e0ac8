"""What an architecture is: its fusion layers, and what its head reads.

Indices are 0-based except in the paper's notation, which is 1-based; what they count in, a space says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from mfas_optuna.errors import SpaceError

SpaceKind = Literal["extended", "paper"]
"""What a search may choose: simple ways to fuse and their combinations, or the paper's networks alone."""
OPERATOR_NAMES = ("concatenation", "towers", "supervised_towers", "product", "gate")
"""How a fusion layer joins the parts that it reads: the chosen features of each modality and h of the layer below.

With W_p and b_p of part x_p and t_p = sigma(W_p x_p + b_p): `concatenation` is sigma(sum of W_p x_p + b), eq. 1;
`towers` all t_p side by side; `supervised_towers` the same, where each tower's share of the outputs has a loss of its
own besides; `product` the product of all t_p, element by element (Hadamard); `gate` the sum of all t_p, weighted by a
softmax over parts of gates that read all parts.
"""
OUTPUT_NAMES = ("last", "all")
"""What the head reads: h of the last layer, as in the paper, or of all layers side by side (dense connections)."""


class LayerRecord(NamedTuple):
    """A fusion layer of a stored head.

    Attributes:
        features: What it takes of each modality, by names; modalities of which it takes nothing are missing.
        activation: Name of sigma.
        operator: Name of the operator.
    """

    features: dict[str, tuple[str, ...]]
    activation: str
    operator: str


def read_layer(record: Mapping[str, Any]) -> LayerRecord:
    """Read a stored layer; those from before there were operators name one feature of each modality."""
    features = {
        modality: (names,) if isinstance(names, str) else tuple(names)
        for modality, names in record["features"].items()
        if names
    }
    return LayerRecord(features, record["activation"], record.get("operator", OPERATOR_NAMES[0]))


def describe_layer(read: Sequence[str], activation: str, operator: str = OPERATOR_NAMES[0]) -> str:
    """Return what a fusion layer reads and does, for people.

    Args:
        read: What it reads, in words.
        activation: Name of sigma.
        operator: Name of the operator; concatenation, the paper's way, goes without saying.
    """
    reads = " + ".join(read)
    if operator == OPERATOR_NAMES[0]:
        return f"{reads} -> {activation}"
    return f"{reads} -> {operator.replace('_', ' ')}, {activation}"


_LAYER = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, order=True, slots=True)
class FusionLayer:
    """One fusion layer, gamma_l of the paper, as 0-based indices.

    Attributes:
        features: The chosen feature of each modality, in the space's order of modalities.
        activation: Index into the space's activations.
        operator: Index into the space's operators; 0, concatenation, is the paper's.
    """

    features: tuple[int, ...]
    activation: int
    operator: int = 0


@dataclass(frozen=True, order=True, slots=True)
class Architecture:
    """A fusion network: its layers from the first (nearest the inputs) to the last (below the head).

    Attributes:
        layers: The fusion layers.
        output: Index into what the head may read, by the space; 0, the last layer, is the paper's, and the only one of
            networks with one layer.
    """

    layers: tuple[FusionLayer, ...]
    output: int = 0

    def __post_init__(self) -> None:
        if not self.layers:
            raise SpaceError("An architecture needs at least one fusion layer, found none.")

    @property
    def depth(self) -> int:
        """Number of fusion layers, 1 to L."""
        return len(self.layers)

    @property
    def parent(self) -> Architecture | None:
        """The architecture without its last layer; None at depth 1."""
        if self.depth == 1:
            return None
        return Architecture(self.layers[:-1], self.output if self.depth > 2 else 0)

    def extended(self, layer: FusionLayer) -> Architecture:
        """Return this architecture with one more layer on top (addLayer of Algorithm 1)."""
        return replace(self, layers=(*self.layers, layer))

    def paper_notation(self) -> str:
        """Return the paper's 1-based notation, such as `[(3,3,2),(5,2,1)]`."""
        rows = (",".join(str(index + 1) for index in (*layer.features, layer.activation)) for layer in self.layers)
        return "[" + ",".join(f"({row})" for row in rows) + "]"

    @staticmethod
    def from_paper_notation(text: str) -> Architecture:
        """Read the paper's notation; spaces do not matter.

        Raises:
            SpaceError: The text is not a list of tuples of positive whole numbers.
        """
        compact = re.sub(r"\s+", "", text)
        groups = _LAYER.findall(compact)
        if not groups or "[" + ",".join(f"({group})" for group in groups) + "]" != compact:
            raise SpaceError(f"Expected a notation like [(3,3,2),(5,2,1)], found {text!r}.")
        layers = []
        for group in groups:
            parts = group.split(",")
            if len(parts) < 2 or not all(part.isascii() and part.isdigit() and int(part) >= 1 for part in parts):
                raise SpaceError(f"Expected whole numbers from 1 in each tuple, found ({group}) in {text!r}.")
            *features, activation = (int(part) - 1 for part in parts)
            layers.append(FusionLayer(tuple(features), activation))
        return Architecture(tuple(layers))
