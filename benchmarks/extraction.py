"""Feature extraction beside the bare forward passes, on the CPU: the avmnist study's backbones, and wider ones.

    python benchmarks/extraction.py

Random samples of the study's shapes; the channels of its LeNets once and three times. "Bare" is the network alone, in
eval and inference mode on the same batches, with its weights and inputs in channels-last order, conversion from uint8
included; "extraction" is all that `prepare` does for its rows, bringing them to disk included. All batch sizes and both
in turn, on one thread; a ratio is the median of the ratios of each turn, in which the two follow each other.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.report import Verdict
from mfas_optuna.backbones import build_backbone, to_input
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import DataRequest, shape_of
from mfas_optuna.features.extract import Inputs, extract_rows, tap_widths
from mfas_optuna.features.partial import PartialFeatures
from mfas_optuna.spec import LeNetSettings, load_spec
from mfas_optuna.threads import one_thread

CPU = torch.device("cpu")
TARGET = 1.1
"""Extraction should take at most so many times the bare forward passes."""
BATCH_SIZES = (8, 16, 32, 64)
WIDER = (1, 3)
# A turn of a network should take some tenths of a second: long against the two fsyncs that end it.
N_SAMPLES = {"audio": 512, "image": 8192}


@dataclass(frozen=True)
class Measurement:
    """How long extraction takes beside the bare forward passes.

    Attributes:
        backbone: Modality and channels.
        batch_size: Samples at once.
        extraction_ms: Milliseconds a sample, median.
        bare_ms: Milliseconds a sample, median.
        ratio: Median of the ratios of each turn.
        fastest_ratio: Ratio of the fastest turns: what is left when nothing else runs.
    """

    backbone: str
    batch_size: int
    extraction_ms: float
    bare_ms: float
    ratio: float
    fastest_ratio: float


@one_thread()
def measure(
    *, batch_sizes: Sequence[int] = BATCH_SIZES, widths: Sequence[int] = WIDER, repeats: int = 5, share: float = 1.0
) -> list[Measurement]:
    """Time extraction and bare forward passes in turn.

    Args:
        batch_sizes: Samples at once.
        widths: What the channels of the study are multiplied by.
        repeats: Turns.
        share: Fraction of the samples of a turn, for a quick look.

    Returns:
        One row for each backbone, width and batch size.
    """
    spec = load_spec(Path(__file__).parents[1] / "studies" / "avmnist.toml")
    shapes = shape_of(DataRequest.of(spec, Path(), None)).inputs
    rows = []
    for modality, of_study in spec.backbones.items():
        assert isinstance(of_study, LeNetSettings)
        n_samples = max(64, round(N_SAMPLES[modality] * share))
        inputs = np.random.default_rng(0).integers(0, 256, (n_samples, *shapes[modality]), dtype=np.uint8)
        for times_wider in widths:
            settings = of_study.model_copy(update={"channels": [times_wider * n for n in of_study.channels]})
            generator = torch.Generator().manual_seed(0)
            model = build_backbone(
                settings, sample_shape=shapes[modality], n_outputs=10, generator=generator, folder=spec.folder
            )
            taps = [Tap(each.module, each.name) for each in settings.taps]
            name = f"{modality} {'-'.join(str(n) for n in settings.channels)}"
            # Wider ones take longer: as many times fewer samples.
            rows += _compare(name, model, taps, inputs[: n_samples // times_wider], batch_sizes, repeats)
    return rows


def _compare(
    name: str, model: nn.Module, taps: list[Tap], inputs: Inputs, batch_sizes: Sequence[int], repeats: int
) -> list[Measurement]:
    times: dict[int, list[tuple[float, float]]] = {batch_size: [] for batch_size in batch_sizes}
    # Leaves the model in channels-last order, for both.
    width = sum(tap_widths(model, taps, inputs, device=CPU))
    for turn in range(repeats + 1):
        for batch_size in batch_sizes:
            # First one, then the other first: what a neighbour takes from the machine drifts.
            both = [_time_extraction, _time_bare]
            found = {run: run(model, taps, inputs, batch_size, width) for run in (both if turn % 2 else both[::-1])}
            if turn > 0:  # The first turn warms up.
                times[batch_size].append((found[_time_extraction], found[_time_bare]))
    return [
        Measurement(
            backbone=name,
            batch_size=batch_size,
            extraction_ms=1e3 * statistics.median(extraction for extraction, _ in of_size) / len(inputs),
            bare_ms=1e3 * statistics.median(bare for _, bare in of_size) / len(inputs),
            ratio=statistics.median(extraction / bare for extraction, bare in of_size),
            fastest_ratio=min(extraction for extraction, _ in of_size) / min(bare for _, bare in of_size),
        )
        for batch_size, of_size in times.items()
    ]


def _time_extraction(model: nn.Module, taps: list[Tap], inputs: Inputs, batch_size: int, width: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        partial = PartialFeatures(Path(folder) / "partial", origin={}, widths={"x": width})
        with partial.appending("train", "x") as append:
            extract_rows(model, taps, inputs, batch_size=batch_size, device=CPU, take=append)
        return time.perf_counter() - started


@torch.inference_mode()
def _time_bare(model: nn.Module, taps: list[Tap], inputs: Inputs, batch_size: int, width: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(inputs), batch_size):
        x = to_input(inputs[start : start + batch_size], CPU)
        model(x.contiguous(memory_format=torch.channels_last))
    return time.perf_counter() - started


def main() -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print("| backbone | batch | extraction, ms a sample | bare forward, ms | ratio | of the fastest turns | target |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    rows = measure(batch_sizes=given.batch_sizes, repeats=given.repeats)
    for row in rows:
        print(
            f"| {row.backbone} | {row.batch_size} | {row.extraction_ms:.3f} | {row.bare_ms:.3f} | {row.ratio:.2f} "
            f"| {row.fastest_ratio:.2f} | {TARGET} |"
        )
    return [
        Verdict(f"extraction / bare, {row.backbone}, batch {row.batch_size}", row.ratio, TARGET, "at most")
        for row in rows
    ]


if __name__ == "__main__":
    main()
