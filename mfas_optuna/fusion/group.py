"""What a group of fusion networks that are trained at once is, whichever way it computes.

All parameters lie in one flat buffer, so that an optimiser needs one step for the whole group. The networks do not
influence each other: what one becomes does not depend on which others are in the group.

Shapes: B batch, F columns of all features, N networks, C outputs, P parameters of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfas_optuna.fusion.network import FusionNetwork

Reads = Sequence[Sequence[tuple[slice, ...]]]
"""For each layer of a network and each modality, the columns of the features that it takes, in the matrix of all."""


class FusionGroup(ABC):
    """A group of fusion networks that are trained at once on the same batches.

    Attributes:
        networks: The networks.
        flat: Every parameter of the group, (P,), with its gradient in `flat.grad`.
    """

    networks: list[FusionNetwork]
    flat: nn.Parameter

    # Parameters in and out.

    @abstractmethod
    def pack(self, states: Sequence[dict[str, Tensor]]) -> Tensor:
        """Return a vector (P,) in the buffer's layout with the values of a state dict for each network."""

    @abstractmethod
    def unpack(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Return a state dict for each network with copies of the values of a vector (P,) in the buffer's layout."""

    def load(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Set the parameters to those of a state dict for each network."""
        with torch.no_grad():
            self.flat.copy_(self.pack(states))

    def states(self) -> list[dict[str, Tensor]]:
        """Return a state dict for each network, that `FusionNetwork.load_state_dict` takes."""
        return self.unpack(self.flat)

    # Computation.

    @abstractmethod
    def forward(self, rows_BF: Tensor, dropout_generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Return the logits of all networks, (N, C, B); autograd can go through it.

        Args:
            rows_BF: All features of a batch, side by side.
            dropout_generators: A source of masks for each network, on the rows' device, to drop as the networks'
                own dropout says; None to drop nothing.
        """

    @abstractmethod
    def gradient(
        self, rows_BF: Tensor, labels: Tensor, dropout_generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Set `flat.grad` to that of each network's loss, and return these losses, (N,).

        Args:
            rows_BF: All features of a batch, side by side.
            labels: Of the batch, as the loss takes them: (B,) or (B, C).
            dropout_generators: As in `forward`.
        """
