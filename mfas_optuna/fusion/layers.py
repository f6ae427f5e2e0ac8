"""Fusion layers: how each operator joins the parts that a layer reads.

A part is the chosen features of one modality side by side, or h of the layer below.

| operator | h | width of h |
|---|---|---|
| `concatenation` | sigma(W [x_1; ...; x_P] + b), eq. 1 and 2 | H |
| `towers`, `supervised_towers` | [t_1; ...; t_P] | P H |
| `product` | t_1 * ... * t_P, element by element | H |
| `gate` | sum over p of g_p * t_p; g a softmax over p of V [x_1; ...; x_P] + c, for each unit | H |

where t_p = sigma(W_p x_p + b_p). Sources: Hadamard products of projections: Kim et al. 2017; gates: Arevalo et al.
2017, with one softmax over modalities (docs/decisions/0028-baselines.md).

Shapes: B batch, F_p width of part p, P parts, H fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mfas_optuna.errors import FusionShapeError

Sigma = Callable[[Tensor], Tensor]
JOINING = ("towers", "product", "gate")
"""Operators that need two parts at least."""


class Concatenation(nn.Linear):
    """One W for all parts side by side; its state is a linear layer's."""

    def join(self, parts: Sequence[Tensor], sigma: Sigma) -> Tensor:
        """Return h, (B, H)."""
        return sigma(self(parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=1)))


class _Projected(nn.Module):
    """A W_p for each part."""

    def __init__(self, part_widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(columns, width) for columns in part_widths])

    def towers(self, parts: Sequence[Tensor], sigma: Sigma) -> list[Tensor]:
        """Return t_p of each part, (B, H)."""
        return [sigma(linear(part)) for linear, part in zip(self.parts, parts, strict=True)]


class Towers(_Projected):
    """All t_p side by side."""

    def join(self, parts: Sequence[Tensor], sigma: Sigma) -> Tensor:
        """Return h, (B, P H)."""
        return torch.cat(self.towers(parts, sigma), dim=1)


class Product(_Projected):
    """The product of all t_p."""

    def join(self, parts: Sequence[Tensor], sigma: Sigma) -> Tensor:
        """Return h, (B, H)."""
        first, *others = self.towers(parts, sigma)
        for other in others:
            first = first * other
        return first


class Gate(_Projected):
    """The sum of all t_p, weighted by gates that read all parts."""

    def __init__(self, part_widths: Sequence[int], width: int) -> None:
        super().__init__(part_widths, width)
        self.gates = nn.Linear(sum(part_widths), width * len(part_widths))

    def join(self, parts: Sequence[Tensor], sigma: Sigma) -> Tensor:
        """Return h, (B, H)."""
        gates_BPH = self.gates(torch.cat(tuple(parts), dim=1)).unflatten(1, (len(parts), -1)).softmax(dim=1)
        hidden_BH: Tensor = (gates_BPH * torch.stack(self.towers(parts, sigma), dim=1)).sum(dim=1)
        return hidden_BH


FusionLayerModule = Concatenation | Towers | Product | Gate


def build_layer(operator: str, part_widths: Sequence[int], width: int) -> FusionLayerModule:
    """Return an untrained layer.

    Raises:
        FusionShapeError: It reads nothing, or has fewer parts than its operator joins.
    """
    if not part_widths:
        raise FusionShapeError("The first layer reads nothing: expected a feature of one modality at least.")
    if operator in JOINING and len(part_widths) < 2:
        raise FusionShapeError(
            f"Operator {operator!r} joins parts: expected two at least, the layer below counting as one, found "
            f"{len(part_widths)}. Use concatenation, which is the same there."
        )
    if operator == "concatenation":
        return Concatenation(sum(part_widths), width)
    if operator in ("towers", "supervised_towers"):
        return Towers(part_widths, width)
    if operator == "product":
        return Product(part_widths, width)
    if operator == "gate":
        return Gate(part_widths, width)
    raise FusionShapeError(f"Expected an operator of mfas_optuna.space.OPERATOR_NAMES, found {operator!r}.")


def joined_width(operator: str, n_parts: int, width: int) -> int:
    """Return the width of h."""
    return width * n_parts if operator in ("towers", "supervised_towers") else width
