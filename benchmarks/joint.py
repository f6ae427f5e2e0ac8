"""Time of one training step a network and sample: a plain module against a group of one and a group of fifteen.

    python benchmarks/joint.py

Networks of the avmnist space at three depths, on random features, in turn on one thread; medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.joint import JointFusion
from mfas_optuna.fusion.network import FusionNetwork

N_CLASSES = 10
N_ROWS = 4096
SPACE = SearchSpace(
    {"audio": [f"conv{n}" for n in range(1, 6)], "image": [f"conv{n}" for n in range(1, 4)]}, ["relu", "sigmoid"], 4
)


class Setting:
    """Features of one number of channels, and networks over them."""

    def __init__(self, channels: int, width: int) -> None:
        widths = {
            modality: {name: channels * 2**index for index, name in enumerate(names)}
            for modality, names in SPACE.modalities.items()
        }
        self.layout = FeatureLayout.of_widths(widths)
        self.width = width
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(N_ROWS, self.layout.n_columns, generator=generator)
        self.labels = torch.randint(N_CLASSES, (N_ROWS,), generator=generator)

    def reads(self, architecture: Architecture) -> list[list[slice]]:
        return [
            [
                self.layout.columns(modality, names[feature])
                for (modality, names), feature in zip(SPACE.modalities.items(), layer.features, strict=True)
            ]
            for layer in architecture.layers
        ]

    def networks(self, architectures: Sequence[Architecture]) -> list[FusionNetwork]:
        return [
            FusionNetwork(
                architecture,
                self.layout.widths(SPACE),
                SPACE.activations,
                width=self.width,
                n_classes=N_CLASSES,
                generator=torch.Generator().manual_seed(index),
            )
            for index, architecture in enumerate(architectures)
        ]


def seconds_a_step(step: Callable[[slice], None], batch_size: int, n_steps: int) -> float:
    started = time.perf_counter()
    for number in range(n_steps):
        start = number * batch_size % (N_ROWS - batch_size)
        step(slice(start, start + batch_size))
    return (time.perf_counter() - started) / n_steps


def plain_step(setting: Setting, architecture: Architecture) -> Callable[[slice], None]:
    """Autograd through one network, on rows of the features that it reads."""
    (network,) = setting.networks([architecture])
    rows = torch.cat([setting.rows[:, part] for parts in setting.reads(architecture) for part in parts], dim=1)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step(batch: slice) -> None:
        logits = network(rows[batch].split(network.feature_widths, dim=1))
        loss = functional.cross_entropy(logits, setting.labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def joint_step(setting: Setting, architectures: Sequence[Architecture]) -> Callable[[slice], None]:
    group = JointFusion(setting.networks(architectures), [setting.reads(each) for each in architectures])
    optimizer = torch.optim.AdamW([group.flat], fused=True)

    def step(batch: slice) -> None:
        group.gradient(setting.rows[batch], setting.labels[batch])
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(0)
    for width, batch_size, channels in ((16, 64, 8), (16, 64, 24), (64, 128, 24)):
        setting = Setting(channels, width)
        for depth in (1, 2, 4):
            first = sum(SPACE.size_at(shallower) for shallower in range(1, depth))
            indices = [first + rng.randrange(SPACE.size_at(depth)) for _ in range(given.networks)]
            architectures = [SPACE.architecture(index) for index in indices]
            steps = {
                "plain": (plain_step(setting, architectures[0]), 1),
                "group of 1": (joint_step(setting, architectures[:1]), 1),
                f"group of {given.networks}": (joint_step(setting, architectures), given.networks),
            }
            times: dict[str, list[float]] = {name: [] for name in steps}
            for _ in range(given.repeats):
                for name, (step, n_networks) in steps.items():
                    times[name].append(seconds_a_step(step, batch_size, 60) / batch_size / n_networks * 1e6)
            medians = {name: statistics.median(values) for name, values in times.items()}
            shown = ", ".join(f"{name} {value:.2f} us" for name, value in medians.items())
            ratio = medians["plain"] / medians[f"group of {given.networks}"]
            print(f"W {width}, batch {batch_size}, {channels} channels, depth {depth}: {shown}; ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
