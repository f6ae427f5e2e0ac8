"""How many samples a backbone is run on at once: found by a short trial, where there is enough work to gain from it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.features.extract import Inputs, feature_reader

DEFAULT_BATCH_SIZE = 16
"""Without a trial. Larger batches leave the caches of a CPU (benchmarks/RESULTS.md)."""
CPU_CANDIDATES = (8, 16, 32, 64)
CUDA_CANDIDATES = (32, 128, 512, 1024)

_ROUNDS = 3
_FEWEST_TIMED_SAMPLES = 64
_LARGEST_SHARE = 0.03


def n_trial_samples(candidates: Sequence[int]) -> int:
    """Return how many samples a trial of these batch sizes runs, the round that warms up included."""
    return (_ROUNDS + 1) * sum(max(_FEWEST_TIMED_SAMPLES, candidate) for candidate in candidates)


@torch.inference_mode()
def choose_batch_size(
    model: nn.Module,
    taps: Sequence[Tap],
    inputs: Inputs,
    *,
    n_samples: int,
    device: torch.device,
    candidates: Sequence[int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the batch size that takes the least time a sample, by medians of a few interleaved rounds.

    Where the trial would take more than 3 % of the whole it is left out, and `DEFAULT_BATCH_SIZE` is returned. A
    candidate that the device has no memory for drops out.

    Args:
        model: A trained network on the device; left in eval mode, with its weights in channels-last order.
        taps: What is read.
        inputs: Samples to time with: the first ones.
        n_samples: How many samples will be run in all.
        device: Where the model is.
        candidates: Batch sizes to choose from, rising; those of the device when None.
        clock: Seconds, for the timings.

    Raises:
        TapError: A tap does not exist or cannot be pooled.
    """
    if candidates is None:
        candidates = CUDA_CANDIDATES if device.type == "cuda" else CPU_CANDIDATES
    candidates = [candidate for candidate in candidates if candidate <= len(inputs)]
    if len(candidates) < 2 or n_trial_samples(candidates) > _LARGEST_SHARE * n_samples:
        return DEFAULT_BATCH_SIZE
    times: dict[int, list[float]] = {candidate: [] for candidate in candidates}
    with feature_reader(model, taps, device) as read:
        for turn in range(_ROUNDS + 1):
            for candidate in list(times):
                timed = min(len(inputs), max(_FEWEST_TIMED_SAMPLES, candidate)) // candidate * candidate
                started = clock()
                try:
                    for start in range(0, timed, candidate):
                        outputs = read(inputs[start : start + candidate])
                    outputs[-1].sum().item()  # An accelerator is done only when something is read.
                except torch.OutOfMemoryError:
                    del times[candidate]
                    continue
                if turn > 0:
                    times[candidate].append((clock() - started) / timed)
    if not times:
        return min(candidates)
    return min(times, key=lambda candidate: (statistics.median(times[candidate]), candidate))
