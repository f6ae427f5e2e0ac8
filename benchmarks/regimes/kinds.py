"""What kind of fusion a stored head is, in few words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any


def kind_of_fusion(head: Mapping[str, Any]) -> str:
    """Return the kind of a head, from its record.

    For a network it is the operators of its layers from the first to the last; equal ones in a row are counted. A layer
    without an operator is of the paper's space and concatenates.
    """
    if head["kind"] != "network":
        return str(head["kind"])
    operators = [str(layer.get("operator", "concatenation")).replace("_", " ") for layer in head["layers"]]
    runs = [(operator, len(list(run))) for operator, run in itertools.groupby(operators)]
    return ", ".join(operator if n == 1 else f"{n} x {operator}" for operator, n in runs)
