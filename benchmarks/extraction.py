"""Feature extraction by batch size, beside the bare forward passes, on the CPU.

    python benchmarks/extraction.py

The audio LeNet-5 of the avmnist study on random spectrograms of its size; all batch sizes in turn, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from mfas_optuna.backbones import build_backbone, to_input
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.features.extract import extract
from mfas_optuna.spec import load_spec

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = load_spec(Path(__file__).parents[1] / "studies" / "avmnist.toml").backbones["audio"]
    model = build_backbone(settings, in_channels=1, n_classes=10, generator=torch.Generator().manual_seed(0)).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = np.random.default_rng(0).integers(0, 256, (given.samples, 1, 112, 112), dtype=np.uint8)
    taps = [Tap(name, name) for name in settings.features]
    times: dict[tuple[int, str], list[float]] = {}
    for _ in range(given.repeats):
        for batch_size in given.batch_sizes:
            started = time.perf_counter()
            extract(model, taps, inputs, batch_size=batch_size, device=CPU)
            times.setdefault((batch_size, "extraction"), []).append(time.perf_counter() - started)
            started = time.perf_counter()
            with torch.inference_mode():
                for start in range(0, given.samples, batch_size):
                    x = to_input(inputs[start : start + batch_size], CPU)
                    model(x.contiguous(memory_format=torch.channels_last))
            times.setdefault((batch_size, "bare"), []).append(time.perf_counter() - started)
    for batch_size in given.batch_sizes:
        extraction, bare = (
            statistics.median(times[batch_size, what]) / given.samples * 1e3 for what in ("extraction", "bare")
        )
        print(f"batch {batch_size}: {extraction:.2f} ms a sample, bare {bare:.2f} ms, ratio {extraction / bare:.2f}")


if __name__ == "__main__":
    main()
