"""Reading the outputs of named submodules of any network, without changing it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
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


Keep = Callable[[Tap, Tensor], Tensor]
"""Makes of an output what is kept of it; the result must not share memory with the output."""


def _copy(tap: Tap, output: Tensor) -> Tensor:
    # A later in-place activation (ReLU(inplace=True)) would change what the tap saw.
    return output.clone()


@contextlib.contextmanager
def tapped(
    model: nn.Module, taps: Sequence[Tap], keep: Keep = _copy
) -> Iterator[Callable[[Tensor], tuple[Tensor, list[Tensor]]]]:
    """Give a function that runs the network once and returns its output and what is kept of the tapped outputs.

    The modules are found and hooked once for all calls. The network is as before afterwards, also when it raises.

    Args:
        model: Any network of one input.
        taps: What to read, in the order of the results.
        keep: Called with each tapped output as soon as the module has run; pooling there costs less than a copy, and
            the output is still in the processor's cache.

    Raises:
        TapError: A tapped module does not exist; or, at a call, ran not exactly once, or returned something else than
            a tensor; or the network itself did.
    """
    submodules = [_submodule(model, tap) for tap in taps]
    kept: list[list[Any]] = [[] for _ in taps]

    def forward(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        for of_tap in kept:
            of_tap.clear()
        result = model(x)
        if not isinstance(result, Tensor):
            raise TapError(f"{type(model).__name__}: expected a tensor as its output, found {type(result).__name__}.")
        return result, [_only_tensor(tap, of_tap) for tap, of_tap in zip(taps, kept, strict=True)]

    handles = []
    try:
        for module, tap, of_tap in zip(submodules, taps, kept, strict=True):
            handles.append(module.register_forward_hook(_recorder(tap, keep, of_tap)))
        yield forward
    finally:
        for handle in handles:
            handle.remove()


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
    with tapped(model, taps) as forward:
        return forward(x)


def _submodule(model: nn.Module, tap: Tap) -> nn.Module:
    names = [name for name, _ in model.named_modules() if name]
    if tap.module in names:
        return model.get_submodule(tap.module)
    near = difflib.get_close_matches(tap.module, names, n=3, cutoff=0.4) or names[:10]
    raise TapError(
        f"Feature {tap.name!r}: {type(model).__name__} has no submodule {tap.module!r}. "
        + (f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else "It has no submodules.")
    )


def _recorder(tap: Tap, keep: Keep, kept: list[Any]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # The second output of a module that runs twice is refused; nothing of it is needed but that there is one.
        is_kept = isinstance(output, Tensor) and not kept
        kept.append(keep(tap, output) if is_kept else output)

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
