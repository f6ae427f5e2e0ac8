"""Reading the outputs of named submodules of any network, without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mfas_optuna.errors import TapError


@dataclass(frozen=True)
class Tap:
    """A place in a network that a feature is read from.

    Attributes:
        name: Name of the feature.
        module: Dotted path of the submodule whose output it is.
        channel_axis: Axis of the output that holds the channels; -1 for transformers.
    """

    name: str
    module: str
    channel_axis: int = 1


def tapped_forward(model: nn.Module, taps: Sequence[Tap], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run the network once and return its output and the tapped outputs, in the order of the taps.

    The network is as before afterwards, also when it raises.

    Args:
        model: Any network of one input.
        taps: What to read.
        x: The input.

    Raises:
        TapError: A tapped module does not exist, ran not exactly once, or returned something else than a tensor; or
            the network itself did.
    """
    submodules = [_submodule(model, tap) for tap in taps]
    outputs: list[list[Any]] = [[] for _ in taps]
    handles = []
    try:
        for module, output in zip(submodules, outputs, strict=True):
            handles.append(module.register_forward_hook(_recorder(output)))
        result = model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(result, Tensor):
        raise TapError(f"{type(model).__name__}: expected a tensor as its output, found {type(result).__name__}.")
    return result, [_only_tensor(tap, output) for tap, output in zip(taps, outputs, strict=True)]


def _submodule(model: nn.Module, tap: Tap) -> nn.Module:
    names = [name for name, _ in model.named_modules() if name]
    if tap.module in names:
        return model.get_submodule(tap.module)
    near = difflib.get_close_matches(tap.module, names, n=3, cutoff=0.4) or names[:10]
    raise TapError(
        f"Feature {tap.name!r}: {type(model).__name__} has no submodule {tap.module!r}. "
        + (f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else "It has no submodules.")
    )


def _recorder(outputs: list[Any]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # A later in-place activation (ReLU(inplace=True)) would change what the tap saw.
        outputs.append(output.clone() if isinstance(output, Tensor) else output)

    return record


def _only_tensor(tap: Tap, outputs: list[Any]) -> Tensor:
    where = f"Feature {tap.name!r}: submodule {tap.module!r}"
    if len(outputs) != 1:
        raise TapError(
            f"{where} ran {len(outputs)} times in one forward pass, expected once. Tap a module that runs exactly once."
        )
    if not isinstance(outputs[0], Tensor):
        raise TapError(
            f"{where} returned {type(outputs[0]).__name__}, expected a tensor. Tap a module inside of it or after it."
        )
    return outputs[0]
