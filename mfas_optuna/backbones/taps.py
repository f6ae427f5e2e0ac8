"""Reading the outputs of named submodules of any network, without changing it."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mfas_optuna.errors import TapError


@dataclass(frozen=True)
class Tap:
    """A place in a network that a feature is read from.

    Attributes:
        name: Name of the feature.
        module: Dotted path of the submodule whose output it is; empty: the network itself.
        channel_axis: Axis of the output that holds the channels; -1 for transformers.
    """

    name: str
    module: str
    channel_axis: int = 1


@dataclass(frozen=True)
class TapInfo:
    """A submodule, and whether it can be a feature.

    Attributes:
        module: Its dotted path.
        kind: Name of its class.
        shape: Shape of its output for one sample; None when it cannot be tapped.
        problem: Why it cannot be tapped; empty when it can.
        n_parameters: Number of its weights, with those of what is inside of it.
        channel_axis: Which axis of its output most likely holds the channels: 1, or -1 for transformers.
        width: Width of the feature, pooled along that axis; None when it cannot be tapped.
    """

    module: str
    kind: str
    shape: tuple[int, ...] | None
    problem: str
    n_parameters: int
    channel_axis: int
    width: int | None

    @property
    def output(self) -> str:
        """Shape of its output, B being the batch, or why it cannot be tapped."""
        return self.problem if self.shape is None else f"(B, {', '.join(str(length) for length in self.shape)})"


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
            raise TapError(
                f"{type(model).__name__}: expected a tensor as its output, found {type(result).__name__}. Return "
                "one tensor."
            )
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


_BATCH = 2


def list_taps(model: nn.Module, sample_shape: tuple[int, ...]) -> list[TapInfo]:
    """Run the network once, in eval mode, on two samples of zeros, and say of every submodule whether it can be tapped.

    The network is as before afterwards, also when it raises.

    Args:
        model: Any network of one input.
        sample_shape: Shape of one sample of its input, without the batch.

    Returns:
        All submodules, in the order of `named_modules`.

    Raises:
        TapError: The network raises on such samples.
    """
    modules = {module: name for name, module in model.named_modules() if name}
    outputs: dict[str, list[Any]] = {name: [] for name in modules.values()}
    axes: dict[tuple[int, ...], int] = {}  # Where the channels of the last output of a shape were.
    channel_axes: dict[str, int] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = modules[module]
        outputs[name].append(output)
        if isinstance(output, Tensor):
            shape = tuple(output.shape)
            axes[shape] = channel_axes[name] = _channel_axis(module, shape, axes.get(shape, 1))

    parameter = next(model.parameters(), None)
    zeros = torch.zeros(_BATCH, *sample_shape, device=None if parameter is None else parameter.device)
    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(record) for module in modules]
    try:
        with torch.inference_mode():
            model.eval()(zeros)
    except Exception as error:  # Whatever the user's network raises.
        raise TapError(
            f"{type(model).__name__}: cannot be run on samples of shape {tuple(sample_shape)}: "
            f"{type(error).__name__}: {error}. Give it the shape it takes."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, was_training in modes.items():
            module.training = was_training
    return [_info(name, module, outputs[name], channel_axes.get(name, 1)) for module, name in modules.items()]


def _info(name: str, module: nn.Module, outputs: list[Any], channel_axis: int) -> TapInfo:
    problem = _problem(outputs)
    shape = None if problem else tuple(outputs[0].shape[1:])
    width = None if problem else outputs[0].shape[channel_axis]
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    return TapInfo(name, type(module).__name__, shape, problem, n_parameters, channel_axis, width)


def _problem(outputs: list[Any]) -> str:
    if len(outputs) != 1:
        return f"ran {len(outputs)} times, expected once"
    (output,) = outputs
    if not isinstance(output, Tensor):
        return f"returned {type(output).__name__}, expected a tensor"
    if output.ndim < 2 or output.shape[0] != _BATCH:
        return f"returned shape {tuple(output.shape)}, expected the batch ({_BATCH}) first, then channels"
    if not output.is_floating_point():
        return f"returned {output.dtype}, expected floating point"
    return ""


def _channel_axis(module: nn.Module, shape: tuple[int, ...], before: int) -> int:
    """Return where the channels most likely are: last if a layer in it works along the last axis; else as before it."""
    layers = [layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None]
    if len(shape) < 3:
        return 1
    if not layers:
        return before
    is_last = any(
        (isinstance(layer, nn.Linear) and layer.out_features == shape[-1])
        or (isinstance(layer, nn.LayerNorm) and layer.normalized_shape[-1] == shape[-1])
        for layer in layers
    )
    return -1 if is_last else 1


def _submodule(model: nn.Module, tap: Tap) -> nn.Module:
    names = [name for name, _ in model.named_modules() if name]
    if tap.module in ("", *names):
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
