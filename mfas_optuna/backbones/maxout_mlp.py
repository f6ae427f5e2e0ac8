"""An MLP of maxout layers, for vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class Maxout(nn.Module):
    """Batch norm, dropout, and the maximum of several linear pieces.

    Source: Goodfellow et al., "Maxout networks", 2013, section 3.
    """

    def __init__(self, in_features: int, out_features: int, pieces: int, dropout: float) -> None:
        """Make a layer of `out_features` units, each the maximum of `pieces` linear functions."""
        super().__init__()
        self.norm = nn.BatchNorm1d(in_features)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, out_features * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_features) for (batch, in_features)."""
        pieces: Tensor = self.linear(self.dropout(self.norm(x))).unflatten(1, (-1, self.pieces))
        return pieces.amax(dim=2)


class MaxoutMlp(nn.Module):
    """Maxout layers `maxout1`, `maxout2`, ... and a linear one, each after batch norm and dropout.

    Source: MFAS section 4, MM-IMDB, "Maxout MLP"; layers as the code of Arevalo et al., "Gated Multimodal Units", 2017,
    has them.
    """

    head_name: ClassVar[str] = "head"
    """The layer that other weights may have in another shape."""

    def __init__(self, in_features: int, n_outputs: int, *, hidden: Sequence[int], pieces: int, dropout: float) -> None:
        """Make a network of len(hidden) maxout layers.

        Args:
            in_features: Width of the vectors.
            n_outputs: Width of the output.
            hidden: Width of each maxout layer.
            pieces: Linear pieces whose maximum is taken.
            dropout: Probability of dropping an input of a layer.
        """
        super().__init__()
        widths = [in_features, *hidden]
        self.layers = tuple(f"maxout{index}" for index in range(1, len(widths)))
        for name, (before, after) in zip(self.layers, itertools.pairwise(widths), strict=True):
            self.add_module(name, Maxout(before, after, pieces, dropout))
        self.norm = nn.BatchNorm1d(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, n_outputs) for vectors (batch, in_features)."""
        for name in self.layers:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.head(self.dropout(self.norm(x)))
        return logits
