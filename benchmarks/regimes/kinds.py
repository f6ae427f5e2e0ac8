"""What kind of fusion a stored head is, in few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kind_of_fusion(head: Mapping[str, Any]) -> str:
    """Return the kind of a head, from its record: for a network of the paper's space its depth."""
    if head["kind"] == "network":
        return f"concatenation, depth {len(head['layers'])}"
    return str(head["kind"])
