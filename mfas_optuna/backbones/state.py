"""Filling a network from a state dict, or saying everything that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mfas_optuna.errors import WeightsError


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], head: str) -> list[str]:
    """Load a state dict; a head that it has in another shape, or not at all, keeps its values.

    Args:
        model: Filled in place.
        tensors: A state dict.
        head: Dotted name of the layer that gives the output; empty when there is none that may differ.

    Returns:
        Keys of the head that keep their values.

    Raises:
        WeightsError: Anything else is missing, unexpected or of another shape; all of it is listed.
    """
    own = model.state_dict()
    head_keys = [key for key in own if head and key.startswith(f"{head}.")]
    fits = all(key in tensors and tensors[key].shape == own[key].shape for key in head_keys)
    left_out = [] if fits else head_keys
    wanted = [key for key in own if key not in left_out]
    # Old files lack these counts, which matter only for averages without momentum.
    missing = [key for key in wanted if key not in tensors and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in tensors if key not in own]
    misshapen = [
        f"{key} (expected {tuple(own[key].shape)}, found {tuple(tensors[key].shape)})"
        for key in wanted
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    problems = [
        *_listed("missing", missing),
        *_listed("unexpected", unexpected),
        *_listed("of another shape", misshapen),
    ]
    if problems:
        raise WeightsError(
            f"expected the weights of {type(model).__name__}, found other ones. Give those of this network, or change "
            "its settings.\n" + "\n".join(problems),
            problems,
        )
    model.load_state_dict({**own, **{key: tensors[key] for key in wanted if key in tensors}})
    return left_out


def _listed(what: str, keys: Iterable[str]) -> list[str]:
    listed = ", ".join(keys)
    return [f"{what}: {listed}"] if listed else []
