"""Which weights a layer starts from, by the records of complete trials alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mfas_optuna.errors import BlobError
from mfas_optuna.registry.blobs import BlobStore, decode_layer
from mfas_optuna.registry.key import WeightKey

_log = logging.getLogger(__name__)

Order = tuple[int, int, int]
"""(step, slot, trial number): the highest is the latest, and no clock decides."""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What a trial recorded of one layer.

    Attributes:
        key: Which layers it shares with.
        started_from: Digest of the weights it started from; None for fresh ones.
        published: Digest of the weights it left.
    """

    key: WeightKey
    started_from: str | None
    published: str


def versions(complete: Iterable[tuple[Order, Sequence[LayerRecord]]]) -> dict[WeightKey, list[str]]:
    """Return for each key the published digests, the latest first.

    Args:
        complete: Order and layers of every COMPLETE trial; others do not count.
    """
    found: dict[WeightKey, list[str]] = {}
    for _, layers in sorted(complete, key=lambda item: item[0], reverse=True):
        for layer in layers:
            found.setdefault(layer.key, []).append(layer.published)
    return found


def warm_start(
    layers: Sequence[nn.Module], keys: Sequence[WeightKey], found: Mapping[WeightKey, Sequence[str]], store: BlobStore
) -> list[str | None]:
    """Load the latest readable version of each layer's weights in place; return the digests they start from.

    A version that is missing, damaged, of another shape or not finite is named in a warning and passed over for the
    one before, at last for the fresh weights that the layer has.
    """
    started_from: list[str | None] = []
    for layer, key in zip(layers, keys, strict=True):
        loaded = None
        for digest in found.get(key, ()):
            try:
                state = decode_layer(store.get(digest))
                _check_fits(layer, state, digest)
                layer.load_state_dict(state)
            except BlobError as error:
                _log.warning("Layer %s: %s The version before it is used.", key.as_text(), error)
                continue
            loaded = digest
            break
        started_from.append(loaded)
    return started_from


def _check_fits(layer: nn.Module, state: Mapping[str, Tensor], digest: str) -> None:
    """Make sure that a state can be loaded whole, before any of it is."""
    expected = {name: list(tensor.shape) for name, tensor in layer.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in state.items()}
    if found != expected:
        raise BlobError(digest, f"Weight blob {digest[:12]}: expected tensors {expected}, found {found}.")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise BlobError(digest, f"Weight blob {digest[:12]} has weights that are NaN or infinite.")


def rounds(keys: Sequence[Sequence[WeightKey]]) -> list[list[int]]:
    """Divide networks into rounds that share no weights, so that each round can be trained at once.

    A network joins the first round in which none of its keys belongs to one before it that has yet to be trained or is
    trained in that round. So each starts from the weights that it would start from if all were trained one by one.

    Args:
        keys: The keys of each network's layers, in the order in which they would be trained one by one.

    Returns:
        Indices of the networks of each round, ascending.
    """
    left, divided = list(range(len(keys))), []
    while left:
        seen: set[WeightKey] = set()
        members: list[int] = []
        waiting: list[int] = []
        for index in left:
            (waiting if seen.intersection(keys[index]) else members).append(index)
            seen.update(keys[index])
        divided.append(members)
        left = waiting
    return divided
