"""Time of one training step a network and sample: a plain module, a group of one, a group of fifteen, and the floor.

    python benchmarks/joint.py

Random networks of one depth on random features, with their fused AdamW, on one thread. What a row compares is taken in
turn, a few steps at a time, so that what else the machine does hits them alike; the table has medians (or `--minima`).

"plain" is a module under autograd on rows gathered for it, "group of 1" a group of one network; both are means over the
networks of the group, each alone for a few steps. "floor" is what no way of training the group can avoid, by
operations that are called once each on buffers that are kept:

- for each feature, the matrix product of the stacked weights of all layers that read it with its columns, and that of
  the gradient by these products with its columns;
- for h, forward, by its weights and by itself, one matrix product each with as many operations as all layers above the
  first need; for the heads likewise;
- AdamW's memory traffic: read and write three times the parameters, read their gradients.

Nothing else is in it: no activation, no sum over modalities, no loss, no bias, none of AdamW's arithmetic.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.report import Verdict
from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.joint import JointFusion
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.training.adamw import FlatAdamW

N_ROWS = 2048


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: Of the data whose shapes these are.
        widths: For each modality, the width of each feature.
        n_classes: C.
        width: H.
        batch_size: B.
        depth: Of all networks.
        target: The least ratio of plain to group that is asked for.
        floor_target: The greatest ratio of group to floor that is asked for, if any.
    """

    name: str
    widths: Mapping[str, Sequence[int]]
    n_classes: int
    width: int
    batch_size: int
    depth: int
    target: float
    floor_target: float | None = None


@dataclass(frozen=True)
class Row:
    """Microseconds a network and sample of one case."""

    case: Case
    n_networks: int
    plain: float
    group_of_one: float
    group: float
    floor: float

    @property
    def plain_by_group(self) -> float:
        return self.plain / self.group

    @property
    def one_by_group(self) -> float:
        return self.group_of_one / self.group

    @property
    def group_by_floor(self) -> float:
        return self.group / self.floor

    def verdicts(self) -> list[Verdict]:
        """Return the ratios beside their targets."""
        case = self.case
        what = f"step, {case.name}, W {case.width}, depth {case.depth}"
        found = [Verdict(f"{what}: plain / group", self.plain_by_group, case.target)]
        if case.floor_target is not None:
            found.append(Verdict(f"{what}: group / floor", self.group_by_floor, case.floor_target, "at most"))
        return found


def avmnist(channels: int) -> dict[str, list[int]]:
    return {"audio": [channels * 2**n for n in range(5)], "image": [channels * 2**n for n in range(3)]}


MMIMDB = {"text": [128, 128, 128], "image": [64, 128, 256, 512, 512, 4096]}
NTU = {"video": [256, 512, 1024, 2048], "skeleton": [256, 512, 512, 1024]}

CASES = (
    *(Case("avmnist, 8 ch", avmnist(8), 10, 16, 64, depth, 6.0, 3.0) for depth in (1, 2, 3, 4)),
    *(Case("avmnist, 24 ch", avmnist(24), 10, 16, 64, depth, 6.0, 3.0) for depth in (1, 2, 3, 4)),
    *(Case("avmnist, 24 ch", avmnist(24), 10, 64, 128, depth, 1.8, 2.0) for depth in (1, 2, 3, 4)),
    *(Case("mmimdb-like", MMIMDB, 23, 16, 64, depth, 2.5) for depth in (1, 2, 4)),
    *(Case("ntu-like", NTU, 60, width, 64, depth, 1.5) for width in (16, 64) for depth in (1, 2, 4)),
)
Step = Callable[[slice], object]


