"""Which layers share weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightKey:
    """W_l is shared between layers of equal key: the same layer, the same size.

    Source: MFAS section 3.2, weight sharing of fusion layers; docs/decisions/0004-weight-key.md.

    Attributes:
        layer_index: 0-based layer.
        in_features: Columns of W_l.
        out_features: Rows of W_l.
        activation: Name of the layer's activation where sharing is limited to it; None as in the paper.
        joined: How the layer joins parts of which widths, such as `product(128+32)`; None for concatenation, whose
            parts are columns of one matrix.
    """

    layer_index: int
    in_features: int
    out_features: int
    activation: str | None = None
    joined: str | None = None

    def as_text(self) -> str:
        """Return the key as `layer:in:out`, then `:activation` and `/joined` where it has such."""
        parts = (self.layer_index, self.in_features, self.out_features, self.activation)
        ending = "" if self.joined is None else f"/{self.joined}"
        return ":".join(str(part) for part in parts if part is not None) + ending

    @staticmethod
    def from_text(text: str) -> WeightKey:
        """Read what `as_text` wrote.

        Raises:
            ValueError: The text is not a key.
        """
        sizes, _, joined = text.partition("/")
        parts = sizes.split(":")
        if len(parts) not in (3, 4):
            raise ValueError(f"Expected a weight key like 0:48:16, found {text!r}.")
        activation = parts[3] if len(parts) == 4 else None
        return WeightKey(int(parts[0]), int(parts[1]), int(parts[2]), activation, joined or None)
