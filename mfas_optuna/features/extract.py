"""Running a frozen backbone once over all samples and keeping what its taps give, pooled.

Shapes: N samples, F width of all taps together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mfas_optuna.backbones import to_input
from mfas_optuna.backbones.taps import Tap, tapped_forward
from mfas_optuna.features.pooling import pool
from mfas_optuna.progress import Progress, silent


@torch.inference_mode()
def extract(
    model: nn.Module,
    taps: Sequence[Tap],
    inputs: npt.NDArray[np.generic],
    *,
    batch_size: int,
    device: torch.device,
    what: str = "extracting features",
    progress: Progress = silent,
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return the pooled features of every sample, each seen exactly once, with the width of each tap.

    The model runs in eval mode and is left in it.

    Args:
        model: A trained network on the device.
        taps: What to read, in the order of the columns.
        inputs: (N, ...) samples; uint8 values v mean v / 255.
        batch_size: Samples at once.
        device: Where the model is.
        what: Name of the work for `progress`.
        progress: Told how far it is.

    Returns:
        A float32 array (N, F), and the widths of the taps, which add up to F.

    Raises:
        TapError: A tap does not exist or cannot be pooled.
    """
    model.eval()
    rows: npt.NDArray[np.float32] | None = None
    widths: list[int] = []
    total = len(inputs)
    for start in range(0, total, batch_size):
        x = to_input(inputs[start : start + batch_size], device)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        _, outputs = tapped_forward(model, taps, x)
        pooled = [pool(output, tap.channel_axis).float() for output, tap in zip(outputs, taps, strict=True)]
        if rows is None:
            widths = [tensor.shape[1] for tensor in pooled]
            rows = np.empty((total, sum(widths)), dtype=np.float32)
        rows[start : start + len(x)] = torch.cat(pooled, dim=1).cpu().numpy()
        progress(what, min(start + batch_size, total), total)
    if rows is None:
        raise ValueError("Expected at least one sample to extract features from, found none.")
    return rows, widths
