"""Networks of any kind and width as one group, which takes one optimiser and one gradient.

What `JointFusion` does for the paper's networks in a few large matrix products, this does for all others network by
network: each is computed by itself, but the columns that layers read are gathered once for all of them, the losses of
all outputs are taken at once by hand, and autograd goes back through all networks in one call.

Shapes: B batch, F columns of all features, N networks, A outputs of all networks (one each, and the auxiliary ones), C
outputs, P parameters of all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.group import FusionGroup, Reads
from mfas_optuna.fusion.losses import Loss, LossByHand
from mfas_optuna.fusion.network import FusionNetwork, HeadOutputs


class MixedFusion(FusionGroup):
    """A group of fusion networks of any kinds and widths.

    Attributes:
        networks: Copies of the networks; their parameters lie in `flat`.
        flat: Every parameter of the group, (P,), with its gradient in `flat.grad`.
    """

    def __init__(
        self,
        networks: Sequence[FusionNetwork],
        reads: Sequence[Reads],
        loss: Loss | None = None,
        *,
        auxiliary_weight: float = 0.0,
    ) -> None:
        """Build the group with the networks' present parameters.

        Args:
            networks: Networks of equal number of outputs, dtype and device.
            reads: What each of them reads.
            loss: What `gradient` is of; None: the cross-entropy of classes.
            auxiliary_weight: Of the mean of a network's auxiliary losses beside that of its output.

        Raises:
            FusionShapeError: No network, or columns that do not fit a network.
        """
        if not networks or len(networks) != len(reads):
            raise FusionShapeError(
                f"Expected networks and what each reads, found {len(networks)} networks, {len(reads)} reads."
            )
        self.networks = [copy.deepcopy(network) for network in networks]
        self._loss = loss or Loss()
        self._auxiliary_weight = auxiliary_weight
        like = networks[0].head.weight
        sizes = [parameter.numel() for network in self.networks for parameter in network.parameters()]
        self.flat = nn.Parameter(torch.zeros(sum(sizes), dtype=like.dtype, device=like.device))
        self.flat.grad = torch.zeros_like(self.flat)
        self._names = [[name for name, _ in network.named_parameters()] for network in self.networks]
        self._shapes = [[parameter.shape for parameter in network.parameters()] for network in self.networks]
        self.load([network.state_dict() for network in networks])
        values, gradients = self._split(self.flat.detach()), self._split(self.flat.grad)
        for network, of_network, of_gradient in zip(self.networks, values, gradients, strict=True):
            for name, parameter in network.named_parameters():
                parameter.data, parameter.grad = of_network[name], of_gradient[name]
        self._gathers: list[slice | Tensor] = []
        known: dict[tuple[tuple[int, int], ...], int] = {}
        # For each network and layer, which of what is gathered it reads: one of all modalities where it concatenates.
        self._parts: list[list[list[int] | int]] = []
        for network, of_reads in zip(self.networks, reads, strict=True):
            taken = [[slices for slices in of_layer if slices] for of_layer in of_reads]
            widths = [[sum(each.stop - each.start for each in slices) for slices in of_layer] for of_layer in taken]
            if widths != network.part_widths:
                raise FusionShapeError(f"Expected columns of widths {network.part_widths}, found {widths}.")
            self._parts.append([
                self._gathered([each for slices in of_layer for each in slices], known)
                if operator == "concatenation" and of_layer
                else [self._gathered(slices, known) for slices in of_layer]
                for operator, of_layer in zip(network.operators, taken, strict=True)
            ])  # fmt: skip
        self._losses: dict[int, tuple[Tensor, LossByHand, Tensor, Tensor]] = {}  # By the number of samples.

    def _gathered(self, slices: Sequence[slice], known: dict[tuple[tuple[int, int], ...], int]) -> int:
        spans = _merged(slices)
        if spans not in known:
            known[spans] = len(self._gathers)
            if len(spans) == 1:
                self._gathers.append(slice(*spans[0]))
            else:
                columns = torch.cat([torch.arange(*span) for span in spans])
                self._gathers.append(columns.to(self.flat.device))
        return known[spans]

    # Parameters in and out.

    def _split(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Return a network's parts of a vector (P,), as views by the names of its parameters."""
        found, start = [], 0
        for names, shapes in zip(self._names, self._shapes, strict=True):
            of_network = {}
            for name, shape in zip(names, shapes, strict=True):
                of_network[name] = flat[start : start + shape.numel()].view(shape)
                start += shape.numel()
            found.append(of_network)
        return found

    def pack(self, states: Sequence[dict[str, Tensor]]) -> Tensor:
        return torch.cat([
            state[name].detach().flatten() for names, state in zip(self._names, states, strict=True) for name in names
        ])  # fmt: skip

    def unpack(self, flat: Tensor) -> list[dict[str, Tensor]]:
        return [{name: part.clone() for name, part in of_network.items()} for of_network in self._split(flat.detach())]

    # Computation.

    def forward(self, rows_BF: Tensor, dropout_generators: Sequence[torch.Generator] | None = None) -> Tensor:
        outputs = self._outputs(rows_BF, dropout_generators)
        return torch.stack([each.fused_BC.t() for each in outputs])

    def gradient(
        self, rows_BF: Tensor, labels: Tensor, dropout_generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        assert self.flat.grad is not None
        self.flat.grad.zero_()
        outputs = self._outputs(rows_BF, dropout_generators)
        tensors = [each.fused_BC for each in outputs]
        if self._auxiliary_weight > 0:
            tensors += [auxiliary for each in outputs for auxiliary in each.auxiliary]
        n_samples = len(rows_BF)
        if n_samples not in self._losses:
            self._losses[n_samples] = self._prepared(outputs, tensors)
        outputs_ACB, loss, weight_A, owner_A = self._losses[n_samples]
        with torch.no_grad():
            torch.stack([each.t() for each in tensors], out=outputs_ACB)
            losses_A = loss(labels) * weight_A
            d_ACB = loss.d_outputs_NCB * weight_A[:, None, None]
        torch.autograd.backward(tensors, [d_CB.t() for d_CB in d_ACB])
        return losses_A.new_zeros(len(outputs)).index_add_(0, owner_A, losses_A)

    def _prepared(
        self, outputs: Sequence[HeadOutputs], tensors: Sequence[Tensor]
    ) -> tuple[Tensor, LossByHand, Tensor, Tensor]:
        """Return a buffer for all outputs, their loss, and the weight and the network of each, (A,)."""
        n_auxiliary = [len(each.auxiliary) for each in outputs] if len(tensors) > len(outputs) else []
        weights = [1.0] * len(outputs) + [self._auxiliary_weight / n for n in n_auxiliary for _ in range(n)]
        owners = [*range(len(outputs)), *(number for number, n in enumerate(n_auxiliary) for _ in range(n))]
        n_samples, n_outputs = tensors[0].shape
        buffer = tensors[0].new_empty(len(tensors), n_outputs, n_samples)
        owner_A = torch.tensor(owners, device=buffer.device)
        return buffer, self._loss.by_hand(buffer), buffer.new_tensor(weights), owner_A

    def _outputs(self, rows_BF: Tensor, generators: Sequence[torch.Generator] | None) -> list[HeadOutputs]:
        gathered = [
            rows_BF[:, columns] if isinstance(columns, slice) else rows_BF.index_select(1, columns)
            for columns in self._gathers
        ]
        found = []
        for number, (network, of_layers) in enumerate(zip(self.networks, self._parts, strict=True)):
            network.train(generators is not None)
            features = [
                gathered[of_layer] if isinstance(of_layer, int) else [gathered[part] for part in of_layer]
                for of_layer in of_layers
            ]
            found.append(network.outputs(features, None if generators is None else generators[number]))
        return found


def _merged(slices: Sequence[slice]) -> tuple[tuple[int, int], ...]:
    """Return the columns of slices in their order, neighbours as one."""
    spans: list[tuple[int, int]] = []
    for columns in slices:
        if spans and spans[-1][1] == columns.start:
            spans[-1] = (spans[-1][0], columns.stop)
        else:
            spans.append((columns.start, columns.stop))
    return tuple(spans)
