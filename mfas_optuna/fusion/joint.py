"""K fusion networks as one computation, grouped by the feature that their layers read.

A layer's product W_l [x; y; h] is the sum of one product for each feature and one for h. So the weight rows of all
layers of all networks that read the same feature are stacked into one matrix, and a batch needs one matrix product a
feature for the whole group, however many networks there are. Only h and the heads need a batched product.

Shapes: B batch, F columns of all features, D columns of one feature, S slots (a slot is one layer of one network), N
networks, H fusion width, C classes. Samples lie along the last axis, so that no result has to be turned.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.activations import ACTIVATIONS, DERIVATIVES
from mfas_optuna.fusion.network import FusionNetwork

Reads = Sequence[Sequence[slice]]
"""For each layer of a network the columns, in the matrix of all features, of the feature of each modality."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """The slots of one depth: those of all networks that are deep enough, in the order of the networks.

    Attributes:
        slots: Their positions among all slots.
        above: Their positions among the slots that read an h; empty at the first layer.
        below: Where the h that each reads lies in the layer before.
        activations: Each activation with the number of slots that have it.
        by_activation: The slots in the order of `activations`.
        back: Undoes `by_activation`.
    """

    slots: slice
    above: slice
    below: Tensor
    activations: list[tuple[str, int]]
    by_activation: Tensor
    back: Tensor


@dataclass(frozen=True, slots=True)
class _Trace:
    """What the backward pass needs of the forward pass; lists have an entry a layer.

    Attributes:
        z_SHB: What the activations were applied to, of all slots.
        below: The h that each slot of the layer reads; at the first layer without meaning.
        activated: sigma(z).
        masks: What each sigma(z) was multiplied by; empty without dropout.
        last_NHB: The h that each head reads.
    """

    z_SHB: Tensor
    below: list[Tensor]
    activated: list[Tensor]
    masks: list[Tensor]
    last_NHB: Tensor


class JointFusion:
    """A group of fusion networks that are trained at once on the same batches.

    All parameters lie in one flat buffer, so that an optimiser needs one step for the whole group. The networks do not
    influence each other: what one becomes does not depend on which others are in the group.

    Attributes:
        networks: The networks, whose own parameters stay as they are until somebody loads `states` into them.
        flat: Every parameter of the group, (P,), with its gradient in `flat.grad`.
    """

    def __init__(self, networks: Sequence[FusionNetwork], reads: Sequence[Reads]) -> None:
        """Build the group with the networks' present parameters.

        Args:
            networks: Networks of equal fusion width, number of classes, dtype and device, of any depths.
            reads: What each of them reads.

        Raises:
            FusionShapeError: No network, unequal widths, or columns that do not fit a network's weights.
        """
        _check(networks, reads)
        self.networks = list(networks)
        self._width, self._n_classes = networks[0].head.in_features, networks[0].head.out_features
        n_layers = max(len(of_network) for of_network in reads)
        self._slots = [
            (index, layer) for layer in range(n_layers) for index, each in enumerate(reads) if layer < len(each)
        ]
        readers: dict[tuple[int, int], list[int]] = {}  # For each feature the slots that read it.
        for position, (network, layer) in enumerate(self._slots):
            for columns in reads[network][layer]:
                readers.setdefault((columns.start, columns.stop), []).append(position)
        self._features = [slice(*columns) for columns in readers]
        shapes = self._shapes([len(positions) for positions in readers.values()])
        self._lay_out(shapes)
        first = dict(zip(readers, itertools.accumulate(map(len, readers.values()), initial=0), strict=False))
        device = self.flat.device
        self._products_MS = torch.tensor(
            [
                [
                    first[columns.start, columns.stop] + readers[columns.start, columns.stop].index(position)
                    for position, (network, layer) in enumerate(self._slots)
                    for columns in [reads[network][layer][modality]]
                ]
                for modality in range(len(reads[0][0]))
            ],
            device=device,
        )
        self._readers = [torch.tensor(positions, device=device) for positions in readers.values()]
        self._layers = [self._layer(layer) for layer in range(n_layers)]
        self._drops = any(network.dropout > 0 for network in networks)
        lasts = [self._slots.index((network, len(each) - 1)) for network, each in enumerate(reads)]
        self._last_N = torch.tensor(lasts, device=device)
        self._places = self._find_places(shapes, reads)
        self.load([network.state_dict() for network in networks])

    # Layout.

    def _shapes(self, n_readers: Sequence[int]) -> list[tuple[int, ...]]:
        n_above = sum(layer > 0 for _, layer in self._slots)
        widths = [columns.stop - columns.start for columns in self._features]
        return [
            *((n_slots * self._width, width) for n_slots, width in zip(n_readers, widths, strict=True)),
            (len(self._slots), self._width, 1),
            (n_above, self._width, self._width),
            (len(self.networks), self._n_classes, self._width),
            (len(self.networks), self._n_classes, 1),
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

    def _layer(self, layer: int) -> _Layer:
        slots = [position for position, slot in enumerate(self._slots) if slot[1] == layer]
        networks = [self._slots[position][0] for position in slots]
        before = [network for network, depth in self._slots if depth == layer - 1]
        n_above = sum(0 < depth < layer for _, depth in self._slots)
        by_activation: dict[str, list[int]] = {}
        for row, network in enumerate(networks):
            by_activation.setdefault(self.networks[network].activations[layer], []).append(row)
        order = [row for rows in by_activation.values() for row in rows]
        device = self.flat.device
        return _Layer(
            slots=slice(slots[0], slots[-1] + 1),
            above=slice(n_above, n_above + len(slots) if layer > 0 else n_above),
            below=torch.tensor([before.index(network) for network in networks] if layer > 0 else [], device=device),
            activations=[(name, len(rows)) for name, rows in by_activation.items()],
            by_activation=torch.tensor(order, device=device),
            back=torch.tensor(order, device=device).argsort(),
        )

    def _find_places(self, shapes: Sequence[tuple[int, ...]], reads: Sequence[Reads]) -> list[dict[str, Tensor]]:
        """Return for each network where the elements of its parameters lie in the buffer, by their names."""
        *weights, bias_SH1, above_SHH, head_NCH, head_bias_NC1 = _split(torch.arange(self.flat.numel()), shapes)
        products = torch.cat([
            torch.arange(len(places) // self._width) for places in weights
        ])  # fmt: skip
        feature_of = {columns.start: index for index, columns in enumerate(self._features)}
        places: list[dict[str, Tensor]] = [{} for _ in self.networks]
        n_above = 0
        for position, (network, layer) in enumerate(self._slots):
            rows = []
            for modality, columns in enumerate(reads[network][layer]):
                row = int(products[self._products_MS[modality, position]]) * self._width
                rows.append(weights[feature_of[columns.start]][row : row + self._width])
            if layer > 0:
                rows.append(above_SHH[n_above])
                n_above += 1
            places[network][f"layers.{layer}.weight"] = torch.cat(rows, dim=1)
            places[network][f"layers.{layer}.bias"] = bias_SH1[position].flatten()
        for network in range(len(self.networks)):
            places[network]["head.weight"] = head_NCH[network]
            places[network]["head.bias"] = head_bias_NC1[network].flatten()
        return places

    # Parameters in and out.

    def pack(self, states: Sequence[dict[str, Tensor]]) -> Tensor:
        """Return a vector (P,) in the buffer's layout with the values of a state dict for each network."""
        flat = torch.empty_like(self.flat, requires_grad=False)
        for places, state in zip(self._places, states, strict=True):
            for name, place in places.items():
                flat[place.flatten().to(flat.device)] = state[name].detach().flatten()
        return flat

    def unpack(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Return a state dict for each network with copies of the values of a vector (P,) in the buffer's layout."""
        return [
            {name: flat.detach()[place.to(flat.device)] for name, place in places.items()} for places in self._places
        ]

    def load(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Set the parameters to those of a state dict for each network."""
        with torch.no_grad():
            self.flat.copy_(self.pack(states))

    def states(self) -> list[dict[str, Tensor]]:
        """Return a state dict for each network, that `FusionNetwork.load_state_dict` takes."""
        return self.unpack(self.flat)

    # Computation.

    def forward(self, rows_BF: Tensor, dropout_generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Return the logits of all networks, (N, C, B).

        Args:
            rows_BF: All features of a batch, side by side.
            dropout_generators: A source of masks for each network, on the rows' device, to drop as the networks'
                own dropout says; None to drop nothing.
        """
        logits_NCB, _ = self._forward(rows_BF, dropout_generators)
        return logits_NCB

    @torch.no_grad()
    def gradient(
        self, rows_BF: Tensor, labels_B: Tensor, dropout_generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Set `flat.grad` to that of each network's mean cross-entropy, and return these losses, (N,).

        The same as autograd through `forward` gives, by hand: without its bookkeeping it takes half the time or less.

        Args:
            rows_BF: All features of a batch, side by side.
            labels_B: Classes.
            dropout_generators: As in `forward`.
        """
        logits_NCB, trace = self._forward(rows_BF, dropout_generators)
        n_samples = len(rows_BF)
        log_p_NCB = logits_NCB.log_softmax(dim=1)
        index_N1B = labels_B.expand(len(self.networks), 1, -1)
        losses_N = -log_p_NCB.gather(1, index_N1B).mean(dim=(1, 2))
        d_logits_NCB = log_p_NCB.exp_()
        d_logits_NCB.scatter_add_(1, index_N1B, d_logits_NCB.new_full((), -1.0).expand(index_N1B.shape))
        d_logits_NCB /= n_samples

        torch.bmm(d_logits_NCB, trace.last_NHB.transpose(1, 2), out=self._d_head_NCH)
        torch.sum(d_logits_NCB, dim=2, keepdim=True, out=self._d_head_bias_NC1)
        d_last_NHB = torch.bmm(self._head_NCH.transpose(1, 2), d_logits_NCB)
        d_hidden_SHB = torch.zeros_like(trace.z_SHB).index_copy_(0, self._last_N, d_last_NHB)
        d_z_SHB = torch.empty_like(trace.z_SHB)
        for number in reversed(range(len(self._layers))):
            layer = self._layers[number]
            d_h_SHB = d_hidden_SHB[layer.slots]
            if trace.masks:
                d_h_SHB = d_h_SHB * trace.masks[number]
            slope_SHB = _slope(trace.z_SHB[layer.slots], trace.activated[number], layer)
            d_SHB = torch.mul(d_h_SHB, slope_SHB, out=d_z_SHB[layer.slots])
            if number > 0:
                h_SHB = trace.below[number]
                torch.bmm(d_SHB, h_SHB.transpose(1, 2), out=self._d_above_SHH[layer.above])
                back_SHB = torch.bmm(self._above_SHH[layer.above].transpose(1, 2), d_SHB)
                d_hidden_SHB[self._layers[number - 1].slots].index_add_(0, layer.below, back_SHB)
        torch.sum(d_z_SHB, dim=2, keepdim=True, out=self._d_bias_SH1)
        for d_weight, columns, readers in zip(self._d_weights, self._features, self._readers, strict=True):
            d_products = d_z_SHB.index_select(0, readers).view(-1, n_samples)
            torch.mm(d_products, rows_BF[:, columns], out=d_weight)
        return losses_N

    def _forward(self, rows_BF: Tensor, dropout_generators: Sequence[torch.Generator] | None) -> tuple[Tensor, _Trace]:
        n_samples = len(rows_BF)
        products = [
            (weight @ rows_BF[:, columns].t()).view(-1, self._width, n_samples)
            for weight, columns in zip(self._weights, self._features, strict=True)
        ]
        stacked = torch.cat(products) if len(products) > 1 else products[0]
        sums_SHB = self._bias_SH1 + stacked.index_select(0, self._products_MS[0])
        for products_S in self._products_MS[1:]:
            sums_SHB = sums_SHB + stacked.index_select(0, products_S)
        z: list[Tensor] = []
        below: list[Tensor] = []
        activated: list[Tensor] = []
        hidden: list[Tensor] = []
        masks: list[Tensor] = []
        for layer in self._layers:
            z_SHB = sums_SHB[layer.slots]
            h_SHB = z_SHB
            if hidden:
                h_SHB = hidden[-1].index_select(0, layer.below)
                z_SHB = torch.baddbmm(z_SHB, self._above_SHH[layer.above], h_SHB)
            z.append(z_SHB)
            below.append(h_SHB)
            activated.append(_activate(z_SHB, layer))
            if dropout_generators is not None and self._drops:
                masks.append(self._masks(z_SHB, layer, dropout_generators))
            hidden.append(activated[-1] * masks[-1] if masks else activated[-1])
        last_NHB = torch.cat(hidden).index_select(0, self._last_N)
        logits_NCB = torch.baddbmm(self._head_bias_NC1, self._head_NCH, last_NHB)
        return logits_NCB, _Trace(torch.cat(z), below, activated, masks, last_NHB)

    def _masks(self, like_SHB: Tensor, layer: _Layer, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the masks that each network would draw alone, divided by what they keep."""
        masks = []
        for network, _ in self._slots[layer.slots]:
            keep = 1.0 - self.networks[network].dropout
            mask_BH = torch.ones_like(like_SHB[0].t(), memory_format=torch.contiguous_format)
            if keep < 1.0:
                mask_BH = mask_BH.bernoulli_(keep, generator=generators[network]) / keep
            masks.append(mask_BH.t())
        return torch.stack(masks)


def _activate(z_SHB: Tensor, layer: _Layer) -> Tensor:
    if len(layer.activations) == 1:
        return ACTIVATIONS[layer.activations[0][0]](z_SHB)
    groups = z_SHB.index_select(0, layer.by_activation).split([count for _, count in layer.activations])
    activated = [ACTIVATIONS[name](group) for (name, _), group in zip(layer.activations, groups, strict=True)]
    return torch.cat(activated).index_select(0, layer.back)


def _slope(z_SHB: Tensor, h_SHB: Tensor, layer: _Layer) -> Tensor:
    """Return sigma'(z) of each slot."""
    if len(layer.activations) == 1:
        return DERIVATIVES[layer.activations[0][0]](z_SHB, h_SHB)
    counts = [count for _, count in layer.activations]
    groups = zip(
        layer.activations,
        z_SHB.index_select(0, layer.by_activation).split(counts),
        h_SHB.index_select(0, layer.by_activation).split(counts),
        strict=True,
    )
    return torch.cat([DERIVATIVES[name](z, h) for (name, _), z, h in groups]).index_select(0, layer.back)


def _split(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def _check(networks: Sequence[FusionNetwork], reads: Sequence[Reads]) -> None:
    if not networks or len(networks) != len(reads):
        raise FusionShapeError(
            f"Expected networks and what each reads, found {len(networks)} networks, {len(reads)} reads."
        )
    heads = {(network.head.in_features, network.head.out_features) for network in networks}
    if len(heads) > 1:
        raise FusionShapeError(f"Expected one fusion width and number of classes, found {sorted(heads)}.")
    for network, of_network in zip(networks, reads, strict=True):
        widths = [sum(columns.stop - columns.start for columns in columns_of) for columns_of in of_network]
        if widths != network.feature_widths:
            raise FusionShapeError(f"Expected columns of widths {network.feature_widths}, found {widths}.")
