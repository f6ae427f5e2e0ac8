"""Clocks: several actions timed in turn, so that what else the machine does meets them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; on the CPU nothing is pending."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians_in_turn(
    actions: Mapping[str, Callable[[], object]], *, turns: int, device: torch.device
) -> dict[str, float]:
    """Return the median seconds of each action over all turns; a turn runs each once, and a first one is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(turns + 1):
        for name, act in actions.items():
            synchronize(device)
            started = time.perf_counter()
            act()
            synchronize(device)
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
