"""The reference procedure: how a network of the search trains where nothing is cached, in plain PyTorch.

    python -m benchmarks.reference_procedure --channels-factor 1 3

For every batch both backbones run on its images and spectrograms, their tapped features are pooled, the fusion network
runs on them, and Adam takes a step on its weights alone (MFAS section 3.2: the backbones stay as they are during the
search). Written from the paper, on random data in memory, without a data loader: what is timed is computation alone.

- unfrozen: nobody told the backbones that they are frozen. They are in train mode, gradients flow through them and are
  thrown away. So works the paper authors' code.
- frozen: no gradient is asked of them, and they are in eval mode. The least that the procedure can do.
- frozen, channels last: the same in the memory layout that is fastest on a CPU.

The figure is microseconds per network, training sample and epoch of a whole training, in which the network is scored
on a tenth as many validation samples. All variants in turn, medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.report import machine, table
from benchmarks.shapes import VALIDATION_FRACTION, avmnist, avmnist_backbones
from benchmarks.timing import medians_in_turn
from mfas_optuna.backbones import build_backbone
from mfas_optuna.space import Architecture, SearchSpace

INPUT_SHAPES = {"audio": (1, 112, 112), "image": (1, 28, 28)}
N_CLASSES = 10
VARIANTS = ("unfrozen", "frozen", "frozen, channels last")
SIGMAS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid}


class ReferenceNetwork(nn.Module):
    """Two backbones and a fusion network on their pooled hidden layers (MFAS eq. 1 and 2)."""

    def __init__(
        self,
        backbones: Mapping[str, nn.Module],
        widths: Mapping[str, Mapping[str, int]],
        architecture: Architecture,
        space: SearchSpace,
        width: int,
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleDict(backbones)
        self.reads = [
            [
                (modality, names[feature])
                for (modality, names), feature in zip(space.modalities.items(), layer.features, strict=True)
            ]
            for layer in architecture.layers
        ]
        self.sigmas = [SIGMAS[space.activations[layer.activation]] for layer in architecture.layers]
        self.fusion_layers = nn.ModuleList(
            nn.Linear(sum(widths[modality][name] for modality, name in read) + (width if index > 0 else 0), width)
            for index, read in enumerate(self.reads)
        )
        self.head = nn.Linear(width, N_CLASSES)
        self.tapped: dict[tuple[str, str], Tensor] = {}
        for tap in {tap for read in self.reads for tap in read}:
            modality, name = tap
            backbones[modality].get_submodule(name).register_forward_hook(self._keep(tap))

    def _keep(self, tap: tuple[str, str]) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.tapped[tap] = output

        return hook

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return what the search trains."""
        return [*self.fusion_layers.parameters(), *self.head.parameters()]

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits (batch, classes)."""
        for modality, backbone in self.backbones.items():
            backbone(inputs[modality])
        pooled = {tap: output.mean(dim=(2, 3)) for tap, output in self.tapped.items()}
        self.tapped.clear()
        hidden: list[Tensor] = []
        for read, linear, sigma in zip(self.reads, self.fusion_layers, self.sigmas, strict=True):
            hidden = [sigma(linear(torch.cat([*(pooled[tap] for tap in read), *hidden], dim=1)))]
        logits: Tensor = self.head(hidden[0])
        return logits


@dataclass(frozen=True)
class Samples:
    """Pairs in memory, as uint8, with their labels."""

    inputs: Mapping[str, Tensor]
    labels: Tensor

    @staticmethod
    def random(n: int, seed: int) -> Samples:
        generator = torch.Generator().manual_seed(seed)
        inputs = {
            modality: torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)
            for modality, shape in INPUT_SHAPES.items()
        }
        return Samples(inputs, torch.randint(N_CLASSES, (n,), generator=generator))

    def batch(
        self, rows: Tensor, device: torch.device, memory_format: torch.memory_format
    ) -> tuple[dict[str, Tensor], Tensor]:
        inputs = {
            modality: values[rows].to(device).float().div_(255).contiguous(memory_format=memory_format)
            for modality, values in self.inputs.items()
        }
        return inputs, self.labels[rows].to(device)


def train(
    network: ReferenceNetwork,
    samples: Samples,
    validation: Samples,
    *,
    epochs: int,
    batch_size: int,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> float:
    """Train the fusion weights in place, and return the last validation accuracy."""
    optimizer = torch.optim.Adam(network.fusion_parameters(), lr=3e-3)
    accuracy = 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(samples.labels)).split(batch_size):
            inputs, labels = samples.batch(rows, device, memory_format)
            loss = functional.cross_entropy(network(inputs), labels)
            network.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        hits = 0
        was_training = network.backbones.training
        network.backbones.eval()
        with torch.no_grad():
            for rows in torch.arange(len(validation.labels)).split(batch_size):
                inputs, labels = validation.batch(rows, device, memory_format)
                hits += int((network(inputs).argmax(dim=1) == labels).sum())
        network.backbones.train(was_training)
        accuracy = hits / len(validation.labels)
    return accuracy


def build(
    architecture: Architecture, *, channels_factor: int, width: int, variant: str, device: torch.device
) -> ReferenceNetwork:
    """Return a network with untrained backbones of the avmnist study, frozen or not."""
    shapes = avmnist(channels_factor)
    backbones = {
        modality: build_backbone(
            settings,
            sample_shape=INPUT_SHAPES[modality],
            n_outputs=N_CLASSES,
            generator=torch.Generator().manual_seed(0),
            folder=Path(),
        )
        for modality, settings in avmnist_backbones(channels_factor).items()
    }
    network = ReferenceNetwork(backbones, shapes.widths, architecture, shapes.space, width).to(device)
    if variant != "unfrozen":
        network.backbones.requires_grad_(False).eval()
    return network


def actions(
    architecture: Architecture,
    *,
    channels_factor: int,
    width: int,
    batch_size: int,
    n_batches: int,
    device: torch.device,
    variants: Sequence[str] = VARIANTS,
) -> dict[str, Callable[[], float]]:
    """Return for each variant what trains such a network for one epoch of `n_batches` batches."""
    n_samples = n_batches * batch_size
    samples = Samples.random(n_samples, seed=0)
    validation = Samples.random(max(1, round(VALIDATION_FRACTION * n_samples)), seed=1)

    def action(variant: str) -> Callable[[], float]:
        network = build(architecture, channels_factor=channels_factor, width=width, variant=variant, device=device)
        memory_format = torch.contiguous_format
        if variant == "frozen, channels last":
            memory_format = torch.channels_last
            network.backbones.to(memory_format=memory_format)  # type: ignore[call-overload]
        return lambda: train(
            network,
            samples,
            validation,
            epochs=1,
            batch_size=batch_size,
            device=device,
            memory_format=memory_format,
        )

    return {variant: action(variant) for variant in variants}


@dataclass(frozen=True)
class Row:
    """Microseconds per network, sample and epoch of one variant."""

    setting: str
    variant: str
    microseconds: float


def measure(
    channels_factor: int,
    *,
    width: int = 16,
    batch_size: int = 64,
    n_batches: int = 2,
    turns: int = 5,
    device: torch.device | None = None,
) -> list[Row]:
    """Time all variants on a network of depth 2."""
    where = device or torch.device("cpu")
    shapes = avmnist(channels_factor)
    (architecture,) = shapes.draw(2, 1)
    seconds = medians_in_turn(
        actions(
            architecture,
            channels_factor=channels_factor,
            width=width,
            batch_size=batch_size,
            n_batches=n_batches,
            device=where,
        ),
        turns=turns,
        device=where,
    )
    return [Row(shapes.name, variant, seconds[variant] / (n_batches * batch_size) * 1e6) for variant in VARIANTS]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels-factor", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(machine())
    rows = [
        row
        for factor in given.channels_factor
        for row in measure(factor, n_batches=given.batches, turns=given.turns, device=torch.device(given.device))
    ]
    shown = [[row.setting, row.variant, f"{row.microseconds:,.0f}"] for row in rows]
    print(table(["setting", "reference procedure", "us a network, sample and epoch"], shown))


if __name__ == "__main__":
    main()
