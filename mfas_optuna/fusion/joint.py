"""K fusion networks as one computation, grouped by the feature that their layers read.

A layer's product W_l [x; y; h] is the sum of one product for each feature and one for h. So the weight rows of all
layers of all networks that read the same feature are stacked into one matrix, and a batch needs one matrix product a
feature for the whole group, however many networks there are. Only h and the heads need a batched product.

Slots lie layer by layer, and within a layer by activation, so that an activation is applied to neighbouring slots. The
h of a slot has one reader: the slot above it, or a head. Readers count from the first slot of layer 1, heads last.

Shapes: B batch, F columns of all features, D columns of one feature, M modalities, S slots (a slot is one layer of one
network) and as many readers, N networks, H fusion width, C outputs. Samples lie along the last axis, so that no result
has to be turned. S2 stands for a view in which H and B are one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.activations import ACTIVATIONS, IN_PLACE, InPlace
from mfas_optuna.fusion.group import FusionGroup, Reads
from mfas_optuna.fusion.losses import Loss
from mfas_optuna.fusion.network import FusionNetwork


@dataclass(frozen=True, slots=True)
class _Layer:
    """The slots of one depth: those of all networks that are deep enough.

    Attributes:
        slots: Their positions among all slots.
        above: Their positions among the readers; empty at the first layer, which reads no h.
        below: The slots whose h they read.
        readers: The readers of their own h.
        activations: Each activation with the slots that have it.
    """

    slots: slice
    above: slice
    below: Tensor
    readers: Tensor
    activations: dict[str, slice]


class JointFusion(FusionGroup):
    """A group of the paper's networks, of equal fusion width, in a few large matrix products.

    Attributes:
        networks: The networks, whose own parameters stay as they are until somebody loads `states` into them.
        flat: Every parameter of the group, (P,), with its gradient in `flat.grad`.
    """

    def __init__(self, networks: Sequence[FusionNetwork], reads: Sequence[Reads], loss: Loss | None = None) -> None:
        """Build the group with the networks' present parameters.

        Args:
            networks: Networks of equal fusion width, number of outputs, dtype and device, of any depths.
            reads: What each of them reads.
            loss: What `gradient` is of; None: the cross-entropy of classes.

        Raises:
            FusionShapeError: No network, unequal widths, or columns that do not fit a network's weights.
        """
        _check(networks, reads)
        self.networks = list(networks)
        self._loss = loss or Loss()
        self._width, self._n_outputs = networks[0].head.in_features, networks[0].head.out_features
        n_layers = max(len(of_network) for of_network in reads)
        self._slots = [
            (network, layer)
            for layer in range(n_layers)
            for network in sorted(
                (network for network, of_network in enumerate(reads) if layer < len(of_network)),
                key=lambda network: (networks[network].activations[layer], network),
            )
        ]
        readers: dict[tuple[int, int, int], list[int]] = {}  # For each modality and feature the slots that read it.
        for modality in range(len(reads[0][0])):
            for position, (network, layer) in enumerate(self._slots):
                (columns,) = reads[network][layer][modality]
                readers.setdefault((modality, columns.start, columns.stop), []).append(position)
        self._features = [slice(start, stop) for _, start, stop in readers]
        self._n_readers = [len(slots) for slots in readers.values()]
        shapes = self._shapes()
        self._lay_out(shapes)
        device = self.flat.device
        # The slot that each product is for, modality by modality, and the product for each slot.
        self._readers = torch.tensor([slot for slots in readers.values() for slot in slots], device=device)
        self._readers_MS = list(self._readers.view(-1, len(self._slots)))
        self._products_MS = [readers_S.argsort() for readers_S in self._readers_MS]
        heads = sorted(self._slots.index((network, len(each) - 1)) for network, each in enumerate(reads))
        self._heads_N = torch.tensor(heads, device=device)
        self._networks_N = torch.tensor([self._slots[slot][0] for slot in heads], device=device)
        self._ranks_N = self._networks_N.argsort()  # The head of each network.
        self._layers = self._find_layers(n_layers)
        self._drops = any(network.dropout > 0 for network in networks)
        self._places = self._find_places(shapes)
        self._buffers: dict[tuple[int, bool], _Buffers] = {}
        self.load([network.state_dict() for network in networks])

    # Layout.

    def _shapes(self) -> list[tuple[int, ...]]:
        n_above = sum(layer > 0 for _, layer in self._slots)
        widths = [columns.stop - columns.start for columns in self._features]
        return [
            *((n_slots * self._width, width) for n_slots, width in zip(self._n_readers, widths, strict=True)),
            (len(self._slots), self._width, 1),
            (n_above, self._width, self._width),
            (len(self.networks), self._n_outputs, self._width),
            (len(self.networks), self._n_outputs, 1),
        ]

    def _lay_out(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Make the buffer, and parameters that are parts of it, with gradients that are parts of its gradient."""
        like = self.networks[0].head.weight
        n_parameters = sum(torch.Size(shape).numel() for shape in shapes)
        self.flat = nn.Parameter(torch.zeros(n_parameters, dtype=like.dtype, device=like.device))
        self.flat.grad = torch.zeros_like(self.flat)
        parts, gradients = _split(self.flat.detach(), shapes), _split(self.flat.grad, shapes)
        for part, gradient in zip(parts, gradients, strict=True):
            part.requires_grad_().grad = gradient
        *self._weights, self._bias_SH1, self._above_SHH, self._head_NCH, self._head_bias_NC1 = parts
        *self._d_weights, self._d_bias_SH1, self._d_above_SHH, self._d_head_NCH, self._d_head_bias_NC1 = gradients

    def _find_layers(self, n_layers: int) -> list[_Layer]:
        of_layer = [
            [slot for slot, (_, layer) in enumerate(self._slots) if layer == number] for number in range(n_layers)
        ]
        n_first, n_slots = len(of_layer[0]), len(self._slots)
        slot_of = {slot: position for position, slot in enumerate(self._slots)}
        read = [slot_of[network, layer - 1] for network, layer in self._slots[n_first:]] + self._heads_N.tolist()
        readers_S = torch.tensor(read).argsort()
        self._reads_in_order = read == list(range(n_slots))
        layers = []
        for number, slots in enumerate(of_layer):
            runs: dict[str, slice] = {}
            for slot in slots:
                name = self.networks[self._slots[slot][0]].activations[number]
                runs[name] = slice(runs[name].start if name in runs else slot, slot + 1)
            start, stop = slots[0], slots[-1] + 1
            above = slice(start - n_first, stop - n_first) if number > 0 else slice(0, 0)
            below = torch.tensor(read[above], dtype=torch.int64, device=self.flat.device)
            readers = readers_S[start:stop].to(self.flat.device)
            layers.append(_Layer(slice(start, stop), above, below, readers, runs))
        return layers

    def _find_places(self, shapes: Sequence[tuple[int, ...]]) -> list[dict[str, Tensor]]:
        """Return for each network where the elements of its parameters lie in the buffer, by their names."""
        *weights, bias_SH1, above_SHH, head_NCH, head_bias_NC1 = _split(torch.arange(self.flat.numel()), shapes)
        blocks = [block for weight in weights for block in weight.split(self._width)]  # One a product.
        products_SM = torch.stack(self._products_MS, dim=1).cpu() + torch.arange(0, len(blocks), len(self._slots))
        n_first = self._layers[0].slots.stop  # The slots after these read an h.
        places: list[dict[str, Tensor]] = [{} for _ in self.networks]
        for slot, (network, layer) in enumerate(self._slots):
            rows = [blocks[product] for product in products_SM[slot].tolist()]
            if layer > 0:
                rows.append(above_SHH[slot - n_first])
            places[network][f"layers.{layer}.weight"] = torch.cat(rows, dim=1)
            places[network][f"layers.{layer}.bias"] = bias_SH1[slot].flatten()
        for head, network in enumerate(self._networks_N.tolist()):
            places[network]["head.weight"] = head_NCH[head]
            places[network]["head.bias"] = head_bias_NC1[head].flatten()
        return places

    # Parameters in and out.

    def pack(self, states: Sequence[dict[str, Tensor]]) -> Tensor:
        flat = torch.empty_like(self.flat, requires_grad=False)
        for places, state in zip(self._places, states, strict=True):
            for name, place in places.items():
                flat[place.flatten().to(flat.device)] = state[name].detach().flatten()
        return flat

    def unpack(self, flat: Tensor) -> list[dict[str, Tensor]]:
        return [
            {name: flat.detach()[place.to(flat.device)] for name, place in places.items()} for places in self._places
        ]

    # Computation.

    def forward(self, rows_BF: Tensor, dropout_generators: Sequence[torch.Generator] | None = None) -> Tensor:
        masks_SHB = self._masks(rows_BF, dropout_generators)
        products = torch.cat([
            (weight @ rows_BF[:, columns].t()).view(-1, self._width, len(rows_BF))
            for weight, columns in zip(self._weights, self._features, strict=True)
        ])  # fmt: skip
        sums_SHB = self._bias_SH1
        for of_modality, products_S in zip(products.split(len(self._slots)), self._products_MS, strict=True):
            sums_SHB = sums_SHB + of_modality.index_select(0, products_S)
        hidden: list[Tensor] = []
        for number, layer in enumerate(self._layers):
            z_SHB = sums_SHB[layer.slots]
            if number > 0:
                below = layer.below - self._layers[number - 1].slots.start
                z_SHB = torch.baddbmm(z_SHB, self._above_SHH[layer.above], hidden[-1].index_select(0, below))
            counts = [slots.stop - slots.start for slots in layer.activations.values()]
            runs = zip(layer.activations, z_SHB.split(counts), strict=True)
            h_SHB = torch.cat([ACTIVATIONS[name](run) for name, run in runs])
            hidden.append(h_SHB if masks_SHB is None else h_SHB * masks_SHB[layer.slots])
        last_NHB = torch.cat(hidden).index_select(0, self._heads_N)
        logits_NCB = torch.baddbmm(self._head_bias_NC1, self._head_NCH, last_NHB)
        return logits_NCB.index_select(0, self._ranks_N)

    @torch.no_grad()
    def gradient(
        self, rows_BF: Tensor, labels: Tensor, dropout_generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Set `flat.grad` to that of each network's loss, and return these losses, (N,).

        The same as autograd through `forward` gives, by hand: without its bookkeeping, and in buffers that are kept,
        since fresh pages of memory for every intermediate result cost as much as the arithmetic.
        """
        n_samples = len(rows_BF)
        masks_SHB = self._masks(rows_BF, dropout_generators)
        kind = n_samples, masks_SHB is not None
        if kind not in self._buffers:
            self._buffers[kind] = _Buffers(self, *kind)
        work = self._buffers[kind]

        columns_FB = rows_BF.t()
        for weight, columns, product in zip(self._weights, self._features, work.products, strict=True):
            torch.mm(weight, columns_FB[columns], out=product)
        torch.index_select(work.products_MS2[0], 0, self._products_MS[0], out=work.z_S2)
        for product_S2, readers_S in zip(work.products_MS2[1:], self._readers_MS[1:], strict=True):
            work.z_S2.index_add_(0, readers_S, product_S2)
        work.z_SHB.add_(self._bias_SH1)
        for part in work.layers:
            if part.read_SHB is not None:
                if not self._reads_in_order:
                    torch.index_select(work.hidden_SHB, 0, part.layer.below, out=part.read_SHB)
                part.z_SHB.baddbmm_(part.weight_SHH, part.read_SHB)
            for sigma, z, h, _ in part.runs:
                sigma.apply(z, h)
            if masks_SHB is not None:
                torch.mul(part.h_SHB, masks_SHB[part.layer.slots], out=part.hidden_SHB)
        if not self._reads_in_order:
            torch.index_select(work.hidden_SHB, 0, self._heads_N, out=work.last_NHB)
        torch.baddbmm(self._head_bias_NC1, self._head_NCH, work.last_NHB, out=work.logits_NCB)

        losses_N, d_logits_NCB = work.loss(labels), work.loss.d_outputs_NCB

        torch.bmm(d_logits_NCB, work.last_NHB.transpose(1, 2), out=self._d_head_NCH)
        torch.sum(d_logits_NCB, dim=2, keepdim=True, out=self._d_head_bias_NC1)
        torch.bmm(self._head_NCH.transpose(1, 2), d_logits_NCB, out=work.d_last_NHB)
        for part in reversed(work.layers):
            if not self._reads_in_order:
                torch.index_select(work.d_read_SHB, 0, part.layer.readers, out=part.d_SHB)
            if masks_SHB is not None:
                part.d_SHB.mul_(masks_SHB[part.layer.slots])
            for sigma, z, h, d in part.runs:
                sigma.multiply_by_slope(d, z, h)
            if part.read_SHB is not None:
                torch.bmm(part.d_SHB, part.read_SHB.transpose(1, 2), out=part.d_weight_SHH)
                torch.bmm(part.weight_SHH.transpose(1, 2), part.d_SHB, out=part.d_read_SHB)
        torch.sum(work.d_SHB, dim=2, keepdim=True, out=self._d_bias_SH1)
        torch.index_select(work.d_SHB, 0, self._readers, out=work.products_PHB)
        for d_weight, columns, product in zip(self._d_weights, self._features, work.products, strict=True):
            torch.mm(product, rows_BF[:, columns], out=d_weight)
        return losses_N.index_select(0, self._ranks_N)

    def _masks(self, rows_BF: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor | None:
        """Return what each h is multiplied by, (S, H, B), as each network alone would draw it; None without dropout."""
        if generators is None or not self._drops:
            return None
        masks_SBH = rows_BF.new_ones(len(self._slots), len(rows_BF), self._width)
        keeps = [1.0 - self.networks[network].dropout for network, _ in self._slots]
        for mask_BH, keep, (network, _) in zip(masks_SBH, keeps, self._slots, strict=True):
            if keep < 1.0:
                mask_BH.bernoulli_(keep, generator=generators[network]).div_(keep)
        return masks_SBH.transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class _LayerBuffers:
    """A layer's parts of the buffers, of the weights that are applied to h, and of their gradient.

    Attributes:
        layer: Which.
        z_SHB: What the activations are applied to.
        h_SHB: sigma(z).
        hidden_SHB: The same after dropout.
        d_SHB: The loss by hidden, then by z.
        runs: Each activation with its part of z, h and d.
        read_SHB: The h that the slots read; None at the first layer, as are the following.
        d_read_SHB: The loss by it.
        weight_SHH: What it is multiplied by.
        d_weight_SHH: The loss by that.
    """

    layer: _Layer
    z_SHB: Tensor
    h_SHB: Tensor
    hidden_SHB: Tensor
    d_SHB: Tensor
    runs: list[tuple[InPlace, Tensor, Tensor, Tensor]]
    read_SHB: Tensor | None
    d_read_SHB: Tensor
    weight_SHH: Tensor
    d_weight_SHH: Tensor


class _Buffers:
    """What `gradient` writes to, for one number of samples, cut into the parts that its steps work on."""

    def __init__(self, group: JointFusion, n_samples: int, drops: bool) -> None:
        like = group.flat.detach()
        n_networks, n_modalities, n_slots = len(group.networks), len(group._readers_MS), len(group._slots)

        def slots() -> Tensor:
            return like.new_empty(n_slots, group._width, n_samples)

        self.products_PHB = like.new_empty(n_modalities * n_slots, group._width, n_samples)
        self.products_MS2 = self.products_PHB.view(n_modalities, n_slots, -1).unbind()
        self.products = [part.flatten(0, 1) for part in self.products_PHB.split(group._n_readers)]
        self.z_SHB, h_SHB, self.d_SHB = slots(), slots(), slots()
        self.z_S2 = self.z_SHB.flatten(1)
        self.hidden_SHB = hidden_SHB = slots() if drops else h_SHB
        read_SHB, self.d_read_SHB = (hidden_SHB, self.d_SHB) if group._reads_in_order else (slots(), slots())
        self.last_NHB, self.d_last_NHB = read_SHB[-n_networks:], self.d_read_SHB[-n_networks:]
        self.logits_NCB = like.new_empty(n_networks, group._n_outputs, n_samples)
        self.loss = group._loss.by_hand(self.logits_NCB)
        self.layers = [
            _LayerBuffers(
                layer,
                self.z_SHB[layer.slots],
                h_SHB[layer.slots],
                hidden_SHB[layer.slots],
                self.d_SHB[layer.slots],
                [
                    (IN_PLACE[name], self.z_SHB[slots], h_SHB[slots], self.d_SHB[slots])
                    for name, slots in layer.activations.items()
                ],
                read_SHB[layer.above] if layer is not group._layers[0] else None,
                self.d_read_SHB[layer.above],
                group._above_SHH[layer.above],
                group._d_above_SHH[layer.above],
            )
            for layer in group._layers
        ]


def _split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def _check(networks: Sequence[FusionNetwork], reads: Sequence[Reads]) -> None:
    if not networks or len(networks) != len(reads):
        raise FusionShapeError(
            f"Expected networks and what each reads, found {len(networks)} networks, {len(reads)} reads."
        )
    if not all(is_plain(network, of_network) for network, of_network in zip(networks, reads, strict=True)):
        raise FusionShapeError("Expected networks of the paper's space. Use MixedFusion for others.")
    heads = {(network.head.in_features, network.head.out_features) for network in networks}
    if len(heads) > 1:
        raise FusionShapeError(f"Expected one fusion width and number of outputs, found {sorted(heads)}.")
    for network, of_network in zip(networks, reads, strict=True):
        widths = [[columns.stop - columns.start for (columns,) in columns_of] for columns_of in of_network]
        if widths != network.part_widths:
            raise FusionShapeError(f"Expected columns of widths {network.part_widths}, found {widths}.")


def is_plain(network: FusionNetwork, reads: Reads) -> bool:
    """Return whether a network can be of a joint group: one of the paper, that reads one feature of each modality."""
    return network.is_plain and all(len(columns) == 1 for of_layer in reads for columns in of_layer)
