"""The surrogate pi: an LSTM that reads an architecture layer by layer and predicts its score.

Source: MFAS section 3.2 asks for a recurrent model over the variable-length description; what it is made of is open,
docs/decisions/0006-surrogate.md. Each index is embedded, since the numbers of features and activations have no order.

The forward and the backward pass are written by hand, in buffers that are kept: on so few numbers torch's LSTM under
autograd takes two to three times as long (docs/decisions/0014-cost-of-the-surrogate.md).

Shapes: N architectures, the deepest first; n_l of them have a layer l, the first n_l; R = n_0 + n_1 + ... layers in
all; V values of all indices; I embeddings of a layer's indices, side by side; E embedding; H hidden; G = 4 H gates:
input, forget, output, then what is to be stored. Architectures and layers lie along the last axis.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.threads import one_thread

EMBEDDING = 8
HIDDEN = 64
LEARNING_RATE = 1e-2
EPOCHS = 60
"""Steps of Adam on a batch of everything, when there are few enough scores for one."""
ROWS_AT_ONCE = 300
"""Of more scores than this, batches are made that take turns, each with a part of them."""
STEPS_A_FURTHER_BATCH = 4
FITS_KEPT = 100
_fits: dict[bytes, Tensor] = {}  # The weights after an update, by all that led to them.
_fits_lock = threading.Lock()


class Surrogate:
    """Predicts scores of architectures of any depth; starts from weights drawn with its own seed.

    Attributes:
        flat: All weights, (P,); `gradient` writes the loss by them to `flat_gradient`.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        bounded: bool,
        dtype: torch.dtype = torch.float32,
        prior_V: NDArray[np.float64] | None = None,
    ) -> None:
        """Draw the weights.

        Args:
            space: The space whose architectures are read.
            seed: Seed of the initial weights.
            bounded: Whether predictions are accuracies within [0, 1] (a sigmoid ends the network) or any number.
            dtype: Of the weights.
            prior_V: What is known of each value beforehand (`Prior.values`): the first number of its embedding.
        """
        self.space = space
        self._bounded = bounded
        self._radices = space.layer_radices
        self._first_values = [sum(self._radices[:position]) for position in range(len(self._radices))]
        n_values, n_inputs = sum(self._radices), EMBEDDING * len(self._radices)
        shapes = [
            (n_values, EMBEDDING),
            (4 * HIDDEN, n_inputs),
            (4 * HIDDEN, HIDDEN),
            (1, HIDDEN),
            (4 * HIDDEN, 1),
            (1,),
        ]
        sizes = [math.prod(shape) for shape in shapes]
        self.flat, self.flat_gradient = torch.zeros(2, sum(sizes), dtype=dtype).unbind()
        weights, gradients = (
            [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
            for flat in (self.flat, self.flat_gradient)
        )
        self._embedding_VE, self._input_GI, self._state_GH, self._head_1H, self._bias_G1, self._head_bias_1 = weights
        (
            self._d_embedding_VE,
            self._d_input_GI,
            self._d_state_GH,
            self._d_head_1H,
            self._d_bias_G1,
            self._d_head_bias_1,
        ) = gradients
        self._history = repr((space.digest, seed, bounded, dtype)).encode()
        if prior_V is not None:
            self._history += prior_V.tobytes()
        generator = torch.Generator().manual_seed(seed)
        self._embedding_VE.normal_(generator=generator)
        if prior_V is not None:
            self._embedding_VE[:, 0] = torch.from_numpy(prior_V)
        for matrix in (self._input_GI, self._state_GH, self._head_1H):
            bound = matrix.shape[1] ** -0.5
            matrix.uniform_(-bound, bound, generator=generator)
        # Each value belongs to one index, whose embedding has its own part of I.
        self._own_VI = torch.block_diag(*(torch.ones(radix, EMBEDDING, dtype=dtype) for radix in self._radices))

    def update(self, architectures: Sequence[Architecture], scores_N: NDArray[np.float64]) -> None:
        """Fit the network further to the given scores by squared error (line 16 and 26).

        Mode paper repeats the updates of all earlier steps before each plan. So the weights after the latest updates
        are kept in this process, and taken from there when the same updates of the same surrogate come again.
        """
        told = (
            EPOCHS,
            [(architecture.layers, architecture.output) for architecture in architectures],
        )
        self._history = hashlib.blake2b(self._history + repr(told).encode() + scores_N.tobytes()).digest()
        with _fits_lock:
            known = _fits.get(self._history)
        if known is None:
            with one_thread():
                self._fit(architectures, scores_N)
            with _fits_lock:
                _fits[self._history] = self.flat.clone()
                while len(_fits) > FITS_KEPT:
                    del _fits[next(iter(_fits))]
        else:
            self.flat.copy_(known)

    @torch.no_grad()
    def _fit(self, architectures: Sequence[Architecture], scores_N: NDArray[np.float64]) -> None:
        n = len(architectures)
        n_batches = -(-n // ROWS_AT_ONCE)
        # Not from a generator that draws on: its state would depend on which updates were known.
        generator = torch.Generator().manual_seed(int.from_bytes(self._history[:7], "big"))
        order_N = torch.randperm(n, generator=generator).tolist()
        batches = []
        for first in range(n_batches):
            rows = order_N[first::n_batches]
            batch = Batch(self, [architectures[row] for row in rows])
            batches.append((batch, torch.as_tensor(scores_N[rows], dtype=self.flat.dtype)[batch.order_N]))
        means, squares, n_steps = torch.zeros_like(self.flat), torch.zeros_like(self.flat), torch.zeros(())
        for step in range(EPOCHS + STEPS_A_FURTHER_BATCH * (n_batches - 1)):
            self.gradient(*batches[step % n_batches])
            adam(
                [self.flat], [self.flat_gradient], [means], [squares], [], [n_steps], fused=True, amsgrad=False,
                beta1=0.9, beta2=0.999, lr=LEARNING_RATE, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip

    @torch.no_grad()
    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return the predicted score of every architecture, (N,), in one call (line 19)."""
        with one_thread():
            batch = Batch(self, architectures)
            scores_N = torch.empty(len(architectures), dtype=torch.float64)
            scores_N[batch.order_N] = self._forward(batch).double()
        return scores_N.numpy()

    def _forward(self, batch: Batch) -> Tensor:
        """Return one prediction an architecture, (N,), in the order of the batch."""
        torch.mul(self._embedding_VE.repeat(1, len(self._radices)), self._own_VI, out=batch.spread_VI)
        torch.mm(self._input_GI, batch.spread_VI.t(), out=batch.table_GV)
        torch.mm(batch.table_GV, batch.values_VR, out=batch.gates_GR)
        batch.gates_GR.add_(self._bias_G1)
        for layer in batch.layers:
            if layer.below is not None:
                layer.gates.all.addmm_(self._state_GH, layer.below.h[:, : layer.n])
            layer.gates.sigmoids.sigmoid_()
            _tanh(layer.gates.to_store)
            torch.mul(layer.gates.input, layer.gates.to_store, out=layer.stored)
            if layer.below is not None:
                layer.stored.addcmul_(layer.gates.forget, layer.below.stored[:, : layer.n])
            _tanh(layer.shown.copy_(layer.stored))
            torch.mul(layer.gates.output, layer.shown, out=layer.h)
            batch.last_HN[:, layer.n_above : layer.n].copy_(layer.h[:, layer.n_above :])
        logits_N = torch.addmm(self._head_bias_1[:, None], self._head_1H, batch.last_HN)[0]
        return logits_N.sigmoid() if self._bounded else logits_N

    def gradient(self, batch: Batch, targets_N: Tensor) -> None:
        """Set `flat_gradient` to that of the mean squared error, targets in the order of the batch."""
        predicted_N = self._forward(batch)
        d_logits_1N = (predicted_N - targets_N).mul_(2 / len(targets_N))[None]
        if self._bounded:
            d_logits_1N *= predicted_N * (1 - predicted_N)
        torch.mm(d_logits_1N, batch.last_HN.t(), out=self._d_head_1H)
        torch.sum(d_logits_1N, dim=1, out=self._d_head_bias_1)
        # By h and by what is stored, of the layer that the loop is at; of architectures that end there only the head.
        torch.mul(self._head_1H.t(), d_logits_1N, out=batch.d_h_HN)
        batch.d_stored_HN.zero_()
        self._d_state_GH.zero_()
        for layer in reversed(batch.layers):
            d_h, d_stored = batch.d_h_HN[:, : layer.n], batch.d_stored_HN[:, : layer.n]
            torch.mul(d_h, layer.shown, out=layer.d_gates.output)
            torch.mul(d_h, layer.gates.output, out=layer.d_gates.to_store)
            d_stored.add_(_times_tanh_slope(layer.d_gates.to_store, layer.shown))
            torch.mul(d_stored, layer.gates.to_store, out=layer.d_gates.input)
            if layer.below is None:
                layer.d_gates.forget.zero_()
            else:
                torch.mul(d_stored, layer.below.stored[:, : layer.n], out=layer.d_gates.forget)
            torch.mul(d_stored, layer.gates.input, out=layer.d_gates.to_store)
            _times_tanh_slope(layer.d_gates.to_store, layer.gates.to_store)
            _times_sigmoid_slope(layer.d_gates.sigmoids, layer.gates.sigmoids)
            if layer.below is not None:
                d_stored.mul_(layer.gates.forget)
                self._d_state_GH.addmm_(layer.d_gates.all, layer.below.h[:, : layer.n].t())
                torch.mm(self._state_GH.t(), layer.d_gates.all, out=d_h)
        torch.sum(batch.d_gates_GR, dim=1, keepdim=True, out=self._d_bias_G1)
        torch.mm(batch.d_gates_GR, batch.values_VR.t(), out=batch.table_GV)
        torch.mm(batch.table_GV, batch.spread_VI, out=self._d_input_GI)
        d_spread_VI = torch.mm(batch.table_GV.t(), self._input_GI).mul_(self._own_VI)
        torch.sum(d_spread_VI.view(-1, len(self._radices), EMBEDDING), dim=1, out=self._d_embedding_VE)


class _Gates:
    """The gates of a layer, `all` (G, n_l), and its parts."""

    def __init__(self, all_gates: Tensor) -> None:
        self.all = all_gates
        self.sigmoids = all_gates[: 3 * HIDDEN]
        self.input, self.forget, self.output, self.to_store = all_gates.split(HIDDEN)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's parts of the buffers.

    Attributes:
        n: n_l.
        n_above: n_(l+1).
        below: The layer before; None at the first.
        gates: Its gates, their activations applied.
        stored: The cell's state, (H, n_l).
        shown: tanh of it.
        h: What the layer above reads.
        d_gates: The loss by the gates, before the activations in the end.
    """

    n: int
    n_above: int
    below: _Layer | None
    gates: _Gates
    stored: Tensor
    shown: Tensor
    h: Tensor
    d_gates: _Gates


class Batch:
    """Architectures as the surrogate reads them, and the buffers that it computes them in.

    Attributes:
        order_N: Their positions among those that were given; the deepest come first.
        values_VR: 1 where a layer has a value, one layer after the other.
    """

    def __init__(self, surrogate: Surrogate, architectures: Sequence[Architecture]) -> None:
        order = sorted(range(len(architectures)), key=lambda position: -architectures[position].depth)
        depths = [architectures[position].depth for position in order]
        counts = [sum(depth > layer for depth in depths) for layer in range(depths[0])]
        described = [surrogate.space.layer_values(architectures[position]) for position in order]
        values = [of_layers[number] for number, n in enumerate(counts) for of_layers in described[:n]]
        like = surrogate.flat
        n_values, n_inputs = surrogate._own_VI.shape
        n_gates, n_layers, n_all = 4 * HIDDEN, len(values), len(order)
        self.order_N = torch.tensor(order)
        self.values_VR = like.new_zeros(n_values, n_layers)
        rows_RI = torch.tensor(values) + torch.tensor(surrogate._first_values)
        self.values_VR[rows_RI, torch.arange(n_layers)[:, None]] = 1.0
        self.spread_VI = like.new_empty(n_values, n_inputs)
        self.table_GV = like.new_empty(n_gates, n_values)
        self.gates_GR, self.d_gates_GR = like.new_empty(2, n_gates, n_layers).unbind()
        stored_HR, shown_HR, h_HR = like.new_empty(3, HIDDEN, n_layers).unbind()
        self.last_HN, self.d_h_HN, self.d_stored_HN = like.new_empty(3, HIDDEN, n_all).unbind()
        self.layers: list[_Layer] = []
        start = 0
        for n, n_above in zip(counts, [*counts[1:], 0], strict=True):
            here = slice(start, start + n)
            gates, d_gates = self.gates_GR[:, here], self.d_gates_GR[:, here]
            below = self.layers[-1] if self.layers else None
            stored, shown, h = (of_all_HR[:, here] for of_all_HR in (stored_HR, shown_HR, h_HR))
            self.layers.append(_Layer(n, n_above, below, _Gates(gates), stored, shown, h, _Gates(d_gates)))
            start += n


def _tanh(x: Tensor) -> None:
    """Take tanh in place, as 2 sigmoid(2 x) - 1: torch's own takes six times as long as its sigmoid."""
    x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


def _times_sigmoid_slope(d: Tensor, value: Tensor) -> Tensor:
    """Multiply d in place by the slope of the sigmoid where it has this value: one pass, by autograd's own function."""
    return torch.ops.aten.sigmoid_backward.grad_input(d, value, grad_input=d)  # type: ignore[no-any-return]


def _times_tanh_slope(d: Tensor, value: Tensor) -> Tensor:
    """Likewise of tanh."""
    return torch.ops.aten.tanh_backward.grad_input(d, value, grad_input=d)  # type: ignore[no-any-return]
