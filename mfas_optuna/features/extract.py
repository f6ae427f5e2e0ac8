"""Running a frozen backbone once over all samples and keeping what its taps give, pooled.

Shapes: N samples, F width of all taps together, B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mfas_optuna.backbones import to_input
from mfas_optuna.backbones.taps import Tap, tapped
from mfas_optuna.features.pooling import pool
from mfas_optuna.progress import Progress, silent

ROWS_AT_ONCE = 2048
"""Rows that are handed over together at most."""
HAND_OVER_S = 2.0
"""Seconds after which rows are handed over although there are fewer: a slow network must not lose much work."""

Inputs = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


def pooled(tap: Tap, output: Tensor) -> Tensor:
    """Return what is kept of a tap's output: pooled, float32 (B, width), in memory of its own.

    Raises:
        TapError: It cannot be pooled.
    """
    result = pool(output, tap.channel_axis).float()
    # Nothing to average and nothing to convert: still the output itself, which the network may write over.
    return result.clone() if result.data_ptr() == output.data_ptr() else result


@contextmanager
def feature_reader(
    model: nn.Module, taps: Sequence[Tap], device: torch.device
) -> Iterator[Callable[[Inputs], list[Tensor]]]:
    """Give a function from a batch of samples to the pooled output of each tap, float32 (B, width) on the device.

    The model is put into eval mode and its convolutions' weights into channels-last order, in which images are
    computed fastest on a CPU; it is left so.

    Raises:
        TapError: A tap does not exist or, at a call, cannot be pooled.
    """
    model.eval()

    def read(samples: Inputs) -> list[Tensor]:
        x = to_input(samples, device)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        _, outputs = forward(x)
        return outputs

    # Outside of inference mode, so that the network can still be trained afterwards.
    with torch.inference_mode(mode=False):
        for parameter in model.parameters():
            # Not model.to(memory_format=...): that refuses a network that has parameters of five axes too.
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    with tapped(model, taps, pooled) as forward:
        yield read


@torch.inference_mode()
def tap_widths(model: nn.Module, taps: Sequence[Tap], inputs: Inputs, *, device: torch.device) -> list[int]:
    """Return how many columns each tap gives, from a run on the first sample.

    Raises:
        TapError: A tap does not exist or cannot be pooled.
    """
    with feature_reader(model, taps, device) as read:
        return [output.shape[1] for output in read(inputs[:1])]


@torch.inference_mode()
def extract_rows(
    model: nn.Module,
    taps: Sequence[Tap],
    inputs: Inputs,
    *,
    batch_size: int,
    device: torch.device,
    take: Callable[[int, Floats], None],
    first_row: int = 0,
    rows_at_once: int = ROWS_AT_ONCE,
    what: str = "extracting features",
    progress: Progress = silent,
) -> list[int]:
    """Hand the pooled features of every sample over, in order and each seen exactly once; return the width of each tap.

    The sum over the positions of a batch can depend on how many samples are computed together: the last bits of a
    feature may differ between batch sizes. (On the CPU, the LeNets of the embedded studies give equal bits for all
    batch sizes that were tried.) Features are bit for bit equal for equal batch size, device, threads and torch.

    Args:
        model: A trained network on the device; left in eval mode, with its weights in channels-last order.
        taps: What to read, in the order of the columns.
        inputs: (N, ...) samples; uint8 values v mean v / 255.
        batch_size: Samples at once.
        device: Where the model is.
        take: Called with the index of the first of some rows and the rows, float32 (n, F), whose memory is used again.
        first_row: Where to begin; batches are the same as from 0 when it is a multiple of the batch size.
        rows_at_once: Rows handed over together at most, rounded to whole batches.
        what: Name of the work for `progress`.
        progress: Told how far it is, and first of all where it begins when that is not row 0.

    Raises:
        TapError: A tap does not exist or cannot be pooled.
    """
    total = len(inputs)
    capacity = max(1, rows_at_once // batch_size) * batch_size
    buffer: Tensor | None = None
    widths: list[int] = []
    begun = first_row
    last = time.monotonic()
    if first_row:
        progress(what, first_row, total)
    with feature_reader(model, taps, device) as read:
        for start in range(first_row, total, batch_size):
            stop = min(start + batch_size, total)
            outputs = read(inputs[start:stop])
            if buffer is None:
                widths = [output.shape[1] for output in outputs]
                buffer = torch.empty((min(capacity, total - first_row), sum(widths)), device=device)
            torch.cat(outputs, dim=1, out=buffer[start - begun : stop - begun])
            now = time.monotonic()
            if stop == total or stop - begun >= capacity or now - last >= HAND_OVER_S:
                # The one place where an accelerator is waited for.
                take(begun, buffer[: stop - begun].cpu().numpy())
                begun, last = stop, now
            progress(what, stop, total)
    return widths


def extract(
    model: nn.Module,
    taps: Sequence[Tap],
    inputs: Inputs,
    *,
    batch_size: int,
    device: torch.device,
    what: str = "extracting features",
    progress: Progress = silent,
) -> tuple[Floats, list[int]]:
    """Return the pooled features of every sample in memory, with the width of each tap; see `extract_rows`.

    Returns:
        A float32 array (N, F), and the widths of the taps, which add up to F.

    Raises:
        TapError: A tap does not exist or cannot be pooled.
    """
    parts: list[Floats] = []
    widths = extract_rows(
        model,
        taps,
        inputs,
        batch_size=batch_size,
        device=device,
        take=lambda _, rows: parts.append(rows.copy()),
        what=what,
        progress=progress,
    )
    if not parts:
        raise ValueError("Expected at least one sample to extract features from, found none.")
    return np.concatenate(parts), widths