class _Setting:
    """Random features and networks of a case."""

    def __init__(self, case: Case, n_networks: int) -> None:
        self.case = case
        names = {modality: [f"feature{n}" for n in range(len(widths))] for modality, widths in case.widths.items()}
        self.space = SearchSpace(names, ["relu", "sigmoid"], 4)
        self.layout = FeatureLayout.of_widths(
            {modality: dict(zip(names[modality], widths, strict=True)) for modality, widths in case.widths.items()}
        )
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(N_ROWS, self.layout.n_columns, generator=generator)
        self.labels = torch.randint(case.n_classes, (N_ROWS,), generator=generator)
        first = sum(self.space.size_at(shallower) for shallower in range(1, case.depth))
        rng = random.Random(0)
        indices = [first + rng.randrange(self.space.size_at(case.depth)) for _ in range(n_networks)]
        self.architectures = [self.space.architecture(index) for index in indices]

    def reads(self, architecture: Architecture) -> list[list[tuple[slice, ...]]]:
        return [
            [
                (self.layout.columns(modality, names[feature]),)
                for (modality, names), feature in zip(self.space.modalities.items(), layer.features, strict=True)
            ]
            for layer in architecture.layers
        ]

    def networks(self, architectures: Sequence[Architecture]) -> list[FusionNetwork]:
        return [
            FusionNetwork(
                architecture,
                self.layout.widths(self.space),
                self.space.activations,
                width=self.case.width,
                n_outputs=self.case.n_classes,
                generator=torch.Generator().manual_seed(index),
            )
            for index, architecture in enumerate(architectures)
        ]

    def plain(self, architecture: Architecture) -> Step:
        (network,) = self.networks([architecture])
        rows = torch.cat([self.rows[:, part] for parts in self.reads(architecture) for (part,) in parts], dim=1)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)

        def step(batch: slice) -> None:
            logits = network(rows[batch].split(network.feature_widths, dim=1))
            loss = functional.cross_entropy(logits, self.labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    def joint(self, architectures: Sequence[Architecture]) -> Step:
        group = JointFusion(self.networks(architectures), [self.reads(each) for each in architectures])
        optimizer = FlatAdamW(group.flat, weight_decay=1e-2)

        def step(batch: slice) -> None:
            group.gradient(self.rows[batch], self.labels[batch])
            optimizer.step(1e-3)

        return step

    def floor(self) -> Step:
        case = self.case
        readers: dict[tuple[int, int], int] = {}
        for architecture in self.architectures:
            for parts in self.reads(architecture):
                for (part,) in parts:
                    readers[part.start, part.stop] = readers.get((part.start, part.stop), 0) + 1
        inner = len(self.architectures) * (case.depth - 1) * case.width
        heads = len(self.architectures) * case.n_classes
        products = [(slice(*part), *_product(n * case.width, part[1] - part[0], case)) for part, n in readers.items()]
        # By h there is a third product, of the shape of the first.
        turned = [
            (*_product(rows, case.width, case), torch.randn(case.width, case.batch_size)) for rows in (inner, heads)
        ]
        sizes = [weight.numel() for _, weight, _, _ in products] + [weight.numel() for weight, _, _, _ in turned]
        state, gradient = torch.zeros(3 * sum(sizes)), torch.zeros(sum(sizes))

        @torch.no_grad()
        def step(batch: slice) -> None:
            rows = self.rows[batch]
            for columns, weight, product, d_weight in products:
                torch.mm(weight, rows[:, columns].t(), out=product)
                torch.mm(product, rows[:, columns], out=d_weight)
            for weight, product, d_weight, h in turned:
                if len(weight):
                    torch.mm(weight, h, out=product)
                    torch.mm(product, h.t(), out=d_weight)
                    torch.mm(weight, h, out=product)
            state.add_(1.0)
            gradient.sum()

        return step


def _product(rows: int, columns: int, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight, and where its product with a batch and its gradient go."""
    return torch.randn(rows, columns), torch.empty(rows, case.batch_size), torch.empty(rows, columns)


def measure(
    cases: Sequence[Case] = CASES, *, n_networks: int = 15, repeats: int = 40, n_steps: int = 5, minima: bool = False
) -> list[Row]:
    """Return a row for each case, of medians or minima over the repeats of the mean time of a few steps."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(case, n_networks, repeats, n_steps, minima) for case in cases]
    finally:
        torch.set_num_threads(n_threads)


def _row(case: Case, n_networks: int, repeats: int, n_steps: int, minima: bool) -> Row:
    setting = _Setting(case, n_networks)
    columns = [
        [setting.plain(each) for each in setting.architectures],
        [setting.joint([each]) for each in setting.architectures],
        [setting.joint(setting.architectures)],
        [setting.floor()],
    ]
    times: list[list[float]] = [[] for _ in columns]
    for repeat in range(repeats + 3):
        for steps, found in zip(columns, times, strict=True):
            seconds = sum(_seconds_a_step(step, case.batch_size, n_steps) for step in steps)
            if repeat >= 3:  # Warm by now.
                found.append(seconds / case.batch_size / n_networks * 1e6)
    return Row(case, n_networks, *(min(found) if minima else statistics.median(found) for found in times))


def _seconds_a_step(step: Step, batch_size: int, n_steps: int) -> float:
    step(slice(batch_size))  # What the other columns left in the caches is not this one's matter.
    started = time.perf_counter()
    for number in range(n_steps):
        start = number * batch_size % (N_ROWS - batch_size)
        step(slice(start, start + batch_size))
    return (time.perf_counter() - started) / n_steps


def main() -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--minima", action="store_true", help="minima over the repeats in place of medians")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    given = parser.parse_args()
    print(
        "| shapes | W | batch | depth | plain | group of 1 | group | floor | plain/group | at least | of 1/group |",
        end="",
    )
    print(" group/floor | at most |\n|---|" + "---:|" * 12)
    found: list[Verdict] = []
    for case in CASES:
        if given.only not in case.name:
            continue
        (row,) = measure([case], n_networks=given.networks, repeats=given.repeats, minima=given.minima)
        figures = " | ".join(f"{value:.2f}" for value in (row.plain, row.group_of_one, row.group, row.floor))
        limit = "" if case.floor_target is None else f"{case.floor_target:g}"
        print(
            f"| {case.name} | {case.width} | {case.batch_size} | {case.depth} | {figures} | {row.plain_by_group:.2f} | "
            f"{case.target:g} | {row.one_by_group:.2f} | {row.group_by_floor:.2f} | {limit} |",
            flush=True,
        )
        found += row.verdicts()
    return found


if __name__ == "__main__":
    main()
